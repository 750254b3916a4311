//! What all replicas agree on: who may send, which answers are kept, what is in doubt.
//!
//! [`Store`] is the seam behind which the memory store stands today and the others stand later. It is
//! asynchronous, it takes lane and fingerprint in one call, and it speaks of leases and fences. A call that fails
//! may have been carried out: every claim carries an owner token and may be asked again with the same token. A
//! store may also forget (restarted empty, restored from an old copy): [`Epoch`] tells, [`Store::restore`] mends.
//! Nothing here sends a request, reads a request, or knows what HTTP is beyond a kept answer.

pub mod file;
pub mod hash;
mod headers;
pub mod machine;
pub mod memory;
pub mod redis;
pub mod standby;
mod waiters;

use std::{
    fmt,
    future::{Future, Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use smallvec::SmallVec;
use tokio::sync::oneshot;

pub use self::{headers::Headers, machine::cells::Delivery};

/// A keyed digest that names a lane, a fingerprint, a scope or an identity. It cannot be guessed back to a person.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// The first 8 hex digits: enough to compare two log lines, too few to forge.
    #[must_use]
    pub fn short(&self) -> String {
        self.hex(4)
    }

    /// The first `bytes` of it as hex digits.
    #[must_use]
    pub fn hex(&self, bytes: usize) -> String {
        let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
        self.0.iter().take(bytes).flat_map(|byte| [digit(byte >> 4), digit(byte & 0xF)]).collect()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.short())
    }
}

/// The number of a lease. Of two leases on one lane or one fingerprint, the later has the higher fence.
///
/// Fences rise across a store that forgot as well, so that whoever compares them (a shop, a follower, a record) is
/// never told that the older one is newer: a shared store gives out the microseconds of its clock or the last fence
/// and one, whichever is higher, and a process raises its own store above all it has seen before it goes on alone
/// ([`memory::Memory::raise_fences`]). 2^53 microseconds last until the year 2255.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Fence(pub u64);

/// A random token that makes a claim idempotent: asked again with the same token it gives the same answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Owner(pub u128);

/// Which memory a store has. It changes when the store has forgotten what it was told: it was restarted empty, flushed,
/// restored from an old copy, or is a replica that never had it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Epoch(pub u128);

/// Milliseconds on the store's own clock, the only clock that leases, holds and records are measured by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Millis(pub u64);

/// Which running flight of the same fingerprint an exchange may follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum May {
    /// Any flight: the request is the same, so is its answer (`once`).
    FollowAny,
    /// Only a flight that began after the request had arrived, that is one with a higher fence than the one that
    /// was running then (`signal`). `None`: not asked before, no flight may be followed yet.
    FollowAfter(Option<Fence>),
}

/// What to do with duplicates of a flight whose answer never came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InDoubtPolicy {
    /// Refuse whatever comes for the fingerprint and its lanes until this long after the doubt began.
    Hold(Duration),
    /// The next one leads.
    Retry,
}

/// A question for the right to send. Lanes and fingerprint are claimed together or not at all.
#[derive(Clone, Debug)]
pub struct Ask {
    pub owner: Owner,
    /// Every order the request is about; sorted, without repetitions, at least one.
    pub lanes: SmallVec<[Key; 1]>,
    /// Which request it is. `None` where nothing may be shared: mode `serial`, or an identity that is declared
    /// but absent.
    pub fingerprint: Option<Key>,
    /// `replay_scope = "order"`: where a done record answers other bodies of the same order.
    pub scope: Option<Key>,
    /// Digest of the canonical body where an event id stands for the body in the fingerprint. A flight or record
    /// with another digest is a mismatch.
    pub body: Option<Key>,
    /// The identities (one per renew rule that applies) whose new generation ends older records.
    pub generations: SmallVec<[Key; 1]>,
    pub may: May,
    pub lease: Duration,
    pub in_doubt: InDoubtPolicy,
}

/// What is done with guarded requests while the store that all replicas share cannot be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnStoreDown {
    /// This replica goes on alone: it keeps its own requests apart, not those of the others.
    Local,
    Refuse,
}

/// How a store stands now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    Up,
    /// It cannot be asked.
    Down,
    /// It answers and has forgotten; what may still run is waited for.
    Forgot,
}

/// What a claim came to.
#[derive(Debug)]
pub enum Claimed {
    /// The right to send is ours until the lease ends; renew it before.
    Lead(Hold),
    /// The same request is at the shop, led by another owner.
    Follow { fence: Fence, wake: Wake },
    /// It was answered before.
    Replay(Arc<Record>),
    /// An operator resolved it as done; no answer is known.
    Resolved { until: Millis, remaining: Duration },
    /// Another exchange of a lane is at the shop (or, for `signal`, an earlier run of the same request).
    Queue { running: Option<Fence>, wake: Wake },
    /// Something was sent and no answer is known, for this request or for another one of its lanes.
    InDoubt { age: Duration, remaining: Duration },
    /// The same event id came with another body.
    Mismatch,
    /// A state that cannot be read, or the store's bound on live states is reached: never free, never absent.
    Busy,
}

/// Resolves when something changed for the one who waits. It is a hint: whoever is woken claims anew, unless the
/// wake-up brings the answer itself. A dropped sender counts as [`Woken::Again`].
pub type Wake = oneshot::Receiver<Woken>;

#[derive(Clone, Debug)]
pub enum Woken {
    /// The flight that was followed was answered. The fence is that flight's.
    Answered { fence: Fence, answer: Arc<Record>, outcome: Judged },
    /// Claim anew.
    Again,
}

/// A lease that was granted: what it takes to renew, settle or abandon it.
#[derive(Clone, Debug)]
pub struct Hold {
    pub owner: Owner,
    pub fence: Fence,
    pub lanes: SmallVec<[Key; 1]>,
    pub fingerprint: Option<Key>,
    pub scope: Option<Key>,
    pub lease: Duration,
}

/// A run as a replica knows it, to be written into a store that was away or has forgotten it.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Its `lease` is the one that a running flight begins anew.
    pub hold: Hold,
    pub body: Option<Key>,
    pub generations: SmallVec<[Key; 1]>,
    pub in_doubt: InDoubtPolicy,
    pub state: RestoredState,
}

/// How far a restored run has come. Lengths, not times: two stores have no clock in common.
#[derive(Clone, Debug)]
pub enum RestoredState {
    Flight,
    InDoubt { age: Duration, remaining: Duration },
    Done { record: Arc<Record>, remaining: Duration, delivery: Delivery },
    Resolved { remaining: Duration },
}

/// How a route judged an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judged {
    Done,
    /// Something is left to do for the client, such as paying at a provider: for those who wait, and for whoever sends
    /// the same within seconds. To a store it is a done answer of a short life, so only the replica that had it from
    /// the shop knows it by this name.
    Pending,
    Failed,
}

/// How a flight ended.
#[derive(Clone, Debug)]
pub enum Ending {
    /// Keep the record `unseen` long from now; once a client has it (see [`Store::delivered`]), `seen` long from its
    /// first delivery.
    Done { record: Arc<Record>, unseen: Duration, seen: Duration },
    /// Done, and nothing is kept (modes `signal` and `serial`); followers of this flight get it.
    DoneUnkept { answer: Arc<Record> },
    /// Followers of this flight get it, nothing is kept.
    Failed { answer: Arc<Record> },
    /// Something was sent and no answer is known.
    InDoubt,
}

/// What a settle found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// The flight was still ours.
    InTime,
    /// The lease had run out, the flight was in doubt; this answer resolved it.
    Late,
    /// Something newer holds the place; nothing was changed.
    Superseded,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Renewed {
    Held,
    /// The lease ran out before; the flight is in doubt or belongs to another. The exchange goes on, its answer is
    /// settled as a late one.
    Lost,
}

/// What an operator decided about an order in doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// The shop did the work: refuse duplicates for this long.
    Done(Duration),
    /// The shop did not do the work: the next duplicate leads.
    Free,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolved {
    Changed,
    /// A flight that runs cannot be freed.
    Running,
    /// Nothing was in doubt there.
    Nothing,
}

/// What a lane looks like from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LaneView {
    Free,
    Flight { fence: Fence, lease_left: Duration },
    InDoubt { fence: Fence, age: Duration, remaining: Duration },
    Unreadable,
}

/// A kept answer: end-to-end headers only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub status: StatusCode,
    pub headers: Headers,
    pub body: Kept,
    pub fence: Fence,
    /// Unix seconds at which the shop answered, for `Age`.
    pub answered_at: u64,
    /// Filled in by the store when it gives the record out: how long it still lives.
    pub remaining: Duration,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kept {
    Whole(Bytes),
    /// A tombstone: the work is done, the body was too large to keep, or had to go early.
    Dropped,
}

impl Record {
    /// What it counts for in the store's byte budget.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let body = match &self.body {
            Kept::Whole(bytes) => bytes.len(),
            Kept::Dropped => 0,
        };
        256 + self.headers.bytes() + body
    }
}

/// Why a store call has no answer. It may have been carried out all the same.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    #[error("the store did not answer within its deadline")]
    Deadline,
    /// It cannot be reached, or it answers that it cannot do its work now (it loads, it is full, it is no primary). That
    /// is never the same as having nothing.
    #[error("the store cannot be reached: {0}")]
    Down(String),
    /// It answers, but its [`Epoch`] is not the one that was adopted: what it does not know may well be running.
    #[error("the store has forgotten what it was told")]
    Forgot,
}

/// The answer to a call. A store that is memory has it at once: no box is made for it, and nobody waits. A call whose
/// reply was dropped may have been carried out, or not.
pub enum Reply<'a, T> {
    Now(Ready<Result<T, StoreError>>),
    Later(Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>),
}

impl<'a, T> Reply<'a, T> {
    pub fn now(answer: Result<T, StoreError>) -> Self {
        Self::Now(ready(answer))
    }

    pub fn later(answer: impl Future<Output = Result<T, StoreError>> + Send + 'a) -> Self {
        Self::Later(Box::pin(answer))
    }

    /// The answer that is there already.
    ///
    /// # Errors
    /// The reply itself, which has to be waited for.
    pub fn at_once(self) -> Result<Result<T, StoreError>, Self> {
        match self {
            Self::Now(answer) => Ok(answer.into_inner()),
            Self::Later(_) => Err(self),
        }
    }
}

impl<T> Future for Reply<'_, T> {
    type Output = Result<T, StoreError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(answer) => Pin::new(answer).poll(cx),
            Self::Later(answer) => answer.as_mut().poll(cx),
        }
    }
}

/// The seam. Every change is one atomic step that compares owner and fence.
pub trait Store: Send + Sync + 'static {
    /// Asks for lanes and fingerprint together; registers for a wake-up when it has to wait.
    fn claim<'a>(&'a self, ask: &'a Ask) -> Reply<'a, Claimed>;
    /// [`Self::claim`] by a route that says what is to happen while the store is down. A store that has nothing to go
    /// on with needs no such word.
    fn claim_where<'a>(&'a self, ask: &'a Ask, _on_store_down: OnStoreDown) -> Reply<'a, Claimed> {
        self.claim(ask)
    }
    /// Prolongs the lease by its length, from now.
    fn renew<'a>(&'a self, hold: &'a Hold) -> Reply<'a, Renewed>;
    /// Ends the claim with what is known of the answer; wakes followers and one waiter per lane.
    fn settle<'a>(&'a self, hold: &'a Hold, ending: Ending) -> Reply<'a, Settled>;
    /// Gives the claim back because nothing was sent; wakes one waiter.
    fn abandon<'a>(&'a self, hold: &'a Hold) -> Reply<'a, ()>;
    /// The record's answer has reached a client. The first time, its `seen` life begins; later ones change nothing.
    /// So a record lives no longer than `unseen` and `seen` together.
    fn delivered<'a>(&'a self, hold: &'a Hold) -> Reply<'a, ()>;
    /// A new purchase of this identity has begun: older done records of it answer nobody any more.
    fn begin_generation(&self, identity: Key) -> Reply<'_, ()>;
    fn inspect(&self, lane: Key) -> Reply<'_, LaneView>;
    fn resolve(&self, lane: Key, resolution: Resolution) -> Reply<'_, Resolved>;
    /// Drops the done records that were led under this lane. Answers how many.
    fn forget(&self, lane: Key) -> Reply<'_, usize>;
    /// Writes back what this replica knows of a run, under the run's own fence, where its places are free. A record
    /// needs its fingerprint only, what is live its lanes too. Of what the store knows itself it takes the further
    /// state. [`Settled::Superseded`]: something else stands there, nothing was changed. Asked again it changes
    /// nothing more. It works in every epoch.
    fn restore<'a>(&'a self, restored: &'a Restored) -> Reply<'a, Settled>;
    /// Which memory the store has now. One that can only forget together with its process has one for ever.
    fn epoch(&self) -> Reply<'_, Epoch> {
        Reply::now(Ok(Epoch::default()))
    }
    /// From now on the store's memory of this epoch is trusted. A call (but [`Self::restore`] and [`Self::epoch`]) that
    /// meets another one ends in [`StoreError::Forgot`] and changes nothing.
    fn adopt_epoch(&self, _epoch: Epoch) {}
    /// A generation began while the store could not be told: records up to this fence are older. A store without this
    /// step begins one now, which ends records of the new purchase as well.
    fn restore_generation(&self, identity: Key, _began: Fence) -> Reply<'_, ()> {
        self.begin_generation(identity)
    }
    /// Whether all replicas are agreed with now, or only this process.
    fn standing(&self) -> Standing {
        Standing::Up
    }
}
