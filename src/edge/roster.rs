//! The open client connections of one core, and the sweeper that ends those whose patience is over.
//!
//! One walk over all of them twice a second takes the place of a timer per request.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
};

use super::{
    http2,
    strict::{Line, Phase},
};
use crate::{config::Limits, gate::core::TICK};

/// A tunnel without a sign of life for this long is closed: one hour.
const TUNNEL_TICKS: u64 = 36_000;
/// After an answer, how long a client's last bytes are thrown away before the connection is closed (RFC 9112 9.6).
const CLOSING_TICKS: u64 = 20;

#[derive(Default)]
pub struct Roster {
    lines: RefCell<HashMap<u64, Line>>,
    http2: RefCell<HashMap<u64, http2::Line>>,
    next: Cell<u64>,
}

/// An entry of the roster; dropping it takes the connection off.
pub struct Listed {
    roster: Rc<Roster>,
    number: u64,
}

impl Roster {
    pub fn list(self: &Rc<Self>, line: Line) -> Listed {
        let number = self.number();
        self.lines.borrow_mut().insert(number, line);
        Listed { roster: Rc::clone(self), number }
    }

    pub fn list_http2(self: &Rc<Self>, line: http2::Line) -> Listed {
        let number = self.number();
        self.http2.borrow_mut().insert(number, line);
        Listed { roster: Rc::clone(self), number }
    }

    fn number(&self) -> u64 {
        let number = self.next.get();
        self.next.set(number + 1);
        number
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.borrow().len() + self.http2.borrow().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends what has waited too long. `draining` ends idle connections at once.
    pub fn sweep(&self, now: u64, limits: &Limits, draining: bool) {
        let ticks = |limit: std::time::Duration| limit.as_millis().div_ceil(TICK.as_millis()) as u64;
        let (head, idle) = (ticks(limits.header_timeout), ticks(limits.idle_timeout));
        let (body, send) = (ticks(limits.body_timeout), ticks(limits.send_timeout));
        for line in self.http2.borrow().values() {
            line.sweep(now, limits, draining);
        }
        // Ending one may run its task's wakers, never this map: the entry goes when the task is polled.
        for line in self.lines.borrow().values() {
            let waited = now.saturating_sub(line.since());
            match line.phase() {
                Phase::Idle if draining || waited >= idle => line.expire_head(),
                Phase::Head if waited >= head => line.expire_head(),
                Phase::Body if waited >= body => line.close(),
                Phase::Writing if waited >= send => line.close(),
                Phase::Closing if waited >= CLOSING_TICKS => line.close(),
                Phase::Tunnel if draining || waited >= TUNNEL_TICKS => line.close(),
                Phase::Idle
                | Phase::Head
                | Phase::Body
                | Phase::Writing
                | Phase::Closing
                | Phase::Tunnel
                | Phase::Exchange => {}
            }
        }
    }

    /// Closes every connection, whatever it is doing.
    pub fn close_all(&self) {
        self.lines.borrow().values().for_each(Line::close);
        self.http2.borrow().values().for_each(http2::Line::close);
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        if self.roster.lines.borrow_mut().remove(&self.number).is_none() {
            self.roster.http2.borrow_mut().remove(&self.number);
        }
    }
}
