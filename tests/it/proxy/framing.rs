//! Messages keep their framing on the way: what was chunked stays chunked, what had a length keeps it, and answers
//! that have no body by definition have none.

use super::{
    gate::{Gate, Typed, get, order},
    shop::{Shop, ok},
    wire::{Ended, Framing},
};

#[test]
fn requests_of_one_connection_are_answered_one_after_the_other() {
    let shop = Shop::counts();
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    for number in 1..=20 {
        assert_eq!(client.ask(get("/page")).text(), number.to_string());
    }
    assert_eq!(shop.connections(), 1, "the connection to the shop is kept as well");
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let shop = Shop::answers(|request| ok(&request.start));
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    let posted = "POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    let chunked = "POST /d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    client.send([&get("/a"), posted, &order("7", "x"), chunked, &get("/e")].concat());
    let answers: Vec<String> = (0..5).map(|_| client.answer().text()).collect();
    let wanted = ["GET /a", "POST /b", "POST /order?id=7", "POST /d", "GET /e"];
    assert_eq!(answers, wanted.map(|start| format!("{start} HTTP/1.1")));
}

#[test]
fn a_request_keeps_its_framing() {
    let shop = Shop::answers(|_| ok(""));
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    client.ask("PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
    client.ask(
        "PUT /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
    );
    client.ask("PUT /c HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    client.ask("DELETE /d HTTP/1.1\r\nHost: h\r\n\r\n");
    let seen = shop.requests();
    let framed: Vec<_> = seen.iter().map(|one| (one.framing, one.text())).collect();
    let hello = "hello".to_owned();
    assert_eq!(framed[..2], [(Framing::Length, hello.clone()), (Framing::Chunked, hello)]);
    assert_eq!(seen[2].all("content-length"), ["0"]);
    assert!(seen[3].get("content-length").is_none() && seen[3].get("transfer-encoding").is_none());
}

#[test]
fn an_answer_keeps_its_framing() {
    let shop = Shop::talks(|wire, seen| {
        while let Some(request) = wire.request()? {
            seen.note(&request);
            match request.start.as_str() {
                "GET /length HTTP/1.1" => wire.try_send(ok("hello"))?,
                "GET /empty HTTP/1.1" => wire.try_send(ok(""))?,
                "GET /chunked HTTP/1.1" => wire.try_send(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
                )?,
                _ => {
                    wire.try_send("HTTP/1.1 200 OK\r\n\r\nhello")?;
                    return Ok(());
                }
            }
        }
        Ok(())
    });
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    let mut framed = |path: &str| {
        let answer = client.ask(get(path));
        (answer.framing, answer.text())
    };
    assert_eq!(framed("/length"), (Framing::Length, "hello".to_owned()));
    assert_eq!(framed("/empty"), (Framing::Length, String::new()));
    assert_eq!(framed("/chunked"), (Framing::Chunked, "hello".to_owned()));
    // One that ends with its connection gets an end of its own, so that a client can tell it from a broken one.
    assert_eq!(framed("/until-close"), (Framing::Chunked, "hello".to_owned()));
}

#[test]
fn trailers_pass_in_both_directions() {
    let shop = Shop::answers(|_| {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Second\r\n\r\n\
         2\r\nok\r\n0\r\nX-Sum: 42\r\nX-Second: b\r\n\r\n"
    });
    let gate = Gate::before(&shop);
    let answer = gate.client().ask(
        "POST /a HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Digest\r\n\
         Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Digest: abc\r\n\r\n",
    );
    assert_eq!(shop.only().trailers, [("x-digest".to_owned(), "abc".to_owned())]);
    let sums = [("x-sum", "42"), ("x-second", "b")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(answer.trailers, sums);
    assert_eq!(answer.text(), "ok");
}

#[test]
fn a_client_that_did_not_ask_for_trailers_gets_none() {
    let shop = Shop::answers(
        |_| "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n",
    );
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    let answer = client.ask(get("/a"));
    assert_eq!((answer.text().as_str(), answer.trailers.len()), ("ok", 0));
    assert_eq!(client.ask(get("/a")).text(), "ok", "the connection goes on");
}

#[test]
fn answers_without_a_body_by_definition_have_none() {
    let shop = Shop::answers(|request| match request.start.as_str() {
        "HEAD /length HTTP/1.1" => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
        "HEAD /chunked HTTP/1.1" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET /204 HTTP/1.1" => "HTTP/1.1 204 No Content\r\n\r\n",
        "GET /304 HTTP/1.1" => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 77\r\n\r\n",
        _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    });
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    client.send("HEAD /length HTTP/1.1\r\nHost: h\r\n\r\n");
    let head = client.answer_head().expect("a head comes");
    assert_eq!((head.status(), head.get("content-length")), (200, Some("1234")));
    client.send("HEAD /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
    let head = client.answer_head().expect("a head comes");
    assert_eq!((head.status(), head.get("content-length")), (200, None));
    let none = client.ask(get("/204"));
    assert_eq!((none.status(), none.get("content-length"), none.get("transfer-encoding")), (204, None, None));
    let same = client.ask(get("/304"));
    assert_eq!((same.status(), same.get("etag"), same.get("transfer-encoding")), (304, Some("\"a\""), None));
    assert!(same.get("content-length").is_none_or(|length| length == "77"), "{same:?}");
    // None of them left a byte behind that would be read as the next answer.
    assert_eq!(client.ask(get("/after")).text(), "ok");
    assert_eq!(shop.connections(), 1);
}

#[test]
fn a_guarded_request_that_expects_is_told_to_go_on() {
    let shop = Shop::answers(|_| ok("done"));
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    client.send("POST /order?id=1 HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.answer().status(), 100);
    assert!(shop.requests().is_empty(), "the shop is not asked before the body is complete");
    assert_eq!(client.ask("cart").text(), "done");
    let request = shop.only();
    assert_eq!((request.text().as_str(), request.get("expect")), ("cart", None));
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let shop = Shop::answers(|_| ok("done"));
    let gate = Gate::start(&Typed { guard: "body_max = \"1KiB\"".to_owned(), ..Typed::before(&shop) });
    let mut client = gate.client();
    client
        .send("POST /order?id=1 HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1025\r\n\r\n");
    let answer = client.answer();
    assert_eq!(answer.status(), 413, "and not 100: {answer:?}");
    assert!(answer.text().contains("body-too-large"), "{answer:?}");
    assert_eq!(client.ended(), Ended::Closed, "the body that may still come is nobody's request");
    assert!(shop.requests().is_empty());
}

#[test]
fn a_collected_body_that_grows_too_large_is_refused() {
    let shop = Shop::answers(|_| ok("done"));
    let gate = Gate::start(&Typed { guard: "body_max = \"1KiB\"".to_owned(), ..Typed::before(&shop) });
    let mut client = gate.client();
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let head = "POST /order?id=1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(client.ask(format!("{head}{chunk}1\r\ny\r\n0\r\n\r\n")).status(), 413);
    assert!(shop.requests().is_empty());
    // One byte less is none too many.
    assert_eq!(gate.client().ask(format!("{head}{chunk}0\r\n\r\n")).text(), "done");
}

#[test]
fn an_old_client_gets_a_whole_answer_and_the_end_of_its_connection() {
    let shop = Shop::answers(|request| match request.start.as_str() {
        "GET /length HTTP/1.1" => ok("hello"),
        _ => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
    });
    let gate = Gate::before(&shop);
    for path in ["/length", "/chunked"] {
        let mut client = gate.client();
        let answer = client.ask(format!("GET {path} HTTP/1.0\r\nHost: h\r\n\r\n"));
        assert_eq!((answer.text().as_str(), answer.get("transfer-encoding")), ("hello", None), "{path}");
        assert_eq!(client.ended(), Ended::Closed);
    }
    assert!(shop.requests().iter().all(|request| request.start.ends_with("HTTP/1.1")));
}

#[test]
fn an_old_client_may_keep_its_connection() {
    let shop = Shop::counts();
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    for number in ["1", "2"] {
        let answer = client.ask("GET /a HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!((answer.text().as_str(), answer.framing), (number, Framing::Length));
        assert!(answer.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive")));
    }
}

#[test]
fn an_absolute_target_reaches_the_shop_as_a_path() {
    let shop = Shop::answers(|_| ok("ok"));
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    client.ask("GET http://Shop.Example:8080/a%20b?q=%2f HTTP/1.1\r\nHost: Shop.Example:8080\r\n\r\n");
    client.ask("GET http://shop.example HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    client.ask("OPTIONS * HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let seen = shop.requests();
    assert_eq!(seen[0].start, "GET /a%20b?q=%2f HTTP/1.1");
    assert_eq!(seen[0].all("host"), ["Shop.Example:8080"]);
    assert_eq!(seen[1].start, "GET / HTTP/1.1");
    assert_eq!(seen[2].start, "OPTIONS * HTTP/1.1");
}

#[test]
fn a_request_that_breaks_off_is_no_request_of_the_shops() {
    let shop = Shop::answers(|_| ok("ok"));
    let gate = Gate::before(&shop);
    for (path, framing, begun) in [
        ("/order?id=1", "Content-Length: 10", "hello"),
        ("/order?id=2", "Transfer-Encoding: chunked", "5\r\nhello\r\n"),
        ("/free", "Content-Length: 10", "hello"),
        ("/free", "Transfer-Encoding: chunked", "5\r\nhello\r\n"),
    ] {
        let mut client = gate.client();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n{begun}"));
        client.end_writing();
        // An answer may come, but never one of the shop's.
        if let Ok(answer) = client.try_answer() {
            assert!(answer.status() >= 400, "{path} {framing}: {answer:?}");
        }
    }
    assert_eq!(shop.requests().len(), 0, "only whole requests are noted");
}
