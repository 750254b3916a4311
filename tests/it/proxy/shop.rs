//! A scripted shop: a thread per connection, every request noted.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use super::wire::{Message, Wire};

/// How long a test waits for something to come to the shop.
const WAIT_MAX: Duration = Duration::from_secs(10);

pub(super) struct Shop {
    pub(super) address: SocketAddr,
    pub(super) seen: Arc<Seen>,
}

/// What came to the shop.
#[derive(Default)]
pub(super) struct Seen {
    requests: Mutex<Vec<Message>>,
    came: Condvar,
    connections: AtomicUsize,
    ended: AtomicUsize,
}

impl Seen {
    /// How many connections have been made so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    pub(super) fn note(&self, request: &Message) {
        self.requests.lock().expect("no test panics here").push(request.clone());
        self.came.notify_all();
    }
}

impl Shop {
    /// Every connection is talked to by the script; an error ends it.
    pub(super) fn talks<F>(script: F) -> Self
    where
        F: Fn(&mut Wire, &Seen) -> io::Result<()> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let seen = Arc::new(Seen::default());
        let (script, noting) = (Arc::new(script), Arc::clone(&seen));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                noting.connections.fetch_add(1, Relaxed);
                let (script, seen) = (Arc::clone(&script), Arc::clone(&noting));
                // The gate's going away is the usual end.
                thread::spawn(move || {
                    drop(script(&mut Wire::of(stream), &seen));
                    seen.ended.fetch_add(1, Relaxed);
                });
            }
        });
        Self { address, seen }
    }

    /// Answers every request on a connection that it keeps.
    pub(super) fn answers<F, A>(answer: F) -> Self
    where
        F: Fn(&Message) -> A + Send + Sync + 'static,
        A: AsRef<[u8]>,
    {
        Self::talks(move |wire, seen| {
            while let Some(request) = wire.request()? {
                seen.note(&request);
                wire.try_send(answer(&request))?;
            }
            Ok(())
        })
    }

    /// Answers `200` with the number of the request.
    pub(super) fn counts() -> Self {
        let count = AtomicUsize::new(0);
        Self::answers(move |_| ok(&format!("{}", count.fetch_add(1, Relaxed) + 1)))
    }

    pub(super) fn requests(&self) -> Vec<Message> {
        self.seen.requests.lock().expect("no test panics here").clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.seen.connections()
    }

    /// How many connections the script has ended; they are closed by now.
    pub(super) fn ended(&self) -> usize {
        self.seen.ended.load(Relaxed)
    }

    /// Waits until as many requests have come.
    pub(super) fn wait_for(&self, count: usize) -> Vec<Message> {
        let requests = self.seen.requests.lock().expect("no test panics here");
        let waited = self.seen.came.wait_timeout_while(requests, WAIT_MAX, |requests| requests.len() < count);
        let (requests, timeout) = waited.expect("no test panics here");
        assert!(!timeout.timed_out(), "only {} of {count} requests came", requests.len());
        requests.clone()
    }

    /// The only request that came.
    pub(super) fn only(&self) -> Message {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }
}

/// `200` with a body.
pub(super) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Waits for something that must come about. Polls, because there is nothing to be woken by.
pub(super) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + WAIT_MAX;
    while !is_so() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
