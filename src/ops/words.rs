//! The closed sets of words that headers, log and metrics share.
//!
//! They are enums so that a label can never come from a request. It never holds a value of one exchange.

/// What was done with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Verdict {
    Lead,
    Follow,
    Replay,
    Bypass,
    Refuse,
}

/// Whose fault it is that an exchange did not end as its client wished.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Fault {
    Client,
    Upstream,
    Gate,
    Store,
}

/// Where an exchange ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Phase {
    /// The request was being read and understood.
    Read,
    /// The store was asked for the right to send.
    Claim,
    /// It stood in a lane.
    Queue,
    /// It waited for another one's answer.
    Follow,
    /// It was on its way to the shop; perhaps nothing was sent.
    Send,
    /// It was sent, the answer was awaited or read.
    Answer,
    /// What came of it was being written to the store.
    Settle,
    /// The answer was being given to the client.
    Reply,
}

/// Declares [`Reason`] together with its texts, so that no list of them can lack one.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)+) => {
        /// Why the verdict was what it was. The name of a refusal is the text of its reason.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum Reason {
            $($(#[$doc])* $variant,)+
        }

        impl Reason {
            /// All of them, in the order of declaration, so that `ALL[r as usize] == r`.
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

reasons! {
    /// The shop did the work.
    Done = "done",
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
    NoKey = "no-key",
    BodyTooLarge = "body-too-large",
    BodyUnreadable = "body-unreadable",
    PathUnreadable = "path-unreadable",
    RequestMalformed = "request-malformed",
    RequestTimeout = "request-timeout",
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

impl Reason {
    /// Whether a refusal bears this name.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        self as usize >= Self::NoKey as usize
    }
}

impl Verdict {
    pub const ALL: &'static [Self] = &[Self::Lead, Self::Follow, Self::Replay, Self::Bypass, Self::Refuse];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lead => "lead",
            Self::Follow => "follow",
            Self::Replay => "replay",
            Self::Bypass => "bypass",
            Self::Refuse => "refuse",
        }
    }
}

impl Fault {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Gate => "gate",
            Self::Store => "store",
        }
    }
}

impl Phase {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Claim => "claim",
            Self::Queue => "queue",
            Self::Follow => "follow",
            Self::Send => "send",
            Self::Answer => "answer",
            Self::Settle => "settle",
            Self::Reply => "reply",
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
        for (place, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, place);
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
