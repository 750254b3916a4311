//! What a flight asks of the store after its claim: renewals, and its end.
//!
//! The store that knows of the flight is told. Where that is the shared one and it does not answer, this replica's own
//! is told, and what has to be told later is kept; so a flight never waits for a store, and never loses its right to
//! one that is away.

use std::sync::Arc;

use super::{
    Standby, down,
    link::{Known, Over},
};
use crate::{
    ops::words::StoreOp,
    store::{Ending, Hold, Kept, Renewed, Restored, Settled, Store as _, StoreError},
};

/// Of an answer that was kept for nobody and that other replicas could not be told: what is remembered of its body.
const UNTOLD_BODY_MAX: usize = 64 << 10;

impl Standby {
    pub(super) async fn renew_by(&self, hold: &Hold) -> Result<Renewed, StoreError> {
        let mut failed = None;
        if self.asks_remote(hold.fence) {
            match self.call(self.remote.renew(hold)).await {
                Ok(Renewed::Held) => {
                    self.local.renew(hold).await?;
                    return Ok(Renewed::Held);
                }
                Ok(Renewed::Lost) => return Ok(Renewed::Lost),
                Err(error) => failed = Some(error),
            }
        }
        match self.local.renew(hold).await? {
            Renewed::Held => {
                self.served(StoreOp::Renew, failed.as_ref());
                self.link.with(|state| state.keep_on(hold.fence));
                self.work.notify_one();
                Ok(Renewed::Held)
            }
            // It may well be held there.
            Renewed::Lost if !self.local.has(hold.fence) => Err(failed.unwrap_or_else(down)),
            Renewed::Lost => Ok(Renewed::Lost),
        }
    }

    pub(super) async fn settle_by(&self, hold: &Hold, ending: Ending) -> Result<Settled, StoreError> {
        self.sightings().lift(&hold.lanes);
        let mut failed = None;
        if self.asks_remote(hold.fence) {
            match self.call(self.remote.settle(hold, ending.clone())).await {
                Ok(Settled::Superseded) => {
                    self.local.evict(hold.fence);
                    return Ok(Settled::Superseded);
                }
                Ok(settled) => {
                    self.local.settle(hold, ending).await?;
                    self.copy_settled(hold);
                    return Ok(settled);
                }
                Err(error) => failed = Some(error),
            }
        }
        // Without a trace of it here there is nothing that could be told later.
        let Some(before) = self.local.held_under(hold.fence) else {
            return Err(failed.unwrap_or_else(down));
        };
        let settled = self.local.settle(hold, ending.clone()).await?;
        if settled != Settled::Superseded {
            self.served(StoreOp::Settle, failed.as_ref());
            self.over(before, Over::Settled(slim(ending)));
        }
        Ok(settled)
    }

    pub(super) async fn abandon_by(&self, hold: &Hold) -> Result<(), StoreError> {
        self.sightings().lift(&hold.lanes);
        let mut failed = None;
        if self.asks_remote(hold.fence) {
            match self.call(self.remote.abandon(hold)).await {
                Ok(()) => return self.local.abandon(hold).await,
                Err(error) => failed = Some(error),
            }
        }
        let Some(before) = self.local.held_under(hold.fence) else {
            return Err(failed.unwrap_or_else(down));
        };
        self.served(StoreOp::Abandon, failed.as_ref());
        self.local.abandon(hold).await?;
        self.over(before, Over::Abandoned);
        Ok(())
    }

    /// A flight has ended here and the shared store could not be told.
    fn over(&self, before: Restored, over: Over) {
        let fence = before.hold.fence;
        let held = self.local.has(fence);
        self.link.with(|state| match held {
            true => state.keep(fence, Known::Maybe),
            false => state.ended(before, Known::Maybe, over),
        });
        self.work.notify_one();
    }
}

/// An answer that nobody is kept for, as it is remembered for followers on other replicas.
fn slim(mut ending: Ending) -> Ending {
    if let Ending::Failed { answer } | Ending::DoneUnkept { answer } = &mut ending
        && matches!(&answer.body, Kept::Whole(body) if body.len() > UNTOLD_BODY_MAX)
    {
        Arc::make_mut(answer).body = Kept::Dropped;
    }
    ending
}
