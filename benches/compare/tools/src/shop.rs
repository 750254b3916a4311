//! The shop behind every subject: answers at once, always the same, and counts what reached it. It keeps every
//! connection open for as long as the other side does, and remembers nothing else.
//!
//!   GET  /small   1 KiB of text
//!   POST /json    500 bytes of JSON, once the body has been read whole
//!   POST /op      the same, where oncegate guards
//!   GET  /calls   how many requests came before, this one and its like not counted

use std::{
    collections::HashMap,
    io::{ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::{
    Outcome,
    message::{self, Framed},
};

const LISTENER: u64 = u64::MAX;

struct Link {
    stream: TcpStream,
    inbound: Vec<u8>,
}

struct Answers {
    small: Vec<u8>,
    json: Vec<u8>,
    calls: u64,
}

pub fn run(address: &str) -> Outcome<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut answers = Answers {
        small: answer("text/plain", &"the answer of a shop\n".repeat(50)[..1024]),
        json: answer("application/json", &format!("{{\"order\":\"{}\"}}", "x".repeat(500 - 12))),
        calls: 0,
    };
    let mut links: HashMap<u64, Link> = HashMap::new();
    let mut next = 0;
    let mut events = Vec::with_capacity(512);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let id = event.data.u64();
            if id == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    epoll::add(&epoll, &stream, EventData::new_u64(next), EventFlags::IN)?;
                    links.insert(next, Link { stream, inbound: Vec::new() });
                    next += 1;
                }
            } else if let Some(link) = links.get_mut(&id)
                && !serve(link, &mut answers, &mut buffer)
            {
                links.remove(&id);
            }
        }
    }
}

/// Whether the connection goes on.
fn serve(link: &mut Link, answers: &mut Answers, buffer: &mut [u8]) -> bool {
    match link.stream.read(buffer) {
        Ok(0) => return false,
        Ok(bytes) => link.inbound.extend_from_slice(&buffer[..bytes]),
        Err(error) => return error.kind() == ErrorKind::WouldBlock,
    }
    loop {
        let (head_bytes, bytes) = match message::frame(&link.inbound) {
            Ok(Framed::Whole { head_bytes, bytes }) => (head_bytes, bytes),
            Ok(Framed::Partial) => return true,
            Err(what) => {
                eprintln!("compare-tools shop: {what}");
                return false;
            }
        };
        let target = message::target(&link.inbound[..head_bytes]);
        answers.calls += u64::from(target != b"/calls");
        // An answer of a kilobyte fits into the socket: whoever does not read his answers is left.
        let sent = match target {
            b"/small" => link.stream.write_all(&answers.small),
            b"/json" | b"/op" => link.stream.write_all(&answers.json),
            b"/calls" => link.stream.write_all(&answer("text/plain", &answers.calls.to_string())),
            _ => return false,
        };
        if sent.is_err() {
            return false;
        }
        link.inbound.drain(..bytes);
    }
}

fn answer(kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}
