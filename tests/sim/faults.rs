//! What breaks in a run, one thing after the other or several at once: the store, the ways to it, and replicas.

use std::{rc::Rc, sync::atomic::Ordering::Relaxed};

use tokio::time::{Instant, sleep};

use super::{
    plan::{Break, Rng, ms},
    replica::Replica,
    shared::Out,
    world::World,
};

impl World {
    /// One of the breaks of the plan.
    pub(crate) async fn breaks(self: Rc<Self>, what: Break, mut rng: Rng) {
        sleep(ms(rng.instant(9000))).await;
        let length = if rng.percent(60) { rng.instant(2500) } else { rng.instant(14_000) };
        let replica = self.any_replica(&mut rng);
        match what {
            Break::Outage => self.outage(&mut rng, length).await,
            Break::Cut => self.cut(&replica, length).await,
            Break::Slowness => self.slowness(&replica, length).await,
            Break::Failover => self.failover(&mut rng).await,
            Break::Emptying => self.emptying(&mut rng).await,
            Break::Stop => self.stop(&replica, length),
            Break::Crash => self.crash(&mut rng),
        }
    }

    pub(crate) fn any_replica(&self, rng: &mut Rng) -> Rc<Replica> {
        let replicas = self.replicas.borrow();
        let slot = usize::try_from(rng.next() % replicas.len() as u64).expect("small");
        Rc::clone(&replicas[slot])
    }

    async fn outage(&self, rng: &mut Rng, length: u64) {
        let how = match rng.between(0, 2) {
            0 => Out::Refused,
            1 => Out::Silent,
            _ => Out::Unheard,
        };
        self.away(how, length).await;
    }

    async fn away(&self, how: Out, length: u64) {
        self.log.write(
            || format!("the store is AWAY ({how:?}) for {length}"),
            |book, at| book.trouble(None, at.ms, at.ms + length),
        );
        self.shared.goes(how);
        sleep(ms(length)).await;
        self.shared.goes(Out::No);
        self.log.write(|| "the store is there again".to_owned(), |_, _| ());
    }

    pub(crate) async fn cut(&self, replica: &Replica, length: u64) {
        let number = replica.number;
        self.log.write(
            || format!("r{number} is CUT OFF from the store for {length}"),
            |book, at| book.trouble(Some(number), at.ms, at.ms + length),
        );
        replica.wire.cut.store(true, Relaxed);
        sleep(ms(length)).await;
        replica.wire.cut.store(false, Relaxed);
        self.log.write(|| format!("r{number} reaches the store again"), |_, _| ());
    }

    async fn slowness(&self, replica: &Replica, length: u64) {
        let number = replica.number;
        self.log.write(
            || format!("for r{number} the store is SLOW for {length}"),
            |book, at| book.trouble(Some(number), at.ms, at.ms + length),
        );
        replica.wire.slow.store(true, Relaxed);
        sleep(ms(length)).await;
        replica.wire.slow.store(false, Relaxed);
        self.log.write(|| format!("for r{number} the store is as quick as ever"), |_, _| ());
    }

    /// What the store is told from here on is lost. Often nobody notices that it was away.
    async fn failover(&self, rng: &mut Rng) {
        let (lost, away) = (rng.between(1, 1000), if rng.percent(50) { 0 } else { rng.instant(1500) });
        let copied =
            self.log.write(|| "the store's replica hears no more".to_owned(), |book, at| book.copied(at));
        let copy = self.shared.copy();
        sleep(ms(lost)).await;
        if away > 0 {
            self.away(Out::Refused, away).await;
        }
        self.shared.fails_over_to(copy);
        self.log.write(|| "the store FAILS OVER".to_owned(), |book, at| book.failed_over(at, copied));
    }

    async fn emptying(&self, rng: &mut Rng) {
        let away = if rng.percent(50) { 0 } else { rng.instant(1500) };
        if away > 0 {
            self.away(Out::Refused, away).await;
        }
        self.shared.restarts_empty();
        self.log.write(|| "the store is EMPTY".to_owned(), |book, at| book.breaks.emptied.push(at));
    }

    fn stop(&self, replica: &Replica, length: u64) {
        let number = replica.number;
        self.log.write(
            || format!("r{number} is STOPPED for {length}"),
            |book, at| {
                book.trouble(Some(number), at.ms, at.ms + length);
                book.breaks.stops.push((number, at.ms, at.ms + length));
            },
        );
        replica.stops_until(Instant::now() + ms(length));
    }

    pub(crate) fn crash(self: &Rc<Self>, rng: &mut Rng) {
        let slot = usize::try_from(rng.next() % self.plan.replicas as u64).expect("small");
        let next = self.replica();
        let dead = std::mem::replace(&mut self.replicas.borrow_mut()[slot], Rc::clone(&next));
        dead.dies();
        self.log.write(
            || format!("r{} DIES, r{} takes its place", dead.number, next.number),
            |book, at| book.died(dead.number, at),
        );
    }
}
