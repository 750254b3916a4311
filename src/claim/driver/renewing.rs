//! Keeping the right to send while it is used, and knowing how long it certainly lasts.
//!
//! What a store grants begins when it grants it, which this process only knows to be after it asked. So a process that
//! was stopped, or whose store was slow, finds here that its right may be over before a byte has left. Nothing here
//! claims or settles.

use std::time::Duration;

use tokio::time::Instant;

use super::{Claims, Sender, Sent};
use crate::{
    ops::words::StoreOp,
    store::{Hold, Renewed},
};

/// A lease that was asked for at a moment certainly lasts until then. An eighth of it is for the way of the first byte,
/// and for clocks that go at another pace.
pub(super) fn sure_until(asked: Instant, lease: Duration) -> Instant {
    asked.checked_add(lease - lease / 8).unwrap_or(asked)
}

/// Sends, and keeps the lease alive until the shop has answered.
pub(super) async fn send<S: Sender>(claims: &Claims, sender: &S, hold: &Hold, now: Instant) -> Sent {
    let mut sending = std::pin::pin!(sender.send(hold));
    let (mut held, mut now) = (Renewed::Held, now);
    loop {
        tokio::select! {
            biased;
            sent = &mut sending => return sent,
            () = sender.rest(now, hold.lease / 3) => {
                let asked = Instant::now();
                // A renewal that failed is tried again: the lease may well still be ours.
                if held == Renewed::Held
                    && let Ok(found) = Box::pin(claims.call(StoreOp::Renew, claims.store.renew(hold))).await
                {
                    held = found;
                    match held {
                        Renewed::Held => sender.begin_before(sure_until(asked, hold.lease)),
                        Renewed::Lost => claims.observer.lease_lost(),
                    }
                }
                now = Instant::now();
            }
        }
    }
}
