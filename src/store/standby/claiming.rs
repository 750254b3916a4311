//! A claim: of the shared store where it can be asked, of this replica's own where it cannot, and of the one that knows
//! where the two could differ. Nothing that was led is let go here.

use tokio::time::Instant;

use super::{
    Standby,
    copies::Age,
    down,
    link::{Known, Mode},
};
use crate::{
    ops::words::StoreOp,
    store::{Ask, Claimed, Hold, OnStoreDown, Restored, RestoredState, Store as _, StoreError},
};

/// Who is to be asked.
enum Way {
    /// The shared store alone.
    Remote,
    /// This replica's own: something of the claim's places is kept here.
    Kept,
    /// The shared store is not asked.
    Local,
}

impl Standby {
    pub(super) async fn claim_by(
        &self,
        ask: &Ask,
        on_store_down: OnStoreDown,
    ) -> Result<Claimed, StoreError> {
        match self.way(ask) {
            Way::Remote => {}
            Way::Kept => {
                if let Some(claimed) = self.claim_kept(ask).await {
                    return Ok(claimed);
                }
            }
            // Where nothing comes of it the store has come back in between, and nothing was sent.
            Way::Local => {
                if let Some(claimed) = self.alone(ask, on_store_down, Known::Never, down()).await {
                    return claimed;
                }
            }
        }
        match self.claim_there(ask).await {
            Ok(claimed) => {
                self.learn(ask, &claimed);
                Ok(claimed)
            }
            Err(error) => {
                if on_store_down == OnStoreDown::Local {
                    self.served(StoreOp::Claim, Some(&error));
                }
                let claimed = self.alone(ask, on_store_down, Known::Maybe, error.clone()).await;
                claimed.unwrap_or(Err(error))
            }
        }
    }

    fn way(&self, ask: &Ask) -> Way {
        if self.link.is_plain() {
            return Way::Remote;
        }
        let standing = self.local.standing_at(ask);
        self.link.with(|state| match state.mode {
            Mode::Up if standing.iter().any(|fence| state.keeps(*fence)) => Way::Kept,
            Mode::Up => Way::Remote,
            Mode::Down | Mode::Forgot { .. } => Way::Local,
        })
    }

    /// Asks this replica's own store for a claim whose places it answers for. None: it is free there by now, and the
    /// shared store is to be asked.
    async fn claim_kept(&self, ask: &Ask) -> Option<Claimed> {
        match self.local.claim(ask).await.ok()? {
            Claimed::Lead(hold) => {
                // It was never given out, so nothing was sent under it.
                self.local.evict(hold.fence);
                None
            }
            claimed => Some(claimed),
        }
    }

    /// Goes on without the shared store, or refuses to. None: it came back, and nothing was claimed here.
    async fn alone(
        &self,
        ask: &Ask,
        on_store_down: OnStoreDown,
        known: Known,
        error: StoreError,
    ) -> Option<Result<Claimed, StoreError>> {
        if let Some(record) = self.copy_of(ask, Age::Any) {
            return Some(Ok(Claimed::Replay(record)));
        }
        if on_store_down == OnStoreDown::Refuse {
            return Some(Err(error));
        }
        // Other replicas may have been given fences by the clock of the shared store since.
        self.local.raise_fences((self.terms.fences)());
        let claimed = match self.local.claim(ask).await {
            Ok(claimed) => claimed,
            Err(error) => return Some(Err(error)),
        };
        let Claimed::Lead(hold) = &claimed else { return Some(Ok(claimed)) };
        if let Some(seen) = self.sightings().obstacle(ask, Instant::now()) {
            self.local.evict(hold.fence);
            return Some(Ok(seen));
        }
        let kept = self.link.with(|state| {
            // What the shared store was never asked for may as well be asked for now.
            let keep = known == Known::Maybe || state.mode != Mode::Up;
            if keep {
                state.keep(hold.fence, known);
            }
            keep
        });
        if !kept {
            self.local.evict(hold.fence);
            return None;
        }
        self.work.notify_one();
        Some(Ok(claimed))
    }

    /// What the shared store's answer means for this replica's own.
    fn learn(&self, ask: &Ask, claimed: &Claimed) {
        match claimed {
            Claimed::Lead(hold) => {
                self.copies().drop_of(ask.fingerprint);
                self.local.mirror(&flight(ask, hold));
                // It was away or has forgotten since: what it granted is to be kept as well.
                self.keep_unless_up(hold.fence);
            }
            Claimed::Replay(record) => {
                self.copies().keep(ask, record, record.remaining, Instant::now());
            }
            Claimed::Follow { .. }
            | Claimed::Queue { .. }
            | Claimed::Resolved { .. }
            | Claimed::InDoubt { .. }
            | Claimed::Mismatch
            | Claimed::Busy => self.copies().drop_of(ask.fingerprint),
        }
        self.sightings().see(ask, claimed, Instant::now());
    }
}

/// A flight as it was granted, for this replica's own store.
fn flight(ask: &Ask, hold: &Hold) -> Restored {
    Restored {
        hold: hold.clone(),
        body: ask.body,
        generations: ask.generations.clone(),
        in_doubt: ask.in_doubt,
        state: RestoredState::Flight,
    }
}
