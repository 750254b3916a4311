//! What the tasks of flights tell of, as metrics and lines of the log. Nothing of one request but its digests is written.

use std::{sync::Arc, time::Duration};

use crate::{
    claim::{LostCause, Observer},
    ops::{
        log::{self, Log},
        metrics::Metrics,
        words::{ClaimOutcome, DoubtCause, StoreCause, StoreOp},
    },
    store::{Hold, Key, StoreError},
};

/// Counts what flights tell of.
pub(super) struct Counting {
    pub(super) metrics: Arc<Metrics>,
    pub(super) log: Arc<Log>,
}

impl Observer for Counting {
    fn claimed(&self, outcome: ClaimOutcome, took: Duration) {
        self.metrics.claim(outcome, took);
    }

    fn queued(&self, took: Duration) {
        self.metrics.lane_wait_seconds.observe(took.as_secs_f64());
    }

    fn lease_lost(&self) {
        self.metrics.leases_lost.inc();
        self.log.event(log::Level::Warn, "lease-lost", &[]);
    }

    fn late_answer(&self) {
        self.metrics.late_answers.inc();
    }

    fn in_doubt(&self, route: usize, cause: LostCause, hold: &Hold) {
        let cause = match cause {
            LostCause::Reset => DoubtCause::Reset,
            LostCause::Truncated => DoubtCause::Truncated,
            LostCause::Timeout => DoubtCause::Timeout,
        };
        self.metrics.route(route).in_doubt(cause);
        let lane = hold.lanes.first().map(Key::short).unwrap_or_default();
        let fingerprint = hold.fingerprint.as_ref().map(Key::short).unwrap_or_default();
        let fields = [("cause", cause.as_str()), ("fingerprint", &fingerprint), ("lane", &lane)];
        self.log.event_of(log::Level::Warn, "in-doubt", &fields, &[("fence", hold.fence.0)]);
    }

    fn store_error(&self, operation: StoreOp, error: &StoreError) {
        self.metrics.store_error(operation, cause(error));
    }
}

pub(super) fn cause(error: &StoreError) -> StoreCause {
    match error {
        StoreError::Deadline => StoreCause::Deadline,
        StoreError::Down(_) => StoreCause::Down,
        StoreError::Forgot => StoreCause::Forgot,
    }
}
