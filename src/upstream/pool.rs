//! Idle connections to one server, of one core. Last in, first out, so that few stay warm and the rest expire.

use std::{cell::RefCell, rc::Rc, time::Duration};

use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

use super::{body::ToShop, fleet::Slot};

/// A connection that idled no longer than this cannot be in its closing race: no server in the field closes an idle
/// connection so soon (the shortest default known is Apache's 5 s). A request that must not be lost to the race goes
/// out on such a connection or on a fresh one, as HAProxy does with `http-reuse safe`.
pub const WARM: Duration = Duration::from_millis(100);

pub struct Pool {
    idle: RefCell<Vec<Idle>>,
    idle_max: usize,
}

struct Idle {
    sender: SendRequest<ToShop>,
    since: Instant,
    generation: u32,
}

/// Which pooled connections an exchange may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reuse {
    /// Any that is open: what is lost to the closing race may be sent again.
    Any,
    /// Only warm ones, see [`WARM`].
    WarmOnly,
}

/// Whether the connection has carried an exchange before and may have been closed under way to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Warmth {
    /// Fresh, or so recently used that it cannot be in its closing race.
    Warm,
    Idled,
}

/// A connection that is carrying an exchange.
pub struct Wire {
    pub(super) sender: SendRequest<ToShop>,
    pub(super) warmth: Warmth,
    home: Rc<Pool>,
    /// Of the server's addresses, when it was made.
    generation: u32,
    /// Held while the exchange runs, where exchanges are counted.
    pub(super) slot: Option<Slot>,
}

impl Pool {
    pub fn new(idle_max: usize) -> Self {
        Self { idle: RefCell::default(), idle_max }
    }

    /// The most recently used connection that fits, and leads to where the server is now.
    pub fn take(self: &Rc<Self>, reuse: Reuse, newest: u32) -> Option<Wire> {
        let now = Instant::now();
        loop {
            let Idle { sender, since, generation } = self.idle.borrow_mut().pop()?;
            let warmth = if now.duration_since(since) <= WARM { Warmth::Warm } else { Warmth::Idled };
            if sender.is_closed() || generation != newest {
                continue;
            }
            if reuse == Reuse::WarmOnly && warmth == Warmth::Idled {
                // Older ones lie below this one: none of them is warm either.
                self.idle.borrow_mut().push(Idle { sender, since, generation });
                return None;
            }
            return Some(Wire { sender, warmth, home: Rc::clone(self), generation, slot: None });
        }
    }

    pub fn adopt(self: &Rc<Self>, sender: SendRequest<ToShop>, generation: u32) -> Wire {
        Wire { sender, warmth: Warmth::Warm, home: Rc::clone(self), generation, slot: None }
    }

    pub fn expire(&self, idle_timeout: Duration) {
        let now = Instant::now();
        self.idle
            .borrow_mut()
            .retain(|idle| now.duration_since(idle.since) < idle_timeout && !idle.sender.is_closed());
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Wire {
    /// The exchange is over and the answer was read to its end.
    pub fn give_back(self) {
        let mut idle = self.home.idle.borrow_mut();
        if !self.sender.is_closed() && idle.len() < self.home.idle_max {
            idle.push(Idle { sender: self.sender, since: Instant::now(), generation: self.generation });
        }
    }
}
