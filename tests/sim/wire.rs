//! The way from a replica to the store: slow, broken, or cut, on demand; wake-ups may come late, or never.
//!
//! A call that fails may have been carried out, before or after its asker gave it up. What the store does is written down
//! here, as the store does it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use oncegate::store::{
    Ask, Claimed, Ending, Epoch, Fence, Hold, Key, LaneView, Recall, Renewed, Reply, Resolution, Resolved,
    Restored, RestoredState, Settled, Store, StoreError, Wake, memory::Memory,
};
use tokio::{sync::oneshot, time::sleep};

use super::{
    log::{At, Book, Lease, Log},
    plan::{DEADLINE, Rng, Wakes, Wires, ms},
    shared::{Out, Shared},
};

pub(crate) struct Wire {
    pub(crate) replica: u64,
    shared: Arc<Shared>,
    log: Log,
    wires: Wires,
    wakes: Wakes,
    rng: Mutex<Rng>,
    adopted: Mutex<Option<Epoch>>,
    /// The replica is dead: nothing it asks leaves it.
    dead: AtomicBool,
    /// The replica cannot reach the store.
    pub(crate) cut: AtomicBool,
    /// What it asks takes longer than anybody waits, as often as not.
    pub(crate) slow: AtomicBool,
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

/// Which memories of the store answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// The one that was adopted.
    Adopted,
    Any,
}

impl Wire {
    pub(crate) fn new(
        replica: u64,
        shared: Arc<Shared>,
        log: Log,
        (wires, wakes): (Wires, Wakes),
        rng: Rng,
    ) -> Self {
        let off = || AtomicBool::new(false);
        let (rng, adopted) = (Mutex::new(rng), Mutex::default());
        Self { replica, shared, log, wires, wakes, rng, adopted, dead: off(), cut: off(), slow: off() }
    }

    pub(crate) fn dies(&self) {
        self.dead.store(true, Relaxed);
    }

    /// What a process that begins hears of the store, if anything.
    pub(crate) fn recall_at_start(&self) -> Option<Recall> {
        let is_there = self.shared.out() == Out::No && !self.cut.load(Relaxed);
        is_there.then(|| self.shared.recall(None))
    }

    fn draw(&self) -> Trip {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        match self.shared.out() {
            Out::No => {}
            Out::Refused => return Trip::Refused { after: 0 },
            Out::Silent => return Trip::Refused { after: 10_000 },
            Out::Unheard => return Trip::Unanswered { there: rng.between(0, 90), silent: true },
        }
        if self.cut.load(Relaxed) {
            return if rng.percent(15) {
                Trip::Unanswered { there: rng.between(0, 100), silent: rng.percent(50) }
            } else {
                Trip::Refused { after: if rng.percent(50) { 0 } else { 10_000 } }
            };
        }
        if self.slow.load(Relaxed) {
            return Trip::Through { there: rng.between(0, 400), back: rng.between(0, 400) };
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

    /// Makes a call of the store as it is when the call arrives there.
    fn send<'a, T: Send + 'static>(
        &'a self,
        name: &'static str,
        trust: Trust,
        call: impl FnOnce(&Memory) -> Result<T, StoreError> + Send + 'static,
    ) -> Reply<'a, T> {
        if self.dead.load(Relaxed) {
            return Reply::later(std::future::pending());
        }
        let shared = Arc::clone(&self.shared);
        let trusted = match trust {
            Trust::Adopted => *self.adopted.lock().unwrap_or_else(PoisonError::into_inner),
            Trust::Any => None,
        };
        let call = move || match trusted {
            Some(trusted) if trusted != shared.epoch() => Err(StoreError::Forgot),
            Some(_) | None => call(&shared.memory()),
        };
        let trip = self.draw();
        Reply::later(async move {
            let (there, back, silent, fails) = match trip {
                Trip::AtOnce => return call(),
                Trip::Through { there, back } => (there, back, false, false),
                Trip::Unanswered { there, silent } => (there, 0, silent, true),
                Trip::Refused { after } => {
                    self.failed(name, "does not reach the store");
                    sleep(ms(after)).await;
                    return Err(StoreError::Down("cut".into()));
                }
            };
            if !fails && there + back + 10 >= DEADLINE {
                self.failed(name, "takes too long");
            }
            let came = carry_out(there, call).await;
            if fails {
                self.failed(name, "is carried out unheard");
                if silent {
                    return std::future::pending().await;
                }
                return Err(StoreError::Down("answer lost".into()));
            }
            sleep(ms(back)).await;
            came
        })
    }

    /// For whoever checks: the replica may think that the store is down.
    fn failed(&self, name: &str, how: &str) {
        let replica = self.replica;
        self.log.write(
            || format!("r{replica} {name} {how}"),
            |book, at| book.trouble(Some(replica), at.ms, at.ms + DEADLINE),
        );
    }

    /// The way of a wake-up back to the replica.
    fn carry(&self, claimed: Claimed) -> Claimed {
        if self.wakes == Wakes::Sure {
            return claimed;
        }
        match claimed {
            Claimed::Follow { fence, wake } => Claimed::Follow { fence, wake: self.carry_wake(wake) },
            Claimed::Queue { running, wake } => Claimed::Queue { running, wake: self.carry_wake(wake) },
            other => other,
        }
    }

    fn carry_wake(&self, wake: Wake) -> Wake {
        let (is_lost, late) = {
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            (rng.percent(20), if rng.percent(50) { 0 } else { rng.between(0, 200) })
        };
        let (mut waking, woken) = oneshot::channel();
        drop(tokio::spawn(async move {
            let word = tokio::select! {
                biased;
                () = waking.closed() => return,
                word = wake => word,
            };
            if is_lost {
                return waking.closed().await;
            }
            sleep(ms(late)).await;
            if let Ok(word) = word {
                drop(waking.send(word));
            }
        }));
        woken
    }
}

/// On its way a call is out of its asker's hands.
async fn carry_out<T: Send + 'static>(
    there: u64,
    call: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (answer, answered) = oneshot::channel();
    drop(tokio::spawn(async move {
        sleep(ms(there)).await;
        drop(answer.send(call()));
    }));
    answered.await.expect("a call on its way is carried out")
}

/// The memory store acts when it is called.
fn at_once<T>(reply: Reply<'_, T>) -> Result<T, StoreError> {
    reply.at_once().unwrap_or_else(|_| panic!("the memory store waits for nothing"))
}

fn given_back(book: &mut Book, fence: u64, at: At) {
    book.wrote(fence, at);
    if let Some(lease) = book.leases.get_mut(&fence) {
        lease.given_back.get_or_insert(at);
    }
}

impl Store for Wire {
    fn claim<'a>(&'a self, ask: &'a Ask) -> Reply<'a, Claimed> {
        let (log, ask, replica, shared) =
            (self.log.clone(), ask.clone(), self.replica, Arc::clone(&self.shared));
        let reply = self.send("claim", Trust::Adopted, move |memory| {
            memory.raise_fences(shared.fence());
            let claimed = at_once(memory.claim(&ask))?;
            let line = || format!("r{replica} claim by {:x}: {}", ask.owner.0 as u64, short(&claimed));
            log.write(line, |book, at| {
                if let Claimed::Lead(hold) = &claimed {
                    let lanes = hold.lanes.to_vec();
                    book.wrote(hold.fence.0, at);
                    book.granted.insert(hold.fence.0);
                    book.leases.entry(hold.fence.0).or_insert_with(|| Lease::begun(lanes, at)).prolong(at);
                }
            });
            Ok(claimed)
        });
        match reply.at_once() {
            Ok(claimed) => Reply::now(claimed.map(|claimed| self.carry(claimed))),
            Err(reply) => Reply::later(async move { Ok(self.carry(reply.await?)) }),
        }
    }

    fn renew<'a>(&'a self, hold: &'a Hold) -> Reply<'a, Renewed> {
        let (log, hold, replica) = (self.log.clone(), hold.clone(), self.replica);
        self.send("renew", Trust::Adopted, move |memory| {
            let renewed = at_once(memory.renew(&hold))?;
            log.write(
                || format!("r{replica} renew {}: {renewed:?}", hold.fence.0),
                |book, at| {
                    if renewed == Renewed::Held {
                        book.wrote(hold.fence.0, at);
                        if let Some(lease) = book.leases.get_mut(&hold.fence.0) {
                            lease.prolong(at);
                        }
                    }
                },
            );
            Ok(renewed)
        })
    }

    fn settle<'a>(&'a self, hold: &'a Hold, ending: Ending) -> Reply<'a, Settled> {
        let (log, hold, replica) = (self.log.clone(), hold.clone(), self.replica);
        self.send("settle", Trust::Adopted, move |memory| {
            let name = match &ending {
                Ending::Done { .. } => "done",
                Ending::DoneUnkept { .. } => "done, unkept",
                Ending::Failed { .. } => "failed",
                Ending::InDoubt => "in doubt",
            };
            let settled = at_once(memory.settle(&hold, ending))?;
            log.write(
                || format!("r{replica} settle {} as {name}: {settled:?}", hold.fence.0),
                |book, at| given_back(book, hold.fence.0, at),
            );
            Ok(settled)
        })
    }

    fn abandon<'a>(&'a self, hold: &'a Hold) -> Reply<'a, ()> {
        let (log, hold, replica) = (self.log.clone(), hold.clone(), self.replica);
        self.send("abandon", Trust::Adopted, move |memory| {
            at_once(memory.abandon(&hold))?;
            log.write(
                || format!("r{replica} abandon {}", hold.fence.0),
                |book, at| given_back(book, hold.fence.0, at),
            );
            Ok(())
        })
    }

    fn delivered<'a>(&'a self, fences: &'a [Fence]) -> Reply<'a, ()> {
        let fences = fences.to_vec();
        self.send("delivered", Trust::Adopted, move |memory| at_once(memory.delivered(&fences)))
    }

    fn begin_generation(&self, identity: Key) -> Reply<'_, ()> {
        let (log, replica) = (self.log.clone(), self.replica);
        self.send("begin_generation", Trust::Adopted, move |memory| {
            at_once(memory.begin_generation(identity))?;
            log.write(
                || format!("r{replica} new generation of {}", identity.short()),
                |book, at| book.generations.push((at, identity)),
            );
            Ok(())
        })
    }

    fn restore_generation(&self, identity: Key, began: Fence) -> Reply<'_, ()> {
        let (log, replica) = (self.log.clone(), self.replica);
        self.send("restore_generation", Trust::Any, move |memory| {
            log.write(
                || format!("r{replica} generation of {} up to {}", identity.short(), began.0),
                |_, _| (),
            );
            at_once(memory.restore_generation(identity, began))
        })
    }

    fn inspect(&self, lane: Key) -> Reply<'_, LaneView> {
        self.send("inspect", Trust::Adopted, move |memory| at_once(memory.inspect(lane)))
    }

    fn resolve(&self, lane: Key, resolution: Resolution) -> Reply<'_, Resolved> {
        self.send("resolve", Trust::Adopted, move |memory| at_once(memory.resolve(lane, resolution)))
    }

    fn forget(&self, lane: Key) -> Reply<'_, usize> {
        self.send("forget", Trust::Adopted, move |memory| at_once(memory.forget(lane)))
    }

    fn restore<'a>(&'a self, restored: &'a Restored) -> Reply<'a, Settled> {
        let (log, run, replica) = (self.log.clone(), restored.clone(), self.replica);
        self.send("restore", Trust::Any, move |memory| {
            let settled = at_once(memory.restore(&run))?;
            let state = match &run.state {
                RestoredState::Flight => "flight",
                RestoredState::InDoubt { .. } => "in doubt",
                RestoredState::Done { .. } => "done",
                RestoredState::Resolved { .. } => "resolved",
            };
            log.write(
                || format!("r{replica} writes {} back as {state}: {settled:?}", run.hold.fence.0),
                |book, at| restored_there(book, at, &run, settled),
            );
            Ok(settled)
        })
    }

    fn epoch(&self) -> Reply<'_, Recall> {
        let trusted = *self.adopted.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = Arc::clone(&self.shared);
        self.send("epoch", Trust::Any, move |_| Ok(shared.recall(trusted)))
    }

    fn adopt_epoch(&self, epoch: Epoch) {
        *self.adopted.lock().unwrap_or_else(PoisonError::into_inner) = Some(epoch);
    }
}

/// A run that the store was told by the replica that led it.
fn restored_there(book: &mut Book, at: At, run: &Restored, settled: Settled) {
    let fence = run.hold.fence.0;
    if settled == Settled::Superseded {
        book.superseded.insert(fence, at);
        return;
    }
    book.wrote(fence, at);
    book.written_back.push((at, fence));
    let lanes = run.hold.lanes.to_vec();
    let lease = book.leases.entry(fence).or_insert_with(|| Lease::begun(lanes, at));
    match &run.state {
        RestoredState::Flight => lease.prolong(at),
        RestoredState::InDoubt { age, .. } => {
            let age = u64::try_from(age.as_millis()).expect("a run is short");
            lease.ends_ms = lease.ends_ms.min(at.ms.saturating_sub(age));
        }
        RestoredState::Done { .. } | RestoredState::Resolved { .. } => {
            lease.given_back.get_or_insert(at);
        }
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
