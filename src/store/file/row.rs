//! How runs and answers are written as bytes, and read again.
//!
//! Every row opens with its format version, lengths stand before what they measure, numbers are little-endian. What
//! cannot be read whole, to its last byte, is not read at all. That bytes are those that were written is the
//! database's business: it keeps checksums.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

use crate::store::{
    Delivery, Fence, Headers, InDoubtPolicy, Kept, Key, Millis, Owner, Record,
    machine::cells::{Run, State},
};

/// The format of every row that is written, and the only one that is read.
const FORMAT: u8 = 1;

/// Whether an answer belongs to a run, and which: it is written once and replaced once at most, by its tombstone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    None,
    Whole,
    Stone,
}

impl Answer {
    pub(super) fn of(state: &State) -> Self {
        match state {
            State::Done { record, .. } => match record.body {
                Kept::Whole(_) => Self::Whole,
                Kept::Dropped => Self::Stone,
            },
            State::Flight { .. } | State::InDoubt { .. } | State::Resolved { .. } => Self::None,
        }
    }

    /// What stands in the row of a run. It is the second byte, so that nothing else has to be read for it.
    pub(super) fn of_row(row: &[u8]) -> Option<Self> {
        match row {
            [FORMAT, 0, ..] => Some(Self::None),
            [FORMAT, 1, ..] => Some(Self::Whole),
            [FORMAT, 2, ..] => Some(Self::Stone),
            _ => None,
        }
    }
}

/// A run without its answer, which has a row of its own.
pub(super) fn write_run(run: &Run) -> Vec<u8> {
    let mut row = vec![FORMAT, Answer::of(&run.state) as u8];
    row.extend(run.owner.0.to_le_bytes());
    keys(&mut row, &run.lanes);
    for key in [run.fingerprint, run.scope, run.body] {
        keys(&mut row, key.as_slice());
    }
    keys(&mut row, &run.generations);
    match run.in_doubt {
        InDoubtPolicy::Hold(length) => numbers(&mut row, 0, &[millis(length)]),
        InDoubtPolicy::Retry => numbers(&mut row, 1, &[]),
    }
    match &run.state {
        State::Flight { lease_ends } => numbers(&mut row, 0, &[lease_ends.0]),
        State::InDoubt { since, until } => numbers(&mut row, 1, &[since.0, until.0]),
        State::Done { settled_at, until, delivery: Delivery::Awaited { seen }, .. } => {
            numbers(&mut row, 2, &[settled_at.0, until.0, millis(*seen)]);
        }
        State::Done { settled_at, until, delivery: Delivery::Made, .. } => {
            numbers(&mut row, 3, &[settled_at.0, until.0]);
        }
        State::Resolved { since, until } => numbers(&mut row, 4, &[since.0, until.0]),
    }
    row
}

/// `answer` is what the run's other row says, where there is one.
pub(super) fn read_run(row: &[u8], answer: Option<Arc<Record>>) -> Option<Run> {
    let expected = Answer::of_row(row)?;
    let mut rest = Rest(row.get(2..)?);
    let owner = Owner(u128::from_le_bytes(rest.array()?));
    let lanes = rest.keys()?;
    let [fingerprint, scope, body] = [rest.key()?, rest.key()?, rest.key()?];
    let generations = rest.keys()?;
    let in_doubt = match rest.byte()? {
        0 => InDoubtPolicy::Hold(Duration::from_millis(rest.number()?)),
        1 => InDoubtPolicy::Retry,
        _ => return None,
    };
    let state = read_state(&mut rest, answer)?;
    let run = Run { owner, lanes, fingerprint, scope, body, generations, in_doubt, state };
    (rest.0.is_empty() && !run.lanes.is_empty() && Answer::of(&run.state) == expected).then_some(run)
}

fn read_state(rest: &mut Rest<'_>, answer: Option<Arc<Record>>) -> Option<State> {
    let tag = rest.byte()?;
    let from = Millis(rest.number()?);
    if tag == 0 {
        return Some(State::Flight { lease_ends: from });
    }
    let until = Millis(rest.number()?);
    Some(match tag {
        1 => State::InDoubt { since: from, until },
        2 => {
            let delivery = Delivery::Awaited { seen: Duration::from_millis(rest.number()?) };
            State::Done { record: answer?, settled_at: from, until, delivery }
        }
        3 => State::Done { record: answer?, settled_at: from, until, delivery: Delivery::Made },
        4 => State::Resolved { since: from, until },
        _ => return None,
    })
}

/// An answer without the life that is left of it, which the store's clock knows.
pub(super) fn write_record(record: &Record) -> Vec<u8> {
    let body: &[u8] = match &record.body {
        Kept::Whole(body) => body,
        Kept::Dropped => &[],
    };
    let mut row = Vec::with_capacity(record.bytes());
    row.extend([FORMAT, u8::from(record.body == Kept::Dropped)]);
    row.extend(record.status.as_u16().to_le_bytes());
    row.extend(record.fence.0.to_le_bytes());
    row.extend(record.answered_at.to_le_bytes());
    row.extend((record.headers.len() as u32).to_le_bytes());
    for (name, value) in record.headers.iter() {
        text(&mut row, name);
        text(&mut row, value);
    }
    row.extend(body);
    row
}

pub(super) fn read_record(row: &[u8]) -> Option<Record> {
    let mut rest = Rest(row);
    let (FORMAT, is_dropped @ 0..=1) = (rest.byte()?, rest.byte()?) else { return None };
    let status = StatusCode::from_u16(u16::from_le_bytes(rest.array()?)).ok()?;
    let (fence, answered_at) = (Fence(rest.number()?), rest.number()?);
    let mut headers = HeaderMap::new();
    for _ in 0..rest.length()? {
        let name = HeaderName::from_bytes(rest.text()?).ok()?;
        headers.try_append(name, HeaderValue::from_bytes(rest.text()?).ok()?).ok()?;
    }
    let (headers, body) = Headers::with_body(&headers.iter().collect::<Vec<_>>(), rest.0);
    let body = match (is_dropped, rest.0) {
        (0, _) => Kept::Whole(body),
        (_, []) => Kept::Dropped,
        (_, _) => return None,
    };
    Some(Record { status, headers, body, fence, answered_at, remaining: Duration::ZERO })
}

pub(super) fn write_generation(began: Fence, ends: Millis) -> Vec<u8> {
    let mut row = Vec::new();
    numbers(&mut row, FORMAT, &[began.0, ends.0]);
    row
}

pub(super) fn read_generation(row: &[u8]) -> Option<(Fence, Millis)> {
    let mut rest = Rest(row);
    let (FORMAT, began, ends) = (rest.byte()?, Fence(rest.number()?), Millis(rest.number()?)) else {
        return None;
    };
    rest.0.is_empty().then_some((began, ends))
}

fn keys(row: &mut Vec<u8>, keys: &[Key]) {
    row.extend((keys.len() as u32).to_le_bytes());
    for key in keys {
        row.extend(key.0);
    }
}

fn numbers(row: &mut Vec<u8>, tag: u8, numbers: &[u64]) {
    row.push(tag);
    for number in numbers {
        row.extend(number.to_le_bytes());
    }
}

fn text(row: &mut Vec<u8>, bytes: &[u8]) {
    row.extend((bytes.len() as u32).to_le_bytes());
    row.extend(bytes);
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// What is left of a row. Whatever is read is taken from its front; `None` where that is too short.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        self.take(LENGTH)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).ok()
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    fn keys(&mut self) -> Option<SmallVec<[Key; 1]>> {
        let length = self.length()?;
        // A length that lies must not reserve memory for it.
        if length > self.0.len() / 32 {
            return None;
        }
        (0..length).map(|_| self.array().map(Key)).collect()
    }

    fn key(&mut self) -> Option<Option<Key>> {
        let keys = self.keys()?;
        (keys.len() <= 1).then(|| keys.first().copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = Key> {
        any::<[u8; 32]>().prop_map(Key)
    }

    fn any_keys(min: usize) -> impl Strategy<Value = SmallVec<[Key; 1]>> {
        prop::collection::vec(any_key(), min..4).prop_map(SmallVec::from_vec)
    }

    prop_compose! {
        fn any_record()(
            status in 100_u16..1000,
            headers in prop::collection::vec(("[a-z][a-z-]{0,8}", prop::collection::vec(0x80_u8.., 0..9)), 0..5),
            body in prop::option::of(prop::collection::vec(any::<u8>(), 0..64)),
            fence in any::<u64>(),
            answered_at in any::<u64>(),
        ) -> Record {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                let name = HeaderName::from_bytes(name.as_bytes()).expect("a name of letters");
                map.append(name, HeaderValue::from_bytes(&value).expect("bytes of a value"));
            }
            Record {
                status: StatusCode::from_u16(status).expect("a status"),
                headers: map.into(),
                body: body.map_or(Kept::Dropped, |body| Kept::Whole(body.into())),
                fence: Fence(fence),
                answered_at,
                remaining: Duration::ZERO,
            }
        }
    }

    fn any_state() -> impl Strategy<Value = State> {
        let times = (any::<u64>(), any::<u64>()).prop_map(|(from, until)| (Millis(from), Millis(until)));
        let delivery = prop::option::of(any::<u32>()).prop_map(|seen| match seen {
            Some(seen) => Delivery::Awaited { seen: Duration::from_millis(u64::from(seen)) },
            None => Delivery::Made,
        });
        (0..4, times, any_record(), delivery).prop_map(|(kind, (from, until), record, delivery)| match kind {
            0 => State::Flight { lease_ends: from },
            1 => State::InDoubt { since: from, until },
            2 => State::Done { record: Arc::new(record), settled_at: from, until, delivery },
            _ => State::Resolved { since: from, until },
        })
    }

    prop_compose! {
        fn any_run()(
            owner in any::<u128>(),
            lanes in any_keys(1),
            fingerprint in prop::option::of(any_key()),
            scope in prop::option::of(any_key()),
            body in prop::option::of(any_key()),
            generations in any_keys(0),
            hold in prop::option::of(any::<u32>()),
            state in any_state(),
        ) -> Run {
            let in_doubt = hold.map_or(InDoubtPolicy::Retry, |hold| {
                InDoubtPolicy::Hold(Duration::from_millis(u64::from(hold)))
            });
            Run { owner: Owner(owner), lanes, fingerprint, scope, body, generations, in_doubt, state }
        }
    }

    fn answer(run: &Run) -> Option<Arc<Record>> {
        match &run.state {
            State::Done { record, .. } => {
                Some(Arc::new(read_record(&write_record(record)).expect("a record that was written")))
            }
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(run in any_run()) {
            let row = write_run(&run);
            prop_assert_eq!(Answer::of_row(&row), Some(Answer::of(&run.state)));
            prop_assert_eq!(read_run(&row, answer(&run)), Some(run));
        }

        #[test]
        fn a_row_that_is_cut_or_longer_is_not_read(run in any_run(), cut in any::<prop::sample::Index>()) {
            let row = write_run(&run);
            prop_assert_eq!(read_run(&row[..cut.index(row.len())], answer(&run)), None);
            prop_assert_eq!(read_run(&[row, vec![0]].concat(), answer(&run)), None);
        }

        #[test]
        fn bytes_from_anywhere_are_read_without_a_panic(row in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (read_run(&row, None), read_record(&row), read_generation(&row));
            let ours = [&[FORMAT, 0][..], &row].concat();
            let _ = (read_run(&ours, None), read_record(&ours), read_generation(&ours));
        }
    }

    #[test]
    fn another_format_is_not_read() {
        let mut row = write_generation(Fence(7), Millis(8));
        assert_eq!(read_generation(&row), Some((Fence(7), Millis(8))));
        row[0] = FORMAT + 1;
        assert_eq!(read_generation(&row), None);
    }
}
