//! The file store keeps what every store promises, on a real disk and in real time.

use std::{path::Path, sync::Arc, time::Duration};

use oncegate::{
    gate::core::TICK,
    store::{
        Store,
        file::{File, Opened},
        memory::MemoryLimits,
    },
};

use super::conformance::{Stand, conforms};

const LIMITS: MemoryLimits = MemoryLimits { records_bytes_max: 16 << 20, states_max: 10_000 };

fn open(folder: &Path) -> Opened {
    File::open(folder, LIMITS, [7; 32]).expect("a store in a folder of its own")
}

struct OnDisk {
    store: Arc<File>,
    _folder: tempfile::TempDir,
}

impl Stand for OnDisk {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for a store");
        let store = open(folder.path()).store;
        let ticking = Arc::downgrade(&store);
        drop(tokio::spawn(async move {
            let mut interval = tokio::time::interval(TICK);
            loop {
                interval.tick().await;
                let Some(store) = ticking.upgrade() else { return };
                store.tick();
            }
        }));
        Self { store, _folder: folder }
    }

    fn store(&self) -> &dyn Store {
        &*self.store
    }

    fn other(&self) -> &dyn Store {
        &*self.store
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

conforms!(super::OnDisk, tokio::test);
