//! Nobody is waited for without a bound: clients that send or read slowly, and shops that do not answer.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use oncegate::config::{Config, Guard};

use super::{
    gate::{Gate, Typed, get, order},
    shop::{Shop, eventually, ok},
    wire::Ended,
};

/// All patiences of a test; the sweeper looks twice a second.
const SHORT: Duration = Duration::from_millis(400);
/// No wait of a test may end sooner than its patience.
const SOON: Duration = Duration::from_millis(300);

fn short(config: &mut Config) {
    config.limits.header_timeout = SHORT;
    config.limits.idle_timeout = SHORT;
    config.limits.body_timeout = SHORT;
    config.limits.send_timeout = SHORT;
    for upstream in &mut config.upstreams {
        upstream.answer_timeout = SHORT;
    }
    for guard in config.routes.iter_mut().filter_map(|route| route.guard.as_mut()) {
        let Guard { body_timeout, .. } = guard;
        *body_timeout = SHORT;
    }
}

fn impatient(shop: &Shop) -> Gate {
    Gate::changed(&Typed::before(shop), short)
}

#[test]
fn an_idle_connection_is_closed() {
    let shop = Shop::counts();
    let gate = impatient(&shop);
    let mut fresh = gate.client();
    let mut used = gate.client();
    assert_eq!(used.ask(get("/a")).status(), 200);
    let begun = Instant::now();
    assert_eq!((fresh.ended(), used.ended()), (Ended::Closed, Ended::Closed));
    assert!(begun.elapsed() > SOON);
    eventually("nobody is connected", || gate.metric("oncegate_connections") == 0);
}

#[test]
fn a_head_that_does_not_come_whole_is_answered_408() {
    let shop = Shop::counts();
    let gate = impatient(&shop);
    let mut client = gate.client();
    client.send("GET /a HTTP/1.1\r\nHost: h\r\nX-Slow:");
    let answer = client.answer();
    assert_eq!(answer.status(), 408, "{answer:?}");
    assert_eq!(client.ended(), Ended::Closed);
    assert!(shop.requests().is_empty());
}

#[test]
fn a_head_that_comes_drop_by_drop_is_no_better() {
    let shop = Shop::counts();
    let gate = impatient(&shop);
    let mut client = gate.client();
    let begun = Instant::now();
    for byte in get("/a").bytes().cycle() {
        // A drop every 50 ms; the whole head would take two seconds.
        if client.try_send([byte]).is_err() || begun.elapsed() > Duration::from_millis(1500) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(client.answer().status(), 408);
    assert!(shop.requests().is_empty());
}

#[test]
fn a_guarded_body_that_does_not_come_whole_is_answered_408() {
    let shop = Shop::counts();
    let gate = Gate::changed(&Typed::before(&shop), |config| {
        short(config);
        // The guard's own patience is what counts.
        config.limits.body_timeout = Duration::from_secs(60);
    });
    let mut client = gate.client();
    client.send("POST /order?id=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf");
    let answer = client.answer();
    assert_eq!(answer.status(), 408, "{answer:?}");
    assert_eq!(client.ended(), Ended::Closed);
    assert!(shop.requests().is_empty());
    eventually("the room is given back", || gate.metric("oncegate_buffer_bytes") == 0);
}

#[test]
fn a_streamed_body_that_stops_ends_its_connection() {
    let shop = Shop::talks(|wire, seen| {
        seen.note(&wire.head()?.expect("a request comes"));
        // The shop would wait for ever.
        while !wire.some()?.is_empty() {}
        Ok(())
    });
    let gate = Gate::changed(&Typed::before(&shop), |config| {
        short(config);
        config.upstreams[0].answer_timeout = Duration::from_secs(60);
    });
    let mut client = gate.client();
    client.send("POST /free HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf");
    // Nothing, or an answer of ours; never one of the shop's.
    if let Ok(answer) = client.try_answer() {
        assert!(answer.status() >= 400, "{answer:?}");
    }
    eventually("the shop's connection ends with it", || shop.ended() == 1);
}

#[test]
fn a_shop_that_does_not_answer_is_answered_for() {
    let shop = Shop::talks(|wire, seen| {
        while let Some(request) = wire.request()? {
            seen.note(&request);
        }
        Ok(())
    });
    let gate = impatient(&shop);
    let mut client = gate.client();
    let begun = Instant::now();
    let answer = client.ask(get("/a"));
    assert_eq!(answer.status(), 504);
    assert!(begun.elapsed() > SOON && answer.text().contains("upstream-timeout"), "{answer:?}");
    assert_eq!(client.ask(order("1", "cart")).status(), 504);
    // Not a second time, as long as nobody knows what became of the first.
    let again = client.ask(order("1", "cart"));
    assert_eq!(again.status(), 503);
    assert!(again.text().contains("outcome-unknown"), "{again:?}");
    assert_eq!(shop.requests().len(), 2);
}

#[test]
fn the_shop_is_waited_for_from_the_end_of_the_request() {
    let shop = Shop::answers(|_| ok("done"));
    let gate = Gate::changed(&Typed::before(&shop), |config| {
        config.upstreams[0].answer_timeout = SHORT;
    });
    let mut client = gate.client();
    client.send("POST /free HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n");
    // An upload that takes longer than the shop may.
    for byte in b"slow, slow" {
        client.send([*byte]);
        std::thread::sleep(Duration::from_millis(80));
    }
    assert_eq!(client.answer().text(), "done");
}

#[test]
fn an_answer_that_stops_in_the_middle_ends_its_connection() {
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let shop = Shop::talks(move |wire, _| {
            wire.request()?;
            wire.try_send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n4\r\nhalf\r\n"))?;
            while !wire.some()?.is_empty() {}
            Ok(())
        });
        let gate = impatient(&shop);
        let mut client = gate.client();
        client.send(get("/a"));
        let error = client.try_answer().expect_err("a part is not taken for the whole");
        assert!(
            matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset),
            "{error}"
        );
        eventually("the shop's connection ends with it", || shop.ended() == 1);
    }
}

#[test]
fn an_answer_that_breaks_off_ends_its_connection() {
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let shop = Shop::talks(move |wire, _| {
            wire.request()?;
            wire.try_send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n4\r\nhalf\r\n"))
        });
        let gate = Gate::before(&shop);
        let mut client = gate.client();
        client.send(get("/a"));
        client.try_answer().expect_err("a part is not taken for the whole");
    }
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let shop = Shop::talks(|wire, _| {
        wire.request()?;
        wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
        loop {
            wire.try_send(vec![b'x'; 1 << 20])?;
        }
    });
    let gate = Gate::changed(&Typed::before(&shop), |config| config.limits.send_timeout = SHORT);
    let mut client = gate.client();
    client.send(get("/a"));
    eventually("the shop is told to stop", || shop.ended() == 1);
    eventually("nobody is connected", || gate.metric("oncegate_connections") == 0);
    let _still_here = client;
}

/// A port that accepts nothing more: its queue is full, and the kernel is silent to everybody else.
struct Silent {
    _listener: socket2::Socket,
    address: SocketAddr,
    _queued: Vec<TcpStream>,
}

impl Silent {
    /// `None` where this kernel queues without a bound, or answers instead of being silent.
    fn listen() -> Option<Self> {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).ok()?;
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).ok()?;
        listener.listen(1).ok()?;
        let address = listener.local_addr().ok()?.as_socket()?;
        let mut queued = Vec::new();
        for _ in 0..16 {
            match TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
                Ok(stream) => queued.push(stream),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Some(Self { _listener: listener, address, _queued: queued });
                }
                Err(_) => return None,
            }
        }
        None
    }
}

#[test]
fn a_server_that_does_not_take_the_connection_is_given_up() {
    let Some(silent) = Silent::listen() else {
        println!("skipped: this kernel's queue of connections cannot be filled");
        return;
    };
    let shop = Shop::counts();
    let typed = |servers| Typed {
        servers,
        upstream: "connect_timeout = \"300ms\"".to_owned(),
        runtime: "workers = 1".to_owned(),
        ..Typed::before(&shop)
    };
    let alone = Gate::start(&typed(vec![silent.address]));
    let begun = Instant::now();
    for request in [get("/a"), order("1", "cart")] {
        let answer = alone.client().ask(request);
        assert_eq!(answer.status(), 502);
        assert!(answer.text().contains("upstream-unreachable"), "nothing was sent: {answer:?}");
    }
    assert!(begun.elapsed() > SOON * 2);
    // Where there is another one, nobody notices.
    let both = Gate::start(&typed(vec![silent.address, shop.address]));
    for number in 0..2 {
        assert_eq!(both.client().ask(order(&number.to_string(), "cart")).status(), 200);
    }
}
