//! The closed sets of words that headers, log and metrics share.
//!
//! They are enums so that a label can never come from a request. It never holds a value of one exchange.

/// Declares an enum together with its texts, so that no list of them can lack one.
macro_rules! closed {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum $name {
            $($(#[$each])* $variant,)+
        }

        impl $name {
            /// All of them in the order of declaration, so that `ALL[x as usize] == x`.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

closed! {
    /// What was done with a request.
    Verdict {
        Lead = "lead",
        Follow = "follow",
        Replay = "replay",
        Bypass = "bypass",
        Refuse = "refuse",
    }
}

closed! {
    /// Whose fault it is that an exchange did not end as its client wished.
    Fault {
        Client = "client",
        Upstream = "upstream",
        Gate = "gate",
        Store = "store",
    }
}

closed! {
    /// Where an exchange ended.
    Phase {
        /// The request was being read and understood.
        Read = "read",
        /// The store was asked for the right to send.
        Claim = "claim",
        /// It stood in a lane.
        Queue = "queue",
        /// It waited for another one's answer.
        Follow = "follow",
        /// It was on its way to the shop; perhaps nothing was sent.
        Send = "send",
        /// It was sent, the answer was awaited or read.
        Answer = "answer",
        /// What came of it was being written to the store.
        Settle = "settle",
        /// The answer was being given to the client.
        Reply = "reply",
    }
}

closed! {
    /// Why the verdict was what it was. The name of a refusal is the text of its reason.
    Reason {
        /// The shop did the work.
        Done = "done",
        /// The shop answered that something is left to do for the client; kept for seconds.
        Pending = "pending",
        /// The shop answered a failure; nothing is kept.
        Failed = "failed",
        /// Something was sent and no answer is known.
        InDoubt = "in-doubt",
        /// Nobody waits for the answer any more.
        ClientGone = "client-gone",
        /// The route has an order key, the request has not.
        NoOrderKey = "no-order-key",
        /// The route declares an identity, the request has none.
        NoIdentity = "no-identity",
        /// `enforce = false`: computed and counted, not touched.
        Observe = "observe",
    /// `enforce = false`: it would have been given a running exchange's answer.
    WouldCoalesce = "would-coalesce",
    /// `enforce = false`: it would have been given a kept answer.
    WouldReplay = "would-replay",
    /// `enforce = false`: it would have waited for its lane.
    WouldQueue = "would-queue",
    /// `enforce = false`: it would have been refused.
    WouldRefuse = "would-refuse",
        /// The first of the refusals; the rest of the list are refusals too.
        NoKey = "no-key",
        BodyTooLarge = "body-too-large",
        BodyUnreadable = "body-unreadable",
        PathUnreadable = "path-unreadable",
        RequestMalformed = "request-malformed",
        RequestTimeout = "request-timeout",
        /// Also why a request was passed on that bears no good signature.
        BadSignature = "bad-signature",
        EventMismatch = "event-mismatch",
        WaitExhausted = "wait-exhausted",
        LaneFull = "lane-full",
        FollowersFull = "followers-full",
        OutcomeUnknown = "outcome-unknown",
        AnswerTooLarge = "answer-too-large",
        ResolvedDone = "resolved-done",
        StoreDown = "store-down",
        UpstreamUnreachable = "upstream-unreachable",
        UpstreamReset = "upstream-reset",
        UpstreamTimeout = "upstream-timeout",
        Draining = "draining",
        Overloaded = "overloaded",
        NoRoute = "no-route",
        Internal = "internal",
    }
}

closed! {
    /// What came of checking a sender's signature.
    Signature {
        Verified = "verified",
        Missing = "missing",
        Unreadable = "unreadable",
        Mismatch = "mismatch",
        /// Good, and too old or from the future.
        Stale = "stale",
    }
}

closed! {
    /// Why an order came in doubt.
    DoubtCause {
        Reset = "reset",
        Truncated = "truncated",
        Timeout = "timeout",
        LeaseLost = "lease-lost",
        /// The task that led ended without an answer.
        Aborted = "aborted",
    }
}

closed! {
    /// The calls of a store.
    StoreOp {
        Claim = "claim",
        Renew = "renew",
        Settle = "settle",
        Abandon = "abandon",
        Delivered = "delivered",
        Generation = "generation",
        Inspect = "inspect",
        Resolve = "resolve",
        Forget = "forget",
        Restore = "restore",
        Epoch = "epoch",
    }
}

closed! {
    /// Why a store call has no answer.
    StoreCause {
        Deadline = "deadline",
        Down = "down",
        Forgot = "forgot",
    }
}

closed! {
    /// What is not as it should be about the store that replicas share.
    StoreFinding {
        TooOld = "too-old",
        /// It throws keys away when it is full.
        Evicts = "evicts",
        /// A restart loses everything.
        NothingPersists = "nothing-persists",
        TooFewReplicas = "too-few-replicas",
        /// It may not be asked.
        Forbidden = "forbidden",
    }
}

closed! {
    /// What a claim came to.
    ClaimOutcome {
        Lead = "lead",
        Follow = "follow",
        Replay = "replay",
        Resolved = "resolved",
        Queue = "queue",
        InDoubt = "in-doubt",
        Mismatch = "mismatch",
        Busy = "busy",
        Error = "error",
    }
}

closed! {
    /// The class of an answer's status; `none` where there was no answer.
    CodeClass {
        Informational = "1xx",
        Success = "2xx",
        Redirection = "3xx",
        ClientError = "4xx",
        ServerError = "5xx",
        None = "none",
    }
}

closed! {
    /// What of a record had to go before its time.
    DroppedEarly {
        Body = "body",
        Record = "record",
    }
}

impl Reason {
    /// Whether a refusal bears this name.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        self as usize >= Self::NoKey as usize
    }
}

impl CodeClass {
    #[must_use]
    pub const fn of(status: u16) -> Self {
        match status {
            100..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            500..=599 => Self::ServerError,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_stands_at_its_own_place_in_the_list() {
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place);
        }
    }

    #[test]
    fn no_two_reasons_share_a_text_and_only_refusals_are_called_so() {
        let texts: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(texts.len(), Reason::ALL.len());
        assert!(!Reason::Observe.is_refusal());
        assert!(Reason::NoKey.is_refusal() && Reason::Internal.is_refusal());
    }
}
