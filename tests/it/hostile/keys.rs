//! Cases 54 to 63: which order, which request, and whose. What differs must never share, and what is spoofed is gone.

use std::thread;

use oncegate::config::Config;

use super::stage::{Stage, request};

const ROUTES: &str = r#"
[[route]]
name = "choice"
upstream = "shop"
match = { path = "/choice/{cart?}" }
guard = { mode = "once", order = ["header:x-order", "query:order", "path:cart", "cookie:cart", "json:/order"], identity = "none", on_no_key = "refuse" }

[[route]]
name = "both"
upstream = "shop"
match = { path = "/both" }
guard = { mode = "once", order = [["form:a", "form:b"]], identity = "none", on_no_key = "refuse" }

[[route]]
name = "events"
upstream = "shop"
match = { path = "/events" }
guard = { mode = "once", order = ["json:/order"], event = ["header:idempotency-key"], identity = ["cookie:session", "header:authorization"] }

[[route]]
name = "pay"
upstream = "shop"
match = { path = "/pay" }
guard = { mode = "once", order = ["form:order"], identity = ["cookie:session", "header:authorization"] }

[[route]]
name = "cancel"
upstream = "shop"
match = { path = "/cancel" }
guard = { mode = "once", order = ["form:order"], identity = ["cookie:session", "header:authorization"] }

[[route]]
name = "everything-else"
upstream = "shop"
"#;

fn post(path: &str, lines: &str, kind: &str, body: &str) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\nHost: shop.example\nContent-Type: {kind}\n{lines}");
    request(head.trim_end(), body.as_bytes())
}

fn json(path: &str, lines: &str, body: &str) -> Vec<u8> {
    post(path, lines, "application/json", body)
}

fn form(path: &str, lines: &str, body: &str) -> Vec<u8> {
    post(path, lines, "application/x-www-form-urlencoded", body)
}

/// Status and verdict.
fn told(stage: &mut Stage, bytes: &[u8]) -> String {
    let answer = stage.ask(bytes);
    stage.check(&String::from_utf8_lossy(bytes[..bytes.len().min(300)].as_ref()));
    format!("{} {}", answer.status, answer.verdict())
}

#[test]
fn the_first_source_that_is_found_names_the_order_and_one_that_stands_twice_names_none() {
    let mut stage = Stage::with(ROUTES);
    // Each pair is one order by the first source that both have, whatever the later ones say.
    for (number, (one, other)) in [
        (
            json("/choice?order=q", "X-Order: h", "{\"order\":\"a\"}"),
            json("/choice?order=p", "X-Order: h", "{\"order\":\"b\"}"),
        ),
        (
            json("/choice/c?order=r", "Cookie: cart=k", "{}"),
            json("/choice/d?order=r", "Cookie: cart=l", "{}"),
        ),
        (json("/choice/e", "Cookie: cart=m", "{}"), json("/choice/e", "Cookie: cart=n", "{\"x\":1}")),
    ]
    .into_iter()
    .enumerate()
    {
        stage.shop.hold();
        let mark = stage.shop.mark();
        let mut first = stage.open(&one, &[]);
        stage.shop.wait_for(mark, 1);
        let mut second = stage.open(&other, &[]);
        for _ in 0..20 {
            stage.check("54");
        }
        assert_eq!(stage.shop.since(mark).len(), 1, "pair {number} is one order, so the second one waits");
        stage.shop.release();
        let verdicts =
            [first.answer(), second.answer()].map(|answer| answer.expect("an answer").verdict().to_owned());
        assert_eq!(verdicts, ["lead", "lead"], "pair {number} are two requests");
        assert_eq!(stage.shop.most_at_once(), 1);
    }
    for twice in [
        json("/choice", "X-Order: a\nX-Order: b", "{}"),
        json("/choice", "X-Order: a\nX-Order: a", "{}"),
        json("/choice?order=a&order=b", "", "{}"),
        json("/choice?order=a&or%64er=b", "", "{}"),
        json("/choice", "Cookie: cart=a; cart=b", "{}"),
        json("/choice", "Cookie: cart=a\nCookie: cart=b", "{}"),
        json("/choice", "", "{\"order\":1,\"order\":2}"),
    ] {
        assert_eq!(told(&mut stage, &twice), "400 refuse");
    }
}

#[test]
fn an_idempotency_key_is_optional_bounded_and_single() {
    let mut stage = Stage::with(ROUTES);
    let event = |key: &str, body: &str| json("/events", &format!("Cookie: session=anna\n{key}"), body);
    assert_eq!(told(&mut stage, &event("", "{\"order\":1}")), "200 lead");
    assert_eq!(told(&mut stage, &event("", "{\"order\":1}")), "200 replay");
    // Empty is absent, so it is the same request.
    assert_eq!(told(&mut stage, &event("Idempotency-Key:", "{\"order\":1}")), "200 replay");
    for odd in ["\"quoted\"", "un quoted", "j\u{fc}rgen", "a,b", "8e03978e-40d5-43dd-bc93-6894a57f9324"] {
        assert_eq!(
            told(&mut stage, &event(&format!("Idempotency-Key: {odd}"), "{\"order\":2}")),
            "200 lead",
            "{odd}"
        );
        assert_eq!(
            told(&mut stage, &event(&format!("Idempotency-Key: {odd}"), "{\"order\":2}")),
            "200 replay",
            "{odd}"
        );
    }
    for (key, status) in [
        (format!("Idempotency-Key: {}", "k".repeat(30_000)), "400 refuse"),
        (format!("Idempotency-Key: {}", "k".repeat(1 << 20)), "431 refuse"),
        ("Idempotency-Key: \"half of a quoted key".to_owned(), "400 refuse"),
        ("Idempotency-Key: a\u{1}b, and more".to_owned(), "400 refuse"),
        ("Idempotency-Key: a\nIdempotency-Key: b".to_owned(), "400 refuse"),
        ("Idempotency-Key: a\nIdempotency-Key: a".to_owned(), "400 refuse"),
    ] {
        assert_eq!(told(&mut stage, &event(&key, "{\"order\":3}")), status, "{key:.40}");
    }
    assert_eq!(stage.shop.since(0).iter().filter(|seen| seen.body == b"{\"order\":3}").count(), 0);
}

#[test]
fn a_key_that_comes_again_with_another_body_is_a_mismatch() {
    let mut stage = Stage::with(ROUTES);
    let event = |body: &str| json("/events", "Cookie: session=anna\nIdempotency-Key: k1", body);
    assert_eq!(told(&mut stage, &event("{\"order\":1,\"sum\":10}")), "200 lead");
    // Blanks and the order of members mean nothing; a digit does.
    assert_eq!(told(&mut stage, &event("{ \"sum\" : 10 ,\n\"order\":1}")), "200 replay");
    for other in [
        "{\"order\":1,\"sum\":11}",
        "{\"order\":1,\"sum\":10.0}",
        "{\"order\":1,\"sum\":\"10\"}",
        "{\"order\":1}",
    ] {
        assert_eq!(told(&mut stage, &event(other)), "422 refuse", "{other}");
    }
    assert_eq!(stage.shop.mark(), 1);
    // In flight as well.
    stage.shop.hold();
    let mut first = stage
        .open(&json("/events", "Cookie: session=anna\nIdempotency-Key: k2", "{\"order\":5,\"sum\":1}"), &[]);
    stage.shop.wait_for(1, 1);
    let mut other = stage
        .open(&json("/events", "Cookie: session=anna\nIdempotency-Key: k2", "{\"order\":5,\"sum\":2}"), &[]);
    assert_eq!(other.answer().map(|answer| answer.status), Some(422));
    stage.shop.release();
    assert_eq!(first.answer().map(|answer| answer.status), Some(200));
    assert_eq!(stage.shop.mark(), 2);
}

#[test]
fn two_operations_on_one_order_both_run_and_never_at_once() {
    let mut stage = Stage::with(ROUTES);
    for round in 0..5 {
        let mark = stage.shop.mark();
        stage.shop.hold();
        let body = format!("order={round}");
        let mut pay = stage.open(&form("/pay", "Cookie: session=anna", &body), &[]);
        stage.shop.wait_for(mark, 1);
        let mut cancel = stage.open(&form("/cancel", "Cookie: session=anna", &body), &[]);
        let mut again = stage.open(&form("/pay", "Cookie: session=anna", &body), &[]);
        // Another order is not held up by it.
        let mut other =
            stage.open(&form("/pay", "Cookie: session=anna", &format!("order=other{round}")), &[]);
        stage.shop.wait_for(mark, 2);
        let targets =
            |stage: &Stage| stage.shop.since(mark).iter().map(|seen| seen.target.clone()).collect::<Vec<_>>();
        assert_eq!(targets(&stage), ["/pay", "/pay"]);
        stage.shop.release();
        let answers =
            [&mut pay, &mut cancel, &mut again, &mut other].map(|raw| raw.answer().expect("an answer"));
        let verdicts = answers.each_ref().map(|answer| answer.verdict());
        assert_eq!((verdicts[0], verdicts[1], verdicts[3]), ("lead", "lead", "lead"));
        assert!(matches!(verdicts[2], "follow" | "replay"), "{}", verdicts[2]);
        assert_eq!(targets(&stage), ["/pay", "/pay", "/cancel"]);
        assert_eq!(stage.shop.most_at_once(), 2, "the two orders, and nothing beside");
        stage.check("57");
    }
}

#[test]
fn the_same_bytes_of_other_customers_never_share_an_answer() {
    let mut stage = Stage::with(ROUTES);
    const WHO: [&str; 7] = [
        "Cookie: session=anna",
        "Cookie: session=ben",
        "Cookie: session=anna2",
        "Cookie: session=ann",
        "Authorization: Bearer anna\nCookie: x=carl",
        "Authorization: Bearer ben\nCookie: x=dora",
        "Cookie: session=anna\nAuthorization: Bearer anna",
    ];
    stage.shop.hold();
    let clients: Vec<_> = WHO
        .into_iter()
        .flat_map(|who| std::iter::repeat_n(who, 3))
        .map(|who| (who, stage.open(&form("/pay", who, "order=7"), &[])))
        .collect();
    stage.shop.wait_for(0, 1);
    stage.shop.release();
    let asked: Vec<_> = clients
        .into_iter()
        .map(|(who, mut raw)| thread::spawn(move || (who, raw.answer().expect("an answer"))))
        .collect();
    let mut texts: Vec<String> = Vec::new();
    for thread in asked {
        let (who, answer) = thread.join().expect("no assertion in there failed");
        assert_eq!(answer.status, 200);
        // The shop says in its answer whose cookies it got.
        let cookie = who.lines().find_map(|line| line.strip_prefix("Cookie: ")).unwrap_or_default();
        assert!(answer.text().ends_with(&format!(" {cookie}")), "{who} got {:?}", answer.text());
        texts.push(answer.text());
    }
    texts.sort_unstable();
    texts.dedup();
    assert_eq!((stage.shop.mark(), texts.len()), (WHO.len(), WHO.len()), "{texts:#?}");
    assert_eq!(stage.shop.most_at_once(), 1, "one order, one lane");
    stage.check("58");
}

#[test]
fn requests_without_the_declared_identity_share_with_nobody() {
    let mut stage = Stage::with(ROUTES);
    let bytes = form("/pay", "", "order=7");
    for _ in 0..3 {
        assert_eq!(told(&mut stage, &bytes), "200 lead");
    }
    assert_eq!(stage.shop.mark(), 3);
}

#[test]
fn two_hosts_and_two_routes_never_share() {
    let mut stage = Stage::with(ROUTES);
    let at = |host: &str, path: &str| {
        let text = String::from_utf8(form(path, "Cookie: session=anna", "order=7")).expect("text");
        text.replace("Host: shop.example", &format!("Host: {host}")).into_bytes()
    };
    for (host, path) in [
        ("shop.example", "/pay"),
        ("other.example", "/pay"),
        ("shop.example.other", "/pay"),
        ("shop.example", "/cancel"),
        ("127.0.0.1", "/pay"),
        ("[::1]", "/pay"),
    ] {
        assert_eq!(told(&mut stage, &at(host, path)), "200 lead", "{host}{path}");
    }
    for same in ["shop.example", "SHOP.example", "shop.example:80", "shop.example."] {
        assert_eq!(told(&mut stage, &at(same, "/pay")), "200 replay", "{same}");
    }
}

#[test]
fn parts_that_look_alike_when_joined_are_different_orders() {
    let mut stage = Stage::with(ROUTES);
    let long = "x".repeat(3000);
    for body in [
        "a=a&b=bc",
        "a=ab&b=c",
        "a=abc&b=%00",
        "a=%00&b=abc",
        "a=a%00&b=bc",
        "a=a&b=%00bc",
        "a=a%00b&b=c",
        "a=%00%00&b=%00",
        "a=%00&b=%00%00",
        "a=a:b&b=c",
        "a=a&b=b:c",
        "a=a%26b%3Dbc&b=x",
        &format!("a={long}&b=1"),
        &format!("a={long}1&b=1"),
    ] {
        let answer = stage.ask(&form("/both", "", body));
        assert!(
            answer.verdict() == "lead" || answer.status == 400,
            "{body}: {} {}",
            answer.status,
            answer.verdict()
        );
    }
    // One of two is none.
    assert_eq!(told(&mut stage, &form("/both", "", "a=abc")), "400 refuse");
    // Too long to be the number of an order.
    assert_eq!(told(&mut stage, &form("/both", "", &format!("a={}&b=1", "x".repeat(100_000)))), "400 refuse");
}

#[test]
fn the_key_of_another_customer_opens_nothing() {
    let mut stage = Stage::with(ROUTES);
    let event = |who: &str| json("/events", &format!("{who}\nIdempotency-Key: victims"), "{\"order\":1}");
    let victim = stage.ask(&event("Cookie: session=victim"));
    assert!(victim.text().contains("session=victim"));
    for thief in [
        "Cookie: session=thief",
        "Authorization: Basic victim",
        "X: y",
        "Cookie: Session=victim",
        "Cookie: xsession=victim",
    ] {
        let answer = stage.ask(&event(thief));
        assert_eq!((answer.status, answer.verdict()), (200, "lead"), "{thief}");
        assert_ne!(answer.text(), victim.text());
    }
    assert_eq!(stage.ask(&event("Cookie: session=victim")).text(), victim.text());
    stage.check("61");
    // And a guard that says nothing of identity is no configuration.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("oncegate.toml");
    let text = "listener = [{ address = \"127.0.0.1:0\" }]\nupstream = [{ name = \"s\", servers = [\"http://127.0.0.1:9\"] }]\n\
                [[route]]\nname = \"r\"\nupstream = \"s\"\nguard = { mode = \"once\", order = [\"json:/order\"], event = [\"header:idempotency-key\"] }\n";
    std::fs::write(&file, text).expect("a file");
    let problems = Config::load(&file).expect_err("nobody may share with everybody unsaid").lines();
    assert!(problems.contains("identity"), "{problems}");
}

#[test]
fn an_identity_is_the_cookie_that_stays_and_not_those_that_change() {
    let mut stage = Stage::with(ROUTES);
    let with = |cookies: &str| form("/pay", &format!("Cookie: {cookies}"), "order=7");
    assert_eq!(told(&mut stage, &with("session=anna; rotating=1")), "200 lead");
    for cookies in
        ["session=anna; rotating=2", "rotating=3; session=anna", "session=anna", "a=b; session=anna; _ga=x.y"]
    {
        assert_eq!(told(&mut stage, &with(cookies)), "200 replay", "{cookies}");
    }
    // In two lines, as HTTP/2 would have split them.
    assert_eq!(told(&mut stage, &with("rotating=4\nCookie: session=anna")), "200 replay");
    // Who logs in on the way is somebody else.
    assert_eq!(told(&mut stage, &with("session=anna-logged-in; rotating=5")), "200 lead");
    // Two of one name: nobody knows which one the shop goes by.
    assert_eq!(told(&mut stage, &with("session=anna; session=eve")), "400 refuse");
}

#[test]
fn what_a_client_says_of_where_it_comes_from_is_replaced() {
    let mut stage = Stage::with(ROUTES);
    let spoof = "X-Forwarded-For: 6.6.6.6\nX-Forwarded-For: 7.7.7.7, 8.8.8.8\nForwarded: for=6.6.6.6;host=evil.example\n\
                 X-Real-IP: 6.6.6.6\nX-Forwarded-Host: evil.example\nX-Forwarded-Proto: https\nX-Forwarded-Port: 443\n\
                 X-Forwarded-Server: evil\nX-Forwarded-Prefix: /evil\nX-Original-URL: /evil\nX-Rewrite-URL: /evil\nVia: 1.1 evil\nX-Request-Id: evil\nTraceparent: 00-6666-66-00\nOncegate-Fence: 1";
    for path in ["/pay", "/page"] {
        let bytes = form(path, &format!("Cookie: session=anna\n{spoof}"), "order=7");
        let (answer, seen) = stage.ask_and_look(&bytes);
        stage.check("63");
        assert_eq!((answer.status, seen.len()), (200, 1), "{path}");
        for (name, value) in &seen[0].fields {
            let value = String::from_utf8_lossy(value);
            // Random digits may hold any of these by chance.
            if ["x-request-id", "traceparent"].iter().any(|random| name.eq_ignore_ascii_case(random)) {
                assert!(!value.contains("evil") && !value.contains("-6666-"), "{path}: {name}: {value}");
                continue;
            }
            let spoofed = ["6.6.6.6", "7.7.7.7", "8.8.8.8", "evil", "https", "443", "6666"]
                .iter()
                .find(|bad| value.contains(**bad));
            assert_eq!(spoofed, None, "{path}: {name}: {value}");
        }
        assert_eq!(seen[0].all("x-forwarded-for").collect::<Vec<_>>(), [b"127.0.0.1"]);
        assert_eq!(seen[0].field("x-forwarded-host").as_deref(), Some("shop.example"));
        let fences = seen[0].all("oncegate-fence").count();
        assert_eq!(fences, usize::from(path == "/pay"), "a fence is the gate's to give");
    }
    // It is no part of which request it is, either.
    assert_eq!(
        told(&mut stage, &form("/pay", "Cookie: session=anna\nX-Forwarded-For: 9.9.9.9", "order=7")),
        "200 replay"
    );
    // A PROXY line where none is expected is no request.
    let proxied = form("/pay", "Cookie: session=anna", "order=8");
    stage.refuses(&[
        ("63: v1", [b"PROXY TCP4 6.6.6.6 7.7.7.7 1 2\r\n".as_slice(), &proxied].concat(), &[400]),
        (
            "63: v2",
            [
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x06\x06\x06\x06\x07\x07\x07\x07\0\x01\0\x02".as_slice(),
                &proxied,
            ]
            .concat(),
            &[400],
        ),
    ]);
}
