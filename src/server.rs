//! Putting everything together: from a configuration to a process that serves, and to its end.
//!
//! The control runtime lives here: signals are somebody else's, but the store's ticking, the operators' listener, the
//! acceptor and the drain run on it. No request does.

mod counting;
mod fleets;
mod local;
mod shared;
mod stores;

use std::{
    fs, io,
    net::TcpListener as StdTcpListener,
    os::unix::net::UnixListener as StdUnixListener,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;

pub use self::local::memory;
use self::{counting::Counting, local::Seen, stores::Stores};
use crate::{
    admin::{self, AdminState, Stage},
    claim::Claims,
    config::{Accept, Address, Config, Format, Level, StoreKind},
    edge::{
        accept::{self, Binding, Listener},
        cores::{Cores, Stop, Threads},
    },
    gate::{
        Gate,
        core::{Budget, TICK},
    },
    ops::{
        log::{self, Log},
        metrics::{Metrics, Names},
        words::DroppedEarly,
    },
    request::Secret,
    store::redis::Finding,
    store::{Store, StoreError, file::OpenError, memory::Stats},
    upstream::Fleet,
};

/// How long the log may take to write its last lines.
const LOG_FLUSH: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {source}{hint}")]
    Bind { address: String, source: io::Error, hint: &'static str },
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(
        "the store does not answer, and there is no `secret` in [store]: without the one that is kept there, this replica \
         would name every order otherwise than the others do ({source}); start it once the store is up, or give all \
         replicas the same `secret`"
    )]
    NoSecret { source: StoreError },
    #[error("the store is unfit: {finding}")]
    Unfit { finding: Finding },
    #[error("cannot start a thread or runtime: {0}")]
    Runtime(#[from] io::Error),
}

/// How a drain ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drained {
    Whole,
    /// Something was still in flight when the deadline passed.
    Cut {
        flights: usize,
        connections: usize,
    },
}

/// A process that serves.
pub struct Server {
    gate: Arc<Gate>,
    stop: Stop,
    accepting: CancellationToken,
    admin_stop: CancellationToken,
    admin: Arc<AdminState>,
    threads: Threads,
    control: thread::JoinHandle<()>,
    store: Stores,
    /// What an operator should read before anything else: it is in the log too.
    pub notices: Vec<String>,
    /// Where it listens, in the order of the configuration.
    pub addresses: Vec<String>,
    pub admin_address: Option<String>,
    sockets: Vec<PathBuf>,
}

/// What is bound, before anything serves.
struct Bound {
    /// For the acceptor of the control runtime, with the listener's number.
    dispatched: Vec<(usize, Socket)>,
    /// Per core.
    owned: Vec<Vec<(usize, StdTcpListener)>>,
    addresses: Vec<String>,
    admin: Option<Socket>,
    admin_address: Option<String>,
    files: Vec<PathBuf>,
}

enum Socket {
    Tcp(StdTcpListener),
    Unix(StdUnixListener),
}

impl Server {
    /// Binds everything, then serves. Nothing is left behind where it fails.
    pub fn start(mut config: Config) -> Result<Self, StartError> {
        let Bound { dispatched, owned, addresses, admin: admin_socket, admin_address, files } =
            bind_all(&config)?;
        let token = config.admin.as_ref().and_then(|admin| admin.token.as_ref());
        let token = token.map(|token| admin::Token::new(token.expose()));
        let (store, notices) = Stores::open(&mut config)?;
        let gate = assemble(config, store.seam(), io::stdout())?;
        notices.log(&gate.log);
        let admin = AdminState::new(Arc::clone(&gate.metrics), Arc::clone(&gate.log), token, None);
        let admin = Arc::new(admin.with_orders(Arc::clone(&gate)));
        let stop = Stop::default();
        let (cores, threads) = Cores::start(&gate, &stop, owned)?;
        let (accepting, admin_stop) = (CancellationToken::new(), CancellationToken::new());
        let control = Control {
            gate: Arc::clone(&gate),
            store: store.clone(),
            cores,
            accepting: accepting.clone(),
            admin_stop: admin_stop.clone(),
            admin: Arc::clone(&admin),
        };
        let (ready, is_ready) = oneshot::channel();
        let control = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || control.run(dispatched, admin_socket, ready))?;
        // The sender is dropped where the control runtime could not be made.
        is_ready.blocking_recv().unwrap_or_else(|_| Err(io::Error::other("the control thread has died")))?;
        admin.set_stage(Stage::Ready);
        let sockets = files;
        Ok(Self {
            gate,
            stop,
            accepting,
            admin_stop,
            admin,
            threads,
            control,
            store,
            notices: notices.into_texts(),
            addresses,
            admin_address,
            sockets,
        })
    }

    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Stops accepting, finishes what runs, and ends. Blocks the thread.
    ///
    /// `hurry` is asked now and then whether to cut the drain short.
    pub fn drain(self, hurry: impl Fn() -> bool) -> Drained {
        self.gate.log.event(log::Level::Info, "draining", &[]);
        self.admin.set_stage(Stage::Draining);
        self.gate.drain();
        self.accepting.cancel();
        self.stop.drain.cancel();
        let until = std::time::Instant::now() + self.gate.config.limits.drain_deadline;
        let is_done = || self.threads.are_done();
        while !is_done() && std::time::Instant::now() < until && !hurry() {
            if self.gate.connections.load(Relaxed) == 0 {
                // Nobody is left who could ask for an order that is in doubt: late answers are not waited for.
                self.gate.claims.stopping.cancel();
            }
            thread::sleep(Duration::from_millis(20));
        }
        let drained = match is_done() {
            true => Drained::Whole,
            false => Drained::Cut {
                flights: self.gate.claims.flights.running(),
                connections: self.gate.connections.load(Relaxed),
            },
        };
        self.gate.claims.stopping.cancel();
        self.gate.cut.cancel();
        self.stop.now.cancel();
        self.threads.join();
        self.admin_stop.cancel();
        // A control thread that panicked has nothing left to do here.
        let _ = self.control.join();
        self.store.close();
        for path in &self.sockets {
            let _ = fs::remove_file(path);
        }
        if let Drained::Cut { flights, connections } = drained {
            let (flights, connections) = (flights.to_string(), connections.to_string());
            let fields = [("flights", flights.as_str()), ("connections", connections.as_str())];
            self.gate.log.event(log::Level::Error, "drain-cut", &fields);
        } else {
            self.gate.log.event(log::Level::Info, "drained", &[]);
        }
        let _ = self.gate.log.flush(LOG_FLUSH);
        drained
    }
}

/// Everything that answers requests, without a thread or a socket of its own except that of the log: what
/// [`Server::start`] serves from, and what tests serve from over any byte stream.
///
/// # Errors
/// Where the system gives no thread for the log.
pub fn assemble(
    config: Config,
    store: Arc<dyn Store>,
    log_to: impl io::Write + Send + 'static,
) -> io::Result<Arc<Gate>> {
    let metrics = Arc::new(metrics(&config));
    let log = Arc::new(open_log(&config, log_to, metrics.log_lines_dropped.clone())?);
    let observer = Arc::new(Counting { metrics: Arc::clone(&metrics), log: Arc::clone(&log) });
    let claims = Claims::new(store, config.store.lease, patience(&config), rand::random(), observer);
    let fleets = config.upstreams.iter().map(|one| Fleet::new(one.servers.clone(), one.fleet)).collect();
    Ok(Arc::new(Gate {
        fleets,
        secret: config.store.secret.clone().unwrap_or_else(Secret::random),
        claims,
        observation: crate::gate::observe::Observation::default(),
        metrics,
        log,
        buffers: Budget::new(config.limits.buffers_max),
        draining: AtomicBool::new(false),
        cut: CancellationToken::new(),
        connections: AtomicUsize::new(0),
        replica: format!("{:08x}", rand::random::<u32>()),
        config,
    }))
}

/// A shared store keeps the deadline itself, and what is done without it needs none: this one is only the net under it.
fn patience(config: &Config) -> Duration {
    match config.store.kind {
        StoreKind::Memory | StoreKind::File { .. } => config.store.deadline,
        StoreKind::Redis(_) => config.store.deadline * 2,
    }
}

fn bind_all(config: &Config) -> Result<Bound, StartError> {
    let mut bound = Bound {
        dispatched: Vec::new(),
        owned: (0..config.runtime.workers).map(|_| Vec::new()).collect(),
        addresses: Vec::new(),
        admin: None,
        admin_address: None,
        files: Vec::new(),
    };
    for (number, listener) in config.listeners.iter().enumerate() {
        let address = &listener.address;
        let shown = match (address, config.runtime.accept) {
            (Address::Tcp(tcp), Accept::Reuseport) => {
                // Port 0 is chosen by the first socket; the others share it.
                let mut at = *tcp;
                for own in &mut bound.owned {
                    let socket = bind_tcp(&Address::Tcp(at), Binding::Shared)?;
                    at = socket.local_addr()?;
                    own.push((number, socket));
                }
                at.to_string()
            }
            (Address::Tcp(_), Accept::Dispatch) => {
                let socket = bind_tcp(address, Binding::Alone)?;
                let shown = socket.local_addr()?.to_string();
                bound.dispatched.push((number, Socket::Tcp(socket)));
                shown
            }
            (Address::Unix(path), _) => {
                bound.dispatched.push((number, Socket::Unix(bind_unix(path, address)?)));
                bound.files.push(path.clone());
                address.to_string()
            }
        };
        bound.addresses.push(shown);
    }
    if let Some(admin) = &config.admin {
        let (socket, shown) = match &admin.listen {
            Address::Tcp(_) => {
                let socket = bind_tcp(&admin.listen, Binding::Alone)?;
                let shown = socket.local_addr()?.to_string();
                (Socket::Tcp(socket), shown)
            }
            Address::Unix(path) => {
                bound.files.push(path.clone());
                (Socket::Unix(bind_unix(path, &admin.listen)?), admin.listen.to_string())
            }
        };
        bound.admin = Some(socket);
        bound.admin_address = Some(shown);
    }
    Ok(bound)
}

fn bind_tcp(address: &Address, binding: Binding) -> Result<StdTcpListener, StartError> {
    accept::bind(address, binding).map_err(|source| cannot_bind(address, source))
}

fn bind_unix(path: &std::path::Path, address: &Address) -> Result<StdUnixListener, StartError> {
    accept::bind_unix(path).map_err(|source| cannot_bind(address, source))
}

fn cannot_bind(address: &Address, source: io::Error) -> StartError {
    let hint = match source.kind() {
        io::ErrorKind::AddrInUse => "; another process listens there: stop it, or choose another address",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need the capability CAP_NET_BIND_SERVICE: choose a higher one, or grant it"
        }
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        _ => "",
    };
    StartError::Bind { address: address.to_string(), source, hint }
}

fn metrics(config: &Config) -> Metrics {
    let routes: Vec<String> = config.routes.iter().map(|route| route.name.clone()).collect();
    let servers = |upstream: &crate::config::Upstream| {
        upstream.servers.iter().map(|server| server.address.clone()).collect::<Vec<_>>()
    };
    let upstreams: Vec<_> = config.upstreams.iter().map(|one| (one.name.clone(), servers(one))).collect();
    let listeners: Vec<String> = config.listeners.iter().map(|one| one.address.to_string()).collect();
    Metrics::new(&Names { routes: &routes, upstreams: &upstreams, listeners: &listeners })
}

fn open_log(config: &Config, to: impl io::Write + Send + 'static, dropped: Counter) -> io::Result<Log> {
    let format = match config.log.format {
        Format::Json => log::Format::Json,
        Format::Text => log::Format::Text,
    };
    let level = match config.log.level {
        Level::Error => log::Level::Error,
        Level::Warn => log::Level::Warn,
        Level::Info => log::Level::Info,
        Level::Debug => log::Level::Debug,
    };
    Log::to(to, format, level, dropped)
}

/// The control thread.
struct Control {
    gate: Arc<Gate>,
    store: Stores,
    cores: Cores,
    accepting: CancellationToken,
    admin_stop: CancellationToken,
    admin: Arc<AdminState>,
}

impl Control {
    fn run(
        self,
        dispatched: Vec<(usize, Socket)>,
        admin_socket: Option<Socket>,
        ready: oneshot::Sender<io::Result<()>>,
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        match runtime {
            Ok(runtime) => runtime.block_on(self.serve(dispatched, admin_socket, ready)),
            Err(error) => drop(ready.send(Err(error))),
        }
    }

    async fn serve(
        self,
        dispatched: Vec<(usize, Socket)>,
        admin_socket: Option<Socket>,
        ready: oneshot::Sender<io::Result<()>>,
    ) {
        let started = self.start(dispatched, admin_socket);
        // Whoever started us waits for this; if it is gone, nobody wants to serve any more.
        if ready.send(started).is_err() {
            return;
        }
        self.store.begin(&self.gate, &self.admin);
        fleets::begin(&self.gate);
        let mut interval = tokio::time::interval(TICK);
        let mut before = (Stats::default(), Seen::default());
        let mut servers = fleets::Seen::default();
        loop {
            tokio::select! {
                _ = interval.tick() => {
                    self.tick(&mut before);
                    servers.look(&self.gate);
                }
                () = self.admin_stop.cancelled() => return,
            }
        }
    }

    fn start(&self, dispatched: Vec<(usize, Socket)>, admin_socket: Option<Socket>) -> io::Result<()> {
        for (number, socket) in dispatched {
            let listener = match socket {
                Socket::Tcp(socket) => Listener::Tcp(TcpListener::from_std(socket)?),
                Socket::Unix(socket) => Listener::Unix(UnixListener::from_std(socket)?),
            };
            let (gate, cores) = (Arc::clone(&self.gate), self.cores.clone());
            let accepting = self.accepting.clone();
            drop(tokio::task::spawn_local(async move {
                let accept = accept::accept(&gate, &listener, number, |accepted| cores.deliver(accepted));
                tokio::select! {
                    () = accept => {}
                    () = accepting.cancelled() => {}
                }
            }));
        }
        if let Some(socket) = admin_socket {
            let listener = match socket {
                Socket::Tcp(socket) => admin::Listener::Tcp(TcpListener::from_std(socket)?),
                Socket::Unix(socket) => admin::Listener::Unix(UnixListener::from_std(socket)?),
            };
            drop(tokio::task::spawn_local(admin::serve(
                listener,
                Arc::clone(&self.admin),
                self.admin_stop.clone(),
            )));
        }
        Ok(())
    }

    fn tick(&self, (before, health): &mut (Stats, Seen)) {
        self.store.tick();
        self.gate.observation.tick();
        let (metrics, stats) = (&self.gate.metrics, self.store.stats());
        let claims = &self.gate.claims;
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        metrics.flights.set(count(claims.flights.running()));
        metrics.followers.set(count(claims.flights.followers()));
        metrics.lanes_waiting.set(count(claims.lanes.waiting()));
        metrics.buffer_bytes.set(count(self.gate.buffers.used()));
        metrics.records.set(count(stats.records));
        metrics.record_bytes.set(count(stats.record_bytes));
        if let Stores::Local(local) = &self.store {
            health.look(local, &self.gate, &self.admin);
        }
        let grown = |now: u64, then: u64| now.saturating_sub(then);
        metrics.dropped_early(
            DroppedEarly::Body,
            grown(stats.bodies_dropped_early, before.bodies_dropped_early),
        );
        metrics.dropped_early(
            DroppedEarly::Record,
            grown(stats.records_dropped_early, before.records_dropped_early),
        );
        *before = stats;
    }
}
