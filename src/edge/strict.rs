//! The strict reader between a client's socket and hyper: hyper sees complete, valid heads and nothing else.
//!
//! hyper's own server reads leniently: bare LF, folded lines, two codings, any `Host`. A shop behind us may read the
//! same bytes differently, and then one request is two. [`Strict`] follows the framing of the bytes that it passes on,
//! in place, and holds back what is not proven. It never writes an answer: in place of a head that breaks a rule hyper
//! is given one of ours, and the service, which asks [`Line::violation`], refuses it in its turn, so that the answers
//! to the requests before it come first. Nothing behind a violation is ever read as a request.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

mod chunked;
mod field;
mod follow;
mod line;
pub mod rules;
pub mod scan;
#[cfg(test)]
mod tests;

pub use line::{Line, Phase};

use follow::{Follower, Stop};
use line::{Decision, Place, Shared};

use crate::ops::gather::poll_write_gathered;

/// A rule of HTTP that a client broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}")]
pub struct Violation {
    /// What to answer with: 400, 408, 414, 417, 431, 501 or 505.
    pub status: u16,
    /// A sentence for the client; it holds nothing of what the client sent.
    pub what: &'static str,
}

impl Violation {
    const fn new(status: u16, what: &'static str) -> Self {
        Self { status, what }
    }

    const fn bad(what: &'static str) -> Self {
        Self::new(400, what)
    }
}

/// The bounds of a head. hyper's own (`max_headers`, `max_buf_size`) must not be lower, or it answers instead of us.
#[derive(Clone, Copy, Debug)]
pub struct StrictLimits {
    /// A whole head, with the empty line at its end; above it 431.
    pub head_bytes_max: usize,
    /// The request target; above it 414. Lower than `head_bytes_max`.
    pub target_bytes_max: usize,
    /// Header lines; above it 431.
    pub fields_max: usize,
}

/// The reader. It writes through, and takes notes on the way for the [`Line`].
#[derive(Debug)]
pub struct Strict<IO> {
    io: IO,
    line: Rc<Shared>,
    follower: Follower,
    mouth: Mouth,
    /// Bytes that could not be passed on where they were read: `[given..ready]` may be, the rest not yet. Empty, and
    /// without memory, while nothing is held back: an idle connection must be cheap.
    stash: Vec<u8>,
    given: usize,
    ready: usize,
    thrown_away: usize,
    shut: bool,
}

/// What reads give once the stash has nothing for them.
#[derive(Clone, Copy, Debug)]
enum Mouth {
    /// What the client sends, followed.
    Open,
    /// What the client sends, as it is.
    Tunnel,
    /// Nothing, not even an end: there was a violation in a head, and an end would make hyper drop the answer. What the
    /// client sends is thrown away.
    Mute,
    /// An error: there was a violation in a body.
    Broken(Violation),
    End,
}

/// Whether a read brought anything about.
enum Read {
    /// Bytes stand in the caller's buffer.
    Given,
    /// Things have changed: look again.
    Changed,
}

/// What hyper is given in place of a head that breaks a rule. `connection: close` is why hyper reads nothing behind
/// it and ends the connection after the answer.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: oncegate.invalid\r\nconnection: close\r\n\r\n";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Rounds of one poll before it lets others run.
const ROUNDS_MAX: usize = 16;
/// What may come behind an upgrade before the answer to it; more waits in the socket.
const HELD_BYTES_MAX: usize = 16 * 1024;
/// What is thrown away of a client that was refused, before it gets its reset.
const THROWN_AWAY_BYTES_MAX: usize = 4 * 1024 * 1024;

impl<IO> Strict<IO> {
    /// Wraps a fresh connection. The clock counts ticks, of 100 ms as the sweeper moves it; here it is only read.
    pub fn new(io: IO, limits: StrictLimits, clock: Rc<Cell<u64>>) -> (Self, Line) {
        let line = Rc::new(Shared::new(clock));
        let strict = Self {
            io,
            line: Rc::clone(&line),
            follower: Follower::new(limits),
            mouth: Mouth::Open,
            stash: Vec::new(),
            given: 0,
            ready: 0,
            thrown_away: 0,
            shut: false,
        };
        (strict, Line(line))
    }

    /// Hands out what of the stash is ready. False where nothing is.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.given == self.ready {
            return false;
        }
        let step = (self.ready - self.given).min(buf.remaining());
        buf.put_slice(&self.stash[self.given..self.given + step]);
        self.given += step;
        if self.given == self.ready {
            if self.ready == self.stash.len() {
                self.stash = Vec::new();
            } else {
                self.stash.drain(..self.ready);
            }
            (self.given, self.ready) = (0, 0);
        }
        true
    }

    fn follow_stash(&mut self) {
        let step = self.follower.advance(&self.stash[self.ready..]);
        self.ready += step.pass;
        self.settle(step.stop);
    }

    /// Follows what was read behind `start`, and takes back what may not be passed on yet.
    fn follow_read(&mut self, buf: &mut ReadBuf<'_>, start: usize) {
        if self.stash.is_empty() {
            let step = self.follower.advance(&buf.filled()[start..]);
            self.stash.extend_from_slice(&buf.filled()[start + step.pass..]);
            buf.set_filled(start + step.pass);
            self.settle(step.stop);
        } else {
            self.stash.extend_from_slice(&buf.filled()[start..]);
            buf.set_filled(start);
            self.follow_stash();
        }
    }

    fn settle(&mut self, stop: Stop) {
        self.line.note_heads(self.follower.heads(), self.follower.version());
        let place = match stop {
            Stop::More if self.follower.is_in_body() => Place::Body,
            Stop::More if self.ready < self.stash.len() => Place::Head,
            Stop::More => Place::Between,
            Stop::Held => Place::Held,
            Stop::BadHead(violation) => {
                self.stand_in(violation);
                Place::Between
            }
            Stop::BadBody(violation) => {
                self.stash.truncate(self.ready);
                self.mouth = Mouth::Broken(violation);
                self.line.note_body_violation(violation);
                Place::Between
            }
        };
        self.line.note_place(place);
    }

    fn stand_in(&mut self, violation: Violation) {
        self.line.note_violation(self.follower.heads() + 1, violation);
        self.stash.truncate(self.ready);
        self.stash.extend_from_slice(STAND_IN);
        self.ready = self.stash.len();
        self.mouth = Mouth::Mute;
    }

    /// The sweeper has ended the wait for a head, and nothing has come.
    fn expire(&mut self) {
        if self.follower.is_held() || self.follower.is_in_body() {
            return;
        }
        if self.stash.len() > self.ready {
            self.settle(Stop::BadHead(Violation::new(408, "the request head took too long")));
        } else {
            self.mouth = Mouth::End;
        }
    }

    /// Does with held bytes what the service has decided. False where it has not decided.
    fn unhold(&mut self) -> bool {
        match self.line.take_decision() {
            None => return false,
            Some(Decision::Tunnel) => {
                self.mouth = Mouth::Tunnel;
                self.ready = self.stash.len();
                self.line.note_place(Place::Tunnel);
            }
            Some(Decision::Http) => {
                self.follower.release();
                self.follow_stash();
            }
        }
        true
    }

    /// Whether the client may still be sending what nobody will read.
    fn has_unread(&self) -> bool {
        let refused = matches!(self.mouth, Mouth::Mute | Mouth::Broken(_));
        let broken_off = matches!(self.mouth, Mouth::Open) && self.follower.is_in_body();
        (refused || broken_off) && self.thrown_away < THROWN_AWAY_BYTES_MAX
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Strict<IO> {
    /// Reads from the client and follows what came.
    fn read_open(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<Read>> {
        let start = buf.filled().len();
        let Poll::Ready(result) = Pin::new(&mut self.io).poll_read(cx, buf) else {
            if self.line.take_expired() {
                self.expire();
                return Poll::Ready(Ok(Read::Changed));
            }
            self.line.note_hunger();
            return Poll::Pending;
        };
        result?;
        if buf.filled().len() == start {
            // Part of a head is no request: nobody is told of it, and nobody waits for an answer to it.
            self.stash = Vec::new();
            (self.given, self.ready) = (0, 0);
            self.mouth = Mouth::End;
            return Poll::Ready(Ok(Read::Changed));
        }
        self.line.note_read();
        self.follow_read(buf, start);
        Poll::Ready(Ok(if buf.filled().len() > start { Read::Given } else { Read::Changed }))
    }

    /// Waits for the decision about an upgrade. It reads on all the same, within a bound, to see a client leave.
    fn read_held(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<Read>> {
        if self.unhold() {
            return Poll::Ready(Ok(Read::Changed));
        }
        if self.stash.len() >= HELD_BYTES_MAX {
            return Poll::Pending;
        }
        let start = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() == start {
            if !self.stash.is_empty() {
                // Bytes of a tunnel and then the end of them: still to be tunnelled.
                return Poll::Pending;
            }
            self.mouth = Mouth::End;
            return Poll::Ready(Ok(Read::Changed));
        }
        self.line.note_read();
        self.stash.extend_from_slice(&buf.filled()[start..]);
        buf.set_filled(start);
        Poll::Ready(Ok(Read::Changed))
    }

    /// Reads and throws away, until the client ends, or enough is enough.
    fn throw_away(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<()> {
        for _ in 0..ROUNDS_MAX {
            if self.thrown_away >= THROWN_AWAY_BYTES_MAX || self.line.is_closed() {
                return Poll::Ready(());
            }
            let start = buf.filled().len();
            let result = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
            let step = buf.filled().len() - start;
            buf.set_filled(start);
            self.thrown_away += step;
            if result.is_err() || step == 0 {
                self.thrown_away = THROWN_AWAY_BYTES_MAX;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_rounds(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        for _ in 0..ROUNDS_MAX {
            if self.line.is_closed() || buf.remaining() == 0 || self.give(buf) {
                return Poll::Ready(Ok(()));
            }
            let read = match self.mouth {
                Mouth::Open if self.follower.is_held() => ready!(self.read_held(cx, buf))?,
                Mouth::Open => ready!(self.read_open(cx, buf))?,
                Mouth::Tunnel => {
                    ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
                    self.line.note_read();
                    return Poll::Ready(Ok(()));
                }
                Mouth::Mute => {
                    let _ = self.throw_away(cx, buf);
                    return Poll::Pending;
                }
                Mouth::Broken(violation) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)));
                }
                Mouth::End => return Poll::Ready(Ok(())),
            };
            if let Read::Given = read {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes the interim answers that wait. They go before whatever else is to be written.
    fn poll_informs(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut queue = self.line.informs().borrow_mut();
        if queue.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !queue.is_empty() {
            let step = ready!(Pin::new(&mut self.io).poll_write(cx, &queue))?;
            if step == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            queue.drain(..step);
        }
        *queue = Vec::new();
        drop(queue);
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn before_write(&mut self, cx: &mut Context<'_>, interim: bool) -> Poll<io::Result<()>> {
        if self.line.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let result = self.poll_informs(cx);
        self.line.note_offer(interim);
        result
    }

    /// Notes what became of a write.
    fn after_write<T>(&self, cx: &Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &result {
            Poll::Ready(_) => self.line.note_write(),
            Poll::Pending => {
                self.line.note_blocked();
                self.line.wait_to_write(cx);
            }
        }
        result
    }

    /// Shuts our side, then reads what the client still sends, so that the answer is not lost to a reset.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.line.is_closed() {
            let _ = Pin::new(&mut self.io).poll_shutdown(cx);
            return Poll::Ready(Ok(()));
        }
        if !self.shut {
            ready!(self.poll_informs(cx))?;
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.shut = true;
            self.line.note_flushed();
            self.line.note_place(Place::Closing);
        }
        if self.has_unread() {
            let mut bin = [const { MaybeUninit::uninit() }; 8 * 1024];
            ready!(self.throw_away(cx, &mut ReadBuf::uninit(&mut bin)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Strict<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // An error of a write is the next write's to tell.
        let _ = this.poll_informs(cx);
        let result = this.poll_rounds(cx, buf);
        if result.is_pending() {
            this.line.wait_to_read(cx);
        }
        result
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Strict<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = match this.before_write(cx, buf == CONTINUE) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.io).poll_write(cx, buf),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        this.after_write(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut full = bufs.iter().filter(|buf| !buf.is_empty());
        let interim = full.next().is_some_and(|first| **first == *CONTINUE) && full.next().is_none();
        let result = match this.before_write(cx, interim) {
            Poll::Ready(Ok(())) => poll_write_gathered(&mut this.io, cx, bufs),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        this.after_write(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper asks for this when it has nothing left to write, and only then.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = match this.poll_informs(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.io).poll_flush(cx),
            other => other,
        };
        match &result {
            Poll::Ready(_) => this.line.note_flushed(),
            Poll::Pending => {
                this.line.note_blocked();
                this.line.wait_to_write(cx);
            }
        }
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = this.poll_end(cx);
        if result.is_pending() {
            this.line.wait_to_write(cx);
        }
        result
    }
}
