//! What a listener answers that is there to send clients to https.

use ::http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};

use crate::gate::{
    Client, Core,
    body::Reply,
    forward::{Peer, is_forwarded_https},
};

const HTTPS_PORT: u16 = 443;

/// The answer to a request, where its listener sends clients elsewhere. What is malformed is the gate's to refuse.
pub(super) fn answer(core: &Core, client: &Client, parts: &Parts) -> Option<Response<Reply>> {
    let port = core.gate.config.listeners[client.listener].redirect_to_https?;
    if client.is_malformed() { None } else { to_https(port, &client.peer, parts) }
}

/// The same page over https. `None` where a trusted proxy says that the client came over https already: to send it
/// there again would never end.
///
/// A method that is not safe is kept by 308 (RFC 9110 section 15.4.9); old clients know 301 better.
fn to_https(port: u16, peer: &Peer, parts: &Parts) -> Option<Response<Reply>> {
    if is_forwarded_https(peer, &parts.headers) {
        return None;
    }
    let mut response = Response::new(Reply::empty());
    match location(port, parts) {
        // Without a host there is nowhere to send it to.
        None => *response.status_mut() = StatusCode::BAD_REQUEST,
        Some(location) => {
            *response.status_mut() = match parts.method {
                Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
                _ => StatusCode::PERMANENT_REDIRECT,
            };
            response.headers_mut().insert(header::LOCATION, location);
        }
    }
    Some(response)
}

fn location(port: u16, parts: &Parts) -> Option<HeaderValue> {
    let named = match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => parts.headers.get(header::HOST)?.to_str().ok()?,
    };
    // The port that was named is the one of plain HTTP. What stands in brackets is an IPv6 address.
    let host = match named.rfind(':') {
        Some(colon) if !named.ends_with(']') => &named[..colon],
        Some(_) | None => named,
    };
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    if host.is_empty() || !target.starts_with('/') {
        return None;
    }
    let location = match port {
        HTTPS_PORT => format!("https://{host}{target}"),
        port => format!("https://{host}:{port}{target}"),
    };
    HeaderValue::from_str(&location).ok()
}

#[cfg(test)]
mod tests {
    use ::http::Request;

    use super::*;
    use crate::gate::forward::Trust;

    fn answer(port: u16, trust: Trust, request: ::http::request::Builder) -> Option<(u16, String)> {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let response = to_https(port, &Peer::new(None, trust), &parts)?;
        let location = response.headers().get(header::LOCATION);
        Some((response.status().as_u16(), location.map_or("", |value| value.to_str().unwrap()).to_owned()))
    }

    #[test]
    fn a_client_is_sent_to_the_same_page_with_its_method() {
        let get = Request::get("/a/b?c=d").header("host", "shop.example:8080");
        assert_eq!(answer(443, Trust::Untrusted, get).unwrap(), (301, "https://shop.example/a/b?c=d".into()));
        let post = Request::post("/").header("host", "[::1]");
        assert_eq!(answer(8443, Trust::Untrusted, post).unwrap(), (308, "https://[::1]:8443/".into()));
        let absolute = Request::get("http://other.example/x").header("host", "shop.example");
        assert_eq!(answer(443, Trust::Untrusted, absolute).unwrap(), (301, "https://other.example/x".into()));
    }

    #[test]
    fn without_a_host_there_is_nowhere_to_send_it_to() {
        assert_eq!(answer(443, Trust::Untrusted, Request::get("/")).unwrap(), (400, String::new()));
    }

    #[test]
    fn who_came_over_https_to_a_trusted_proxy_is_served() {
        let https = || Request::get("/").header("host", "a.example").header("x-forwarded-proto", "https");
        assert_eq!(answer(443, Trust::Trusted, https()), None);
        assert_eq!(answer(443, Trust::Untrusted, https()).unwrap().0, 301);
    }
}
