//! The connection of the process: one to the primary for calls and one for wake-ups, kept up by a thread of its own.
//!
//! A call never waits for a connection: while there is none it fails at once. Who is slow is not the same as who is
//! gone: a call that is not answered within its deadline is counted, and three in a row end the connection, for a
//! host that swallows everything looks connected for ever.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use futures_util::StreamExt as _;
use redis::{
    ErrorKind, RedisError, ServerErrorKind, Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    address::{Address, Host, Way},
    connect::{self, Primary},
    script::{Call, Name, Script, Told},
    trust::Trust,
    wakes::Wakes,
};
use crate::store::StoreError;

/// Calls in a row that were not answered, after which the connection is given up.
const UNANSWERED_MAX: u32 = 3;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often an idle connection is tried, and Sentinels are asked who the primary is.
const WATCH: Duration = Duration::from_secs(1);

pub(super) struct Link {
    address: Address,
    meta_key: String,
    deadline: Duration,
    current: RwLock<Option<Live>>,
    unanswered: AtomicU32,
    /// The number of the connection that was given up last.
    given_up: watch::Sender<Option<u64>>,
    why: Mutex<String>,
    stopping: CancellationToken,
    is_up: watch::Sender<bool>,
}

#[derive(Clone)]
struct Live {
    number: u64,
    host: Host,
    connection: MultiplexedConnection,
    digests: Arc<[String]>,
}

impl Link {
    pub(super) fn new(address: Address, meta_key: String, deadline: Duration) -> Self {
        Self {
            address,
            meta_key,
            deadline,
            current: RwLock::new(None),
            unanswered: AtomicU32::new(0),
            given_up: watch::Sender::new(None),
            why: Mutex::new("no connection has been made yet".to_owned()),
            stopping: CancellationToken::new(),
            is_up: watch::Sender::new(false),
        }
    }

    /// Starts the thread that keeps the connections up until [`Self::stop`].
    pub(super) fn start(
        self: &Arc<Self>,
        wakes: Arc<Wakes>,
        channel: String,
        trust: Arc<Trust>,
    ) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let link = Arc::clone(self);
        thread::Builder::new().name("store".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = link.stopping.cancelled() => {}
                    () = link.keep_up(&trust) => {}
                    () = link.listen(&wakes, &channel) => {}
                }
            });
            link.set(None);
        })?;
        Ok(())
    }

    pub(super) fn stop(&self) {
        self.stopping.cancel();
    }

    pub(super) fn is_up(&self) -> watch::Receiver<bool> {
        self.is_up.subscribe()
    }

    /// One step. Whatever is not the step's own answer is "down" (or late), never an answer.
    pub(super) async fn call(&self, call: &Call) -> Result<Told, StoreError> {
        let live = self.live()?;
        let place = Script::ALL.iter().position(|script| *script == call.script).unwrap_or_default();
        let digest = live.digests.get(place).map_or("", String::as_str);
        let value = match self.send(&live, &call.command(Name::Digest(digest))).await {
            // It was restarted, or its scripts were flushed: it gets the text, and knows it from then on.
            Err(Failure::Told(error)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.send(&live, &call.command(Name::Text)).await
            }
            sent => sent,
        };
        Told::read(value.map_err(|failure| self.judge(&live, failure))?)
    }

    /// Waits until so many replicas have what this connection has written.
    pub(super) async fn wait_replicas(&self, replicas: u32) -> Result<(), StoreError> {
        let live = self.live()?;
        let mut wait = redis::cmd("WAIT");
        wait.arg(replicas).arg(u64::try_from(self.deadline.as_millis() / 2).unwrap_or(u64::MAX).max(1));
        match self.send(&live, &wait).await.map_err(|failure| self.judge(&live, failure))? {
            Value::Int(have) if have >= i64::from(replicas) => Ok(()),
            Value::Int(have) => Err(StoreError::Down(format!("{have} of {replicas} replicas have it"))),
            _ => Err(super::script::unreadable()),
        }
    }

    /// A command that is no step, for the checks at the start.
    pub(super) async fn ask(&self, command: &redis::Cmd) -> Result<Result<Value, RedisError>, StoreError> {
        let live = self.live()?;
        match self.send(&live, command).await {
            Ok(value) => Ok(Ok(value)),
            Err(Failure::Told(error)) if connect::is_forbidden(&error) => Ok(Err(error)),
            Err(failure) => Err(self.judge(&live, failure)),
        }
    }

    fn live(&self) -> Result<Live, StoreError> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or_else(|| StoreError::Down(self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()))
    }

    async fn send(&self, live: &Live, command: &redis::Cmd) -> Result<Value, Failure> {
        let mut connection = live.connection.clone();
        let mut pending = Pending { link: self, live, since: Instant::now(), is_over: false };
        let came = timeout(self.deadline, connection.req_packed_command(command)).await;
        let Ok(came) = came else { return Err(Failure::Late) };
        pending.is_over = true;
        self.unanswered.store(0, Relaxed);
        came.and_then(|value| value.extract_error()).map_err(Failure::Told)
    }

    fn judge(&self, live: &Live, failure: Failure) -> StoreError {
        match failure {
            Failure::Late => StoreError::Deadline,
            Failure::Told(error) => {
                let text = text(&error);
                if is_fatal(&error, &text) {
                    self.give_up(live, &text);
                }
                StoreError::Down(text)
            }
        }
    }

    /// Nobody uses this connection from now on.
    fn give_up(&self, live: &Live, why: &str) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| current.number == live.number) {
            *current = None;
            why.clone_into(&mut self.why.lock().unwrap_or_else(PoisonError::into_inner));
            self.is_up.send_replace(false);
            self.given_up.send_replace(Some(live.number));
        }
    }

    fn set(&self, live: Option<Live>) {
        self.unanswered.store(0, Relaxed);
        let is_up = live.is_some();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = live;
        // Whoever hears of it finds it.
        self.is_up.send_replace(is_up);
    }

    async fn keep_up(&self, trust: &Trust) {
        let mut pause = PAUSE_MIN;
        for number in 0.. {
            match self.open(trust).await {
                Ok(primary) => {
                    pause = PAUSE_MIN;
                    let Primary { host, connection, digests } = primary;
                    let live = Live { number, host, connection, digests: digests.into() };
                    self.set(Some(live.clone()));
                    let mut given_up = self.given_up.subscribe();
                    tokio::select! {
                        _ = given_up.wait_for(|lost| *lost == Some(number)) => {}
                        () = self.watch(&live) => {}
                    }
                    self.set(None);
                }
                Err(why) => {
                    *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
            sleep(pause).await;
        }
    }

    async fn open(&self, trust: &Trust) -> Result<Primary, String> {
        let mut primary =
            connect::primary(&self.address, &self.meta_key).await.map_err(|error| text(&error))?;
        trust.greet(&mut primary).await.map_err(|error| error.to_string())?;
        Ok(primary)
    }

    /// Finds out that this connection is no good any more though nobody uses it.
    async fn watch(&self, live: &Live) {
        loop {
            sleep(WATCH).await;
            if let Err(failure) = self.send(live, &redis::cmd("PING")).await {
                // Fatal or not, it is told there.
                let _ = self.judge(live, failure);
            }
            if matches!(self.address.way, Way::Sentinel { .. })
                && let Ok(primary) = connect::find(&self.address, &self.meta_key).await
                && primary != live.host
            {
                self.give_up(live, "the Sentinels have chosen another primary");
            }
        }
    }

    /// Hears wake-ups from the host that calls go to. In a Cluster any node would do.
    async fn listen(&self, wakes: &Wakes, channel: &str) {
        let mut pause = PAUSE_MIN;
        let mut is_up = self.is_up();
        loop {
            if is_up.wait_for(|up| *up).await.is_err() {
                return;
            }
            let Ok(live) = self.live() else { continue };
            if let Ok(pubsub) = connect::subscribe(&self.address, &live.host, channel).await {
                pause = PAUSE_MIN;
                let (mut asking, mut messages) = pubsub.split();
                let mut trying = tokio::time::interval(WATCH * 5);
                loop {
                    tokio::select! {
                        message = messages.next() => match message {
                            Some(message) => wakes.deliver(message.get_payload_bytes().to_vec().into()),
                            None => break,
                        },
                        _ = trying.tick() => {
                            let answered = timeout(WATCH, asking.ping::<Value>()).await;
                            if !matches!(answered, Ok(Ok(_))) || self.host().is_some_and(|host| host != live.host) {
                                break;
                            }
                        }
                    }
                }
            }
            pause = (pause * 2).min(PAUSE_MAX);
            sleep(pause).await;
        }
    }

    fn host(&self) -> Option<Host> {
        self.live().ok().map(|live| live.host)
    }
}

enum Failure {
    Late,
    Told(RedisError),
}

/// A call on its way. Its caller may lose patience first, and drop it unanswered: that counts as well.
struct Pending<'a> {
    link: &'a Link,
    live: &'a Live,
    since: Instant,
    is_over: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.is_over || self.since.elapsed() < self.link.deadline / 2 {
            return;
        }
        if self.link.unanswered.fetch_add(1, Relaxed) + 1 >= UNANSWERED_MAX {
            self.link.give_up(self.live, "it does not answer");
        }
    }
}

fn text(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}

/// Whether the connection leads to the wrong host, or to nobody. A store that loads or is full is the right one.
fn is_fatal(error: &RedisError, text: &str) -> bool {
    let is_elsewhere =
        ["READONLY", "MOVED", "NOAUTH", "MASTERDOWN", "CLUSTERDOWN"].iter().any(|code| text.contains(code));
    is_elsewhere || error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error()
}
