//! What all cores know of an upstream's servers: which of them may be sent to, how much each has to do, and whether
//! there is room for more.
//!
//! Counters and words that are stored whole; nothing here is locked for longer than a list is copied, and nothing
//! decides which server is next: that is `turn`'s.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, time::timeout};

/// So many exchanges in a row that failed at a server, and it is set aside for a while.
const FAILURES_MAX: u32 = 3;
/// For how long at first; twice as long each time it happens again, up to the longest.
const SET_ASIDE: Duration = Duration::from_secs(1);
const SET_ASIDE_MAX: Duration = Duration::from_secs(60);
/// What a server that comes up begins with, of its whole share, where it starts slowly.
const SHARE_MIN_PERCENT: u64 = 10;

/// How the next server is found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Balance {
    #[default]
    RoundRobin,
    LeastConnections,
    Hash,
}

/// Whether a server takes its share, or only what the others cannot.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Role {
    #[default]
    Primary,
    Backup,
}

/// What the configuration says of one server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerSettings {
    /// `host:port`.
    pub address: String,
    pub weight: u32,
    /// Exchanges that may be at it at a time, over all cores. `None`: no bound of its own.
    pub connections_max: Option<usize>,
    pub role: Role,
}

/// What the configuration says of all of them.
#[derive(Clone, Copy, Debug)]
pub struct FleetSettings {
    pub balance: Balance,
    /// Exchanges that may wait for room at one server.
    pub queue_max: usize,
    pub queue_timeout: Duration,
    /// How long it takes a server that came up until it has its whole share.
    pub slow_start: Duration,
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self {
            balance: Balance::default(),
            queue_max: 1024,
            queue_timeout: Duration::from_secs(5),
            slow_start: Duration::ZERO,
        }
    }
}

/// What the last health checks say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Health {
    /// Also where there are no checks, or none has ended yet: a quiet start is no outage.
    Up,
    Down,
}

/// Whether an operator lets it have new exchanges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    In,
    /// What it has runs to its end; it gets nothing more.
    Drained,
}

/// Why a server is not sent to, or that it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    Up,
    /// The last connection to it could not be made; it is still tried.
    Unreached,
    /// It failed several times in a row, and is left alone for a while.
    SetAside,
    /// Its health checks fail.
    Unhealthy,
    /// An operator has taken it out.
    Drained,
}

impl Condition {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unreached => "unreached",
            Self::SetAside => "set-aside",
            Self::Unhealthy => "unhealthy",
            Self::Drained => "drained",
        }
    }

    /// How willingly it is sent to; `None`: not at all.
    fn rank(self) -> Option<Rank> {
        match self {
            Self::Up | Self::Unreached => Some(Rank::Willing),
            Self::SetAside => Some(Rank::Reluctant),
            Self::Unhealthy | Self::Drained => None,
        }
    }
}

/// Whoever is set aside is still better than nobody: never are all of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Rank {
    Willing,
    Reluctant,
}

/// Why there is no room at a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// As many wait as may.
    Queue,
    /// Nothing came free for as long as one may wait.
    Timeout,
}

/// The servers of one upstream, shared by all cores.
#[derive(Debug)]
pub struct Fleet {
    pub settings: FleetSettings,
    servers: Vec<Server>,
    began: Instant,
}

#[derive(Debug)]
struct Server {
    settings: ServerSettings,
    /// Exchanges that are at it now.
    at_work: AtomicUsize,
    waiting: AtomicUsize,
    room: Option<Semaphore>,
    health: AtomicU8,
    drained: AtomicBool,
    unreached: AtomicBool,
    failures: AtomicU32,
    times_set_aside: AtomicU32,
    /// In milliseconds since the fleet began; 0: it is not.
    set_aside_until: AtomicU64,
    /// When it last came up, likewise; 0: it was up from the start.
    up_since: AtomicU64,
    /// What its name meant when it was last looked up; empty: it has not been.
    resolved: RwLock<Arc<[SocketAddr]>>,
    /// Counts the changes of what its name means: connections made before are not used again.
    generation: AtomicU32,
    next_address: AtomicUsize,
    /// Why the last health check failed, if it did.
    checked: Mutex<Option<String>>,
}

/// One server, as it is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    pub settings: ServerSettings,
    pub condition: Condition,
    pub at_work: usize,
    pub waiting: usize,
}

impl Fleet {
    #[must_use]
    pub fn new(servers: Vec<ServerSettings>, settings: FleetSettings) -> Arc<Self> {
        let servers = servers.into_iter().map(Server::new).collect();
        Arc::new(Self { settings, servers, began: Instant::now() })
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// As it is written in the configuration.
    #[must_use]
    pub fn address(&self, server: usize) -> &str {
        self.servers.get(server).map_or("", |server| &server.settings.address)
    }

    #[must_use]
    pub fn shown(&self, server: usize) -> Option<Shown> {
        let one = self.servers.get(server)?;
        Some(Shown {
            settings: one.settings.clone(),
            condition: self.condition(server),
            at_work: one.at_work.load(Relaxed),
            waiting: one.waiting.load(Relaxed),
        })
    }

    #[must_use]
    pub fn condition(&self, server: usize) -> Condition {
        let Some(server) = self.servers.get(server) else { return Condition::Drained };
        if server.drained.load(Relaxed) {
            return Condition::Drained;
        }
        if server.health.load(Relaxed) == Health::Down as u8 {
            return Condition::Unhealthy;
        }
        match server.set_aside_until.load(Relaxed) {
            0 => {}
            until if self.now() < until => return Condition::SetAside,
            // The first who notices ends it, and has it begin slowly.
            until => {
                let ended = server.set_aside_until.compare_exchange(until, 0, Relaxed, Relaxed);
                if ended.is_ok() {
                    server.up_since.store(self.now(), Relaxed);
                }
            }
        }
        if server.unreached.load(Relaxed) { Condition::Unreached } else { Condition::Up }
    }

    /// How willingly a server is sent to now, and whether it is the others' backup.
    pub(super) fn rank(&self, server: usize) -> Option<(Rank, Role)> {
        Some((self.condition(server).rank()?, self.servers.get(server)?.settings.role))
    }

    /// A server's share now, in hundredths of its weight.
    pub(super) fn share(&self, server: usize) -> u64 {
        let Some(server) = self.servers.get(server) else { return 0 };
        let whole = u64::from(server.settings.weight) * 100;
        let slow = millis(self.settings.slow_start);
        match server.up_since.load(Relaxed) {
            0 => whole,
            _ if slow == 0 => whole,
            since => {
                let up = self.now().saturating_sub(since).min(slow);
                whole * (up * 100 / slow).max(SHARE_MIN_PERCENT) / 100
            }
        }
    }

    pub(super) fn at_work(&self, server: usize) -> usize {
        self.servers.get(server).map_or(0, |server| server.at_work.load(Relaxed))
    }

    /// A place at a server, if there is one at once.
    pub(super) fn enter(self: &Arc<Self>, server: usize) -> Option<Slot> {
        let one = self.servers.get(server)?;
        if let Some(room) = &one.room {
            room.try_acquire().ok()?.forget();
        }
        Some(self.slot(server))
    }

    /// A place at a server, waited for within its bounds.
    pub(super) async fn wait(self: &Arc<Self>, server: usize) -> Result<Slot, Full> {
        let Some(one) = self.servers.get(server) else { return Err(Full::Queue) };
        let Some(room) = &one.room else { return Ok(self.slot(server)) };
        if one.waiting.fetch_add(1, Relaxed) >= self.settings.queue_max {
            one.waiting.fetch_sub(1, Relaxed);
            return Err(Full::Queue);
        }
        let _waiting = Waiting(&one.waiting);
        match timeout(self.settings.queue_timeout, room.acquire()).await {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(self.slot(server))
            }
            Ok(Err(_)) | Err(_) => Err(Full::Timeout),
        }
    }

    fn slot(self: &Arc<Self>, server: usize) -> Slot {
        self.servers[server].at_work.fetch_add(1, Relaxed);
        Slot { fleet: Arc::clone(self), server }
    }

    /// A connection to a server was made, or could not be.
    pub(super) fn connected(&self, server: usize, reached: super::Reached) {
        let Some(one) = self.servers.get(server) else { return };
        match reached {
            super::Reached::Yes => one.unreached.store(false, Relaxed),
            super::Reached::No => {
                one.unreached.store(true, Relaxed);
                self.failed(server);
            }
        }
    }

    /// A server answered. What it answered is the shop's business.
    pub(super) fn answered(&self, server: usize) {
        let Some(one) = self.servers.get(server) else { return };
        // Read before written: this is on every exchange's way, and the line is shared.
        if one.failures.load(Relaxed) != 0 {
            one.failures.store(0, Relaxed);
            one.times_set_aside.store(0, Relaxed);
        }
    }

    /// A server could not be connected to, or broke a connection before it answered.
    pub(super) fn failed(&self, server: usize) {
        let Some(one) = self.servers.get(server) else { return };
        if one.failures.fetch_add(1, Relaxed) + 1 < FAILURES_MAX {
            return;
        }
        let times = one.times_set_aside.load(Relaxed).min(6);
        let now = self.now();
        let until = now + millis(SET_ASIDE * (1 << times)).min(millis(SET_ASIDE_MAX));
        // Those that fail while it is set aside, since there was nobody better, do not make it longer.
        let before = one.set_aside_until.load(Relaxed);
        if before <= now && one.set_aside_until.compare_exchange(before, until, Relaxed, Relaxed).is_ok() {
            one.times_set_aside.store(times + 1, Relaxed);
        }
    }

    /// What health checks found.
    pub fn set_health(&self, server: usize, health: Health) {
        let Some(one) = self.servers.get(server) else { return };
        let before = one.health.swap(health as u8, Relaxed);
        if health == Health::Up && before == Health::Down as u8 {
            one.up_since.store(self.now(), Relaxed);
            one.set_aside_until.store(0, Relaxed);
            one.failures.store(0, Relaxed);
            one.unreached.store(false, Relaxed);
        }
    }

    /// What came of the last health check: nothing, or why it failed.
    pub fn set_checked(&self, server: usize, failure: Option<String>) {
        if let Some(one) = self.servers.get(server) {
            *one.checked.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        }
    }

    /// Why the last health check failed, if it did.
    #[must_use]
    pub fn checked(&self, server: usize) -> Option<String> {
        self.servers.get(server)?.checked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What an operator wants.
    pub fn set_service(&self, server: usize, service: Service) {
        let Some(one) = self.servers.get(server) else { return };
        let was_drained = one.drained.swap(service == Service::Drained, Relaxed);
        if was_drained && service == Service::In {
            one.up_since.store(self.now(), Relaxed);
        }
    }

    /// What a server's name means now. True where that is something else than before.
    pub fn set_addresses(&self, server: usize, mut addresses: Vec<SocketAddr>) -> bool {
        let Some(one) = self.servers.get(server) else { return false };
        addresses.sort_unstable();
        addresses.dedup();
        let mut resolved = one.resolved.write().unwrap_or_else(PoisonError::into_inner);
        if addresses.is_empty() || resolved[..] == addresses[..] {
            return false;
        }
        let is_change = !resolved.is_empty();
        *resolved = addresses.into();
        if is_change {
            one.generation.fetch_add(1, Relaxed);
        }
        is_change
    }

    /// Where to connect to: what the name meant last, each address in turn, or the name while that is not known.
    pub fn target(&self, server: usize) -> Target<'_> {
        let Some(one) = self.servers.get(server) else { return Target::Named("") };
        let resolved = Arc::clone(&one.resolved.read().unwrap_or_else(PoisonError::into_inner));
        match resolved.len() {
            0 => Target::Named(&one.settings.address),
            many => Target::At(resolved[one.next_address.fetch_add(1, Relaxed) % many]),
        }
    }

    /// Connections of an older one lead to where the name no longer does.
    pub(super) fn generation(&self, server: usize) -> u32 {
        self.servers.get(server).map_or(0, |server| server.generation.load(Relaxed))
    }

    /// Whether a server may be sent to at all.
    pub fn is_open(&self, server: usize) -> bool {
        self.condition(server).rank().is_some()
    }

    /// Whether what is at a server has to be counted: a lone server without a bound is sent to in any case.
    pub(super) fn counts(&self) -> bool {
        self.servers.len() > 1 || self.servers.iter().any(|server| server.room.is_some())
    }

    fn now(&self) -> u64 {
        // From 1: 0 says never.
        millis(self.began.elapsed()) + 1
    }
}

/// Where a connection goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target<'a> {
    /// `host:port`, to be looked up.
    Named(&'a str),
    At(SocketAddr),
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl Server {
    fn new(settings: ServerSettings) -> Self {
        let room = settings.connections_max.map(|most| Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self {
            settings,
            at_work: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            room,
            health: AtomicU8::new(Health::Up as u8),
            drained: AtomicBool::new(false),
            unreached: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            times_set_aside: AtomicU32::new(0),
            set_aside_until: AtomicU64::new(0),
            up_since: AtomicU64::new(0),
            resolved: RwLock::new(Arc::from([])),
            generation: AtomicU32::new(0),
            next_address: AtomicUsize::new(0),
            checked: Mutex::default(),
        }
    }
}

/// An exchange's place at a server, until its answer was read to the end.
#[derive(Debug)]
pub struct Slot {
    fleet: Arc<Fleet>,
    server: usize,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let server = &self.fleet.servers[self.server];
        server.at_work.fetch_sub(1, Relaxed);
        if let Some(room) = &server.room {
            room.add_permits(1);
        }
    }
}

/// Counted out also where the waiting is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Reached;

    fn one(connections_max: Option<usize>, queue_max: usize) -> Arc<Fleet> {
        let server =
            ServerSettings { address: "shop:80".to_owned(), weight: 1, connections_max, role: Role::Primary };
        let queue_timeout = Duration::from_millis(50);
        Fleet::new(vec![server], FleetSettings { queue_max, queue_timeout, ..FleetSettings::default() })
    }

    #[tokio::test]
    async fn a_full_server_has_room_again_when_an_exchange_ends() {
        let fleet = one(Some(1), 1);
        let first = fleet.enter(0).expect("it is empty");
        assert!(fleet.enter(0).is_none());
        let waiting = fleet.wait(0);
        let (slot, ()) = tokio::join!(waiting, async { drop(first) });
        assert!(slot.is_ok());
        assert_eq!(fleet.shown(0).map(|shown| (shown.at_work, shown.waiting)), Some((1, 0)));
    }

    #[tokio::test]
    async fn no_more_wait_for_a_full_server_than_may_and_none_for_longer() {
        let fleet = one(Some(1), 1);
        let _held = fleet.enter(0);
        let (one, other) = tokio::join!(fleet.wait(0), fleet.wait(0));
        let mut refused = [one.err(), other.err()];
        refused.sort_by_key(|full| *full != Some(Full::Queue));
        assert_eq!(refused, [Some(Full::Queue), Some(Full::Timeout)]);
        assert_eq!(fleet.shown(0).map(|shown| shown.waiting), Some(0));
    }

    #[test]
    fn three_failures_in_a_row_set_a_server_aside_and_an_answer_between_them_does_not() {
        let fleet = one(None, 0);
        for _ in 0..10 {
            fleet.failed(0);
            fleet.failed(0);
            fleet.answered(0);
        }
        assert_eq!(fleet.condition(0), Condition::Up);
        for _ in 0..3 {
            fleet.failed(0);
        }
        assert_eq!(fleet.condition(0), Condition::SetAside);
    }

    #[test]
    fn a_connection_that_can_be_made_again_mends_a_server() {
        let fleet = one(None, 0);
        fleet.connected(0, Reached::No);
        assert_eq!(fleet.condition(0), Condition::Unreached);
        fleet.connected(0, Reached::Yes);
        assert_eq!(fleet.condition(0), Condition::Up);
    }

    #[test]
    fn a_name_that_moves_retires_older_connections_and_one_that_is_lost_does_not() {
        let fleet = one(None, 0);
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert_eq!(fleet.target(0), Target::Named("shop:80"));
        assert!(
            !fleet.set_addresses(0, vec![at("10.0.0.1:80"), at("10.0.0.2:80")]),
            "the first is no change"
        );
        assert_ne!(fleet.target(0), fleet.target(0), "each in turn");
        assert!(!fleet.set_addresses(0, vec![at("10.0.0.2:80"), at("10.0.0.1:80")]));
        assert!(!fleet.set_addresses(0, Vec::new()));
        let before = fleet.generation(0);
        assert!(fleet.set_addresses(0, vec![at("10.0.0.3:80")]));
        assert_eq!((fleet.target(0), fleet.generation(0)), (Target::At(at("10.0.0.3:80")), before + 1));
    }
}
