//! The words of each refusal: what happened, whether to try again, what to do.
//!
//! Two readers: whoever builds or runs the client (`detail`), and a shopper (`shopper`). No text holds a value.

use std::borrow::Cow;

use super::Refusal;
use crate::store::Judged;

/// What trying again means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// The same request may come again: it was not sent, or will be given the answer of the one that was.
    Safe,
    /// It may have been carried out: look first, do not pay again.
    Unsafe,
    /// The same request will be refused again.
    Pointless,
}

/// The texts of one refusal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text {
    pub title: &'static str,
    pub detail: Cow<'static, str>,
    pub shopper: &'static str,
    pub retry: Retry,
}

impl Retry {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Unsafe => "unsafe",
            Self::Pointless => "pointless",
        }
    }
}

pub(super) fn of(refusal: &Refusal) -> Text {
    match refusal {
        Refusal::NoKey { detail } => NO_KEY.after(Cow::Owned(format!("Nothing was found at {detail}"))),
        Refusal::BodyTooLarge { body_bytes_max } => {
            BODY_TOO_LARGE.after(Cow::Owned(format!("At most {body_bytes_max} bytes are read here.")))
        }
        Refusal::BodyUnreadable { detail, .. } => BODY_UNREADABLE.after(detail.clone()),
        Refusal::PathUnreadable { detail } => PATH_UNREADABLE.after(detail.clone()),
        Refusal::RequestMalformed { detail, .. } => REQUEST_MALFORMED.after(detail.clone()),
        Refusal::RequestTimeout => REQUEST_TIMEOUT.alone(),
        Refusal::BadSignature => BAD_SIGNATURE.alone(),
        Refusal::EventMismatch => EVENT_MISMATCH.alone(),
        Refusal::WaitExhausted { .. } => WAIT_EXHAUSTED.alone(),
        Refusal::LaneFull { .. } | Refusal::FollowersFull { .. } => TOO_MANY_WAIT.alone(),
        Refusal::OutcomeUnknown { .. } => OUTCOME_UNKNOWN.alone(),
        Refusal::AnswerTooLarge { answered, judged, .. } => {
            let words = match judged {
                Judged::Done => ANSWER_TOO_LARGE,
                Judged::Pending => PENDING_TOO_LARGE,
                Judged::Failed => FAILURE_TOO_LARGE,
            };
            words.after(Cow::Owned(format!("The shop answered {} to this request.", answered.as_u16())))
        }
        Refusal::ResolvedDone => RESOLVED_DONE.alone(),
        Refusal::StoreDown { .. } => STORE_DOWN.alone(),
        Refusal::UpstreamUnreachable { .. } => UPSTREAM_UNREACHABLE.alone(),
        Refusal::UpstreamReset { .. } => UPSTREAM_RESET.alone(),
        Refusal::UpstreamTimeout { .. } => UPSTREAM_TIMEOUT.alone(),
        Refusal::Draining { .. } => DRAINING.alone(),
        Refusal::Overloaded { .. } => OVERLOADED.alone(),
        Refusal::NoRoute => NO_ROUTE.alone(),
        Refusal::Internal { .. } => INTERNAL.alone(),
    }
}

/// The fixed part of a [`Text`].
struct Words {
    title: &'static str,
    detail: &'static str,
    shopper: &'static str,
    retry: Retry,
}

impl Words {
    fn alone(&self) -> Text {
        self.after(Cow::Borrowed(""))
    }

    /// The texts with a sentence of this one refusal before the fixed one.
    fn after(&self, own: Cow<'static, str>) -> Text {
        let detail = if own.is_empty() {
            Cow::Borrowed(self.detail)
        } else {
            let stop = if own.ends_with('.') { "" } else { "." };
            Cow::Owned(format!("{own}{stop} {}", self.detail))
        };
        Text { title: self.title, detail, shopper: self.shopper, retry: self.retry }
    }
}

/// Stands before `detail` of whatever may have been carried out, and begins what a shopper is told of it.
pub(super) const MAY_BE_DONE: &str = "Your request may already have been carried out. Do not pay again.";
const WORKING: &str = "Your order is still being worked on. Please do not pay again.";
const LOOK_FIRST: &str = "Your request may already have been carried out. Do not pay again. \
    Look for a confirmation by e-mail or in your account first, or ask the shop.";
const ALREADY_DONE: &str = "Your order was already carried out. Do not pay again. \
    Look for a confirmation by e-mail or in your account.";
const NOT_SENT: &str = "This request has not reached the shop. Nothing was ordered or charged by it. \
    You can safely try again.";
const NOT_UNDERSTOOD: &str = "The request was not understood and has not reached the shop. \
    Nothing was ordered or charged by it. Please go back and start again.";

const NO_KEY: Words = Words {
    title: "The request does not say which order it is about",
    detail: "It was not sent to the shop. Send it with the value that names the order.",
    shopper: NOT_UNDERSTOOD,
    retry: Retry::Pointless,
};
const BODY_TOO_LARGE: Words = Words {
    title: "The request body is too large",
    detail: "The request was not sent to the shop.",
    shopper: NOT_UNDERSTOOD,
    retry: Retry::Pointless,
};
const BODY_UNREADABLE: Words = Words {
    title: "The request body cannot be read in one way only",
    detail: "What two programs may read differently is not sent to the shop.",
    shopper: NOT_UNDERSTOOD,
    retry: Retry::Pointless,
};
const PATH_UNREADABLE: Words = Words {
    title: "The request path cannot be read in one way only",
    detail: "What two programs may read differently is not sent to the shop.",
    shopper: NOT_UNDERSTOOD,
    retry: Retry::Pointless,
};
const REQUEST_MALFORMED: Words = Words {
    title: "The request is not acceptable HTTP",
    detail: "It was not sent to the shop.",
    shopper: NOT_UNDERSTOOD,
    retry: Retry::Pointless,
};
const REQUEST_TIMEOUT: Words = Words {
    title: "The request did not arrive in time",
    detail: "It was not complete and was not sent to the shop. It is safe to send it again.",
    shopper: NOT_SENT,
    retry: Retry::Safe,
};
const BAD_SIGNATURE: Words = Words {
    title: "The request bears no good signature of its sender",
    detail: "It was not sent to the shop. Sign it with the secret that the shop has for you, and with the time of now.",
    shopper: NOT_UNDERSTOOD,
    retry: Retry::Pointless,
};
const EVENT_MISMATCH: Words = Words {
    title: "The event id was used with another body",
    detail: "An event id names one event. The request was not sent to the shop; use a new id for a new event.",
    shopper: NOT_UNDERSTOOD,
    retry: Retry::Pointless,
};
const WAIT_EXHAUSTED: Words = Words {
    title: "The order is still being worked on",
    detail: "The shop has not answered yet. It is safe to send the same request again: it is given that answer and \
        is not sent to the shop a second time. Do not send another one for this order.",
    shopper: WORKING,
    retry: Retry::Safe,
};
const TOO_MANY_WAIT: Words = Words {
    title: "Too many requests wait for this order",
    detail: "This request was not sent to the shop; an earlier one for the order is there. It is safe to send the \
        same request again later.",
    shopper: WORKING,
    retry: Retry::Safe,
};
const OUTCOME_UNKNOWN: Words = Words {
    title: "The outcome of an earlier request is not known",
    detail: "Your request may already have been carried out. Do not pay again. A request for this order was sent to \
        the shop and no answer is known, so nothing is sent now. Look up the order, or ask again later.",
    shopper: LOOK_FIRST,
    retry: Retry::Unsafe,
};
const ANSWER_TOO_LARGE: Words = Words {
    title: "The request was carried out, its answer was not kept",
    detail: "The answer was too large to keep and cannot be given again. Do not send the request again; look up the \
        order.",
    shopper: ALREADY_DONE,
    retry: Retry::Pointless,
};
const PENDING_TOO_LARGE: Words = Words {
    title: "The request needs another step, and its answer was not kept",
    detail: "The answer that names the step was too large to be shared with those who sent the same request meanwhile. \
        Go on where the first answer led. Sent again after some seconds, the request goes to the shop as a new one.",
    shopper: "Your order is waiting for one more step from you, such as the payment. Please go on in the window where \
        you began it.",
    retry: Retry::Safe,
};
const FAILURE_TOO_LARGE: Words = Words {
    title: "The request failed, the shop's answer was not kept",
    detail: "That is a failure, and too large to be shared with those who sent the same request meanwhile. Nothing is \
        kept of it. It is safe to send the request again: it goes to the shop as a new one.",
    shopper: "The shop answered that this request failed. You can try again.",
    retry: Retry::Safe,
};
const RESOLVED_DONE: Words = Words {
    title: "The order was already carried out",
    detail: "The shop's operator has confirmed it; no answer is kept. Do not send the request again; look up the \
        order.",
    shopper: ALREADY_DONE,
    retry: Retry::Pointless,
};
const STORE_DOWN: Words = Words {
    title: "It cannot be told whether the request was sent before",
    detail: "So it was not sent to the shop now. It is safe to send the same request again.",
    shopper: "The shop cannot take your order at this moment. If this was your first try, nothing was ordered or \
        charged. The same order can safely be sent again.",
    retry: Retry::Safe,
};
const UPSTREAM_UNREACHABLE: Words = Words {
    title: "The shop cannot be reached",
    detail: "No connection came about, so nothing was sent. It is safe to send the request again.",
    shopper: NOT_SENT,
    retry: Retry::Safe,
};
const UPSTREAM_RESET: Words = Words {
    title: "The shop broke off its answer",
    detail: "Your request may already have been carried out. Do not pay again. It was sent to the shop and no whole \
        answer came back. Look up the order before you send anything again.",
    shopper: LOOK_FIRST,
    retry: Retry::Unsafe,
};
const UPSTREAM_TIMEOUT: Words = Words {
    title: "The shop did not answer in time",
    detail: "Your request may already have been carried out. Do not pay again. It was sent to the shop and no answer \
        came back. Look up the order before you send anything again.",
    shopper: LOOK_FIRST,
    retry: Retry::Unsafe,
};
const DRAINING: Words = Words {
    title: "This server is going down",
    detail: "It takes no more requests. It is safe to send the same request again; if one like it is at the shop, \
        that one's answer is given.",
    shopper: "The server is being changed. If you have just sent an order, it may still be worked on: \
        please do not start a new one, but send the same one again.",
    retry: Retry::Safe,
};
const OVERLOADED: Words = Words {
    title: "Too much is going on at this moment",
    detail: "The request was not sent to the shop. It is safe to send it again later.",
    shopper: NOT_SENT,
    retry: Retry::Safe,
};
const NO_ROUTE: Words = Words {
    title: "There is nothing at this address",
    detail: "No route of this server takes the request. It was not sent to any shop.",
    shopper: "There is no page at this address.",
    retry: Retry::Pointless,
};
const INTERNAL: Words = Words {
    title: "This server failed at the request",
    detail: "Your request may already have been carried out. Do not pay again. It is not known how far it came; look \
        up the order before you send anything again.",
    shopper: LOOK_FIRST,
    retry: Retry::Unsafe,
};
