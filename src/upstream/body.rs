//! Bodies to the shop and from it. Neither is ever collected here.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{fleet::Slot, pool::Wire};

/// A request body on its way to the shop.
pub struct ToShop {
    kind: Kind,
    /// When a piece was last taken to be sent, if somebody wants to know.
    taken: Option<Taken>,
}

enum Kind {
    /// Nothing, or something that was collected before.
    Whole(Option<Bytes>),
    /// The client's own stream.
    Client(Incoming),
    /// What was collected of the client's stream, then the rest of it.
    Begun { begun: Option<Bytes>, rest: Incoming },
    /// Collected, to be sent in chunks as it came, with the trailers that came behind it.
    WithTrailers { data: Option<Bytes>, trailers: Option<Box<HeaderMap>> },
}

/// When the shop's side last took a piece of a body. A body that is empty takes nobody's time.
#[derive(Clone, Default)]
pub struct Taken(Option<Rc<Cell<Instant>>>);

impl Taken {
    pub fn at(&self) -> Option<Instant> {
        self.0.as_ref().map(|taken| taken.get())
    }
}

impl ToShop {
    pub fn empty() -> Self {
        Self::of(Kind::Whole(None))
    }

    pub fn whole(bytes: Bytes) -> Self {
        Self::of(Kind::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    /// The client's own stream.
    pub fn client(incoming: Incoming) -> Self {
        Self::of(Kind::Client(incoming))
    }

    /// What was collected of the client's stream, then the rest of it.
    pub fn begun(begun: Bytes, rest: Incoming) -> Self {
        Self::of(Kind::Begun { begun: Some(begun), rest })
    }

    /// What was collected of a client's body, to be sent on as it came.
    pub fn collected(bytes: Bytes, trailers: Option<Box<HeaderMap>>) -> Self {
        match trailers {
            None => Self::whole(bytes),
            Some(trailers) => {
                let data = Some(bytes).filter(|bytes| !bytes.is_empty());
                Self::of(Kind::WithTrailers { data, trailers: Some(trailers) })
            }
        }
    }

    fn of(kind: Kind) -> Self {
        Self { kind, taken: None }
    }

    /// The same body, noting when the shop's side last took a piece of it, from `now` on.
    #[must_use]
    pub fn noting(self, now: Instant) -> (Self, Taken) {
        if self.is_end_stream() {
            return (self, Taken::default());
        }
        let taken = Taken(Some(Rc::new(Cell::new(now))));
        (Self { taken: Some(taken.clone()), ..self }, taken)
    }

    /// The same body without its length, so that it is sent in chunks: what came so goes on so, collected or not.
    #[must_use]
    pub fn chunked(self) -> Self {
        match self.kind {
            Kind::Whole(data) => Self { kind: Kind::WithTrailers { data, trailers: None }, ..self },
            kind @ (Kind::Client(_) | Kind::Begun { .. } | Kind::WithTrailers { .. }) => {
                Self { kind, ..self }
            }
        }
    }
}

impl Body for ToShop {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(this.kind.poll_frame(cx));
        if let Some(Taken(Some(taken))) = &this.taken {
            taken.set(Instant::now());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole(data) => data.is_none(),
            Kind::Client(incoming) => incoming.is_end_stream(),
            Kind::Begun { begun, rest } => begun.is_none() && rest.is_end_stream(),
            // An empty one still has a last chunk.
            Kind::WithTrailers { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(data) => SizeHint::with_exact(data.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Client(incoming) => incoming.size_hint(),
            Kind::Begun { begun, rest } => {
                let begun = begun.as_ref().map_or(0, |bytes| bytes.len() as u64);
                let rest = rest.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(begun + rest.lower());
                if let Some(upper) = rest.upper() {
                    hint.set_upper(begun + upper);
                }
                hint
            }
            // Trailers only travel with chunked framing, so no exact size is claimed for this one.
            Kind::WithTrailers { .. } => SizeHint::default(),
        }
    }
}

impl Kind {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self {
            Self::Whole(data) => Poll::Ready(data.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Client(incoming) => Pin::new(incoming).poll_frame(cx),
            Self::Begun { begun, rest } => match begun.take() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => Pin::new(rest).poll_frame(cx),
            },
            Self::WithTrailers { data, trailers } => match data.take() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(*trailers)))),
            },
        }
    }
}

/// An answer's body as it comes from the shop. Read to its end, it gives its connection back to the pool; dropped
/// before, it closes it.
pub struct FromShop {
    incoming: Incoming,
    wire: Option<Wire>,
}

impl FromShop {
    pub(super) fn new(incoming: Incoming, wire: Wire) -> Self {
        let mut body = Self { incoming, wire: Some(wire) };
        if body.incoming.is_end_stream() {
            body.finish();
        }
        body
    }

    /// Keeps the exchange's place at its server until the answer was read, or given up.
    pub(super) fn holding(mut self, slot: Option<Slot>) -> Self {
        if let Some(wire) = &mut self.wire {
            wire.slot = slot;
        }
        self
    }

    fn finish(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.give_back();
        }
    }
}

impl Body for FromShop {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.incoming).poll_frame(cx));
        match &frame {
            None => this.finish(),
            Some(Ok(_)) if this.incoming.is_end_stream() => this.finish(),
            Some(Ok(_)) => {}
            Some(Err(_)) => this.wire = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
