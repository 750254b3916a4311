//! Replicas, clients, an operator and a clock: one run, all in one thread and in virtual time.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use http::header::LOCATION;
use oncegate::{
    claim::{Claims, End, Ended, Keep, Observer, Part},
    store::{
        Judged, Kept, LaneView, Record, Resolution, Resolved, Store,
        memory::{Memory, MemoryLimits, Stats},
    },
};
use tokio::{
    task::{JoinHandle, spawn_local},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    log::{AskLog, Log, Outcome, Word},
    plan::{DEADLINE, Group, Kind, LEASE, PATIENCE, Plan, RESOLVED_LIFE, Rng, identity_key, lane_key, ms},
    shop::Lead,
    wire::Wire,
};

/// After the last client has left, everything is over within this time: doubts, late answers, records.
const REST: u64 = 45_000;
const LANES: u8 = 3;

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) log: Log,
    pub(crate) shop: RefCell<Rng>,
    memory: Arc<Memory>,
    wires: RefCell<Rng>,
    replicas: RefCell<Vec<Rc<Replica>>>,
    born: Cell<u64>,
}

pub(crate) struct Replica {
    pub(crate) number: u64,
    claims: Arc<Claims>,
    wire: Arc<Wire>,
    died: CancellationToken,
}

struct Blind;
impl Observer for Blind {}

impl Replica {
    /// A process that is gone goes no step further. What it had under way at the shop goes on there.
    pub(crate) async fn stop_if_dead(&self) {
        if self.died.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }
}

/// Runs one seed. Answers what happened, and what was wrong with the end state, if anything.
pub(crate) fn run(seed: u64, group: Group) -> (Plan, Log, Result<(), String>) {
    let mut rng = Rng::new(seed);
    let plan = Plan::draw(&mut rng, group);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build_local(Default::default())
        .expect("a runtime without I/O can always be built");
    let kept = plan.clone();
    let (log, end) = runtime.block_on(async move {
        let world = World::new(plan, &mut rng);
        let end = world.live(rng).await;
        (world.log.clone(), end)
    });
    (kept, log, end)
}

impl World {
    fn new(plan: Plan, rng: &mut Rng) -> Rc<Self> {
        let memory = Arc::new(Memory::new(MemoryLimits { records_bytes_max: 1 << 20, states_max: 1000 }));
        let (shop, wires) = (RefCell::new(rng.fork()), RefCell::new(rng.fork()));
        let (log, replicas, born) = (Log::new(), RefCell::default(), Cell::new(0));
        let world = Rc::new(Self { plan, log, shop, memory, wires, replicas, born });
        for _ in 0..world.plan.replicas {
            let replica = world.replica();
            world.replicas.borrow_mut().push(replica);
        }
        world
    }

    fn replica(&self) -> Rc<Replica> {
        let number = self.born.get() + 1;
        self.born.set(number);
        let rng = self.wires.borrow_mut().fork();
        let wire =
            Arc::new(Wire::new(number, Arc::clone(&self.memory), self.log.clone(), self.plan.wires, rng));
        let store: Arc<dyn Store> = Arc::clone(&wire) as Arc<dyn Store>;
        let claims = Claims::new(store, ms(LEASE), ms(DEADLINE), number, Arc::new(Blind));
        Rc::new(Replica { number, claims, wire, died: CancellationToken::new() })
    }

    async fn live(self: &Rc<Self>, mut rng: Rng) -> Result<(), String> {
        let memory = Arc::clone(&self.memory);
        drop(spawn_local(async move {
            loop {
                sleep(ms(100)).await;
                memory.tick();
            }
        }));
        let mut actors: Vec<JoinHandle<()>> = Vec::new();
        for _ in 0..self.plan.clients {
            actors.push(spawn_local(Rc::clone(self).client(rng.fork())));
        }
        actors.push(spawn_local(Rc::clone(self).crashes(rng.fork())));
        actors.push(spawn_local(Rc::clone(self).cuts(rng.fork())));
        actors.push(spawn_local(Rc::clone(self).renewals(rng.fork())));
        actors.push(spawn_local(Rc::clone(self).operator(rng.fork())));
        for actor in actors {
            actor.await.map_err(|died| format!("an actor died: {died}"))?;
        }
        sleep(ms(REST)).await;
        self.rest().await
    }

    /// Whatever was begun has ended: nothing is held, nobody waits.
    async fn rest(&self) -> Result<(), String> {
        let Stats { flights, in_doubt, lanes, waiters, .. } = self.memory.stats();
        if (flights, in_doubt, lanes, waiters) != (0, 0, 0, 0) {
            return Err(format!(
                "liveness: the store still has {flights} flights, {in_doubt} doubts, {lanes} lanes, {waiters} waiters"
            ));
        }
        let replicas = self.replicas.borrow().clone();
        for replica in replicas {
            let claims = &replica.claims;
            let left = (
                claims.flights.running(),
                claims.flights.followers(),
                claims.lanes.len(),
                claims.lanes.waiting(),
            );
            if left != (0, 0, 0, 0) {
                return Err(format!(
                    "liveness: r{} still has (flights, followers, lanes, waiting) {left:?}",
                    replica.number
                ));
            }
            claims.stopping.cancel();
            if timeout(ms(1000), claims.landed()).await.is_err() {
                return Err(format!("liveness: r{} has tasks that do not end", replica.number));
            }
        }
        Ok(())
    }

    async fn client(self: Rc<Self>, mut rng: Rng) {
        let mut again = None;
        for _ in 0..self.plan.asks_per_client {
            sleep(ms(rng.instant(if again.is_some() { 1500 } else { 4000 }))).await;
            let kinds = self.plan.kinds.len();
            let any = usize::try_from(rng.next() % kinds as u64).expect("small");
            let favourite = if rng.percent(50) { 0 } else { any };
            let kind = self.plan.kinds[again.unwrap_or(favourite)].clone();
            let number = kind.number;
            let slot = usize::try_from(rng.next() % self.plan.replicas as u64).expect("small");
            let leaves = rng.percent(self.plan.aborts).then(|| rng.instant(3000));
            let outcome = self.ask(slot, kind, leaves).await;
            let is_answer = matches!(outcome, Outcome::Answer { failed: false, .. });
            again = rng.percent(if is_answer { 25 } else { 75 }).then_some(number);
        }
    }

    async fn ask(self: &Rc<Self>, slot: usize, kind: Kind, leaves: Option<u64>) -> Outcome {
        let replica = Rc::clone(&self.replicas.borrow()[slot]);
        let line = || format!("r{} asked for kind {}", replica.number, kind.number);
        let ask = self.log.write(line, |book, arrived| {
            book.asks.push(AskLog { kind: kind.clone(), replica: replica.number, arrived, ended: None });
            book.asks.len() - 1
        });
        let arrived = Instant::now();
        let lead = || Lead {
            world: Rc::clone(self),
            replica: Rc::clone(&replica),
            kind: kind.clone(),
            ask,
            before: Cell::new(None),
        };
        let outcome = match replica.claims.take_part(kind.demand(), lead) {
            Part::FollowersFull => Outcome::FollowersFull,
            Part::Mismatch => Outcome::Wrong("mismatch"),
            Part::Seat(mut ticket) => {
                tokio::select! {
                    biased;
                    () = replica.died.cancelled() => Outcome::Crashed,
                    end = ticket.end() => self.outcome(&replica, &kind, end),
                    () = sleep_until(arrived + ms(leaves.unwrap_or(PATIENCE).min(PATIENCE))) => {
                        if leaves.is_some() { Outcome::Aborted } else { Outcome::InVain }
                    }
                }
            }
        };
        let line = || format!("r{} ask {ask} for kind {} ends: {outcome:?}", replica.number, kind.number);
        self.log.write(line, |book, at| book.asks[ask].ended = Some((at, outcome.clone())));
        outcome
    }

    fn outcome(&self, replica: &Rc<Replica>, kind: &Kind, end: End) -> Outcome {
        let (record, judged) = match end.what {
            Ended::Answered { answer, judged, .. } => {
                if judged == Judged::Done {
                    self.delivered(replica, kind, &answer);
                }
                (answer, judged)
            }
            Ended::Followed { answer, judged } => {
                if judged == Judged::Done {
                    self.delivered(replica, kind, &answer);
                }
                (answer, judged)
            }
            Ended::Replayed(record) => {
                self.delivered(replica, kind, &record);
                (record, Judged::Done)
            }
            Ended::Lost(_) => return Outcome::Lost,
            Ended::InDoubt { .. } => return Outcome::InDoubt,
            Ended::Resolved { .. } => return Outcome::Resolved,
            Ended::Unreachable => return Outcome::Unreachable,
            Ended::LaneFull => return Outcome::LaneFull,
            Ended::StoreDown => return Outcome::StoreDown,
            Ended::Mismatch => return Outcome::Wrong("mismatch"),
            Ended::Busy => return Outcome::Wrong("busy"),
            Ended::Broken => return Outcome::Wrong("broken"),
        };
        let body = match &record.body {
            Kept::Whole(body) => Some(body.clone()),
            Kept::Dropped => None,
        };
        let Some(exchange) = number(&record) else { return Outcome::Wrong("an answer of nobody") };
        Outcome::Answer { exchange, fence: end.fence, body, failed: judged == Judged::Failed }
    }

    fn delivered(&self, replica: &Rc<Replica>, kind: &Kind, record: &Record) {
        let (Keep::For { .. }, Some(exchange)) = (kind.keep(), number(record)) else { return };
        self.log.write(
            || format!("r{} delivers exchange {exchange}", replica.number),
            |book, at| {
                book.exchanges[exchange].delivered.get_or_insert(at);
            },
        );
        let (claims, fence) = (Arc::clone(&replica.claims), record.fence);
        drop(spawn_local(async move {
            let _ = claims.store.delivered(&[fence]).await;
        }));
    }

    async fn crashes(self: Rc<Self>, mut rng: Rng) {
        for _ in 0..self.plan.crashes {
            sleep(ms(rng.instant(5000))).await;
            let slot = usize::try_from(rng.next() % self.plan.replicas as u64).expect("small");
            let next = self.replica();
            let dead = std::mem::replace(&mut self.replicas.borrow_mut()[slot], Rc::clone(&next));
            dead.wire.dead.store(true, Relaxed);
            dead.died.cancel();
            self.log.write(|| format!("r{} DIES, r{} takes its place", dead.number, next.number), |_, _| ());
        }
    }

    async fn cuts(self: Rc<Self>, mut rng: Rng) {
        for _ in 0..self.plan.cuts {
            sleep(ms(rng.instant(5000))).await;
            let slot = usize::try_from(rng.next() % self.plan.replicas as u64).expect("small");
            let replica = Rc::clone(&self.replicas.borrow()[slot]);
            replica.wire.cut.store(true, Relaxed);
            self.log.write(|| format!("r{} is CUT OFF from the store", replica.number), |_, _| ());
            sleep(ms(if rng.percent(50) { rng.instant(2000) } else { rng.instant(14_000) })).await;
            replica.wire.cut.store(false, Relaxed);
            self.log.write(|| format!("r{} reaches the store again", replica.number), |_, _| ());
        }
    }

    async fn renewals(self: Rc<Self>, mut rng: Rng) {
        for _ in 0..self.plan.renewals {
            sleep(ms(rng.instant(5000))).await;
            let identity = identity_key(u8::try_from(rng.between(0, 1)).expect("small"));
            let wire = Arc::clone(&self.replicas.borrow()[0].wire);
            let _ = timeout(ms(DEADLINE), wire.begin_generation(identity)).await;
        }
    }

    async fn operator(self: Rc<Self>, mut rng: Rng) {
        for _ in 0..self.plan.operator_looks {
            sleep(ms(rng.instant(4000))).await;
            for lane in 0..LANES {
                let view = self.memory.inspect(lane_key(lane)).await;
                let (Ok(LaneView::InDoubt { .. }), true) = (view, rng.percent(50)) else { continue };
                let (word, resolution) = if rng.percent(50) {
                    (Word::Free, Resolution::Free)
                } else {
                    (Word::Done, Resolution::Done(ms(RESOLVED_LIFE)))
                };
                if let Ok(Resolved::Changed) = self.memory.resolve(lane_key(lane), resolution).await {
                    self.log.write(
                        || format!("operator resolves lane {lane} as {word:?}"),
                        |book, at| book.resolutions.push((at, lane, word)),
                    );
                }
            }
        }
    }
}

/// Which exchange an answer is of; the shop wrote it there.
fn number(record: &Record) -> Option<usize> {
    record.headers.get(LOCATION)?.to_str().ok()?.parse().ok()
}
