//! A kept answer as bytes: what Redis holds of a record, and what a wake-up carries.
//!
//! Format 1, all numbers big-endian: `1`, status u16, fence u64, answered_at u64, body u8 (0 dropped, 1 whole), number of
//! header lines u16, then per line name length u16, name, value length u32, value; the rest is the body. What cannot
//! be read, newer formats included, is told as such and never guessed at.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, StatusCode,
    header::{HeaderName, HeaderValue, LOCATION},
};

use crate::store::{Fence, Headers, Kept, Record};

const FORMAT: u8 = 1;
const DROPPED: u8 = 0;
const WHOLE: u8 = 1;

/// Lines beyond what their number can say are left out; no answer that was taken in has as many.
pub(super) fn encode(record: &Record) -> Vec<u8> {
    match &record.body {
        Kept::Whole(body) => write(record, &record.headers, WHOLE, body),
        Kept::Dropped => write(record, &record.headers, DROPPED, &[]),
    }
}

/// That the work is done and where it led, without the answer itself.
pub(super) fn encode_tombstone(record: &Record) -> Vec<u8> {
    write(record, &record.headers.only(&LOCATION), DROPPED, &[])
}

fn write(record: &Record, headers: &Headers, kind: u8, body: &[u8]) -> Vec<u8> {
    let lines = u16::try_from(headers.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(32 + usize::from(lines) * 48 + body.len());
    bytes.push(FORMAT);
    bytes.extend(record.status.as_u16().to_be_bytes());
    bytes.extend(record.fence.0.to_be_bytes());
    bytes.extend(record.answered_at.to_be_bytes());
    bytes.push(kind);
    bytes.extend(lines.to_be_bytes());
    for (name, value) in headers.iter().take(usize::from(lines)) {
        // A name is at most 64 KiB long and a value far less than 4 GiB: the http crate allows no more.
        bytes.extend(u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(name);
        bytes.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(value);
    }
    bytes.extend(body);
    bytes
}

/// `None`: it was written by another version, or is damaged. The body shares the given bytes.
pub(super) fn decode(bytes: Bytes, remaining: Duration) -> Option<Record> {
    let mut rest = Rest { bytes: &bytes, at: 0 };
    let [FORMAT] = rest.take()? else {
        return None;
    };
    let status = StatusCode::from_u16(u16::from_be_bytes(rest.take()?)).ok()?;
    let fence = Fence(u64::from_be_bytes(rest.take()?));
    let answered_at = u64::from_be_bytes(rest.take()?);
    let [kind] = rest.take()?;
    let mut headers = HeaderMap::new();
    for _ in 0..u16::from_be_bytes(rest.take()?) {
        let name_length = u16::from_be_bytes(rest.take()?);
        let name = HeaderName::from_bytes(rest.slice(usize::from(name_length))?).ok()?;
        let value_length = usize::try_from(u32::from_be_bytes(rest.take()?)).ok()?;
        let value = HeaderValue::from_bytes(rest.slice(value_length)?).ok()?;
        headers.try_append(name, value).ok()?;
    }
    let body = match (kind, bytes.slice(rest.at..)) {
        (WHOLE, body) => Kept::Whole(body),
        (DROPPED, body) if body.is_empty() => Kept::Dropped,
        _ => return None,
    };
    Some(Record { status, headers: headers.into(), body, fence, answered_at, remaining })
}

struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let slice = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(slice)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn record()(
            status in 100_u16..1000,
            lines in prop::collection::vec(("[a-z-]{1,12}", prop::collection::vec(32_u8..127, 0..40)), 0..8),
            body in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
            fence in any::<u64>(),
            answered_at in any::<u64>(),
        ) -> Record {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(
                    HeaderName::from_bytes(name.as_bytes()).expect("letters"),
                    HeaderValue::from_bytes(&value).expect("visible"),
                );
            }
            Record {
                status: StatusCode::from_u16(status).expect("in its range"),
                headers: headers.into(),
                body: body.map_or(Kept::Dropped, |body| Kept::Whole(body.into())),
                fence: Fence(fence),
                answered_at,
                remaining: Duration::from_secs(7),
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_as_it_was(record in record()) {
            let read = decode(encode(&record).into(), record.remaining);
            prop_assert_eq!(read, Some(record));
        }

        #[test]
        fn a_tombstone_keeps_where_it_led_and_no_body(record in record()) {
            let read = decode(encode_tombstone(&record).into(), record.remaining).expect("it can be read");
            prop_assert_eq!(read.status, record.status);
            prop_assert_eq!(read.headers.get(&LOCATION), record.headers.get(&LOCATION));
            prop_assert_eq!(read.body, Kept::Dropped);
        }

        #[test]
        fn damaged_bytes_are_never_more_than_unreadable(record in record(), at in any::<u16>(), flip in 1_u8.., cut in any::<u16>()) {
            let mut bytes = encode(&record);
            let length = bytes.len();
            bytes[usize::from(at) % length] ^= flip;
            bytes.truncate(usize::from(cut) % length + 1);
            let _ = decode(bytes.into(), Duration::ZERO);
        }

        #[test]
        fn a_newer_format_is_unreadable(record in record(), format in 2_u8..) {
            let mut bytes = encode(&record);
            bytes[0] = format;
            prop_assert_eq!(decode(bytes.into(), Duration::ZERO), None);
        }
    }
}
