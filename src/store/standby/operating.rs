//! What is said of orders and identities from outside of a flight: an operator's words, and that a new purchase has begun.
//!
//! While the shared store is away they hold for what this replica knows, and are passed on later.

use super::{
    Standby, down,
    link::{Errand, Mode},
};
use crate::{
    ops::words::StoreOp,
    store::{KeptRun, Key, LaneView, Resolution, Resolved, Store as _, StoreError},
};

impl Standby {
    pub(super) async fn begin_generation_by(&self, identity: Key) -> Result<(), StoreError> {
        let began = self.local.last_fence();
        self.local.begin_generation(identity).await?;
        if self.link.mode() == Mode::Up {
            match self.call(self.remote.begin_generation(identity)).await {
                Ok(()) => return Ok(()),
                Err(error) => self.served(StoreOp::Generation, Some(&error)),
            }
        }
        self.run_later(Errand::Generation(identity, began));
        Ok(())
    }

    pub(super) async fn inspect_by(&self, lane: Key) -> Result<LaneView, StoreError> {
        if self.link.mode() == Mode::Up && !self.keeps_lane(lane) {
            return self.call(self.remote.inspect(lane)).await;
        }
        self.local.inspect(lane).await
    }

    /// While the store is down an operator's word holds for what this replica knows, and is passed on later.
    pub(super) async fn resolve_by(&self, lane: Key, resolution: Resolution) -> Result<Resolved, StoreError> {
        if self.link.mode() == Mode::Up && !self.keeps_lane(lane) {
            let resolved = self.call(self.remote.resolve(lane, resolution)).await?;
            if resolved == Resolved::Changed {
                self.local.resolve(lane, resolution).await?;
                self.sightings().lift(&[lane]);
            }
            return Ok(resolved);
        }
        let resolved = self.local.resolve(lane, resolution).await?;
        if resolved == Resolved::Changed {
            self.sightings().lift(&[lane]);
            self.run_later(Errand::Resolve(lane, resolution));
        }
        match resolved {
            // The shared store may know of a doubt that is none here.
            Resolved::Nothing if self.link.mode() != Mode::Up => Err(down()),
            Resolved::Nothing | Resolved::Changed | Resolved::Running => Ok(resolved),
        }
    }

    pub(super) async fn forget_by(&self, lane: Key) -> Result<usize, StoreError> {
        self.copies().forget(lane);
        let here = self.local.forget(lane).await?;
        if self.link.mode() == Mode::Up {
            return self.call(self.remote.forget(lane)).await;
        }
        self.run_later(Errand::Forget(lane));
        Ok(here)
    }

    pub(super) async fn kept_by(&self, lane: Key) -> Result<Vec<KeptRun>, StoreError> {
        match self.link.mode() {
            Mode::Up => self.call(self.remote.kept(lane)).await,
            Mode::Down | Mode::Forgot { .. } => self.local.kept(lane).await,
        }
    }

    fn run_later(&self, errand: Errand) {
        self.link.with(|state| state.errand(errand));
        self.work.notify_one();
    }

    fn keeps_lane(&self, lane: Key) -> bool {
        if self.link.is_plain() {
            return false;
        }
        let stands = self.local.standing_in(lane);
        stands.is_some_and(|fence| self.link.keeps(fence))
    }
}
