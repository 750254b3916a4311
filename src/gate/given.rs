//! What a client of a guarded exchange is given: the shop's own answer, or that of another request.
//!
//! Nothing here decides who gets what, and no client waits here for the store: it is told in the background once a kept
//! answer has reached one. An answer that was not kept becomes a refusal, never an empty page.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use super::{
    body::{Delivered, Reply},
    core::{self, Core},
    desk::LeadersOwn,
    forward, lead,
};
use crate::{
    answer::{
        refusal::Refusal,
        replay::{self, How, Share, Storing},
    },
    claim::Keep,
    config::Guard,
    request::Reading,
    store::{Hold, Judged, Kept, Owner, Record},
};

/// The leader's client gets the shop's own headers.
pub(super) fn leaders_answer(
    id: &HeaderValue,
    own: LeadersOwn,
    answer: &Record,
    stored: Storing,
    delivered: Option<Delivered>,
) -> Response<Reply> {
    let body = match &answer.body {
        Kept::Whole(bytes) => bytes.clone(),
        Kept::Dropped => Bytes::new(),
    };
    // Without a body its length is that of an answer to HEAD, which only the shop knows (RFC 9110 section 9.3.2).
    let (is_empty, length) = (body.is_empty(), body.len());
    let data = Some(body).filter(|_| !is_empty);
    let mut response = Response::new(Reply::Whole { data, delivered, lent: Some(own.lent) });
    *response.status_mut() = own.status;
    *response.headers_mut() = own.headers;
    forward::to_client(id, response.headers_mut());
    if !is_empty && !forward::says_length(response.headers(), length) {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    replay::decorate(response.headers_mut(), How::Lead(stored), 0);
    response
}

pub(super) fn streamed(id: &HeaderValue, own: LeadersOwn) -> Response<Reply> {
    let LeadersOwn { status, headers, stream, .. } = own;
    let mut response = Response::new(stream.map_or_else(Reply::empty, Reply::relay));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    forward::to_client(id, response.headers_mut());
    replay::decorate(response.headers_mut(), How::Lead(Storing::Unstored), 0);
    response
}

/// A kept answer for somebody whose request was not sent.
pub(super) fn give(
    id: &HeaderValue,
    record: &Record,
    (how, judged): (How, Judged),
    share: Share,
    delivered: Option<Delivered>,
) -> Result<Response<Reply>, Refusal> {
    let given = replay::respond(record, how, share, core::unix_now());
    let response = given.map_err(|replay::NotKept| Refusal::AnswerTooLarge {
        answered: record.status,
        judged,
        next: match (judged, share) {
            (Judged::Done | Judged::Pending, Share::Leader | Share::SameIdentity) => {
                record.headers.get(&header::LOCATION)
            }
            (Judged::Done | Judged::Pending, Share::NoIdentity) | (Judged::Failed, _) => None,
        },
    })?;
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(forward::X_REQUEST_ID, id.clone());
    let data = Some(body).filter(|bytes| !bytes.is_empty());
    Ok(Response::from_parts(parts, Reply::Whole { data, delivered, lent: None }))
}

/// Tells the store that a client has the answer: `replay_for` begins with the first one, instead of
/// `replay_unseen_for`. It is told although both are equally long: an answer that a retry gets at the end of its
/// undelivered life has a life before it, in which that retry may be repeated.
pub(super) fn delivered(core: &Core, guard: &Guard, judged: Judged, hold: Arc<Hold>) -> Option<Delivered> {
    let keep = lead::keep(guard, judged, hold.fingerprint.is_some());
    matches!(keep, Keep::For { .. }).then(|| Delivered::new(Arc::clone(&core.gate.claims), hold))
}

pub(super) fn hold_of(reading: &Reading, record: &Record, lease: Duration) -> Arc<Hold> {
    Arc::new(Hold {
        owner: Owner(0),
        fence: record.fence,
        lanes: reading.lanes.clone(),
        fingerprint: reading.fingerprint,
        scope: reading.scope,
        lease,
    })
}
