//! The operator's listener: `/live`, `/ready`, `/metrics`, `/orders` for what is under way or in doubt, and `/upstreams`
//! for the shop's servers.
//!
//! It stands outside of the way of a request and never touches one. What it says of an order is what the log shows of
//! it; a path or a cookie it never answers, and it takes no body.

mod orders;
mod servers;

use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, WWW_AUTHENTICATE},
    uri::Authority,
};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::orders::Orders;
use crate::{
    gate::Gate,
    ops::{
        log::{Level, Log, json_string},
        metrics::{self, Metrics},
    },
};

const CONNECTIONS_MAX: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// One request and its answer, from the first byte to the last: a scraper that does not read holds no place.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// After an accept that failed, so that a lack of file descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many reasons not to be ready are remembered.
const REASONS_MAX: usize = 16;

/// Where operators come in.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Where the process is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stage {
    Starting,
    Ready,
    Draining,
}

/// The secret that operators send. Only its digest is kept.
#[derive(Clone, Debug)]
pub struct Token(blake3::Hash);

/// What the listener shows, shared with those who change it.
#[derive(Debug)]
pub struct AdminState {
    stage: AtomicU8,
    blockers: Mutex<Vec<&'static str>>,
    notes: Mutex<Vec<&'static str>>,
    metrics: Arc<Metrics>,
    log: Arc<Log>,
    token: Option<Token>,
    /// A host name that is ours besides `localhost`; lower-case, without a port.
    name: Option<String>,
    orders: Option<Orders>,
}

impl Token {
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(blake3::hash(secret))
    }

    /// Digests are compared in constant time, and say nothing of the length either.
    fn is(&self, given: &[u8]) -> bool {
        self.0 == blake3::hash(given)
    }
}

impl AdminState {
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, log: Arc<Log>, token: Option<Token>, name: Option<String>) -> Self {
        let stage = AtomicU8::new(Stage::Starting as u8);
        let name = name.map(|name| name.to_ascii_lowercase());
        let (blockers, notes) = (Mutex::default(), Mutex::default());
        Self { stage, blockers, notes, metrics, log, token, name, orders: None }
    }

    /// Operators may ask for this gate's orders, and resolve them.
    #[must_use]
    pub fn with_orders(self, gate: Arc<Gate>) -> Self {
        Self { orders: Some(Orders::of(gate)), ..self }
    }

    pub fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// From now on not ready, for this reason.
    pub fn block(&self, reason: &'static str) {
        let mut blockers = self.blockers.lock().unwrap_or_else(PoisonError::into_inner);
        if !blockers.contains(&reason) && blockers.len() < REASONS_MAX {
            blockers.push(reason);
        }
    }

    /// The reason has passed.
    pub fn unblock(&self, reason: &'static str) {
        self.blockers.lock().unwrap_or_else(PoisonError::into_inner).retain(|one| *one != reason);
    }

    /// From now on ready with this restriction.
    pub fn note(&self, what: &'static str) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if !notes.contains(&what) && notes.len() < REASONS_MAX {
            notes.push(what);
        }
    }

    /// The restriction has passed.
    pub fn unnote(&self, what: &'static str) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).retain(|one| *one != what);
    }

    /// With which restrictions the process is ready.
    #[must_use]
    pub fn notes(&self) -> Vec<&'static str> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the process is not ready; empty where it is.
    #[must_use]
    pub fn reasons(&self) -> Vec<&'static str> {
        let mut reasons = self.blockers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match self.stage.load(Ordering::Acquire) {
            stage if stage == Stage::Ready as u8 => {}
            stage if stage == Stage::Draining as u8 => reasons.push("draining"),
            _ => reasons.push("starting"),
        }
        reasons
    }
}

/// Serves until `stop`. Runs on a current-thread runtime, inside a `LocalSet` or a `LocalRuntime`.
pub async fn serve(listener: Listener, state: Arc<AdminState>, stop: CancellationToken) {
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = open.join_next() => continue,
            accepted = accept(&listener), if open.len() < CONNECTIONS_MAX => accepted,
        };
        match accepted {
            Ok(Accepted::Tcp(stream)) => {
                // An address that is lost already means that the peer is gone; its requests will fail by themselves.
                let loopback =
                    stream.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
                let hosts = if loopback { Hosts::OurOwn } else { Hosts::Any };
                open.spawn_local(connection(stream, hosts, Arc::clone(&state)));
            }
            Ok(Accepted::Unix(stream)) => {
                open.spawn_local(connection(stream, Hosts::Any, Arc::clone(&state)));
            }
            Err(error) => {
                state.log.event(Level::Warn, "admin-accept-failed", &[("error", &error.to_string())]);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Which names a request may call us by. A page of another origin that has bound its own name to 127.0.0.1 (DNS
/// rebinding) can read what a loopback listener answers, but cannot send another `Host` than its own name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hosts {
    OurOwn,
    Any,
}

async fn accept(listener: &Listener) -> io::Result<Accepted> {
    match listener {
        Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| Accepted::Tcp(stream)),
        Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
    }
}

async fn connection(io: impl AsyncRead + AsyncWrite + Unpin + 'static, hosts: Hosts, state: Arc<AdminState>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(respond(&request, hosts, &state).await.map(Full::new)) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(io), service);
    // A client that breaks off or is too slow has told us nothing that anybody could act on.
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, served).await;
}

/// What takes time to answer, and what does not.
async fn respond<B>(request: &Request<B>, hosts: Hosts, state: &AdminState) -> Response<Bytes> {
    let path = request.uri().path();
    let is_asked_for = orders::are_asked_for(path) || servers::are_asked_for(path);
    let Some(orders) = state.orders.as_ref().filter(|_| is_asked_for) else {
        return answer(request, hosts, state);
    };
    if hosts == Hosts::OurOwn && !is_our_own(request, state.name.as_deref()) {
        return misdirected();
    }
    match may_look(request.headers(), state) {
        May::NotLook => unauthorized(),
        May::Look if servers::are_asked_for(path) => servers::answer(orders.gate(), request),
        May::Look => orders.answer(request).await,
    }
}

fn answer<B>(request: &Request<B>, hosts: Hosts, state: &AdminState) -> Response<Bytes> {
    if hosts == Hosts::OurOwn && !is_our_own(request, state.name.as_deref()) {
        return misdirected();
    }
    let known = matches!(request.uri().path(), "/live" | "/ready" | "/metrics");
    if known && request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        // Probes of load balancers and of Kubernetes have no token; one word tells them nothing else.
        "/live" => plain(StatusCode::OK, "live\n"),
        "/ready" => ready(state, may_look(request.headers(), state)),
        "/metrics" if may_look(request.headers(), state) == May::Look => {
            let mut response = plain(StatusCode::OK, state.metrics.encode());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
            response
        }
        "/metrics" => unauthorized(),
        _ => plain(StatusCode::NOT_FOUND, "there are /live, /ready, /metrics, /orders and /upstreams\n"),
    }
}

fn misdirected() -> Response<Bytes> {
    plain(StatusCode::MISDIRECTED_REQUEST, "this listener does not answer to that name\n")
}

fn unauthorized() -> Response<Bytes> {
    let mut response = plain(StatusCode::UNAUTHORIZED, "a token is needed\n");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum May {
    Look,
    NotLook,
}

fn ready(state: &AdminState, may: May) -> Response<Bytes> {
    let reasons = state.reasons();
    if reasons.is_empty() {
        // Whether this process gets requests is not changed by it; who looks shall see it all the same.
        let notes = if may == May::Look { state.notes() } else { Vec::new() };
        return match notes.as_slice() {
            [] => plain(StatusCode::OK, "ready\n"),
            notes => plain(StatusCode::OK, format!("ready, {}\n", notes.join(", "))),
        };
    }
    if may == May::NotLook {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n");
    }
    let mut body = String::from("{\"ready\":false,\"reasons\":[");
    for (index, reason) in reasons.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        json_string(&mut body, reason);
    }
    body.push_str("]}\n");
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn may_look(headers: &HeaderMap, state: &AdminState) -> May {
    let Some(token) = &state.token else { return May::Look };
    let given =
        headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).and_then(|value| value.split_at_checked(7));
    match given {
        // The scheme has no case (RFC 9110, section 11.1).
        Some((scheme, secret))
            if scheme.eq_ignore_ascii_case(b"bearer ") && token.is(secret.trim_ascii()) =>
        {
            May::Look
        }
        Some(_) | None => May::NotLook,
    }
}

/// Exactly one `Host`, and it is an address, `localhost`, or the configured name.
fn is_our_own<B>(request: &Request<B>, name: Option<&str>) -> bool {
    let mut lines = request.headers().get_all(HOST).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let Ok(authority) = Authority::try_from(line.as_bytes()) else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || name.is_some_and(|name| host.eq_ignore_ascii_case(name))
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        task::LocalSet,
    };

    use super::*;
    use crate::ops::{log::Format, metrics::Names};

    fn state(token: Option<&str>) -> Arc<AdminState> {
        let metrics = Arc::new(Metrics::new(&Names::default()));
        let log = Log::to(io::sink(), Format::Json, Level::Info, Counter::default()).unwrap();
        let token = token.map(|secret| Token::new(secret.as_bytes()));
        Arc::new(AdminState::new(metrics, Arc::new(log), token, Some("Admin.Example".to_owned())))
    }

    fn ask(state: &AdminState, target: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = answer(&request.body(()).unwrap(), Hosts::Any, state);
        (response.status().as_u16(), String::from_utf8(response.body().to_vec()).unwrap())
    }

    #[test]
    fn readiness_says_why_not() {
        let state = state(None);
        let not = |reasons: &str| (503, format!("{{\"ready\":false,\"reasons\":[{reasons}]}}\n"));
        assert_eq!(ask(&state, "/ready", &[]), not("\"starting\""));
        state.set_stage(Stage::Ready);
        assert_eq!(ask(&state, "/ready", &[]), (200, "ready\n".to_owned()));
        state.block("store-down");
        state.block("store-down");
        assert_eq!(ask(&state, "/ready", &[]), not("\"store-down\""));
        state.set_stage(Stage::Draining);
        assert_eq!(ask(&state, "/ready", &[]), not("\"store-down\",\"draining\""));
        state.unblock("store-down");
        assert_eq!(ask(&state, "/ready", &[]), not("\"draining\""));
        assert_eq!(ask(&state, "/live", &[]).0, 200);
    }

    #[test]
    fn with_a_token_metrics_and_reasons_are_for_those_who_have_it() {
        let state = state(Some("s3cret"));
        let metrics = |authorization| ask(&state, "/metrics", &[("authorization", authorization)]).0;
        assert_eq!(ask(&state, "/metrics", &[]).0, 401);
        for wrong in ["Bearer", "Bearer ", "Bearer s3cre", "Bearer s3crets", "Basic s3cret", "s3cret"] {
            assert_eq!(metrics(wrong), 401, "{wrong}");
        }
        assert_eq!(metrics("Bearer s3cret"), 200);
        assert_eq!(metrics("bearer s3cret"), 200);
        assert_eq!(ask(&state, "/ready", &[]), (503, "not ready\n".to_owned()));
        assert!(ask(&state, "/ready", &[("authorization", "Bearer s3cret")]).1.contains("starting"));
        assert_eq!(ask(&state, "/live", &[]).0, 200);
    }

    #[test]
    fn a_rebound_name_is_not_answered() {
        let state = state(None);
        let status = |hosts: &[&str]| {
            let mut request = Request::builder().uri("/metrics");
            for host in hosts {
                request = request.header("host", *host);
            }
            answer(&request.body(()).unwrap(), Hosts::OurOwn, &state).status().as_u16()
        };
        for own in ["127.0.0.1:9191", "localhost", "LOCALHOST:1", "[::1]:9191", "admin.example:9191"] {
            assert_eq!(status(&[own]), 200, "{own}");
        }
        for foreign in
            ["evil.example", "127.0.0.1.evil.example", "a@127.0.0.1", "", "localhost.evil.example:80"]
        {
            assert_eq!(status(&[foreign]), 421, "{foreign}");
        }
        assert_eq!(status(&[]), 421);
        assert_eq!(status(&["localhost", "localhost"]), 421);
    }

    #[test]
    fn nothing_else_is_there_and_nothing_can_be_changed() {
        let state = state(None);
        assert_eq!(ask(&state, "/", &[]).0, 404);
        assert_eq!(ask(&state, "/metrics/", &[]).0, 404);
        let request = Request::post("/ready").body(()).unwrap();
        let response = answer(&request, Hosts::Any, &state);
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()["allow"], "GET, HEAD");
    }

    async fn get(address: std::net::SocketAddr, target: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_serves_over_a_socket_past_its_bound_and_ends_when_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let local = LocalSet::new();
        let serving = local.spawn_local(serve(Listener::Tcp(listener), state(None), stop.clone()));
        local
            .run_until(async {
                for _ in 0..CONNECTIONS_MAX + 3 {
                    assert!(get(address, "/live").await.ends_with("\r\n\r\nlive\n"));
                }
                let metrics = get(address, "/metrics").await;
                assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n") && metrics.ends_with("# EOF\n"));
                assert!(metrics.contains("content-type: application/openmetrics-text; version=1.0.0"));
                stop.cancel();
                serving.await.unwrap();
            })
            .await;
    }
}
