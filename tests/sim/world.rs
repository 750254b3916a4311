//! Replicas, clients, an operator and a clock: one run, all in one thread and in virtual time.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use http::header::LOCATION;
use oncegate::{
    claim::{End, Ended, Keep, Part},
    store::{Judged, Kept, LaneView, Record, Resolution, Resolved, Standing, Store, memory::Stats},
};
use tokio::{
    task::{JoinHandle, LocalSet, spawn_local},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    log::{AskLog, Log, Outcome, Word},
    plan::{DEADLINE, Group, Kind, PATIENCE, Plan, RESOLVED_LIFE, Rng, identity_key, lane_key, ms},
    replica::{Replica, clock_begins},
    shared::Shared,
    shop::Lead,
    wire::Wire,
};

/// After the last client has left, everything is over within this time: doubts, late answers, records.
const REST: u64 = 45_000;
const LANES: u8 = 3;

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) group: Group,
    pub(crate) log: Log,
    pub(crate) shop: RefCell<Rng>,
    pub(crate) shared: Arc<Shared>,
    wires: RefCell<Rng>,
    pub(crate) replicas: RefCell<Vec<Rc<Replica>>>,
    born: Cell<u64>,
}

/// Runs one seed. Answers what happened, and what was wrong with the end state, if anything.
pub(crate) fn run(seed: u64, group: Group) -> (Plan, Log, Result<(), String>) {
    let mut rng = Rng::new(seed);
    let plan = Plan::draw(&mut rng, group);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    let kept = plan.clone();
    let (log, end) = LocalSet::new().block_on(&runtime, async move {
        clock_begins();
        let world = World::new(plan, group, &mut rng);
        let end = world.live(rng).await;
        let replicas = world.replicas.take();
        for replica in replicas {
            replica.is_buried();
        }
        (world.log.clone(), end)
    });
    (kept, log, end)
}

impl World {
    fn new(plan: Plan, group: Group, rng: &mut Rng) -> Rc<Self> {
        let (shop, wires) = (RefCell::new(rng.fork()), RefCell::new(rng.fork()));
        let (log, replicas, born, shared) = (Log::new(), RefCell::default(), Cell::new(0), Shared::new());
        let world = Rc::new(Self { plan, group, log, shop, shared, wires, replicas, born });
        for _ in 0..world.plan.replicas {
            let replica = world.replica();
            world.replicas.borrow_mut().push(replica);
        }
        world
    }

    pub(crate) fn replica(&self) -> Rc<Replica> {
        let number = self.born.get() + 1;
        self.born.set(number);
        let rng = self.wires.borrow_mut().fork();
        let how = (self.plan.wires, self.plan.wakes);
        let wire = Wire::new(number, Arc::clone(&self.shared), self.log.clone(), how, rng);
        self.log.write(|| format!("r{number} begins"), |book, at| book.born(number, at));
        Replica::new(number, Arc::new(wire), &self.log, self.group.stands_by())
    }

    async fn live(self: &Rc<Self>, mut rng: Rng) -> Result<(), String> {
        let shared = Arc::clone(&self.shared);
        drop(spawn_local(async move {
            loop {
                sleep(ms(100)).await;
                shared.memory().tick();
            }
        }));
        let mut actors: Vec<JoinHandle<()>> = Vec::new();
        for _ in 0..self.plan.clients {
            actors.push(spawn_local(Rc::clone(self).client(rng.fork())));
        }
        for what in &self.plan.breaks {
            actors.push(spawn_local(Rc::clone(self).breaks(*what, rng.fork())));
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
        let Stats { flights, in_doubt, lanes, waiters, .. } = self.shared.memory().stats();
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
            if let Some(standby) = &replica.standby {
                let local = standby.local().stats();
                let left = (standby.standing(), standby.kept(), local.flights, local.in_doubt, local.waiters);
                if left != (Standing::Up, 0, 0, 0, 0) {
                    return Err(format!(
                        "liveness: r{}'s own store has (standing, kept, flights, doubts, waiters) {left:?}",
                        replica.number
                    ));
                }
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
        // Who is stopped does not hear anybody.
        replica.awake().await;
        if replica.died.is_cancelled() {
            return Outcome::Crashed;
        }
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
            set_out: Cell::new(None),
        };
        let part = replica.enter(|| replica.claims.take_part(kind.demand(), lead));
        let outcome = match part {
            None => Outcome::Crashed,
            Some(Part::FollowersFull) => Outcome::FollowersFull,
            Some(Part::Mismatch) => Outcome::Wrong("mismatch"),
            Some(Part::Seat(mut ticket)) => {
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
        let telling = async move { drop(claims.store.delivered(&[fence]).await) };
        let _ = replica.enter(|| drop(spawn_local(telling)));
    }

    async fn crashes(self: Rc<Self>, mut rng: Rng) {
        for _ in 0..self.plan.crashes {
            sleep(ms(rng.instant(5000))).await;
            self.crash(&mut rng);
        }
    }

    async fn cuts(self: Rc<Self>, mut rng: Rng) {
        for _ in 0..self.plan.cuts {
            sleep(ms(rng.instant(5000))).await;
            let replica = self.any_replica(&mut rng);
            let length = if rng.percent(50) { rng.instant(2000) } else { rng.instant(14_000) };
            self.cut(&replica, length).await;
        }
    }

    async fn renewals(self: Rc<Self>, mut rng: Rng) {
        for _ in 0..self.plan.renewals {
            sleep(ms(rng.instant(5000))).await;
            let identity = identity_key(u8::try_from(rng.between(0, 1)).expect("small"));
            let replica = Rc::clone(&self.replicas.borrow()[0]);
            let claims = Arc::clone(&replica.claims);
            let line = || format!("r{} sees a new purchase of {}", replica.number, identity.short());
            self.log.write(line, |book, at| book.renewals.push((at, identity)));
            let patience = ms(2 * DEADLINE);
            let telling =
                async move { drop(timeout(patience, claims.store.begin_generation(identity)).await) };
            let _ = replica.enter(|| drop(spawn_local(telling)));
        }
    }

    async fn operator(self: Rc<Self>, mut rng: Rng) {
        for _ in 0..self.plan.operator_looks {
            sleep(ms(rng.instant(4000))).await;
            for lane in 0..LANES {
                let memory = self.shared.memory();
                let view = memory.inspect(lane_key(lane)).await;
                let (Ok(LaneView::InDoubt { .. }), true) = (view, rng.percent(50)) else { continue };
                let (word, resolution) = if rng.percent(50) {
                    (Word::Free, Resolution::Free)
                } else {
                    (Word::Done, Resolution::Done(ms(RESOLVED_LIFE)))
                };
                if let Ok(Resolved::Changed) = memory.resolve(lane_key(lane), resolution).await {
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
