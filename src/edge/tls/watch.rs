//! Watching the files of certificates: what has changed is served from the next handshake on.
//!
//! Files are looked at by their contents, every two seconds, from a thread of its own: a folder that is exchanged
//! whole, a link that points elsewhere and a network drive are seen like that, and a drive that hangs holds up nobody.
//! What cannot be used changes nothing, and is told once.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    Expiry, Tls,
    files::{Contents, Hash},
};
use crate::ops::{
    log::{Level, Log},
    metrics::Metrics,
    words::Reloaded,
};

const PERIOD: Duration = Duration::from_secs(2);
/// How long before its end a certificate is warned of, once at each start and exchange.
const WARNED_BEFORE_SECONDS: i64 = 7 * 24 * 3600;

/// One listener's files.
struct Watched {
    tls: Arc<Tls>,
    served: Hash,
    /// Seen once: they may still be being written, so they are used when they are seen again.
    fresh: Option<Hash>,
    refused: Option<Hash>,
}

/// Dropping it ends the thread.
pub struct Watch {
    _until: mpsc::Sender<()>,
}

/// Watches the files of all these. `None` where there is nothing to watch.
///
/// # Errors
/// Where the system gives no thread.
pub fn begin(all: Vec<Arc<Tls>>, metrics: Arc<Metrics>, log: Arc<Log>) -> std::io::Result<Option<Watch>> {
    if all.is_empty() {
        return Ok(None);
    }
    let mut all: Vec<Watched> = all.into_iter().map(Watched::new).collect();
    let (until, ended) = mpsc::channel::<()>();
    thread::Builder::new().name("certificates".to_owned()).spawn(move || {
        while ended.recv_timeout(PERIOD) == Err(mpsc::RecvTimeoutError::Timeout) {
            for watched in &mut all {
                watched.look(&metrics, &log);
            }
        }
    })?;
    Ok(Some(Watch { _until: until }))
}

impl Watched {
    fn new(tls: Arc<Tls>) -> Self {
        let served = tls.first;
        Self { tls, served, fresh: None, refused: None }
    }

    fn look(&mut self, metrics: &Metrics, log: &Log) {
        let contents = Contents::read(&self.tls.files);
        let hash = contents.hash();
        if hash == self.served || self.refused == Some(hash) {
            self.fresh = None;
            return;
        }
        if self.fresh.replace(hash) != Some(hash) {
            return;
        }
        self.fresh = None;
        match self.tls.exchange(&contents) {
            Ok(expiries) => {
                (self.served, self.refused) = (hash, None);
                metrics.edge.certificates_reloaded(Reloaded::Done);
                log.event(Level::Info, "certificates-exchanged", &[("first", &self.first())]);
                tell(&expiries, metrics, log);
            }
            Err(error) => {
                self.refused = Some(hash);
                metrics.edge.certificates_reloaded(Reloaded::Failed);
                let fields = [("first", self.first()), ("error", error.to_string())];
                let fields = fields.each_ref().map(|(name, text)| (*name, text.as_str()));
                log.event(Level::Error, "certificates-kept", &fields);
            }
        }
    }

    /// What a listener's certificates are called in the log: by the first of them.
    fn first(&self) -> String {
        self.tls.files.certificates.first().map_or_else(String::new, |one| shown(&one.chain))
    }
}

/// Shows when certificates end, and warns of those that do so soon.
pub fn tell(expiries: &[Expiry], metrics: &Metrics, log: &Log) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    for Expiry { chain, not_after } in expiries {
        metrics.edge.certificate_ends(&shown(chain), *not_after);
        let left = not_after.saturating_sub(now);
        if left < WARNED_BEFORE_SECONDS {
            let name = if left < 0 { "certificate-expired" } else { "certificate-expires-soon" };
            let fields = [("certificate", &*shown(chain)), ("seconds_left", &*left.to_string())];
            log.event(Level::Warn, name, &fields);
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
