//! The shop's side: servers, pooled connections, and sending at most once.
//!
//! Pools belong to one core: they are never shared and never locked. What is known of the servers themselves is
//! shared by all cores (`fleet`). What leaves for the shop leaves once; the only error after which a request may be
//! tried on another connection is one that proves that not one byte was written.

pub mod body;
pub mod connect;
pub mod fleet;
pub mod pool;
pub mod send;
mod turn;

use std::{rc::Rc, sync::Arc, time::Duration};

pub use body::{FromShop, ToShop};
pub use connect::{Connect, ConnectError, TcpConnector};
pub use fleet::{Balance, Fleet};
pub use send::{Begun, Purpose, SendError, Sent};
pub use turn::Affinity;

/// What an upstream needs to know, from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub name: String,
    pub connect_timeout: Duration,
    /// How long a pooled connection may idle; must be below the shop's own keep-alive timeout.
    pub idle_timeout: Duration,
    /// Idle connections kept per server and core.
    pub idle_max: usize,
}

/// One upstream as one core sees it.
pub struct Upstream {
    settings: Settings,
    fleet: Arc<Fleet>,
    pools: Vec<Rc<pool::Pool>>,
    turns: turn::Turns,
    connector: Rc<dyn Connect>,
}

/// What came of the last try to connect to a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reached {
    Yes,
    No,
}

impl Upstream {
    pub fn new(settings: Settings, fleet: Arc<Fleet>, connector: Rc<dyn Connect>) -> Self {
        let pools = (0..fleet.len()).map(|_| Rc::new(pool::Pool::new(settings.idle_max))).collect();
        Self { settings, fleet, pools, turns: turn::Turns::default(), connector }
    }

    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Whether it matters what an exchange is known by.
    pub fn wants_affinity(&self) -> bool {
        self.fleet.len() > 1 && self.fleet.settings.balance == Balance::Hash
    }

    /// Closes what has idled too long. Called by the core's ticking.
    pub fn tick(&self) {
        for pool in &self.pools {
            pool.expire(self.settings.idle_timeout);
        }
    }
}
