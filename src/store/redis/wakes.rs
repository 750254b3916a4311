//! Wake-ups from other replicas: what a message says, and who here waits for it.
//!
//! A claim is put among those who wait in its own script, but is known here only when its answer is back, and the
//! message may be faster. So messages that come while a claim is on its way are kept until it is back. A message that
//! is lost all the same costs the poll of the one who waits, and nothing else: no message is proof of anything but the
//! answer that it brings, which carries its fence.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::oneshot::{self, Sender};

use super::codec;
use crate::store::{
    Fence, Judged, Key, Record, Wake, Woken,
    waiters::{Waiters, Wants},
};

/// How many messages are kept for claims that are on their way, and how many bytes of answers with them.
const RECENT_MAX: usize = 1024;
const RECENT_BYTES_MAX: usize = 4 << 20;

#[derive(Default)]
pub(super) struct Wakes {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    waiters: Waiters,
    /// How many claims are on their way.
    claiming: usize,
    /// The number of the next message.
    next: u64,
    recent: VecDeque<(u64, Message)>,
    recent_bytes: usize,
}

/// What a replica was told; see [`crate::store::machine::Nudge`].
#[derive(Clone, Debug)]
enum Message {
    Waiting { fingerprint: Key, fence: Fence, answer: Option<(Arc<Record>, Judged)>, bytes: usize },
    Next { lane: Key },
    All { lane: Key },
    Same { lane: Key, fingerprint: Key },
}

/// A claim on its way: messages from its beginning on are kept for it.
pub(super) struct Claiming<'a> {
    wakes: &'a Wakes,
    since: u64,
}

impl Wakes {
    pub(super) fn claiming(&self) -> Claiming<'_> {
        let mut inner = self.lock();
        inner.claiming += 1;
        Claiming { wakes: self, since: inner.next }
    }

    pub(super) fn count(&self) -> usize {
        self.lock().waiters.count()
    }

    /// A message from another replica, or from this one. One that cannot be read is passed over.
    pub(super) fn deliver(&self, payload: Bytes) {
        let Some(message) = Message::read(payload) else { return };
        let mut calls = Vec::new();
        {
            let mut inner = self.lock();
            inner.wake(&message, &mut calls);
            if inner.claiming > 0 {
                inner.remember(message);
            }
        }
        for (wake, woken) in calls {
            // Whoever is gone needs no wake-up.
            drop::<Result<(), Woken>>(wake.send(woken));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claiming<'_> {
    /// Waits for the end of a flight. `None`: too many wait already.
    pub(super) fn gather(self, fingerprint: Key, fence: Fence, wants: Wants) -> Option<Wake> {
        let mut inner = self.wakes.lock();
        let ended = inner.recent.iter().find_map(|(number, message)| match message {
            Message::Waiting { fingerprint: of, fence: ended, answer, .. }
                if *number >= self.since && *of == fingerprint && *ended == fence =>
            {
                Some(woken(wants, fence, answer.as_ref()))
            }
            _ => None,
        });
        match ended {
            Some(woken) => Some(woken_already(woken)),
            None => inner.waiters.gather(fingerprint, fence, wants),
        }
    }

    /// Waits for a lane. `None`: too many wait already.
    pub(super) fn queue(self, lane: Key, fingerprint: Option<Key>) -> Option<Wake> {
        let mut inner = self.wakes.lock();
        let is_called = inner.recent.iter().any(|(number, message)| {
            *number >= self.since
                && match message {
                    Message::Next { lane: of } | Message::All { lane: of } => *of == lane,
                    Message::Same { lane: of, fingerprint: with } => {
                        *of == lane && Some(*with) == fingerprint
                    }
                    Message::Waiting { .. } => false,
                }
        });
        if is_called {
            return Some(woken_already(Woken::Again));
        }
        inner.waiters.queue(lane, fingerprint)
    }
}

impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        let mut inner = self.wakes.lock();
        inner.claiming -= 1;
        if inner.claiming == 0 {
            inner.recent = VecDeque::new();
            inner.recent_bytes = 0;
        }
    }
}

impl Inner {
    fn wake(&mut self, message: &Message, calls: &mut Vec<(Sender<Woken>, Woken)>) {
        match message {
            Message::Waiting { fingerprint, fence, answer, .. } => {
                let Some(gathering) = self.waiters.disperse(*fingerprint, *fence) else { return };
                calls.extend(
                    gathering
                        .waiting
                        .into_iter()
                        .map(|(wants, wake)| (wake, woken(wants, *fence, answer.as_ref()))),
                );
            }
            Message::Next { lane } => self.waiters.wake_next(*lane),
            Message::All { lane } => self.waiters.wake_all(*lane),
            Message::Same { lane, fingerprint } => self.waiters.wake_same(*lane, *fingerprint),
        }
    }

    fn remember(&mut self, message: Message) {
        self.recent_bytes += message.weight();
        self.recent.push_back((self.next, message));
        self.next += 1;
        while self.recent.len() > RECENT_MAX || self.recent_bytes > RECENT_BYTES_MAX {
            let Some((_, oldest)) = self.recent.pop_front() else { break };
            self.recent_bytes -= oldest.weight();
        }
    }
}

impl Message {
    fn weight(&self) -> usize {
        match self {
            Self::Waiting { bytes, .. } => *bytes,
            Self::Next { .. } | Self::All { .. } | Self::Same { .. } => 0,
        }
    }

    /// As `wake.lua` writes it: a letter, a key, and a fence with perhaps an answer, a fingerprint, or nothing.
    fn read(payload: Bytes) -> Option<Self> {
        let kind = *payload.first()?;
        let key = Key(payload.get(1..33)?.try_into().ok()?);
        let rest = payload.slice(33..);
        match kind {
            b'W' => {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let fence = Fence(number(&rest[..digits])?);
                let answer = (rest.len() > digits).then(|| read_answer(rest.slice(digits..))).flatten();
                Some(Self::Waiting { fingerprint: key, fence, answer, bytes: payload.len() })
            }
            b'N' => Some(Self::Next { lane: key }),
            b'A' => Some(Self::All { lane: key }),
            b'S' => Some(Self::Same { lane: key, fingerprint: Key(rest.as_ref().try_into().ok()?) }),
            _ => None,
        }
    }
}

/// `:`, an outcome (`D` done, `F` failed), the life in milliseconds, `:`, the record.
fn read_answer(text: Bytes) -> Option<(Arc<Record>, Judged)> {
    let judged = match text.get(..2)? {
        b":D" => Judged::Done,
        b":F" => Judged::Failed,
        _ => return None,
    };
    let digits = text[2..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let life = Duration::from_millis(number(&text[2..2 + digits])?);
    if text.get(2 + digits) != Some(&b':') {
        return None;
    }
    Some((Arc::new(codec::decode(text.slice(3 + digits..), life)?), judged))
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn woken(wants: Wants, fence: Fence, answer: Option<&(Arc<Record>, Judged)>) -> Woken {
    match (wants, answer) {
        (Wants::Answer, Some((answer, outcome))) => {
            Woken::Answered { fence, answer: Arc::clone(answer), outcome: *outcome }
        }
        (Wants::Answer, None) | (Wants::Turn, _) => Woken::Again,
    }
}

fn woken_already(woken: Woken) -> Wake {
    let (wake, waiting) = oneshot::channel();
    drop(wake.send(woken));
    waiting
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;
    use crate::store::{Headers, Kept};

    fn key(name: &str) -> Key {
        Key(*blake3::hash(name.as_bytes()).as_bytes())
    }

    fn message(kind: u8, key: Key, rest: &[u8]) -> Bytes {
        [&[kind], key.0.as_slice(), rest].concat().into()
    }

    fn answered(fence: u64) -> Bytes {
        let record = Record {
            status: StatusCode::CREATED,
            headers: Headers::default(),
            body: Kept::Whole("order 1001".into()),
            fence: Fence(fence),
            answered_at: 1,
            remaining: Duration::from_secs(7),
        };
        let rest = [format!("{fence}:D7000:").as_bytes(), &codec::encode(&record)].concat();
        message(b'W', key("a"), &rest)
    }

    fn follow(wakes: &Wakes, fence: u64) -> Wake {
        wakes.claiming().gather(key("a"), Fence(fence), Wants::Answer).expect("there is room")
    }

    #[test]
    fn a_follower_gets_the_answer_of_its_own_flight_and_of_no_other() {
        let wakes = Wakes::default();
        let mut wake = follow(&wakes, 2);
        wakes.deliver(answered(1));
        assert_eq!(wake.try_recv().err(), Some(TryRecvError::Empty));
        wakes.deliver(answered(2));
        let Ok(Woken::Answered { fence, answer, outcome }) = wake.try_recv() else { panic!("answered") };
        assert_eq!((fence, outcome, answer.remaining), (Fence(2), Judged::Done, Duration::from_secs(7)));
        assert_eq!(answer.body, Kept::Whole("order 1001".into()));
    }

    #[test]
    fn a_message_that_is_faster_than_the_claims_answer_is_not_lost() {
        let wakes = Wakes::default();
        let (follower, waiter) = (wakes.claiming(), wakes.claiming());
        wakes.deliver(answered(2));
        wakes.deliver(message(b'N', key("lane"), b""));
        let mut wake = follower.gather(key("a"), Fence(2), Wants::Answer).expect("there is room");
        assert!(matches!(wake.try_recv(), Ok(Woken::Answered { .. })));
        let mut wake = waiter.queue(key("lane"), None).expect("there is room");
        assert!(matches!(wake.try_recv(), Ok(Woken::Again)));
    }

    #[test]
    fn a_message_from_before_a_claim_began_wakes_nobody() {
        let wakes = Wakes::default();
        let other = wakes.claiming();
        wakes.deliver(message(b'N', key("lane"), b""));
        let mut wake = wakes.claiming().queue(key("lane"), None).expect("there is room");
        assert_eq!(wake.try_recv().err(), Some(TryRecvError::Empty));
        drop(other);
    }

    #[test]
    fn one_of_a_lane_is_called_when_it_is_free_and_all_when_it_is_in_doubt() {
        let wakes = Wakes::default();
        let queue = || wakes.claiming().queue(key("lane"), None).expect("there is room");
        let (mut one, mut two, mut three) = (queue(), queue(), queue());
        wakes.deliver(message(b'N', key("lane"), b""));
        assert!(one.try_recv().is_ok());
        assert_eq!(two.try_recv().err(), Some(TryRecvError::Empty));
        wakes.deliver(message(b'A', key("lane"), b""));
        for wake in [&mut two, &mut three] {
            assert_eq!(wake.try_recv().err(), Some(TryRecvError::Closed));
        }
        assert_eq!(wakes.count(), 0);
    }

    #[test]
    fn what_is_kept_for_claims_on_their_way_is_bounded_and_goes_with_them() {
        let wakes = Wakes::default();
        let claiming = wakes.claiming();
        for _ in 0..2 * RECENT_MAX {
            wakes.deliver(message(b'N', key("lane"), b""));
        }
        assert_eq!(wakes.lock().recent.len(), RECENT_MAX);
        for _ in 0..100 {
            wakes.deliver(message(b'W', key("a"), &[b"1:D1:".as_slice(), &vec![0; 60_000]].concat()));
        }
        assert!(wakes.lock().recent_bytes <= RECENT_BYTES_MAX);
        drop(claiming);
        let inner = wakes.lock();
        assert_eq!((inner.recent.len(), inner.recent_bytes), (0, 0));
    }

    proptest! {
        #[test]
        fn no_message_breaks_anything(payload in prop::collection::vec(any::<u8>(), 0..100), kind in "[WNAS]") {
            let wakes = Wakes::default();
            let _claiming = wakes.claiming();
            wakes.deliver(payload.clone().into());
            wakes.deliver([kind.as_bytes(), &payload].concat().into());
        }
    }
}
