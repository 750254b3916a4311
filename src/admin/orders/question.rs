//! What an operator asks, and why there is no answer.

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header::CONTENT_TYPE};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::{ops::log::chain, store::StoreError};

/// The longest name of an order, in bytes: several parts, or an order as the log shows it.
const NAME_BYTES_MAX: usize = 8 << 10;
/// A header that no page of another origin can have a browser send without asking us first, which we do not answer.
const OPERATOR: &str = "oncegate-operator";

#[derive(PartialEq, Eq, Debug)]
pub(super) enum Question {
    List,
    Show(String),
    Resolve(String, As),
    Forget(String),
}

/// An operator's word on an order in doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum As {
    Done,
    Free,
}

impl As {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Free => "free",
        }
    }
}

/// Why there is no answer, or nothing was done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(
        "there are GET /orders, GET /orders/KEY, POST /orders/KEY/resolve?as=done|free and POST /orders/KEY/forget"
    )]
    Path,
    #[error("`{0}` is not for this: GET looks, POST changes")]
    Method(Method),
    #[error(
        "a change needs `Content-Type: application/json` or a header `Oncegate-Operator`, which a web page cannot send"
    )]
    Forgeable,
    #[error("say as=done (the shop did the work) or as=free (it did not)")]
    Word,
    #[error("the order's name is no UTF-8 text of 1 to 8192 bytes")]
    Name,
    #[error("a lane is `lane:` and at least the 8 hex digits that the log shows")]
    LaneName,
    #[error("nothing of that name is under way here, and no guarded route has an order key of that form")]
    Unnamed,
    #[error("the name stands for several orders in doubt: say which one by its lane")]
    Ambiguous(Vec<Value>),
    #[error(
        "it is at the shop now, and a flight that runs cannot be freed or resolved: wait for its answer, or until it is in \
         doubt"
    )]
    Running,
    #[error(
        "the store holds something there that this version cannot read; a replica of another version may be able to"
    )]
    Unreadable,
    #[error("nothing is in doubt there: it was answered, resolved or freed, or its hold has ended")]
    NothingInDoubt,
    #[error("no answer is kept there")]
    NothingKept,
    #[error("no answer is kept there, and the order is in doubt: resolve it")]
    InDoubt,
    #[error("{}; it is not known whether anything was changed", chain(.0))]
    Store(#[from] StoreError),
}

impl Problem {
    fn name(&self) -> &'static str {
        match self {
            Self::Path => "no-such-path",
            Self::Method(_) => "wrong-method",
            Self::Forgeable => "header-needed",
            Self::Word => "no-such-resolution",
            Self::Name | Self::LaneName => "bad-name",
            Self::Unnamed => "unknown-order",
            Self::Ambiguous(_) => "ambiguous",
            Self::Running => "running",
            Self::Unreadable => "unreadable",
            Self::NothingInDoubt => "nothing-in-doubt",
            Self::NothingKept => "nothing-kept",
            Self::InDoubt => "in-doubt",
            Self::Store(_) => "store",
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Path | Self::Unnamed | Self::NothingInDoubt | Self::NothingKept => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Forgeable => StatusCode::FORBIDDEN,
            Self::Word | Self::Name | Self::LaneName => StatusCode::BAD_REQUEST,
            Self::Ambiguous(_) | Self::Running | Self::Unreadable | Self::InDoubt => StatusCode::CONFLICT,
            Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let mut told = json!({ "error": self.name(), "message": self.to_string() });
        if let Self::Ambiguous(which) = self {
            told["which"] = Value::from(which.clone());
        }
        told
    }
}

impl Question {
    pub(super) fn of<B>(request: &Request<B>) -> Result<Self, Problem> {
        let path = request.uri().path();
        let Some(rest) = path.strip_prefix("/orders/") else {
            return looks(request.method()).map(|()| Self::List);
        };
        let (key, verb) = match rest.split_once('/') {
            None => (rest, None),
            Some((key, verb)) => (key, Some(verb)),
        };
        match verb {
            None => {
                looks(request.method())?;
                Ok(Self::Show(name(key)?))
            }
            Some("resolve") => {
                changes(request)?;
                Ok(Self::Resolve(name(key)?, word(request.uri().query())?))
            }
            Some("forget") => {
                changes(request)?;
                Ok(Self::Forget(name(key)?))
            }
            Some(_) => Err(Problem::Path),
        }
    }
}

fn looks(method: &Method) -> Result<(), Problem> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Problem::Method(method.clone())),
    }
}

fn changes<B>(request: &Request<B>) -> Result<(), Problem> {
    if request.method() != Method::POST {
        return Err(Problem::Method(request.method().clone()));
    }
    if cannot_be_forged(request.headers()) { Ok(()) } else { Err(Problem::Forgeable) }
}

/// A form or a picture on any web page has a browser send a POST to any address, with what it knows to log in by. It
/// cannot choose these headers, unless we agree when the browser asks (a preflight, which is `OPTIONS`).
pub(in crate::admin) fn cannot_be_forged(headers: &HeaderMap) -> bool {
    let essence = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
    };
    headers.contains_key(OPERATOR) || headers.get(CONTENT_TYPE).is_some_and(essence)
}

fn name(encoded: &str) -> Result<String, Problem> {
    let decoded = percent_decode_str(encoded).decode_utf8().map_err(|_| Problem::Name)?;
    match decoded.len() {
        1..=NAME_BYTES_MAX => Ok(decoded.into_owned()),
        _ => Err(Problem::Name),
    }
}

/// Said once: of two words one would be picked.
fn word(query: Option<&str>) -> Result<As, Problem> {
    match query {
        Some("as=done") => Ok(As::Done),
        Some("as=free") => Ok(As::Free),
        Some(_) | None => Err(Problem::Word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Question, &'static str> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Question::of(&request.body(()).unwrap()).map_err(|problem| problem.name())
    }

    #[test]
    fn a_name_is_taken_out_of_the_path_as_it_was_put_in() {
        assert_eq!(ask("GET", "/orders", &[]), Ok(Question::List));
        assert_eq!(ask("GET", "/orders/a%2Fb%20c+d", &[]), Ok(Question::Show("a/b c+d".to_owned())));
        assert_eq!(ask("GET", "/orders/a/b", &[]), Err("no-such-path"));
        assert_eq!(ask("GET", "/orders/", &[]), Err("bad-name"));
        assert_eq!(ask("GET", "/orders/%ff", &[]), Err("bad-name"));
    }

    #[test]
    fn a_change_that_a_web_page_could_send_is_none() {
        let post = |headers: &[_]| ask("POST", "/orders/7/resolve?as=free", headers);
        for kind in
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"]
        {
            assert_eq!(post(&[("content-type", kind)]), Err("header-needed"), "{kind}");
        }
        assert_eq!(post(&[]), Err("header-needed"));
        let free = || Ok(Question::Resolve("7".to_owned(), As::Free));
        assert_eq!(post(&[("content-type", "Application/JSON; charset=utf-8")]), free());
        assert_eq!(post(&[("oncegate-operator", "1")]), free());
        assert_eq!(
            ask("GET", "/orders/7/resolve?as=free", &[("oncegate-operator", "1")]),
            Err("wrong-method")
        );
        assert_eq!(ask("OPTIONS", "/orders/7/forget", &[]), Err("wrong-method"));
    }

    #[test]
    fn a_word_is_one_of_two_and_said_once() {
        let header = [("oncegate-operator", "1")];
        for query in ["", "?as=", "?as=Done", "?as=done&as=free", "?as=free&x=1"] {
            let asked = ask("POST", &format!("/orders/7/resolve{query}"), &header);
            assert_eq!(asked, Err("no-such-resolution"), "{query}");
        }
    }
}
