//! Where the leader of a flight leaves what is for its own client and nobody else.
//!
//! Both run on the same core. Nobody waits for the other here: a client that has gone away gets nothing, and what was
//! left for it is dropped with it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use http::{HeaderMap, StatusCode};
use tokio::sync::mpsc;

use super::{body::Piece, core::Lent};
use crate::store::{Fence, Judged};

/// What only the leader's client gets: the answer's headers as the shop sent them, and a body too large to keep.
pub struct LeadersOwn {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub judged: Judged,
    pub fence: Fence,
    pub stream: Option<mpsc::Receiver<Piece>>,
    /// Counts the answer against the budget until it is written.
    pub lent: Lent,
}

#[derive(Default)]
pub struct Desk {
    own: RefCell<Option<LeadersOwn>>,
    waiting: RefCell<Option<Waker>>,
    closed: Cell<bool>,
    /// Which server answered, for the log.
    pub server: Cell<Option<usize>>,
}

/// The client's side of a desk. Dropping it closes the desk.
pub struct Front(Rc<Desk>);

impl Desk {
    pub fn front(self: &Rc<Self>) -> Front {
        Front(Rc::clone(self))
    }

    /// Leaves the answer for the client. It is woken for one that is not to be waited for; else the end of the flight
    /// does that.
    pub fn leave(&self, own: LeadersOwn) {
        if self.closed.get() {
            return;
        }
        let is_begun = own.stream.is_some();
        *self.own.borrow_mut() = Some(own);
        if is_begun && let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }
}

impl Front {
    /// What was left so far.
    pub fn take(&self) -> Option<LeadersOwn> {
        self.0.own.take()
    }

    /// An answer that is too large to wait for its end.
    pub fn poll_begun(&self, cx: &mut Context<'_>) -> Poll<LeadersOwn> {
        let begun = self.0.own.borrow_mut().take_if(|own| own.stream.is_some());
        if let Some(begun) = begun {
            return Poll::Ready(begun);
        }
        match &mut *self.0.waiting.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    pub fn server(&self) -> Option<usize> {
        self.0.server.get()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.0.closed.set(true);
        self.0.own.take();
    }
}
