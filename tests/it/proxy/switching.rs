//! Interim answers, and connections that leave HTTP.

use std::io::{self, Read};

use super::{
    gate::{Gate, get},
    shop::{Seen, Shop, ok},
    wire::{Ended, Wire},
};

const UPGRADE: &str = "GET /socket HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";

/// A shop that hints before it answers.
fn hinting() -> Shop {
    Shop::talks(|wire, seen| {
        while let Some(request) = wire.request()? {
            seen.note(&request);
            wire.try_send(
                "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x\r\nX: y\r\n\r\n",
            )?;
            if request.get("x-at-once").is_none() {
                // The answer is held until the client says that it has the hint.
                wire.exactly(1)?;
            }
            wire.try_send(ok("final"))?;
        }
        Ok(())
    })
}

#[test]
fn a_hint_reaches_the_client_before_the_answer() {
    let shop = Shop::talks(|wire, seen| {
        let head = wire.head()?.expect("a request comes");
        seen.note(&head);
        wire.try_send(
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x\r\nX: y\r\n\r\n",
        )?;
        // The body comes only once the client has the hint.
        wire.exactly(4)?;
        wire.try_send(ok("final"))
    });
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    client.send("POST /free HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n");
    let hint = client.answer();
    assert_eq!((hint.status(), hint.get("link")), (103, Some("</a.css>; rel=preload")));
    assert_eq!(hint.get("x"), None, "its hop-by-hop fields end here");
    assert_eq!(client.ask("body").text(), "final");
}

#[test]
fn a_hint_that_comes_with_the_answer_is_still_before_it() {
    let shop = hinting();
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    for _ in 0..20 {
        let hint = client.ask("GET /a HTTP/1.1\r\nHost: h\r\nX-At-Once: 1\r\n\r\n");
        assert_eq!(hint.status(), 103);
        assert_eq!(client.answer().text(), "final");
    }
}

#[test]
fn an_old_client_gets_no_hint() {
    let shop = hinting();
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    let answer = client.ask("GET /a HTTP/1.0\r\nHost: h\r\nX-At-Once: 1\r\n\r\n");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "final"));
}

/// Agrees, and then sends back everything in capitals until the client ends its side; then says goodbye.
fn echo(wire: &mut Wire, seen: &Seen) -> io::Result<()> {
    let Some(request) = wire.request()? else { return Ok(()) };
    seen.note(&request);
    // Bytes of the new protocol in the same packet as the head.
    wire.try_send([SWITCHED, "hello "].concat())?;
    loop {
        let bytes = wire.some()?;
        if bytes.is_empty() {
            return wire.try_send(" bye");
        }
        wire.try_send(bytes.to_ascii_uppercase())?;
    }
}

#[test]
fn an_upgraded_connection_is_a_tunnel_both_ways() {
    let shop = Shop::talks(echo);
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    // What comes early, before the shop has agreed, is not lost and not read as a request.
    client.send([UPGRADE, "GET / early "].concat());
    let answer = client.answer();
    assert_eq!((answer.status(), answer.get("upgrade")), (101, Some("websocket")));
    assert!(answer.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
    assert_eq!(answer.get("sec-websocket-accept"), Some("x"));
    assert_eq!(client.exactly(18).expect("they come"), b"hello GET / EARLY ");
    for _ in 0..50 {
        client.send("ping");
        assert_eq!(client.exactly(4).expect("they come"), b"PING");
    }
    client.end_writing();
    let mut rest = client.exactly(4).expect("the shop's last words come");
    let _ = client.stream.read_to_end(&mut rest);
    assert_eq!(rest, b" bye");
    let request = shop.only();
    assert_eq!(
        (request.get("upgrade"), request.get("sec-websocket-version")),
        (Some("websocket"), Some("13"))
    );
}

#[test]
fn a_large_stream_passes_a_tunnel_whole() {
    let shop = Shop::talks(echo);
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    client.send(UPGRADE);
    assert_eq!(client.answer().status(), 101);
    assert_eq!(client.exactly(6).expect("they come"), b"hello ");
    let mut writer = client.stream.try_clone().expect("a socket can be cloned");
    let sent: Vec<u8> = (0..4 << 20).map(|at: u32| b'a' + (at % 26) as u8).collect();
    let wanted = sent.to_ascii_uppercase();
    let writing = std::thread::spawn(move || io::Write::write_all(&mut writer, &sent));
    let came = client.exactly(wanted.len()).expect("they come");
    assert!(came == wanted);
    writing.join().expect("no panic").expect("all was taken");
}

#[test]
fn a_refused_upgrade_stays_http() {
    let shop = Shop::counts();
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    // What came early turns out to be the next request.
    client.send([UPGRADE, &get("/next")].concat());
    assert_eq!((client.answer().text(), client.answer().text()), ("1".to_owned(), "2".to_owned()));
    assert_eq!(client.ask(get("/later")).text(), "3");
    assert_eq!(shop.requests()[1].start, "GET /next HTTP/1.1");
}

#[test]
fn a_switch_that_nobody_asked_for_is_an_error_of_the_shops() {
    let shop = Shop::answers(|_| SWITCHED);
    let gate = Gate::before(&shop);
    assert_eq!(gate.client().ask(get("/a")).status(), 502);
}

#[test]
fn no_way_is_opened_to_anywhere_else() {
    let shop = Shop::counts();
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    let answer = client.ask("CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n");
    assert!((400..=501).contains(&answer.status()), "{answer:?}");
    assert!(shop.requests().is_empty());
}

#[test]
fn a_tunnel_ends_when_the_shop_is_gone() {
    let shop = Shop::talks(|wire, _| {
        wire.request()?;
        wire.try_send([SWITCHED, "x"].concat())
    });
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    client.send(UPGRADE);
    assert_eq!(client.answer().status(), 101);
    assert_eq!(client.exactly(1).expect("it comes"), b"x");
    assert_eq!(client.ended(), Ended::Closed);
}
