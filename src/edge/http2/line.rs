//! What the sweeper knows of an HTTP/2 connection and of its streams, and what it can do to them.
//!
//! Time comes as ticks of a clock that somebody else moves. It does no I/O: it leaves notes, and wakes the connection.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
};

use tokio::task::AbortHandle;

use crate::{config::Limits, gate::core::TICK};

/// How long a client may take for the end of a connection that it was told of.
const ENDING_TICKS: u64 = 20;

/// The handle of a connection, cheap to clone.
#[derive(Clone)]
pub struct Line(Rc<Shared>);

struct Shared {
    clock: Rc<Cell<u64>>,
    /// Requests that have come.
    begun: Cell<u64>,
    /// Since when there is no stream; meaningless while there are any.
    quiet_since: Cell<u64>,
    blocked_since: Cell<Option<u64>>,
    ending_since: Cell<Option<u64>>,
    /// To be told to the client.
    end: Cell<bool>,
    closed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Bounded by the streams that a client may have.
    streams: RefCell<Vec<Rc<State>>>,
}

struct State {
    number: u64,
    /// Since when a piece of the answer waits for the client to take it.
    untaken_since: Cell<Option<u64>>,
    task: RefCell<Option<AbortHandle>>,
}

/// Whether the next piece of an answer was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    /// A piece was handed out.
    NotYet,
    /// The shop is waited for, or the answer is over.
    Waiting,
}

/// One stream; dropping it takes it off the connection.
pub(super) struct Stream {
    line: Line,
    state: Rc<State>,
}

impl Line {
    pub(super) fn new(clock: Rc<Cell<u64>>) -> Self {
        let now = clock.get();
        Self(Rc::new(Shared {
            clock,
            begun: Cell::new(0),
            quiet_since: Cell::new(now),
            blocked_since: Cell::new(None),
            ending_since: Cell::new(None),
            end: Cell::new(false),
            closed: Cell::new(false),
            waker: RefCell::new(None),
            streams: RefCell::default(),
        }))
    }

    /// A request has come.
    pub(super) fn begin(&self) -> Stream {
        let number = self.0.begun.get() + 1;
        self.0.begun.set(number);
        let state = Rc::new(State { number, untaken_since: Cell::new(None), task: RefCell::new(None) });
        self.0.streams.borrow_mut().push(Rc::clone(&state));
        Stream { line: self.clone(), state }
    }

    /// How many requests have come.
    pub(super) fn begun(&self) -> u64 {
        self.0.begun.get()
    }

    /// The task of the stream that has just begun.
    pub(super) fn adopt(&self, task: AbortHandle) {
        if let Some(state) = self.0.streams.borrow().iter().rfind(|state| state.number == self.0.begun.get())
        {
            state.task.borrow_mut().get_or_insert(task);
        }
    }

    /// Takes no more requests; those that are there are answered (GOAWAY, RFC 9113 section 6.8).
    pub(super) fn end(&self) {
        if self.0.ending_since.get().is_none() {
            self.0.ending_since.set(Some(self.0.clock.get()));
            self.0.end.set(true);
            self.wake();
        }
    }

    pub(super) fn take_end(&self) -> bool {
        self.0.end.replace(false)
    }

    pub fn close(&self) {
        self.0.closed.set(true);
        self.wake();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.closed.get()
    }

    pub(super) fn note_written(&self) {
        self.0.blocked_since.set(None);
    }

    pub(super) fn note_blocked(&self) {
        if self.0.blocked_since.get().is_none() {
            self.0.blocked_since.set(Some(self.0.clock.get()));
        }
    }

    /// The tick that it is.
    pub(super) fn now(&self) -> u64 {
        self.0.clock.get()
    }

    pub(super) fn wait(&self, cx: &Context<'_>) {
        let mut waker = self.0.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.0.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Ends what has waited too long.
    pub fn sweep(&self, now: u64, limits: &Limits, draining: bool) {
        let ticks = |limit: std::time::Duration| limit.as_millis().div_ceil(TICK.as_millis()) as u64;
        let shared = &self.0;
        let since = |tick: u64| now.saturating_sub(tick);
        if draining {
            self.end();
        }
        if shared.blocked_since.get().is_some_and(|tick| since(tick) >= ticks(limits.send_timeout)) {
            return self.close();
        }
        let streams = shared.streams.borrow();
        if streams.is_empty() {
            let patience = if shared.begun.get() == 0 { limits.header_timeout } else { limits.idle_timeout };
            let quiet = since(shared.quiet_since.get());
            match shared.ending_since.get() {
                Some(ending) if since(ending).min(quiet) >= ENDING_TICKS => self.close(),
                Some(_) => {}
                None if quiet >= ticks(patience) => self.end(),
                None => {}
            }
            return;
        }
        for state in streams.iter() {
            let untaken =
                state.untaken_since.get().is_some_and(|tick| since(tick) >= ticks(limits.send_timeout));
            if let (true, Some(task)) = (untaken, state.task.borrow().as_ref()) {
                // Its end resets the stream, and gives back what it holds.
                task.abort();
            }
        }
    }
}

impl Stream {
    pub(super) fn note(&self, asked: Asked) {
        self.state.untaken_since.set(match asked {
            Asked::NotYet => Some(self.line.now()),
            Asked::Waiting => None,
        });
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let shared = &self.line.0;
        let mut streams = shared.streams.borrow_mut();
        if let Some(place) = streams.iter().position(|state| Rc::ptr_eq(state, &self.state)) {
            // The order matters to `adopt` only, and the stream that it is about is there still.
            streams.swap_remove(place);
        }
        if streams.is_empty() {
            shared.quiet_since.set(shared.clock.get());
        }
    }
}
