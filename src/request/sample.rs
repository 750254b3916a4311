//! Requests for the tests of this folder: small ones that have the shape of real ones. Nothing else uses this.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{
    AllOf, Content, Identity, Ignore, OnMismatch, Reading, Rules, Scope, Secret, Sharing, Source, Unread,
    View, body,
};

/// The bytes of a request and what a route made of its path.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) method: Method,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) params: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl Sample {
    pub(super) fn post(content_type: &str, body: impl Into<Bytes>) -> Self {
        let sample = Self {
            method: Method::POST,
            host: "shop.example".into(),
            path: "/checkout".into(),
            query: String::new(),
            headers: HeaderMap::new(),
            params: Vec::new(),
            body: body.into(),
        };
        sample.header("content-type", content_type)
    }

    pub(super) fn json(body: impl Into<Bytes>) -> Self {
        Self::post("application/json", body)
    }

    pub(super) fn form(body: impl Into<Bytes>) -> Self {
        Self::post("application/x-www-form-urlencoded", body)
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }

    pub(super) fn query(mut self, query: &str) -> Self {
        self.query = query.into();
        self
    }

    pub(super) fn host(mut self, host: &str) -> Self {
        self.host = host.into();
        self
    }

    pub(super) fn param(mut self, name: &str, value: &str) -> Self {
        self.params.push((name.into(), value.into()));
        self
    }

    pub(super) fn view(&self) -> View<'_> {
        View {
            method: &self.method,
            host: &self.host,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
            params: &self.params,
        }
    }

    pub(super) fn content(&self) -> Content {
        body::read(&self.headers, &self.body, 1 << 20)
    }

    pub(super) fn look(&self, source: &str) -> super::Lookup {
        Source::parse(source).unwrap().read(&self.view(), &self.content())
    }

    pub(super) fn read(&self, rules: &Rules) -> Result<Reading, Unread> {
        super::read(rules, &secret(), &self.view(), &self.content())
    }
}

pub(super) fn secret() -> Secret {
    Secret::new(*b"a fixed secret for golden vector")
}

/// Each order is a list of sources joined by ` + `.
pub(super) fn rules(order: &[&str]) -> Rules {
    Rules {
        route: "checkout".into(),
        upstream: "shop".into(),
        order: all(order),
        event: Vec::new(),
        identity: Identity::None,
        ignore: Vec::new(),
        sharing: Sharing::Same,
        scope: Scope::Request,
        on_mismatch: OnMismatch::Refuse,
        order_hash: false,
    }
}

pub(super) fn all(sources: &[&str]) -> Vec<AllOf> {
    let one = |text: &&str| text.split(" + ").map(|source| Source::parse(source).unwrap()).collect();
    sources.iter().map(one).collect()
}

pub(super) fn identity(sources: &[&str]) -> Identity {
    Identity::AllPresent(sources.iter().map(|source| Source::parse(source).unwrap()).collect())
}

pub(super) fn ignore(texts: &[&str]) -> Vec<Ignore> {
    texts.iter().map(|text| Ignore::parse(text).unwrap()).collect()
}
