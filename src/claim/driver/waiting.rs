//! Waiting for word of another replica: a wake-up, and a poll as the net under it. Never decides what the word means.

use std::time::Duration;

use tokio::time::timeout;

use crate::store::{Ask, Wake, Woken};

/// The net under the wake-ups: how often a waiting flight asks the store again, give or take a half.
const POLL: Duration = Duration::from_secs(1);

/// Waits for the wake-up, or until it is time to ask again.
pub(super) async fn woken_or_polled(wake: Wake, ask: &Ask) -> Woken {
    match timeout(jitter(ask), wake).await {
        Ok(Ok(woken)) => woken,
        Ok(Err(_)) | Err(_) => Woken::Again,
    }
}

/// Spreads the polls of many waiters over time: half to one and a half of [`POLL`].
fn jitter(ask: &Ask) -> Duration {
    let spread = (ask.owner.0 as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54;
    POLL / 2 + POLL * (spread as u32) / 1024
}
