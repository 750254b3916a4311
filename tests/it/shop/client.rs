//! The shoppers and the payment provider: HTTP clients that click, give up, and click again.
//!
//! Every request has a connection of its own, as the worst case of a browser and the usual case of a provider, and is
//! never sent again by the client itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use super::stack::session;

/// Longer than any wait that is right; a client that waits this long has found a hang.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// One request, ready to be sent any number of times.
#[derive(Clone)]
pub(crate) struct Click {
    method: Method,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: String,
    /// Each shopper has an address, so that no limit per client mistakes a busy shop for an attack.
    from: Ipv4Addr,
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// What oncegate says that it did with the request; empty from the shop itself.
    pub(crate) fn verdict(&self) -> &str {
        self.headers.get("oncegate-verdict").and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// How a client that gives up closes its connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Leave {
    /// With a FIN, as a browser whose tab is closed.
    Close,
    /// With a RST, as a phone that loses its network.
    Reset,
}

impl Click {
    /// The button "place order". The form is the same for all shoppers; the cookie tells who buys.
    pub(crate) fn checkout(purchase: u32) -> Self {
        let cookie = ("cookie", format!("theme=dark; shop_session={}", session(purchase)));
        let body = "billing_first_name=Ada&billing_city=London&payment_method=card&terms=on".to_owned();
        Self::form("/checkout.php", vec![cookie], body, purchase)
    }

    /// One delivery of the event "paid" by the payment provider; the deliveries differ in their counter.
    pub(crate) fn callback(purchase: u32, attempt: u32) -> Self {
        let body = format!("event_id=evt_{purchase}&order_id={purchase}&status=paid&attempt={attempt}");
        Self::form("/callback.php", Vec::new(), body, purchase)
    }

    /// The shopper's browser, sent back by the payment provider.
    pub(crate) fn browser_return(purchase: u32) -> Self {
        let cookie = ("cookie", format!("shop_session={}", session(purchase)));
        Self {
            method: Method::GET,
            target: format!("/return.php?order_id={purchase}"),
            headers: vec![cookie],
            body: String::new(),
            from: address_of(purchase),
        }
    }

    /// php-fpm's own page about itself.
    pub(crate) fn status() -> Self {
        Self {
            method: Method::GET,
            target: "/status?json".to_owned(),
            headers: Vec::new(),
            body: String::new(),
            from: Ipv4Addr::LOCALHOST,
        }
    }

    fn form(target: &str, mut headers: Vec<(&'static str, String)>, body: String, purchase: u32) -> Self {
        headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
        Self { method: Method::POST, target: target.to_owned(), headers, body, from: address_of(purchase) }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let start = Request::builder().method(&self.method).uri(&self.target).header("host", "shop.test");
        self.headers
            .iter()
            .fold(start, |request, (name, value)| request.header(*name, value))
            .body(Full::from(self.body.clone()))
            .expect("a click is a valid request")
    }
}

/// Sends `click` and reads the answer to its end.
pub(crate) async fn send(to: SocketAddr, click: &Click) -> Answer {
    let stream = connect(to, click, Leave::Close).await;
    let answered = tokio::time::timeout(ANSWER_WITHIN, exchange(stream, click)).await;
    answered.unwrap_or_else(|_| panic!("no answer to {} in {ANSWER_WITHIN:?}", click.target))
}

/// Sends `click` and goes away after `patience` with the connection, unless the answer was faster.
pub(crate) async fn send_and_give_up(to: SocketAddr, click: &Click, patience: Duration, leave: Leave) {
    // Whether it was answered makes no difference to somebody who was about to leave.
    let stream = connect(to, click, leave).await;
    let _ = tokio::time::timeout(patience, exchange(stream, click)).await;
}

/// A connection that closes in the manner of `leave` when it is dropped.
async fn connect(to: SocketAddr, click: &Click, leave: Leave) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("there are sockets left");
    socket.bind(SocketAddr::from((click.from, 0))).expect("all of 127.0.0.0/8 is loopback");
    let stream = socket.connect(to).await.expect("somebody listens");
    if let Leave::Reset = leave {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("TCP can linger");
    }
    stream
}

/// One request on one connection. Dropping this future closes the connection at once.
async fn exchange(stream: TcpStream, click: &Click) -> Answer {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.expect("a fresh connection works");
    let exchange = async {
        let answer = sender.send_request(click.request()).await.expect("the request is answered");
        let (head, body) = answer.into_parts();
        let body = body.collect().await.expect("the answer is complete").to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    };
    // The connection is polled here and not in a task, so that it goes away together with this future.
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        end = &mut connection => {
            end.expect("the connection holds until the answer is there");
            exchange.await
        }
    }
}

fn address_of(purchase: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 1, 0)) + purchase)
}
