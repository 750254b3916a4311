//! Counts the frames of a connection that carry nothing: SETTINGS, PING, RST_STREAM, PRIORITY, WINDOW_UPDATE, empty
//! DATA, CONTINUATION. Each costs its sender next to nothing and us an answer, a look-up or a reset, so they are
//! allowed in proportion to what a connection is for: requests that come, bytes that go, and time.
//!
//! Pure: bytes and ticks in, a verdict out. It knows the nine bytes before a frame and nothing of what is in it.

/// What a connection has to its credit at the beginning, and at most.
const CREDIT_MAX: u32 = 2000;
/// Given for each tick of the clock, which is a tenth of a second.
const CREDIT_PER_TICK: u32 = 50;
/// Given for a request: a client may set its priority, open its window, and change its mind.
const CREDIT_PER_REQUEST: u32 = 4;
/// Given for so many bytes of answers: a client opens its window as it reads.
const BYTES_PER_CREDIT: usize = 1024;

/// What RFC 9113 section 3.4 has every client begin with.
const PREFACE_BYTES: u32 = 24;
const HEAD_BYTES: usize = 9;

/// A client that sends frames for their own sake.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a flood of HTTP/2 frames that carry nothing")]
pub(super) struct Flood;

pub(super) struct Census {
    /// Bytes that belong to the frame under way, or to the preface.
    skip: u32,
    head: [u8; HEAD_BYTES],
    /// Of the head of the next frame.
    have: usize,
    credit: u32,
    tick: u64,
    /// Written, and not given credit for yet.
    written: usize,
}

impl Census {
    pub(super) fn new(now: u64) -> Self {
        let head = [0; HEAD_BYTES];
        Self { skip: PREFACE_BYTES, head, have: 0, credit: CREDIT_MAX, tick: now, written: 0 }
    }

    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        self.give(u32::try_from(self.written / BYTES_PER_CREDIT).unwrap_or(CREDIT_MAX));
        self.written %= BYTES_PER_CREDIT;
    }

    /// Counts what came.
    pub(super) fn read(&mut self, mut bytes: &[u8], now: u64) -> Result<(), Flood> {
        let ticks = u32::try_from(now.saturating_sub(self.tick)).unwrap_or(CREDIT_MAX);
        self.tick = now;
        self.give(ticks.saturating_mul(CREDIT_PER_TICK));
        while !bytes.is_empty() {
            let skipped = bytes.len().min(self.skip as usize);
            self.skip -= skipped as u32;
            bytes = &bytes[skipped..];
            let step = bytes.len().min(HEAD_BYTES - self.have);
            self.head[self.have..self.have + step].copy_from_slice(&bytes[..step]);
            self.have += step;
            bytes = &bytes[step..];
            if self.have == HEAD_BYTES {
                self.have = 0;
                let [high, middle, low, kind, flags, ..] = self.head;
                self.skip = u32::from_be_bytes([0, high, middle, low]);
                self.count(kind, flags, self.skip)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, kind: u8, flags: u8, length: u32) -> Result<(), Flood> {
        const ACK: u8 = 1;
        const SMALL: u32 = 16;
        let cost = match kind {
            // DATA: the last piece of a body may well be empty.
            0 if length < SMALL => 1,
            0 => 0,
            // HEADERS
            1 => {
                self.give(CREDIT_PER_REQUEST);
                0
            }
            // RST_STREAM: what was begun for the stream was for nothing.
            3 => 8,
            // SETTINGS and PING are answered each; their answers are not.
            4 | 6 if flags & ACK == 0 => 8,
            // PRIORITY, WINDOW_UPDATE, CONTINUATION, and what nobody knows.
            _ => 1,
        };
        self.credit = self.credit.checked_sub(cost).ok_or(Flood)?;
        Ok(())
    }

    fn give(&mut self, credit: u32) {
        self.credit = self.credit.saturating_add(credit).min(CREDIT_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// How many of these pass before it is a flood; the bytes come in pieces of this size.
    fn pass(frames: &[u8], piece: usize, most: usize) -> usize {
        let mut census = Census::new(7);
        census.read(&[b'x'; 24], 7).unwrap();
        (0..most).take_while(|_| frames.chunks(piece).all(|piece| census.read(piece, 7).is_ok())).count()
    }

    #[test]
    fn each_kind_of_flood_is_ended_however_its_bytes_are_split() {
        let ping = frame(6, 0, &[0; 8]);
        let reset = [frame(1, 5, &[0x82]), frame(3, 0, &[0; 4])].concat();
        for (flood, most) in [
            (ping, 250),
            (frame(4, 0, &[]), 250),
            (frame(8, 0, &[0; 4]), 2000),
            (frame(2, 0, &[0; 5]), 2000),
            (frame(0, 0, &[]), 2000),
            (frame(9, 0, &[]), 2000),
            (frame(0xFA, 0, &[1; 100]), 2000),
            (reset, 500),
        ] {
            for piece in [1, 5, 1000] {
                let passed = pass(&flood, piece, 1_000_000);
                assert!(passed.abs_diff(most) <= 1, "{passed} of {most}: {:?}", &flood[..9]);
            }
        }
    }

    #[test]
    fn requests_and_bodies_are_no_flood() {
        let request = [frame(1, 5, &[0x82; 40]), frame(8, 0, &[0; 4]), frame(2, 0, &[0; 5])].concat();
        assert_eq!(pass(&request, 1000, 100_000), 100_000);
        assert_eq!(pass(&frame(0, 0, &[0; 16]), 1000, 100_000), 100_000);
        // Pings are answered for as long as there are not too many at a time.
        let mut census = Census::new(0);
        census.read(&[b'x'; 24], 0).unwrap();
        for tick in 0..10_000 {
            census.read(&frame(6, 0, &[0; 8]).repeat(6), tick).unwrap();
        }
    }

    #[test]
    fn a_client_may_open_its_window_as_fast_as_it_reads() {
        let mut census = Census::new(0);
        census.read(&[b'x'; 24], 0).unwrap();
        for _ in 0..100_000 {
            census.wrote(2048);
            census.read(&frame(8, 0, &[0; 4]).repeat(2), 0).unwrap();
        }
    }
}
