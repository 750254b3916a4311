//! The store of this process: in memory, or in memory and on a disk.

use std::sync::Arc;

use rand::random;

use super::StartError;
use crate::{
    admin::AdminState,
    config::{Config, StoreKind},
    gate::Gate,
    ops::log::{Level, Log},
    request::Secret,
    store::{
        Store,
        file::{File, Health, Opened},
        memory::{Memory, MemoryLimits, Stats},
    },
};

#[derive(Clone)]
pub(super) enum Local {
    Memory(Arc<Memory>),
    File(Arc<File>),
}

/// What an operator has to know of a store that was opened.
#[derive(Default)]
pub(super) struct Notices(Vec<Notice>);

struct Notice {
    level: Level,
    event: &'static str,
    text: String,
}

impl Notices {
    pub(super) fn add(&mut self, level: Level, event: &'static str, text: String) {
        self.0.push(Notice { level, event, text });
    }

    pub(super) fn log(&self, log: &Log) {
        for notice in &self.0 {
            log.event(notice.level, notice.event, &[("what", &notice.text)]);
        }
    }

    pub(super) fn into_texts(self) -> Vec<String> {
        self.0.into_iter().map(|notice| notice.text).collect()
    }
}

impl Local {
    /// Opens the store that a configuration asks for. Where the configuration has no secret, it gets the store's.
    pub(super) fn open(config: &mut Config) -> Result<(Self, Notices), StartError> {
        match &config.store.kind {
            StoreKind::Memory | StoreKind::Redis(_) => {
                Ok((Self::Memory(Arc::new(memory(config))), Notices::default()))
            }
            StoreKind::File { path } => {
                let Opened { store, damaged, orphans } = File::open(path, limits(config), random())?;
                config.store.secret.get_or_insert(Secret::new(store.secret()));
                let mut notices = Notices::default();
                if let Some(damaged) = damaged {
                    let text = damaged.to_string();
                    notices.0.push(Notice { level: Level::Error, event: "store-damaged", text });
                }
                if orphans > 0 {
                    let text = format!(
                        "{orphans} requests were at the shop when the process before this one ended; they are in doubt, \
                         or tried again where their route says so"
                    );
                    notices.0.push(Notice { level: Level::Warn, event: "store-orphans", text });
                }
                Ok((Self::File(store), notices))
            }
        }
    }

    pub(super) fn seam(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(memory) => Arc::clone(memory) as _,
            Self::File(file) => Arc::clone(file) as _,
        }
    }

    pub(super) fn tick(&self) {
        match self {
            Self::Memory(memory) => memory.tick(),
            Self::File(file) => file.tick(),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        match self {
            Self::Memory(memory) => memory.stats(),
            Self::File(file) => file.stats(),
        }
    }

    pub(super) fn health(&self) -> Health {
        match self {
            Self::Memory(_) => Health::Up,
            Self::File(file) => file.health(),
        }
    }

    /// Nothing that was answered is lost after this.
    pub(super) fn close(&self) {
        match self {
            Self::Memory(_) => {}
            Self::File(file) => file.close(),
        }
    }
}

/// Whether the store did its work when it was last looked at.
pub(super) struct Seen(Health);

impl Default for Seen {
    fn default() -> Self {
        Self(Health::Up)
    }
}

impl Seen {
    /// Shows how the store does, and tells it once when that has changed.
    pub(super) fn look(&mut self, store: &Local, gate: &Gate, admin: &AdminState) {
        let health = store.health();
        gate.metrics.store_up.set(i64::from(health == Health::Up));
        match (&health, &self.0) {
            (Health::Down(why), Health::Up) => {
                admin.block("store-down");
                gate.log.event(Level::Error, "store-down", &[("why", why)]);
            }
            (Health::Up, Health::Down(_)) => {
                admin.unblock("store-down");
                gate.log.event(Level::Warn, "store-back", &[]);
            }
            (Health::Up, Health::Up) | (Health::Down(_), Health::Down(_)) => {}
        }
        self.0 = health;
    }
}

/// The memory store that a configuration asks for. Somebody has to call [`Memory::tick`].
#[must_use]
pub fn memory(config: &Config) -> Memory {
    Memory::new(limits(config))
}

fn limits(config: &Config) -> MemoryLimits {
    MemoryLimits { records_bytes_max: config.store.records_bytes_max, states_max: config.store.states_max }
}
