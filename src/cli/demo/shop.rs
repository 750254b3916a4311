//! A naive shop, as half the world runs one: it looks whether an order is paid, pays slowly, and then writes that it
//! is. Whatever arrives in between is paid for again.
//!
//! It never stops a payment because a client went away, as PHP does not. It is on loopback and in this process only.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener as StdTcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Longest form that is read, in bytes.
const FORM_BYTES_MAX: usize = 16 << 10;
/// After an accept that failed, so that a lack of file descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the shop has written down so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Books {
    pub orders: u64,
    pub charges: u64,
    pub stock_taken: u64,
    /// Payments that are on their way right now.
    pub paying: u64,
}

/// The shop, until it is dropped.
pub(super) struct Shop {
    pub address: SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

struct State {
    tables: Mutex<Tables>,
    /// Longest time that a payment takes; the shortest is two fifths of it.
    pay_max: Duration,
}

#[derive(Default)]
struct Tables {
    books: Books,
    /// The order that a session has placed.
    placed: HashMap<String, u64>,
    paid: HashSet<String>,
}

impl Shop {
    /// # Errors
    /// Where there is no port, thread or runtime left.
    pub(super) fn open(pay_max: Duration) -> io::Result<Self> {
        let socket = StdTcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let state = Arc::new(State { tables: Mutex::default(), pay_max });
        let stop = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serving = serve(Arc::clone(&state), stop.clone());
        let thread = thread::Builder::new().name("demo-shop".to_owned()).spawn(move || {
            runtime.block_on(async {
                // A socket that the runtime does not take is a shop that nobody reaches; the storm tells of it.
                if let Ok(listener) = TcpListener::from_std(socket) {
                    serving(listener).await;
                }
            });
        })?;
        Ok(Self { address, state, stop, thread: Some(thread) })
    }

    pub(super) fn books(&self) -> Books {
        self.state.tables().books
    }

    /// Orders that were placed in the usual way and wait for the provider's word.
    pub(super) fn expect_payment(&self, how_many: u64) {
        self.state.tables().books.orders += how_many;
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A shop that panicked is as gone as one that ended.
            let _ = thread.join();
        }
    }
}

impl State {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the bank. The shop's mistake is all that happens meanwhile.
    async fn pay(&self) {
        self.tables().books.paying += 1;
        tokio::time::sleep(self.pay_max.mul_f64(rand::random_range(0.4..1.0))).await;
        let books = &mut self.tables().books;
        books.paying -= 1;
        books.charges += 1;
        books.stock_taken += 1;
    }

    /// The button "place order".
    async fn checkout(&self, session: String) -> Answer {
        let placed = self.tables().placed.get(&session).copied();
        let order = match placed {
            Some(order) => order,
            None => {
                self.pay().await;
                let mut tables = self.tables();
                tables.books.orders += 1;
                let order = tables.books.orders;
                tables.placed.insert(session, order);
                order
            }
        };
        Answer::json(format!("{{\"result\":\"success\",\"order\":{order}}}\n"))
    }

    /// What the callback and the page of return both do: complete the order if it is not.
    async fn complete(&self, order: String) -> Answer {
        let paid = self.tables().paid.contains(&order);
        if !paid {
            self.pay().await;
            self.tables().paid.insert(order.clone());
        }
        Answer::text(StatusCode::OK, format!("order {order} is paid\n"))
    }

    fn front_page(&self) -> Answer {
        let Books { orders, charges, stock_taken, .. } = self.books_now();
        Answer::text(
            StatusCode::OK,
            format!("orders {orders}, charges {charges}, stock taken {stock_taken}\n"),
        )
    }

    fn books_now(&self) -> Books {
        self.tables().books
    }
}

struct Answer {
    status: StatusCode,
    kind: &'static str,
    body: String,
}

impl Answer {
    fn json(body: String) -> Self {
        Self { status: StatusCode::OK, kind: "application/json", body }
    }

    fn text(status: StatusCode, body: String) -> Self {
        Self { status, kind: "text/plain", body }
    }
}

fn serve(
    state: Arc<State>,
    stop: CancellationToken,
) -> impl FnOnce(TcpListener) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send {
    move |listener| {
        Box::pin(async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let state = Arc::clone(&state);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                // A client that hangs up is an error to hyper and an everyday thing to a shop.
                drop(tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service)));
            }
        })
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let form = match Limited::new(body, FORM_BYTES_MAX).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(_) => String::new(),
    };
    // A task of its own: hyper drops this future when the client goes away, and a shop does not notice that.
    let work = tokio::spawn(async move {
        match (head.method, head.uri.path()) {
            (Method::POST, "/checkout") => match session(&head.headers) {
                Some(session) => state.checkout(session).await,
                None => Answer::text(StatusCode::BAD_REQUEST, "no cookie named session\n".to_owned()),
            },
            (Method::POST, "/callback") => completed(&state, &form).await,
            (Method::GET, "/return") => completed(&state, head.uri.query().unwrap_or("")).await,
            (Method::GET, "/") => state.front_page(),
            _ => Answer::text(StatusCode::NOT_FOUND, "there is no such page\n".to_owned()),
        }
    });
    let answer = work
        .await
        .unwrap_or_else(|_| Answer::text(StatusCode::INTERNAL_SERVER_ERROR, "the shop broke\n".to_owned()));
    let mut response = Response::new(Full::from(answer.body));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(answer.kind));
    Ok(response)
}

async fn completed(state: &State, pairs: &str) -> Answer {
    match field(pairs, '&', "order") {
        Some(order) => state.complete(order).await,
        None => Answer::text(StatusCode::BAD_REQUEST, "no field named order\n".to_owned()),
    }
}

fn session(headers: &HeaderMap) -> Option<String> {
    headers.get_all(header::COOKIE).iter().find_map(|line| field(line.to_str().ok()?, ';', "session"))
}

/// A field as the demo's own clients write it; nothing is decoded.
fn field(pairs: &str, between: char, name: &str) -> Option<String> {
    let mut pairs = pairs.split(between).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}
