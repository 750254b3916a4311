//! One thread and one single-threaded runtime per core, and how connections come to them.
//!
//! A connection stays on its core for life: its requests, the pool they use, their timers. Only guarded exchanges
//! meet those of other cores, in the claim table.

use std::{
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    accept::{self, Accepted, Listener},
    door::{self, Door},
    roster::Roster,
};
use crate::{
    gate::{Core, Gate, core::TICK},
    ops::log::Level,
    upstream::{Connect, TcpConnector},
};

/// The sweeper's walk, in ticks.
const SWEEP_TICKS: u64 = 5;

/// How long the answers of exchanges that are cut short may take to be written.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// What tells the cores to end.
#[derive(Clone, Default)]
pub struct Stop {
    /// Accept nothing more, close what idles, finish what runs.
    pub drain: CancellationToken,
    /// Answer what can be answered, and close everything at once.
    pub now: CancellationToken,
}

/// The sending ends of all cores' queues.
#[derive(Clone)]
pub struct Cores {
    gate: Arc<Gate>,
    queues: Arc<Vec<Queue>>,
}

struct Queue {
    sender: mpsc::UnboundedSender<Arrival>,
    connections: Arc<AtomicUsize>,
}

/// The threads; joining them waits for every connection to end.
pub struct Threads(Vec<thread::JoinHandle<()>>);

impl Threads {
    /// Whether every core has ended.
    #[must_use]
    pub fn are_done(&self) -> bool {
        self.0.iter().all(thread::JoinHandle::is_finished)
    }

    pub fn join(self) {
        for thread in self.0 {
            // A core that panicked has said so in the log; the others are waited for all the same.
            let _ = thread.join();
        }
    }
}

impl Cores {
    /// Starts the threads. `sockets` are the listening sockets of each core, where cores accept for themselves;
    /// the length of the outer list is the number of cores.
    pub fn start(
        gate: &Arc<Gate>,
        door: &Arc<Door>,
        stop: &Stop,
        sockets: Vec<Vec<(usize, std::net::TcpListener)>>,
    ) -> io::Result<(Self, Threads)> {
        let mut queues = Vec::new();
        let mut threads = Vec::new();
        for (number, own) in sockets.into_iter().enumerate() {
            let (sender, receiver) = mpsc::unbounded_channel();
            let connections = Arc::new(AtomicUsize::new(0));
            queues.push(Queue { sender, connections: Arc::clone(&connections) });
            let (gate, door, stop) = (Arc::clone(gate), Arc::clone(door), stop.clone());
            let name = format!("core-{number}");
            threads.push(thread::Builder::new().name(name).spawn(move || {
                let ended = run(&gate, door, &stop, own, receiver, &connections);
                if let Err(error) = ended {
                    gate.log.event(Level::Error, "core-failed", &[("error", &error.to_string())]);
                }
            })?);
        }
        Ok((Self { gate: Arc::clone(gate), queues: Arc::new(queues) }, Threads(threads)))
    }

    /// Hands a connection to the core that serves the fewest.
    pub fn deliver(&self, accepted: Accepted) {
        let least = self.queues.iter().min_by_key(|queue| queue.connections.load(Relaxed));
        if let Some(queue) = least {
            let arrival = Arrival::new(&self.gate, &queue.connections, accepted);
            // The channel is as bounded as the number of connections is, which the acceptor keeps. A core that has
            // died takes nothing; the connection closes, and is counted out.
            let _ = queue.sender.send(arrival);
        }
    }
}

fn run(
    gate: &Arc<Gate>,
    door: Arc<Door>,
    stop: &Stop,
    own: Vec<(usize, std::net::TcpListener)>,
    queue: mpsc::UnboundedReceiver<Arrival>,
    connections: &Arc<AtomicUsize>,
) -> io::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        let connector: Rc<dyn Connect> = Rc::new(TcpConnector);
        let core = Core::new(Arc::clone(gate), &connector);
        let roster = Rc::new(Roster::default());
        drop(tokio::task::spawn_local(tick(Rc::clone(&core), Rc::clone(&roster), stop.clone())));
        let serving = Serving { core, roster, door, connections: Arc::clone(connections) };
        serving.run(stop, own, queue).await
    })
}

struct Serving {
    core: Rc<Core>,
    roster: Rc<Roster>,
    door: Arc<Door>,
    connections: Arc<AtomicUsize>,
}

impl Serving {
    async fn run(
        self,
        stop: &Stop,
        own: Vec<(usize, std::net::TcpListener)>,
        mut queue: mpsc::UnboundedReceiver<Arrival>,
    ) -> io::Result<()> {
        let serving = Rc::new(self);
        let mut accepting = JoinSet::new();
        for (number, socket) in own {
            let listener = Listener::Tcp(TcpListener::from_std(socket)?);
            let serving = Rc::clone(&serving);
            accepting.spawn_local(async move {
                let gate = Arc::clone(&serving.core.gate);
                accept::accept(&gate, &listener, number, |accepted| {
                    serving.serve(Arrival::new(&gate, &serving.connections, accepted));
                })
                .await;
            });
        }
        loop {
            tokio::select! {
                arrival = queue.recv() => match arrival {
                    Some(arrival) => serving.serve(arrival),
                    None => break,
                },
                () = stop.drain.cancelled() => break,
            }
        }
        drop(accepting);
        // What was handed over before the drain is served still, also what the acceptor had in hand when it began.
        let served_out = async {
            // The flights of this core are its tasks, and clients of other cores may wait for them; they end before
            // the runtime does. Meanwhile the acceptor may hand over what it had in hand.
            let is_empty = || serving.connections.load(Relaxed) == 0;
            loop {
                tokio::select! {
                    Some(arrival) = queue.recv() => serving.serve(arrival),
                    () = serving.core.gate.claims.landed(), if is_empty() => if is_empty() { break },
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            }
        };
        let cut = async {
            stop.now.cancelled().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            () = served_out => {}
            () = cut => {}
        }
        Ok(())
    }

    fn serve(self: &Rc<Self>, Arrival { accepted, departure }: Arrival) {
        let (core, roster) = (Rc::clone(&self.core), Rc::clone(&self.roster));
        let door = Arc::clone(&self.door);
        drop(tokio::task::spawn_local(async move {
            let _departure = departure;
            door::enter(&door, core, roster, accepted).await;
        }));
    }
}

/// A connection that is counted in.
struct Arrival {
    accepted: Accepted,
    departure: Departure,
}

impl Arrival {
    /// The acceptor has counted it for the gate; here it is counted for its core.
    fn new(gate: &Arc<Gate>, connections: &Arc<AtomicUsize>, accepted: Accepted) -> Self {
        connections.fetch_add(1, Relaxed);
        let (gate, connections) = (Arc::clone(gate), Arc::clone(connections));
        let departure = Departure { gate, connections, listener: accepted.listener };
        Self { accepted, departure }
    }
}

/// Counts a connection out, however it ends.
struct Departure {
    gate: Arc<Gate>,
    connections: Arc<AtomicUsize>,
    listener: usize,
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.gate.connections.fetch_sub(1, Relaxed);
        self.gate.metrics.connections[self.listener].dec();
        self.connections.fetch_sub(1, Relaxed);
    }
}

/// The core's coarse clock. It also keeps a timer near at all times, so that setting another never has to wake the
/// runtime (measured: up to 0.85 eventfd writes per request without it).
pub async fn tick(core: Rc<Core>, roster: Rc<Roster>, stop: Stop) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let started = tokio::time::Instant::now();
    let mut ticks = 0u64;
    let mut cut_at = None;
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = core.gate.cut.cancelled(), if !core.alarms.is_cut() => core.alarms.cut(),
        }
        ticks += 1;
        core.clock.set((started.elapsed().as_millis() / TICK.as_millis()) as u64);
        core.alarms.tick(core.clock.get());
        let cut = stop.now.is_cancelled().then(|| *cut_at.get_or_insert_with(tokio::time::Instant::now));
        if cut.is_some_and(|at| at.elapsed() >= LAST_WORDS) {
            roster.close_all();
        } else if ticks.is_multiple_of(SWEEP_TICKS) || core.gate.is_draining() {
            roster.sweep(core.clock.get(), &core.gate.config.limits, core.gate.is_draining());
        }
        if ticks.is_multiple_of(10) {
            for upstream in &core.upstreams {
                upstream.tick();
            }
        }
    }
}
