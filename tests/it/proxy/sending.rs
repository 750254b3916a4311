//! Connections to the shop: kept, replaced when they are gone, and never a reason to send anything twice.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use super::{
    gate::{Gate, Typed, get, order},
    shop::{Seen, Shop, eventually, ok},
    wire::{Framing, Message, Wire},
};

/// Longer than a connection counts as warm.
const COLD: Duration = Duration::from_millis(150);

fn one_worker(shops: &[&Shop]) -> Typed {
    Typed { runtime: "workers = 1".to_owned(), ..Typed::before_all(shops) }
}

#[test]
fn a_connection_that_the_shop_has_closed_is_replaced_without_a_word() {
    let shop = Shop::talks(|wire, seen| {
        if let Some(request) = wire.request()? {
            seen.note(&request);
            wire.try_send(ok("done"))?;
        }
        Ok(())
    });
    let gate = Gate::start(&one_worker(&[&shop]));
    let mut client = gate.client();
    for round in 0..60 {
        let posted = "POST /free HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx".to_owned();
        for request in [get("/a"), posted, order(&round.to_string(), "cart"), get("/back?id=1")] {
            assert_eq!(client.ask(&request).text(), "done", "round {round}: {request}");
            // From here on the next request meets a connection that is gone.
            eventually("the shop has closed", || shop.ended() == shop.requests().len());
        }
    }
    assert_eq!(shop.requests().len(), 240, "each came once");
}

/// Answers the first request of a connection; takes the next one and hangs up.
fn hangs_up_on_the_second(wire: &mut Wire, seen: &Seen) -> io::Result<()> {
    if let Some(first) = wire.request()? {
        seen.note(&first);
        wire.try_send(ok("done"))?;
    }
    if let Some(second) = wire.request()? {
        seen.note(&second);
    }
    Ok(())
}

fn came(shop: &Shop, path: &str) -> usize {
    shop.requests().iter().filter(|request| request.start.contains(path)).count()
}

#[test]
fn a_safe_request_without_a_guard_is_sent_again_after_the_closing_race() {
    let shop = Shop::talks(hangs_up_on_the_second);
    let gate = Gate::start(&one_worker(&[&shop]));
    let mut client = gate.client();
    assert_eq!(client.ask(get("/warm")).status(), 200);
    thread::sleep(COLD);
    assert_eq!(client.ask(get("/mended")).text(), "done");
    assert_eq!(came(&shop, "/mended"), 2);
}

#[test]
fn a_safe_request_is_sent_twice_at_most() {
    let shop = Shop::talks(|wire, seen| {
        while let Some(request) = wire.request()? {
            seen.note(&request);
            if request.start.contains("/bad") {
                return Ok(());
            }
            wire.try_send(ok("done"))?;
        }
        Ok(())
    });
    let gate = Gate::start(&one_worker(&[&shop]));
    // Three idle connections wait to be tried one after the other.
    let mut clients: Vec<Wire> = (0..3).map(|_| gate.client()).collect();
    for client in &mut clients {
        client.send(get("/warm"));
    }
    for client in &mut clients {
        assert_eq!(client.answer().status(), 200);
    }
    thread::sleep(COLD);
    let answer = clients[0].ask(get("/bad"));
    assert_eq!(answer.status(), 502, "{answer:?}");
    assert_eq!(came(&shop, "/bad"), 2);
}

#[test]
fn what_is_guarded_or_not_safe_is_not_sent_again() {
    let shop = Shop::talks(hangs_up_on_the_second);
    let gate = Gate::start(&one_worker(&[&shop]));
    let mut client = gate.client();
    let posted = "POST /free HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx".to_owned();
    // Cold, they go out on a connection of their own, where nothing can go wrong.
    for (request, path) in [(posted, "/free"), (order("1", "cart"), "/order"), (get("/back?id=1"), "/back")] {
        thread::sleep(COLD);
        assert_eq!(client.ask(get("/warm")).status(), 200);
        thread::sleep(COLD);
        assert_eq!(client.ask(request).text(), "done", "{path}");
        assert_eq!(came(&shop, path), 1, "{path}");
    }
}

#[test]
fn what_is_lost_on_a_warm_connection_is_not_sent_again() {
    let shop = Shop::talks(hangs_up_on_the_second);
    let gate = Gate::start(&one_worker(&[&shop]));
    let mut client = gate.client();
    let put = |id: usize| format!("PUT /put?id={id} HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx");
    for round in 0..20 {
        for (request, path) in [
            (put(round), format!("/put?id={round}")),
            (order(&round.to_string(), "cart"), format!("/order?id={round}")),
            (get(&format!("/back?id=b{round}")), format!("/back?id=b{round}")),
        ] {
            // Whether the second one still finds the connection of the first one warm is a matter of speed.
            assert_eq!(client.ask(order(&format!("before-{path}"), "cart")).status(), 200);
            let answer = client.ask(&request);
            assert!([200, 502].contains(&answer.status()), "{path}: {answer:?}");
            assert_eq!(came(&shop, &format!(" {path} ")), 1, "{path}");
            if answer.status() == 200 {
                // Leave no warm connection for the next round's first one.
                assert_eq!(client.ask(order(&format!("after-{path}"), "cart")).status(), 502);
            }
        }
    }
}

/// What a nasty shop does next. The numbers are a sequence without a pattern, the same in each run.
fn dice(state: &AtomicUsize) -> usize {
    let next = state.fetch_add(0x9e37_79b9, Relaxed);
    (next ^ (next >> 15)).wrapping_mul(0x2c1b_3c6d) >> 12
}

#[test]
fn a_shop_that_hangs_up_at_nasty_moments_gets_nothing_twice() {
    let counts: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let (noting, state) = (Arc::clone(&counts), AtomicUsize::new(1));
    let note = move |request: &Message| {
        let mut counts = noting.lock().expect("no test panics here");
        *counts.entry(request.start.clone()).or_default() += 1;
    };
    let shop = Shop::talks(move |wire, _| {
        loop {
            // Around what counts as warm, and at once.
            let idle = [1, 2, 5, 20, 90, 99, 100, 101, 110][dice(&state) % 9];
            wire.stream.set_read_timeout(Some(Duration::from_millis(idle)))?;
            let Some(mut request) = wire.head()? else { return Ok(()) };
            note(&request);
            wire.stream.set_read_timeout(Some(Duration::from_millis(100)))?;
            match dice(&state) % 16 {
                0 => return Ok(()),
                1 => {
                    wire.exactly(2)?;
                    return Ok(());
                }
                _ => {}
            }
            wire.body_of_request(&mut request)?;
            match dice(&state) % 16 {
                0 => return Ok(()),
                1 => return wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
                2 => {
                    wire.try_send(ok("done"))?;
                    return Ok(());
                }
                _ => wire.try_send(ok("done"))?,
            }
        }
    });
    let gate = Gate::before(&shop);
    let (tries, threads) = (80, 8);
    let address = gate.address;
    let asking: Vec<_> =
        (0..threads).map(|number| thread::spawn(move || ask_much(address, number, tries))).collect();
    let answered: usize = asking.into_iter().map(|thread| thread.join().expect("no answer is missing")).sum();
    let counts = counts.lock().expect("no test panics here");
    for (start, count) in counts.iter() {
        let may = if start.starts_with("GET /free") { 2 } else { 1 };
        assert!(*count <= may, "{start} came {count} times");
    }
    assert!(counts.len() > tries * threads / 2, "only {} came", counts.len());
    assert!(answered > tries * threads / 2, "only {answered} were answered");
}

/// Gives how many of the requests were answered by the shop.
fn ask_much(address: SocketAddr, thread: usize, tries: usize) -> usize {
    let state = AtomicUsize::new(thread + 77);
    let mut client = Wire::connect(address);
    let mut answered = 0;
    for number in 0..tries {
        let id = format!("{thread}-{number}");
        client.send(match number % 4 {
            0 => format!("POST /free?id={id} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\ncart"),
            1 => get(&format!("/back?id={id}")),
            2 => get(&format!("/free?id={id}")),
            _ => order(&id, "cart"),
        });
        match client.try_answer() {
            Ok(answer) => {
                assert!([200, 502].contains(&answer.status()), "{id}: {answer:?}");
                answered += usize::from(answer.status() == 200);
            }
            // Of an answer that breaks off, a client must not take the part for the whole.
            Err(_) => client = Wire::connect(address),
        }
        // Lets connections grow as old as the shop likes them least.
        thread::sleep(Duration::from_millis([0, 0, 1, 3, 19, 98, 100][dice(&state) % 7]));
    }
    answered
}

#[test]
fn servers_are_used_in_turn() {
    let shops = [Shop::counts(), Shop::counts(), Shop::counts()];
    let gate = Gate::start(&one_worker(&[&shops[0], &shops[1], &shops[2]]));
    let mut client = gate.client();
    for number in 0..30 {
        assert_eq!(client.ask(get("/a")).status(), 200, "{number}");
    }
    assert_eq!(shops.map(|shop| shop.requests().len()), [10, 10, 10]);
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it is bound")
}

#[test]
fn a_server_that_refuses_is_passed_over() {
    let shop = Shop::counts();
    let mut typed = one_worker(&[&shop]);
    typed.servers.push(nobody());
    let gate = Gate::start(&typed);
    let mut client = gate.client();
    for number in 0..10 {
        assert_eq!(client.ask(get("/a")).status(), 200);
        assert_eq!(client.ask(order(&number.to_string(), "cart")).status(), 200);
    }
    assert_eq!(shop.requests().len(), 20);
}

#[test]
fn where_no_server_can_be_reached_the_client_may_try_again() {
    let shop = Shop::counts();
    let gate = Gate::start(&Typed { servers: vec![nobody(), nobody()], ..one_worker(&[&shop]) });
    let mut client = gate.client();
    for request in [get("/a"), order("1", "cart"), order("1", "cart")] {
        let answer = client.ask(&request);
        assert_eq!(answer.status(), 502, "{answer:?}");
        assert!(answer.text().contains("upstream-unreachable"), "{answer:?}");
        assert!(answer.get("retry-after").is_some());
    }
}

#[test]
fn an_upload_that_the_shop_did_not_wait_for_holds_nobody_up() {
    let shop = Shop::talks(|wire, seen| {
        while let Some(mut request) = wire.head()? {
            seen.note(&request);
            // The answer comes before the body.
            wire.try_send(ok(&request.start))?;
            wire.body_of_request(&mut request)?;
        }
        Ok(())
    });
    let gate = Gate::start(&one_worker(&[&shop]));
    let mut slow = gate.client();
    let begun = slow.ask("POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(begun.text(), "POST /slow HTTP/1.1");
    assert_eq!(gate.client().ask(get("/other")).text(), "GET /other HTTP/1.1");
    assert_eq!(gate.client().ask(order("1", "cart")).text(), "POST /order?id=1 HTTP/1.1");
}

#[test]
fn an_answer_that_comes_in_the_middle_of_an_upload_reaches_the_client() {
    let shop = Shop::talks(|wire, seen| {
        let Some(request) = wire.head()? else { return Ok(()) };
        seen.note(&request);
        wire.try_send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")?;
        wire.end_writing();
        // As a shop does that knows how to hang up: what still comes is thrown away for a while.
        while !wire.some()?.is_empty() {}
        Ok(())
    });
    let gate = Gate::start(&one_worker(&[&shop]));
    for _ in 0..10 {
        let mut client = gate.client();
        client.send("POST /free HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n");
        client.send(vec![b'x'; 20_000]);
        let answer = client.answer();
        assert_eq!((answer.status(), answer.text().as_str()), (413, "big"));
    }
}

#[test]
fn what_a_shop_says_unasked_is_nobodys_answer() {
    let shop = Shop::answers(|request| match request.start.contains("/double") {
        true => [ok("one"), ok("not for you")].concat(),
        false => ok("mine"),
    });
    let gate = Gate::start(&one_worker(&[&shop]));
    let (mut first, mut second) = (gate.client(), gate.client());
    for round in 0..50 {
        assert_eq!(first.ask(get("/double")).text(), "one");
        assert_eq!(second.ask(get("/mine")).text(), "mine");
        assert_eq!(second.ask(order(&round.to_string(), "x")).text(), "mine");
    }
}

#[test]
fn an_answer_that_cannot_be_read_in_one_way_only_is_not_passed_on() {
    let shop = Shop::answers(|request| {
        let lines = match request.start.split(' ').nth(1) {
            Some("/lengths") => "Content-Length: 1\r\nContent-Length: 2\r\n",
            Some("/both") => "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            _ => "Content-Length: -1\r\n",
        };
        format!("HTTP/1.1 200 OK\r\n{lines}\r\n0\r\n\r\n")
    });
    let gate = Gate::start(&one_worker(&[&shop]));
    for path in ["/lengths", "/negative"] {
        let answer = gate.client().try_answer_to(get(path));
        assert_eq!(answer.expect(path).status(), 502, "{path}");
    }
    // Chunks win over a length (RFC 9112 section 6.3), and what goes on has one framing only.
    let both = gate.client().ask(get("/both"));
    assert_eq!((both.status(), both.framing, both.get("content-length")), (200, Framing::Chunked, None));
}
