//! The promise's guarantees, as a reader of the promise would check them. It knows nothing of how oncegate is built. What
//! is excused when the store or a replica breaks stands in a table of its own (`excuse.rs`).

use oncegate::store::InDoubtPolicy;

use super::{
    log::{AskLog, At, Book, Exchange, Lease, Outcome, Told, Word},
    plan::{DEADLINE, Group, LEASE, Mode, Plan, RESOLVED_LIFE, SEEN, UNSEEN, Wires, lane_key},
};

/// How long after everything is free somebody who waits may still not have noticed: a poll and a half.
const NOTICE: u64 = 2500;

pub(crate) struct Check<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) group: Group,
    pub(crate) book: &'a Book,
}

pub(crate) type Found = Result<(), String>;

pub(crate) fn violation(holds: bool, say: impl FnOnce() -> String) -> Found {
    if holds { Ok(()) } else { Err(say()) }
}

impl Check<'_> {
    pub(crate) fn all(&self) -> Found {
        for (number, exchange) in self.book.exchanges.iter().enumerate() {
            self.somebody_asked(number, exchange)?;
            self.alone_with_a_reason(number, exchange)?;
            for (other, earlier) in self.book.exchanges.iter().enumerate() {
                if earlier.began < exchange.began {
                    self.never_two_at_once((other, earlier), (number, exchange))?;
                    self.never_sent_again((other, earlier), (number, exchange))?;
                    self.one_run_for_all((other, earlier), (number, exchange))?;
                }
            }
        }
        for (number, ask) in self.book.asks.iter().enumerate() {
            let Some((ended, outcome)) = &ask.ended else {
                return Err(format!("liveness: ask {number} never ended"));
            };
            self.outcome(number, ask, *ended, outcome)?;
            self.bounded(number, ask, outcome)?;
        }
        if self.group == Group::Sound {
            for (fence, lease) in &self.book.leases {
                let held = lease.given_back.is_some_and(|back| back.ms < lease.ends_ms);
                violation(held, || {
                    format!("G8: claim {fence} was lost though nothing was wrong with the store")
                })?;
            }
        }
        Ok(())
    }

    /// Nobody pays for what everybody gave up before it was sent.
    fn somebody_asked(&self, number: usize, exchange: &Exchange) -> Found {
        let waits = |ask: &AskLog| {
            ask.arrived <= exchange.began
                && ask.ended.as_ref().is_none_or(|(ended, _)| *ended >= exchange.set_out)
                && ask.replica == exchange.replica
        };
        let asked = self
            .book
            .asks
            .iter()
            .enumerate()
            .any(|(who, ask)| waits(ask) && (who == exchange.ask || ask.kind.is_same(&exchange.kind)));
        violation(asked, || format!("G7: exchange {number} was sent for nobody"))
    }

    /// G1 and G2.
    fn never_two_at_once(&self, (p, earlier): (usize, &Exchange), (x, later): (usize, &Exchange)) -> Found {
        let together = earlier.ended.is_none_or(|ended| ended > later.began);
        let same = earlier.kind.is_same(&later.kind);
        if !together || !(same || earlier.kind.shares_lane(&later.kind)) {
            return Ok(());
        }
        let guarantee = if same { "G1: one flight" } else { "G2: one lane" };
        let say = |why: &str| format!("{guarantee}: exchange {x} was sent while {p} was at the shop{why}");
        if earlier.replica == later.replica {
            // One replica knows what it does itself.
            let known = earlier.told.is_some_and(|(at, _)| at <= later.began);
            violation(known, || say(", by the same replica"))?;
        }
        let over = self.doubt_was_over(earlier, later.began, Over::Lane);
        violation(over || self.is_excused(earlier, later), || say(""))
    }

    /// G5.
    fn never_sent_again(&self, (p, earlier): (usize, &Exchange), (x, later): (usize, &Exchange)) -> Found {
        if !earlier.kind.is_same(&later.kind) {
            return Ok(());
        }
        let answered = answered(earlier).is_some_and(|(at, told)| {
            at <= later.began
                && match (told, earlier.kind.mode) {
                    (Told::Failed, _) | (Told::Done, Mode::Signal | Mode::Alone) => true,
                    (Told::Done, Mode::Once) => {
                        later.began.ms >= self.kept_until(earlier, at, later.began)
                            || self.renewed(earlier, later.began)
                    }
                    (Told::Lost, _) => false,
                }
        });
        let over = self.doubt_was_over(earlier, later.began, Over::Request);
        let excused = || self.is_excused(earlier, later) || self.is_record_gone(earlier, later);
        violation(answered || over || excused(), || {
            format!("G5: exchange {x} is a second send of exchange {p}")
        })
    }

    /// Section 4: a record that nobody got is kept for `UNSEEN`, one that somebody got for `SEEN` from then on.
    /// Where the store may not have heard who got it, it is kept for the shorter of the two at least.
    fn kept_until(&self, exchange: &Exchange, answered: At, before: At) -> u64 {
        let unseen = answered.ms + UNSEEN;
        match exchange.delivered.filter(|first| *first < before) {
            None => unseen,
            Some(first) if self.hears_at_once() => first.ms + SEEN,
            Some(first) => unseen.min(first.ms + SEEN),
        }
    }

    /// Whether whatever a replica tells the store arrives in the same moment.
    fn hears_at_once(&self) -> bool {
        self.plan.wires == Wires::Calm && !self.group.stands_by()
    }

    /// Whether the identity began a new purchase after this exchange was claimed.
    fn renewed(&self, exchange: &Exchange, before: At) -> bool {
        let claimed = self.lease(exchange).map_or(exchange.began, |lease| lease.claimed);
        let mut begun = self.book.generations.iter().chain(&self.book.renewals);
        begun.any(|(at, identity)| exchange.kind.identity == Some(*identity) && claimed < *at && *at < before)
    }

    pub(crate) fn lease(&self, exchange: &Exchange) -> Option<&Lease> {
        self.book.leases.get(&exchange.fence.0)
    }

    /// Since when it may be unknown what became of an exchange.
    fn doubt(&self, exchange: &Exchange) -> Option<u64> {
        let lost = exchange.told.and_then(|(at, told)| (told == Told::Lost).then_some(at.ms));
        let ran_out = self.lease(exchange).and_then(ran_out);
        lost.into_iter().chain(ran_out).chain(self.ran_out_alone(exchange)).min()
    }

    /// Section 5: in doubt until the hold is over or the operator speaks; with `retry` the next one leads.
    fn doubt_was_over(&self, exchange: &Exchange, when: At, over: Over) -> bool {
        let Some(doubt) = self.doubt(exchange) else { return false };
        let held = match exchange.kind.policy {
            InDoubtPolicy::Hold(length) => u64::try_from(length.as_millis()).expect("short"),
            InDoubtPolicy::Retry => 0,
        };
        when.ms >= doubt + held
            || self.book.resolutions.iter().any(|(at, lane, word)| {
                let life = match (word, over) {
                    (Word::Done, Over::Request) if !self.renewed(exchange, when) => RESOLVED_LIFE,
                    (Word::Done | Word::Free, Over::Lane | Over::Request) => 0,
                };
                exchange.kind.lanes.contains(lane) && at.ms >= doubt && *at <= when && at.ms + life <= when.ms
            })
    }

    /// `signal`: those that came during a run share one run after it. Told for one replica, where nobody can have
    /// waited elsewhere.
    fn one_run_for_all(&self, (p, earlier): (usize, &Exchange), (x, later): (usize, &Exchange)) -> Found {
        let alone = self.plan.replicas == 1 && self.group == Group::Sound;
        let signal = later.kind.mode == Mode::Signal && earlier.kind.is_same(&later.kind);
        let answered = answered(earlier).is_some();
        if !alone || !signal || !answered {
            return Ok(());
        }
        let needed = self.book.asks.iter().any(|ask| {
            ask.kind.is_same(&later.kind) && earlier.began < ask.arrived && ask.arrived <= later.began
        });
        violation(needed, || format!("signal: run {x} was for those whom run {p} had served"))
    }

    fn outcome(&self, number: usize, ask: &AskLog, ended: At, outcome: &Outcome) -> Found {
        let why = || format!("ask {number} ended with {outcome:?}");
        let mine = |exchange: &Exchange| exchange.ask == number || exchange.kind.is_same(&ask.kind);
        match outcome {
            Outcome::Answer { .. } => return self.answer(number, ask, ended, outcome),
            Outcome::Lost => {
                // It is told once the store knows, or did not listen for a deadline long.
                let lost = |exchange: &Exchange| {
                    mine(exchange)
                        && exchange.told.is_some_and(|(at, told)| {
                            told == Told::Lost && at <= ended && ask.arrived.ms <= at.ms + DEADLINE
                        })
                };
                violation(self.book.exchanges.iter().any(lost) || self.is_troubled(ask, ended), || {
                    format!("G8: nothing was lost: {}", why())
                })?;
            }
            Outcome::InDoubt => violation(self.in_doubt(ask, ended) || self.is_doubtful(ask, ended), || {
                format!("G8: nothing was in doubt: {}", why())
            })?,
            Outcome::Resolved => {
                let word = |(at, lane, word): &(At, u8, Word)| {
                    *word == Word::Done && *at <= ended && ask.kind.lanes.contains(lane)
                };
                violation(self.book.resolutions.iter().any(word), || {
                    format!("G8: nobody resolved it: {}", why())
                })?;
            }
            Outcome::Unreachable => {
                // Those who come while the claim is given back are on board of the same flight.
                let refused = self.book.refused.iter().any(|(at, kind)| {
                    *at <= ended && ask.arrived.ms <= at.ms + DEADLINE && *kind == ask.kind.number
                });
                violation(refused || self.is_troubled(ask, ended), || {
                    format!("G5: the shop was not unreachable: {}", why())
                })?;
            }
            Outcome::StoreDown => {
                let is_down = self.group == Group::Store || self.is_troubled(ask, ended);
                violation(is_down, || format!("the store was up: {}", why()))?
            }
            Outcome::InVain => violation(self.was_busy(ask, ended), || {
                format!("liveness: it waited for nothing: {}", why())
            })?,
            Outcome::Wrong(_) => return Err(format!("never: {}", why())),
            Outcome::LaneFull | Outcome::FollowersFull => {}
            Outcome::Aborted | Outcome::Crashed => return Ok(()),
        }
        let refused = !matches!(outcome, Outcome::Lost | Outcome::InVain | Outcome::Unreachable);
        let sent = self.book.exchanges.iter().any(|exchange| exchange.ask == number);
        violation(!refused || !sent, || format!("G9: it was refused and sent: {}", why()))
    }

    /// G3, G4, G6 and, for `signal`, that no answer is older than its question.
    fn answer(&self, number: usize, ask: &AskLog, ended: At, outcome: &Outcome) -> Found {
        let Outcome::Answer { exchange, fence, body, failed } = outcome else { return Ok(()) };
        let Some(source) = self.book.exchanges.get(*exchange) else {
            return Err("an answer of nobody".into());
        };
        let why = || format!("ask {number} got the answer of exchange {exchange}");
        violation(source.ask == number || source.kind.is_same(&ask.kind), || {
            format!("G6: no leak: {}", why())
        })?;
        violation(source.body == *body, || format!("G3: other bytes: {}", why()))?;
        violation(*fence == Some(source.fence), || {
            format!("section 5: with the fence {fence:?}: {}", why())
        })?;
        let Some((at, told)) = answered(source) else { return Err(format!("G3: out of nothing: {}", why())) };
        violation((told == Told::Failed) == *failed, || format!("G4: judged otherwise: {}", why()))?;
        let back = self.lease(source).and_then(|lease| lease.given_back);
        let over = back.map_or(at, |back| back.max(at));
        // A wake-up may still be on its way to those who wait elsewhere.
        let slack = match (self.group.stands_by(), self.plan.wires) {
            (true, _) => 1000,
            (false, Wires::Calm) => 0,
            (false, Wires::Slow | Wires::Flaky) => 300,
        };
        let came_after = ask.arrived > over && ask.arrived.ms > over.ms + slack;
        if told == Told::Failed {
            let first = self.first_told(*exchange, source.replica);
            let after_all =
                first.is_some_and(|first| ask.replica == source.replica && ask.arrived.ms > first.ms);
            let kept_on = self.is_troubled(ask, ended) || self.was_troubled(source, at, ended);
            violation(kept_on || (!came_after && !after_all), || {
                format!("G4: a failure after its flight: {}", why())
            })?;
        }
        match source.kind.mode {
            Mode::Once => {
                if let Some(back) = back {
                    // It may be delivered at the last moment, or the store may hear of a later delivery only.
                    let in_time = ended.ms <= back.max(at).ms + UNSEEN + SEEN + slack;
                    violation(in_time, || format!("G3: after the record's end: {}", why()))?;
                }
                let first = source.delivered.filter(|first| *first < ask.arrived);
                let too_late =
                    self.hears_at_once() && first.is_some_and(|first| ask.arrived.ms > first.ms + SEEN);
                violation(!too_late, || format!("section 4: after it was delivered and over: {}", why()))?;
                let unseen_too_long =
                    self.hears_at_once() && first.is_none() && ask.arrived.ms > over.ms + UNSEEN;
                violation(!unseen_too_long, || format!("section 4: after its undelivered life: {}", why()))?;
                // A settle that nobody heard of leaves the flight open in its replica for as long as its lease.
                let open = self.group != Group::Sound && ask.arrived.ms <= at.ms + LEASE + DEADLINE;
                let known = !self.anything_broke_before(ask.arrived);
                let renewed =
                    known && came_after && !open && self.renewed_between(source, ask.arrived, slack);
                violation(!renewed, || format!("renewal: of an older purchase: {}", why()))
            }
            Mode::Signal => violation(ask.arrived <= source.began, || {
                format!("signal: older than the question: {}", why())
            }),
            Mode::Alone => violation(source.ask == number, || format!("G6: shared with nobody: {}", why())),
        }
    }

    fn renewed_between(&self, source: &Exchange, arrived: At, slack: u64) -> bool {
        let earlier = At { ms: arrived.ms.saturating_sub(slack), ..arrived };
        let claimed = self.lease(source).map_or(source.began, |lease| lease.claimed);
        let mut known = self.book.generations.iter();
        known.any(|(at, identity)| source.kind.identity == Some(*identity) && claimed < *at && *at < earlier)
    }

    fn first_told(&self, exchange: usize, replica: u64) -> Option<At> {
        let told =
            self.book.asks.iter().filter(|ask| ask.replica == replica).filter_map(|ask| match &ask.ended {
                Some((at, Outcome::Answer { exchange: of, .. })) if *of == exchange => Some(*at),
                Some(_) | None => None,
            });
        told.min()
    }

    fn in_doubt(&self, ask: &AskLog, ended: At) -> bool {
        let near =
            |exchange: &Exchange| exchange.kind.is_same(&ask.kind) || exchange.kind.shares_lane(&ask.kind);
        let open = |exchange: &Exchange| {
            let InDoubtPolicy::Hold(length) = exchange.kind.policy else { return false };
            let held = u64::try_from(length.as_millis()).expect("short");
            let from = self.doubt(exchange);
            // The doubt may begin as late as the lease runs out, where the store could not be told.
            let to = self.lease(exchange).map_or(0, |lease| lease.ends_ms).max(from.unwrap_or(0))
                + held
                + DEADLINE;
            let resolved = exchange.late.is_some_and(|(at, _)| at.ms + DEADLINE < ask.arrived.ms)
                && self.group != Group::Store
                && !self.group.stands_by();
            from.is_some_and(|from| from <= ended.ms) && ended.ms <= to && !resolved
        };
        // A claim whose replica died, or never heard of it, may have been sent for all that anybody knows.
        let lost = |lease: &Lease| {
            let shared = ask.kind.lanes.iter().any(|lane| lease.lanes.contains(&lane_key(*lane)));
            shared && ran_out(lease).is_some_and(|out| out <= ended.ms)
        };
        self.book.exchanges.iter().any(|exchange| near(exchange) && open(exchange))
            || self.book.leases.values().any(lost)
    }

    /// Somebody who waits in vain waited for something.
    fn was_busy(&self, ask: &AskLog, ended: At) -> bool {
        if self.group == Group::Store || self.is_anybody_troubled(ended) {
            return true;
        }
        let lanes = self.connected(ask);
        self.book.leases.values().any(|lease| {
            let until = lease.given_back.map_or(lease.ends_ms, |back| back.ms.min(lease.ends_ms));
            lease.lanes.iter().any(|key| lanes.iter().any(|lane| lane_key(*lane) == *key))
                && lease.claimed.ms <= ended.ms
                && until + NOTICE >= ended.ms
        }) || self.book.refused.iter().any(|(at, _)| at.ms + NOTICE >= ended.ms && at.ms <= ended.ms)
    }

    /// The lanes of a request, and those that others hold together with one of them.
    pub(crate) fn connected(&self, ask: &AskLog) -> Vec<u8> {
        let mut lanes = ask.kind.lanes.clone();
        for _ in 0..self.plan.kinds.len() {
            for kind in &self.plan.kinds {
                if kind.lanes.iter().any(|lane| lanes.contains(lane)) {
                    lanes.extend(
                        kind.lanes.iter().filter(|lane| !lanes.contains(lane)).copied().collect::<Vec<_>>(),
                    );
                }
            }
        }
        lanes
    }

    /// G9, for those who wait in one replica.
    fn bounded(&self, number: usize, ask: &AskLog, outcome: &Outcome) -> Found {
        let others = |near: &dyn Fn(&AskLog) -> bool| {
            self.book
                .asks
                .iter()
                .enumerate()
                .filter(|(other, waits)| {
                    *other != number
                        && waits.replica == ask.replica
                        && waits.arrived < ask.arrived
                        && waits.ended.as_ref().is_none_or(|(at, _)| at.ms > ask.arrived.ms)
                        && near(waits)
                })
                .count()
        };
        let same = others(&|other| other.kind.is_same(&ask.kind));
        match outcome {
            Outcome::FollowersFull => {
                let gone = self
                    .book
                    .asks
                    .iter()
                    .filter(|other| other.ended.as_ref().is_some_and(|(at, _)| at.ms == ask.arrived.ms))
                    .count();
                violation(same + gone > ask.kind.followers_max, || {
                    format!("G9: ask {number} was refused a free place")
                })
            }
            Outcome::LaneFull => Ok(()),
            Outcome::Answer { .. }
            | Outcome::Lost
            | Outcome::InDoubt
            | Outcome::Resolved
            | Outcome::Unreachable
            | Outcome::StoreDown
            | Outcome::InVain
            | Outcome::Aborted
            | Outcome::Crashed
            | Outcome::Wrong(_) => {
                let bound = ask.kind.mode == Mode::Once && self.group == Group::Sound;
                violation(!bound || same <= ask.kind.followers_max, || {
                    format!("G9: ask {number} waits with {same} others")
                })
            }
        }
    }
}

/// What of an exchange may be over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    /// Its hold on the lane.
    Lane,
    /// Its hold on its own duplicates.
    Request,
}

/// The answer, in time or late.
pub(crate) fn answered(exchange: &Exchange) -> Option<(At, Told)> {
    exchange.late.or(exchange.told).filter(|(_, told)| *told != Told::Lost)
}

/// When a lease ended without having been given back, the first time.
fn ran_out(lease: &Lease) -> Option<u64> {
    let back = lease.given_back.is_some_and(|back| back.ms < lease.ends_ms);
    lease.ran_out_ms.or((!back).then_some(lease.ends_ms))
}
