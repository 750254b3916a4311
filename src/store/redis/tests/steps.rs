//! Random steps, carried out on a table and on a Redis.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header::LOCATION};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRunner},
};
use redis::{Connection, Value};
use smallvec::{SmallVec, smallvec};

use super::{
    difference::{DUMP, hex, of_redis, of_table, shown_record},
    server::RedisServer,
};
use crate::store::{
    Ask, Delivery, Ending, Fence, Hold, InDoubtPolicy, Kept, Key, LaneView, May, Millis, Owner, Record,
    Renewed, Resolution, Resolved, Restored, RestoredState, Settled,
    machine::{
        self, Decision, Effects, Nudge, Step,
        cells::{Cells as _, Place},
    },
    memory::{MemoryLimits, Table},
    redis::{
        claim_call, codec, owner, resolve_call, restore_call,
        script::{Call, Common, Name, Script, Told},
        settle_call,
    },
};

const LEASE: Duration = Duration::from_secs(10);
const HOLD: Duration = Duration::from_secs(20);
const UNSEEN: Duration = Duration::from_secs(40);
const SEEN: Duration = Duration::from_secs(15);
const META_KEY: &str = "{difference}:meta";
const BASE: &str = "{difference}:";
const EXPIRE: &str = "lapse(load(ARGV[4])) reply = { 'done' }\n";

#[derive(Clone, Debug)]
enum Op {
    Claim(Wish),
    Renew(u8, Who),
    Settle(u8, Who, u8),
    Abandon(u8, Who),
    Delivered(u8),
    Generation(u8),
    RestoreGeneration(u8, i8),
    Inspect(u8),
    Resolve(u8, bool),
    Forget(u8),
    Expire(u8),
    Restore(u8, Again),
    RestoreNew(Wish, Again, i8),
    Wait(u16),
    /// Another version has been here.
    ForeignPlace(u8, u8),
    ForeignRun(u8),
    ForeignGeneration(u8),
}

#[derive(Clone, Copy, Debug)]
enum Who {
    Owner,
    Thief,
}

#[derive(Clone, Debug)]
struct Wish {
    owner: u8,
    fingerprint: Option<u8>,
    lanes: u8,
    scope: Option<u8>,
    body: Option<u8>,
    generations: u8,
    may: u8,
    retry: bool,
}

#[derive(Clone, Copy, Debug)]
struct Again {
    state: u8,
    first: u8,
    second: u8,
}

fn wish() -> impl Strategy<Value = Wish> {
    (
        0..5_u8,
        prop::option::weighted(0.85, 0..3_u8),
        1..8_u8,
        prop::option::weighted(0.4, 0..2_u8),
        prop::option::weighted(0.2, 0..2_u8),
        0..4_u8,
        0..4_u8,
        any::<bool>(),
    )
        .prop_map(|(owner, fingerprint, lanes, scope, body, generations, may, retry)| Wish {
            owner,
            fingerprint,
            // One order more often than several.
            lanes: if lanes == 7 || lanes == 3 { lanes } else { 1 << (lanes % 3) },
            scope,
            body,
            generations,
            may,
            retry,
        })
}

fn again() -> impl Strategy<Value = Again> {
    (0..5_u8, 0..25_u8, 0..25_u8).prop_map(|(state, first, second)| Again { state, first, second })
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![8 => Just(Who::Owner), 1 => Just(Who::Thief)]
}

/// Where another version has been, much cannot be read and little goes on.
fn op_among_foreigners() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => op(),
        1 => (0..3_u8, 0..3_u8).prop_map(|(kind, key)| Op::ForeignPlace(kind, key)),
        1 => any::<u8>().prop_map(Op::ForeignRun),
        1 => (0..2_u8).prop_map(Op::ForeignGeneration),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => wish().prop_map(Op::Claim),
        2 => (any::<u8>(), who()).prop_map(|(which, who)| Op::Renew(which, who)),
        6 => (any::<u8>(), who(), 0..6_u8).prop_map(|(which, who, ending)| Op::Settle(which, who, ending)),
        1 => (any::<u8>(), who()).prop_map(|(which, who)| Op::Abandon(which, who)),
        2 => any::<u8>().prop_map(Op::Delivered),
        2 => (0..2_u8).prop_map(Op::Generation),
        1 => (0..2_u8, any::<i8>()).prop_map(|(identity, fence)| Op::RestoreGeneration(identity, fence)),
        1 => (0..3_u8).prop_map(Op::Inspect),
        2 => (0..3_u8, any::<bool>()).prop_map(|(lane, done)| Op::Resolve(lane, done)),
        1 => (0..3_u8).prop_map(Op::Forget),
        1 => any::<u8>().prop_map(Op::Expire),
        2 => (any::<u8>(), again()).prop_map(|(which, again)| Op::Restore(which, again)),
        2 => (wish(), again(), any::<i8>()).prop_map(|(wish, again, fence)| Op::RestoreNew(wish, again, fence)),
        6 => (0..15_000_u16).prop_map(Op::Wait),
    ]
}

/// A digest would do, and cost more than the step.
fn key(kind: &str, number: u8) -> Key {
    let mut key = [number; 32];
    key[..kind.len()].copy_from_slice(kind.as_bytes());
    Key(key)
}

fn record(text: u8) -> Arc<Record> {
    let mut headers = HeaderMap::new();
    headers.insert(LOCATION, HeaderValue::from(u16::from(text)));
    Arc::new(Record {
        status: StatusCode::CREATED,
        headers: headers.into(),
        body: Kept::Whole(Bytes::from(format!("order {text}"))),
        fence: Fence(u64::from(text)),
        answered_at: 7,
        remaining: Duration::ZERO,
    })
}

/// What both answered, and what they caused.
#[derive(PartialEq, Eq, Debug)]
struct Came {
    reply: String,
    nudges: Vec<String>,
    lost: u64,
}

struct World {
    table: Table,
    redis: Connection,
    digests: Vec<String>,
    expire: String,
    now: Millis,
    given: Vec<Hold>,
}

impl World {
    fn new(redis: Connection) -> Self {
        let mut world = Self {
            table: table(),
            redis,
            digests: Vec::new(),
            expire: String::new(),
            now: Millis(0),
            given: Vec::new(),
        };
        world.digests = Script::ALL.iter().map(|script| world.load(script.text())).collect();
        let step = include_str!("../delivered.lua");
        let text = Script::Delivered.text().replace(step, EXPIRE);
        world.expire = world.load(&text);
        world
    }

    fn load(&mut self, text: &str) -> String {
        redis::cmd("SCRIPT").arg("LOAD").arg(text).query(&mut self.redis).expect("the script is one")
    }

    fn begin(&mut self) {
        self.table = table();
        self.now = Millis(1_000_000);
        self.given.clear();
        redis::cmd("FLUSHDB").exec(&mut self.redis).expect("it can be emptied");
    }

    fn call(&self, script: Script) -> Call {
        let now = self.now.0.to_string();
        Call::new(script, &Common { meta_key: META_KEY, now: &now, epoch: None, seen: Fence(0) })
    }

    fn digest(&self, script: Script) -> String {
        let place = Script::ALL.iter().position(|one| *one == script).expect("all are loaded");
        self.digests[place].clone()
    }

    /// One step on both, and a look at everything.
    fn step<T>(
        &mut self,
        call: &Call,
        digest: &str,
        read: impl FnOnce(&mut Told) -> String,
        act: impl FnOnce(&mut Table, Millis) -> Step<T>,
        show: impl FnOnce(&T) -> String,
    ) -> T {
        let step = act(&mut self.table, self.now);
        let expected = Came {
            reply: show(&step.reply),
            nudges: shown_nudges(&step.effects),
            lost: step.effects.leases_lost,
        };
        let mut dump = redis::cmd("EVAL");
        dump.arg(DUMP).arg(0).arg(BASE);
        let (told, dump): (Value, Value) = redis::pipe()
            .add_command(call.command(Name::Digest(digest)))
            .add_command(dump)
            .query(&mut self.redis)
            .expect("the script runs");
        let mut told = Told::read(told).expect("an answer");
        let mut nudges: Vec<String> = std::mem::take(&mut told.nudges).iter().map(shown_nudge).collect();
        nudges.sort_unstable();
        let came = Came { lost: told.lost, reply: read(&mut told), nudges };
        assert_eq!(came, expected, "Redis on the left, the machine on the right");
        let (in_redis, in_table) = (of_redis(dump, self.now), of_table(&self.table));
        assert_eq!(in_redis, in_table, "Redis on the left, the machine on the right");
        step.reply
    }

    fn carry_out(&mut self, op: Op) {
        match op {
            Op::Claim(wish) => self.claim(&self.ask(&wish)),
            Op::Inspect(lane) => {
                let lane = key("lane", lane);
                let call = self.call(Script::Inspect).key(Some(lane));
                let digest = self.digest(Script::Inspect);
                self.step(&call, &digest, words, |table, now| machine::inspect(table, now, lane), shown_view);
            }
            Op::Resolve(lane, done) => self.resolve(key("lane", lane), done),
            Op::Forget(lane) => {
                let lane = key("lane", lane);
                let call = self.call(Script::Forget).key(Some(lane));
                let digest = self.digest(Script::Forget);
                self.step(
                    &call,
                    &digest,
                    words,
                    |table, now| machine::forget(table, now, lane),
                    |dropped| format!("dropped {dropped}"),
                );
            }
            Op::Wait(millis) => self.now.0 += u64::from(millis),
            Op::ForeignPlace(kind, number) => self.make_place_foreign(kind, number),
            Op::Renew(..) | Op::Settle(..) | Op::Abandon(..) | Op::Delivered(_) | Op::Expire(_) => {
                self.go_on(op)
            }
            Op::Generation(_)
            | Op::RestoreGeneration(..)
            | Op::Restore(..)
            | Op::RestoreNew(..)
            | Op::ForeignRun(_)
            | Op::ForeignGeneration(_) => self.bring(op),
        }
    }

    /// What happens to a run that was led.
    fn go_on(&mut self, op: Op) {
        match op {
            Op::Renew(which, who) => {
                let Some(hold) = self.pick(which, who) else { return };
                let call =
                    self.call(Script::Renew).number(hold.fence.0).bytes(owner(&hold)).length(hold.lease);
                self.step(
                    &call,
                    &self.digest(Script::Renew),
                    word,
                    |table, now| machine::renew(table, now, &hold),
                    |renewed| match renewed {
                        Renewed::Held => "held".to_owned(),
                        Renewed::Lost => "lost".to_owned(),
                    },
                );
            }
            Op::Settle(which, who, ending) => {
                let Some(hold) = self.pick(which, who) else { return };
                let ending = ending_of(ending, which);
                let call = settle_call(self.call(Script::Settle), &hold, &ending);
                let digest = self.digest(Script::Settle);
                self.step(
                    &call,
                    &digest,
                    word,
                    |table, now| machine::settle(table, now, &hold, ending),
                    settled,
                );
            }
            Op::Abandon(which, who) => {
                let Some(hold) = self.pick(which, who) else { return };
                let call = self.call(Script::Abandon).number(hold.fence.0).bytes(owner(&hold));
                let digest = self.digest(Script::Abandon);
                self.step(&call, &digest, word, |table, now| machine::abandon(table, now, &hold), made);
            }
            Op::Delivered(which) => {
                let Some(hold) = self.pick(which, Who::Owner) else { return };
                let call = self.call(Script::Delivered).number(hold.fence.0);
                let digest = self.digest(Script::Delivered);
                self.step(&call, &digest, word, |table, now| machine::delivered(table, now, &hold), made);
            }
            Op::Expire(which) => {
                let Some(Hold { fence, .. }) = self.pick(which, Who::Owner) else { return };
                let call = self.call(Script::Delivered).number(fence.0);
                let expire =
                    |table: &mut Table, now| Step { reply: (), effects: machine::expire(table, now, fence) };
                self.step(&call, &self.expire.clone(), word, expire, made);
            }
            _ => {}
        }
    }

    /// What comes from elsewhere: generations, runs of another store, another version.
    fn bring(&mut self, op: Op) {
        match op {
            Op::Generation(identity) => {
                let identity = key("identity", identity);
                let call = self.call(Script::Generation).key(Some(identity)).bytes("");
                let begin = |table: &mut Table, now| {
                    machine::begin_generation(table, now, identity);
                    Step { reply: (), effects: Effects::default() }
                };
                self.step(&call, &self.digest(Script::Generation), word, begin, made);
            }
            Op::RestoreGeneration(identity, fence) => {
                let (identity, began) = (key("identity", identity), self.fence_around(fence));
                let call = self.call(Script::Generation).key(Some(identity)).number(began.0);
                let begin = |table: &mut Table, now| {
                    machine::restore_generation(table, now, identity, began);
                    Step { reply: (), effects: Effects::default() }
                };
                self.step(&call, &self.digest(Script::Generation), word, begin, made);
            }
            Op::Restore(which, again) => {
                let Some(hold) = self.pick(which, Who::Owner) else { return };
                let known = self.table.run(hold.fence).map(|cell| cell.value.clone());
                let (body, generations, in_doubt) = known.map_or_else(
                    || (None, smallvec![], InDoubtPolicy::Hold(HOLD)),
                    |run| (run.body, run.generations, run.in_doubt),
                );
                self.restore(Restored { hold, body, generations, in_doubt, state: again.state() });
            }
            Op::RestoreNew(wish, again, fence) => {
                let ask = self.ask(&wish);
                let fence = self.fence_around(fence);
                let hold = Hold {
                    owner: ask.owner,
                    fence,
                    lanes: ask.lanes,
                    fingerprint: ask.fingerprint,
                    scope: ask.scope,
                    lease: LEASE,
                };
                let state = again.state();
                self.given.push(hold.clone());
                self.restore(Restored {
                    hold,
                    body: ask.body,
                    generations: ask.generations,
                    in_doubt: ask.in_doubt,
                    state,
                });
            }
            Op::ForeignRun(which) => {
                let Some(Hold { fence, .. }) = self.pick(which, Who::Owner) else { return };
                if self.table.run(fence).is_some() {
                    self.table.make_run_foreign(fence);
                    let name = format!("{BASE}r:{}", fence.0);
                    redis::cmd("HSET").arg(name).arg("v").arg("2").exec(&mut self.redis).expect("written");
                }
            }
            Op::ForeignGeneration(number) => {
                let identity = key("identity", number);
                if self.table.generation(identity).is_some() {
                    self.table.make_generation_foreign(identity);
                    self.write(b"g:", identity);
                }
            }
            _ => {}
        }
    }

    fn claim(&mut self, ask: &Ask) {
        let call = claim_call(self.call(Script::Claim), ask, "replica");
        let digest = self.digest(Script::Claim);
        let decision =
            self.step(&call, &digest, words, |table, now| machine::claim(table, now, ask), shown_decision);
        if let Decision::Lead(hold) = decision {
            self.given.push(hold);
        }
    }

    fn resolve(&mut self, lane: Key, done: bool) {
        let resolution = if done { Resolution::Done(SEEN) } else { Resolution::Free };
        let call = resolve_call(self.call(Script::Resolve), lane, resolution);
        let digest = self.digest(Script::Resolve);
        self.step(
            &call,
            &digest,
            word,
            |table, now| machine::resolve(table, now, lane, resolution),
            |resolved| match resolved {
                Resolved::Changed => "changed".to_owned(),
                Resolved::Running => "running".to_owned(),
                Resolved::Nothing => "nothing".to_owned(),
            },
        );
    }

    fn restore(&mut self, restored: Restored) {
        let call = restore_call(self.call(Script::Restore), &restored);
        let digest = self.digest(Script::Restore);
        self.step(&call, &digest, word, |table, now| machine::restore(table, now, &restored), settled);
    }

    /// Only where nothing stands: a version that writes over a run of ours is no version of oncegate.
    fn make_place_foreign(&mut self, kind: u8, number: u8) {
        let (place, name, key) = match kind {
            0 => (Place::Fingerprint(key("request", number)), b"f:", key("request", number)),
            1 => (Place::Scope(key("scope", number)), b"s:", key("scope", number)),
            _ => (Place::Lane(key("lane", number)), b"l:", key("lane", number)),
        };
        if self.table.place(place).is_none() {
            self.table.place_foreign(place, Fence(5));
            self.write(name, key);
        }
    }

    fn write(&mut self, kind: &[u8], key: Key) {
        let name = [BASE.as_bytes(), kind, &key.0].concat();
        redis::cmd("SET").arg(name).arg("2:5").arg("EX").arg(9000).exec(&mut self.redis).expect("written");
    }

    fn pick(&self, which: u8, who: Who) -> Option<Hold> {
        let count = self.given.len();
        let hold = (count > 0).then(|| self.given[count - 1 - usize::from(which) % count.min(6)].clone())?;
        Some(match who {
            Who::Owner => hold,
            Who::Thief => Hold { owner: Owner(99), ..hold },
        })
    }

    /// One that was given out, or may have been elsewhere.
    fn fence_around(&self, distance: i8) -> Fence {
        let around = self.table.last_fence().0.max(self.now.0 * 1000);
        Fence(around.saturating_add_signed(i64::from(distance) * 1000 + 1))
    }

    fn ask(&self, wish: &Wish) -> Ask {
        let mut lanes: SmallVec<[Key; 1]> =
            (0..3).filter(|lane| wish.lanes & (1 << lane) != 0).map(|lane| key("lane", lane)).collect();
        lanes.sort_unstable();
        Ask {
            owner: Owner(u128::from(wish.owner)),
            lanes,
            fingerprint: wish.fingerprint.map(|number| key("request", number)),
            scope: wish.scope.map(|number| key("scope", number)),
            body: wish.body.map(|number| key("body", number)),
            generations: (0..2)
                .filter(|identity| wish.generations & (1 << identity) != 0)
                .map(|identity| key("identity", identity))
                .collect(),
            may: match (wish.may, self.given.last()) {
                (0 | 1, _) => May::FollowAny,
                (2, Some(hold)) => May::FollowAfter(Some(Fence(hold.fence.0 - 1))),
                (3, Some(hold)) => May::FollowAfter(Some(hold.fence)),
                _ => May::FollowAfter(None),
            },
            lease: LEASE,
            in_doubt: if wish.retry { InDoubtPolicy::Retry } else { InDoubtPolicy::Hold(HOLD) },
        }
    }
}

impl Again {
    fn state(self) -> RestoredState {
        let (first, second) =
            (Duration::from_secs(self.first.into()), Duration::from_secs(self.second.into()));
        match self.state {
            0 | 1 => RestoredState::Flight,
            2 => RestoredState::InDoubt { age: first, remaining: second },
            3 => {
                let delivery = if self.first.is_multiple_of(2) {
                    Delivery::Made
                } else {
                    Delivery::Awaited { seen: SEEN }
                };
                RestoredState::Done { record: record(self.first), remaining: second, delivery }
            }
            _ => RestoredState::Resolved { remaining: second },
        }
    }
}

fn table() -> Table {
    Table::clocked(MemoryLimits { records_bytes_max: 1 << 20, states_max: 1000 })
}

fn ending_of(ending: u8, text: u8) -> Ending {
    match ending {
        0..=2 => Ending::Done { record: record(text), unseen: UNSEEN, seen: SEEN },
        3 => Ending::Failed { answer: record(text) },
        4 => Ending::DoneUnkept { answer: record(text) },
        _ => Ending::InDoubt,
    }
}

fn word(told: &mut Told) -> String {
    String::from_utf8_lossy(&told.word().expect("a word")).into_owned()
}

/// The answer of a script in the words of [`shown_decision`] and [`shown_view`].
fn words(told: &mut Told) -> String {
    let word = word(told);
    match word.as_str() {
        "queue" => {
            let (at, key) = (told.bytes().expect("a place"), told.key().expect("a key"));
            let running = told.fence().expect("a fence");
            format!("queue {} {} {}", String::from_utf8_lossy(&at), hex(&key.0), running.0)
        }
        "replay" => {
            let remaining = told.number().expect("a length");
            let record = codec::decode(told.bytes().expect("a record"), Duration::ZERO);
            format!("replay {remaining} {}", shown_record(&record.expect("it can be read")))
        }
        _ => {
            let mut text = word;
            while let Ok(number) = told.number() {
                text.push_str(&format!(" {number}"));
            }
            text
        }
    }
}

fn shown_decision(decision: &Decision) -> String {
    match decision {
        Decision::Lead(hold) => format!("lead {}", hold.fence.0),
        Decision::Follow { fence, .. } => format!("follow {}", fence.0),
        Decision::Replay { record, remaining } => {
            format!("replay {} {}", remaining.as_millis(), shown_record(record))
        }
        Decision::Resolved { until, remaining } => format!("resolved {} {}", until.0, remaining.as_millis()),
        Decision::Queue { at, running } => {
            let (kind, key) = match at {
                Place::Fingerprint(key) => ("f", key),
                Place::Scope(key) => ("s", key),
                Place::Lane(key) => ("l", key),
            };
            format!("queue {kind} {} {}", hex(&key.0), running.0)
        }
        Decision::InDoubt { age, remaining } => {
            format!("doubt {} {}", age.as_millis(), remaining.as_millis())
        }
        Decision::Mismatch => "mismatch".to_owned(),
        Decision::Busy => "busy".to_owned(),
    }
}

fn shown_view(view: &LaneView) -> String {
    match view {
        LaneView::Free => "free".to_owned(),
        LaneView::Flight { fence, lease_left } => format!("flight {} {}", fence.0, lease_left.as_millis()),
        LaneView::InDoubt { fence, age, remaining } => {
            format!("doubt {} {} {}", fence.0, age.as_millis(), remaining.as_millis())
        }
        LaneView::Unreadable => "unreadable".to_owned(),
    }
}

fn settled(settled: &Settled) -> String {
    match settled {
        Settled::InTime => "in-time".to_owned(),
        Settled::Late => "late".to_owned(),
        Settled::Superseded => "superseded".to_owned(),
    }
}

fn made(_nothing: &()) -> String {
    "done".to_owned()
}

fn shown_nudges(effects: &Effects) -> Vec<String> {
    let mut nudges: Vec<String> = effects
        .nudges
        .iter()
        .map(|nudge| match nudge {
            Nudge::Waiting { fingerprint, fence } => format!("W {} {}", hex(&fingerprint.0), fence.0),
            Nudge::Next { lane } => format!("N {} ", hex(&lane.0)),
            Nudge::All { lane } => format!("A {} ", hex(&lane.0)),
            Nudge::Same { lane, fingerprint } => format!("S {} {}", hex(&lane.0), hex(&fingerprint.0)),
        })
        .collect();
    nudges.sort_unstable();
    nudges
}

fn shown_nudge(nudge: &Value) -> String {
    let Value::Array(parts) = nudge else { panic!("a nudge: {nudge:?}") };
    let [Value::BulkString(kind), Value::BulkString(key), Value::BulkString(rest)] = parts.as_slice() else {
        panic!("a nudge: {parts:?}")
    };
    let rest = if kind == b"S" { hex(rest) } else { String::from_utf8_lossy(rest).into_owned() };
    format!("{} {} {rest}", String::from_utf8_lossy(kind), hex(key))
}

#[test]
fn the_scripts_and_the_machine_never_differ() {
    compare(6_000, op());
}

#[test]
fn they_do_not_differ_where_another_version_has_written() {
    compare(4_000, op_among_foreigners());
}

/// `DIFFERENCE_CASES` makes it longer, or shorter.
fn compare(cases: u32, op: impl Strategy<Value = Op>) {
    let cases = std::env::var("DIFFERENCE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    let server = RedisServer::start(&[]);
    let connection = redis::Client::open(server.url()).and_then(|client| client.get_connection());
    let world = std::cell::RefCell::new(World::new(connection.expect("it is there")));
    let config = Config {
        cases,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::XorShift,
        max_shrink_iters: 2000,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&prop::collection::vec(op, 1..30), |ops| {
            let mut world = world.borrow_mut();
            world.begin();
            for op in ops {
                world.carry_out(op);
            }
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}
