//! What no guard is about passes as it comes, in both directions, and is never collected.

use std::{
    io,
    sync::{Mutex, mpsc},
    thread,
};

use super::{
    gate::{Gate, Typed},
    program::Program,
    shop::{Shop, ok},
    wire::{Framing, Wire},
};

const LARGE: u64 = 256 << 20;
const PIECE: usize = 256 << 10;
const GROWTH_MAX: u64 = 32 << 20;

/// Takes `/up` and says how much it was; gives as much for `/down`.
fn large_shop() -> Shop {
    Shop::talks(|wire, seen| {
        while let Some(request) = wire.head()? {
            seen.note(&request);
            if request.start.starts_with("POST /up ") {
                let mut came = 0;
                while came < LARGE {
                    let bytes = wire.some()?;
                    if bytes.is_empty() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    came += bytes.len() as u64;
                }
                wire.try_send(ok(&came.to_string()))?;
            } else {
                wire.try_send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"))?;
                send_large(wire)?;
            }
        }
        Ok(())
    })
}

fn send_large(wire: &mut Wire) -> io::Result<()> {
    let piece = vec![b'x'; PIECE];
    for _ in 0..LARGE / PIECE as u64 {
        wire.try_send(&piece)?;
    }
    Ok(())
}

#[test]
fn a_large_request_passes_in_little_memory() {
    let shop = large_shop();
    let gate = Program::start(&Typed::before(&shop));
    let before = gate.resident();
    let mut client = gate.client();
    client.send(format!("POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: {LARGE}\r\n\r\n"));
    send_large(&mut client).expect("it is taken");
    assert_eq!(client.answer().text(), LARGE.to_string());
    let grown = gate.resident_max().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more");
}

#[test]
fn a_large_answer_passes_in_little_memory() {
    let shop = large_shop();
    let gate = Program::start(&Typed::before(&shop));
    let before = gate.resident();
    let mut client = gate.client();
    client.send("GET /down HTTP/1.1\r\nHost: h\r\n\r\n");
    let head = client.answer_head().expect("a head comes");
    assert_eq!(head.get("content-length"), Some(LARGE.to_string().as_str()));
    let mut came = 0;
    while came < LARGE {
        let bytes = client.some().expect("more comes");
        assert!(!bytes.is_empty(), "it broke off after {came}");
        came += bytes.len() as u64;
    }
    assert_eq!(came, LARGE);
    let grown = gate.resident_max().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more");
}

#[test]
fn a_client_that_reads_slowly_slows_the_shop_down() {
    let shop = large_shop();
    let gate = Program::start(&Typed::before(&shop));
    let before = gate.resident();
    let mut clients: Vec<Wire> = (0..4).map(|_| gate.client()).collect();
    for client in &mut clients {
        client.send("GET /down HTTP/1.1\r\nHost: h\r\n\r\n");
        client.answer_head().expect("a head comes");
        // And then not another byte is read until the others have had theirs.
    }
    let page = "GET /down HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut quick = gate.client();
    quick.send(page);
    quick.answer_head().expect("a head comes");
    let mut came = 0;
    while came < 64 << 20 {
        came += quick.some().expect("more comes").len();
    }
    let grown = gate.resident_max().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more");
}

#[test]
fn the_shop_gets_the_beginning_before_the_client_has_finished() {
    let shop = Shop::talks(|wire, seen| {
        let request = wire.head()?.expect("a request comes");
        let begun = wire.exactly(3)?;
        seen.note(&request);
        let rest = wire.exactly(4)?;
        wire.try_send(ok(&String::from_utf8_lossy(&[begun, rest].concat())))
    });
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    client.send("POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\nbeg");
    // The shop has the first half, and only now comes the second.
    shop.wait_for(1);
    assert_eq!(client.ask("inni").text(), "beginni");
}

#[test]
fn the_client_gets_the_beginning_before_the_shop_has_finished() {
    for (framing, begin, rest) in [
        ("Transfer-Encoding: chunked", "4\r\nbegi\r\n", "4\r\nnner\r\n0\r\n\r\n"),
        ("Content-Length: 8", "begi", "nner"),
    ] {
        let (go_on, told) = mpsc::channel::<()>();
        let told = Mutex::new(told);
        let shop = Shop::talks(move |wire, _| {
            wire.request()?;
            wire.try_send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{begin}"))?;
            told.lock().expect("nobody panics").recv().map_err(io::Error::other)?;
            wire.try_send(rest)
        });
        let gate = Gate::before(&shop);
        let mut client = gate.client();
        client.send("GET /down HTTP/1.1\r\nHost: h\r\n\r\n");
        client.answer_head().expect("a head comes");
        assert_eq!(client.exactly(begin.len()).expect("the beginning comes"), begin.as_bytes());
        go_on.send(()).expect("the shop waits");
        assert_eq!(client.exactly(rest.len()).expect("the rest comes"), rest.as_bytes());
    }
}

#[test]
fn both_directions_stream_at_once() {
    // A shop that echoes what it gets while it gets it.
    let shop = Shop::talks(|wire, seen| {
        let request = wire.head()?.expect("a request comes");
        seen.note(&request);
        wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n")?;
        let mut came = 0;
        while came < 1 << 20 {
            let bytes = wire.some()?;
            came += bytes.len();
            wire.try_send(bytes)?;
        }
        Ok(())
    });
    let gate = Gate::before(&shop);
    let mut client = gate.client();
    client.send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1048576\r\n\r\n");
    let mut writer = client.stream.try_clone().expect("a socket can be cloned");
    let writing = thread::spawn(move || {
        for number in 0..16u8 {
            io::Write::write_all(&mut writer, &vec![number; 1 << 16])?;
        }
        io::Result::Ok(())
    });
    let answer = client.answer();
    writing.join().expect("no panic").expect("all was taken");
    assert!(answer.body.chunks(1 << 16).zip(0..16u8).all(|(piece, number)| piece == vec![number; 1 << 16]));
}

#[test]
fn what_is_only_observed_passes_as_it_comes_whatever_its_size() {
    let shop = Shop::answers(|request| ok(&request.body.len().to_string()));
    let guard = "enforce = false\nbody_max = \"1KiB\"".to_owned();
    let gate = Gate::start(&Typed { guard, ..Typed::before(&shop) });
    let mut client = gate.client();
    let head = "POST /order?id=1 HTTP/1.1\r\nHost: h\r\n";
    for size in [0, 10, 1024, 1025, 300_000] {
        let body = "x".repeat(size);
        assert_eq!(
            client.ask(format!("{head}Content-Length: {size}\r\n\r\n{body}")).text(),
            size.to_string()
        );
        let chunks = if size == 0 { String::new() } else { format!("{size:x}\r\n{body}\r\n") };
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
        assert_eq!(client.ask(chunked).text(), size.to_string());
        let seen = shop.requests();
        let [whole, pieces] = &seen[seen.len() - 2..] else { panic!("both came") };
        assert_eq!((whole.framing, pieces.framing), (Framing::Length, Framing::Chunked), "{size}");
        assert!(whole.get("oncegate-fence").is_none() && whole.get("accept-encoding").is_none());
    }
}
