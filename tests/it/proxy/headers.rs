//! What a proxy adds to a message, what it takes away, and what it must leave alone.

use super::{
    gate::{Gate, Typed, get},
    shop::{Shop, ok},
};

const HOP: [&str; 8] =
    ["x-hop", "x-second", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "http2-settings"];

#[test]
fn fields_for_one_hop_end_here_in_both_directions() {
    let shop = Shop::answers(|_| {
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x-hop, keep-alive\r\nConnection: X-Second\r\n\
         X-Hop: a\r\nX-Second: b\r\nX-Stays: c\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\r\nok"
    });
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    for target in ["GET /free", "POST /order?id=1"] {
        let answer = client.ask(format!(
            "{target} HTTP/1.1\r\nHost: h\r\nConnection: x-hop\r\nConnection: keep-alive , X-Second\r\nX-Hop: a\r\n\
             X-Second: b\r\nX-Stays: c\r\nKeep-Alive: 300\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nProxy-Authorization: Basic eDp5\r\n\
             Content-Length: 0\r\n\r\n"
        ));
        let request = shop.requests().pop().expect("it came");
        for (whose, message) in [("request", &request), ("answer", &answer)] {
            for name in HOP {
                assert_eq!(message.get(name), None, "{target}: {whose}");
            }
            assert_eq!(message.all("x-stays"), ["c"], "{target}: {whose}");
        }
        assert_eq!(request.get("proxy-authorization"), None);
    }
}

#[test]
fn a_client_cannot_have_the_fields_removed_that_a_guard_reads() {
    let shop = Shop::answers(|_| ok("ok"));
    let gate = Gate::before(&shop);
    for name in ["cookie", "host", "content-type", "content-length", "x-forwarded-for", "via"] {
        let answer = gate.client().ask(format!(
            "POST /a HTTP/1.1\r\nHost: h\r\nConnection: close, {name}\r\nCookie: a=b\r\n\
             Content-Type: text/plain\r\nContent-Length: 1\r\n\r\nx"
        ));
        // Either nobody reads it, or everybody reads the same.
        if answer.status() != 400 {
            let request = shop.requests().pop().expect("it came");
            assert!(request.get(name).is_some(), "{name}: {request:?}");
        }
    }
}

#[test]
fn what_a_stranger_says_of_its_way_is_replaced() {
    let shop = Shop::answers(|_| ok("ok"));
    let gate = Gate::before(&shop);
    let answer = gate.client().ask(
        "GET /a HTTP/1.1\r\nHost: Shop.Example:81\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Port: 443\r\nX-Real-IP: 1.2.3.4\r\n\
         Forwarded: for=1.2.3.4;proto=https\r\nVia: 1.1 evil\r\nX-Request-Id: mine\r\n\
         traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\n\r\n",
    );
    let request = shop.only();
    assert_eq!(request.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.all("x-forwarded-proto"), ["http"]);
    assert_eq!(request.all("x-forwarded-host"), ["Shop.Example:81"]);
    assert_eq!(request.all("forwarded"), ["for=127.0.0.1;host=\"Shop.Example:81\";proto=http"]);
    assert_eq!(request.all("via"), ["1.1 oncegate"]);
    assert_eq!((request.get("x-forwarded-port"), request.get("x-real-ip")), (None, None));
    assert_eq!(request.all("host"), ["Shop.Example:81"], "byte for byte");
    let id = request.get("x-request-id").expect("one is made");
    assert!(id != "mine" && id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert_eq!(answer.all("x-request-id"), [id]);
    let trace = request.get("traceparent").expect("one is made");
    assert!(!trace.contains("0af7651916cd43dd8448eb211c80319c") && trace.len() == 55, "{trace}");
    assert_eq!(request.get("tracestate"), None);
}

#[test]
fn what_a_trusted_proxy_says_is_kept_and_added_to() {
    let shop = Shop::answers(|_| ok("ok"));
    let listener = "trusted_proxies = [\"127.0.0.0/8\"]".to_owned();
    let gate = Gate::start(&Typed { listener, ..Typed::before(&shop) });
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = gate.client().ask(format!(
        "GET /a HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\nForwarded: for=1.2.3.4;proto=https\r\n\
         Via: 1.1 edge\r\nX-Request-Id: edge-17\r\ntraceparent: {trace}\r\ntracestate: a=b\r\n\r\n"
    ));
    let request = shop.only();
    assert_eq!(request.all("x-forwarded-for"), ["1.2.3.4, 5.6.7.8, 127.0.0.1"]);
    assert_eq!(request.all("x-forwarded-proto"), ["https"]);
    assert_eq!(request.all("x-forwarded-host"), ["shop.example"]);
    assert_eq!(request.all("forwarded"), ["for=1.2.3.4;proto=https, for=127.0.0.1;host=h;proto=http"]);
    assert_eq!(request.all("via"), ["1.1 edge, 1.1 oncegate"]);
    assert_eq!((request.get("x-request-id"), answer.get("x-request-id")), (Some("edge-17"), Some("edge-17")));
    assert_eq!((request.get("traceparent"), request.get("tracestate")), (Some(trace), Some("a=b")));
}

#[test]
fn a_request_id_that_could_break_a_log_is_not_kept_from_anybody() {
    let shop = Shop::answers(|_| ok("ok"));
    let listener = "trusted_proxies = [\"127.0.0.0/8\"]".to_owned();
    let gate = Gate::start(&Typed { listener, ..Typed::before(&shop) });
    let mut client = gate.client();
    for id in ["a b", "", &"x".repeat(129)] {
        client.ask(format!("GET /a HTTP/1.1\r\nHost: h\r\nX-Request-Id: {id}\r\n\r\n"));
        let kept = shop.requests().pop().and_then(|request| request.get("x-request-id").map(str::to_owned));
        assert!(kept.is_some_and(|kept| kept != id && kept.len() == 32));
    }
}

#[test]
fn an_old_client_is_named_as_one() {
    let shop = Shop::answers(|_| ok("ok"));
    let gate = Gate::before(&shop);
    gate.client().ask("GET /a HTTP/1.0\r\nHost: h\r\n\r\n");
    // RFC 9110 section 7.6.3: the version that was received.
    assert_eq!(shop.only().all("via"), ["1.0 oncegate"]);
}

#[test]
fn everything_else_passes_as_it_is() {
    let shop = Shop::answers(|_| {
        "HTTP/1.1 207 Quite So\r\nContent-Length: 2\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nServer: naive\r\n\
         X-Bytes: caf\u{e9}\r\nX-Empty:\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nok"
    });
    let gate = Gate::before(&shop);
    let answer = gate.client().ask(
        "PROPFIND /a//b/../c;x=1?y=%zz&&z HTTP/1.1\r\nHost: h\r\nCookie: a=1; b=2\r\nX-Bytes: caf\u{e9}\r\n\
         X-Twice: a\r\nX-Twice: b\r\nAccept-Encoding: br\r\nUser-Agent: raw\r\n\r\n",
    );
    let request = shop.only();
    assert_eq!(request.start, "PROPFIND /a//b/../c;x=1?y=%zz&&z HTTP/1.1");
    assert_eq!((request.all("cookie"), request.all("x-twice")), (vec!["a=1; b=2"], vec!["a", "b"]));
    assert_eq!((request.get("x-bytes"), request.get("accept-encoding")), (Some("caf\u{e9}"), Some("br")));
    assert_eq!(answer.status(), 207);
    assert_eq!(answer.all("set-cookie"), ["a=1; Path=/", "b=2"]);
    assert_eq!((answer.get("server"), answer.get("x-bytes")), (Some("naive"), Some("caf\u{e9}")));
    assert_eq!(
        (answer.get("x-empty"), answer.all("date")),
        (Some(""), vec!["Thu, 01 Jan 1970 00:00:00 GMT"])
    );
    assert_eq!(gate.client().ask(get("/again")).status(), 207);
}

#[test]
fn an_old_client_that_names_no_host_gets_one() {
    let shop = Shop::answers(|_| ok("ok"));
    let gate = Gate::before(&shop);
    gate.client().ask("GET /a HTTP/1.0\r\n\r\n");
    gate.client().ask("GET http://shop.example/b HTTP/1.0\r\n\r\n");
    let seen = shop.requests();
    // RFC 9112 section 3.2: a request of HTTP/1.1 has exactly one.
    assert_eq!(seen[0].all("host"), [shop.address.to_string()]);
    assert_eq!(seen[1].all("host"), ["shop.example"]);
}
