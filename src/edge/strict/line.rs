//! What the service and the sweeper know of a client connection, and what they can tell it.
//!
//! A [`Line`] is a handle that is cheap to clone, for one thread. It does no I/O of its own: it leaves notes that the
//! reader finds, and wakes whoever waits. Time comes as ticks of a clock that somebody else moves.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
};

use http::{HeaderMap, StatusCode};

use super::{Violation, scan::Version};

/// The handle. Heads, and the calls of the service that answer them, are counted from 1.
#[derive(Clone, Debug)]
pub struct Line(pub(super) Rc<Shared>);

/// What a connection waits for, and so which of the sweeper's patiences holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Nothing of a request has come.
    Idle,
    /// A part of a head has come.
    Head,
    /// The client owes us bytes of a body, and somebody wants to read them.
    Body,
    /// A request is being answered: the client owes us nothing.
    Exchange,
    /// The client does not take what we write.
    Writing,
    /// No HTTP any more.
    Tunnel,
    /// The answer is out and our side is shut; what the client still sends is thrown away, so that a reset does not
    /// overtake the answer (RFC 9112 9.6). Only the client or [`Line::close`] ends this: give it a second or two.
    Closing,
}

/// What the follower of the bytes is in the middle of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Between,
    Head,
    Body,
    Held,
    Tunnel,
    Closing,
}

/// What shall become of a connection that a client wants to upgrade.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Decision {
    Tunnel,
    Http,
}

#[derive(Debug)]
pub(super) struct Shared {
    clock: Rc<Cell<u64>>,
    place: Cell<Place>,
    heads: Cell<u64>,
    called: Cell<u64>,
    answered: Cell<u64>,
    violation: Cell<Option<(u64, Violation)>>,
    body_violation: Cell<Option<Violation>>,
    decision: Cell<Option<(u64, Decision)>>,
    place_since: Cell<u64>,
    answered_at: Cell<u64>,
    /// Since when the connection has waited for bytes that somebody wants to read.
    hungry_since: Cell<Option<u64>>,
    blocked_since: Cell<Option<u64>>,
    last_read: Cell<u64>,
    last_write: Cell<u64>,
    expired: Cell<bool>,
    closed: Cell<bool>,
    /// A head of HTTP/1.0 has come: such a client must not be sent 1xx (RFC 9110 15.2).
    old: Cell<bool>,
    /// Everything that was given to us to write is written: nothing of it waits above us.
    flushed: Cell<bool>,
    /// Bytes of an answer were written since the last call of the service began.
    answering: Cell<bool>,
    informs: RefCell<Vec<u8>>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

/// Of 1xx answers that wait to be written. They are hints: more than this is dropped.
const INFORM_BYTES_MAX: usize = 16 * 1024;

impl Line {
    /// What was wrong with head number `n`. To be asked once at the beginning of every call of the service: the
    /// request of a call for which there is an answer here is not the client's but ours, and is to be refused.
    #[must_use]
    pub fn violation(&self, n: u64) -> Option<Violation> {
        let shared = &self.0;
        if n > shared.called.get() {
            shared.called.set(n);
            shared.answering.set(false);
        }
        shared.violation.get().filter(|(head, _)| *head == n).map(|(_, violation)| violation)
    }

    /// What was wrong inside a body. It can only be the body of the last head that came.
    #[must_use]
    pub fn body_violation(&self) -> Option<Violation> {
        self.0.body_violation.get()
    }

    /// Call number `n` is over: its answer's body has ended or was dropped. Without this the line stays in
    /// [`Phase::Exchange`] for ever. A wish to upgrade that was not granted by now is denied.
    pub fn answered(&self, n: u64) {
        let shared = &self.0;
        if self.wants_upgrade(n) && shared.decision.get().is_none_or(|(head, _)| head != n) {
            shared.decide(n, Decision::Http);
        }
        if n > shared.answered.get() {
            shared.answered.set(n);
            shared.answered_at.set(shared.now());
        }
    }

    /// Head number `n` was a valid wish to upgrade, and the answer will be 101 (or the tunnel has begun): from here
    /// on bytes pass as they are, those that were held included.
    pub fn tunnel(&self, n: u64) {
        self.0.decide(n, Decision::Tunnel);
    }

    /// Head number `n` is answered with HTTP: what comes behind it is the next request.
    pub fn no_tunnel(&self, n: u64) {
        self.0.decide(n, Decision::Http);
    }

    /// Whether what comes behind head number `n` is held back until [`Line::tunnel`] or [`Line::no_tunnel`].
    #[must_use]
    pub fn wants_upgrade(&self, n: u64) -> bool {
        self.0.heads.get() == n && self.0.place.get() == Place::Held
    }

    /// Sends an interim answer (103) ahead of the answer of the call that runs. False, and nothing is sent, where it
    /// could fall into the middle of other bytes, where the client is of HTTP/1.0, or where too many wait.
    #[must_use]
    pub fn inform(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let shared = &self.0;
        let sendable = status.is_informational()
            && !matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS);
        let quiet = shared.flushed.get() && !shared.answering.get() && shared.blocked_since.get().is_none();
        let wanted = shared.called.get() > shared.answered.get() && !shared.old.get() && !shared.closed.get();
        let open = !matches!(shared.place.get(), Place::Tunnel | Place::Closing);
        if !(sendable && quiet && wanted && open && shared.violation.get().is_none()) {
            return false;
        }
        let mut queue = shared.informs.borrow_mut();
        let before = queue.len();
        write_head(&mut queue, status, headers);
        if queue.len() > INFORM_BYTES_MAX {
            queue.truncate(before);
            return false;
        }
        drop(queue);
        shared.wake();
        true
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        let shared = &self.0;
        let busy = shared.heads.get() > shared.answered.get();
        match shared.place.get() {
            Place::Tunnel => Phase::Tunnel,
            Place::Closing => Phase::Closing,
            _ if shared.blocked_since.get().is_some() => Phase::Writing,
            // A body that was read ahead, or that nobody reads at the moment, is not the client's debt.
            Place::Body
                if shared.called.get() >= shared.heads.get() && shared.hungry_since.get().is_some() =>
            {
                Phase::Body
            }
            _ if busy => Phase::Exchange,
            Place::Head => Phase::Head,
            Place::Body => Phase::Exchange,
            Place::Between | Place::Held => Phase::Idle,
        }
    }

    /// The tick at which the wait of this phase began: for a body and a tunnel the last sign of life.
    #[must_use]
    pub fn since(&self) -> u64 {
        let shared = &self.0;
        match self.phase() {
            Phase::Idle | Phase::Head => shared.place_since.get().max(shared.answered_at.get()),
            Phase::Body => shared.hungry_since.get().unwrap_or(shared.last_read.get()),
            Phase::Exchange | Phase::Closing => shared.place_since.get(),
            Phase::Writing => shared.blocked_since.get().unwrap_or(shared.last_write.get()),
            Phase::Tunnel => shared.last_read.get().max(shared.last_write.get()),
        }
    }

    /// The tick at which bytes last came from the client.
    #[must_use]
    pub fn last_read(&self) -> u64 {
        self.0.last_read.get()
    }

    /// The tick at which the client's side last took bytes.
    #[must_use]
    pub fn last_write(&self) -> u64 {
        self.0.last_write.get()
    }

    /// Since when a write has waited for the client; `None` where none waits.
    #[must_use]
    pub fn write_blocked_since(&self) -> Option<u64> {
        self.0.blocked_since.get()
    }

    /// The patience for a head is over: a part of one becomes a violation (408), an idle connection ends. Bytes that
    /// have come in the meantime win. Without effect while a request is being answered.
    pub fn expire_head(&self) {
        if matches!(self.phase(), Phase::Idle | Phase::Head) {
            self.0.expired.set(true);
            self.0.wake();
        }
    }

    /// Ends the connection: reads find its end, writes fail.
    pub fn close(&self) {
        self.0.closed.set(true);
        self.0.wake();
    }
}

impl Shared {
    pub(super) fn new(clock: Rc<Cell<u64>>) -> Self {
        let now = clock.get();
        Self {
            clock,
            place: Cell::new(Place::Between),
            heads: Cell::new(0),
            called: Cell::new(0),
            answered: Cell::new(0),
            violation: Cell::new(None),
            body_violation: Cell::new(None),
            decision: Cell::new(None),
            place_since: Cell::new(now),
            answered_at: Cell::new(now),
            hungry_since: Cell::new(None),
            blocked_since: Cell::new(None),
            last_read: Cell::new(now),
            last_write: Cell::new(now),
            expired: Cell::new(false),
            closed: Cell::new(false),
            old: Cell::new(false),
            flushed: Cell::new(true),
            answering: Cell::new(false),
            informs: RefCell::new(Vec::new()),
            reader: RefCell::new(None),
            writer: RefCell::new(None),
        }
    }

    fn now(&self) -> u64 {
        self.clock.get()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(super) fn note_read(&self) {
        self.hungry_since.set(None);
        self.last_read.set(self.now());
    }

    /// A read waits for the client.
    pub(super) fn note_hunger(&self) {
        if self.hungry_since.get().is_none() {
            self.hungry_since.set(Some(self.now()));
        }
    }

    /// Whole heads were passed on: what the sweeper said about a head is about one that came after all.
    pub(super) fn note_heads(&self, heads: u64, version: Version) {
        if heads == self.heads.get() {
            return;
        }
        self.heads.set(heads);
        self.expired.set(false);
        self.place_since.set(self.now());
        if version == Version::Http10 {
            self.old.set(true);
        }
    }

    pub(super) fn note_place(&self, place: Place) {
        if place != self.place.get() {
            self.place.set(place);
            self.place_since.set(self.now());
        }
    }

    pub(super) fn note_violation(&self, head: u64, violation: Violation) {
        self.violation.set(Some((head, violation)));
        self.heads.set(head);
        self.expired.set(false);
    }

    pub(super) fn note_body_violation(&self, violation: Violation) {
        self.body_violation.set(Some(violation));
    }

    /// Bytes were given to us to write.
    pub(super) fn note_offer(&self, interim: bool) {
        self.flushed.set(false);
        if !interim {
            self.answering.set(true);
        }
    }

    pub(super) fn note_write(&self) {
        self.blocked_since.set(None);
        self.last_write.set(self.now());
    }

    pub(super) fn note_blocked(&self) {
        if self.blocked_since.get().is_none() {
            self.blocked_since.set(Some(self.now()));
        }
    }

    /// Whoever writes through us has nothing left to write.
    pub(super) fn note_flushed(&self) {
        self.flushed.set(true);
        self.blocked_since.set(None);
    }

    /// Whether the sweeper has ended the wait for a head; said once.
    pub(super) fn take_expired(&self) -> bool {
        self.expired.replace(false)
    }

    /// What was decided about the head that is held, which is the last one.
    pub(super) fn take_decision(&self) -> Option<Decision> {
        let (head, decision) = self.decision.get()?;
        (head == self.heads.get()).then(|| {
            self.decision.set(None);
            decision
        })
    }

    pub(super) fn informs(&self) -> &RefCell<Vec<u8>> {
        &self.informs
    }

    pub(super) fn wait_to_read(&self, cx: &Context<'_>) {
        keep(&self.reader, cx);
    }

    pub(super) fn wait_to_write(&self, cx: &Context<'_>) {
        keep(&self.writer, cx);
    }

    fn decide(&self, head: u64, decision: Decision) {
        self.decision.set(Some((head, decision)));
        self.wake();
    }

    fn wake(&self) {
        for waker in [&self.reader, &self.writer] {
            if let Some(waker) = waker.borrow().as_ref() {
                waker.wake_by_ref();
            }
        }
    }
}

fn keep(place: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut place = place.borrow_mut();
    if !place.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}

fn write_head(queue: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap) {
    queue.extend_from_slice(b"HTTP/1.1 ");
    queue.extend_from_slice(status.as_str().as_bytes());
    queue.push(b' ');
    queue.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    queue.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        queue.extend_from_slice(name.as_str().as_bytes());
        queue.extend_from_slice(b": ");
        queue.extend_from_slice(value.as_bytes());
        queue.extend_from_slice(b"\r\n");
    }
    queue.extend_from_slice(b"\r\n");
}
