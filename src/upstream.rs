//! The shop's side: servers, pooled connections, and sending at most once.
//!
//! Everything here belongs to one core: pools are never shared and never locked. What leaves for the shop leaves
//! once; the only error after which a request may be tried on another connection is one that proves that not one
//! byte was written.

pub mod body;
pub mod connect;
mod interim;
pub mod pool;
pub mod send;

use std::{cell::Cell, rc::Rc, time::Duration};

pub use body::{FromShop, ToShop};
pub use connect::{Connect, ConnectError, TcpConnector};
pub use interim::Interim;
pub use send::{Begun, Purpose, SendError, Sent};

/// What an upstream needs to know, from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub name: String,
    /// `host:port` each.
    pub servers: Vec<String>,
    pub connect_timeout: Duration,
    /// How long a pooled connection may idle; must be below the shop's own keep-alive timeout.
    pub idle_timeout: Duration,
    /// Idle connections kept per server and core.
    pub idle_max: usize,
}

/// One upstream as one core sees it.
pub struct Upstream {
    settings: Settings,
    pools: Vec<Rc<pool::Pool>>,
    next: Cell<usize>,
    connector: Rc<dyn Connect>,
    watch: Option<Box<dyn Fn(usize, Reached)>>,
}

/// What came of the last try to connect to a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reached {
    Yes,
    No,
}

impl Upstream {
    pub fn new(settings: Settings, connector: Rc<dyn Connect>) -> Self {
        let pools = settings.servers.iter().map(|_| Rc::new(pool::Pool::new(settings.idle_max))).collect();
        Self { settings, pools, next: Cell::new(0), connector, watch: None }
    }

    /// Tells of every try to connect, with the number of the server. It is called while an exchange waits.
    #[must_use]
    pub fn watched(self, watch: impl Fn(usize, Reached) + 'static) -> Self {
        Self { watch: Some(Box::new(watch)), ..self }
    }

    fn tried(&self, server: usize, reached: Reached) {
        if let Some(watch) = &self.watch {
            watch(server, reached);
        }
    }

    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Which server the next exchange tries first: each in turn.
    fn first_server(&self) -> usize {
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        turn % self.settings.servers.len().max(1)
    }

    /// Closes what has idled too long. Called by the core's ticking.
    pub fn tick(&self) {
        for pool in &self.pools {
            pool.expire(self.settings.idle_timeout);
        }
    }
}
