//! Is this request one that every server behind us reads the way we do, and then: what would it be in HTTP/1.1?
//!
//! h2 has refused by now what RFC 9113 sections 8.2 and 8.3 call malformed: fields of a connection, `te` but for
//! `trailers`, upper-case names, pseudo-fields that are missing, repeated or late, and bodies that are not as long as
//! they say. Here are the rules of [`crate::edge::strict`] that are not about framing, so that no client can say over
//! HTTP/2 what it could not over HTTP/1.1. Nothing is repaired.

use http::{HeaderMap, HeaderValue, Method, Uri, header, request::Parts};

use crate::{
    config::Limits,
    edge::strict::{Violation, rules},
};

/// Refuses, or gives the request the form that one of HTTP/1.1 has: its target without a server, the server in `Host`,
/// its cookies in one line.
pub(super) fn settle(parts: &mut Parts, limits: &Limits) -> Result<(), Violation> {
    if parts.headers.len() > limits.headers_max {
        return Err(rules::TOO_MANY_FIELDS);
    }
    fields(&parts.headers)?;
    rules::method(parts.method.as_str().as_bytes())?;
    if parts.method == Method::CONNECT {
        // The gate has the answer to it.
        return Ok(());
    }
    host(parts)?;
    target(parts, rules::target_bytes_max(limits.header_bytes_max))?;
    join_cookies(&mut parts.headers);
    // Trailers of a request would have to keep rules that nobody has looked at: hyper sends only what is announced.
    parts.headers.remove(header::TRAILER);
    Ok(())
}

fn fields(headers: &HeaderMap) -> Result<(), Violation> {
    for (name, value) in headers {
        rules::name(name.as_str().as_bytes())?;
        rules::value(value.as_bytes())?;
        if *name == header::EXPECT {
            rules::expect(value.as_bytes())?;
        }
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        rules::length(length.as_bytes(), lengths.next().is_some())?;
    }
    Ok(())
}

/// One name of the server, whether it stands in `:authority`, in `host` or in both (RFC 9113 section 8.3.1).
fn host(parts: &mut Parts) -> Result<(), Violation> {
    let mut lines = parts.headers.get_all(header::HOST).iter();
    let named = lines.next();
    if lines.next().is_some() {
        return Err(rules::HOST_TWICE);
    }
    match (parts.uri.authority(), named) {
        (Some(authority), Some(host))
            if !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) =>
        {
            Err(rules::HOSTS_DIFFER)
        }
        (_, Some(host)) => rules::host(host.as_bytes()),
        (Some(authority), None) => {
            rules::host(authority.as_str().as_bytes())?;
            let host = HeaderValue::from_str(authority.as_str()).map_err(|_| rules::HOST_MISSING)?;
            parts.headers.insert(header::HOST, host);
            Ok(())
        }
        (None, None) => Err(rules::HOST_MISSING),
    }
}

fn target(parts: &mut Parts, bytes_max: usize) -> Result<(), Violation> {
    let target = parts.uri.path_and_query().ok_or(rules::BAD_TARGET)?;
    rules::target(parts.method == Method::OPTIONS, target.as_str().as_bytes(), bytes_max)?;
    parts.uri = Uri::from(target.clone());
    Ok(())
}

/// A client may cut its cookies up, to compress them better; everybody else has them in one line (RFC 9113 section
/// 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut line = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        line.extend_from_slice(b"; ");
        line.extend_from_slice(crumb.as_bytes());
    }
    // All of them were values, so that what stands between them is one too.
    if let Ok(line) = HeaderValue::from_maybe_shared(bytes::Bytes::from(line)) {
        headers.insert(header::COOKIE, line);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Request, request::Builder};

    use super::*;

    fn limits() -> Limits {
        let config = "[[listener]]\naddress = '127.0.0.1:0'\n[[upstream]]\nname = 's'\nservers = ['http://a']\n\
                      [[route]]\nname = 'r'\nupstream = 's'\n";
        let config = crate::config::Config::from_text("test", config.to_owned()).unwrap().config;
        assert_eq!(config.limits.header_timeout, Duration::from_secs(10));
        config.limits
    }

    fn settled(request: Builder) -> Result<Parts, u16> {
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        settle(&mut parts, &limits()).map_err(|violation| violation.status)?;
        Ok(parts)
    }

    #[test]
    fn a_request_gets_the_form_that_it_would_have_in_http_1() {
        let parts = settled(
            Request::get("https://shop.example:8443/a?b=c")
                .header("cookie", "a=1")
                .header("x", "y")
                .header("cookie", "b=2; c=3")
                .header("trailer", "x-sum"),
        )
        .unwrap();
        assert_eq!((parts.uri.to_string(), parts.uri.authority()), ("/a?b=c".to_owned(), None));
        assert_eq!(parts.headers["host"], "shop.example:8443");
        assert_eq!(parts.headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
        assert!(!parts.headers.contains_key("trailer"));
    }

    #[test]
    fn there_is_one_server_name() {
        let both = |host| settled(Request::get("https://shop.example/").header("host", host)).map(drop);
        assert_eq!(both("SHOP.example"), Ok(()));
        assert_eq!(both("other.example"), Err(400));
        assert_eq!(settled(Request::get("/").header("host", "shop.example")).map(drop), Ok(()));
        assert_eq!(settled(Request::get("/")).map(drop), Err(400));
        let twice = Request::get("/").header("host", "a").header("host", "a");
        assert_eq!(settled(twice).map(drop), Err(400));
        for bad in ["u@shop.example", "a,b", "", "a:b"] {
            assert_eq!(settled(Request::get("/").header("host", bad)).map(drop), Err(400), "{bad}");
        }
        assert_eq!(settled(Request::get("https://u@shop.example/")).map(drop), Err(400));
    }

    #[test]
    fn what_http_1_forbids_is_forbidden_here() {
        let with = |name: &str, value: &str| {
            settled(Request::get("https://shop.example/").header(name, value)).map(drop)
        };
        for (name, value, status) in [
            ("content_length", "5", 400),
            ("x-a", " padded", 400),
            ("x-a", "padded\t", 400),
            ("expect", "200-ok", 417),
            ("content-length", "05x", 400),
        ] {
            assert_eq!(with(name, value), Err(status), "{name}: {value}");
        }
        let lengths = Request::post("https://a/").header("content-length", "5").header("content-length", "5");
        assert_eq!(settled(lengths).map(drop), Err(400));
        let many = (0..101).fold(Request::get("https://a/"), |request, number| request.header("x", number));
        assert_eq!(settled(many).map(drop), Err(431));
        let long = format!("https://a/{}", "a".repeat(17 << 10));
        assert_eq!(settled(Request::get(long)).map(drop), Err(414));
        let any =
            |method: &str| settled(Request::builder().method(method).uri("*").header("host", "a")).map(drop);
        assert_eq!((any("OPTIONS"), any("GET")), (Ok(()), Err(400)));
        let method = "A".repeat(33);
        assert_eq!(settled(Request::builder().method(&*method).uri("https://a/")).map(drop), Err(501));
    }
}
