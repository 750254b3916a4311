//! Traffic without a guard: streamed both ways, never collected.

use std::{pin::pin, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderValue, Response, StatusCode, header, request::Parts};
use tokio::time::Instant;

use super::{
    Client, TRY_AGAIN,
    alarm::Nap,
    body::{Reply, Streaming, Watch},
    core::Core,
    forward,
    renew::{self, Renewing},
};
use crate::{
    answer::refusal::Refusal,
    ops::{
        headers::{self, HopFields},
        words::CodeClass,
    },
    upstream::{Begun, FromShop, Purpose, SendError, Sent, ToShop, send},
};

/// What became of a request that was passed on, for whoever counts.
pub struct Passed {
    pub response: Response<Reply>,
    pub server: Option<usize>,
}

/// Makes an onlooker for an answer, from its head, if there is to be one.
pub type Watcher = Box<dyn FnOnce(&http::response::Parts) -> Option<Box<dyn Watch>>>;

#[expect(clippy::too_many_arguments, reason = "one exchange's parts, each used once")]
/// Passes a request on and its answer back. `watch` is given to a guard that only observes.
pub async fn pass(
    core: &Rc<Core>,
    client: &Client,
    upstream: usize,
    id: &HeaderValue,
    mut parts: Box<Parts>,
    body: ToShop,
    renewing: &Renewing,
    watch: Option<Watcher>,
) -> Result<Passed, Refusal> {
    let patience = core.gate.config.upstreams[upstream].answer_timeout;
    let hop = HopFields::of(&parts.headers);
    let protocol = headers::wants_upgrade(&parts.headers, hop);
    let purpose = if protocol.is_some() { Purpose::Upgrade } else { Purpose::Exchange };
    let trailers = forward::Trailers::of(&parts.headers, hop);
    let body = if hop.transfer_encoding { body.chunked() } else { body };
    forward::to_shop(&client.peer, id, protocol.clone(), &mut parts);
    trailers.to_shop(&mut parts.headers);
    client.pass_informational(&mut parts.extensions);
    let sent_at = Instant::now();
    let begun = Begun::default();
    let (body, taken) = body.noting(sent_at);
    let mut outgoing = Some(send::outgoing(*parts, body));
    // Pinned here and lent on: a future that is handed over by value is kept twice, by its giver and by its taker.
    let affinity = core.affinity(upstream, || client.peer.address);
    let sending = pin!(core.upstreams[upstream].send(&mut outgoing, purpose, &begun, affinity));
    let hinting = pin!(client.passing_hints(sending));
    let came = within(core, (sent_at, patience), || taken.at().unwrap_or(sent_at), hinting).await;
    let class = match &came {
        Some(Ok(sent)) => CodeClass::of(sent.response.status().as_u16()),
        Some(Err(_)) | None => CodeClass::None,
    };
    core.gate.upstream_answered(upstream, class, sent_at.elapsed());
    let sent = match came {
        Some(Ok(sent)) => sent,
        Some(Err(error)) => {
            core.gate.upstream_failed(upstream, &error);
            return Err(refusal(error));
        }
        // Nothing has left yet: this is about connecting, whatever the name of the patience that ended.
        None if begun.at().is_none() => {
            return Err(Refusal::UpstreamUnreachable { retry_after: TRY_AGAIN, cause: None });
        }
        None => return Err(Refusal::UpstreamTimeout { cause: None }),
    };
    let Sent { mut response, server } = sent;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(protocol) = protocol else { return Err(Refusal::UpstreamReset { cause: None }) };
        client.open_tunnel(hyper::upgrade::on(&mut response));
        return Ok(Passed { response: switching(id, protocol, response), server: Some(server) });
    }
    renew::of_answer(core, renewing, response.headers()).await;
    let trailers = forward::Trailers::of(response.headers(), HopFields::of(response.headers()));
    forward::to_client(id, response.headers_mut());
    trailers.announce(response.headers_mut());
    let (parts, body) = response.into_parts();
    let streaming = match watch.and_then(|watch| watch(&parts)) {
        None => Streaming::new(body, patience),
        Some(watch) => Streaming::watched(body, patience, watch),
    };
    Ok(Passed { response: Response::from_parts(parts, Reply::Shop(streaming)), server: Some(server) })
}

/// Waits for something, from now on and as long as `patience` after the last sign of life, which may come meanwhile.
///
/// Signs of life are when the shop took the last piece of a request, since an upload may take longer than the shop
/// may; or that nothing has been sent yet, since connecting has bounds of its own.
pub async fn within<T>(
    core: &Core,
    (now, patience): (Instant, Duration),
    last_alive: impl Fn() -> Instant,
    mut awaited: impl Future<Output = T> + Unpin,
) -> Option<T> {
    let (mut now, mut left) = (now, patience);
    loop {
        let nap = Nap::new(&core.alarms, now, left);
        tokio::select! {
            biased;
            came = &mut awaited => return Some(came),
            () = nap => {}
        }
        now = Instant::now();
        left = (last_alive() + patience).saturating_duration_since(now);
        if left.is_zero() {
            return None;
        }
    }
}

/// 101: the connection becomes a tunnel, and says so in its own hop-by-hop headers.
fn switching(id: &HeaderValue, asked: HeaderValue, response: Response<FromShop>) -> Response<Reply> {
    let (mut parts, _) = response.into_parts();
    let chosen = parts.headers.get(header::UPGRADE).cloned().unwrap_or(asked);
    forward::to_client(id, &mut parts.headers);
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(header::UPGRADE, chosen);
    Response::from_parts(parts, Reply::empty())
}

fn refusal(error: SendError) -> Refusal {
    match error {
        SendError::Unreachable { .. } | SendError::NoServer => {
            Refusal::UpstreamUnreachable { retry_after: TRY_AGAIN, cause: Some(Arc::new(error)) }
        }
        SendError::Full { .. } => {
            Refusal::Overloaded { retry_after: TRY_AGAIN, bound: "connections_max of the servers" }
        }
        SendError::Broken { .. } => Refusal::UpstreamReset { cause: Some(Arc::new(error)) },
    }
}
