//! The way from a replica to the store: slow, broken, or cut, on demand.
//!
//! A call that fails may have been carried out, before or after its asker gave it up.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use oncegate::store::{
    Ask, Claimed, Ending, Fence, Hold, Key, LaneView, Renewed, Reply, Resolution, Resolved, Restored,
    Settled, Store, StoreError, memory::Memory,
};
use tokio::{sync::oneshot, time::sleep};

use super::{
    log::{At, Book, Lease, Log},
    plan::{LEASE, Rng, Wires, ms},
};

pub(crate) struct Wire {
    pub(crate) replica: u64,
    memory: Arc<Memory>,
    log: Log,
    wires: Wires,
    rng: Mutex<Rng>,
    /// The replica is dead: nothing it asks leaves it.
    pub(crate) dead: AtomicBool,
    /// The replica cannot reach the store.
    pub(crate) cut: AtomicBool,
}

/// What becomes of one call.
enum Trip {
    AtOnce,
    Through {
        there: u64,
        back: u64,
    },
    /// Carried out, and its answer is lost: an error, or silence.
    Unanswered {
        there: u64,
        silent: bool,
    },
    /// Not carried out.
    Refused {
        after: u64,
    },
}

impl Wire {
    pub(crate) fn new(replica: u64, memory: Arc<Memory>, log: Log, wires: Wires, rng: Rng) -> Self {
        let (dead, cut) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { replica, memory, log, wires, rng: Mutex::new(rng), dead, cut }
    }

    fn draw(&self) -> Trip {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        if self.cut.load(Relaxed) {
            return if rng.percent(15) {
                Trip::Unanswered { there: rng.between(0, 100), silent: rng.percent(50) }
            } else {
                Trip::Refused { after: if rng.percent(50) { 0 } else { 10_000 } }
            };
        }
        let (there, back) = (rng.between(0, 90), rng.between(0, 90));
        match self.wires {
            Wires::Calm => Trip::AtOnce,
            Wires::Slow => Trip::Through { there, back },
            Wires::Flaky => match rng.between(0, 99) {
                0..=7 => Trip::Refused { after: there },
                8..=13 => Trip::Unanswered { there, silent: false },
                14..=18 => Trip::Unanswered { there, silent: true },
                // Carried out after its asker has given it up.
                19..=20 => Trip::Unanswered { there: there + 270, silent: true },
                _ => Trip::Through { there, back },
            },
        }
    }

    fn send<'a, T: Send + 'static>(
        &'a self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Reply<'a, T> {
        if self.dead.load(Relaxed) {
            return Reply::later(std::future::pending());
        }
        let trip = self.draw();
        Reply::later(async move {
            let (there, back, silent, fails) = match trip {
                Trip::AtOnce => return call.await,
                Trip::Through { there, back } => (there, back, false, false),
                Trip::Unanswered { there, silent } => (there, 0, silent, true),
                Trip::Refused { after } => {
                    self.log
                        .write(|| format!("r{} {name} does not reach the store", self.replica), |_, _| ());
                    sleep(ms(after)).await;
                    return Err(StoreError::Down("cut".into()));
                }
            };
            let (answer, answered) = oneshot::channel();
            // On its way it is out of its asker's hands.
            drop(tokio::spawn(async move {
                sleep(ms(there)).await;
                drop(answer.send(call.await));
            }));
            let came = answered.await.expect("a call on its way is carried out");
            if fails {
                self.log.write(|| format!("r{} {name} is carried out unheard", self.replica), |_, _| ());
                if silent {
                    return std::future::pending().await;
                }
                return Err(StoreError::Down("answer lost".into()));
            }
            sleep(ms(back)).await;
            came
        })
    }
}

fn given_back(book: &mut Book, fence: u64, at: At) {
    if let Some(lease) = book.leases.get_mut(&fence) {
        lease.given_back.get_or_insert(at);
    }
}

impl Store for Wire {
    fn claim<'a>(&'a self, ask: &'a Ask) -> Reply<'a, Claimed> {
        let (memory, log, ask, replica) =
            (Arc::clone(&self.memory), self.log.clone(), ask.clone(), self.replica);
        self.send("claim", async move {
            let claimed = memory.claim(&ask).await?;
            let line = || format!("r{replica} claim by {:x}: {}", ask.owner.0 as u64, short(&claimed));
            log.write(line, |book, at| {
                if let Claimed::Lead(hold) = &claimed {
                    let ends_ms = at.ms + LEASE;
                    let lanes = hold.lanes.to_vec();
                    let lease = Lease { lanes, claimed: at, ends_ms, given_back: None };
                    book.leases.entry(hold.fence.0).or_insert(lease).ends_ms = ends_ms;
                }
            });
            Ok(claimed)
        })
    }

    fn renew<'a>(&'a self, hold: &'a Hold) -> Reply<'a, Renewed> {
        let (memory, log, hold, replica) =
            (Arc::clone(&self.memory), self.log.clone(), hold.clone(), self.replica);
        self.send("renew", async move {
            let renewed = memory.renew(&hold).await?;
            log.write(
                || format!("r{replica} renew {}: {renewed:?}", hold.fence.0),
                |book, at| {
                    if renewed == Renewed::Held
                        && let Some(lease) = book.leases.get_mut(&hold.fence.0)
                    {
                        lease.ends_ms = at.ms + LEASE;
                    }
                },
            );
            Ok(renewed)
        })
    }

    fn settle<'a>(&'a self, hold: &'a Hold, ending: Ending) -> Reply<'a, Settled> {
        let (memory, log, hold, replica) =
            (Arc::clone(&self.memory), self.log.clone(), hold.clone(), self.replica);
        self.send("settle", async move {
            let name = match &ending {
                Ending::Done { .. } => "done",
                Ending::DoneUnkept { .. } => "done, unkept",
                Ending::Failed { .. } => "failed",
                Ending::InDoubt => "in doubt",
            };
            let settled = memory.settle(&hold, ending).await?;
            log.write(
                || format!("r{replica} settle {} as {name}: {settled:?}", hold.fence.0),
                |book, at| given_back(book, hold.fence.0, at),
            );
            Ok(settled)
        })
    }

    fn abandon<'a>(&'a self, hold: &'a Hold) -> Reply<'a, ()> {
        let (memory, log, hold, replica) =
            (Arc::clone(&self.memory), self.log.clone(), hold.clone(), self.replica);
        self.send("abandon", async move {
            memory.abandon(&hold).await?;
            log.write(
                || format!("r{replica} abandon {}", hold.fence.0),
                |book, at| given_back(book, hold.fence.0, at),
            );
            Ok(())
        })
    }

    fn delivered<'a>(&'a self, fences: &'a [Fence]) -> Reply<'a, ()> {
        let (memory, fences) = (Arc::clone(&self.memory), fences.to_vec());
        self.send("delivered", async move { memory.delivered(&fences).await })
    }

    fn begin_generation(&self, identity: Key) -> Reply<'_, ()> {
        let (memory, log, replica) = (Arc::clone(&self.memory), self.log.clone(), self.replica);
        self.send("begin_generation", async move {
            memory.begin_generation(identity).await?;
            log.write(
                || format!("r{replica} new generation of {}", identity.short()),
                |book, at| book.generations.push((at, identity)),
            );
            Ok(())
        })
    }

    fn inspect(&self, lane: Key) -> Reply<'_, LaneView> {
        self.memory.inspect(lane)
    }

    fn resolve(&self, lane: Key, resolution: Resolution) -> Reply<'_, Resolved> {
        self.memory.resolve(lane, resolution)
    }

    fn forget(&self, lane: Key) -> Reply<'_, usize> {
        self.memory.forget(lane)
    }

    fn restore<'a>(&'a self, restored: &'a Restored) -> Reply<'a, Settled> {
        let (memory, restored) = (Arc::clone(&self.memory), restored.clone());
        self.send("restore", async move { memory.restore(&restored).await })
    }
}

fn short(claimed: &Claimed) -> String {
    match claimed {
        Claimed::Lead(hold) => format!("lead {}", hold.fence.0),
        Claimed::Follow { fence, .. } => format!("follow {}", fence.0),
        Claimed::Queue { running, .. } => format!("queue behind {:?}", running.map(|fence| fence.0)),
        Claimed::Replay(record) => format!("replay {}", record.fence.0),
        Claimed::Resolved { .. } => "resolved".into(),
        Claimed::InDoubt { .. } => "in doubt".into(),
        Claimed::Mismatch => "mismatch".into(),
        Claimed::Busy => "busy".into(),
    }
}
