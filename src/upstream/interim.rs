//! A shop whose last word is a 100.
//!
//! WooCommerce's Amazon Pay plugin answers a callback that comes while its order is locked with status 100 and
//! `Retry-After`. To HTTP that is an interim answer (RFC 9110 section 15.2.1), after which the real one is waited for;
//! what comes is the end of the connection, a stray last chunk, or nothing. oncegate asks for no 100 (`Expect` ends
//! at it), and no interim answer has a `Retry-After`, so where nothing follows one that has, it was the answer. It is
//! never taken for one before it is known that nothing follows: the shop may still do the work.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::timeout;

/// How long the real answer may take after such a 100. A shop that has one more to give has it at hand.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(2);

/// Listens to the interim answers to one request.
#[derive(Clone, Default)]
pub struct Interim(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    come_back: Option<HeaderValue>,
    waiting: Option<Waker>,
}

impl Interim {
    /// Listens by the extensions of a request that is yet to be sent. `pass_on` gets all interim answers but 100,
    /// which is between us and each side.
    pub fn listen(
        extensions: &mut Extensions,
        pass_on: impl Fn(StatusCode, &HeaderMap) + Send + Sync + 'static,
    ) {
        let interim = Self::default();
        let mut carrier = http::Request::new(());
        std::mem::swap(carrier.extensions_mut(), extensions);
        carrier.extensions_mut().insert(interim.clone());
        hyper::ext::on_informational(&mut carrier, move |answer| match answer.status() {
            StatusCode::CONTINUE => interim.hear(answer.headers()),
            status => pass_on(status, answer.headers()),
        });
        std::mem::swap(carrier.extensions_mut(), extensions);
    }

    /// What the shop said about coming back, if its last word was such a 100.
    pub(super) fn come_back(&self) -> Option<HeaderValue> {
        self.state().come_back.clone()
    }

    /// Waits for the answer; `None` where a 100 turned out to be all that comes.
    pub(super) async fn or_nothing_more<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = pin!(answer);
        tokio::select! {
            biased;
            came = &mut answer => Some(came),
            () = self.heard() => timeout(FOLLOWS_WITHIN, answer).await.ok(),
        }
    }

    fn hear(&self, headers: &HeaderMap) {
        let Some(come_back) = headers.get(header::RETRY_AFTER) else { return };
        let mut state = self.state();
        state.come_back = Some(come_back.clone());
        let waiting = state.waiting.take();
        drop(state);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    async fn heard(&self) {
        poll_fn(|cx| {
            let mut state = self.state();
            if state.come_back.is_some() {
                return Poll::Ready(());
            }
            match &mut state.waiting {
                Some(waiting) => waiting.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
        .await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
