//! Follows the message framing of a connection: which bytes may be passed on, and why the next one may not.
//!
//! Pure: bytes in, steps out; it does no I/O and keeps no byte.

use super::{
    StrictLimits, Violation,
    chunked::{Chunked, Fed},
    scan::{Body, Progress, Verdict, Version, Wish},
};

/// What became of the bytes that were looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Step {
    /// This many bytes at the front are sound and complete: whole heads, and bodies as far as they came.
    pub(super) pass: usize,
    pub(super) stop: Stop,
}

/// Why the bytes behind `pass` were not passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// There are none, or they are a head that is not complete: show them again with more behind them.
    More,
    /// The head before them wants to leave HTTP: nobody knows yet what they are. Show them again after `release`.
    Held,
    BadHead(Violation),
    BadBody(Violation),
}

#[derive(Debug)]
pub(super) struct Follower {
    limits: StrictLimits,
    state: State,
    heads: u64,
    version: Version,
    wish: Wish,
}

#[derive(Debug)]
enum State {
    Head(Progress),
    Length(u64),
    Chunked(Chunked),
    Held,
}

impl Follower {
    pub(super) fn new(limits: StrictLimits) -> Self {
        Self {
            limits,
            state: State::Head(Progress::default()),
            heads: 0,
            version: Version::Http11,
            wish: Wish::Stay,
        }
    }

    /// Goes on with bytes that begin where the last call stopped.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Step {
        let mut pass = 0;
        loop {
            let rest = &bytes[pass..];
            let stop = match &mut self.state {
                State::Held => Some(Stop::Held),
                _ if rest.is_empty() => Some(Stop::More),
                State::Head(progress) => match progress.advance(rest, &self.limits) {
                    Verdict::Partial => Some(Stop::More),
                    Verdict::Bad(violation) => Some(Stop::BadHead(violation)),
                    Verdict::Whole(head) => {
                        pass += head.len;
                        self.heads += 1;
                        self.wish = head.wish;
                        if head.version == Version::Http10 {
                            self.version = Version::Http10;
                        }
                        self.state = match head.body {
                            Body::Length(0) => self.after_body(),
                            Body::Length(length) => State::Length(length),
                            Body::Chunked => State::Chunked(Chunked::new()),
                        };
                        None
                    }
                },
                State::Length(left) => {
                    let step = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    pass += step;
                    *left -= step as u64;
                    if *left == 0 {
                        self.state = self.after_body();
                    }
                    None
                }
                State::Chunked(chunked) => match chunked.feed(rest) {
                    Fed::More => {
                        pass = bytes.len();
                        None
                    }
                    Fed::Done(step) => {
                        pass += step;
                        self.state = self.after_body();
                        None
                    }
                    Fed::Bad(step, violation) => {
                        pass += step;
                        Some(Stop::BadBody(violation))
                    }
                },
            };
            if let Some(stop) = stop {
                return Step { pass, stop };
            }
        }
    }

    /// The head that was held stays with HTTP after all: what comes behind it is the next head.
    pub(super) fn release(&mut self) {
        if matches!(self.state, State::Held) {
            self.state = State::Head(Progress::default());
        }
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.state, State::Held)
    }

    pub(super) fn is_in_body(&self) -> bool {
        matches!(self.state, State::Length(_) | State::Chunked(_))
    }

    /// How many heads were passed on.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// The lowest version that a head was of: several may pass in one step, and one old one is enough to be careful.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    fn after_body(&self) -> State {
        match self.wish {
            Wish::Upgrade => State::Held,
            Wish::Stay => State::Head(Progress::default()),
        }
    }
}
