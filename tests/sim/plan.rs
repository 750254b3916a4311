//! What a seed stands for: the requests that exist, how the shop and the store behave, who crashes.

use std::time::Duration;

use oncegate::{
    claim::{Boarding, Demand, Keep},
    store::{InDoubtPolicy, Key, OnStoreDown},
};
use smallvec::SmallVec;

pub(crate) const LEASE: u64 = 2000;
pub(crate) const HOLD: u64 = 8000;
/// How long the shop is listened to before its answer counts as unknown: longer than a lease that nobody renews.
pub(crate) const ANSWER_TIMEOUT: u64 = 3500;
/// How long a client waits.
pub(crate) const PATIENCE: u64 = 6000;
/// How long a store call may take.
pub(crate) const DEADLINE: u64 = 250;
pub(crate) const UNSEEN: u64 = 6000;
pub(crate) const SEEN: u64 = 3000;
pub(crate) const RESOLVED_LIFE: u64 = 4000;

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// SplitMix64: small, known, and the same on every machine.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator of its own for one actor, so that actors do not shift each other's draws.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }

    /// A time that often falls on the same instant as others.
    pub(crate) fn instant(&mut self, most: u64) -> u64 {
        let exact = self.between(0, most);
        if self.percent(60) { exact / 100 * 100 } else { exact }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Once,
    Signal,
    /// Mode `serial`, and `once` where the identity is declared but absent: nothing is shared but the lane.
    Alone,
}

/// One of the requests that clients send. Equal requests have the same number.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) number: usize,
    pub(crate) mode: Mode,
    /// Numbers of its orders, ascending.
    pub(crate) lanes: Vec<u8>,
    pub(crate) policy: InDoubtPolicy,
    pub(crate) on_store_down: OnStoreDown,
    pub(crate) identity: Option<Key>,
    pub(crate) followers_max: usize,
    pub(crate) lane_depth_max: usize,
}

pub(crate) fn lane_key(lane: u8) -> Key {
    Key([lane + 1; 32])
}

pub(crate) fn identity_key(identity: u8) -> Key {
    Key([identity + 200; 32])
}

impl Kind {
    pub(crate) fn shares_lane(&self, other: &Self) -> bool {
        self.lanes.iter().any(|lane| other.lanes.contains(lane))
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.number == other.number && self.mode != Mode::Alone
    }

    pub(crate) fn demand(&self) -> Demand {
        let fingerprint = Key([u8::try_from(self.number).expect("there are few kinds") + 100; 32]);
        Demand {
            route: self.number,
            lanes: self.lanes.iter().map(|lane| lane_key(*lane)).collect(),
            fingerprint: (self.mode != Mode::Alone).then_some(fingerprint),
            scope: None,
            body: None,
            generations: self.identity.into_iter().collect::<SmallVec<[Key; 1]>>(),
            boarding: match self.mode {
                Mode::Once | Mode::Alone => Boarding::UntilEnd,
                Mode::Signal => Boarding::UntilSent,
            },
            in_doubt: self.policy,
            on_store_down: self.on_store_down,
            followers_max: self.followers_max,
            lane_depth_max: self.lane_depth_max,
            order: None,
        }
    }

    pub(crate) fn keep(&self) -> Keep {
        match self.mode {
            Mode::Once => Keep::For { unseen: ms(UNSEEN), seen: ms(SEEN) },
            Mode::Signal | Mode::Alone => Keep::Not,
        }
    }
}

/// How calls to the store go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wires {
    /// At once.
    Calm,
    /// Late, within the deadline.
    Slow,
    /// Errors before and after the call was carried out, answers that never come.
    Flaky,
}

/// How wake-ups of the store come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wakes {
    Sure,
    /// Late, or never.
    Unsure,
}

/// Something that breaks in the course of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Break {
    /// The store cannot be asked by anybody.
    Outage,
    /// It cannot be asked by one replica.
    Cut,
    /// It takes longer for one replica than anybody waits.
    Slowness,
    /// It loses what it was told last.
    Failover,
    /// It comes back with nothing.
    Emptying,
    /// A replica is not given a moment for a while.
    Stop,
    /// A replica dies, and another one begins in its place.
    Crash,
}

/// How the shop takes what it is sent, in percent; the rest is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Temper {
    pub(crate) refuses: u64,
    pub(crate) fails: u64,
    pub(crate) resets: u64,
    pub(crate) stalls: u64,
    pub(crate) too_large: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) replicas: usize,
    pub(crate) clients: usize,
    pub(crate) asks_per_client: u64,
    pub(crate) temper: Temper,
    pub(crate) wires: Wires,
    pub(crate) wakes: Wakes,
    pub(crate) breaks: Vec<Break>,
    pub(crate) crashes: u64,
    pub(crate) cuts: u64,
    pub(crate) renewals: u64,
    pub(crate) operator_looks: u64,
    pub(crate) aborts: u64,
}

/// What a group of seeds is about. Each group is a test of its own, so that they run side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Group {
    /// A store and replicas without faults; the shop may have any.
    Sound,
    /// Replicas die.
    Crashes,
    /// The store is slow or fails, replicas are cut off from it.
    Store,
    /// Replicas with a store of their own each; the shared one is away for some or all of them, slow, or late.
    Outages,
    /// The same, and the shared store loses what it was told last.
    Failovers,
    /// The same, and the shared store comes back with nothing.
    Emptied,
    /// All of it, and replicas are stopped and die.
    Everything,
}

impl Group {
    /// Whether replicas have a store of their own to go on with.
    pub(crate) fn stands_by(self) -> bool {
        match self {
            Self::Sound | Self::Crashes | Self::Store => false,
            Self::Outages | Self::Failovers | Self::Emptied | Self::Everything => true,
        }
    }

    /// What breaks, as often as it stands here.
    fn breaks(self) -> &'static [Break] {
        use Break::{Crash, Cut, Emptying, Failover, Outage, Slowness, Stop};
        match self {
            Self::Sound | Self::Crashes | Self::Store => &[],
            Self::Outages => &[Outage, Outage, Cut, Cut, Slowness, Stop],
            Self::Failovers => &[Failover, Failover, Failover, Outage, Cut, Crash],
            Self::Emptied => &[Emptying, Emptying, Emptying, Outage, Cut, Crash],
            Self::Everything => &[Outage, Cut, Slowness, Failover, Emptying, Stop, Stop, Crash, Crash],
        }
    }
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng, group: Group) -> Self {
        let lanes = rng.between(1, 3);
        let refuses = if group.stands_by() { *pick(rng, &[0, 0, 50, 100]) } else { 0 };
        let kinds = (0..rng.between(2, 5)).map(|number| kind(rng, number, lanes, refuses)).collect();
        let rough = rng.percent(70);
        let mut or_none = |chance: u64| if rough && rng.percent(60) { chance } else { 0 };
        let temper = Temper {
            refuses: or_none(15),
            fails: or_none(25),
            resets: or_none(15),
            stalls: or_none(15),
            too_large: or_none(10),
        };
        let faulty = group == Group::Store;
        Self {
            kinds,
            replicas: usize::try_from(rng.between(if group.stands_by() { 2 } else { 1 }, 3)).expect("small"),
            clients: usize::try_from(rng.between(3, 9)).expect("small"),
            asks_per_client: rng.between(2, 5),
            temper,
            wires: match (faulty, rng.percent(35), rng.percent(30)) {
                (true, true, _) | (false, _, true) => Wires::Slow,
                (true, false, _) => Wires::Flaky,
                (false, _, false) => Wires::Calm,
            },
            wakes: if group.stands_by() && rng.percent(60) { Wakes::Unsure } else { Wakes::Sure },
            breaks: (0..if group.stands_by() { rng.between(1, 4) } else { 0 })
                .map(|_| *pick(rng, group.breaks()))
                .collect(),
            crashes: if group == Group::Crashes { rng.between(1, 3) } else { 0 },
            cuts: if faulty { rng.between(0, 2) } else { 0 },
            renewals: if rng.percent(30) { rng.between(1, 4) } else { 0 },
            operator_looks: if rng.percent(30) { rng.between(1, 6) } else { 0 },
            aborts: if rng.percent(70) { 35 } else { 0 },
        }
    }
}

fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[usize::try_from(rng.next() % from.len() as u64).expect("small")]
}

fn kind(rng: &mut Rng, number: u64, lanes: u64, refuses: u64) -> Kind {
    let mode = match rng.between(0, 9) {
        0..=5 => Mode::Once,
        6..=7 => Mode::Signal,
        _ => Mode::Alone,
    };
    let first = u8::try_from(rng.between(0, lanes - 1)).expect("small");
    let second = u8::try_from(rng.between(0, lanes - 1)).expect("small");
    let mut lanes = vec![first];
    if rng.percent(30) && second != first {
        lanes.push(second);
        lanes.sort_unstable();
    }
    let identity = u8::try_from(rng.between(0, 1)).expect("small");
    let tight = rng.percent(25);
    Kind {
        number: usize::try_from(number).expect("small"),
        mode,
        lanes,
        policy: if rng.percent(70) { InDoubtPolicy::Hold(ms(HOLD)) } else { InDoubtPolicy::Retry },
        on_store_down: if rng.percent(refuses) { OnStoreDown::Refuse } else { OnStoreDown::Local },
        identity: rng.percent(50).then(|| identity_key(identity)),
        followers_max: if tight { 1 } else { 20 },
        lane_depth_max: if tight { 2 } else { 20 },
    }
}
