//! HTTP/2 in front of a shop that speaks HTTP/1.1: with curl, h2load and a client that breaks the rules.

use std::{
    io,
    net::SocketAddr,
    sync::{Mutex, mpsc},
    thread,
};

use oncegate::server::Drained;

use super::{
    certificates::Authority,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GET, GOAWAY, HEADERS, Outcome, PING, PRIORITY,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, request,
    },
    gate::{Gate, Typed, order},
    peers::{curl, run},
    shop::{Shop, eventually, ok},
};

/// What it means where RFC 9113 section 7 gives it a number.
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;
/// Of a setting, section 6.5.2.
const INITIAL_WINDOW_SIZE: u16 = 4;

struct Edge {
    authority: Authority,
    gate: Gate,
}

impl Edge {
    fn before(shop: &Shop) -> Self {
        Self::with(shop, "", "")
    }

    fn with(shop: &Shop, listener: &str, limits: &str) -> Self {
        let authority = Authority::new();
        authority.sign("shop", &["shop.example"]);
        let listener = authority.listener(&["shop"]) + listener;
        let gate = Gate::start(&Typed { listener, limits: limits.to_owned(), ..Typed::before(shop) });
        Self { authority, gate }
    }

    fn address(&self) -> SocketAddr {
        self.gate.address
    }

    fn frames(&self) -> Frames {
        Frames::connect(&self.authority, self.address())
    }

    fn curl(&self, url: &str, arguments: &[&str]) -> String {
        let said = curl(&self.authority.path("authority.pem"), self.address(), url, arguments);
        assert!(said.err.is_empty(), "{}", said.err);
        said.out
    }

    /// Somebody who keeps the rules is served, at once.
    fn serves(&self) {
        let mut frames = self.frames();
        frames.ask(1, END_STREAM, &GET);
        assert!(matches!(frames.outcome(1), Outcome::Answered(200, _)));
    }
}

/// A shop that answers when it is told to.
fn held() -> (Shop, mpsc::Sender<()>) {
    let (go_on, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let shop = Shop::talks(move |wire, seen| {
        while let Some(request) = wire.request()? {
            seen.note(&request);
            told.lock().expect("nobody panics").recv().map_err(io::Error::other)?;
            wire.try_send(ok("done"))?;
        }
        Ok(())
    });
    (shop, go_on)
}

#[test]
fn curl_speaks_http_2_and_the_shop_sees_a_request_of_http_1() {
    let shop = Shop::counts();
    let edge = Edge::before(&shop);
    let said = edge.curl("https://shop.example/a?b=c", &["--http2", "-w", "\n%{http_version}", "-d", "x=1"]);
    assert_eq!(said, "1\n2");
    let seen = shop.only();
    assert_eq!(seen.start, "POST /a?b=c HTTP/1.1");
    for (name, value) in [
        ("host", "shop.example"),
        ("via", "2.0 oncegate"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("content-length", "3"),
    ] {
        assert_eq!(seen.all(name), [value], "{name}");
    }
    assert_eq!(seen.text(), "x=1");
}

#[test]
fn a_listener_without_http_2_speaks_http_1() {
    let shop = Shop::counts();
    let edge = Edge::with(&shop, "http2 = false", "");
    assert_eq!(edge.curl("https://shop.example/", &["--http2", "-w", " %{http_version}"]), "1 1.1");
}

#[test]
fn one_order_over_both_versions_is_paid_once() {
    let shop = Shop::counts();
    let edge = Edge::before(&shop);
    let ask = |version: &str| {
        edge.curl("https://shop.example/order?id=7", &[version, "-d", "cart", "-b", "a=1; b=2"])
    };
    assert_eq!((ask("--http2"), ask("--http1.1"), ask("--http2")), ("1".into(), "1".into(), "1".into()));
    // Cookies in crumbs, and a body in pieces, are the same request too.
    let mut frames = edge.frames();
    let mut fields = request("POST", "/order?id=7");
    fields.extend([
        ("cookie", "a=1"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("cookie", "b=2"),
    ]);
    frames.ask(1, 0, &fields);
    frames.send(frame(DATA, 0, 1, b"ca"));
    frames.send(frame(DATA, END_STREAM, 1, b"rt"));
    assert_eq!(frames.outcome(1), Outcome::Answered(200, "1".into()));
    assert_eq!(shop.only().all("cookie"), ["a=1; b=2"]);
}

#[test]
fn a_client_that_takes_its_order_back_has_placed_it_all_the_same() {
    let (shop, go_on) = held();
    let edge = Edge::before(&shop);
    let mut frames = edge.frames();
    frames.ask(1, END_STREAM, &request("POST", "/order?id=1"));
    shop.wait_for(1);
    frames.send(frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()));
    go_on.send(()).expect("the shop waits");
    frames.ask(3, END_STREAM, &request("POST", "/order?id=1"));
    assert_eq!(frames.outcome(3), Outcome::Answered(200, "done".into()));
    assert_eq!(shop.requests().len(), 1);
}

#[test]
fn what_breaks_a_rule_reaches_no_shop() {
    let shop = Shop::counts();
    let edge = Edge::before(&shop);
    let with = |name, value| [&request("POST", "/order?id=1")[..], &[(name, value)]].concat();
    let (long, many) = ("x".repeat(70_000), vec![("x-many", "1"); 101]);
    let without = |gone: &str| -> Vec<_> { GET.into_iter().filter(|(name, _)| *name != gone).collect() };
    let bad = [
        with("transfer-encoding", "chunked"),
        with("connection", "close"),
        with("connection", "x-hop"),
        with("keep-alive", "timeout=5"),
        with("proxy-connection", "keep-alive"),
        with("upgrade", "websocket"),
        with("te", "gzip"),
        with("Upper", "1"),
        with("under_score", "1"),
        with("", "1"),
        with("a b", "1"),
        with("x:y", "1"),
        with("x-crlf", "a\r\nx-injected: 1"),
        with("x-lf", "a\nb"),
        with("x-nul", "a\0b"),
        with("x-padded", " a"),
        with("x-padded", "a\t"),
        with("host", "other.example"),
        with("content-length", "+5"),
        with("content-length", "5, 5"),
        with("content-length", "18446744073709551621"),
        with("content-length", "5"),
        with("expect", "miracles"),
        with(":path", "/late"),
        with(":unknown", "1"),
        with("x-long", &long),
        [&GET[..], &many].concat(),
        without(":method"),
        without(":scheme"),
        without(":path"),
        without(":authority"),
        request("GET", ""),
        request("GET", "no-slash"),
        request("GET", "*"),
        request("GET", "/a b"),
        request("GET", "/a\r\nx: y"),
        request("GET", "/a\0"),
        request("G T", "/"),
        request("GET\r\nx: y", "/"),
        request("CONNECT", "/"),
        vec![(":method", "CONNECT"), (":authority", "shop.example:443")],
        vec![(":method", "GET"), (":scheme", "https"), (":authority", "u@shop.example"), (":path", "/")],
        vec![(":method", "GET"), (":scheme", "https"), (":authority", "a,b"), (":path", "/")],
        vec![(":method", "GET"), (":scheme", "https"), (":authority", "a\r\nb"), (":path", "/")],
        vec![
            (":status", "200"),
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "a"),
            (":path", "/"),
        ],
    ];
    for fields in bad {
        let mut frames = edge.frames();
        // In frames of a lawful size.
        let block = block(&fields);
        let mut pieces = block.chunks(16_384).peekable();
        let mut kind = HEADERS;
        while let Some(piece) = pieces.next() {
            let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            let end = if kind == HEADERS { END_STREAM } else { 0 };
            frames.send(frame(kind, last | end, 1, piece));
            kind = CONTINUATION;
        }
        let shown = format!("{:.200}", format!("{fields:?}"));
        match frames.outcome(1) {
            Outcome::Answered(status, _) => {
                assert!((400..500).contains(&status) || status == 999, "{status}: {shown}")
            }
            Outcome::Reset(_) | Outcome::Ended => {}
        }
        assert_eq!(shop.requests().len(), 0, "{shown}");
    }
    edge.serves();
}

#[test]
fn an_order_whose_body_is_not_as_long_as_it_says_is_not_placed() {
    let shop = Shop::counts();
    let edge = Edge::before(&shop);
    for (said, pieces) in
        [("5", &["cart"][..]), ("5", &["cart", "s-x"]), ("0", &["x"]), ("9", &["cart", "", ""])]
    {
        let mut frames = edge.frames();
        let fields = [&request("POST", "/order?id=1")[..], &[("content-length", said)]].concat();
        frames.ask(1, 0, &fields);
        for (number, piece) in pieces.iter().enumerate() {
            let end = if number + 1 == pieces.len() { END_STREAM } else { 0 };
            frames.send(frame(DATA, end, 1, piece.as_bytes()));
        }
        let came = frames.outcome(1);
        assert!(!matches!(came, Outcome::Answered(200, _)), "{said}: {pieces:?}: {came:?}");
    }
    assert_eq!(shop.requests().len(), 0);
    edge.serves();
}

#[test]
fn floods_end_the_connection_that_sends_them_and_harm_no_other() {
    let shop = Shop::counts();
    let edge = Edge::before(&shop);
    let begun = frame(HEADERS, END_STREAM, 1, &block(&GET)[..20]);
    let upload = frame(HEADERS, END_HEADERS, 1, &block(&request("POST", "/upload")));
    let floods: [(&str, Vec<u8>, Vec<u8>); 8] = [
        ("pings", vec![], frame(PING, 0, 0, &[0; 8])),
        ("settings", vec![], frame(SETTINGS, 0, 0, &[])),
        ("priorities", vec![], frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        ("windows", vec![], frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("continuations", begun.clone(), frame(CONTINUATION, 0, 1, &[0, 1, b'x', 1, b'y'])),
        ("empty continuations", begun, frame(CONTINUATION, 0, 1, &[])),
        ("empty data", upload, frame(DATA, 0, 1, &[])),
        ("unknown frames", vec![], frame(0xFA, 0, 0, &[])),
    ];
    for (name, first, again) in floods {
        let mut frames = edge.frames();
        frames.send(first);
        let burst = again.repeat(1000);
        // What the kernel has taken has not been read yet, so that all of them may go.
        let _ = (0..50).take_while(|_| frames.wire.try_send(&burst).is_ok()).count();
        // A connection that is only idle would be open for longer than this waits.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| frames.ended()));
        assert!(ended.is_ok(), "{name}: they were all taken");
        edge.serves();
    }
}

#[test]
fn a_client_that_begins_and_resets_is_stopped_before_the_shop_feels_it() {
    let shop = Shop::counts();
    let edge = Edge::before(&shop);
    let mut frames = edge.frames();
    let block = block(&request("POST", "/order?id=1"));
    let mut begun = 0;
    'flood: for burst in 0..1000_u32 {
        let mut bytes = Vec::new();
        for number in 0..50 {
            let stream = (burst * 50 + number) * 2 + 1;
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block));
            bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        }
        begun += 50;
        if frames.wire.try_send(&bytes).is_err() {
            break 'flood;
        }
    }
    assert!(begun < 50_000, "all of them were taken");
    assert!(matches!(frames.ended(), Some(ENHANCE_YOUR_CALM) | None));
    // All of them were one order.
    assert!(shop.requests().len() <= 1, "{}", shop.requests().len());
    edge.serves();
}

#[test]
fn one_stream_too_many_is_refused() {
    let (shop, go_on) = held();
    let edge = Edge::with(&shop, "", "streams_max = 3");
    let mut frames = edge.frames();
    for stream in [1, 3, 5, 7] {
        frames.ask(stream, END_STREAM, &GET);
    }
    assert_eq!(frames.outcome(7), Outcome::Reset(REFUSED_STREAM));
    shop.wait_for(3);
    (0..3).for_each(|_| go_on.send(()).expect("the shop waits"));
    assert_eq!(frames.outcome(5), Outcome::Answered(200, "done".into()));
    assert_eq!(shop.requests().len(), 3);
}

#[test]
fn a_drain_says_goaway_and_answers_what_was_asked() {
    let (shop, go_on) = held();
    let Edge { authority, gate } = Edge::before(&shop);
    let mut frames = Frames::connect(&authority, gate.address);
    let mut idle = Frames::connect(&authority, gate.address);
    frames.ask(1, END_STREAM, &GET);
    shop.wait_for(1);
    let drained = thread::spawn(move || gate.drain(|| false));
    while frames.next().expect("it goes on").expect("it is open").kind != GOAWAY {}
    assert_eq!(idle.ended(), Some(0));
    go_on.send(()).expect("the shop waits");
    assert_eq!(frames.outcome(1), Outcome::Answered(200, "done".into()));
    assert_eq!(frames.ended(), Some(0));
    assert_eq!(drained.join().expect("it ends"), Drained::Whole);
}

#[test]
fn a_connection_that_is_not_used_ends_with_a_goaway() {
    let shop = Shop::counts();
    let edge = Edge::with(&shop, "", "header_timeout = \"1s\"\nidle_timeout = \"1s\"");
    let mut unused = edge.frames();
    let mut used = edge.frames();
    used.ask(1, END_STREAM, &GET);
    assert_eq!(used.outcome(1), Outcome::Answered(200, "1".into()));
    assert_eq!((unused.ended(), used.ended()), (Some(0), Some(0)));
    eventually("they are counted out", || edge.gate.metric("oncegate_connections") == 0);
}

#[test]
fn half_a_head_is_not_waited_for() {
    let shop = Shop::counts();
    let edge = Edge::with(&shop, "", "header_timeout = \"1s\"");
    let mut frames = edge.frames();
    frames.send(frame(HEADERS, END_STREAM, 1, &block(&GET)[..20]));
    frames.ended();
    assert_eq!(shop.requests().len(), 0);
}

#[test]
fn an_answer_that_its_client_does_not_take_is_given_up_and_others_go_on() {
    let body = "x".repeat(1 << 20);
    let shop = Shop::answers(move |request| match request.start.contains("/large") {
        true => ok(&body),
        false => ok("small"),
    });
    let edge = Edge::with(&shop, "", "send_timeout = \"1s\"");
    let mut frames = Frames::with(&edge.authority, edge.address(), &[(INITIAL_WINDOW_SIZE, 10)]);
    frames.ask(1, END_STREAM, &request("GET", "/large"));
    assert!(matches!(frames.outcome(1), Outcome::Reset(_)));
    frames.ask(3, END_STREAM, &request("GET", "/small"));
    assert_eq!(frames.outcome(3), Outcome::Answered(200, "small".into()));
    eventually("nothing of it is left at the shop", || shop.ended() >= 1);
}

#[test]
fn a_connection_ends_after_as_many_requests_as_it_may_have() {
    let shop = Shop::counts();
    let edge = Edge::with(&shop, "", "requests_per_connection_max = 3");
    let mut frames = edge.frames();
    for stream in [1, 3, 5] {
        frames.ask(stream, END_STREAM, &GET);
        assert!(matches!(frames.outcome(stream), Outcome::Answered(200, _)));
    }
    assert_eq!(frames.ended(), Some(0));
}

#[test]
fn interim_answers_are_left_out_and_trailers_are_passed() {
    let chunked = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n\
                   HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                   4\r\npage\r\n0\r\nx-sum: 7\r\n\r\n";
    let shop = Shop::answers(move |_| chunked);
    let edge = Edge::before(&shop);
    let said =
        run("nghttp", &["-v", "--no-dep", "-H", "te: trailers", &format!("https://{}/", edge.address())], "");
    assert!(said.out.contains(":status: 200"), "{}", said.out);
    assert!(!said.out.contains("103"), "{}", said.out);
    assert!(said.out.contains("x-sum: 7"), "{}", said.out);
    assert_eq!(shop.only().all("te"), ["trailers"]);
}

#[test]
fn many_streams_at_once_are_all_served() {
    let shop = Shop::answers(|request| ok(&request.start));
    let edge = Edge::before(&shop);
    let url = format!("https://{}/page", edge.address());
    let said = run("h2load", &["-n", "3000", "-c", "6", "-m", "20", &url], "");
    assert!(said.out.contains("3000 succeeded, 0 failed, 0 errored, 0 timeout"), "{}", said.out);
    assert_eq!(shop.requests().len(), 3000);
}

#[test]
fn a_large_upload_and_a_large_answer_stream_through() {
    let shop = Shop::answers(|request| ok(&request.text()));
    let edge = Edge::before(&shop);
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let bytes: Vec<u8> =
        (0..3_000_000_u32).map(|number| b'a' + (number.wrapping_mul(77) >> 7) as u8 % 26).collect();
    std::fs::write(&from, &bytes).unwrap();
    let upload = format!("@{}", from.display());
    let said = edge.curl(
        "https://shop.example/upload",
        &["--http2", "--data-binary", &upload, "-o", to.to_str().unwrap(), "-w", "%{http_code}"],
    );
    assert_eq!(said, "200");
    assert!(std::fs::read(&to).unwrap() == bytes, "the same bytes come back");
}

#[test]
fn http_1_over_tls_is_still_there_for_who_asks_for_nothing() {
    let shop = Shop::counts();
    let edge = Edge::before(&shop);
    let client = edge.authority.client(super::certificates::Versions::Tls13, None);
    let mut wire = super::certificates::connect(&client, edge.address(), "shop.example").unwrap();
    assert_eq!(wire.ask(order("1", "cart")).status(), 200);
}
