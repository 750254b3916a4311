//! What the promise allows, told from the shop's own log, the clients' answers and what was broken when. It knows the
//! guarantees and not the code.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    HOLD, LEASE, Plan, Policy,
    clients::Asked,
    faults::{Fault, Kind, Place},
    replica::Turn,
    shop::{Run, Said, order_of},
};

/// Between a claim and the first byte at the shop, on a machine that is busy.
const CLAIM_MAX: Duration = Duration::from_millis(600);
/// How far clocks and logs of this test may be behind what they tell of.
const SLACK: Duration = Duration::from_millis(150);
/// An answer on its way to those who wait for it.
const WAKE_MAX: Duration = Duration::from_secs(1);
/// How far the replicas of a Redis are behind it on a machine that is busy.
const BEHIND_MAX: Duration = Duration::from_millis(200);
/// After a fault of the store a replica may be alone for this much longer, before it notices and is back.
const BACK_MAX: Duration = Duration::from_secs(4);

pub(super) struct Book {
    pub(super) plan: Plan,
    pub(super) began: Instant,
    pub(super) runs: Vec<Run>,
    pub(super) asked: Vec<Asked>,
    pub(super) faults: Vec<Fault>,
    pub(super) turns: Vec<Turn>,
}

#[derive(Default)]
pub(super) struct Found {
    pub(super) violations: Vec<String>,
    /// At the shop at the same time, of one order, where the promise says that it can happen.
    pub(super) overlaps_excused: usize,
    /// Sent again after a failure that was told.
    pub(super) after_failure: usize,
    /// Sent again after the doubt was over.
    pub(super) after_doubt: usize,
    /// Sent by two replicas that were alone.
    pub(super) alone: usize,
    /// Sent again, or at the same time, because a failover of Redis lost the claim.
    pub(super) lost: usize,
}

impl Book {
    pub(super) fn check(&self) -> Found {
        let mut found = Found::default();
        let mut orders: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
        for run in &self.runs {
            orders.entry(run.order()).or_default().push(run);
        }
        for runs in orders.values() {
            for (number, later) in runs.iter().enumerate() {
                for earlier in &runs[..number] {
                    self.overlap(earlier, later, &mut found);
                    if earlier.request == later.request {
                        self.again(earlier, later, &mut found);
                    }
                }
            }
        }
        for asked in &self.asked {
            if let Err(what) = self.answer(asked) {
                found.violations.push(format!("{what}: {}", self.shown_ask(asked)));
            }
        }
        found
    }

    /// Promises 1 and 2: one exchange of an order at a time.
    fn overlap(&self, earlier: &Run, later: &Run, found: &mut Found) {
        if earlier.ended.is_some_and(|(ended, _)| ended <= later.began) {
            return;
        }
        if self.may_split(earlier, later) || self.was_out(earlier) || self.was_out(later) {
            found.overlaps_excused += 1;
        } else if self.was_lost(earlier, later) {
            found.lost += 1;
        } else {
            found.violations.push(format!("overlap: {} / {}", self.shown(earlier), self.shown(later)));
        }
    }

    /// Promises 4, 5 and 8, section 5: the same request again only after a failure, or after the doubt was over.
    fn again(&self, earlier: &Run, later: &Run, found: &mut Found) {
        let failed = earlier.ended.is_some_and(|(at, said)| said == Said::Failed && at <= later.began);
        if failed {
            found.after_failure += 1;
        } else if self.doubt_over(earlier).is_some_and(|over| over <= later.began) {
            found.after_doubt += 1;
        } else if self.may_split(earlier, later) || self.was_out(later) {
            found.alone += 1;
        } else if self.was_lost(earlier, later) {
            found.lost += 1;
        } else {
            found.violations.push(format!("sent again: {} / {}", self.shown(earlier), self.shown(later)));
        }
    }

    /// The earliest moment at which it may be sent again though nobody knows what became of it.
    fn doubt_over(&self, run: &Run) -> Option<Instant> {
        let reset = run.ended.and_then(|(at, said)| (said == Said::Nothing).then_some(at + HOLD - SLACK));
        let claimed = self.claimed(run);
        let ended = run.ended.map_or(run.began, |(at, _)| at);
        let (from, to) = (claimed - CLAIM_MAX, ended + LEASE + WAKE_MAX);
        let broken = self.faults_of(run.replica).any(|fault| fault.from <= to && from <= fault.to);
        let unheard = broken.then_some(claimed - CLAIM_MAX + LEASE + HOLD);
        reset.into_iter().chain(unheard).min()
    }

    /// When it may have been claimed, but for [`CLAIM_MAX`]: a replica that was stopped between its claim and the first
    /// byte claimed before that.
    fn claimed(&self, run: &Run) -> Instant {
        self.faults
            .iter()
            .filter(|fault| fault.kind == Kind::Stopped && fault.place == Place::Replica(run.replica))
            .filter(|fault| fault.to <= run.began + SLACK && run.began <= fault.to + CLAIM_MAX)
            .map(|fault| fault.from)
            .fold(run.began, Instant::min)
    }

    /// Section 7: a failover loses what the old primary was told last, unless a replica of it was waited for. One of the
    /// two was claimed at the old primary, in its last moments or while it was still believed, and the other at the one
    /// that has taken its place.
    fn was_lost(&self, earlier: &Run, later: &Run) -> bool {
        self.plan.wait_replicas == 0
            && self.faults.iter().any(|fault| {
                let Some(taken) = fault.taken else { return false };
                fault.from <= earlier.began + BEHIND_MAX
                    && self.claimed(earlier) <= fault.to + CLAIM_MAX
                    && taken <= later.began + SLACK
            })
    }

    /// Section 2: alive, but cut off for longer than its lease and the hold, which a shop cannot know.
    fn was_out(&self, run: &Run) -> bool {
        self.faults
            .iter()
            .filter(|fault| fault.place == Place::Replica(run.replica) && fault.kind == Kind::Stopped)
            .filter(|fault| fault.to.duration_since(fault.from) + CLAIM_MAX >= LEASE + HOLD)
            .any(|fault| fault.to <= run.began + SLACK && run.began <= fault.to + CLAIM_MAX)
    }

    /// Section 7, `local`: two replicas that are both alone, or one of them, do not know of each other. One replica
    /// always knows of itself, for as long as it lives.
    fn may_split(&self, earlier: &Run, later: &Run) -> bool {
        let same = earlier.replica == later.replica && earlier.life == later.life;
        self.plan.policy == Policy::Local && !same && (self.was_alone(earlier) || self.was_alone(later))
    }

    fn was_alone(&self, run: &Run) -> bool {
        let broken = self
            .faults_of(run.replica)
            .any(|fault| fault.from <= run.began && run.began <= fault.to + BACK_MAX);
        let said =
            self.turns.iter().rfind(|turn| turn.replica == run.replica && turn.at <= run.began + SLACK);
        broken || said.is_some_and(|turn| !turn.is_up || turn.at + SLACK >= run.began)
    }

    fn faults_of(&self, replica: usize) -> impl Iterator<Item = &Fault> {
        self.faults.iter().filter(move |fault| [Place::Store, Place::Replica(replica)].contains(&fault.place))
    }

    /// Promises 3, 4 and 6: an answer of the shop is one that it gave to this very request, byte for byte, and a
    /// failure is for nobody who comes after it.
    fn answer(&self, asked: &Asked) -> Result<(), String> {
        let Some(answer) = &asked.answer else { return Ok(()) };
        if answer.field("oncegate-verdict") == "refuse" {
            return match answer.status() {
                502..=504 => Ok(()),
                status => Err(format!("refused with {status}")),
            };
        }
        let Some((number, request)) = answer.body.split_once(' ') else {
            return Err("not of the shop".into());
        };
        if request != asked.request {
            return Err(format!("the answer to {request}"));
        }
        let number = number.parse::<usize>().map_err(|_| "not of the shop".to_owned())?;
        let Some(run) = self.runs.get(number) else { return Err("an answer to nobody".into()) };
        let told = match run.ended {
            Some((at, said)) if run.request == request && at <= asked.ended => Some((at, said)),
            _ => None,
        };
        match (told, answer.status()) {
            (Some((_, Said::Done)), 200) => Ok(()),
            (Some((at, Said::Failed)), 500) => {
                let late = asked.began > at + WAKE_MAX;
                let broken = self
                    .faults_of(asked.replica)
                    .any(|fault| fault.from <= asked.ended && at <= fault.to + WAKE_MAX);
                if late && !broken { Err("a failure after its flight".into()) } else { Ok(()) }
            }
            (_, status) => Err(format!("{status}, which the shop never said")),
        }
    }

    fn shown_ask(&self, asked: &Asked) -> String {
        let Asked { replica, request, began, ended, answer } = asked;
        let (began, ended) = (self.at(*began), self.at(*ended));
        format!(
            "{request} at replica {replica}, {began}..{ended}: {answer:?}{}",
            self.near(order_of(request))
        )
    }

    fn shown(&self, run: &Run) -> String {
        let ended = run.ended.map_or("...".to_owned(), |(at, said)| format!("{} {said:?}", self.at(at)));
        format!(
            "{} by {}.{} fence {}, {}..{ended}",
            run.request,
            run.replica,
            run.life,
            run.fence,
            self.at(run.began)
        )
    }

    /// All that happened to an order.
    fn near(&self, order: &str) -> String {
        let runs: Vec<String> =
            self.runs.iter().filter(|run| run.order() == order).map(|run| self.shown(run)).collect();
        format!("\n    {}", runs.join("\n    "))
    }

    /// For whoever reads a violation: what was broken when.
    pub(super) fn history(&self) -> String {
        let mut lines: Vec<(Instant, String)> = Vec::new();
        for fault in &self.faults {
            let Fault { place, kind, from, to, taken } = fault;
            lines.push((*from, format!("{place:?} {kind:?} until {}", self.at(*to))));
            lines.extend(taken.map(|taken| (taken, "another Redis has taken over".to_owned())));
        }
        for turn in &self.turns {
            let word = if turn.is_up { "with the store" } else { "without the store" };
            lines.push((turn.at, format!("replica {} goes on {word}", turn.replica)));
        }
        lines.sort_by_key(|(at, _)| *at);
        lines.iter().map(|(at, line)| format!("  {} {line}\n", self.at(*at))).collect()
    }

    fn at(&self, at: Instant) -> String {
        format!("{:.3}", at.saturating_duration_since(self.began).as_secs_f64())
    }
}
