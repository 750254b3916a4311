//! The shoppers and the payment provider of the demo: what they do by mistake, on purpose.
//!
//! Every request has a connection of its own and is never sent again by the client.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::{net::TcpStream, runtime::Runtime, task::JoinSet};

use super::shop::Shop;

/// Requests of one group that arrive together.
const TOGETHER: u32 = 5;
/// Clicks that are given up before the one that waits.
const GIVEN_UP: u32 = 2;
/// Orders at a time, so that a thousand of them do not need more sockets than a process has.
const WAVE: u32 = 32;
/// What one pattern takes at most, apart from the work itself.
const PATTERN_MAX: Duration = Duration::from_millis(1600);
const PAY_MAX: Duration = Duration::from_millis(500);
/// Longer than any wait that is right: a client that waits this long has found a hang.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How the duplicates of one purchase come about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pattern {
    ClicksAtOnce,
    ClickAbortClick,
    CallbackBurst,
    /// Deliveries that differ in a counter, together with the browser that comes back.
    CallbackAndReturn,
}

/// Whom the requests are sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Direct,
    Gate,
}

/// What a pattern came to.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Outcome {
    /// Orders in the shop's books.
    pub orders: u64,
    pub charges: u64,
    pub stock: u64,
    pub seconds: f64,
    /// Whether everybody who asked for the same thing got the same answer, and it said that all is well.
    pub answers_equal: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Answer {
    status: StatusCode,
    body: Bytes,
}

impl Pattern {
    pub(super) const ALL: [Pattern; 4] =
        [Pattern::ClicksAtOnce, Pattern::ClickAbortClick, Pattern::CallbackBurst, Pattern::CallbackAndReturn];

    pub(super) fn name(self) -> &'static str {
        match self {
            Pattern::ClicksAtOnce => "5 clicks at once",
            Pattern::ClickAbortClick => "click, abort, click",
            Pattern::CallbackBurst => "5 callbacks at once",
            Pattern::CallbackAndReturn => "callback and return",
        }
    }
}

impl Outcome {
    /// Whether every purchase was paid for once, and everybody was told the same.
    pub(super) fn is_right(&self, wanted: u32) -> bool {
        let wanted = u64::from(wanted);
        (self.orders, self.charges, self.stock) == (wanted, wanted, wanted) && self.answers_equal
    }
}

/// How long the shop's payments take, so that so many orders do not take all day.
pub(super) fn pay_max(orders: u32) -> Duration {
    PAY_MAX.min(PATTERN_MAX / orders.div_ceil(WAVE).max(1))
}

/// Makes `orders` purchases in the manner of `pattern` and reads the shop's books before and after.
///
/// # Errors
/// Where nobody listens, or the shop does not come to rest.
pub(super) fn run(
    runtime: &Runtime,
    shop: &Shop,
    (way, to): (Way, SocketAddr),
    pattern: Pattern,
    orders: u32,
) -> io::Result<Outcome> {
    let before = shop.books();
    match pattern {
        Pattern::CallbackBurst | Pattern::CallbackAndReturn => shop.expect_payment(u64::from(orders)),
        Pattern::ClicksAtOnce | Pattern::ClickAbortClick => {}
    }
    let started = Instant::now();
    let pause = pay_max(orders) / 8;
    let mut answers_equal = true;
    runtime.block_on(async {
        for first in (0..orders).step_by(usize::try_from(WAVE).unwrap_or(1)) {
            let mut wave = JoinSet::new();
            for number in first..orders.min(first + WAVE) {
                wave.spawn(purchase(to, pattern, name(way, pattern, number), pause));
            }
            for groups in wave.join_all().await {
                answers_equal &= groups?.iter().all(|group| are_equal(group));
            }
        }
        at_rest(shop).await
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let after = shop.books();
    Ok(Outcome {
        orders: after.orders - before.orders,
        charges: after.charges - before.charges,
        stock: after.stock_taken - before.stock_taken,
        seconds,
        answers_equal,
    })
}

/// A name that no other purchase of this run has, for its session or its order.
fn name(way: Way, pattern: Pattern, number: u32) -> String {
    let way = match way {
        Way::Direct => 'd',
        Way::Gate => 'g',
    };
    let pattern = Pattern::ALL.iter().position(|one| *one == pattern).unwrap_or(0);
    format!("{way}{pattern}-{number}")
}

fn are_equal(group: &[Answer]) -> bool {
    group.iter().all(|answer| answer.status == StatusCode::OK && Some(answer) == group.first())
}

/// The groups of answers that have to be equal.
async fn purchase(
    to: SocketAddr,
    pattern: Pattern,
    name: String,
    pause: Duration,
) -> io::Result<Vec<Vec<Answer>>> {
    Ok(match pattern {
        Pattern::ClicksAtOnce => vec![all(to, (0..TOGETHER).map(|_| checkout(&name))).await?],
        Pattern::ClickAbortClick => {
            for _ in 0..GIVEN_UP {
                // Dropping the exchange closes its connection, as a browser does that begins to load another page.
                if let Ok(answered) = tokio::time::timeout(pause, exchange(to, checkout(&name))).await {
                    answered?;
                }
            }
            vec![all(to, [checkout(&name)]).await?]
        }
        Pattern::CallbackBurst => vec![all(to, (0..TOGETHER).map(|_| callback(&name, 1))).await?],
        Pattern::CallbackAndReturn => {
            let callbacks = all(to, (1..TOGETHER).map(|attempt| callback(&name, attempt)));
            let returned = all(to, [page_of_return(&name)]);
            let (callbacks, returned) = tokio::join!(callbacks, returned);
            vec![callbacks?, returned?]
        }
    })
}

async fn all(
    to: SocketAddr,
    requests: impl IntoIterator<Item = Request<Full<Bytes>>>,
) -> io::Result<Vec<Answer>> {
    let mut set = JoinSet::new();
    for request in requests {
        set.spawn(async move {
            let answered = tokio::time::timeout(ANSWER_WITHIN, exchange(to, request)).await;
            answered.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer came")))
        });
    }
    set.join_all().await.into_iter().collect()
}

/// One request on one connection.
async fn exchange(to: SocketAddr, request: Request<Full<Bytes>>) -> io::Result<Answer> {
    let stream = TcpStream::connect(to).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Answer { status: head.status, body })
    };
    // The connection is polled here and not in a task, so that it goes away together with this future.
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended.map_err(io::Error::other)?;
            exchange.await
        }
    }
}

/// Waits for the payments of those who went away.
async fn at_rest(shop: &Shop) -> io::Result<()> {
    let resting = async {
        while shop.books().paying > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let rested = tokio::time::timeout(ANSWER_WITHIN, resting).await;
    rested.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the shop does not come to rest"))
}

fn checkout(name: &str) -> Request<Full<Bytes>> {
    post("/checkout", Some(format!("theme=dark; session={name}")), "product=1&quantity=1".to_owned())
}

fn callback(name: &str, attempt: u32) -> Request<Full<Bytes>> {
    post("/callback", None, format!("event=evt-{name}&order={name}&status=paid&attempt={attempt}"))
}

fn page_of_return(name: &str) -> Request<Full<Bytes>> {
    request(Method::GET, &format!("/return?order={name}"), None, String::new())
}

fn post(target: &str, cookie: Option<String>, form: String) -> Request<Full<Bytes>> {
    request(Method::POST, target, cookie, form)
}

fn request(method: Method, target: &str, cookie: Option<String>, form: String) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(target).header(header::HOST, "shop.example");
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, cookie);
    }
    if !form.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    request.body(Full::from(form)).expect("every part of a demo request is plain ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_equal_only_where_all_were_told_the_same_good_news() {
        let answer =
            |status, body: &'static str| Answer { status, body: Bytes::from_static(body.as_bytes()) };
        let fine = answer(StatusCode::OK, "order 1");
        assert!(are_equal(&[fine.clone(), fine.clone()]));
        assert!(!are_equal(&[fine.clone(), answer(StatusCode::OK, "order 2")]));
        assert!(!are_equal(&[answer(StatusCode::BAD_GATEWAY, ""), answer(StatusCode::BAD_GATEWAY, "")]));
    }

    #[test]
    fn many_orders_do_not_take_all_day() {
        assert_eq!(pay_max(1), PAY_MAX);
        assert_eq!(pay_max(WAVE), PAY_MAX);
        for orders in [100_u32, 1000] {
            let waves = orders.div_ceil(WAVE);
            assert!(pay_max(orders) * waves <= PATTERN_MAX);
        }
    }
}
