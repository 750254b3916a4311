//! The life of the process: the operators' listener, listeners on files, and the end without a lost answer.
//!
//! Not here: a panic in one exchange. No input is known to cause one, and the tests do not put one into the program.

use std::{
    fs, io,
    net::TcpStream,
    os::unix::net::UnixStream,
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use oncegate::server::Drained;

use super::{
    gate::{Gate, Typed, get, order},
    program::{Program, Signal},
    shop::{Shop, eventually, ok},
    wire::{Ended, Message, Wire},
};

/// A shop that answers when it is told to.
fn held() -> (Shop, mpsc::Sender<()>) {
    let (go_on, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let shop = Shop::talks(move |wire, seen| {
        while let Some(request) = wire.request()? {
            seen.note(&request);
            if !request.start.contains("/at-once") {
                told.lock().expect("nobody panics").recv().map_err(io::Error::other)?;
            }
            wire.try_send(ok("done"))?;
        }
        Ok(())
    });
    (shop, go_on)
}

#[test]
fn operators_see_that_it_lives_is_ready_and_counts() {
    let shop = Shop::counts();
    let gate = Gate::before(&shop);
    assert_eq!((gate.look("/live").status(), gate.look("/ready").status()), (200, 200));
    for number in 0..3 {
        gate.client().ask(order("1", "cart"));
        gate.client().ask(order(&format!("other-{number}"), "cart"));
    }
    let page = gate.look("/metrics").text();
    let line = |start: &str| page.lines().find(|line| line.starts_with(start)).map(str::to_owned);
    let sends = line("oncegate_upstream_sends_total{route=\"order\"}");
    assert_eq!(sends.as_deref(), Some("oncegate_upstream_sends_total{route=\"order\"} 4"));
    let replays: Vec<&str> = page.lines().filter(|line| line.contains("kind=\"replay\"")).collect();
    assert!(
        replays.iter().any(|line| line.contains("route=\"order\"") && line.ends_with(" 2")),
        "{replays:?}"
    );
    assert_eq!(gate.look("/nothing").status(), 404);
    // The shop's listener knows nothing of all this.
    assert_eq!(gate.client().ask(get("/metrics")).text(), "5");
}

#[test]
fn operators_show_their_token() {
    let shop = Shop::counts();
    let token = "0123456789abcdef";
    let gate = Gate::start(&Typed { admin: format!("token = \"{token}\""), ..Typed::before(&shop) });
    assert_eq!(gate.look("/metrics").status(), 401);
    assert_eq!(gate.look("/live").status(), 200);
    let with = |shown: &str| -> Message {
        let host = gate.admin;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nAuthorization: {shown}\r\n\r\n");
        Wire::connect(gate.admin).ask(request)
    };
    assert_eq!(with(&format!("Bearer {token}")).status(), 200);
    assert_eq!(with("Bearer 0123456789abcdeg").status(), 401);
}

#[test]
fn a_page_of_another_origin_cannot_look() {
    let shop = Shop::counts();
    let gate = Gate::before(&shop);
    let mut page = Wire::connect(gate.admin);
    assert_eq!(page.ask("GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n").status(), 421);
}

#[test]
fn a_listener_on_a_file_serves_and_leaves_no_file() {
    let shop = Shop::counts();
    let folder = tempfile::tempdir().expect("there is a place for files");
    let path = folder.path().join("http.sock");
    // One that a process which is gone has left behind is replaced.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("the place is ours"));
    assert!(path.exists());
    let address = format!("unix:{}", path.display());
    let gate = Gate::start(&Typed { address, ..Typed::before(&shop) });
    let mut client = Wire::over(UnixStream::connect(&path).expect("it listens"));
    assert_eq!(client.ask(get("/a")).text(), "1");
    assert_eq!(client.ask(order("1", "cart")).text(), "2");
    assert_eq!(client.ask(order("1", "cart")).text(), "2");
    let request = &shop.requests()[0];
    assert_eq!(request.all("x-forwarded-for"), ["unknown"]);
    assert_eq!(request.all("forwarded"), ["for=unknown;host=shop.example;proto=http"]);
    drop(client);
    assert_eq!(gate.drain(|| false), Drained::Whole);
    assert!(fs::metadata(&path).is_err());
}

#[test]
fn what_runs_is_finished_before_the_end() {
    let (shop, go_on) = held();
    let mut gate = Program::start(&Typed::before(&shop));
    let (mut leader, mut follower, mut unguarded) = (gate.client(), gate.client(), gate.client());
    let (mut idle, mut fresh) = (gate.client(), gate.client());
    assert_eq!(idle.ask(get("/at-once")).text(), "done");
    leader.send(order("1", "cart"));
    shop.wait_for(2);
    follower.send(order("1", "cart"));
    unguarded.send(get("/slow"));
    shop.wait_for(3);
    eventually("it follows", || {
        super::gate::metric(&gate.look("/metrics").text(), "oncegate_followers") == 1
    });
    gate.signal(Signal::Terminate);
    assert_eq!((idle.ended(), fresh.ended()), (Ended::Closed, Ended::Closed));
    eventually("nobody new comes in", || TcpStream::connect(gate.address).is_err());
    assert_eq!((gate.look("/ready").status(), gate.look("/live").status()), (503, 200));
    assert!(gate.is_running());
    for _ in 0..2 {
        go_on.send(()).expect("the shop waits");
    }
    for client in [&mut leader, &mut follower, &mut unguarded] {
        let answer = client.answer();
        assert_eq!(answer.text(), "done");
        assert_eq!(client.ended(), Ended::Closed);
    }
    assert_eq!(gate.exit_code(), 0);
    assert_eq!(shop.requests().len(), 3);
}

#[test]
fn a_flight_whose_client_has_gone_is_finished_before_the_end() {
    let (shop, go_on) = held();
    let mut gate = Program::start(&Typed::before(&shop));
    let mut client = gate.client();
    client.send(order("1", "cart"));
    shop.wait_for(1);
    drop(client);
    gate.signal(Signal::Terminate);
    eventually("nobody new comes in", || TcpStream::connect(gate.address).is_err());
    eventually("nobody is connected", || {
        super::gate::metric(&gate.look("/metrics").text(), "oncegate_connections") == 0
    });
    assert!(gate.is_running(), "the shop is still at work");
    go_on.send(()).expect("the shop waits");
    assert_eq!(gate.exit_code(), 0);
}

#[test]
fn a_hangup_ends_nothing_and_is_answered() {
    let (shop, go_on) = held();
    let mut gate = Program::start(&Typed::before(&shop));
    let mut client = gate.client();
    client.send(order("1", "cart"));
    shop.wait_for(1);
    gate.signal(Signal::Hangup);
    gate.says("oncegate: SIGHUP: there is no reload");
    go_on.send(()).expect("the shop waits");
    assert_eq!(client.answer().text(), "done");
    assert!(gate.is_running());
}

#[test]
fn the_end_comes_when_its_deadline_does() {
    let (shop, _go_on) = held();
    let mut gate =
        Program::start(&Typed { limits: "drain_deadline = \"1s\"".to_owned(), ..Typed::before(&shop) });
    let mut client = gate.client();
    client.send(order("1", "cart"));
    shop.wait_for(1);
    let begun = Instant::now();
    gate.signal(Signal::Terminate);
    assert_eq!(gate.exit_code(), 2);
    assert!(begun.elapsed() >= Duration::from_millis(900));
}

#[test]
fn a_second_signal_ends_at_once() {
    let (shop, _go_on) = held();
    let mut gate = Program::start(&Typed::before(&shop));
    let mut client = gate.client();
    client.send(get("/slow"));
    shop.wait_for(1);
    gate.signal(Signal::Terminate);
    eventually("it drains", || gate.look("/ready").status() == 503);
    assert!(gate.is_running());
    gate.signal(Signal::Terminate);
    assert_eq!(gate.exit_code(), 2);
}

#[test]
fn without_anybody_the_end_comes_at_once() {
    let shop = Shop::counts();
    let mut gate = Program::start(&Typed::before(&shop));
    assert_eq!(gate.client().ask(get("/a")).status(), 200);
    gate.signal(Signal::Terminate);
    assert_eq!(gate.exit_code(), 0);
}

#[test]
fn a_request_under_way_when_the_end_begins_is_answered() {
    let (shop, _go_on) = held();
    let mut gate = Program::start(&Typed::before(&shop));
    let mut client = gate.client();
    client.send("POST /order?id=1&x=/at-once HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\nhalf");
    let mut head = gate.client();
    head.send("GET /at-once HTTP/1.1\r\nHost: h\r\n");
    // Both have come as far as the gate: what was sent before on a third connection has been answered since.
    assert_eq!(gate.client().ask(get("/at-once")).status(), 200);
    gate.signal(Signal::Terminate);
    eventually("it drains", || gate.look("/ready").status() == 503);
    let answers = [client.ask("half"), head.ask("\r\n")];
    for answer in answers {
        // Done, or refused with a word; a browser whose connection is reset sends a POST again by itself.
        assert!([200, 503].contains(&answer.status()), "{answer:?}");
        assert_eq!(answer.get("connection"), Some("close"));
    }
    assert_eq!(gate.exit_code(), 0);
}

#[test]
fn a_tunnel_does_not_hold_up_the_end() {
    let shop = Shop::talks(|wire, seen| {
        if let Some(request) = wire.request()? {
            seen.note(&request);
            wire.try_send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )?;
        }
        while !wire.some()?.is_empty() {}
        Ok(())
    });
    let mut gate = Program::start(&Typed::before(&shop));
    let mut client = gate.client();
    let asked = client.ask(
        "GET /socket HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(asked.status(), 101);
    gate.signal(Signal::Terminate);
    assert_eq!(client.ended(), Ended::Closed);
    assert_eq!(gate.exit_code(), 0);
    eventually("the shop's side ends with it", || shop.ended() == 1);
}
