//! The strict reader as a whole: hyper's own server behind it, fed whole, byte by byte, and in random pieces.

use std::{cell::Cell, convert::Infallible, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::{
    Line, Phase, Strict, StrictLimits,
    scan::{self, Verdict},
};

pub(super) const LIMITS: StrictLimits =
    StrictLimits { head_bytes_max: 8192, target_bytes_max: 1024, fields_max: 64 };

/// What the service was given, and what became of it: what counts as the outcome of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    Request { line: String, fields: Vec<(String, Vec<u8>)>, body: Vec<u8> },
    BadBody(u16),
    CutBody,
    Refused(u16),
}

/// A hyper server behind the strict reader, on one end of a pipe.
struct Served {
    client: DuplexStream,
    line: Line,
    clock: Rc<Cell<u64>>,
    seen: Rc<std::cell::RefCell<Vec<Seen>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Served {
    fn start(pipe_bytes: usize) -> Self {
        let (client, io) = duplex(pipe_bytes);
        let clock = Rc::new(Cell::new(0));
        let (strict, line) = Strict::new(io, LIMITS, Rc::clone(&clock));
        let seen = Rc::new(std::cell::RefCell::new(Vec::new()));
        let server = tokio::task::spawn_local(serve(strict, line.clone(), Rc::clone(&seen)));
        Self { client, line, clock, seen, server }
    }

    /// Sends these pieces, half-closes, and reads all that comes back.
    async fn exchange(mut self, pieces: Vec<Vec<u8>>) -> (Vec<Seen>, Vec<u8>) {
        let (mut from, mut to) = tokio::io::split(&mut self.client);
        let send = async {
            for piece in pieces {
                // The server may have closed already: what it did until then is what counts.
                if to.write_all(&piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _ = to.shutdown().await;
        };
        let mut answer = Vec::new();
        let (_, read) = tokio::join!(send, from.read_to_end(&mut answer));
        read.expect("a pipe does not fail to read");
        drop(self.client);
        self.server.await.expect("the server task does not panic");
        (self.seen.take(), answer)
    }
}

async fn serve(strict: Strict<DuplexStream>, line: Line, seen: Rc<std::cell::RefCell<Vec<Seen>>>) {
    let calls = Rc::new(Cell::new(0));
    let service = service_fn(move |request| {
        calls.set(calls.get() + 1);
        answer(request, line.clone(), calls.get(), Rc::clone(&seen))
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    // An error is a client that left or a body that broke off: both are told by what was seen.
    let _ = server.half_close(true).serve_connection(TokioIo::new(strict), service).await;
}

async fn answer(
    request: Request<Incoming>,
    line: Line,
    call: u64,
    seen: Rc<std::cell::RefCell<Vec<Seen>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let violation = line.violation(call);
    let (head, body) = request.into_parts();
    if head.version == http::Version::HTTP_10 {
        assert!(
            !line.inform(StatusCode::EARLY_HINTS, &HeaderMap::new()),
            "HTTP/1.0 knows no interim answers"
        );
    }
    let result = match violation {
        Some(violation) => Seen::Refused(violation.status),
        None => match body.collect().await {
            Ok(body) => Seen::Request {
                line: format!("{} {} {:?}", head.method, head.uri, head.version),
                fields: head
                    .headers
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
                    .collect(),
                body: body.to_bytes().to_vec(),
            },
            Err(_) => {
                line.body_violation().map_or(Seen::CutBody, |violation| Seen::BadBody(violation.status))
            }
        },
    };
    let status = match &result {
        Seen::Request { .. } => 200,
        Seen::BadBody(status) | Seen::Refused(status) => *status,
        Seen::CutBody => 400,
    };
    seen.borrow_mut().push(result);
    if call.is_multiple_of(2) {
        line.no_tunnel(call);
    }
    line.answered(call);
    let mut response = Response::new(Full::new(Bytes::from_static(b"ok")));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status of ours");
    Ok(response)
}

fn local<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

fn send(pieces: Vec<Vec<u8>>) -> (Vec<Seen>, Vec<u8>) {
    local(async {
        let exchange = Served::start(64 * 1024).exchange(pieces);
        tokio::time::timeout(Duration::from_secs(60), exchange)
            .await
            .expect("every connection comes to an end")
    })
}

fn whole(bytes: &[u8]) -> Vec<Vec<u8>> {
    vec![bytes.to_vec()]
}

fn single(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.iter().map(|&byte| vec![byte]).collect()
}

const FIRST: &str = "POST /one HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKY: &str = "PUT /two HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n\
                      3;x=y\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Sum: 7\r\n\r\n";
const LAST: &str = "GET /three HTTP/1.1\r\nHost: shop\r\n\r\n";

fn statuses(seen: &[Seen]) -> Vec<u16> {
    seen.iter()
        .map(|seen| match seen {
            Seen::Request { .. } => 200,
            Seen::BadBody(status) | Seen::Refused(status) => *status,
            Seen::CutBody => 0,
        })
        .collect()
}

#[test]
fn pipelined_requests_are_answered_in_order_whole_or_byte_by_byte() {
    let bytes = format!("{FIRST}\r\n{CHUNKY}{LAST}");
    for pieces in [whole(bytes.as_bytes()), single(bytes.as_bytes())] {
        let (seen, answer) = send(pieces);
        assert_eq!(statuses(&seen), [200, 200, 200]);
        assert!(
            matches!(&seen[0], Seen::Request { line, body, .. } if line.contains("/one") && body == b"hello")
        );
        assert!(
            matches!(&seen[1], Seen::Request { line, body, .. } if line.contains("/two") && body == b"abcdefg")
        );
        assert!(
            matches!(&seen[2], Seen::Request { line, body, .. } if line.contains("/three") && body.is_empty())
        );
        assert_eq!(String::from_utf8_lossy(&answer).matches("HTTP/1.1 200 OK").count(), 3);
    }
}

#[test]
fn a_bad_head_is_refused_after_the_good_ones_before_it_and_nothing_after_it_is_read() {
    let bad = "POST /bad HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bytes = format!("{FIRST}{bad}{LAST}{LAST}");
    for pieces in [whole(bytes.as_bytes()), single(bytes.as_bytes())] {
        let (seen, answer) = send(pieces);
        assert_eq!(statuses(&seen), [200, 400]);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 400 Bad Request").count(), 1);
        assert_eq!(answer.matches("HTTP/1.1").count(), 2);
    }
}

#[test]
fn a_bad_chunk_fails_its_body_and_what_follows_is_no_request() {
    let bad = "PUT /two HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n";
    let bytes = format!("{FIRST}{bad}{LAST}");
    for pieces in [whole(bytes.as_bytes()), single(bytes.as_bytes())] {
        let (seen, answer) = send(pieces);
        assert_eq!(seen[1..], [Seen::BadBody(400)]);
        assert!(String::from_utf8_lossy(&answer).contains("400 Bad Request"));
    }
}

#[test]
fn a_body_that_breaks_off_is_no_request_and_no_violation() {
    let (seen, _) = send(whole(&FIRST.as_bytes()[..FIRST.len() - 1]));
    assert_eq!(seen, [Seen::CutBody]);
    let (seen, answer) = send(whole(&FIRST.as_bytes()[..20]));
    assert_eq!((seen.len(), answer.len()), (0, 0));
}

#[test]
fn old_posts_without_a_length_have_no_body() {
    let (seen, _) = send(whole(b"POST / HTTP/1.0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(statuses(&seen), [200]);
}

#[test]
fn the_refusal_reaches_a_client_that_is_still_sending() {
    let bytes = [b"GET /a#b HTTP/1.1\r\n".as_slice(), &vec![b'x'; 300_000]].concat();
    let (seen, answer) = send(whole(&bytes));
    assert_eq!(seen, [Seen::Refused(400)]);
    assert!(answer.starts_with(b"HTTP/1.1 400"));
}

#[test]
fn bytes_behind_an_upgrade_that_was_not_granted_are_the_next_request() {
    let wish = "GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    for bytes in [format!("{wish}{LAST}"), format!("{FIRST}{wish}{LAST}{LAST}")] {
        let (one, two) = (send(whole(bytes.as_bytes())).0, send(single(bytes.as_bytes())).0);
        assert_eq!(one, two);
        assert_eq!(one.len(), bytes.matches("Host").count());
        assert!(statuses(&one).iter().all(|&status| status == 200));
    }
}

#[test]
fn bytes_behind_an_upgrade_wait_until_it_is_granted_and_then_pass_raw() {
    local(async {
        let (mut client, io) = duplex(1024);
        let (strict, line) = Strict::new(io, LIMITS, Rc::default());
        let server = tokio::task::spawn_local({
            let line = line.clone();
            async move {
                let service = service_fn(move |_request: Request<Incoming>| {
                    let line = line.clone();
                    async move {
                        assert!(line.violation(1).is_none());
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        assert!(line.wants_upgrade(1));
                        line.tunnel(1);
                        let mut response = Response::new(Full::new(Bytes::new()));
                        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                        Ok::<_, Infallible>(response)
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(strict), service);
                let parts = connection.without_shutdown().await.expect("the upgrade ends HTTP");
                let mut strict = parts.io.into_inner();
                let mut all = parts.read_buf.to_vec();
                strict.read_to_end(&mut all).await.expect("a pipe does not fail to read");
                all
            }
        });
        let wish = "GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        client.write_all(format!("{wish}\x01raw\n").as_bytes()).await.expect("the pipe is open");
        let mut head = [0; 12];
        client.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 101");
        assert_eq!(line.phase(), Phase::Tunnel);
        client.write_all(b"GET nonsense\n\n").await.expect("the pipe is open");
        client.shutdown().await.expect("the pipe is open");
        assert_eq!(server.await.expect("the server task does not panic"), b"\x01raw\nGET nonsense\n\n");
    });
}

#[test]
fn a_head_that_takes_too_long_is_408_and_an_idle_connection_just_ends() {
    local(async {
        let mut served = Served::start(1024);
        served.client.write_all(b"GET / HT").await.expect("the pipe is open");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((served.line.phase(), served.line.since()), (Phase::Head, 0));
        served.clock.set(7);
        served.client.write_all(b"TP").await.expect("the pipe is open");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((served.line.phase(), served.line.since(), served.line.last_read()), (Phase::Head, 0, 7));
        served.line.expire_head();
        let (seen, answer) = served.exchange(vec![]).await;
        assert_eq!(seen, [Seen::Refused(408)]);
        assert!(answer.starts_with(b"HTTP/1.1 408"));

        let served = Served::start(1024);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(served.line.phase(), Phase::Idle);
        served.line.expire_head();
        let (seen, answer) = served.exchange(vec![]).await;
        assert_eq!((seen.len(), answer.len()), (0, 0));
    });
}

#[test]
fn a_request_that_came_before_an_idle_connection_ends_is_answered() {
    local(async {
        let mut served = Served::start(1024);
        tokio::time::sleep(Duration::from_secs(1)).await;
        served.client.write_all(LAST.as_bytes()).await.expect("the pipe is open");
        served.line.expire_head();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (seen, _) = served.exchange(whole(LAST.as_bytes())).await;
        assert_eq!(statuses(&seen), [200, 200], "the patience that ended was for a request that came");
    });
}

#[test]
fn phases_tell_who_keeps_whom_waiting() {
    local(async {
        let mut served = Served::start(1024);
        served.client.write_all(&FIRST.as_bytes()[..FIRST.len() - 2]).await.expect("the pipe is open");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(served.line.phase(), Phase::Body);
        served.client.write_all(b"lo").await.expect("the pipe is open");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(served.line.phase(), Phase::Idle);
        served.line.close();
        let (seen, _) = served.exchange(vec![]).await;
        assert_eq!(statuses(&seen), [200]);
    });
    local(async {
        // Its answers do not fit into a pipe of 64 bytes that nobody reads.
        let mut served = Served::start(64);
        served.clock.set(3);
        served.client.write_all(LAST.as_bytes()).await.expect("the pipe is open");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((served.line.phase(), served.line.write_blocked_since()), (Phase::Writing, Some(3)));
        served.line.close();
        tokio::time::timeout(Duration::from_secs(1), served.server)
            .await
            .expect("closing ends the connection")
            .expect("the server task does not panic");
    });
}

#[test]
fn an_interim_answer_goes_before_the_answer_and_never_into_it() {
    local(async {
        let (mut client, io) = duplex(4096);
        let (strict, line) = Strict::new(io, LIMITS, Rc::default());
        let mut hints = HeaderMap::new();
        hints.insert("link", HeaderValue::from_static("</a.css>; rel=preload"));
        assert!(!line.inform(StatusCode::EARLY_HINTS, &hints), "no call runs yet");
        let at_work = line.clone();
        let server = tokio::task::spawn_local(async move {
            let service = service_fn(move |_request: Request<Incoming>| {
                let (line, hints) = (at_work.clone(), hints.clone());
                async move {
                    assert!(line.violation(1).is_none());
                    assert!(
                        !line.inform(StatusCode::CONTINUE, &hints) && !line.inform(StatusCode::OK, &hints)
                    );
                    assert!(line.inform(StatusCode::EARLY_HINTS, &hints));
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    assert!(line.inform(StatusCode::PROCESSING, &HeaderMap::new()));
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"body"))))
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(strict), service)
                .await;
        });
        client.write_all(LAST.as_bytes()).await.expect("the pipe is open");
        const EARLY: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
        let mut early = [0; EARLY.len()];
        tokio::time::timeout(Duration::from_secs(1), client.read_exact(&mut early))
            .await
            .expect("a hint does not wait for the answer")
            .expect("the pipe is open");
        assert_eq!(early, EARLY);
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert!(!line.inform(StatusCode::EARLY_HINTS, &HeaderMap::new()), "the answer is out");
        client.shutdown().await.expect("the pipe is open");
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.expect("the pipe is open");
        assert!(rest.starts_with("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n"), "{rest}");
        server.await.expect("the server task does not panic");
    });
}

#[test]
fn nothing_is_kept_of_a_request_that_has_gone_through() {
    local(async {
        let (mut client, io) = duplex(1024);
        let (mut strict, line) = Strict::new(io, LIMITS, Rc::default());
        let (head, body) = FIRST.as_bytes().split_at(FIRST.len() - 5);
        let mut buf = [0; 1024];
        for piece in single(&head[..head.len() - 1]) {
            client.write_all(&piece).await.expect("the pipe is open");
            let read = tokio::time::timeout(Duration::from_secs(1), strict.read(&mut buf)).await;
            assert!(read.is_err(), "a part of a head is not passed on");
        }
        assert_eq!(line.phase(), Phase::Head);
        client.write_all(&[b"\n", body].concat()).await.expect("the pipe is open");
        assert_eq!(strict.read(&mut buf).await.expect("the pipe is open"), FIRST.len());
        assert_eq!(buf[..FIRST.len()], *FIRST.as_bytes());
        assert_eq!(strict.stash.capacity(), 0);
    });
}

#[test]
fn a_refused_client_that_stays_is_read_out_until_it_is_closed() {
    local(async {
        let mut served = Served::start(1024);
        served.client.write_all(b"GET /a#b HTTP/1.1\r\n").await.expect("the pipe is open");
        let mut answer = Vec::new();
        served.client.read_to_end(&mut answer).await.expect("the answer ends");
        assert!(answer.starts_with(b"HTTP/1.1 400"));
        served.client.write_all(&[b'x'; 10_000]).await.expect("what it sends is thrown away");
        assert_eq!(served.line.phase(), Phase::Closing);
        served.line.close();
        tokio::time::timeout(Duration::from_secs(1), served.server)
            .await
            .expect("closing ends the connection")
            .expect("the server task does not panic");
    });
}

#[test]
fn a_refusal_waits_for_the_answer_before_it_though_the_client_is_gone_quiet() {
    local(async {
        let (mut client, io) = duplex(4096);
        let (strict, line) = Strict::new(io, LIMITS, Rc::default());
        let calls = Rc::new(Cell::new(0));
        let server = tokio::task::spawn_local(async move {
            let service = service_fn(move |_request: Request<Incoming>| {
                calls.set(calls.get() + 1);
                let violation = line.violation(calls.get());
                async move {
                    let status = match violation {
                        Some(violation) => violation.status,
                        None => {
                            tokio::time::sleep(Duration::from_secs(300)).await;
                            200
                        }
                    };
                    Ok::<_, Infallible>(
                        Response::builder().status(status).body(String::new()).expect("a response"),
                    )
                }
            });
            // Without `half_close` hyper takes the end of what the client sends for the end of the client.
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(strict), service).await
        });
        client.write_all(format!("{LAST}GET / HTTP/3\r\n").as_bytes()).await.expect("the pipe is open");
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.shutdown().await.expect("the pipe is open");
        let mut answers = String::new();
        client.read_to_string(&mut answers).await.expect("the answers end");
        let lines: Vec<_> = answers.lines().filter(|line| line.starts_with("HTTP/")).collect();
        assert_eq!(lines, ["HTTP/1.1 200 OK", "HTTP/1.1 400 Bad Request"]);
        drop(client);
        server.await.expect("the server task does not panic").expect("the connection ends well");
    });
}

/// Pieces of requests, good and bad, from which streams are put together.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let good = [FIRST, CHUNKY, LAST, "\r\n", "GET / HTTP/1.1\r\nHost: shop\r\nX: y\r\n\r\n"];
    let bad = [
        "GET / HTTP/1.1\nHost: shop\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "PUT / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: x\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    ];
    prop_oneof![
        4 => proptest::sample::select(good.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        2 => proptest::sample::select(bad.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..6),
    ]
}

fn split(bytes: &[u8], lens: &[usize]) -> Vec<Vec<u8>> {
    let (mut rest, mut pieces) = (bytes, Vec::new());
    for &len in lens {
        let (piece, after) = rest.split_at(len.min(rest.len()));
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces.push(rest.to_vec());
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn however_a_stream_is_split_the_same_requests_come_out(
        fragments in proptest::collection::vec(fragment(), 1..6),
        lens in proptest::collection::vec(1usize..40, 0..40),
    ) {
        let bytes = fragments.concat();
        let (once, _) = send(whole(&bytes));
        prop_assert_eq!(&once, &send(split(&bytes, &lens)).0);
        prop_assert_eq!(&once, &send(single(&bytes)).0);
    }

    #[test]
    fn random_bytes_never_panic_and_never_become_a_request(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let (seen, _) = send(whole(&bytes));
        let requests = statuses(&seen).contains(&200);
        prop_assert!(!requests, "{seen:?}");
    }

    #[test]
    fn a_mutated_head_is_refused_or_means_what_hyper_says_it_means(
        at in 0usize..80, byte in any::<u8>(),
    ) {
        let mut head = b"POST /a?b HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\nConnection: x\r\nX: y\r\n\r\n".to_vec();
        let at = at.min(head.len() - 1);
        head[at] = byte;
        let verdict = scan::head(&head, &LIMITS);
        let (seen, _) = send(whole(&head));
        match verdict {
            Verdict::Whole(_) => prop_assert!(matches!(statuses(&seen)[..], [0 | 200]), "{seen:?}"),
            Verdict::Bad(violation) => prop_assert_eq!(&seen[..], &[Seen::Refused(violation.status)]),
            Verdict::Partial => prop_assert!(seen.is_empty()),
        }
    }

    #[test]
    fn scanning_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = scan::head(&bytes, &LIMITS);
        let lines = [b"GET / HTTP/1.1\r\n".as_slice(), &bytes, b"\r\n\r\n"].concat();
        let _ = scan::head(&lines, &LIMITS);
    }
}
