//! What one core works with, and what all cores share.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio_util::sync::CancellationToken;

use super::{alarm::Alarms, observe::Observation};
use crate::{
    answer::refusal::Refusal,
    claim::Claims,
    config::Config,
    ops::{
        log::{Level, Log, chain},
        metrics::Metrics,
        words::CodeClass,
    },
    request::Secret,
    upstream::{Affinity, Connect, Fleet, SendError, Settings, Upstream},
};

/// Length of a tick of the coarse clock.
pub const TICK: Duration = Duration::from_millis(100);

/// What all cores share: the configuration, the claim table, counters.
pub struct Gate {
    pub config: Config,
    pub secret: Secret,
    pub claims: Arc<Claims>,
    pub observation: Observation,
    pub metrics: Arc<Metrics>,
    pub log: Arc<Log>,
    pub buffers: Arc<Budget>,
    /// The servers of each upstream.
    pub fleets: Vec<Arc<Fleet>>,
    pub draining: AtomicBool,
    /// The drain is cut short: who still waits is told what is known, since nobody will be there to tell it later.
    pub cut: CancellationToken,
    /// Client connections that are open, over all cores.
    pub connections: AtomicUsize,
    /// Names this process in the log.
    pub replica: String,
}

impl Gate {
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Tells of an exchange that the shop did not answer.
    pub fn upstream_failed(&self, upstream: usize, error: &SendError) {
        let name = &self.config.upstreams[upstream].name;
        self.log.event(Level::Warn, "upstream-failed", &[("upstream", name), ("error", &chain(error))]);
    }

    /// Counts and tells of a refusal outside a guarded exchange.
    pub fn refused(&self, refusal: &Refusal, route: Option<usize>, id: &str, client: &str) {
        let metrics = route.map_or_else(|| self.metrics.unrouted(), |route| self.metrics.route(route));
        metrics.refusal(refusal.reason());
        let fields =
            [("name", refusal.name()), ("request_id", id), ("client", client), ("cause", &refusal.chain())];
        self.log.event(Level::Info, "refused", &fields);
    }

    /// Counts an answer of the shop's, or that none came: once for each request.
    pub fn upstream_answered(&self, upstream: usize, class: CodeClass, took: Duration) {
        if let Some(metrics) = self.metrics.upstream(upstream) {
            metrics.answered(class, took);
        }
    }
}

/// What one core has of its own. Nothing here is ever locked.
pub struct Core {
    pub gate: Arc<Gate>,
    pub upstreams: Vec<Upstream>,
    /// Ticks since the core started; see [`TICK`].
    pub clock: Rc<Cell<u64>>,
    pub alarms: Rc<Alarms>,
    random: RefCell<SmallRng>,
}

impl Core {
    pub fn new(gate: Arc<Gate>, connector: &Rc<dyn Connect>) -> Rc<Self> {
        let upstreams = gate
            .config
            .upstreams
            .iter()
            .zip(&gate.fleets)
            .map(|(upstream, fleet)| {
                Upstream::new(settings(upstream), Arc::clone(fleet), Rc::clone(connector))
            })
            .collect();
        let random = RefCell::new(SmallRng::from_rng(&mut rand::rng()));
        Rc::new(Self { gate, upstreams, clock: Rc::default(), alarms: Rc::default(), random })
    }

    /// What an unguarded exchange is known by: the client's address.
    pub fn affinity(&self, upstream: usize, client: impl FnOnce() -> Option<IpAddr>) -> Option<Affinity> {
        if !self.upstreams[upstream].wants_affinity() {
            return None;
        }
        Some(match client()? {
            IpAddr::V4(address) => Affinity::of(&address.octets()),
            IpAddr::V6(address) => Affinity::of(&address.octets()),
        })
    }

    /// 128 random bits for ids that are no secrets.
    pub fn random(&self) -> u128 {
        self.random.borrow_mut().random()
    }
}

fn settings(upstream: &crate::config::Upstream) -> Settings {
    Settings {
        name: upstream.name.clone(),
        connect_timeout: upstream.connect_timeout,
        idle_timeout: upstream.idle_timeout,
        idle_max: upstream.idle_per_core_max,
    }
}

/// Seconds since 1970 on the wall clock: for `Age` and the log only, never for leases.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The sum of everything that is collected in memory: request bodies, answers being captured.
pub struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max })
    }

    /// Bytes that are collected right now.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }
}

/// A part of the budget; it grows with what is collected and is given back when dropped.
pub struct Lent {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Lent {
    pub fn none(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// These bytes, counted until the last who holds on to them has let go: hyper's buffers do until they are written.
    #[must_use]
    pub fn around(self, bytes: Bytes) -> Bytes {
        match self.bytes {
            0 => bytes,
            _ => Bytes::from_owner(Held { bytes, _lent: self }),
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes as much more. False, and nothing taken, when the budget is spent.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let before = self.budget.used.fetch_add(bytes, Relaxed);
        if before.saturating_add(bytes) > self.budget.max {
            self.budget.used.fetch_sub(bytes, Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }
}

/// Bytes with what they take of the budget.
struct Held {
    bytes: Bytes,
    _lent: Lent,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_against_the_budget_until_the_last_holder_lets_go() {
        let budget = Budget::new(100);
        let mut lent = Lent::none(&budget);
        assert!(lent.grow(60));
        let mut bytes = lent.around(Bytes::from(vec![b'x'; 60]));
        let being_written = bytes.split_off(10);
        drop(bytes);
        assert_eq!((budget.used(), being_written.len()), (60, 50));
        drop(being_written);
        assert_eq!(budget.used(), 0);
    }
}
