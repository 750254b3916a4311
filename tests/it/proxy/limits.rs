//! Bounds: what is too much is refused, says so, and leaves nothing behind.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use super::{
    gate::{Gate, Typed, get, metric, order},
    program::Program,
    shop::{Shop, eventually, ok},
    wire::{Ended, Wire},
};

#[test]
fn a_connection_too_many_is_told_so_and_the_next_one_is_served() {
    for accept in ["dispatch", "reuseport"] {
        let shop = Shop::counts();
        let gate = Gate::start(&Typed {
            limits: "connections_max = 4".to_owned(),
            runtime: format!("workers = 1\naccept = \"{accept}\""),
            ..Typed::before(&shop)
        });
        let mut inside: Vec<Wire> = (0..4).map(|_| gate.client()).collect();
        for client in &mut inside {
            assert_eq!(client.ask(get("/a")).status(), 200, "{accept}");
        }
        for _ in 0..10 {
            let mut client = gate.client();
            let answer = client.answer();
            assert_eq!((answer.status(), answer.get("retry-after")), (503, Some("2")), "{accept}");
            assert_eq!(answer.get("content-type"), Some("application/problem+json"), "{accept}");
            assert!(answer.text().contains("urn:oncegate:refusal:overloaded"), "{}", answer.text());
            assert_eq!(client.ended(), Ended::Closed);
        }
        inside.pop();
        eventually("a place is free again", || gate.metric("oncegate_connections") == 3);
        assert_eq!(gate.client().ask(get("/a")).status(), 200, "{accept}");
        assert_eq!(inside[0].ask(get("/a")).status(), 200, "{accept}: those inside were not disturbed");
    }
}

#[test]
fn a_head_too_large_is_refused_and_the_next_one_is_served() {
    let shop = Shop::answers(|_| ok("ok"));
    let gate = Gate::start(&Typed {
        limits: "header_bytes_max = \"8KiB\"\nheaders_max = 20".to_owned(),
        ..Typed::before(&shop)
    });
    let lines = |count: usize, bytes: usize| {
        (0..count).map(|at| format!("X-{at}: {}\r\n", "y".repeat(bytes))).collect::<String>()
    };
    let refused = [
        (431, format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", lines(1, 8 << 10))),
        (431, format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", lines(8, 1 << 10))),
        (431, format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", lines(20, 1))),
        (431, format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}", "y".repeat(100_000))),
        (414, format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "y".repeat(5000))),
    ];
    for (status, request) in refused {
        let mut client = gate.client();
        // It may be refused before all of it is taken.
        let _ = client.try_send(&request);
        let answer = client.answer();
        assert_eq!(answer.status(), status, "{answer:?}");
        assert_eq!(client.ended(), Ended::Closed);
    }
    assert!(shop.requests().is_empty());
    let most = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", lines(19, 300));
    assert_eq!(gate.client().ask(most).text(), "ok");
}

#[test]
fn bodies_that_find_no_room_are_refused_and_the_room_is_given_back() {
    let shop = Shop::answers(|_| ok("done"));
    let gate = Gate::start(&Typed { limits: "buffers_max = \"1MiB\"".to_owned(), ..Typed::before(&shop) });
    let head = |id: usize| {
        format!("POST /order?id={id} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", 400 << 10)
    };
    let most = vec![b'x'; (400 << 10) - 1];
    // Two fill it, but for the last byte of each.
    let mut holding: Vec<Wire> = (0..2).map(|_| gate.client()).collect();
    for (id, client) in holding.iter_mut().enumerate() {
        client.send(head(id));
        client.send(&most);
    }
    eventually("the room is taken", || gate.metric("oncegate_buffer_bytes") == 2 * ((400 << 10) - 1));
    let mut third = gate.client();
    third.send(head(3));
    let _ = third.try_send(&most);
    let answer = third.answer();
    assert_eq!(answer.status(), 503, "{answer:?}");
    assert!(answer.text().contains("overloaded") && answer.get("retry-after").is_some(), "{answer:?}");
    // What is not collected needs no room.
    let streamed = format!("POST /free HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", most.len());
    let mut free = gate.client();
    free.send(streamed);
    assert_eq!(free.ask(&most).text(), "done");
    // One goes away, one goes on to its end.
    drop(holding.pop());
    assert_eq!(holding[0].ask("x").text(), "done");
    eventually("all room is given back", || gate.metric("oncegate_buffer_bytes") == 0);
    third = gate.client();
    third.send(head(4));
    third.send(&most);
    assert_eq!(third.ask("x").text(), "done");
}

#[test]
fn room_is_given_back_however_an_exchange_ends() {
    let shop = Shop::talks(|wire, seen| {
        while let Some(request) = wire.request()? {
            seen.note(&request);
            match request.start.as_bytes()[15] {
                b'a' => return Ok(()),
                b'b' => return wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
                _ => wire.try_send(ok(&"y".repeat(2 << 20)))?,
            }
        }
        Ok(())
    });
    let gate = Gate::before(&shop);
    for (id, status) in [("a", 502), ("b", 502), ("c", 200)] {
        assert_eq!(gate.client().ask(order(id, &"x".repeat(10_000))).status(), status, "{id}");
    }
    // Clients that leave in the middle of either body.
    let mut client = gate.client();
    client.send("POST /order?id=d HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf");
    client.reset();
    let mut client = gate.client();
    client.send(order("e", "cart"));
    client.answer_head().expect("a head comes");
    client.reset();
    for name in ["oncegate_buffer_bytes", "oncegate_flights", "oncegate_followers", "oncegate_connections"] {
        eventually(name, || gate.metric(name) == 0);
    }
}

#[test]
fn a_process_without_files_left_survives_and_serves_again() {
    let shop = Shop::counts();
    let mut gate = Program::limited(&Typed::before(&shop), Some(64));
    let mut first = gate.client();
    assert_eq!(first.ask(get("/a")).status(), 200);
    // More than it has files for; the kernel queues the rest.
    let hogs: Vec<Wire> = (0..100).map(|_| gate.client()).collect();
    eventually("no file is left", || gate.files() >= 63);
    let (busy, begun) = (gate.busy_ticks(), Instant::now());
    // The time itself is what is measured against: a loop that spins would use all of it.
    thread::sleep(Duration::from_millis(1500));
    let used = (gate.busy_ticks() - busy) * 10;
    let passed = u64::try_from(begun.elapsed().as_millis()).expect("it is short");
    assert!(used < passed / 2, "{used} ms of {passed} ms were used");
    assert!(gate.is_running());
    assert_eq!(first.ask(get("/a")).status(), 200, "who was inside is still served");
    drop(hogs);
    assert_eq!(gate.client().ask(get("/a")).status(), 200);
    eventually("the places are free again", || {
        metric(&gate.look("/metrics").text(), "oncegate_connections") <= 2
    });
    assert_eq!(gate.client().ask(order("1", "cart")).status(), 200);
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let shop = Shop::counts();
    let gate = Gate::before(&shop);
    for round in 0..100 {
        let mut client = gate.client();
        match round % 5 {
            0 => {}
            1 => client.send("GET /a HT"),
            2 => client.send(get("/a")),
            3 => client.send(order(&round.to_string(), "cart")),
            _ => client.send("POST /free HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf"),
        }
        if round % 2 == 0 {
            client.reset();
        }
    }
    for name in ["oncegate_connections", "oncegate_flights", "oncegate_buffer_bytes"] {
        eventually(name, || gate.metric(name) == 0);
    }
    assert_eq!(gate.client().ask(get("/a")).status(), 200);
}

#[test]
fn exchanges_on_their_way_have_a_bound_that_outlives_their_clients() {
    let shop = Shop::talks(|wire, seen| {
        if let Some(request) = wire.request()? {
            seen.note(&request);
        }
        wire.some().map(drop)
    });
    let gate = Gate::start(&Typed { limits: "flights_max = 3".to_owned(), ..Typed::before(&shop) });
    for id in 0..3 {
        let mut client = gate.client();
        client.send(order(&id.to_string(), "cart"));
        shop.wait_for(id + 1);
        // The flight goes on without it.
    }
    eventually("nobody is connected", || gate.metric("oncegate_connections") == 0);
    let answer = gate.client().ask(order("3", "cart"));
    assert_eq!(answer.status(), 503, "{answer:?}");
    assert!(answer.text().contains("overloaded") && answer.get("retry-after").is_some(), "{answer:?}");
    // To follow a flight is not to begin one.
    let mut follower = gate.client();
    follower.send(order("0", "cart"));
    eventually("it follows", || gate.metric("oncegate_followers") == 1);
    assert_eq!(shop.requests().len(), 3);
    let _ = io::Write::flush(&mut follower.stream);
}
