//! A bound that is reached is a refusal, never a send: `limits.flights_max`.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use oncegate::{config::Config, server::Server};

const PATIENCE: Duration = Duration::from_secs(20);

fn post(gate: &str, session: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gate).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST /checkout HTTP/1.1\r\nhost: shop\r\ncookie: session={session}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn an_order_beyond_the_flights_that_there_may_be_is_refused_and_not_sent() {
    let shop = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("oncegate.toml");
    let text = fs::read_to_string("conf/minimal.toml")
        .unwrap()
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("127.0.0.1:8081", &shop.local_addr().unwrap().to_string());
    fs::write(&path, format!("limits = {{ flights_max = 1 }}\n{text}")).unwrap();
    let server = Server::start(Config::load(&path).unwrap().config).unwrap();
    let gate = server.addresses[0].clone();

    let first = post(&gate, "one-order-of-somebody");
    let (mut sent, _) = shop.accept().unwrap();
    sent.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(sent.read(&mut [0; 4096]).unwrap() > 0);

    let second = answer(post(&gate, "another-order-of-another"));
    assert!(second.starts_with("HTTP/1.1 503 "), "{second}");
    assert!(second.contains("urn:oncegate:refusal:overloaded"), "{second}");

    sent.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
    assert!(answer(first).ends_with("\r\n\r\nok"));
    shop.set_nonblocking(true).unwrap();
    assert!(shop.accept().is_err(), "the refused order came to the shop");
    server.drain(|| false);
}
