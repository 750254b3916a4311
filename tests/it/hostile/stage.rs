//! A gateway, the recording shop behind it, and a bystander: everything that a case needs.

use std::{
    net::SocketAddr,
    sync::Once,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use oncegate::{config::Config, server::Server};
use rand::{RngExt as _, SeedableRng, rngs::SmallRng};

use super::{
    client::{Answer, Raw},
    shop::{BYSTANDER, Shop},
    strict::Request,
};

/// The three ways of a request: guarded, only observed, and passed on.
pub(super) const ROUTES: &str = r#"
[[route]]
name = "checkout"
upstream = "shop"
match = { methods = ["POST"], path = "/checkout" }
guard = { mode = "once", order = ["cookie:session"], identity = ["cookie:session"] }

[[route]]
name = "observed"
upstream = "shop"
match = { path = "/observed" }
guard = { mode = "once", order = ["cookie:session"], identity = ["cookie:session"], enforce = false, body_max = "64KiB" }

[[route]]
name = "everything-else"
upstream = "shop"
"#;

static PANICS: AtomicUsize = AtomicUsize::new(0);

pub(super) struct Stage {
    server: Option<Server>,
    pub(super) gate: SocketAddr,
    pub(super) shop: Shop,
    bystander: Raw,
    random: SmallRng,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self::with(ROUTES)
    }

    /// With routes of its own, after which may follow any other table.
    pub(super) fn with(routes: &str) -> Self {
        count_panics();
        let shop = Shop::open();
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("oncegate.toml");
        let text = format!(
            "listener = [{{ address = \"127.0.0.1:0\" }}]\n\
             upstream = [{{ name = \"shop\", servers = [\"http://{}\"] }}]\n\
             [log]\nlevel = \"error\"\naccess = false\n[runtime]\nworkers = 1\n{routes}",
            shop.address
        );
        std::fs::write(&file, text).expect("a file");
        let checked = Config::load(&file).unwrap_or_else(|problems| panic!("{}", problems.lines()));
        let server = Server::start(checked.config).expect("the gateway starts");
        let gate = server.addresses[0].parse().expect("an address");
        let bystander = Raw::connect(gate);
        Self { server: Some(server), gate, shop, bystander, random: SmallRng::seed_from_u64(7) }
    }

    /// Sends bytes on a connection of their own, split at `cuts`.
    pub(super) fn open(&self, bytes: &[u8], cuts: &[usize]) -> Raw {
        let mut raw = Raw::connect(self.gate);
        raw.send_cut(bytes, cuts);
        raw
    }

    /// One request, one answer, on a fresh connection.
    pub(super) fn ask(&self, bytes: &[u8]) -> Answer {
        self.open(bytes, &[]).answer().expect("an answer")
    }

    /// One request, its answer, and what the shop saw of it.
    pub(super) fn ask_and_look(&self, bytes: &[u8]) -> (Answer, Vec<Request>) {
        let mark = self.shop.mark();
        let answer = self.ask(bytes);
        (answer, self.shop.since(mark))
    }

    /// The other connection still works, and the shop has never seen anything that a strict reader does not take.
    pub(super) fn check(&mut self, after: &str) {
        let request = format!("GET {BYSTANDER} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        self.bystander.send(request.as_bytes());
        let answer = self.bystander.answer();
        let answer = answer.unwrap_or_else(|| panic!("the bystander was hung up on after {after}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "fine"), "the bystander after {after}");
        assert_eq!(self.shop.unclean(), [], "what the shop was sent by {after}");
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "the gateway panicked at {after}");
    }

    /// Some places to split so many bytes: nowhere, at random, and between all of them.
    pub(super) fn splits(&mut self, length: usize) -> Vec<Vec<usize>> {
        let mut some: Vec<usize> = (0..3).map(|_| self.random.random_range(0..=length)).collect();
        some.sort_unstable();
        let mut splits = vec![Vec::new(), some];
        if length <= 300 {
            splits.push((1..length).collect());
        }
        splits
    }

    /// Each of the bytes is refused with one of the statuses and the connection is closed; the shop sees nothing
    /// that is whole.
    pub(super) fn refuses(&mut self, cases: &[(&str, Vec<u8>, &[u16])]) {
        for (name, bytes, statuses) in cases {
            for cuts in self.splits(bytes.len()) {
                let mark = self.shop.mark();
                let answers = self.open(bytes, &cuts).to_end();
                let got: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
                let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]);
                assert!(
                    matches!(&got[..], [status] if statuses.contains(status)),
                    "{name}: answered {got:?} where one of {statuses:?} is right, split at {cuts:?}: {shown:?}"
                );
                self.shop.wait_until_quiet();
                self.check(name);
                assert_eq!(self.shop.since(mark), [], "{name} reached the shop: {shown:?}");
            }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let _ = server.drain(|| true);
        }
    }
}

/// Counts the panics of the gateway's own threads, whatever becomes of them there.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = thread::current();
            let name = thread.name().unwrap_or_default();
            if name.starts_with("core-") || name == "control" {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            before(info);
        }));
    });
}

/// A head of these lines and a body, framed with Content-Length where there is one.
pub(super) fn request(lines: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines.lines() {
        bytes.extend_from_slice(line.trim_start().as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    if !body.is_empty() {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}
