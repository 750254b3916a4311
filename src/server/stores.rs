//! The store that a process serves from: its own, or one that it shares with other replicas.

use std::sync::Arc;

use super::{
    StartError,
    local::{Local, Notices},
    shared::Shared,
};
use crate::{
    admin::AdminState,
    config::{Config, StoreKind},
    gate::Gate,
    store::{Store, memory::Stats},
};

#[derive(Clone)]
pub(super) enum Stores {
    Local(Local),
    Shared(Shared),
}

impl Stores {
    /// Opens the store that a configuration asks for. Where the configuration has no secret, it gets the store's.
    pub(super) fn open(config: &mut Config) -> Result<(Self, Notices), StartError> {
        match config.store.kind.clone() {
            StoreKind::Memory | StoreKind::File { .. } => {
                let (local, notices) = Local::open(config)?;
                Ok((Self::Local(local), notices))
            }
            StoreKind::Redis(redis) => {
                let (shared, notices) = Shared::open(config, &redis)?;
                Ok((Self::Shared(shared), notices))
            }
        }
    }

    pub(super) fn seam(&self) -> Arc<dyn Store> {
        match self {
            Self::Local(local) => local.seam(),
            Self::Shared(shared) => shared.seam(),
        }
    }

    /// What is done with the store besides serving, on the control runtime.
    pub(super) fn begin(&self, gate: &Arc<Gate>, admin: &Arc<AdminState>) {
        match self {
            Self::Local(_) => {}
            Self::Shared(shared) => shared.begin(gate, admin),
        }
    }

    pub(super) fn tick(&self) {
        match self {
            Self::Local(local) => local.tick(),
            Self::Shared(shared) => shared.tick(),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        match self {
            Self::Local(local) => local.stats(),
            Self::Shared(shared) => shared.stats(),
        }
    }

    /// Nothing that was answered is lost after this, if it can be helped.
    pub(super) fn close(&self) {
        match self {
            Self::Local(local) => local.close(),
            Self::Shared(shared) => shared.close(),
        }
    }
}
