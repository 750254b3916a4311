//! Everything that a table holds, and everything that a Redis holds, as text under the names of the keys, so that a
//! difference can be read.

use std::{collections::BTreeMap, fmt::Write as _};

use redis::Value;

use crate::store::{
    InDoubtPolicy, Kept, Key, Millis, Record,
    machine::cells::{Delivery, Place, Run, State},
    memory::Table,
    redis::codec,
};

/// Every key but the sets of those who wait, without the name of the namespace: name, time to live, content.
pub(super) const DUMP: &str = "
local out = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local kind = redis.call('TYPE', key).ok
  local value
  if kind == 'hash' then value = redis.call('HGETALL', key)
  elseif kind == 'set' then value = redis.call('SMEMBERS', key)
  else value = { redis.call('GET', key) } end
  out[#out + 1] = { string.sub(key, #ARGV[1] + 1), redis.call('PTTL', key), value }
end
return out";

pub(super) type Contents = BTreeMap<String, String>;

pub(super) fn of_table(table: &Table) -> Contents {
    let everything = table.everything();
    let mut contents = Contents::new();
    contents.insert(
        "meta".to_owned(),
        format!("last {} longest {}", everything.last, everything.life_longest.as_millis()),
    );
    for (fence, cell) in &everything.runs {
        let run = &cell.value;
        if !run.state.is_live() {
            for lane in &run.lanes {
                write!(contents.entry(format!("o:{}", hex(&lane.0))).or_default(), "{} ", fence.0)
                    .expect("text");
            }
        }
        if let State::Done { record, .. } = &run.state {
            contents.insert(format!("b:{}", fence.0), shown_record(record));
        }
        let shown = cell.read().map_or_else(|| "foreign".to_owned(), shown_run);
        contents.insert(format!("r:{}", fence.0), shown);
    }
    for (place, cell) in &everything.places {
        let (kind, key) = match place {
            Place::Fingerprint(key) => ("f", key),
            Place::Scope(key) => ("s", key),
            Place::Lane(key) => ("l", key),
        };
        let shown = cell.read().map_or_else(|| "foreign".to_owned(), |fence| fence.0.to_string());
        contents.insert(format!("{kind}:{}", hex(&key.0)), shown);
    }
    for (key, cell) in &everything.generations {
        let shown = cell.read().map_or_else(|| "foreign".to_owned(), |fence| fence.0.to_string());
        contents.insert(format!("g:{}", hex(&key.0)), shown);
    }
    for (name, fences) in &mut contents {
        if name.starts_with("o:") {
            *fences = sorted(fences.split_whitespace().map(str::to_owned).collect());
        }
    }
    contents
}

/// Also says what would outlive what it points to, or end before its time.
pub(super) fn of_redis(dump: Value, now: Millis) -> Contents {
    let mut contents = Contents::from([("meta".to_owned(), "last 0 longest 0".to_owned())]);
    let mut lives: BTreeMap<String, i64> = BTreeMap::new();
    let mut ends: Vec<(String, i64)> = Vec::new();
    let Value::Array(keys) = dump else { panic!("a list: {dump:?}") };
    for key in keys {
        let Value::Array(parts) = key else { panic!("a key: {key:?}") };
        let [Value::BulkString(name), Value::Int(life), Value::Array(values)] = parts.as_slice() else {
            panic!("a key: {parts:?}")
        };
        let values: Vec<&[u8]> = values.iter().map(bytes).collect();
        let (kind, rest) = match name.iter().position(|byte| *byte == b':') {
            Some(at) => (String::from_utf8_lossy(&name[..at]).into_owned(), &name[at + 1..]),
            None => (String::from_utf8_lossy(name).into_owned(), &b""[..]),
        };
        let (name, shown) = match kind.as_str() {
            "meta" => (kind, shown_meta(&values)),
            "r" | "b" => {
                let name = format!("{kind}:{}", String::from_utf8_lossy(rest));
                if kind == "r" {
                    let field = |name: &str| field(&values, name);
                    if field("v") == b"1" {
                        ends.push((name.clone(), number(field("u"))));
                    }
                    (name, shown_hash(&values))
                } else {
                    let record = codec::decode(values[0].to_vec().into(), std::time::Duration::ZERO);
                    (name, shown_record(&record.expect("it can be read")))
                }
            }
            "o" => {
                let fences = values.iter().map(|fence| String::from_utf8_lossy(fence).into_owned());
                (format!("o:{}", hex(rest)), sorted(fences.collect()))
            }
            "f" | "s" | "l" | "g" => {
                let text = String::from_utf8_lossy(values[0]);
                let shown = text.strip_prefix("1:").unwrap_or("foreign").to_owned();
                (format!("{kind}:{}", hex(rest)), shown)
            }
            // Those who wait: a replica or none, no matter.
            _ => continue,
        };
        lives.insert(name.clone(), *life);
        contents.insert(name, shown);
    }
    for (run, ends) in ends {
        let life = lives[&run];
        assert!(life > ends - i64::try_from(now.0).expect("small"), "{run} is gone before its time");
        let fence = &run[2..];
        for (name, shown) in &contents {
            let is_its_own = name[2..] == *fence && name.starts_with("b:");
            if is_its_own || (["f:", "s:", "l:"].iter().any(|kind| name.starts_with(kind)) && shown == fence)
            {
                // What is left is measured key by key, while time goes on.
                assert!(lives[name].abs_diff(life) < 500, "{name} and {run} end together");
            }
        }
    }
    contents
}

fn shown_run(run: &Run) -> String {
    let (state, began, ends, seen) = match &run.state {
        State::Flight { lease_ends } => ("f", None, lease_ends, None),
        State::InDoubt { since, until } => ("q", Some(since), until, None),
        State::Done { settled_at, until, delivery, .. } => {
            let seen = match delivery {
                Delivery::Awaited { seen } => Some(seen.as_millis()),
                Delivery::Made => None,
            };
            ("d", Some(settled_at), until, seen)
        }
        State::Resolved { since, until } => ("r", Some(since), until, None),
    };
    let hold = match run.in_doubt {
        InDoubtPolicy::Hold(length) => length.as_millis().to_string(),
        InDoubtPolicy::Retry => "-".to_owned(),
    };
    let all = |keys: &[Key]| hex(&keys.iter().flat_map(|key| key.0).collect::<Vec<u8>>());
    let one = |key: Option<Key>| all(key.as_slice());
    format!(
        "owner {} lanes {} fingerprint {} scope {} body {} generations {} hold {hold} {state} {} to {} seen {}",
        hex(&run.owner.0.to_be_bytes()),
        all(&run.lanes),
        one(run.fingerprint),
        one(run.scope),
        one(run.body),
        all(&run.generations),
        began.map_or_else(|| "?".to_owned(), |began| began.0.to_string()),
        ends.0,
        seen.map_or_else(|| "-".to_owned(), |seen| seen.to_string()),
    )
}

fn shown_hash(values: &[&[u8]]) -> String {
    let of = |name: &str| field(values, name);
    if of("v") != b"1" {
        return "foreign".to_owned();
    }
    let text = |name: &str| String::from_utf8_lossy(of(name)).into_owned();
    let state = text("t");
    format!(
        "owner {} lanes {} fingerprint {} scope {} body {} generations {} hold {} {state} {} to {} seen {}",
        hex(of("o")),
        hex(of("l")),
        hex(of("f")),
        hex(of("s")),
        hex(of("b")),
        hex(of("g")),
        text("d"),
        // When a flight began nobody asks.
        if state == "f" { "?".to_owned() } else { text("a") },
        text("u"),
        if of("n").is_empty() { "-".to_owned() } else { text("n") },
    )
}

fn shown_meta(values: &[&[u8]]) -> String {
    let number = |name: &str| match field(values, name) {
        b"" => "0".to_owned(),
        digits => String::from_utf8_lossy(digits).into_owned(),
    };
    format!("last {} longest {}", number("l"), number("x"))
}

pub(super) fn shown_record(record: &Record) -> String {
    let body = match &record.body {
        Kept::Whole(body) => String::from_utf8_lossy(body).into_owned(),
        Kept::Dropped => "dropped".to_owned(),
    };
    format!("{} {:?} {body} of {} at {}", record.status, record.headers, record.fence.0, record.answered_at)
}

fn field<'a>(values: &[&'a [u8]], name: &str) -> &'a [u8] {
    values.chunks_exact(2).find(|pair| pair[0] == name.as_bytes()).map_or(b"", |pair| pair[1])
}

fn number(digits: &[u8]) -> i64 {
    String::from_utf8_lossy(digits).parse().expect("a number")
}

fn bytes(value: &Value) -> &[u8] {
    match value {
        Value::BulkString(bytes) => bytes,
        other => panic!("bytes: {other:?}"),
    }
}

fn sorted(mut parts: Vec<String>) -> String {
    parts.sort_unstable();
    parts.join(" ")
}

/// How many bytes there are, and enough of each key among them to tell it from the others.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = bytes.len().to_string();
    for key in bytes.chunks(32) {
        let mut number = 0_u64;
        for byte in key.iter().take(7).chain(key.last()) {
            number = number << 8 | u64::from(*byte);
        }
        write!(text, ":{number:x}").expect("text");
    }
    text
}
