//! What the promise excuses (its sections 2 and 7), and for how long. Whatever is not in this table is a violation.
//!
//! | what broke | what it excuses | for how long |
//! |---|---|---|
//! | the store was down for a replica, and the route says `local` | it and the others know nothing of each other's runs | until it is back, when what it led alone is written back |
//! | the same, and it died before it was back, or something stood in the place of its run | nobody else knows of that run | for good |
//! | a failover lost something of a run that the store had been told | the store does not know that run | until its replica writes it back |
//! | the store came back empty, and nobody was there who knew it before | nobody says that it has forgotten | for good |
//! | the same, and whoever kept the answer died or could not tell the store | the answer is lost | for good |
//!
//! What two exchanges of one replica have at the shop at the same time is never excused, nor is that a route that says
//! `refuse` sends without the store.

use oncegate::store::{MEMORY_AGE_MIN, OnStoreDown};

use super::{
    check::{Check, Found, answered, violation},
    log::{AskLog, At, Exchange, NOTICE_EMPTY},
    plan::{ANSWER_TIMEOUT, HOLD, LEASE, PATIENCE},
};

/// How soon after it can be asked again the store is in use again: the longest pause between two looks, and what there
/// is to tell.
const BACK: u64 = 4500;

impl Check<'_> {
    /// Led by a replica's own store: only while the shared one was down for it, and where the route allows it.
    pub(crate) fn alone_with_a_reason(&self, number: usize, exchange: &Exchange) -> Found {
        if !self.group.stands_by() || !self.is_alone(exchange) {
            return Ok(());
        }
        violation(exchange.kind.on_store_down == OnStoreDown::Local, || {
            format!("section 7, refuse: exchange {number} was sent without the store")
        })?;
        violation(self.is_without(exchange.replica, exchange.began.ms), || {
            format!("section 7: exchange {number} was sent without a store that was up")
        })
    }

    pub(crate) fn is_excused(&self, earlier: &Exchange, later: &Exchange) -> bool {
        self.is_unaware(earlier, later)
            || self.is_unknown(earlier, later.began)
            || self.is_lost(earlier, later.began)
            || self.is_unremembered(earlier, later.began)
    }

    /// Either of them was alone when the later one was sent.
    fn is_unaware(&self, earlier: &Exchange, later: &Exchange) -> bool {
        let still_alone = self.is_alone(earlier)
            && !self.was_told(earlier, later.began)
            && later.began.ms <= self.back_by(earlier.replica, earlier.began.ms);
        earlier.replica != later.replica && (still_alone || self.is_alone(later))
    }

    /// It was alone, and what it knew of the run went with it, or found its place taken.
    fn is_unknown(&self, earlier: &Exchange, when: At) -> bool {
        let superseded = self.book.superseded.get(&earlier.fence.0).is_some_and(|at| *at <= when);
        self.is_alone(earlier)
            && !self.was_told(earlier, when)
            && (superseded || self.died_before(earlier.replica, when))
    }

    fn is_lost(&self, earlier: &Exchange, when: At) -> bool {
        let told_again = |lost: At| {
            let mut told = self.book.written_back.iter();
            told.any(|(at, fence)| *fence == earlier.fence.0 && lost < *at && *at <= when)
        };
        let mut lost = self.book.breaks.lost.iter();
        lost.any(|(at, fence)| *fence == earlier.fence.0 && *at <= when && !told_again(*at))
    }

    fn is_unremembered(&self, earlier: &Exchange, when: At) -> bool {
        let mut emptied = self.book.breaks.emptied.iter();
        emptied.any(|at| earlier.began < *at && *at <= when && !self.does_anybody_remember(*at))
    }

    /// Whether a replica that knew the store before was there to say that it has forgotten.
    fn does_anybody_remember(&self, emptied: At) -> bool {
        let until = emptied.ms + u64::try_from(MEMORY_AGE_MIN.as_millis()).expect("short");
        let breaks = &self.book.breaks;
        breaks.lives.iter().any(|(replica, (born, died))| {
            let is_there = *born < emptied && died.is_none_or(|died| died.ms > until);
            let is_kept = breaks.troubles.iter().any(|(of, from, to)| {
                of.is_none_or(|of| of == *replica) && *from <= until && *to > emptied.ms
            });
            is_there && !is_kept
        })
    }

    /// The store has forgotten the answer, and nobody could tell it again.
    pub(crate) fn is_record_gone(&self, earlier: &Exchange, later: &Exchange) -> bool {
        let when = later.began;
        let forgotten = self.book.breaks.emptied.iter().any(|at| earlier.began < *at && *at <= when);
        let untold = self.died_before(earlier.replica, when) || self.is_cut(earlier.replica, when.ms);
        forgotten && answered(earlier).is_some() && untold
    }

    /// A run that no store but its replica's own knows: its lease runs out while nobody can prolong it.
    pub(crate) fn ran_out_alone(&self, exchange: &Exchange) -> Option<u64> {
        let stops = self.book.breaks.stops.iter().filter(|(replica, from, to)| {
            *replica == exchange.replica && *to >= exchange.began.ms && *to > from + LEASE / 2
        });
        let earliest = stops.map(|(_, from, _)| from + LEASE / 2).min()?;
        (self.group.stands_by() && self.is_alone(exchange)).then_some(earliest)
    }

    fn is_alone(&self, exchange: &Exchange) -> bool {
        self.group.stands_by() && !self.book.granted.contains(&exchange.fence.0)
    }

    fn was_told(&self, exchange: &Exchange, when: At) -> bool {
        self.book.written_back.iter().any(|(at, fence)| *fence == exchange.fence.0 && *at <= when)
    }

    fn died_before(&self, replica: u64, when: At) -> bool {
        let life = self.book.breaks.lives.get(&replica);
        life.is_some_and(|(_, died)| died.is_some_and(|died| died <= when))
    }

    /// What was broken for a replica.
    fn troubles_of(&self, replica: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let emptied = self.book.breaks.emptied.iter();
        let emptied = emptied.map(move |at| (at.ms, self.distrusted_until(replica, at.ms)));
        self.faults_of(replica).chain(emptied)
    }

    fn faults_of(&self, replica: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let troubles = self.book.breaks.troubles.iter();
        troubles.filter(move |(of, ..)| of.is_none_or(|of| of == replica)).map(|(_, from, to)| (*from, *to))
    }

    /// Until when a replica may treat a store as down that was emptied then: it may find out late, and waits for as
    /// long as what it forgot may run.
    fn distrusted_until(&self, replica: u64, emptied: u64) -> u64 {
        let mut noticed = emptied + NOTICE_EMPTY;
        while let Some(later) = self
            .faults_of(replica)
            .filter(|(from, to)| *from <= noticed && to + NOTICE_EMPTY > noticed)
            .map(|(_, to)| to + NOTICE_EMPTY)
            .max()
        {
            noticed = later;
        }
        noticed + LEASE + HOLD
    }

    /// Whether a replica may take the store for down.
    fn is_without(&self, replica: u64, ms: u64) -> bool {
        self.troubles_of(replica).any(|(from, to)| from <= ms && ms <= to + BACK)
    }

    /// The same, for a reason of its own.
    fn is_cut(&self, replica: u64, ms: u64) -> bool {
        let mut troubles = self.book.breaks.troubles.iter();
        troubles.any(|(of, from, to)| *of == Some(replica) && *from <= ms && ms <= *to + BACK)
    }

    /// When a replica that may be without the store at some time is back at the latest.
    fn back_by(&self, replica: u64, ms: u64) -> u64 {
        let mut by = ms;
        while let Some(later) = self
            .troubles_of(replica)
            .filter(|(from, to)| *from <= by && to + BACK > by)
            .map(|(_, to)| to + BACK)
            .max()
        {
            by = later;
        }
        by
    }

    /// Something was broken for whoever waited, while it waited.
    pub(crate) fn is_troubled(&self, ask: &AskLog, ended: At) -> bool {
        self.group.stands_by()
            && self.troubles_of(ask.replica).any(|(from, to)| from <= ended.ms && to + BACK >= ask.arrived.ms)
    }

    pub(crate) fn was_troubled(&self, source: &Exchange, from: At, until: At) -> bool {
        self.group.stands_by()
            && self.troubles_of(source.replica).any(|(broke, to)| broke <= until.ms && to + BACK >= from.ms)
    }

    pub(crate) fn is_anybody_troubled(&self, ended: At) -> bool {
        let since = ended.ms.saturating_sub(PATIENCE + LEASE + HOLD);
        let broke = |replica: &u64| {
            self.troubles_of(*replica).any(|(from, to)| from <= ended.ms && to + BACK >= since)
        };
        self.group.stands_by() && self.book.breaks.lives.keys().any(broke)
    }

    pub(crate) fn anything_broke_before(&self, when: At) -> bool {
        let breaks = &self.book.breaks;
        self.group.stands_by()
            && (breaks.troubles.iter().any(|(_, from, _)| *from <= when.ms)
                || breaks.lost.iter().any(|(at, _)| *at <= when)
                || breaks.emptied.iter().any(|at| *at <= when))
    }

    /// Where the store was away a replica goes by what it saw last, and holds an order for as long as that may matter.
    pub(crate) fn is_doubtful(&self, ask: &AskLog, ended: At) -> bool {
        // It saw that an order was busy, and not which one of several.
        let lanes = self.connected(ask);
        let near = |exchange: &Exchange| exchange.kind.lanes.iter().any(|lane| lanes.contains(lane));
        let recent = |exchange: &Exchange| {
            let through = exchange.ended.map_or(exchange.began.ms, |at| at.ms);
            exchange.began <= ended && ended.ms <= through + ANSWER_TIMEOUT + 2 * (LEASE + HOLD)
        };
        self.group.stands_by()
            && self.is_anybody_troubled(ended)
            && self.book.exchanges.iter().any(|exchange| near(exchange) && recent(exchange))
    }
}
