//! A shop that writes down every byte it is sent, per connection, and reads it strictly.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::strict::{Read, Request, Side, read};

/// The path of the connection that has to stay healthy; the shop answers it and does not write it down.
pub(super) const BYSTANDER: &str = "/bystander";

pub(super) struct Shop {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
    stopped: AtomicBool,
}

#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    /// What no strict reader takes, and the bytes.
    unclean: Vec<(&'static str, String)>,
    /// Connections on which a request has begun and is not whole.
    open: usize,
    /// Requests that wait for their answer now, and the most that ever did.
    running: usize,
    running_most: usize,
    held: bool,
}

impl Shop {
    pub(super) fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, shared }
    }

    /// How many requests have come so far; the mark for [`Shop::since`].
    pub(super) fn mark(&self) -> usize {
        self.seen().requests.len()
    }

    pub(super) fn since(&self, mark: usize) -> Vec<Request> {
        self.seen().requests[mark..].to_vec()
    }

    pub(super) fn unclean(&self) -> Vec<(&'static str, String)> {
        self.seen().unclean.clone()
    }

    /// From now on requests come in and get no answer, until [`Shop::release`].
    pub(super) fn hold(&self) {
        let mut seen = self.seen();
        seen.held = true;
        seen.running_most = 0;
    }

    pub(super) fn release(&self) {
        self.seen().held = false;
        self.shared.changed.notify_all();
    }

    /// The most requests that were here at the same time since the last hold.
    pub(super) fn most_at_once(&self) -> usize {
        self.seen().running_most
    }

    /// Waits until so many requests have come since the mark.
    pub(super) fn wait_for(&self, mark: usize, count: usize) {
        self.wait_until("requests", |seen| seen.requests.len() >= mark + count);
    }

    /// Waits until no request is half here: those that were cut off have been seen to be.
    pub(super) fn wait_until_quiet(&self) {
        self.wait_until("quiet", |seen| seen.open == 0);
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&Seen) -> bool) {
        let end = Instant::now() + Duration::from_secs(8);
        let mut seen = self.seen();
        while !is_so(&seen) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the shop waited in vain for {what}");
            seen = self.shared.changed.wait_timeout(seen, left).expect("no holder panics").0;
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen.lock().expect("no holder panics")
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if let Ok(mut seen) = self.shared.seen.lock() {
            seen.held = false;
        }
        self.shared.changed.notify_all();
        drop(TcpStream::connect(self.address));
    }
}

/// One connection: whatever is not a clean request ends it.
fn serve(mut stream: TcpStream, shared: &Shared) {
    let _ = stream.set_nodelay(true);
    let (mut bytes, mut buffer, mut open) = (Vec::new(), vec![0; 16 * 1024], false);
    let change = |work: &dyn Fn(&mut Seen)| {
        work(&mut shared.seen.lock().expect("no holder panics"));
        shared.changed.notify_all();
    };
    loop {
        match read(&bytes, Side::Shop) {
            Read::Whole(request, length) => {
                bytes.drain(..length);
                if open {
                    open = false;
                    change(&|seen| seen.open -= 1);
                }
                if answer(&mut stream, request, shared).is_err() {
                    return;
                }
                continue;
            }
            Read::Partial => {}
            Read::Bad(why) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                change(&|seen| {
                    seen.unclean.push((why, text.clone()));
                    seen.open -= usize::from(open);
                });
                return;
            }
        }
        if !bytes.is_empty() && !open {
            open = true;
            change(&|seen| seen.open += 1);
        }
        match stream.read(&mut buffer) {
            Ok(step) if step > 0 => bytes.extend_from_slice(&buffer[..step]),
            _ => break,
        }
    }
    if open {
        change(&|seen| seen.open -= 1);
    }
}

fn answer(stream: &mut TcpStream, request: Request, shared: &Shared) -> std::io::Result<()> {
    let is_head = request.method == "HEAD";
    let mut text = "fine".to_owned();
    if request.target != BYSTANDER {
        let mut seen = shared.seen.lock().expect("no holder panics");
        text = format!("order {} {}", seen.requests.len(), request.field("cookie").unwrap_or_default());
        seen.requests.push(request);
        seen.running += 1;
        seen.running_most = seen.running_most.max(seen.running);
        shared.changed.notify_all();
        while seen.held {
            seen = shared.changed.wait(seen).expect("no holder panics");
        }
        seen.running -= 1;
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nSet-Cookie: rotating={}\r\n\r\n",
        text.len(),
        text.len()
    );
    stream.write_all(head.as_bytes())?;
    if is_head { Ok(()) } else { stream.write_all(text.as_bytes()) }
}
