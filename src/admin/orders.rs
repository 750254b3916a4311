//! Orders, for an operator: what is under way in this process, what is in doubt, and the operator's word on it.
//!
//! An order is named as the log shows it, or by its lane (`lane:` and hex digits). What a name means is decided here,
//! what may be done about it by the store: a flight that runs is never freed. Every change is logged.

mod place;
pub(super) mod question;
mod row;

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};

use self::{
    place::{Place, places},
    question::{As, Problem, Question},
    row::Row,
};
use crate::{
    claim::roll::{Aboard, Named},
    gate::Gate,
    ops::log::{Level, chain},
    store::{InDoubtPolicy, Key, LaneView, Resolution, Resolved, Standing, StoreError},
};

/// How many orders are listed at a time.
const ROWS_MAX: usize = 1000;
/// For everything that one question asks of the store.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Orders {
    gate: Arc<Gate>,
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Orders")
    }
}

/// Whether a path is answered here.
pub(super) fn are_asked_for(path: &str) -> bool {
    path == "/orders" || path.starts_with("/orders/")
}

impl Orders {
    pub(super) fn of(gate: Arc<Gate>) -> Self {
        Self { gate }
    }

    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Answers who may ask; the caller has seen to that.
    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Response<Bytes> {
        let answered = match Question::of(request) {
            Ok(question) => tokio::time::timeout(PATIENCE, self.find_out(question)).await,
            Err(problem) => Ok(Err(problem)),
        };
        match answered.unwrap_or(Err(Problem::Store(StoreError::Deadline))) {
            Ok(found) => answer(StatusCode::OK, &found),
            Err(problem) => answer(problem.status(), &problem.to_json()),
        }
    }

    async fn find_out(&self, question: Question) -> Result<Value, Problem> {
        match question {
            Question::List => Ok(self.list().await),
            Question::Show(key) => self.show(&key).await,
            Question::Resolve(key, word) => self.resolve(&key, word).await,
            Question::Forget(key) => self.forget(&key).await,
        }
    }

    /// What is in doubt first: that is what somebody gets up for.
    async fn list(&self) -> Value {
        let roll = &self.gate.claims.roll;
        let (mut rows, mut store_error) = (Vec::new(), None);
        for named in roll.doubts() {
            let view = match &store_error {
                None => self.doubt_of(&named).await,
                Some(_) => Ok(Some(Row::unconfirmed(&self.gate, &named))),
            };
            match view {
                Ok(row) => rows.extend(row),
                Err(error) => {
                    store_error = Some(chain(&error));
                    rows.push(Row::unconfirmed(&self.gate, &named));
                }
            }
        }
        let (aboard, more) = roll.aboard(ROWS_MAX, |_| true);
        rows.extend(aboard.iter().map(|flight| Row::aboard(&self.gate, flight)));
        let cut = more || rows.len() > ROWS_MAX || roll.left_out(longest_hold(&self.gate));
        rows.truncate(ROWS_MAX);
        self.told(rows, cut, store_error)
    }

    /// The doubt that an order stands in. One that is over is taken off the roll.
    async fn doubt_of(&self, named: &Named) -> Result<Option<Row>, StoreError> {
        let mut is_over = true;
        for &lane in &named.lanes {
            match self.gate.claims.store.inspect(lane).await? {
                LaneView::InDoubt { fence, age, remaining } => {
                    return Ok(Some(Row::in_doubt(&self.gate, named, (fence, age, remaining))));
                }
                LaneView::Free => {}
                LaneView::Flight { .. } | LaneView::Unreadable => is_over = false,
            }
        }
        if is_over {
            self.gate.claims.roll.settled(&named.lanes);
        }
        Ok(None)
    }

    fn told(&self, rows: Vec<Row>, cut: bool, store_error: Option<String>) -> Value {
        let standing = match self.gate.claims.store.standing() {
            Standing::Up => "up",
            Standing::Down => "down",
            Standing::Forgot => "forgot",
        };
        json!({
            "replica": self.gate.replica,
            "store": standing,
            "store_error": store_error,
            "cut": cut,
            "orders": rows.into_iter().map(Row::into_json).collect::<Vec<_>>(),
        })
    }

    async fn show(&self, key: &str) -> Result<Value, Problem> {
        let places = places(&self.gate, key)?;
        let aboard = self.aboard(&places);
        let mut rows: Vec<Row> = aboard.iter().map(|flight| Row::aboard(&self.gate, flight)).collect();
        for (place, view) in self.look(&places).await? {
            let known = rows.iter().any(|row| row.fence.is_some() && row.fence == fence_of(&view));
            if !known {
                rows.extend(Row::seen(&self.gate, place, &view));
            }
        }
        let cut = rows.len() > ROWS_MAX;
        rows.truncate(ROWS_MAX);
        let mut told = self.told(rows, cut, None);
        told["looked_at"] = places.iter().map(|place| place.to_json(&self.gate)).collect();
        Ok(told)
    }

    fn aboard(&self, places: &[Place]) -> Vec<Aboard> {
        let is_there = |named: &Named| places.iter().any(|place| named.lanes.contains(&place.lane));
        self.gate.claims.roll.aboard(ROWS_MAX, is_there).0
    }

    async fn look<'p>(&self, places: &'p [Place]) -> Result<Vec<(&'p Place, LaneView)>, StoreError> {
        let mut views = Vec::with_capacity(places.len());
        for place in places {
            views.push((place, self.gate.claims.store.inspect(place.lane).await?));
        }
        Ok(views)
    }

    async fn resolve(&self, key: &str, word: As) -> Result<Value, Problem> {
        let places = places(&self.gate, key)?;
        let views = self.look(&places).await?;
        let doubts: Vec<&Place> = of_doubts(&views);
        let fences: BTreeSet<_> = views.iter().filter_map(|(_, view)| doubt_fence(view)).collect();
        let Some(&place) = doubts.first() else { return Err(no_doubt(&views)) };
        if fences.len() > 1 {
            let named = doubts.iter().map(|place| place.to_json(&self.gate)).collect();
            return Err(Problem::Ambiguous(named));
        }
        let refused_for = longest_record(&self.gate, place.upstream);
        let resolution = match word {
            As::Done => Resolution::Done(refused_for),
            As::Free => Resolution::Free,
        };
        match self.gate.claims.store.resolve(place.lane, resolution).await? {
            Resolved::Changed => {}
            Resolved::Running => return Err(Problem::Running),
            Resolved::Nothing => return Err(Problem::NothingInDoubt),
        }
        let fence = fences.first().map(ToString::to_string).unwrap_or_default();
        self.log("order-resolved", place, &[("as", word.as_str()), ("fence", &fence)]);
        let mut told = place.to_json(&self.gate);
        told["resolved"] = word.as_str().into();
        if word == As::Done {
            told["refused_for_ms"] = row::millis(refused_for).into();
        }
        Ok(told)
    }

    async fn forget(&self, key: &str) -> Result<Value, Problem> {
        let places = places(&self.gate, key)?;
        let (mut total, mut forgotten) = (0, Vec::new());
        for place in &places {
            let dropped = self.gate.claims.store.forget(place.lane).await?;
            if dropped > 0 {
                self.log("order-forgotten", place, &[("records", &dropped.to_string())]);
                let mut told = place.to_json(&self.gate);
                told["records"] = dropped.into();
                forgotten.push(told);
            }
            total += dropped;
        }
        match total {
            0 => Err(match of_doubts(&self.look(&places).await?).is_empty() {
                true => Problem::NothingKept,
                false => Problem::InDoubt,
            }),
            total => Ok(json!({ "forgotten": total, "at": forgotten })),
        }
    }

    /// Of what operators do there is a trace.
    fn log(&self, what: &str, place: &Place, more: &[(&str, &str)]) {
        let lane = place.lane.short();
        let upstream = place.upstream.map_or("", |number| self.gate.config.upstreams[number].name.as_str());
        let mut fields = vec![("order", place.shown.as_str()), ("upstream", upstream), ("lane", &lane)];
        fields.extend_from_slice(more);
        self.gate.log.event(Level::Warn, what, &fields);
    }
}

fn of_doubts<'p>(views: &[(&'p Place, LaneView)]) -> Vec<&'p Place> {
    views.iter().filter(|(_, view)| doubt_fence(view).is_some()).map(|(place, _)| *place).collect()
}

fn doubt_fence(view: &LaneView) -> Option<u64> {
    match view {
        LaneView::InDoubt { fence, .. } => Some(fence.0),
        LaneView::Free | LaneView::Flight { .. } | LaneView::Unreadable => None,
    }
}

fn fence_of(view: &LaneView) -> Option<crate::store::Fence> {
    match view {
        LaneView::InDoubt { fence, .. } | LaneView::Flight { fence, .. } => Some(*fence),
        LaneView::Free | LaneView::Unreadable => None,
    }
}

fn no_doubt(views: &[(&Place, LaneView)]) -> Problem {
    if views.iter().any(|(_, view)| matches!(view, LaneView::Flight { .. })) {
        return Problem::Running;
    }
    match views.iter().any(|(_, view)| *view == LaneView::Unreadable) {
        true => Problem::Unreadable,
        false => Problem::NothingInDoubt,
    }
}

/// Until when the record would have lived: the longest of the upstream's routes, since the doubt does not say whose it
/// is. Where the upstream is not known either, the longest of all.
fn longest_record(gate: &Gate, upstream: Option<usize>) -> Duration {
    let routes = gate.config.routes.iter().filter(|route| upstream.is_none_or(|one| route.upstream == one));
    routes.filter_map(|route| route.guard.as_ref()).map(|guard| guard.replay_for).max().unwrap_or_default()
}

fn longest_hold(gate: &Gate) -> Duration {
    let guards = gate.config.routes.iter().filter_map(|route| route.guard.as_ref());
    let holds = guards.map(|guard| match guard.in_doubt {
        InDoubtPolicy::Hold(time) => time,
        InDoubtPolicy::Retry => Duration::ZERO,
    });
    holds.max().unwrap_or_default()
}

/// A lane as an operator may paste it.
fn lane_text(lane: &Key) -> String {
    format!("lane:{}", lane.hex(32))
}

fn answer(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = super::plain(status, format!("{body}\n"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
