//! One client connection, as its exchanges see it.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use http::{Extensions, HeaderMap, Method, StatusCode, request::Parts};
use hyper::upgrade::OnUpgrade;

use super::forward::Peer;
use crate::{answer::refusal::Refusal, upstream::Interim};

/// Informational answers kept until they are written; a shop that sends more loses the rest.
const HINTS_MAX: usize = 8;

/// The connection under a client, as far as an exchange needs to know it. The edge has it; the gate does not know what
/// it is made of.
pub trait Wire {
    /// What was wrong with the `call`th request of the connection, counted from 1.
    fn violation(&self, call: u64) -> Option<Broken>;
    /// What was wrong with the framing of the body that is being read.
    fn body_violation(&self) -> Option<Broken>;
    /// Writes an informational answer, or leaves it out where it could not be told from the answer to another request.
    fn inform(&self, status: StatusCode, headers: &HeaderMap);
    /// From the answer to this call on, the bytes are no longer HTTP.
    fn tunnel(&self, call: u64);
    /// This call asked for a tunnel and did not get it.
    fn no_tunnel(&self, call: u64);
}

/// A rule of HTTP that the client broke.
#[derive(Debug, Clone, Copy)]
pub struct Broken {
    pub status: u16,
    /// A sentence for the client; it holds nothing of what the client sent.
    pub what: &'static str,
}

pub struct Client {
    pub peer: Rc<Peer>,
    /// The number of the listener that accepted it.
    pub listener: usize,
    wire: Box<dyn Wire>,
    calls: Cell<u64>,
    violation: Cell<Option<Broken>>,
    tunnel: RefCell<Option<OnUpgrade>>,
    hints: Arc<Hints>,
}

/// 1xx answers of the shop on their way to the client. The shop's connection gives them from a callback that must be
/// `Send`, so they travel through a lock; only the few exchanges that have any ever touch it.
#[derive(Default)]
pub struct Hints(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    hints: Vec<(StatusCode, HeaderMap)>,
    /// Of the exchange that waits for its answer.
    waiting: Option<Waker>,
}

impl Hints {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<(StatusCode, HeaderMap)> {
        std::mem::take(&mut self.queue().hints)
    }

    /// What has come, and word of what comes next.
    fn take_or_wait(&self, cx: &Context<'_>) -> Vec<(StatusCode, HeaderMap)> {
        let mut queue = self.queue();
        if !queue.waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            queue.waiting = Some(cx.waker().clone());
        }
        std::mem::take(&mut queue.hints)
    }

    fn push(&self, hint: (StatusCode, HeaderMap)) {
        let mut queue = self.queue();
        if queue.hints.len() < HINTS_MAX {
            queue.hints.push(hint);
        }
        let waiting = queue.waiting.clone();
        drop(queue);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

impl Client {
    pub fn new(peer: Rc<Peer>, listener: usize, wire: Box<dyn Wire>) -> Self {
        Self {
            peer,
            listener,
            wire,
            calls: Cell::new(0),
            violation: Cell::new(None),
            tunnel: RefCell::default(),
            hints: Arc::default(),
        }
    }

    /// A request has come; its number on this connection.
    pub fn begin_call(&self) -> u64 {
        let call = self.calls.get() + 1;
        self.calls.set(call);
        self.violation.set(self.wire.violation(call));
        // What the shop sent before an exchange that was given up is about no other.
        self.hints.take();
        call
    }

    /// Whether the request of this call is not the client's but stands for one that was malformed.
    pub fn is_malformed(&self) -> bool {
        self.violation.get().is_some()
    }

    /// Whether this request may go any further: what the strict reader found wrong with it is refused here.
    pub fn admits(&self, parts: &Parts) -> Result<(), Refusal> {
        if let Some(violation) = self.violation.get() {
            if violation.status == StatusCode::REQUEST_TIMEOUT.as_u16() {
                return Err(Refusal::RequestTimeout);
            }
            let status = StatusCode::from_u16(violation.status).unwrap_or(StatusCode::BAD_REQUEST);
            return Err(Refusal::RequestMalformed { status, detail: violation.what.into() });
        }
        if parts.method == Method::CONNECT {
            // A reverse proxy speaks for one shop; it opens no way to anywhere else.
            let detail = "CONNECT is not served here".into();
            return Err(Refusal::RequestMalformed { status: StatusCode::METHOD_NOT_ALLOWED, detail });
        }
        Ok(())
    }

    /// What was wrong with the body that is being read, if its framing was broken.
    pub fn body_violation(&self) -> Option<&'static str> {
        self.wire.body_violation().map(|violation| violation.what)
    }

    /// Asks for the shop's informational answers to this request (RFC 9110 section 15.2).
    pub fn pass_informational(&self, extensions: &mut Extensions) {
        let hints = Arc::clone(&self.hints);
        Interim::listen(extensions, move |status, headers| hints.push((status, headers.clone())));
    }

    /// Waits for the shop's answer and passes informational ones on meanwhile.
    pub async fn passing_hints<T>(&self, mut answer: impl Future<Output = T> + Unpin) -> T {
        poll_fn(|cx| {
            let polled = Pin::new(&mut answer).poll(cx);
            // What came with the answer is still before it.
            self.write(self.hints.take_or_wait(cx));
            polled
        })
        .await
    }

    fn write(&self, hints: Vec<(StatusCode, HeaderMap)>) {
        for (status, mut headers) in hints {
            crate::ops::headers::remove_hop_by_hop(&mut headers);
            self.wire.inform(status, &headers);
        }
    }

    /// The shop has agreed to change the protocol: from the 101 on, this connection is a tunnel.
    pub fn open_tunnel(&self, shop: OnUpgrade) {
        *self.tunnel.borrow_mut() = Some(shop);
        self.wire.tunnel(self.calls.get());
    }

    pub fn take_tunnel(&self) -> Option<OnUpgrade> {
        self.tunnel.borrow_mut().take()
    }

    /// The request asked for an upgrade and did not get it: what follows is the next request.
    pub fn no_tunnel(&self, call: u64) {
        if self.tunnel.borrow().is_none() {
            self.wire.no_tunnel(call);
        }
    }
}
