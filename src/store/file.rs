//! The store of one node that survives a restart: the memory store, with a journal on a disk.
//!
//! The memory store decides everything and stays the truth while the process lives; what a step changed goes to a file
//! by a thread of its own, all that waits in one transaction. Whoever is told that he leads, or that an answer is
//! settled, is told when that is on the disk; followers, replays and renewals write nothing. A claim that cannot be
//! written is refused as "down" and given back: nothing is sent that a restart would not know of. After a restart what
//! was in flight is in doubt, and its rule says what follows.
//!
//! Only what was on the disk can come back. A file that is damaged is set aside under a name that says so and reported,
//! and the store begins anew, as one that has forgotten: it is never emptied, and never read in part.

mod clock;
mod disk;
mod folder;
mod journal;
mod row;

use std::{
    fmt, io,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::SystemTime,
};

pub use self::journal::Health;
use self::{
    clock::Moment,
    disk::{Disk, LoadError, Told, When},
    folder::{Folder, NotHad},
    journal::{Journal, Ticket},
};
use super::{
    Ask, Claimed, Ending, Fence, Hold, Key, LaneView, Renewed, Reply, Resolution, Resolved, Restored,
    Settled, Store,
    machine::cells::{Cells as _, State},
    memory::{Flight, Memory, MemoryLimits, Stats, Table},
};

/// The file store. [`File::tick`] has to be called about every 100 ms, as with the memory store.
pub struct File {
    memory: Arc<Memory>,
    journal: Arc<Journal>,
    secret: [u8; 32],
    writer: Mutex<Option<thread::JoinHandle<()>>>,
    /// Ours until nothing is written any more.
    _folder: Folder,
}

/// A store that can be used, and what somebody should know about it.
pub struct Opened {
    pub store: Arc<File>,
    /// What was found damaged, and where it is now.
    pub damaged: Option<Damaged>,
    /// How many flights were running when the process before this one ended without them: they are in doubt now, or
    /// free where their rule says so.
    pub orphans: usize,
}

/// A file that could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damaged {
    pub file: PathBuf,
    pub set_aside: PathBuf,
    pub why: String,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, set_aside, why } = self;
        let (file, set_aside) = (file.display(), set_aside.display());
        write!(
            f,
            "the store {file} is damaged ({why}); it was set aside as {set_aside}, and a new one was begun: what was in \
             flight, in doubt or kept is forgotten, so look through the orders of the last hours for doubles, and look \
             after the disk"
        )
    }
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "another oncegate uses the store {}; stop it, or give this one a path of its own: two of them would not know of \
         each other's orders", .0.display()
    )]
    InUse(PathBuf),
    #[error(
        "the store {} was written by another version of oncegate, in a format that this one cannot read; run that \
         version, or move the file away and begin anew", .0.display()
    )]
    Foreign(PathBuf),
    #[error("the store {} cannot be used: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the store {} cannot be written: {source}", path.display())]
    Unwritten { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
}

impl File {
    /// Opens the store in a folder, which is made where it is not there. `secret` is taken where the store has none.
    ///
    /// # Errors
    /// Where another process has it, another version wrote it, or the disk does not do its work. Damage is no error.
    pub fn open(path: &Path, limits: MemoryLimits, secret: [u8; 32]) -> Result<Opened, OpenError> {
        let failed = |source| OpenError::Io { path: path.to_owned(), source };
        let folder = Folder::take(path).map_err(|why| match why {
            NotHad::Taken => OpenError::InUse(path.to_owned()),
            NotHad::Io(source) => failed(source),
        })?;
        let file = folder.database();
        let (mut loaded, mut damaged) = (load(&file, limits), None);
        if let Err(LoadError::Damaged(why)) = loaded {
            let set_aside = folder.set_aside().map_err(failed)?;
            damaged = Some(Damaged { file: file.clone(), set_aside, why });
            loaded = load(&file, limits);
        }
        let (disk, table, told) = loaded.map_err(|error| match error {
            LoadError::InUse => OpenError::InUse(file.clone()),
            LoadError::Foreign => OpenError::Foreign(file.clone()),
            LoadError::Io(source) => OpenError::Io { path: file.clone(), source },
            LoadError::Damaged(why) => OpenError::Io { path: file.clone(), source: io::Error::other(why) },
        })?;
        Self::begin(folder, disk, table, told, secret, damaged)
    }

    fn begin(
        folder: Folder,
        mut disk: Disk,
        mut table: Table,
        told: Told,
        secret: [u8; 32],
        damaged: Option<Damaged>,
    ) -> Result<Opened, OpenError> {
        let unwritten = |source| OpenError::Unwritten { path: folder.database(), source };
        if table.last_fence() == Fence(0) {
            // Fences rise across a file that was set aside or taken away, too.
            table.raise_fence(first_fence());
        }
        let now = Moment::now();
        let known = told.clock.as_ref();
        let since = known.map(|(at, moment)| clock::go_on(*at, Some(moment), now.as_ref()));
        let began = since.unwrap_or(told.time).max(told.time);
        let secret = told.secret.unwrap_or(secret);
        let clock = now.map(|moment| (began, moment));
        // What is empty is given back before anybody waits. A file that cannot be made smaller serves as it is.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| disk.compact(When::Start)));
        disk.write_head(&secret, clock.as_ref()).map_err(|error| unwritten(error.into()))?;
        let flights: Vec<Flight> = table
            .runs()
            .filter(|(_, run)| matches!(run.state, State::Flight { .. }))
            .map(|(fence, _)| Flight::Orphan(fence))
            .collect();
        let journal = Journal::new(table.last_fence(), began);
        let memory = Arc::new(Memory::journaled(table, began, Arc::clone(&journal) as _));
        memory.take_over(&flights);
        journal.write_first(&mut disk).map_err(|error| unwritten(error.into()))?;
        let (writing, of) = (Arc::clone(&journal), Arc::downgrade(&memory));
        let writer = thread::Builder::new().name("store".to_owned()).spawn(move || writing.run(disk, &of));
        let writer = Mutex::new(Some(writer.map_err(|error| unwritten(error.into()))?));
        let store = Arc::new(Self { memory, journal, secret, writer, _folder: folder });
        Ok(Opened { store, damaged, orphans: flights.len() })
    }

    /// The secret of the installation: made with the store, and the same ever after.
    #[must_use]
    pub fn secret(&self) -> [u8; 32] {
        self.secret
    }

    /// Ends what has run out, see [`Memory::tick`].
    pub fn tick(&self) {
        self.memory.tick();
    }

    #[must_use]
    pub fn stats(&self) -> Stats {
        self.memory.stats()
    }

    #[must_use]
    pub fn health(&self) -> Health {
        self.journal.health()
    }

    /// Writes what there is, and ends. Calls that come after it are not written, and say so.
    pub fn close(&self) {
        self.journal.end();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // What it panicked of has been told by the calls that it did not answer.
            let _ = writer.join();
        }
    }

    /// Acts, and answers when what was done is on the disk.
    fn written<'a, T: Send + 'a>(&self, act: impl FnOnce() -> Reply<'a, T>) -> Reply<'a, T> {
        let failures = self.journal.failures();
        let reply = act();
        let ticket = self.journal.ticket(failures);
        match ticket {
            Ticket::Known(Ok(())) => reply,
            Ticket::Known(Err(error)) => Reply::now(Err(error)),
            Ticket::Waiting(_) => Reply::later(async move {
                let answer = reply.await?;
                ticket.wait().await?;
                Ok(answer)
            }),
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store for File {
    fn claim<'a>(&'a self, ask: &'a Ask) -> Reply<'a, Claimed> {
        let failures = self.journal.failures();
        let claimed = self.memory.claim_now(ask);
        let ticket = match &claimed {
            Claimed::Lead(hold) => match self.journal.ticket(failures) {
                Ticket::Known(Err(error)) => {
                    // Nobody is told of this flight, so nothing is sent.
                    self.memory.abandon_now(hold);
                    return Reply::now(Err(error));
                }
                ticket => ticket,
            },
            Claimed::Replay(record) if self.journal.is_pending(record.fence) => self.journal.ticket(failures),
            _ => Ticket::Known(Ok(())),
        };
        if let Ticket::Known(_) = ticket {
            return Reply::now(Ok(claimed));
        }
        Reply::later(async move {
            match (ticket.wait().await, claimed) {
                (Ok(()), claimed) => Ok(claimed),
                // It is true whatever becomes of the disk.
                (Err(_), Claimed::Replay(record)) => Ok(Claimed::Replay(record)),
                (Err(error), _) => Err(error),
            }
        })
    }

    /// Not written: a flight that is found after a restart has lost its leader, whatever its lease was.
    fn renew<'a>(&'a self, hold: &'a Hold) -> Reply<'a, Renewed> {
        self.memory.renew(hold)
    }

    fn settle<'a>(&'a self, hold: &'a Hold, ending: Ending) -> Reply<'a, Settled> {
        self.written(|| self.memory.settle(hold, ending))
    }

    /// Written, but not waited for: lost with the process, it is a doubt about a request that was not sent.
    fn abandon<'a>(&'a self, hold: &'a Hold) -> Reply<'a, ()> {
        self.memory.abandon(hold)
    }

    /// Written, but not waited for: lost with the process, the record lives as long as one that nobody has.
    fn delivered<'a>(&'a self, hold: &'a Hold) -> Reply<'a, ()> {
        self.memory.delivered(hold)
    }

    fn begin_generation(&self, identity: Key) -> Reply<'_, ()> {
        self.written(|| self.memory.begin_generation(identity))
    }

    fn inspect(&self, lane: Key) -> Reply<'_, LaneView> {
        self.memory.inspect(lane)
    }

    fn resolve(&self, lane: Key, resolution: Resolution) -> Reply<'_, Resolved> {
        self.written(|| self.memory.resolve(lane, resolution))
    }

    fn forget(&self, lane: Key) -> Reply<'_, usize> {
        self.written(|| self.memory.forget(lane))
    }

    fn restore<'a>(&'a self, restored: &'a Restored) -> Reply<'a, Settled> {
        self.written(|| self.memory.restore(restored))
    }
}

/// Where the fences of a new file begin: above all that an older one can have given out, which counted from here too.
fn first_fence() -> Fence {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Fence(u64::try_from(since.as_micros()).unwrap_or(0))
}

fn load(file: &Path, limits: MemoryLimits) -> Result<(Disk, Table, Told), LoadError> {
    // A database may stumble over what it finds in a file that somebody else has written into.
    panic::catch_unwind(|| {
        let mut table = Table::new(limits);
        let (disk, told) = Disk::load(file, &mut table)?;
        Ok((disk, table, told))
    })
    .unwrap_or_else(|_| Err(LoadError::Damaged("reading it went wrong".to_owned())))
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Waker},
        time::{Duration, Instant},
    };

    use bytes::Bytes;
    use http::StatusCode;
    use smallvec::smallvec;

    use super::{journal::Fault, *};
    use crate::store::{Headers, InDoubtPolicy, Kept, May, Owner, Record, StoreError, Woken};

    const LONG: Duration = Duration::from_secs(60);

    fn key(name: &str) -> Key {
        Key(*blake3::hash(name.as_bytes()).as_bytes())
    }

    fn ask(owner: u128, order: &str) -> Ask {
        Ask {
            owner: Owner(owner),
            lanes: smallvec![key(order)],
            fingerprint: Some(key(order)),
            scope: None,
            body: None,
            generations: smallvec![],
            may: May::FollowAny,
            lease: LONG,
            in_doubt: InDoubtPolicy::Hold(LONG),
        }
    }

    fn done(hold: &Hold) -> Ending {
        let record = Arc::new(Record {
            status: StatusCode::OK,
            headers: Headers::default(),
            body: Kept::Whole(Bytes::from_static(b"1001")),
            fence: hold.fence,
            answered_at: 0,
            remaining: Duration::ZERO,
        });
        Ending::Done { record, unseen: LONG, seen: LONG }
    }

    fn open(folder: &Path) -> Arc<File> {
        let limits = MemoryLimits { records_bytes_max: 1 << 20, states_max: 1000 };
        File::open(folder, limits, [7; 32]).expect("a store in a folder of its own").store
    }

    async fn lead(store: &File, ask: &Ask) -> Hold {
        match store.claim(ask).await {
            Ok(Claimed::Lead(hold)) => hold,
            other => panic!("expected to lead, got {other:?}"),
        }
    }

    impl File {
        fn breaks(&self, fault: Fault) {
            *self.journal.faults() = Some(fault);
        }

        async fn mends(&self) {
            *self.journal.faults() = None;
            let until = Instant::now() + Duration::from_secs(10);
            while self.health() != Health::Up {
                assert!(Instant::now() < until, "it does not come back");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    #[tokio::test]
    async fn a_claim_that_is_not_written_is_refused_and_holds_nothing() {
        for fault in [Fault::Full, Fault::Panics] {
            let folder = tempfile::tempdir().unwrap();
            let store = open(folder.path());
            store.breaks(fault);
            // The first one notices, the others are told at once.
            for owner in 1..20 {
                let order = format!("order {owner}");
                assert!(matches!(store.claim(&ask(owner, &order)).await, Err(StoreError::Down(_))));
                assert_eq!(store.inspect(key(&order)).await, Ok(LaneView::Free));
            }
            assert!(matches!(store.health(), Health::Down(_)));
            assert_eq!(store.stats().flights, 0);
            store.mends().await;
            for owner in 20..30 {
                lead(&store, &ask(owner, &format!("order {}", owner - 19))).await;
            }
        }
    }

    #[tokio::test]
    async fn a_disk_that_fails_for_long_leaves_no_trace_of_every_claim() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        store.breaks(Fault::Full);
        for owner in 1..5000 {
            assert!(store.claim(&ask(owner, &format!("order {owner}"))).await.is_err());
        }
        assert!(store.journal.pending() < 50, "{}", store.journal.pending());
    }

    #[tokio::test]
    async fn an_answer_that_is_not_written_is_kept_told_and_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let hold = lead(&store, &ask(1, "order")).await;
        let Ok(Claimed::Follow { wake, .. }) = store.claim(&ask(2, "order")).await else { panic!("it runs") };
        store.breaks(Fault::Full);
        assert!(matches!(store.settle(&hold, done(&hold)).await, Err(StoreError::Down(_))));
        assert!(matches!(wake.await, Ok(Woken::Answered { .. })), "the shop's answer is nobody's secret");
        assert!(matches!(store.claim(&ask(3, "order")).await, Ok(Claimed::Replay(_))));
        assert!(matches!(store.settle(&hold, done(&hold)).await, Err(StoreError::Down(_))));
        store.mends().await;
        assert_eq!(store.settle(&hold, done(&hold)).await, Ok(Settled::Superseded), "by itself");
        drop(store);
        let store = open(folder.path());
        assert!(matches!(store.claim(&ask(4, "order")).await, Ok(Claimed::Replay(_))));
    }

    #[tokio::test]
    async fn nobody_hears_of_an_answer_before_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let hold = lead(&store, &ask(1, "order")).await;
        let Ok(Claimed::Follow { mut wake, .. }) = store.claim(&ask(2, "order")).await else {
            panic!("it runs")
        };
        let (again, other) = (ask(3, "order"), ask(4, "another order"));
        let is_pending = |reply: &mut (dyn Future<Output = _> + Unpin)| {
            Pin::new(reply).poll(&mut Context::from_waker(Waker::noop())).is_pending()
        };
        let (settled, replay, led) = {
            // The writer cannot go on as long as this is held.
            let _stopped = store.journal.faults();
            let mut settled = store.settle(&hold, done(&hold));
            assert!(Pin::new(&mut settled).poll(&mut Context::from_waker(Waker::noop())).is_pending());
            let (mut replay, mut led) = (store.claim(&again), store.claim(&other));
            assert!(is_pending(&mut replay) && is_pending(&mut led));
            assert!(wake.try_recv().is_err());
            (settled, replay, led)
        };
        assert_eq!(settled.await, Ok(Settled::InTime));
        assert!(matches!(replay.await, Ok(Claimed::Replay(_))));
        assert!(matches!(led.await, Ok(Claimed::Lead(_))));
        assert!(matches!(wake.await, Ok(Woken::Answered { .. })));
    }
}
