//! The memory store keeps what every store promises, in paused time.

use std::{sync::Arc, time::Duration};

use oncegate::store::{
    Store,
    memory::{Memory, MemoryLimits},
};

use super::conformance::{Stand, conforms};

struct InMemory(Arc<Memory>);

impl Stand for InMemory {
    async fn start() -> Self {
        Self(Arc::new(Memory::new(MemoryLimits { records_bytes_max: 16 << 20, states_max: 10_000 })))
    }

    fn store(&self) -> &dyn Store {
        &*self.0
    }

    fn other(&self) -> &dyn Store {
        &*self.0
    }

    async fn pass(&self, time: Duration) {
        tokio::time::advance(time).await;
        self.0.tick();
    }
}

conforms!(super::InMemory, tokio::test(start_paused = true));
