//! A store that replicas share: how it is opened, watched and left.
//!
//! Whether a process may start without it is decided here: with a secret of its own it may, and goes on alone until the
//! store answers; without one it would name every order otherwise than the other replicas do.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use rand::random;

use super::{StartError, counting::cause, local::Notices};
use crate::{
    admin::AdminState,
    config::{Config, RedisStore, show_duration},
    gate::Gate,
    ops::{
        log::Level,
        words::{StoreFinding, StoreOp},
    },
    request::Secret,
    store::redis::{Finding, Redis, Settings},
    store::{
        InDoubtPolicy, MEMORY_AGE_MIN, OnStoreDown, Past, Recall, Standing, Store, StoreError,
        memory::Stats,
        standby::{self, Change, Standby, Terms, Watch},
    },
};

/// How long a start waits for the store.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// How long an end waits until the store has been told what it does not know.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked at how the store is set up.
const CHECK: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(super) struct Shared {
    redis: Arc<Redis>,
    standby: Arc<Standby>,
    telling: Arc<Telling>,
    /// What the store as a whole does while it is down: whether others should be asked instead of this process.
    on_store_down: OnStoreDown,
}

impl Shared {
    pub(super) fn open(config: &mut Config, to: &RedisStore) -> Result<(Self, Notices), StartError> {
        let redis = Redis::connect(Settings {
            address: to.address.clone(),
            namespace: to.namespace.clone(),
            deadline: config.store.deadline,
            wait_replicas: to.wait_replicas,
        })?;
        let mut notices = Notices::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let recall = match runtime.block_on(meet(&redis, config, &mut notices))? {
            Met::Answers(recall) => Some(recall),
            Met::Unreachable(error) => {
                let then = match config.store.on_store_down {
                    OnStoreDown::Local => "until it answers, this replica keeps only its own requests apart",
                    OnStoreDown::Refuse => "until it answers, guarded requests are refused",
                };
                notices.add(Level::Warn, "store-down", format!("the store does not answer: {error}; {then}"));
                None
            }
        };
        let terms = Terms {
            deadline: config.store.deadline,
            lease: config.store.lease,
            longest: longest(config),
            fences: standby::microseconds,
        };
        let telling = Arc::new(Telling::default());
        let watch: Arc<dyn Watch> = Arc::clone(&telling) as _;
        let (own, seam) = (Arc::new(super::memory(config)), Arc::clone(&redis) as Arc<dyn Store>);
        let standby = Standby::new(seam, own, terms, watch, recall);
        if standby.standing() == Standing::Forgot {
            let text = "it has forgotten what it was told before; until that is over it is treated as down";
            notices.add(Level::Error, "store-forgot", text.to_owned());
        }
        Ok((Self { redis, standby, telling, on_store_down: config.store.on_store_down }, notices))
    }

    pub(super) fn seam(&self) -> Arc<dyn Store> {
        Arc::clone(&self.standby) as _
    }

    pub(super) fn begin(&self, gate: &Arc<Gate>, admin: &Arc<AdminState>) {
        let voice =
            Voice { gate: Arc::clone(gate), admin: Arc::clone(admin), on_store_down: self.on_store_down };
        voice.stands(self.standby.standing());
        // Nothing is told before: nobody tends the store yet, and no request has come.
        let _ = self.telling.voice.set(voice);
        let standby = Arc::clone(&self.standby);
        drop(tokio::task::spawn_local(async move { standby.tend().await }));
        let (redis, gate) = (Arc::clone(&self.redis), Arc::clone(gate));
        drop(tokio::task::spawn_local(async move { look_at(&redis, &gate).await }));
    }

    pub(super) fn tick(&self) {
        self.standby.local().tick();
        if let Some(voice) = self.telling.voice.get() {
            voice.gate.metrics.shared_store.kept.set(i64::try_from(self.standby.kept()).unwrap_or(i64::MAX));
        }
    }

    /// Of this replica: what the others keep in the store is theirs to count.
    pub(super) fn stats(&self) -> Stats {
        self.standby.local().stats()
    }

    /// Tells the store what it does not know yet. What cannot be told goes with this process.
    pub(super) fn close(&self) {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let told = runtime.block_on(self.standby.farewell(END_PATIENCE));
        let left = self.standby.kept();
        if left > 0
            && let Some(voice) = self.telling.voice.get()
        {
            let why = match told {
                Err(error) => error.to_string(),
                Ok(()) => "something else stands in their places".to_owned(),
            };
            voice.gate.log.event_of(Level::Error, "store-untold", &[("why", &why)], &[("runs", left as u64)]);
        }
    }
}

enum Met {
    Answers(Recall),
    Unreachable(StoreError),
}

/// The first words with the store: whether it is there, how it is set up, which memory it has, and the secret of all.
async fn meet(redis: &Redis, config: &mut Config, notices: &mut Notices) -> Result<Met, StartError> {
    let met = async {
        redis.ready(START_PATIENCE).await?;
        let findings = redis.findings().await?;
        let secret = match &config.store.secret {
            Some(_) => None,
            None => Some(redis.shared_secret(random()).await?),
        };
        Ok::<_, StoreError>((findings, secret, settled_memory(redis).await?))
    };
    let (findings, secret, epoch) = match met.await {
        Ok(met) => met,
        Err(error) if config.store.secret.is_some() => return Ok(Met::Unreachable(error)),
        Err(error) => return Err(StartError::NoSecret { source: error }),
    };
    for finding in findings {
        let evicts = matches!(finding, Finding::Evicts { .. });
        if finding.is_fatal() || (evicts && refuses_to_do_without(config)) {
            return Err(StartError::Unfit { finding });
        }
        notices.add(Level::Warn, "store-finding", finding.to_string());
    }
    if let Some(secret) = secret {
        config.store.secret = Some(Secret::new(secret));
    }
    Ok(Met::Answers(epoch))
}

/// What the store says of its memory, once those who remember another one have had the time to say so.
async fn settled_memory(redis: &Redis) -> Result<Recall, StoreError> {
    let recall = redis.recall().await?;
    if recall.past == Past::Forgotten || recall.age >= MEMORY_AGE_MIN {
        return Ok(recall);
    }
    tokio::time::sleep(MEMORY_AGE_MIN - recall.age).await;
    redis.recall().await
}

/// Whether some of what is guarded is refused rather than sent without the store's word.
fn refuses_to_do_without(config: &Config) -> bool {
    let guards = config.routes.iter().filter_map(|route| route.guard.as_ref());
    let mut choices = guards.map(|guard| guard.on_store_down).chain([config.store.on_store_down]);
    choices.any(|choice| choice == OnStoreDown::Refuse)
}

/// The longest lease and hold that a route uses: what a store that forgot may have had running.
fn longest(config: &Config) -> Duration {
    let holds = config.routes.iter().filter_map(|route| match route.guard.as_ref()?.in_doubt {
        InDoubtPolicy::Hold(length) => Some(length),
        InDoubtPolicy::Retry => None,
    });
    config.store.lease + holds.max().unwrap_or_default()
}

/// Looks now and then whether the store is still set up as it should be; tells of a change once.
async fn look_at(redis: &Redis, gate: &Gate) {
    let mut before: Option<Vec<Finding>> = None;
    loop {
        if let Ok(findings) = redis.findings().await {
            for what in StoreFinding::ALL {
                let found = findings.iter().any(|finding| word(finding) == *what);
                gate.metrics.shared_store.finding(*what, i64::from(found));
            }
            // What was found at the start has been told.
            for finding in
                before.iter().flat_map(|before| findings.iter().filter(|one| !before.contains(one)))
            {
                gate.log.event(Level::Warn, "store-finding", &[("what", &finding.to_string())]);
            }
            before = Some(findings);
        }
        tokio::time::sleep(CHECK).await;
    }
}

fn word(finding: &Finding) -> StoreFinding {
    match finding {
        Finding::TooOld { .. } => StoreFinding::TooOld,
        Finding::Evicts { .. } => StoreFinding::Evicts,
        Finding::NothingPersists => StoreFinding::NothingPersists,
        Finding::TooFewReplicas { .. } => StoreFinding::TooFewReplicas,
        Finding::Forbidden { .. } => StoreFinding::Forbidden,
    }
}

/// Log and metrics are made after the store; nothing changes before that.
#[derive(Default)]
struct Telling {
    voice: OnceLock<Voice>,
}

struct Voice {
    gate: Arc<Gate>,
    admin: Arc<AdminState>,
    on_store_down: OnStoreDown,
}

impl Voice {
    /// While replicas go on alone they are ready: taking all of them out would make an outage of it. One that refuses
    /// what is guarded is not, since another one may reach the store.
    fn stands(&self, standing: Standing) {
        self.gate.metrics.store_up.set(i64::from(standing == Standing::Up));
        for word in ["store-down", "store-forgot"] {
            self.admin.unblock(word);
            self.admin.unnote(word);
        }
        let word = match standing {
            Standing::Up => return,
            Standing::Down => "store-down",
            Standing::Forgot => "store-forgot",
        };
        match self.on_store_down {
            OnStoreDown::Local => self.admin.note(word),
            OnStoreDown::Refuse => self.admin.block(word),
        }
    }
}

impl Watch for Telling {
    fn changed(&self, change: &Change) {
        let Some(voice) = self.voice.get() else { return };
        let log = &voice.gate.log;
        match change {
            Change::Down { cause } => {
                voice.stands(Standing::Down);
                log.event(Level::Warn, "store-down", &[("why", &cause.to_string())]);
            }
            Change::Forgot { treated_as_down } => {
                voice.stands(Standing::Forgot);
                voice.gate.metrics.shared_store.forgot.inc();
                let length = show_duration(*treated_as_down);
                log.event(Level::Error, "store-forgot", &[("treated_as_down_for", &length)]);
            }
            Change::Back { after, written_back, superseded } => {
                voice.stands(Standing::Up);
                let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                let numbers =
                    [("after_ms", after), ("written_back", *written_back), ("superseded", *superseded)];
                log.event_of(Level::Warn, "store-back", &[], &numbers);
            }
        }
    }

    fn failed(&self, operation: StoreOp, error: &StoreError) {
        if let Some(voice) = self.voice.get() {
            voice.gate.metrics.store_error(operation, cause(error));
        }
    }
}

impl From<crate::store::redis::StartError> for StartError {
    fn from(error: crate::store::redis::StartError) -> Self {
        Self::Runtime(io::Error::other(error))
    }
}
