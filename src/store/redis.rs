//! The store that replicas share: Redis, or whatever speaks its protocol and runs its scripts.
//!
//! Every step of the record machine is one script (`redis/*.lua`), which Redis runs alone; its `TIME` is the only clock.
//! Nothing is decided here: arguments go out, answers are read, and what cannot be read is "down". A call makes one
//! round trip over the one connection of the process, and fails at once while there is none.
//!
//! All keys of a namespace bear one hash tag, `{namespace}`. A request may hold several orders at once, and whichever two
//! these are, both lanes, the fingerprint and the fences have to change in one step: so they lie in one slot. In a
//! Cluster a namespace therefore lives on one primary at a time: the Cluster gives it failover and company, not more
//! speed. One core of Redis takes some ten thousand orders a second; who needs more gives upstreams namespaces of their own.
//! While a slot is moved to another primary, the store is down.

mod address;
mod codec;
mod connect;
mod link;
mod script;
mod start;
#[cfg(test)]
mod tests;
mod trust;
mod wakes;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

pub use self::{
    address::{Address, AddressError, RootsError},
    start::Finding,
};
use self::{
    link::Link,
    script::{Call, Script, Told, unreadable},
    trust::Trust,
    wakes::Wakes,
};
use super::{
    Ask, Claimed, Delivery, Ending, Epoch, Fence, Hold, InDoubtPolicy, Kept, Key, LaneView, May, Millis,
    Record, Renewed, Reply, Resolution, Resolved, Restored, RestoredState, Settled, Store, StoreError,
    waiters::Wants,
};

const NAMESPACE_BYTES_MAX: usize = 64;
/// An answer that waits for nobody is not sent for those who follow: `wake.lua` passes on none that is larger.
const WOKEN_BYTES_MAX: usize = 64 << 10;

#[derive(Clone)]
pub struct Settings {
    pub address: Address,
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub namespace: String,
    /// After which a call is given up; it may be carried out all the same.
    pub deadline: Duration,
    /// How many replicas of Redis must have a claim, and an answer, before it counts. 0: none is waited for.
    pub wait_replicas: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("a namespace is 1 to {NAMESPACE_BYTES_MAX} letters, digits, dots, dashes and underscores")]
    Namespace,
    #[error("the thread of the store cannot be started")]
    Thread(#[source] io::Error),
}

pub struct Redis {
    link: Arc<Link>,
    trust: Arc<Trust>,
    wakes: Arc<Wakes>,
    /// By which name this process is told that others have ended what it waits for.
    replica: String,
    wait_replicas: u32,
    leases_lost: AtomicU64,
}

/// Whether a text can be what all keys begin with: 1 to 64 of `A-Z a-z 0-9 . _ -`.
#[must_use]
pub fn is_namespace(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty() && text.len() <= NAMESPACE_BYTES_MAX && text.bytes().all(is_plain)
}

impl Redis {
    /// Starts connecting, and goes on until it is dropped. Until there is a connection every call is "down"; see
    /// [`Self::ready`].
    pub fn connect(settings: Settings) -> Result<Arc<Self>, StartError> {
        let Settings { address, namespace, deadline, wait_replicas } = settings;
        if !is_namespace(&namespace) {
            return Err(StartError::Namespace);
        }
        let meta_key = format!("{{{namespace}}}:meta");
        let replica = format!("{:016x}", rand::random::<u64>());
        let (wakes, trust) = (Arc::new(Wakes::default()), Arc::new(Trust::new(meta_key.clone())));
        let link = Arc::new(Link::new(address, meta_key, deadline));
        let channel = format!("{{{namespace}}}:wake:{replica}");
        link.start(Arc::clone(&wakes), channel, Arc::clone(&trust)).map_err(StartError::Thread)?;
        Ok(Arc::new(Self { link, trust, wakes, replica, wait_replicas, leases_lost: AtomicU64::new(0) }))
    }

    /// Waits for the first connection, or says why there is none yet.
    pub async fn ready(&self, patience: Duration) -> Result<(), StoreError> {
        let mut is_up = self.link.is_up();
        if let Ok(Ok(_)) = timeout(patience, is_up.wait_for(|up| *up)).await {
            return Ok(());
        }
        self.link.ask(&redis::cmd("PING")).await.map(|_| ())
    }

    /// Whether there is a connection, as it changes.
    #[must_use]
    pub fn is_up(&self) -> watch::Receiver<bool> {
        self.link.is_up()
    }

    /// What is worth knowing of this Redis; for the log, at the start and now and then.
    pub async fn findings(&self) -> Result<Vec<Finding>, StoreError> {
        start::findings(&self.link, self.wait_replicas).await
    }

    /// The secret of all replicas of this namespace: the first one that is offered is everybody's, and a store that
    /// forgot is told it again.
    pub async fn shared_secret(&self, candidate: [u8; 32]) -> Result<[u8; 32], StoreError> {
        let mut told = self.run(self.trust.offer_secret(candidate)).await?;
        let secret = Trust::read_secret(&mut told)?;
        self.trust.keep_secret(secret);
        Ok(secret)
    }

    /// Which memory the store has; a shorthand for those who hold no seam.
    pub async fn epoch_now(&self) -> Result<Epoch, StoreError> {
        self.epoch().await
    }

    /// Flights whose lease this process has found to have run out.
    #[must_use]
    pub fn leases_lost(&self) -> u64 {
        self.leases_lost.load(Relaxed)
    }

    /// Who of this process waits for another replica.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.wakes.count()
    }

    async fn run(&self, call: Call) -> Result<Told, StoreError> {
        let told = self.link.call(&call).await?;
        self.leases_lost.fetch_add(told.lost, Relaxed);
        Ok(told)
    }

    async fn claim(&self, ask: &Ask) -> Result<Claimed, StoreError> {
        // Before the call: a wake-up may come back sooner than its answer.
        let claiming = self.wakes.claiming();
        let mut told = self.run(claim_call(self.trust.call(Script::Claim)?, ask, &self.replica)).await?;
        Ok(match &*told.word()? {
            b"lead" => {
                let fence = told.fence()?;
                self.trust.note(fence);
                self.replicated().await?;
                Claimed::Lead(Hold {
                    owner: ask.owner,
                    fence,
                    lanes: ask.lanes.clone(),
                    fingerprint: ask.fingerprint,
                    scope: ask.scope,
                    lease: ask.lease,
                })
            }
            b"follow" => {
                let fence = told.fence()?;
                self.trust.note(fence);
                let Some(fingerprint) = ask.fingerprint else { return Err(unreadable()) };
                claiming
                    .gather(fingerprint, fence, Wants::Answer)
                    .map_or(Claimed::Busy, |wake| Claimed::Follow { fence, wake })
            }
            b"queue" => {
                let (at, key, running) = (told.bytes()?, told.key()?, told.fence()?);
                self.trust.note(running);
                let wake = match &*at {
                    b"f" => claiming.gather(key, running, Wants::Turn),
                    _ => claiming.queue(key, ask.fingerprint),
                };
                wake.map_or(Claimed::Busy, |wake| Claimed::Queue { running: Some(running), wake })
            }
            b"replay" => {
                let (remaining, record) = (told.length()?, told.bytes()?);
                // Kept by another version, or damaged: never absent.
                codec::decode(record, remaining)
                    .map_or(Claimed::Busy, |record| Claimed::Replay(Arc::new(record)))
            }
            b"resolved" => Claimed::Resolved { until: Millis(told.number()?), remaining: told.length()? },
            b"doubt" => Claimed::InDoubt { age: told.length()?, remaining: told.length()? },
            b"mismatch" => Claimed::Mismatch,
            b"busy" => Claimed::Busy,
            _ => return Err(unreadable()),
        })
    }

    async fn renew(&self, hold: &Hold) -> Result<Renewed, StoreError> {
        let call = self.trust.call(Script::Renew)?.number(hold.fence.0).bytes(owner(hold)).length(hold.lease);
        match &*self.run(call).await?.word()? {
            b"held" => Ok(Renewed::Held),
            b"lost" => Ok(Renewed::Lost),
            _ => Err(unreadable()),
        }
    }

    async fn settle(&self, hold: &Hold, ending: Ending) -> Result<Settled, StoreError> {
        let settled =
            settled(&mut self.run(settle_call(self.trust.call(Script::Settle)?, hold, &ending)).await?)?;
        // An answer that too few replicas have is still an answer; if it is lost, its claim is in doubt.
        drop(self.replicated().await);
        Ok(settled)
    }

    async fn restore(&self, restored: &Restored) -> Result<Settled, StoreError> {
        let call = restore_call(self.trust.call_untrusting(Script::Restore), restored);
        settled(&mut self.run(call).await?)
    }

    async fn epoch(&self) -> Result<Epoch, StoreError> {
        Trust::read_epoch(&mut self.run(self.trust.offer_epoch()).await?)
    }

    async fn inspect(&self, lane: Key) -> Result<LaneView, StoreError> {
        let mut told = self.run(self.trust.call(Script::Inspect)?.key(Some(lane))).await?;
        Ok(match &*told.word()? {
            b"free" => LaneView::Free,
            b"flight" => LaneView::Flight { fence: told.fence()?, lease_left: told.length()? },
            b"doubt" => {
                LaneView::InDoubt { fence: told.fence()?, age: told.length()?, remaining: told.length()? }
            }
            b"unreadable" => LaneView::Unreadable,
            _ => return Err(unreadable()),
        })
    }

    async fn resolve(&self, lane: Key, resolution: Resolution) -> Result<Resolved, StoreError> {
        let call = resolve_call(self.trust.call(Script::Resolve)?, lane, resolution);
        match &*self.run(call).await?.word()? {
            b"changed" => Ok(Resolved::Changed),
            b"running" => Ok(Resolved::Running),
            b"nothing" => Ok(Resolved::Nothing),
            _ => Err(unreadable()),
        }
    }

    /// A step that has nothing to say but that it was made.
    async fn make(&self, call: Call) -> Result<(), StoreError> {
        match &*self.run(call).await?.word()? {
            b"done" => Ok(()),
            _ => Err(unreadable()),
        }
    }

    async fn replicated(&self) -> Result<(), StoreError> {
        match self.wait_replicas {
            0 => Ok(()),
            replicas => self.link.wait_replicas(replicas).await,
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.link.stop();
    }
}

impl Store for Redis {
    fn claim<'a>(&'a self, ask: &'a Ask) -> Reply<'a, Claimed> {
        Reply::later(self.claim(ask))
    }

    fn renew<'a>(&'a self, hold: &'a Hold) -> Reply<'a, Renewed> {
        Reply::later(self.renew(hold))
    }

    fn settle<'a>(&'a self, hold: &'a Hold, ending: Ending) -> Reply<'a, Settled> {
        Reply::later(self.settle(hold, ending))
    }

    fn abandon<'a>(&'a self, hold: &'a Hold) -> Reply<'a, ()> {
        Reply::later(async {
            self.make(self.trust.call(Script::Abandon)?.number(hold.fence.0).bytes(owner(hold))).await
        })
    }

    fn delivered<'a>(&'a self, hold: &'a Hold) -> Reply<'a, ()> {
        Reply::later(async { self.make(self.trust.call(Script::Delivered)?.number(hold.fence.0)).await })
    }

    fn begin_generation(&self, identity: Key) -> Reply<'_, ()> {
        Reply::later(async move {
            self.make(self.trust.call(Script::Generation)?.key(Some(identity)).bytes("")).await
        })
    }

    fn restore_generation(&self, identity: Key, began: Fence) -> Reply<'_, ()> {
        let call = self.trust.call_untrusting(Script::Generation).key(Some(identity)).number(began.0);
        Reply::later(self.make(call))
    }

    fn inspect(&self, lane: Key) -> Reply<'_, LaneView> {
        Reply::later(self.inspect(lane))
    }

    fn resolve(&self, lane: Key, resolution: Resolution) -> Reply<'_, Resolved> {
        Reply::later(self.resolve(lane, resolution))
    }

    fn forget(&self, lane: Key) -> Reply<'_, usize> {
        Reply::later(async move {
            let mut told = self.run(self.trust.call(Script::Forget)?.key(Some(lane))).await?;
            forgotten(&mut told)
        })
    }

    fn restore<'a>(&'a self, restored: &'a Restored) -> Reply<'a, Settled> {
        Reply::later(self.restore(restored))
    }

    fn epoch(&self) -> Reply<'_, Epoch> {
        Reply::later(self.epoch())
    }

    fn adopt_epoch(&self, epoch: Epoch) {
        self.trust.adopt(epoch);
    }
}

fn owner(hold: &Hold) -> [u8; 16] {
    hold.owner.0.to_be_bytes()
}

fn claim_call(call: Call, ask: &Ask, replica: &str) -> Call {
    let may = match ask.may {
        May::FollowAny => "any".to_owned(),
        May::FollowAfter(None) => "none".to_owned(),
        May::FollowAfter(Some(fence)) => fence.0.to_string(),
    };
    let call = call
        .bytes(ask.owner.0.to_be_bytes())
        .keys(&ask.lanes)
        .key(ask.fingerprint)
        .key(ask.scope)
        .key(ask.body)
        .keys(&ask.generations)
        .bytes(may)
        .length(ask.lease);
    hold_length(call, ask.in_doubt).bytes(replica)
}

fn hold_length(call: Call, policy: InDoubtPolicy) -> Call {
    match policy {
        InDoubtPolicy::Hold(length) => call.length(length),
        InDoubtPolicy::Retry => call.bytes("-"),
    }
}

fn settle_call(call: Call, hold: &Hold, ending: &Ending) -> Call {
    let call = call.number(hold.fence.0).bytes(owner(hold));
    let woken = |answer: &Record| match &answer.body {
        Kept::Whole(body) if body.len() > WOKEN_BYTES_MAX => Vec::new(),
        Kept::Whole(_) | Kept::Dropped => codec::encode(answer),
    };
    match ending {
        Ending::Done { record, unseen, seen } => call
            .bytes("done")
            .bytes(codec::encode(record))
            .bytes(codec::encode_tombstone(record))
            .length(*unseen)
            .length(*seen),
        Ending::DoneUnkept { answer } => {
            call.bytes("unkept").bytes(woken(answer)).bytes("").number(0).number(0)
        }
        Ending::Failed { answer } => call.bytes("failed").bytes(woken(answer)).bytes("").number(0).number(0),
        Ending::InDoubt => call.bytes("doubt").bytes("").bytes("").number(0).number(0),
    }
}

fn resolve_call(call: Call, lane: Key, resolution: Resolution) -> Call {
    let call = call.key(Some(lane));
    match resolution {
        Resolution::Done(life) => call.bytes("done").length(life),
        Resolution::Free => call.bytes("free").number(0),
    }
}

fn restore_call(call: Call, restored: &Restored) -> Call {
    let hold = &restored.hold;
    let call = call
        .number(hold.fence.0)
        .bytes(owner(hold))
        .keys(&hold.lanes)
        .key(hold.fingerprint)
        .key(hold.scope)
        .key(restored.body)
        .keys(&restored.generations);
    let call = hold_length(call, restored.in_doubt);
    match &restored.state {
        RestoredState::Flight => call.bytes("f").number(0).length(hold.lease).bytes("-").bytes("").bytes(""),
        RestoredState::InDoubt { age, remaining } => {
            call.bytes("q").length(*age).length(*remaining).bytes("-").bytes("").bytes("")
        }
        RestoredState::Done { record, remaining, delivery } => {
            let call = call.bytes("d").number(0).length(*remaining);
            let call = match delivery {
                Delivery::Awaited { seen } => call.length(*seen),
                Delivery::Made => call.bytes("-"),
            };
            call.bytes(codec::encode(record)).bytes(codec::encode_tombstone(record))
        }
        RestoredState::Resolved { remaining } => {
            call.bytes("r").number(0).length(*remaining).bytes("-").bytes("").bytes("")
        }
    }
}

fn settled(told: &mut Told) -> Result<Settled, StoreError> {
    match &*told.word()? {
        b"in-time" => Ok(Settled::InTime),
        b"late" => Ok(Settled::Late),
        b"superseded" => Ok(Settled::Superseded),
        _ => Err(unreadable()),
    }
}

fn forgotten(told: &mut Told) -> Result<usize, StoreError> {
    match &*told.word()? {
        b"dropped" => usize::try_from(told.number()?).map_err(|_| unreadable()),
        _ => Err(unreadable()),
    }
}
