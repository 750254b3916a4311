//! What happened in a run, in order: the only thing that the checker sees.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use oncegate::store::{Fence, Key};
use tokio::time::Instant;

use super::plan::Kind;

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
    /// The first settle or abandon that was carried out.
    pub(crate) given_back: Option<At>,
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
    pub(crate) resolutions: Vec<(At, u8, Word)>,
    pub(crate) trace: Vec<String>,
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
