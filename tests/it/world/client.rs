//! Clients of the world: what they ask, what they get, and how they leave.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use oncegate::{
    request::{self, Reading, Rules, Secret, View},
    route::path,
};
use tokio::{io::DuplexStream, task::JoinHandle};

/// A request.
#[derive(Clone)]
pub(crate) struct Ask {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A form, from Alice.
pub(crate) fn post(target: &str, body: &str) -> Ask {
    ask(Method::POST, target, body)
        .with("content-type", "application/x-www-form-urlencoded")
        .with("cookie", "session=alice")
}

/// JSON, from nobody: a provider's callback.
pub(crate) fn post_json(target: &str, body: &str) -> Ask {
    ask(Method::POST, target, body).with("content-type", "application/json")
}

/// A page, for Alice.
pub(crate) fn get(target: &str) -> Ask {
    ask(Method::GET, target, "").with("cookie", "session=alice")
}

fn ask(method: Method, target: &str, body: &str) -> Ask {
    let ask = Ask {
        method,
        target: target.to_owned(),
        headers: HeaderMap::new(),
        body: Bytes::from(body.to_owned()),
    };
    ask.with("host", "shop.example")
}

impl Ask {
    /// In the place of all fields of that name.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers
            .insert(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a field value"));
        self
    }

    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.headers.remove(name);
        self
    }

    /// From somebody else's session.
    pub(crate) fn by(self, session: &str) -> Self {
        self.with("cookie", &format!("session={session}"))
    }

    /// What the product reads in it under the rules of a guard.
    pub(super) fn reading(&self, rules: &Rules, secret: &Secret) -> Reading {
        let (path_text, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let readings = path::read(path_text);
        let view = View {
            method: &self.method,
            host: "shop.example",
            path: &readings.path,
            query,
            headers: &self.headers,
            params: &[],
        };
        let content = request::body::read(&self.headers, &self.body, 1 << 20);
        match request::read(rules, secret, &view, &content) {
            Ok(reading) => reading,
            Err(_) => panic!("{} cannot be read", self.target),
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The only value of a field, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut lines = self.headers.get_all(name).iter();
        let first = lines.next();
        assert!(lines.next().is_none(), "{name} stands twice in {self:?}");
        first.map_or("", |line| line.to_str().expect("text"))
    }

    pub(crate) fn verdict(&self) -> &str {
        self.header("oncegate-verdict")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// Status and name of a refusal. Fails for what is none.
    pub(crate) fn refusal(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        let kind = problem["type"].as_str().expect("a type");
        let name = kind.strip_prefix("urn:oncegate:refusal:").expect("one of ours");
        (self.status.as_u16(), name.to_owned())
    }

    /// Seconds, 0 where it is not there.
    pub(crate) fn retry_after(&self) -> u64 {
        self.header("retry-after").parse().unwrap_or(0)
    }

    /// Status, end-to-end fields that come from the shop, and body: what guarantee 3 is about.
    pub(crate) fn of_the_shop(&self) -> (StatusCode, HeaderMap, Bytes) {
        let mut headers = self.headers.clone();
        for ours in [
            "oncegate-verdict",
            "cache-status",
            "idempotent-replayed",
            "x-request-id",
            "traceparent",
            "age",
            "date",
            "content-length",
        ] {
            headers.remove(ours);
        }
        (self.status, headers, self.body.clone())
    }
}

/// A request under way, in the background. A client that is dropped goes on; one that leaves is gone.
pub(crate) struct Sending(JoinHandle<Result<Answer, String>>);

impl Sending {
    pub(super) fn new(sending: impl Future<Output = Result<Answer, String>> + 'static) -> Self {
        Self(tokio::task::spawn_local(sending))
    }

    pub(crate) async fn answer(self) -> Answer {
        self.outcome().await.expect("a whole answer")
    }

    pub(crate) async fn outcome(self) -> Result<Answer, String> {
        self.0.await.expect("the client does not panic")
    }

    /// The client closes its connection.
    pub(crate) async fn leave(self) {
        assert!(!self.0.is_finished(), "it had its answer before it left");
        self.0.abort();
        let gone = self.0.await.expect_err("it had no answer");
        assert!(gone.is_cancelled());
    }
}

/// Requests on one connection, one after the other. Dropping it closes the connection.
pub(super) async fn exchange(io: DuplexStream, asks: Vec<Ask>) -> Result<Vec<Answer>, String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(io)).await.map_err(|error| error.to_string())?;
    let _connection = CutOnDrop(tokio::task::spawn_local(async move {
        // Its errors come to the request.
        let _ = connection.await;
    }));
    let mut answers = Vec::new();
    for ask in asks {
        // A fresh connection is ready. Waiting for that all the same would let `join!` turn the order of clients round.
        if !answers.is_empty() {
            sender.ready().await.map_err(|error| error.to_string())?;
        }
        let mut request = Request::new(Full::new(ask.body));
        *request.method_mut() = ask.method;
        *request.uri_mut() = ask.target.parse().expect("a target");
        *request.headers_mut() = ask.headers;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        answers.push(Answer { status: parts.status, headers: parts.headers, body });
    }
    Ok(answers)
}

struct CutOnDrop(JoinHandle<()>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
