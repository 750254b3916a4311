//! A shop whose last word is a 100 with `Retry-After`, as WooCommerce's Amazon Pay plugin says that an order is locked.
//! To HTTP that is no answer at all; its sender is to get one that it understands, and the order must not be in doubt.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{
    gate::Gate,
    shop::{Shop, ok},
    wire::Message,
};

const LATER: &str = "HTTP/1.1 100 Continue\r\nServer: nginx\r\nRetry-After: 120\r\n";

/// A shop that says something else at its first visit than at all later ones, and then closes, or waits.
fn at_first(said: String, closes: bool) -> Shop {
    let visits = Arc::new(AtomicUsize::new(0));
    Shop::talks(move |wire, seen| {
        while let Some(request) = wire.request()? {
            seen.note(&request);
            if visits.fetch_add(1, Relaxed) > 0 {
                wire.try_send(ok("done"))?;
                continue;
            }
            wire.try_send(&said)?;
            if closes {
                return Ok(());
            }
        }
        Ok(())
    })
}

fn post(gate: &Gate, target: &str) -> Message {
    let ask = format!("POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
    gate.client().ask(ask)
}

/// It is answered 503 with the shop's own `Retry-After`, and the next delivery is sent at once.
fn comes_back(said: String, closes: bool) {
    for target in ["/order?id=1", "/unguarded"] {
        let shop = at_first(said.clone(), closes);
        let gate = Gate::before(&shop);
        let first = post(&gate, target);
        assert_eq!((first.status(), first.get("retry-after")), (503, Some("120")), "{target} {first:?}");
        let second = post(&gate, target);
        assert_eq!((second.status(), second.text().as_str()), (200, "done"), "{target}");
        assert_eq!(shop.requests().len(), 2, "{target}: each was sent once");
        assert_eq!(gate.metric("oncegate_in_doubt_total"), 0);
    }
}

#[test]
fn a_100_with_retry_after_and_the_end_of_the_connection_is_a_503() {
    comes_back(format!("{LATER}Connection: close\r\n\r\n"), true);
}

// What nginx makes of it: it frames the empty body of what it takes for a final answer.
#[test]
fn a_100_with_retry_after_and_a_stray_last_chunk_is_a_503() {
    comes_back(format!("{LATER}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), false);
}

#[test]
fn a_100_with_retry_after_on_a_connection_that_stays_open_is_not_waited_for_long() {
    let began = Instant::now();
    comes_back(format!("{LATER}Content-Length: 0\r\n\r\n"), false);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_100_that_an_answer_follows_is_none() {
    for later in [LATER.to_owned() + "\r\n", "HTTP/1.1 100 Continue\r\n\r\n".to_owned()] {
        let shop = at_first(later + &ok("placed"), false);
        let gate = Gate::before(&shop);
        let answers = [post(&gate, "/order?id=1"), post(&gate, "/order?id=1")];
        for answer in &answers {
            assert_eq!((answer.status(), answer.text().as_str()), (200, "placed"));
        }
        assert_eq!(answers[1].get("oncegate-verdict"), Some("replay"));
        assert_eq!(shop.requests().len(), 1);
    }
}

// Without a word of coming back nobody knows whether the shop went away in the middle of its work.
#[test]
fn a_100_that_says_nothing_leaves_the_order_in_doubt() {
    let shop = at_first("HTTP/1.1 100 Continue\r\n\r\n".to_owned(), true);
    let gate = Gate::before(&shop);
    assert_eq!(post(&gate, "/order?id=1").status(), 502);
    assert_eq!(post(&gate, "/order?id=1").status(), 503);
    assert_eq!(shop.requests().len(), 1);
}
