//! The task of one flight: lanes, claim, send, settle, tell everybody. It belongs to no client.
//!
//! It never sends twice: only [`Sent::NotSent`], which promises that not one byte has left, leads to another
//! attempt, and the number of attempts is bounded.

mod renewing;
mod waiting;

use std::{
    cell::Cell,
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, timeout, timeout_at};

use self::{
    renewing::{send, sure_until},
    waiting::woken_or_polled,
};
use super::{
    Answered, Boarding, Claims, Demand, End, Ended, Later, Lost, NotSent, Sender, Sent, Spent, flight,
    lane::Places,
    roll::{Listed, Stage},
};
use crate::{
    ops::words::{ClaimOutcome, StoreOp},
    store::{Ask, Claimed, Ending, Fence, Hold, May, OnStoreDown, Owner, Reply, Settled, StoreError, Woken},
};

/// Attempts of one flight to reach a shop that refuses connections, while other clients wait for it.
const ATTEMPTS_MAX: u32 = 3;
/// Pause between two of them.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);
/// How often a call is made that failed while there was time left until the deadline.
const CALLS_MAX: u32 = 3;
/// How often a settle that the store did not take is tried again while the lease is held.
const SETTLE_PAUSE: Duration = Duration::from_millis(250);

type Flight = flight::Flight<End>;

pub struct Driver<S> {
    claims: Arc<Claims>,
    flight: Arc<Flight>,
    ask: Ask,
    route: usize,
    boarding: Boarding,
    on_store_down: OnStoreDown,
    lane_depth_max: usize,
    /// Its line for operators.
    listed: Listed,
    sender: S,
    spent: Cell<Spent>,
    told: bool,
}

/// What asking the store came to, waiting included.
enum Asked {
    /// Since this moment.
    Lead(Arc<Hold>, Instant),
    End(Ended, Option<Fence>),
    /// The store gave no answer; it may have carried the claim out.
    Unheard,
    /// Every client left while nothing was sent.
    Withdrawn,
}

/// What the lanes of this process came to.
enum Entered {
    Yes(Places),
    Full,
    /// Every client left.
    Withdrawn,
}

/// What the store says, heard later.
type Heard<'a> = Pin<Box<dyn Future<Output = Result<Claimed, StoreError>> + 'a>>;

/// A claim that was asked of the store.
struct Asking {
    started: Instant,
    /// How many had come on board before.
    boarded: usize,
}

/// The futures of ways that are seldom gone are boxed, so that the task of a flight has no room for them.
impl<S: Sender> Driver<S> {
    pub fn new(claims: Arc<Claims>, flight: Arc<Flight>, demand: Demand, sender: S) -> Self {
        let listed = claims.roll.list_if_named(&demand, &flight);
        let ask = Ask {
            // Each time it asks anew, it does so as somebody else.
            owner: Owner(0),
            lanes: demand.lanes,
            fingerprint: demand.fingerprint,
            scope: demand.scope,
            body: demand.body,
            generations: demand.generations,
            may: May::FollowAny,
            lease: claims.lease,
            in_doubt: demand.in_doubt,
        };
        let Demand { route, boarding, on_store_down, lane_depth_max, .. } = demand;
        let (spent, told) = (Cell::default(), false);
        Self {
            claims,
            flight,
            ask,
            on_store_down,
            route,
            boarding,
            lane_depth_max,
            listed,
            sender,
            spent,
            told,
        }
    }

    /// Runs the flight to its end. In a box: a task's future is moved several times until it has its place.
    pub fn run(mut self) -> Pin<Box<dyn Future<Output = ()>>>
    where
        S: 'static,
    {
        Box::pin(async move { self.fly().await })
    }

    async fn fly(&mut self) {
        let places = match self.claims.lanes.enter_free(&self.ask.lanes) {
            Some(places) => places,
            None => match Box::pin(self.queue()).await {
                Entered::Yes(places) => places,
                Entered::Full => return self.tell(Ended::LaneFull, None),
                Entered::Withdrawn => return self.tell_nobody(),
            },
        };
        for attempt in 1.. {
            let (hold, sent) = match self.ask().await {
                Asked::Lead(hold, since) => (hold, since),
                Asked::End(ended, fence) => return self.tell(ended, fence),
                Asked::Unheard => {
                    self.tell(Ended::StoreDown, None);
                    // Whoever comes next is to hear the same at once, and not to queue behind this.
                    drop(places);
                    return Box::pin(self.give_back_unheard()).await;
                }
                Asked::Withdrawn => return self.tell_nobody(),
            };
            if !self.flight.set_out() {
                Box::pin(self.abandon(&hold)).await;
                return self.tell_nobody();
            }
            self.listed.sets_out(hold.fence);
            let came = send(&self.claims, &self.sender, &hold, sent).await;
            self.spend(|spent| spent.upstream = sent.elapsed());
            match came {
                Sent::Answered(answered) => return self.settle(hold, answered).await,
                Sent::Lost(lost) => return Box::pin(self.lost(&hold, places, lost)).await,
                Sent::NotSent(NotSent::Unreachable) => {
                    self.listed.waits(Stage::Queued);
                    Box::pin(self.abandon(&hold)).await;
                    let others_wait = self.flight.clients() > 1;
                    if attempt >= ATTEMPTS_MAX || !others_wait || !self.flight.come_back() {
                        return self.tell(Ended::Unreachable, Some(hold.fence));
                    }
                    Box::pin(tokio::time::sleep(ATTEMPT_PAUSE)).await;
                }
                // Its lease may be over and another one's begun: it is asked anew who may send.
                Sent::NotSent(NotSent::TooLate) => {
                    self.listed.waits(Stage::Queued);
                    Box::pin(self.abandon(&hold)).await;
                    if attempt >= ATTEMPTS_MAX {
                        return self.tell(Ended::StoreDown, Some(hold.fence));
                    }
                    if !self.flight.come_back() {
                        return self.tell_nobody();
                    }
                }
            }
        }
    }

    /// Waits for lanes that others are in.
    async fn queue(&mut self) -> Entered {
        let queued = Instant::now();
        let places = tokio::select! {
            biased;
            places = self.claims.lanes.enter(&self.ask.lanes, self.lane_depth_max) => places,
            () = self.flight.deserted() => return Entered::Withdrawn,
        };
        let Ok(places) = places else { return Entered::Full };
        self.spend(|spent| spent.queued = queued.elapsed());
        Entered::Yes(places)
    }

    /// Claims until it is clear what to do; waits for other replicas where it must.
    async fn ask(&mut self) -> Asked {
        self.ask.owner = self.claims.owner();
        self.ask.may = match self.boarding {
            Boarding::UntilEnd => May::FollowAny,
            Boarding::UntilSent => May::FollowAfter(None),
        };
        let asking = Asking { started: Instant::now(), boarded: self.flight.boarded() };
        let heard: Heard<'_> = match self.ask_store().at_once() {
            Ok(Ok(Claimed::Lead(hold))) => {
                let now = self.claimed(&asking, ClaimOutcome::Lead);
                return self.led(hold, &asking, now);
            }
            Ok(claimed @ Ok(_)) => Box::pin(ready(claimed)),
            Ok(error @ Err(_)) => Box::pin(self.claim_again(Reply::now(error))),
            Err(reply) => Box::pin(self.claim_again(reply)),
        };
        let claimed = heard.await;
        Box::pin(self.ask_on(asking, claimed)).await
    }

    fn led(&self, hold: Hold, asking: &Asking, now: Instant) -> Asked {
        self.sender.begin_before(sure_until(asking.started, hold.lease));
        Asked::Lead(Arc::new(hold), now)
    }

    /// Answers when that was: now.
    fn claimed(&self, asking: &Asking, outcome: ClaimOutcome) -> Instant {
        let now = Instant::now();
        let took = now.duration_since(asking.started);
        self.spend(|spent| spent.claiming += took);
        self.claims.observer.claimed(outcome, took);
        now
    }

    fn spend(&self, time: impl FnOnce(&mut Spent)) {
        let mut spent = self.spent.get();
        time(&mut spent);
        self.spent.set(spent);
    }

    async fn claim_again(&self, first: Reply<'_, Claimed>) -> Result<Claimed, StoreError> {
        self.call_again(StoreOp::Claim, first, || self.ask_store()).await
    }

    /// The right to send was not to be had at once.
    async fn ask_on(&mut self, mut asking: Asking, mut claimed: Result<Claimed, StoreError>) -> Asked {
        let mut known_before = 0;
        loop {
            let now = self.claimed(&asking, super::outcome(&claimed));
            let Ok(what) = claimed else { return Asked::Unheard };
            let (following, wake) = match what {
                Claimed::Lead(hold) => return self.led(hold, &asking, now),
                Claimed::Replay(record) => {
                    let fence = record.fence;
                    return Asked::End(Ended::Replayed(record), Some(fence));
                }
                Claimed::Resolved { remaining, .. } => {
                    return Asked::End(Ended::Resolved { remaining }, None);
                }
                Claimed::InDoubt { remaining, .. } => {
                    self.listed.in_doubt();
                    return Asked::End(Ended::InDoubt { remaining }, None);
                }
                Claimed::Mismatch => return Asked::End(Ended::Mismatch, None),
                Claimed::Busy => return Asked::End(Ended::Busy, None),
                Claimed::Follow { fence, wake } if self.may_follow(known_before) => (Some(fence), wake),
                // A signal has come since that run may have begun: it waits for the one after.
                Claimed::Follow { fence, wake } => {
                    (self.ask.may, known_before) = (May::FollowAfter(Some(fence)), asking.boarded);
                    (None, wake)
                }
                Claimed::Queue { running, wake } => {
                    if self.ask.may == May::FollowAfter(None) && running.is_some() {
                        (self.ask.may, known_before) = (May::FollowAfter(running), asking.boarded);
                    }
                    (None, wake)
                }
            };
            self.listed.waits(if following.is_some() { Stage::Following } else { Stage::Queued });
            let woken = tokio::select! {
                biased;
                woken = woken_or_polled(wake, &self.ask) => woken,
                () = self.flight.deserted() => return Asked::Withdrawn,
            };
            self.spend(|spent| spent.queued += now.elapsed());
            if let Woken::Answered { fence, answer, outcome } = woken
                && following == Some(fence)
            {
                return Asked::End(Ended::Followed { answer, judged: outcome }, Some(fence));
            }
            asking = Asking { started: Instant::now(), boarded: self.flight.boarded() };
            claimed = self.claim_again(self.ask_store()).await;
        }
    }

    fn ask_store(&self) -> Reply<'_, Claimed> {
        self.claims.store.claim_where(&self.ask, self.on_store_down)
    }

    /// Asks again with the same owner, which gives the same answer, so that a claim that was carried out unheard does
    /// not hold its order until it is in doubt though nothing was sent.
    async fn give_back_unheard(&self) {
        let until = Instant::now() + self.claims.lease;
        while Instant::now() < until {
            tokio::select! {
                biased;
                () = self.claims.stopping.cancelled() => return,
                () = tokio::time::sleep(SETTLE_PAUSE) => {}
            }
            match self.call(StoreOp::Claim, self.ask_store()).await {
                Err(_) => {}
                Ok(Claimed::Lead(hold)) => return self.abandon(&hold).await,
                // It is somebody else's turn: ours was never taken, or is over.
                Ok(_) => return,
            }
        }
    }

    /// Whether everybody on board had arrived before the run began that the store lets us follow. Anybody may follow
    /// any run in mode `once`. A signal may only follow a run that began after it: that is so for those who were on
    /// board when the store was asked while the run before was at the shop, and for nobody who came since.
    fn may_follow(&self, known_before: usize) -> bool {
        match self.boarding {
            Boarding::UntilEnd => true,
            Boarding::UntilSent => self.flight.close(known_before),
        }
    }

    async fn settle(&mut self, hold: Arc<Hold>, answered: Answered) {
        let Answered { answer, judged, keep } = answered;
        let ended = Ended::Answered { answer: Arc::clone(&answer), judged, hold: Arc::clone(&hold) };
        let ending = keep.ending(answer, judged);
        let settled = match self.claims.store.settle(&hold, ending.clone()).at_once() {
            Ok(settled @ Ok(_)) => settled,
            Ok(Err(error)) => self.failed(StoreOp::Settle, error),
            Err(reply) => Box::pin(self.call(StoreOp::Settle, reply)).await,
        };
        match settled {
            Ok(settled) => {
                self.count(settled);
                self.tell(ended, Some(hold.fence));
            }
            Err(_) => Box::pin(self.unsettled(&hold, ended, ending)).await,
        }
    }

    /// The client is not made to pay for a store that is down. Where the answer is kept, those who come meanwhile get
    /// it from this flight, which stays on the table while the settle is tried again. A failure is for nobody who
    /// comes after it: they wait for the lane and lead.
    async fn unsettled(&mut self, hold: &Hold, ended: Ended, ending: Ending) {
        let fence = Some(hold.fence);
        match &ending {
            Ending::Done { .. } => self.announce(ended, fence),
            Ending::DoneUnkept { .. } | Ending::Failed { .. } | Ending::InDoubt => self.tell(ended, fence),
        }
        self.settle_again(hold, ending).await;
    }

    async fn settle_again(&self, hold: &Hold, ending: Ending) {
        let until = Instant::now() + self.claims.lease;
        while Instant::now() < until {
            tokio::time::sleep(SETTLE_PAUSE).await;
            // A renewal that fails here says nothing new: the settle itself is about to be tried.
            let _ = self.call(StoreOp::Renew, self.claims.store.renew(hold)).await;
            match self.call(StoreOp::Settle, self.claims.store.settle(hold, ending.clone())).await {
                // Superseded by itself, it may be: the first try may have been carried out.
                Ok(Settled::Superseded) => return,
                Ok(settled @ (Settled::InTime | Settled::Late)) => return self.count(settled),
                Err(_) => {}
            }
        }
    }

    /// No answer is known: say so, and go on listening for a while without keeping anybody waiting.
    async fn lost(&mut self, hold: &Hold, places: Places, lost: Lost) {
        let Lost { cause, late } = lost;
        self.claims.observer.in_doubt(self.route, cause, hold);
        // If the store cannot be told, the lease runs out there and leads to the same state.
        let settle = || self.claims.store.settle(hold, Ending::InDoubt);
        let _ = self.call_again(StoreOp::Settle, settle(), settle).await;
        self.listed.in_doubt();
        self.tell(Ended::Lost(cause), Some(hold.fence));
        // Who waits for the lane is to learn of the doubt now, not when the shop answers.
        drop(places);
        if let Some((listening, patience)) = late {
            self.listen_on(hold, listening, patience).await;
        }
    }

    async fn listen_on(&self, hold: &Hold, listening: Later, patience: Duration) {
        let answered = tokio::select! {
            answered = timeout(patience, listening) => answered,
            () = self.claims.stopping.cancelled() => return,
        };
        let Ok(Some(answered)) = answered else { return };
        let ending = answered.keep.ending(answered.answer, answered.judged);
        if let Ok(settled) = self.call(StoreOp::Settle, self.claims.store.settle(hold, ending)).await {
            self.count(settled);
        }
    }

    fn count(&self, settled: Settled) {
        match settled {
            Settled::InTime => {}
            Settled::Late | Settled::Superseded => self.claims.observer.late_answer(),
        }
    }

    async fn abandon(&self, hold: &Hold) {
        // If the store cannot be told, the lease runs out and the order is held as in doubt: safe, if slow.
        let abandon = || self.claims.store.abandon(hold);
        let _ = self.call_again(StoreOp::Abandon, abandon(), abandon).await;
    }

    /// For calls that may be made again: one that failed may have been carried out, and asked again it says so. All
    /// tries together take no longer than one that is never answered.
    async fn call_again<'a, T>(
        &self,
        operation: StoreOp,
        mut reply: Reply<'a, T>,
        again: impl Fn() -> Reply<'a, T>,
    ) -> Result<T, StoreError> {
        let until = Instant::now() + self.claims.deadline;
        for _ in 1..CALLS_MAX {
            match timeout_at(until, reply).await {
                Ok(Ok(answer)) => return Ok(answer),
                // The store has had its time already.
                Ok(Err(StoreError::Deadline)) => return self.failed(operation, StoreError::Deadline),
                Ok(Err(error)) => self.claims.observer.store_error(operation, &error),
                Err(_) => return self.failed(operation, StoreError::Deadline),
            }
            reply = again();
        }
        match timeout_at(until, reply).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => self.failed(operation, error),
            Err(_) => self.failed(operation, StoreError::Deadline),
        }
    }

    fn failed<T>(&self, operation: StoreOp, error: StoreError) -> Result<T, StoreError> {
        self.claims.observer.store_error(operation, &error);
        Err(error)
    }

    async fn call<T>(&self, operation: StoreOp, reply: Reply<'_, T>) -> Result<T, StoreError> {
        self.claims.call(operation, reply).await
    }
}

impl<S> Driver<S> {
    fn tell(&mut self, what: Ended, fence: Option<Fence>) {
        self.told = true;
        self.listed.ended(&what, fence);
        let spent = self.spent.get();
        self.claims.observer.queued(spent.queued);
        self.claims.flights.end(&self.flight, End { what, fence, spent });
    }

    /// Like [`Self::tell`], but those who come later may still join and get the same.
    fn announce(&mut self, what: Ended, fence: Option<Fence>) {
        self.told = true;
        self.listed.ended(&what, fence);
        let spent = self.spent.get();
        self.claims.observer.queued(spent.queued);
        self.claims.flights.announce(&self.flight, End { what, fence, spent });
    }

    fn tell_nobody(&mut self) {
        self.told = true;
    }
}

impl<S> Drop for Driver<S> {
    /// A task that dies still tells those who wait; what it may have sent is found by its lease running out.
    fn drop(&mut self) {
        if !self.told {
            self.tell(Ended::Broken, None);
        }
        self.claims.flights.landed(&self.flight);
    }
}

impl Claims {
    async fn call<T>(&self, operation: StoreOp, reply: Reply<'_, T>) -> Result<T, StoreError> {
        let answered = match timeout(self.deadline, reply).await {
            Ok(answered) => answered,
            Err(_) => Err(StoreError::Deadline),
        };
        if let Err(error) = &answered {
            self.observer.store_error(operation, error);
        }
        answered
    }
}
