//! What waits to be written, and the thread that writes it: one transaction for all who wait, one after the other.
//!
//! The memory store is the truth while the process lives; here it is decided when a caller may believe it. Steps come
//! in the order in which they were made and are written in that order or together, so that nothing is ever on the disk
//! without what it was built on. While the disk fails, what has happened goes on being gathered (per cell what it
//! holds last, so it cannot grow beyond the store), and is written as soon as the disk takes it again.

use std::{
    collections::HashSet,
    mem,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::disk::{Batch, Disk, When, WriteError};
use crate::store::{
    Fence, Hold, Millis, StoreError, Woken,
    machine::cells::{Cells as _, Place, Run, State},
    memory::{Calls, Changes, Flight, Journal as Journaled, Memory, Table},
};

/// How long something may wait that nobody waits for.
const LAZY: Duration = Duration::from_secs(1);
/// How often the disk is tried again when it has failed.
const RETRY: Duration = Duration::from_millis(500);
/// How often the store's time is written when nothing else is; the file may be compacted then.
const STAMP: Duration = Duration::from_secs(60);

/// Whether what happens is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Health {
    Up,
    /// The disk does not take it; the text says why.
    Down(String),
}

pub(super) struct Journal {
    state: Mutex<Standing>,
    work: Condvar,
    faults: Faults,
}

/// What goes wrong with the disk: in tests only.
#[derive(Default)]
struct Faults {
    #[cfg(test)]
    next: Mutex<Option<Fault>>,
}

struct Standing {
    pending: Pending,
    /// The runs of the batch that is being written, if one is.
    writing: Option<HashSet<Fence>>,
    health: Health,
    /// How often a write has failed: whoever waits for a step of before must not take a later success for its own.
    failures: u64,
    /// The highest fence of any batch that was tried: runs above it cannot be in the file.
    tried: Fence,
    end: End,
}

#[derive(Default)]
struct Pending {
    batch: Batch,
    waiting: Vec<oneshot::Sender<Result<(), StoreError>>>,
    /// Wake-ups that carry an answer: it is settled before anybody gets it.
    calls: Calls,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    /// Write what there is, once, and end.
    Wanted,
    Now,
}

/// What somebody waits for: that everything that has happened so far is on the disk.
pub(super) enum Ticket {
    /// It is, or cannot be.
    Known(Result<(), StoreError>),
    Waiting(oneshot::Receiver<Result<(), StoreError>>),
}

impl Ticket {
    pub(super) async fn wait(self) -> Result<(), StoreError> {
        match self {
            Self::Known(result) => result,
            Self::Waiting(written) => {
                written.await.unwrap_or_else(|_| Err(StoreError::Down("it is being closed".to_owned())))
            }
        }
    }
}

impl Journal {
    /// Of a store that comes from a file with this last fence, at this time.
    pub(super) fn new(last: Fence, now: Millis) -> Arc<Self> {
        let batch = Batch { last_fence: last, now, ..Batch::default() };
        let state = Standing {
            pending: Pending { batch, ..Pending::default() },
            writing: None,
            health: Health::Up,
            failures: 0,
            tried: last,
            end: End::NotYet,
        };
        Arc::new(Self { state: Mutex::new(state), work: Condvar::new(), faults: Faults::default() })
    }

    pub(super) fn health(&self) -> Health {
        self.lock().health.clone()
    }

    /// To be asked before the step that a ticket is to be for.
    pub(super) fn failures(&self) -> u64 {
        self.lock().failures
    }

    /// `failures` is what [`Self::failures`] said before the step.
    pub(super) fn ticket(&self, failures: u64) -> Ticket {
        let mut state = self.lock();
        if let Health::Down(why) = &state.health {
            return Ticket::Known(Err(StoreError::Down(why.clone())));
        }
        if state.failures != failures {
            return Ticket::Known(Err(StoreError::Down("the disk did not take it".to_owned())));
        }
        if state.pending.batch.is_empty() && state.writing.is_none() {
            return Ticket::Known(Ok(()));
        }
        let (written, waits) = oneshot::channel();
        state.pending.waiting.push(written);
        self.work.notify_one();
        Ticket::Waiting(waits)
    }

    /// Whether a run as it stands is not known to be on the disk.
    pub(super) fn is_pending(&self, fence: Fence) -> bool {
        let state = self.lock();
        state.pending.batch.runs.contains_key(&fence)
            || state.writing.as_ref().is_some_and(|writing| writing.contains(&fence))
    }

    /// Has the thread write what there is and end.
    pub(super) fn end(&self) {
        self.lock().end = End::Wanted;
        self.work.notify_one();
    }

    /// Writes until it is told to end. `memory` is the store whose journal this is; it is asked only after a failure.
    pub(super) fn run(&self, mut disk: Disk, memory: &Weak<Memory>) {
        let mut last = Instant::now();
        while let Some((pending, haste)) = self.next(last) {
            let written = panic::catch_unwind(AssertUnwindSafe(|| {
                self.faults.check()?;
                disk.write(&pending.batch)
            }));
            match written {
                Ok(Ok(())) => self.written(pending),
                Ok(Err(error)) => self.failed(pending, error.to_string(), memory),
                Err(_) => self.failed(pending, "the database gave up".to_owned(), memory),
            }
            let when = if haste == Haste::Idle { When::Idle } else { When::Busy };
            // A file that cannot be made smaller serves as it is.
            let _ = panic::catch_unwind(AssertUnwindSafe(|| disk.compact(when)));
            last = Instant::now();
        }
    }

    /// What the start itself changed, before there is a thread.
    pub(super) fn write_first(&self, disk: &mut Disk) -> Result<(), WriteError> {
        let pending = self.lock().take();
        disk.write(&pending.batch)
    }

    /// Waits until there is something to write. `last` is when something was written last.
    fn next(&self, last: Instant) -> Option<(Pending, Haste)> {
        let mut state = self.lock();
        let haste = loop {
            match state.end {
                End::NotYet => {}
                End::Wanted => {
                    state.end = End::Now;
                    break Haste::Asked;
                }
                End::Now => {
                    // Whoever comes now is told so, and whoever waits hears it by being dropped.
                    state.health = Health::Down("it is closed".to_owned());
                    drop(state.take());
                    return None;
                }
            }
            let (haste, due) = state.due();
            let left = due.saturating_sub(last.elapsed());
            if left.is_zero() {
                break haste;
            }
            let woken = self.work.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        };
        let pending = state.take();
        state.tried = state.tried.max(pending.batch.last_fence);
        state.writing = Some(pending.batch.runs.keys().copied().collect());
        Some((pending, haste))
    }

    fn written(&self, pending: Pending) {
        {
            let mut state = self.lock();
            state.writing = None;
            state.health = Health::Up;
        }
        pending.tell(&Ok(()));
    }

    /// Nobody has been told that he leads whose flight is not on the disk, and nobody will be: such flights are given
    /// back, all at once and before anything else happens, so that no order is held for a request that is not sent.
    fn failed(&self, pending: Pending, why: String, memory: &Weak<Memory>) {
        let told = Err(StoreError::Down(why.clone()));
        match memory.upgrade() {
            Some(memory) => memory.step(|inner, now, calls| {
                let (waiting, flights) = self.fall(pending, why);
                inner.end_flights(now, calls, &flights);
                waiting
            }),
            None => self.fall(pending, why).0,
        }
        .tell(&told);
    }

    /// Takes a batch back that was not written. Answers who is to be told, and the flights that nobody knows of.
    fn fall(&self, tried: Pending, why: String) -> (Pending, Vec<Flight>) {
        let mut state = self.lock();
        state.writing = None;
        state.health = Health::Down(why);
        state.failures += 1;
        let newer = state.take();
        let Pending { mut batch, mut waiting, mut calls } = tried;
        batch.overwrite(newer.batch);
        waiting.extend(newer.waiting);
        calls.extend(newer.calls);
        let flights = batch.runs.iter().filter_map(|(fence, run)| unsent(*fence, run.as_ref()?)).collect();
        state.pending.batch = batch;
        (Pending { batch: Batch::default(), waiting, calls }, flights)
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Faults {
    #[cfg(not(test))]
    fn check(&self) -> Result<(), WriteError> {
        Ok(())
    }

    #[cfg(test)]
    fn check(&self) -> Result<(), WriteError> {
        let fault = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            None => Ok(()),
            Some(Fault::Full) => Err(redb::Error::Io(std::io::ErrorKind::StorageFull.into()).into()),
            Some(Fault::Panics) => panic!("made to panic"),
        }
    }
}

impl Journaled for Journal {
    fn enter(&self, table: &Table, now: Millis, changes: Changes, calls: &mut Calls) {
        let mut state = self.lock();
        let Standing { pending: Pending { batch, calls: kept, .. }, health, tried, .. } = &mut *state;
        batch.now = now;
        batch.last_fence = table.last_fence();
        for fence in changes.runs {
            match table.run(fence) {
                Some(run) => drop(batch.runs.insert(fence, Some(run.value.clone()))),
                // It was never in the file. Else a disk that fails for long would leave a trace of every claim.
                None if fence > *tried => drop(batch.runs.remove(&fence)),
                None => drop(batch.runs.insert(fence, None)),
            }
        }
        for scope in changes.scopes {
            batch.scopes.insert(scope, table.place(Place::Scope(scope)).map(|fence| fence.value));
        }
        for identity in changes.generations {
            batch.generations.insert(identity, table.generation_until(identity));
        }
        if *health == Health::Up && !calls.is_empty() {
            let (answered, again): (Calls, Calls) =
                mem::take(calls).into_iter().partition(|(_, woken)| matches!(woken, Woken::Answered { .. }));
            kept.extend(answered);
            *calls = again;
            self.work.notify_one();
        }
    }
}

/// Why a batch is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Haste {
    Asked,
    /// Nobody waits for it.
    Lazy,
    /// There is nothing but the time.
    Idle,
}

impl Standing {
    /// Leaves what is true of every batch.
    fn take(&mut self) -> Pending {
        let Batch { last_fence, now, .. } = self.pending.batch;
        let batch = Batch { last_fence, now, ..Batch::default() };
        mem::replace(&mut self.pending, Pending { batch, ..Pending::default() })
    }

    /// Why the next batch is to be written, and how long after the last one.
    fn due(&self) -> (Haste, Duration) {
        let pending = &self.pending;
        if let Health::Down(_) = self.health {
            (Haste::Asked, RETRY)
        } else if !pending.waiting.is_empty() || !pending.calls.is_empty() {
            (Haste::Asked, Duration::ZERO)
        } else if !pending.batch.is_empty() {
            (Haste::Lazy, LAZY)
        } else {
            (Haste::Idle, STAMP)
        }
    }
}

impl Pending {
    fn tell(self, result: &Result<(), StoreError>) {
        // Whoever is gone needs neither.
        for waiting in self.waiting {
            drop(waiting.send(result.clone()));
        }
        for (wake, woken) in self.calls {
            drop(wake.send(woken));
        }
    }
}

fn unsent(fence: Fence, run: &Run) -> Option<Flight> {
    matches!(run.state, State::Flight { .. }).then(|| {
        Flight::Unsent(Hold {
            owner: run.owner,
            fence,
            lanes: run.lanes.clone(),
            fingerprint: run.fingerprint,
            scope: run.scope,
            lease: Duration::ZERO,
        })
    })
}

#[cfg(test)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Full,
    Panics,
}

#[cfg(test)]
impl Journal {
    /// As long as this is held, nothing is written.
    pub(super) fn faults(&self) -> MutexGuard<'_, Option<Fault>> {
        self.faults.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many cells wait to be written.
    pub(super) fn pending(&self) -> usize {
        let state = self.lock();
        let batch = &state.pending.batch;
        batch.runs.len() + batch.scopes.len() + batch.generations.len()
    }
}
