//! The shop, as far as oncegate can see it: it works on what it is sent, whoever still listens.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header::LOCATION};
use oncegate::{
    claim::{Answered, Later, Lost, LostCause, NotSent, Sender, Sent},
    store::{Fence, Hold, InDoubtPolicy, Judged, Kept, Record},
};
use tokio::{
    sync::oneshot,
    time::{Duration, sleep},
};

use super::{
    log::{Exchange, Told},
    plan::{ANSWER_TIMEOUT, HOLD, Kind, ms},
    world::{Replica, World},
};

/// What the shop does with one request.
enum Way {
    /// Not one byte reaches it.
    Refuses {
        after: u64,
    },
    Answers {
        after: u64,
        judged: Judged,
        too_large: bool,
    },
    /// The connection breaks; the shop may work on.
    Resets {
        after: u64,
        works_on: u64,
    },
    /// Longer than anybody waits; then it answers, or not.
    Stalls {
        after: u64,
        judged: Option<Judged>,
    },
}

/// The request of a flight, ready to be sent.
pub(crate) struct Lead {
    pub(crate) world: Rc<World>,
    pub(crate) replica: Rc<Replica>,
    pub(crate) kind: Kind,
    pub(crate) ask: usize,
}

impl Lead {
    fn draw(&self) -> Way {
        let temper = self.world.plan.temper;
        let mut rng = self.world.shop.borrow_mut();
        let draw = rng.between(0, 99);
        let refuses = draw < temper.refuses;
        let resets = !refuses && draw < temper.refuses + temper.resets;
        let stalls = !refuses && !resets && draw < temper.refuses + temper.resets + temper.stalls;
        if refuses {
            return Way::Refuses { after: rng.instant(100) };
        }
        if resets {
            let works_on = if rng.percent(50) { 0 } else { rng.instant(6000) };
            return Way::Resets { after: rng.instant(1500), works_on };
        }
        let judged = if rng.percent(temper.fails) { Judged::Failed } else { Judged::Done };
        if stalls {
            let judged = rng.percent(70).then_some(judged);
            return Way::Stalls { after: rng.between(ANSWER_TIMEOUT + 1, ANSWER_TIMEOUT + 2 * HOLD), judged };
        }
        let after = if rng.percent(20) { 0 } else { rng.instant(ANSWER_TIMEOUT - 100) };
        Way::Answers { after, judged, too_large: rng.percent(temper.too_large) }
    }

    /// The exchange is at the shop from here on.
    fn begin(&self, fence: Fence, too_large: bool) -> usize {
        let line = || {
            format!(
                "r{} SENDS kind {} with fence {} for ask {}",
                self.replica.number, self.kind.number, fence.0, self.ask
            )
        };
        self.world.log.write(line, |book, began| {
            let number = book.exchanges.len();
            book.exchanges.push(Exchange {
                kind: self.kind.clone(),
                ask: self.ask,
                replica: self.replica.number,
                fence,
                began,
                ended: None,
                told: None,
                late: None,
                body: (!too_large).then(|| Bytes::from(format!("answer of exchange {number}"))),
                delivered: None,
            });
            number
        })
    }

    /// Lets the shop work for a while; what comes back is for whoever listens then.
    fn work(&self, number: usize, length: Duration) -> oneshot::Receiver<()> {
        let (through, listener) = oneshot::channel();
        let log = self.world.log.clone();
        drop(tokio::task::spawn_local(async move {
            sleep(length).await;
            log.write(
                || format!("shop is through with exchange {number}"),
                |book, at| book.exchanges[number].ended = Some(at),
            );
            let _ = through.send(());
        }));
        listener
    }

    fn tell(&self, number: usize, told: Told) {
        self.world.log.write(
            || format!("r{} learns of exchange {number}: {told:?}", self.replica.number),
            |book, at| book.exchanges[number].told = Some((at, told)),
        );
    }

    fn answered(&self, number: usize, fence: Fence, judged: Judged) -> Answered {
        let body = self.world.log.book().exchanges[number].body.clone();
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from(number));
        let body = body.map_or(Kept::Dropped, Kept::Whole);
        let status = StatusCode::OK;
        let record = Record {
            status,
            headers: headers.into(),
            body,
            fence,
            answered_at: 0,
            remaining: Duration::ZERO,
        };
        Answered { answer: Arc::new(record), judged, keep: self.kind.keep() }
    }

    async fn exchange(&self, fence: Fence) -> Sent {
        match self.draw() {
            Way::Refuses { after } => {
                sleep(ms(after)).await;
                let line = || {
                    format!("r{} cannot reach the shop with kind {}", self.replica.number, self.kind.number)
                };
                self.world.log.write(line, |book, at| book.refused.push((at, self.kind.number)));
                Sent::NotSent(NotSent::Unreachable)
            }
            Way::Answers { after, judged, too_large } => {
                let number = self.begin(fence, too_large);
                let _ = self.work(number, ms(after)).await;
                self.replica.stop_if_dead().await;
                self.tell(number, told(judged));
                Sent::Answered(self.answered(number, fence, judged))
            }
            Way::Resets { after, works_on } => {
                let number = self.begin(fence, false);
                drop(self.work(number, ms(after + works_on)));
                sleep(ms(after)).await;
                self.replica.stop_if_dead().await;
                self.tell(number, Told::Lost);
                Sent::Lost(Lost { cause: LostCause::Reset, late: None })
            }
            Way::Stalls { after, judged } => {
                let number = self.begin(fence, false);
                let through = self.work(number, ms(after));
                sleep(ms(ANSWER_TIMEOUT)).await;
                self.replica.stop_if_dead().await;
                self.tell(number, Told::Lost);
                let late = match self.kind.policy {
                    InDoubtPolicy::Hold(length) => {
                        Some((self.listen(number, fence, judged, through), length))
                    }
                    InDoubtPolicy::Retry => None,
                };
                Sent::Lost(Lost { cause: LostCause::Timeout, late })
            }
        }
    }

    fn listen(
        &self,
        number: usize,
        fence: Fence,
        judged: Option<Judged>,
        through: oneshot::Receiver<()>,
    ) -> Later {
        let (replica, log) = (Rc::clone(&self.replica), self.world.log.clone());
        let answer = judged.map(|judged| (judged, self.answered(number, fence, judged)));
        Box::pin(async move {
            let _ = through.await;
            replica.stop_if_dead().await;
            let (judged, answered) = answer?;
            log.write(
                || format!("r{} learns late of exchange {number}: {judged:?}", replica.number),
                |book, at| book.exchanges[number].late = Some((at, told(judged))),
            );
            Some(answered)
        })
    }
}

impl Sender for Lead {
    async fn send(&self, hold: &Hold) -> Sent {
        self.replica.stop_if_dead().await;
        let sent = self.exchange(hold.fence).await;
        self.replica.stop_if_dead().await;
        sent
    }
}

fn told(judged: Judged) -> Told {
    match judged {
        Judged::Done | Judged::Pending => Told::Done,
        Judged::Failed => Told::Failed,
    }
}
