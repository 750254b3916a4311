//! What happened in a run, in order: the only thing that the checker sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use oncegate::store::{Fence, Key};
use tokio::time::Instant;

use super::plan::{Kind, LEASE};

/// How soon an idle replica finds out that the store has nothing left.
pub(crate) const NOTICE_EMPTY: u64 = 3000;

/// When something happened. Things of the same millisecond still have an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct At {
    pub(crate) ms: u64,
    pub(crate) turn: u64,
}

/// What the leader learned from the shop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    Done,
    Failed,
    /// Reset or timeout: sent, and no answer.
    Lost,
}

/// One exchange at the shop.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) kind: Kind,
    /// The request that was sent.
    pub(crate) ask: usize,
    pub(crate) replica: u64,
    pub(crate) fence: Fence,
    /// When it was decided to send it.
    pub(crate) set_out: At,
    pub(crate) began: At,
    /// When the shop itself was through with it, whoever listened.
    pub(crate) ended: Option<At>,
    pub(crate) told: Option<(At, Told)>,
    /// What came after the exchange was given up as lost.
    pub(crate) late: Option<(At, Told)>,
    /// The answer as it is to reach everybody; `None`: too large to keep.
    pub(crate) body: Option<Bytes>,
    /// When the answer first reached a client.
    pub(crate) delivered: Option<At>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answer {
        exchange: usize,
        fence: Option<Fence>,
        body: Option<Bytes>,
        failed: bool,
    },
    Lost,
    InDoubt,
    Resolved,
    Unreachable,
    LaneFull,
    FollowersFull,
    StoreDown,
    /// The client's patience was over.
    InVain,
    /// The client went away.
    Aborted,
    /// Its replica died.
    Crashed,
    /// Never allowed here: mismatch, busy, broken.
    Wrong(&'static str),
}

/// One request of one client.
#[derive(Clone, Debug)]
pub(crate) struct AskLog {
    pub(crate) kind: Kind,
    pub(crate) replica: u64,
    pub(crate) arrived: At,
    pub(crate) ended: Option<(At, Outcome)>,
}

/// What the store was seen to do for one claim.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) lanes: Vec<Key>,
    pub(crate) claimed: At,
    pub(crate) ends_ms: u64,
    /// When it had run out before somebody prolonged it all the same.
    pub(crate) ran_out_ms: Option<u64>,
    /// The first settle or abandon that was carried out.
    pub(crate) given_back: Option<At>,
}

impl Lease {
    pub(crate) fn begun(lanes: Vec<Key>, at: At) -> Self {
        Self { lanes, claimed: at, ends_ms: at.ms + LEASE, ran_out_ms: None, given_back: None }
    }

    pub(crate) fn prolong(&mut self, at: At) {
        if self.ends_ms <= at.ms && self.given_back.is_none() {
            self.ran_out_ms.get_or_insert(self.ends_ms);
        }
        self.ends_ms = self.ends_ms.max(at.ms + LEASE);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Free,
    Done,
}

#[derive(Default)]
pub(crate) struct Book {
    turn: u64,
    pub(crate) exchanges: Vec<Exchange>,
    pub(crate) asks: Vec<AskLog>,
    pub(crate) leases: BTreeMap<u64, Lease>,
    /// Which kind could not be sent at all.
    pub(crate) refused: Vec<(At, usize)>,
    pub(crate) generations: Vec<(At, Key)>,
    /// New purchases, when they began. The store may have been told later, or never.
    pub(crate) renewals: Vec<(At, Key)>,
    pub(crate) resolutions: Vec<(At, u8, Word)>,
    /// Runs that the store itself let lead.
    pub(crate) granted: BTreeSet<u64>,
    /// Runs that a replica told the store later, each time it did.
    pub(crate) written_back: Vec<(At, u64)>,
    /// Runs that a replica could not tell the store, because something else stood there.
    pub(crate) superseded: BTreeMap<u64, At>,
    /// What the store was told of a run.
    writes: Vec<(At, u64)>,
    pub(crate) breaks: Breaks,
    pub(crate) trace: Vec<String>,
}

/// What was broken, as far as somebody knows who breaks it.
#[derive(Default)]
pub(crate) struct Breaks {
    /// A replica, or none for all of them, may have thought from then until then that the store was down.
    pub(crate) troubles: Vec<(Option<u64>, u64, u64)>,
    /// Runs of which a failover lost something that the store had been told, with its moment.
    pub(crate) lost: Vec<(At, u64)>,
    /// When the store came back empty.
    pub(crate) emptied: Vec<At>,
    /// Which replica was not given a moment, from when to when.
    pub(crate) stops: Vec<(u64, u64, u64)>,
    /// From when to when each replica lived.
    pub(crate) lives: BTreeMap<u64, (At, Option<At>)>,
}

/// What a copy of the store holds.
pub(crate) struct Copied {
    at: At,
    leases: BTreeMap<u64, Lease>,
    generations: usize,
}

impl Book {
    /// The store has changed what it holds of a run.
    pub(crate) fn wrote(&mut self, fence: u64, at: At) {
        self.writes.push((at, fence));
    }

    pub(crate) fn trouble(&mut self, replica: Option<u64>, from: u64, to: u64) {
        self.breaks.troubles.push((replica, from, to));
    }

    pub(crate) fn copied(&self, at: At) -> Copied {
        Copied { at, leases: self.leases.clone(), generations: self.generations.len() }
    }

    pub(crate) fn born(&mut self, replica: u64, at: At) {
        self.breaks.lives.insert(replica, (at, None));
    }

    pub(crate) fn died(&mut self, replica: u64, at: At) {
        if let Some((_, died)) = self.breaks.lives.get_mut(&replica) {
            *died = Some(at);
        }
    }

    /// The copy has taken the place of the store.
    pub(crate) fn failed_over(&mut self, at: At, copy: Copied) {
        let lost = self.writes.iter().filter(|(wrote, _)| *wrote > copy.at).map(|(_, fence)| (at, *fence));
        self.breaks.lost.extend(lost);
        self.leases = copy.leases;
        self.generations.truncate(copy.generations);
    }
}

#[derive(Clone)]
pub(crate) struct Log {
    began: Instant,
    book: Arc<Mutex<Book>>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), book: Arc::default() }
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what happens now, with its place in the order.
    pub(crate) fn write<T>(
        &self,
        line: impl FnOnce() -> String,
        change: impl FnOnce(&mut Book, At) -> T,
    ) -> T {
        let ms = u64::try_from(self.began.elapsed().as_millis()).expect("a run is short");
        let mut book = self.book();
        book.turn += 1;
        let at = At { ms, turn: book.turn };
        let line = format!("{:>6} {}", at.ms, line());
        book.trace.push(line);
        change(&mut book, at)
    }
}
