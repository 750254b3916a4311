//! Bodies of answers on their way to a client, and collecting the body of a request.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, timeout_at},
};

use super::core::{Budget, Lent};
use crate::{
    claim::Claims,
    store::Hold,
    upstream::{FromShop, ToShop},
};

/// Why a body ended before its end. The client's connection is closed, so that nobody takes the part for the whole.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the shop's answer broke off: {0}")]
    Shop(#[from] hyper::Error),
    #[error("the shop stopped in the middle of its answer for {0:?}")]
    Stalled(Duration),
    #[error("the shop's answer broke off while it was passed on")]
    Relay,
}

/// An answer's body.
pub enum Reply {
    Whole {
        data: Option<Bytes>,
        delivered: Option<Delivered>,
        /// Counts against the budget until it is written.
        lent: Option<Lent>,
    },
    Shop(Streaming),
    /// Passed on by the flight's task, which reads the shop whatever becomes of the client.
    Relay {
        pieces: mpsc::Receiver<Piece>,
        ended: bool,
    },
}

/// A piece of an answer that is passed on. An answer whose pieces stop without the last one has broken off.
pub enum Piece {
    Data(Bytes),
    Last,
}

impl Reply {
    pub fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole { data: Some(bytes).filter(|bytes| !bytes.is_empty()), delivered: None, lent: None }
    }

    /// Adds somebody who looks on; of what is there already nothing passes any more.
    pub fn watch(&mut self, mut watch: Box<dyn Watch>) {
        match self {
            Self::Shop(streaming) if !streaming.shop.is_end_stream() => {
                streaming.watch = Some(match streaming.watch.take() {
                    None => watch,
                    Some(first) => Box::new(Both(first, watch)),
                });
            }
            Self::Shop(_) | Self::Whole { .. } | Self::Relay { .. } => watch.end(),
        }
    }

    pub fn relay(pieces: mpsc::Receiver<Piece>) -> Self {
        Self::Relay { pieces, ended: false }
    }
}

/// To be told of to the store once the last byte of an answer has been handed to the client's connection.
pub struct Delivered(Option<(Arc<Claims>, Arc<Hold>)>);

impl Delivered {
    pub fn new(claims: Arc<Claims>, hold: Arc<Hold>) -> Self {
        Self(Some((claims, hold)))
    }

    fn happened(&mut self) {
        if let Some((claims, hold)) = self.0.take() {
            claims.delivered(hold);
        }
    }
}

/// The shop's body, passed on as it comes, with a bound on how long it may stop in the middle.
pub struct Streaming {
    shop: FromShop,
    stall: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    last: Option<Instant>,
    watch: Option<Box<dyn Watch>>,
}

/// Somebody who looks on while an answer passes.
pub trait Watch {
    fn data(&mut self, bytes: &Bytes);
    /// The answer has passed to its end.
    fn end(&mut self);
}

struct Both(Box<dyn Watch>, Box<dyn Watch>);

impl Watch for Both {
    fn data(&mut self, bytes: &Bytes) {
        self.0.data(bytes);
        self.1.data(bytes);
    }

    fn end(&mut self) {
        self.0.end();
        self.1.end();
    }
}

impl Streaming {
    pub fn new(shop: FromShop, stall: Duration) -> Self {
        Self { shop, stall, stalled: None, last: None, watch: None }
    }

    pub fn watched(shop: FromShop, stall: Duration, mut watch: Box<dyn Watch>) -> Self {
        let watch = if shop.is_end_stream() {
            watch.end();
            None
        } else {
            Some(watch)
        };
        Self { shop, stall, stalled: None, last: None, watch }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.shop).poll_frame(cx) {
            self.last = None;
            self.look_on(frame.as_ref());
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)));
        }
        // The timer is set up once per answer and only moved when it fires early.
        let last = *self.last.get_or_insert_with(Instant::now);
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(last + self.stall)));
        loop {
            ready!(timer.as_mut().poll(cx));
            let until = last + self.stall;
            if until <= Instant::now() {
                return Poll::Ready(Some(Err(BodyError::Stalled(self.stall))));
            }
            timer.as_mut().reset(until);
        }
    }

    fn look_on(&mut self, frame: Option<&Result<Frame<Bytes>, hyper::Error>>) {
        let Some(watch) = &mut self.watch else { return };
        match frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    watch.data(bytes);
                }
                if self.shop.is_end_stream() {
                    watch.end();
                    self.watch = None;
                }
            }
            None => {
                watch.end();
                self.watch = None;
            }
            Some(Err(_)) => self.watch = None,
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole { data, delivered, .. } => {
                let frame = data.take().map(|bytes| Ok(Frame::data(bytes)));
                if let Some(delivered) = delivered {
                    delivered.happened();
                }
                Poll::Ready(frame)
            }
            Self::Shop(streaming) => streaming.poll(cx),
            Self::Relay { ended: true, .. } => Poll::Ready(None),
            Self::Relay { pieces, ended } => Poll::Ready(match ready!(pieces.poll_recv(cx)) {
                Some(Piece::Data(bytes)) => Some(Ok(Frame::data(bytes))),
                Some(Piece::Last) => {
                    *ended = true;
                    None
                }
                None => Some(Err(BodyError::Relay)),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            // Asked for before the first poll too, so an empty body is only over once its delivery was noted.
            Self::Whole { data, delivered, .. } => {
                data.is_none() && delivered.as_ref().is_none_or(|d| d.0.is_none())
            }
            Self::Shop(streaming) => streaming.shop.is_end_stream(),
            Self::Relay { ended, .. } => *ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole { data, .. } => {
                SizeHint::with_exact(data.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Shop(streaming) => streaming.shop.size_hint(),
            Self::Relay { .. } => SizeHint::default(),
        }
    }
}

/// A request body that was read whole.
pub struct Collected {
    pub bytes: Bytes,
    pub trailers: Option<Box<HeaderMap>>,
    /// Counts against the budget for as long as the bytes are held.
    pub lent: Lent,
}

impl Collected {
    /// To be sent on as it came; it counts against the budget until it is written.
    pub fn into_body(self) -> ToShop {
        ToShop::collected(self.lent.around(self.bytes), self.trailers)
    }
}

/// Why a body was not collected.
pub enum Uncollected {
    /// Larger than the bound; what was read so far, and the rest of it.
    TooLarge { begun: Bytes, rest: Incoming, lent: Lent },
    /// The budget for all bodies is spent.
    NoRoom { begun: Bytes, rest: Incoming, lent: Lent },
    /// Its framing was broken, or the client went away.
    Broken(hyper::Error),
    /// It took longer than it may.
    Timeout,
}

/// A body that is put together. One that comes in one piece, the usual case, is never copied.
#[derive(Default)]
pub struct Pieces {
    first: Bytes,
    more: BytesMut,
}

impl Pieces {
    pub fn len(&self) -> usize {
        self.first.len() + self.more.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `expected` is how many bytes there will be, as far as that is known; 0 where it is not.
    pub fn push(&mut self, data: Bytes, expected: usize) {
        if self.is_empty() {
            self.first = data;
            return;
        }
        if self.more.is_empty() {
            self.more.reserve((self.first.len() + data.len()).max(expected));
            self.more.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.more.extend_from_slice(&data);
    }

    pub fn join(self) -> Bytes {
        if self.more.is_empty() { self.first } else { self.more.freeze() }
    }
}

/// Reads the whole body, within bounds on its size, its time and the sum of all collected bytes.
pub async fn collect(
    mut body: Incoming,
    bytes_max: usize,
    until: Instant,
    budget: &Arc<Budget>,
) -> Result<Collected, Uncollected> {
    let mut lent = Lent::none(budget);
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if expected > bytes_max {
        return Err(Uncollected::TooLarge { begun: Bytes::new(), rest: body, lent });
    }
    let mut pieces = Pieces::default();
    let mut trailers = None;
    loop {
        // A body that is there already, the usual case, costs no timer.
        let frame = match std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await {
            Poll::Ready(frame) => frame,
            Poll::Pending => match timeout_at(until, body.frame()).await {
                Ok(frame) => frame,
                Err(_) => return Err(Uncollected::Timeout),
            },
        };
        let frame = match frame {
            None => break,
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(Uncollected::Broken(error)),
        };
        match frame.into_data() {
            Ok(data) => {
                let fits = pieces.len() + data.len() <= bytes_max;
                let has_room = fits && lent.grow(data.len());
                pieces.push(data, expected.min(bytes_max));
                if !fits || !has_room {
                    let begun = pieces.join();
                    return Err(match fits {
                        false => Uncollected::TooLarge { begun, rest: body, lent },
                        true => Uncollected::NoRoom { begun, rest: body, lent },
                    });
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok().map(Box::new),
        }
    }
    Ok(Collected { bytes: pieces.join(), trailers, lent })
}
