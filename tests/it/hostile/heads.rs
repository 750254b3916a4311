//! Cases 16 to 29: what a head asks for, what it tries to take away, and what may come behind it.

use super::stage::{Stage, request};

const BAD: &[u16] = &[400];

/// A whole second request, to be hidden in places where only a confused server finds it.
const HIDDEN: &[u8] =
    b"POST /checkout HTTP/1.1\r\nHost: shop.example\r\nCookie: session=eve\r\nContent-Length: 0\r\n\r\n";

fn get(lines: &str) -> Vec<u8> {
    request(&format!("GET /page HTTP/1.1\nHost: shop.example\n{lines}"), b"")
}

fn order(session: &str, body: &[u8]) -> Vec<u8> {
    request(&format!("POST /checkout HTTP/1.1\nHost: shop.example\nCookie: session={session}"), body)
}

#[test]
fn heads_beyond_their_bounds_are_refused() {
    let mut stage = Stage::new();
    let long = "x".repeat(300 * 1024);
    let many = "X: y\n".repeat(5000);
    stage.refuses(&[
        ("16: one long field", get(&format!("X: {long}")), &[431]),
        ("16: a long cookie", get(&format!("Cookie: session={long}")), &[431]),
        ("16: many fields", get(&many), &[431]),
        ("16: a long name", get(&format!("{long}: x")), &[431]),
        ("16: a long target", request(&format!("GET /{long} HTTP/1.1\nHost: shop.example"), b""), &[414]),
        (
            "16: a long query",
            request(&format!("POST /checkout?{long} HTTP/1.1\nHost: shop.example"), b""),
            &[414],
        ),
        ("16: a long method", request(&format!("{long} / HTTP/1.1\nHost: shop.example"), b""), &[501]),
        ("16: a line without end", long.clone().into_bytes(), &[400, 414, 431, 501]),
    ]);
}

#[test]
fn a_request_line_that_is_not_exactly_three_words_is_refused() {
    let mut stage = Stage::new();
    let cases: Vec<_> = [
        "GET  /page HTTP/1.1",
        "GET /page  HTTP/1.1",
        "GET\t/page\tHTTP/1.1",
        "GET /page HTTP/1.1 ",
        " GET /page HTTP/1.1",
        "GET /page",
        "GET /page HTTP/0.9",
        "GET /page HTTP/2.0",
        "GET /page HTTP/1.10",
        "GET /page http/1.1",
        "GET /page HTTP/1.1\t",
        "GET /page HTTP/11",
        "GET /page HTTP/1.",
        "GET /page HTTP/1,1",
        "GET /page HTTP /1.1",
        "GET /page HTTPS/1.1",
        "GET /pa ge HTTP/1.1",
        "/page HTTP/1.1",
        "GET HTTP/1.1",
        "G\u{fc}T /page HTTP/1.1",
        "GET(/page HTTP/1.1",
        "GET /page HTTP/1.1 HTTP/1.1",
        "GET /page HTTP/3.0",
        "PRI * HTTP/2.0",
        "\u{16}\u{3}\u{1} / HTTP/1.1",
    ]
    .map(|line| ("17", format!("{line}\r\nHost: shop.example\r\n\r\n").into_bytes(), &[400, 505][..]))
    .into();
    stage.refuses(&cases);
}

#[test]
fn a_host_that_is_not_exactly_one_is_refused() {
    let mut stage = Stage::new();
    let mut cases = vec![("18: none", b"GET / HTTP/1.1\r\n\r\n".to_vec(), BAD)];
    for hosts in [
        "Host: a.example\nHost: a.example",
        "Host: a.example\nhOST: b.example",
        "Host: a.example, b.example",
        "Host: user@shop.example",
        "Host: shop.example/path",
        "Host: shop.example:port",
        "Host: shop.example:99999",
        "Host: shop.example:80:80",
        "Host: ",
        "Host: shop.example:",
        "Host: shop example",
        "Host: [::1",
        "Host: ::1",
        "Host: shop.example?x",
        "Host: shop.example#x",
        "Host: http://shop.example",
        "Host: shop.example\\x",
        "Host: %73hop.example",
        "Host: shop\u{e9}.example",
        "Host: shop.example;x",
        "Host: shop.example:+80",
    ] {
        cases.push(("18", request(&format!("GET / HTTP/1.1\n{hosts}"), b""), BAD));
        cases.push((
            "18: guarded",
            request(&format!("POST /checkout HTTP/1.1\nCookie: session=a\n{hosts}"), b""),
            BAD,
        ));
    }
    stage.refuses(&cases);
}

#[test]
fn a_target_that_names_another_server_is_refused_and_one_that_names_ours_is_one_clean_request() {
    let mut stage = Stage::new();
    let line = |line: &str| request(&format!("{line} HTTP/1.1\nHost: shop.example"), b"");
    stage.refuses(&[
        ("19", line("GET http://evil.example/page"), BAD),
        ("19", line("POST http://evil.example/checkout"), BAD),
        ("19", line("GET http://shop.example:81/page"), BAD),
        ("19", line("GET http://user@shop.example/page"), BAD),
        ("19", line("GET http:///page"), BAD),
        ("19", request("GET http://shop.example/page HTTP/1.1", b""), BAD),
        ("20", line("CONNECT shop.example:443"), &[400, 405, 501]),
        ("20", line("CONNECT evil.example:22"), &[400, 405, 501]),
        ("20", line("CONNECT /checkout"), &[400, 405, 501]),
        ("20", line("GET shop.example:80"), BAD),
        ("20", line("GET *"), BAD),
        ("20", line("POST *"), BAD),
        ("20", line("GET @evil.example/page"), BAD),
        ("20", line("GET file:///etc/passwd"), BAD),
        ("20", line("GET gopher://x/"), BAD),
        ("20", line("GET page"), BAD),
        ("20", line("GET ?x=y"), BAD),
        ("20", line("GET \\page"), BAD),
        ("21", line("GET /page#fragment"), BAD),
        ("21", line("GET /page?x#fragment"), BAD),
        ("21", line("GET /pa\u{1}ge"), BAD),
        ("21", line("GET /pa\u{7f}ge"), BAD),
        ("21", line("POST /check\u{e9}out"), BAD),
        ("21", line("GET /pa\u{0}ge"), BAD),
        ("21", line("GET /page<x>"), BAD),
    ]);
    for (line, target) in [
        ("GET http://shop.example/page?a=b", "/page?a=b"),
        ("GET HTTP://SHOP.example/page", "/page"),
        ("GET http://shop.example", "/"),
        ("GET http://shop.example?a=b", "/?a=b"),
        ("OPTIONS *", "*"),
    ] {
        let (answer, seen) =
            stage.ask_and_look(&request(&format!("{line} HTTP/1.1\nHost: shop.example"), b""));
        stage.check(line);
        assert_eq!((answer.status, seen.len()), (200, 1), "{line}");
        assert_eq!(
            (seen[0].target.as_str(), seen[0].field("host").as_deref()),
            (target, Some("shop.example"))
        );
    }
    // The guard goes by the target's authority as it does by Host.
    let absolute =
        request("POST http://shop.example/checkout HTTP/1.1\nHost: shop.example\nCookie: session=a", b"x=1");
    let (first, seen) = stage.ask_and_look(&absolute);
    assert_eq!((first.verdict(), seen.len()), ("lead", 1));
    assert_eq!(stage.ask(&order("a", b"x=1")).verdict(), "replay");
}

#[test]
fn connection_options_cannot_take_away_what_a_guard_or_a_shop_goes_by() {
    let mut stage = Stage::new();
    let mut cases = Vec::new();
    for option in [
        "Cookie",
        "Idempotency-Key",
        "X-Forwarded-For",
        "Host",
        "Content-Length",
        "close, Cookie",
        "cOOKIE",
        "Authorization",
        "Transfer-Encoding",
        "Content-Type",
        "Oncegate-Fence",
        "keep-alive, content-encoding",
        "X-HTTP-Method-Override",
    ] {
        let lines = format!("Connection: {option}\nContent-Length: 3\n\na=b");
        cases.push((
            "22",
            request(&format!("POST /checkout HTTP/1.1\nHost: shop.example\nCookie: session=a\n{lines}"), b""),
            BAD,
        ));
        cases.push(("22: second line", get(&format!("Connection: close\nConnection: {option}")), BAD));
    }
    cases.push(("22: no names", get("Connection: \"close\""), BAD));
    stage.refuses(&cases);
}

#[test]
fn what_is_for_one_hop_ends_here() {
    let mut stage = Stage::new();
    let lines = "Connection: X-Hop, keep-alive\nConnection: X-Other\nX-Hop: 1\nX-Other: 2\nKeep-Alive: timeout=5\n\
                 Proxy-Connection: keep-alive\nTE: gzip;q=0.5, trailers\nTrailer: X\nProxy-Authorization: Basic x\nX-Stays: 3";
    let guarded = format!("POST /checkout HTTP/1.1\nHost: shop.example\nCookie: session=hop\n{lines}");
    for bytes in [get(lines), request(&guarded, b"a=b")] {
        let (answer, seen) = stage.ask_and_look(&bytes);
        stage.check("23");
        assert_eq!((answer.status, seen.len()), (200, 1));
        for name in ["x-hop", "x-other", "keep-alive", "proxy-connection", "proxy-authorization"] {
            assert_eq!(seen[0].field(name), None, "{name} went on");
        }
        // No `Connection` line names the TE, so it was left over from another hop; a body that is not sent in chunks
        // has no trailers to announce.
        for name in ["connection", "te", "trailer"] {
            assert_eq!(seen[0].field(name), None, "{name} went on");
        }
        assert_eq!(seen[0].field("x-stays").as_deref(), Some("3"));
    }
}

#[test]
fn an_upgrade_that_the_shop_does_not_make_opens_nothing() {
    let mut stage = Stage::new();
    for protocol in ["websocket", "h2c", "foo", "HTTP/2.0", "TLS/1.2", "h2c, websocket", "WebSocket"] {
        for (path, cookie) in [("/page", "session=up"), ("/checkout", &*format!("session=up-{protocol}"))] {
            let mark = stage.shop.mark();
            let head = format!(
                "POST {path} HTTP/1.1\nHost: shop.example\nCookie: {cookie}\nConnection: Upgrade\nUpgrade: {protocol}\n\
                 HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"
            );
            // A second request right behind it: it is a request of its own, and on the guarded path is guarded.
            let behind = format!(
                "POST /checkout HTTP/1.1\nHost: shop.example\nCookie: session=behind-{path}-{protocol}\nConnection: close"
            );
            let bytes = [request(&head, b"a=b"), request(&behind, b"c=d")].concat();
            let cuts = stage.splits(bytes.len()).remove(1);
            let answers = stage.open(&bytes, &cuts).until_end();
            assert_eq!(
                answers.iter().map(|answer| answer.status).collect::<Vec<_>>(),
                [200, 200],
                "{protocol}"
            );
            let seen = stage.shop.since(mark);
            stage.check("24");
            assert_eq!(seen.len(), 2, "{protocol} on {path}");
            assert!(seen[1].is_guarded());
            assert_eq!(seen[0].field("http2-settings"), None);
            // Only WebSocket goes on, and nowhere near a guard: HTTP/2 in a tunnel would walk past every route.
            let passed = seen[0].field("upgrade").map(|name| name.to_ascii_lowercase());
            let expected = (path == "/page" && protocol.eq_ignore_ascii_case("websocket"))
                .then(|| "websocket".to_owned());
            assert_eq!(passed, expected, "{protocol} on {path}");
        }
    }
}

#[test]
fn a_client_is_told_to_continue_only_where_its_body_is_wanted() {
    let mut stage = Stage::new();
    let head = |path: &str, session: &str, length: usize| {
        let lines = format!("POST {path} HTTP/1.1\nHost: shop.example\nCookie: session={session}");
        request(&format!("{lines}\nExpect: 100-continue\nContent-Length: {length}"), b"")
    };
    // The second time it is a replay, and the body is read all the same: nobody could tell which order it is.
    for (path, verdict) in [("/checkout", "lead"), ("/checkout", "replay"), ("/page", "")] {
        let mut raw = stage.open(&head(path, "waits", 3), &[]);
        assert_eq!(raw.any_answer_to("POST").map(|answer| answer.status), Some(100), "{path}");
        raw.send(b"a=b");
        let answer = raw.answer().expect("an answer");
        assert_eq!((answer.status, answer.verdict()), (200, verdict));
        stage.check("25: waits");
    }
    assert_eq!(stage.shop.since(0).iter().filter(|seen| seen.field("expect").is_some()).count(), 0);
    // Body sent at once.
    let mut raw = stage.open(&[head("/checkout", "at-once", 3), b"a=b".to_vec()].concat(), &[]);
    assert_eq!(raw.answer().map(|answer| answer.status), Some(200));
    stage.check("25: at once");
    // Too large: refused without a 100, and what follows is no request.
    let mark = stage.shop.mark();
    let mut raw = stage.open(&[head("/checkout", "large", 5 << 20), HIDDEN.repeat(3)].concat(), &[]);
    assert_eq!(raw.any_answer_to("POST").map(|answer| answer.status), Some(413));
    raw.finish();
    assert_eq!(raw.until_end(), []);
    stage.check("25: large");
    assert_eq!(stage.shop.since(mark), []);
    stage.refuses(&[
        ("25: unknown", get("Expect: 200-ok"), &[417]),
        ("25: two", get("Expect: 100-continue, x"), &[417]),
    ]);
}

/// Case 26, CVE-2025-4366: the answer comes before the body is read, and the body is a request.
#[test]
fn the_body_of_a_request_that_is_not_sent_on_is_never_read_as_a_request() {
    let mut stage = Stage::with(
        r#"
[[route]]
name = "checkout"
upstream = "shop"
match = { methods = ["POST"], path = "/checkout" }
guard = { mode = "once", order = ["cookie:session"], identity = ["cookie:session"], on_no_key = "refuse", body_max = "1KiB" }

[[route]]
name = "page"
upstream = "shop"
match = { path = { regex = "^/(page|bystander)$" } }
"#,
    );
    let end = request("GET /page HTTP/1.1\nHost: shop.example\nConnection: close", b"");
    let large = HIDDEN.repeat(50);
    let chunked = |lines: &str| {
        let chunk = [format!("{:x}\r\n", large.len()).as_bytes(), &large, b"\r\n0\r\n\r\n"].concat();
        [request(&format!("{lines}\nTransfer-Encoding: chunked"), b""), chunk].concat()
    };
    assert_eq!(stage.ask(&order("known", HIDDEN)).verdict(), "lead");
    let cases = [
        ("a replay", order("known", HIDDEN), 200),
        ("no order key", request("POST /checkout HTTP/1.1\nHost: shop.example", HIDDEN), 400),
        ("too large", order("new", &large), 413),
        (
            "too large, in chunks",
            chunked("POST /checkout HTTP/1.1\nHost: shop.example\nCookie: session=new"),
            413,
        ),
        ("no route", request("POST /nowhere HTTP/1.1\nHost: shop.example", HIDDEN), 404),
        ("no route, large", request("POST /nowhere HTTP/1.1\nHost: shop.example", &large), 404),
        ("no route, in chunks", chunked("POST /nowhere HTTP/1.1\nHost: shop.example"), 404),
        (
            "a path in doubt",
            request("POST /%63heckout%00 HTTP/1.1\nHost: shop.example\nCookie: session=n", HIDDEN),
            400,
        ),
        ("CONNECT", request("CONNECT shop.example:80 HTTP/1.1\nHost: shop.example:80", HIDDEN), 405),
    ];
    for (name, bytes, status) in cases {
        let bytes = [bytes, end.clone()].concat();
        for cuts in stage.splits(bytes.len()) {
            let mark = stage.shop.mark();
            let got: Vec<u16> =
                stage.open(&bytes, &cuts).until_end().iter().map(|answer| answer.status).collect();
            stage.check(name);
            let seen = stage.shop.since(mark);
            // Either it was read to its end and the page behind it is served, or the connection was closed.
            assert!(got == [status, 200] || got == [status], "{name}: {got:?}");
            let targets: Vec<&str> = seen.iter().map(|seen| seen.target.as_str()).collect();
            assert_eq!(targets, ["/page"].repeat(got.len() - 1), "{name}: what the shop saw");
        }
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_and_each_goes_its_own_way() {
    let mut stage = Stage::new();
    let page = |name: &str| request(&format!("GET /{name} HTTP/1.1\nHost: shop.example"), b"");
    let last = request("GET /last HTTP/1.1\nHost: shop.example\nConnection: close", b"");
    let run = |stage: &mut Stage, bytes: &[u8]| {
        let cuts = stage.splits(bytes.len()).remove(1);
        let mark = stage.shop.mark();
        let answers = stage.open(bytes, &cuts).until_end();
        stage.check("27");
        let told = answers
            .iter()
            .map(|answer| format!("{} {}", answer.status, answer.verdict()))
            .collect::<Vec<_>>();
        let targets = stage.shop.since(mark).iter().map(|seen| seen.target.clone()).collect::<Vec<_>>();
        (told, targets)
    };
    let (told, targets) =
        run(&mut stage, &[order("p1", b"a=b"), page("two"), order("p1", b"a=b"), last.clone()].concat());
    assert_eq!(told, ["200 lead", "200 ", "200 replay", "200 "]);
    assert_eq!(targets, ["/checkout", "/two", "/last"]);
    // Garbage behind an order: the order is answered, then the garbage.
    for garbage in [
        "garbage\r\n\r\n",
        "GET /admin\r\n\r\n",
        "\u{0}\u{1}\u{2}",
        "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ] {
        let first = order(&format!("g{}", garbage.len()), b"a=b");
        let (told, targets) = run(&mut stage, &[first, garbage.into(), page("never")].concat());
        assert_eq!(told, ["200 lead", "400 refuse"], "{garbage:?}");
        assert_eq!(targets, ["/checkout"]);
    }
    // The body is longer than its length says.
    let longer = [order("longer", b"a=b"), b"&c=d".to_vec(), last].concat();
    let (told, targets) = run(&mut stage, &longer);
    assert_eq!((told.len(), targets), (2, vec!["/checkout".to_owned()]));
    // After `Connection: close` nothing is read.
    let closing = "POST /checkout HTTP/1.1\nHost: shop.example\nCookie: session=closing\nConnection: close";
    let (told, targets) = run(&mut stage, &[request(closing, b"a=b"), page("never")].concat());
    assert_eq!((told, targets), (vec!["200 lead".to_owned()], vec!["/checkout".to_owned()]));
}

#[test]
fn a_body_under_any_method_is_a_body() {
    let mut stage = Stage::new();
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "FOO"] {
        for framing in ["length", "chunks"] {
            let lines = format!("{method} /page HTTP/1.1\nHost: shop.example");
            let bytes = match framing {
                "length" => request(&lines, HIDDEN),
                _ => {
                    let chunk =
                        [format!("{:x}\r\n", HIDDEN.len()).as_bytes(), HIDDEN, b"\r\n0\r\n\r\n"].concat();
                    [request(&format!("{lines}\nTransfer-Encoding: chunked"), b""), chunk].concat()
                }
            };
            let mark = stage.shop.mark();
            let end = request("GET /last HTTP/1.1\nHost: shop.example\nConnection: close", b"");
            let mut raw = stage.open(&[bytes, end].concat(), &[]);
            let first = raw.answer_to(method).map(|answer| answer.status);
            let rest: Vec<u16> = raw.until_end().iter().map(|answer| answer.status).collect();
            stage.check("28");
            assert_eq!((first, rest), (Some(200), vec![200]), "{method} by {framing}");
            let seen = stage.shop.since(mark);
            let targets: Vec<_> =
                seen.iter().map(|seen| (seen.method.as_str(), seen.target.as_str())).collect();
            assert_eq!(targets, [(method, "/page"), ("GET", "/last")], "{method} by {framing}");
            assert_eq!(seen[0].body, HIDDEN);
        }
    }
}

#[test]
fn names_that_cgi_would_take_for_others_are_refused() {
    let mut stage = Stage::new();
    let cases: Vec<_> = [
        "Content_Length: 5",
        "Transfer_Encoding: chunked",
        "Idempotency_Key: x",
        "X_Forwarded_For: 1.2.3.4",
        "Content_Type: application/json",
        "HTTP_HOST: evil.example",
        "_: x",
        "X_: y",
        "Oncegate_Fence: 1",
    ]
    .into_iter()
    .flat_map(|line| {
        let guarded = format!("POST /checkout HTTP/1.1\nHost: shop.example\nCookie: session=u\n{line}");
        [("29", get(line), BAD), ("29", request(&guarded, b"a=b"), BAD)]
    })
    .collect();
    stage.refuses(&cases);
}
