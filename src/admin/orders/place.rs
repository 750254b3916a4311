//! From an order's name to the lanes that it may stand for.

use serde_json::{Value, json};

use super::{lane_text, question::Problem};
use crate::{
    claim::roll::{Aboard, DOUBTS_MAX, Named},
    gate::Gate,
    request::named::lanes_named,
    store::Key,
};

/// How many lanes one name may stand for. Each costs a call of the store.
const PLACES_MAX: usize = 256;
/// As many hex digits as the log shows of a lane.
const LANE_DIGITS_MIN: usize = 8;
const LANE_DIGITS: usize = 64;

/// One lane that a name stands for.
pub(super) struct Place {
    pub(super) lane: Key,
    /// `None` where only the lane was named, and nothing of it is under way here.
    pub(super) upstream: Option<usize>,
    /// The order as the log shows it.
    pub(super) shown: String,
}

impl Place {
    pub(super) fn to_json(&self, gate: &Gate) -> Value {
        let upstream = self.upstream.map(|number| gate.config.upstreams[number].name.as_str());
        json!({ "order": self.shown, "upstream": upstream, "lane": lane_text(&self.lane) })
    }
}

/// Every lane that a name may stand for: as it stands in the log here, and as every guarded route would read it.
pub(super) fn places(gate: &Gate, name: &str) -> Result<Vec<Place>, Problem> {
    let mut found = Vec::new();
    match name.strip_prefix("lane:") {
        Some(digits) => of_lane(gate, digits, &mut found)?,
        None => of_order(gate, name, &mut found),
    }
    match found.is_empty() {
        true => Err(Problem::Unnamed),
        false => Ok(found),
    }
}

fn of_order(gate: &Gate, name: &str, found: &mut Vec<Place>) {
    for named in known(gate, |named| &*named.order == name) {
        for lane in &named.lanes {
            add(found, *lane, Some(gate.config.routes[named.route].upstream), name);
        }
    }
    for route in &gate.config.routes {
        let Some(guard) = &route.guard else { continue };
        for named in lanes_named(&guard.rules, &gate.secret, name) {
            add(found, named.lane, Some(route.upstream), &named.shown);
        }
    }
}

fn of_lane(gate: &Gate, digits: &str, found: &mut Vec<Place>) -> Result<(), Problem> {
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex || !(LANE_DIGITS_MIN..=LANE_DIGITS).contains(&digits.len()) {
        return Err(Problem::LaneName);
    }
    let digits = digits.to_ascii_lowercase();
    let is_it = |lane: &Key| lane.hex(LANE_DIGITS / 2).starts_with(&digits);
    for named in known(gate, |named| named.lanes.iter().any(is_it)) {
        for lane in named.lanes.iter().filter(|lane| is_it(lane)) {
            add(found, *lane, Some(gate.config.routes[named.route].upstream), &named.order);
        }
    }
    if let Some(lane) = whole_lane(&digits) {
        add(found, lane, None, &format!("lane:{}", lane.short()));
    }
    Ok(())
}

/// What this process knows by name, under way or in doubt.
fn known(gate: &Gate, wanted: impl Fn(&Named) -> bool) -> Vec<Named> {
    let roll = &gate.claims.roll;
    let (aboard, _) = roll.aboard(DOUBTS_MAX, &wanted);
    let doubts = roll.doubts().into_iter().filter(|named| wanted(named));
    aboard.into_iter().map(|Aboard { named, .. }| named).chain(doubts).collect()
}

/// The first who names a lane names it best.
fn add(found: &mut Vec<Place>, lane: Key, upstream: Option<usize>, shown: &str) {
    if found.len() < PLACES_MAX && found.iter().all(|place| place.lane != lane) {
        found.push(Place { lane, upstream, shown: shown.to_owned() });
    }
}

fn whole_lane(digits: &str) -> Option<Key> {
    let mut lane = [0; LANE_DIGITS / 2];
    if digits.len() != LANE_DIGITS {
        return None;
    }
    for (byte, pair) in lane.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Key(lane))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_read_as_it_is_written() {
        let lane = Key(std::array::from_fn(|at| u8::try_from(at * 7).unwrap()));
        let text = lane_text(&lane);
        assert_eq!(whole_lane(text.strip_prefix("lane:").unwrap()), Some(lane));
        assert_eq!(whole_lane("0123"), None);
    }
}
