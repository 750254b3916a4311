//! One order in an answer to an operator.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::{lane_text, place::Place};
use crate::{
    claim::roll::{Aboard, Named, Stage},
    gate::Gate,
    store::{Fence, KeptAs, KeptRun, Key, LaneView, Reached},
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    InDoubt,
    /// It was in doubt, and the store cannot be asked now.
    Unconfirmed,
    AtShop,
    /// Another replica has it at the shop, or a process that is gone had.
    AtShopElsewhere,
    Following,
    Queued,
    Unreadable,
    /// Its answer is kept.
    Kept,
    /// An operator has said that it is done.
    Resolved,
}

pub(super) struct Row {
    order: String,
    state: State,
    route: Option<String>,
    upstream: Option<String>,
    pub(super) fence: Option<Fence>,
    since: Option<Duration>,
    /// When the state ends by itself.
    ends_in: Option<Duration>,
    clients: Option<usize>,
    /// Of a kept answer: its status, and whether a client has it.
    answer: Option<(StatusCode, Reached)>,
    lanes: Vec<Key>,
}

impl Row {
    pub(super) fn aboard(gate: &Gate, flight: &Aboard) -> Self {
        let state = match flight.stage {
            Stage::Queued => State::Queued,
            Stage::Following => State::Following,
            Stage::AtShop => State::AtShop,
        };
        let (fence, since, clients) = (flight.fence, Some(flight.since), Some(flight.clients));
        Self { fence, since, clients, ..Self::named(gate, &flight.named, state) }
    }

    pub(super) fn in_doubt(
        gate: &Gate,
        named: &Named,
        (fence, age, remaining): (Fence, Duration, Duration),
    ) -> Self {
        let (since, ends_in) = (Some(age), Some(remaining));
        Self { fence: Some(fence), since, ends_in, ..Self::named(gate, named, State::InDoubt) }
    }

    pub(super) fn unconfirmed(gate: &Gate, named: &Named) -> Self {
        Self::named(gate, named, State::Unconfirmed)
    }

    /// What the store says of a lane; nothing where it is free.
    pub(super) fn seen(gate: &Gate, place: &Place, view: &LaneView) -> Option<Self> {
        let (state, fence, since, ends_in) = match *view {
            LaneView::Free => return None,
            LaneView::Flight { fence, lease_left } => {
                (State::AtShopElsewhere, Some(fence), None, Some(lease_left))
            }
            LaneView::InDoubt { fence, age, remaining } => {
                (State::InDoubt, Some(fence), Some(age), Some(remaining))
            }
            LaneView::Unreadable => (State::Unreadable, None, None, None),
        };
        let doubts = gate.claims.roll.doubts();
        let known = doubts.iter().find(|named| named.lanes.contains(&place.lane));
        let upstream = place.upstream.map(|number| gate.config.upstreams[number].name.clone());
        let route = known.map(|named| gate.config.routes[named.route].name.clone());
        let (order, lanes) = (place.shown.clone(), vec![place.lane]);
        Some(Self {
            order,
            state,
            route,
            upstream,
            fence,
            since,
            ends_in,
            clients: None,
            answer: None,
            lanes,
        })
    }

    /// What the store keeps of an ended run. It does not know the route.
    pub(super) fn kept(gate: &Gate, place: &Place, run: &KeptRun) -> Self {
        let (state, answer) = match run.what {
            KeptAs::Answer { status, reached } => (State::Kept, Some((status, reached))),
            KeptAs::Resolved => (State::Resolved, None),
        };
        Self {
            order: place.shown.clone(),
            state,
            route: None,
            upstream: place.upstream.map(|number| gate.config.upstreams[number].name.clone()),
            fence: Some(run.fence),
            since: Some(run.age),
            ends_in: Some(run.remaining),
            clients: None,
            answer,
            lanes: vec![place.lane],
        }
    }

    fn named(gate: &Gate, named: &Named, state: State) -> Self {
        let route = &gate.config.routes[named.route];
        Self {
            order: named.order.to_string(),
            state,
            route: Some(route.name.clone()),
            upstream: Some(gate.config.upstreams[route.upstream].name.clone()),
            fence: None,
            since: None,
            ends_in: None,
            clients: None,
            answer: None,
            lanes: named.lanes.to_vec(),
        }
    }

    pub(super) fn into_json(self) -> Value {
        let state = match self.state {
            State::InDoubt => "in-doubt",
            State::Unconfirmed => "in-doubt-unconfirmed",
            State::AtShop => "at-shop",
            State::AtShopElsewhere => "at-shop-elsewhere",
            State::Following => "following",
            State::Queued => "queued",
            State::Unreadable => "unreadable",
            State::Kept => "kept",
            State::Resolved => "resolved-done",
        };
        json!({
            "order": self.order,
            "state": state,
            "route": self.route,
            "upstream": self.upstream,
            "fence": self.fence.map(|fence| fence.0),
            "since_ms": self.since.map(millis),
            "ends_in_ms": self.ends_in.map(millis),
            "clients": self.clients,
            "status": self.answer.map(|(status, _)| status.as_u16()),
            "delivered": self.answer.map(|(_, reached)| reached == Reached::Client),
            "lanes": self.lanes.iter().map(lane_text).collect::<Vec<_>>(),
        })
    }
}

pub(super) fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
