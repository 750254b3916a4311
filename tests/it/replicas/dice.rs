//! Chance that can be had again: every decision of a run comes from one seed.

use std::{env, ops::Range, time::Duration};

/// SplitMix64: small, and good enough to choose faults by.
pub(super) struct Dice(u64);

impl Dice {
    /// Another sequence for each use of one seed, so that what one of them does changes nothing for the others.
    pub(super) fn new(seed: u64, of: u64) -> Self {
        let mut dice = Self(seed ^ of.wrapping_mul(0xA24B_AED4_963E_E407));
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.below(range.end - range.start))
    }
}

/// `ONCEGATE_SEED`, or a new one.
pub(super) fn seed() -> u64 {
    env::var("ONCEGATE_SEED").map_or_else(
        |_| rand::random::<u64>(),
        |text| text.trim().parse().expect("ONCEGATE_SEED is a number"),
    )
}

/// `ONCEGATE_CHAOS_SECONDS`, or eighteen: a minute and a half with all kinds of stores.
pub(super) fn length() -> Duration {
    let seconds = env::var("ONCEGATE_CHAOS_SECONDS")
        .map_or(18, |text| text.trim().parse().expect("ONCEGATE_CHAOS_SECONDS is a number"));
    Duration::from_secs(seconds)
}
