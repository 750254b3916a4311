//! Waiting that is over long before its time, nearly always: for an answer, for a lease to need renewal.
//!
//! A timer of the runtime for each of them costs more than the rest of the wait. So a nap first lies in a list that
//! the core's tick walks, and only one that is still there shortly before its end gets a timer, which ends it on
//! time. A core whose tick does not run has no naps.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::core::TICK;

/// Naps shorter than this many ticks are timers at once.
const TICKS_MIN: u64 = 3;

/// The naps of one core.
#[derive(Default)]
pub struct Alarms {
    places: RefCell<Places>,
    now: Cell<u64>,
    cut: Cell<bool>,
}

#[derive(Default)]
struct Places {
    /// As many as there ever were naps at once.
    all: Vec<Place>,
    free: Vec<usize>,
}

struct Place {
    due: u64,
    /// Whom to wake. `None`: nobody is here, or it has rung.
    waker: Option<Waker>,
}

impl Alarms {
    /// Wakes those whose time comes before the next tick but one.
    pub fn tick(&self, now: u64) {
        self.now.set(now);
        self.ring(|place| place.due <= now);
    }

    /// Wakes everybody, and whoever asks learns why.
    pub fn cut(&self) {
        self.cut.set(true);
        self.ring(|_| true);
    }

    /// Whether everybody was woken because the process ends.
    pub fn is_cut(&self) -> bool {
        self.cut.get()
    }

    fn ring(&self, is_due: impl Fn(&Place) -> bool) {
        let mut places = self.places.borrow_mut();
        let due = places.all.iter_mut().filter(|place| place.waker.is_some() && is_due(place));
        let wakers: Vec<Waker> = due.filter_map(|place| place.waker.take()).collect();
        drop(places);
        for waker in wakers {
            waker.wake();
        }
    }

    fn lie_down(&self, due: u64, waker: &Waker) -> usize {
        let place = Place { due, waker: Some(waker.clone()) };
        let mut places = self.places.borrow_mut();
        match places.free.pop() {
            Some(number) => {
                places.all[number] = place;
                number
            }
            None => {
                places.all.push(place);
                places.all.len() - 1
            }
        }
    }

    /// Sleeps on, unless it has rung.
    fn turn_over(&self, number: usize, waker: &Waker) -> Poll<()> {
        match &mut self.places.borrow_mut().all[number].waker {
            None => return Poll::Ready(()),
            Some(old) => old.clone_from(waker),
        }
        Poll::Pending
    }

    fn get_up(&self, number: usize) {
        let mut places = self.places.borrow_mut();
        places.all[number].waker = None;
        places.free.push(number);
    }
}

/// Resolves at a time. Also polled to no purpose, it is.
pub struct Nap {
    alarms: Rc<Alarms>,
    from: Instant,
    until: Instant,
    state: State,
}

enum State {
    New,
    Lying(usize),
    Timed(Pin<Box<Sleep>>),
}

impl Nap {
    /// `from` is now; whoever naps knows the time already.
    pub fn new(alarms: &Rc<Alarms>, from: Instant, length: Duration) -> Self {
        Self { alarms: Rc::clone(alarms), from, until: from + length, state: State::New }
    }

    fn lie_down(&self, waker: &Waker) -> Option<usize> {
        let length = self.until.duration_since(self.from).as_millis() / TICK.as_millis();
        let ticks = u64::try_from(length).unwrap_or(u64::MAX);
        // The coarse clock is behind, never ahead: it rings before the end.
        let due = self.alarms.now.get().saturating_add(ticks).saturating_sub(1);
        (ticks >= TICKS_MIN && !self.alarms.is_cut()).then(|| self.alarms.lie_down(due, waker))
    }
}

impl Future for Nap {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let nap = self.get_mut();
        loop {
            nap.state = match &mut nap.state {
                State::New => match nap.lie_down(cx.waker()) {
                    Some(number) => {
                        nap.state = State::Lying(number);
                        return Poll::Pending;
                    }
                    None => State::Timed(Box::pin(sleep_until(nap.until))),
                },
                State::Lying(number) => {
                    let number = *number;
                    if nap.alarms.turn_over(number, cx.waker()).is_pending() {
                        return Poll::Pending;
                    }
                    nap.alarms.get_up(number);
                    State::Timed(Box::pin(sleep_until(nap.until)))
                }
                State::Timed(timer) => return timer.as_mut().poll(cx),
            };
        }
    }
}

impl Drop for Nap {
    fn drop(&mut self) {
        if let State::Lying(number) = self.state {
            self.alarms.get_up(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn is_over(nap: &mut Nap) -> bool {
        poll_fn(|cx| Poll::Ready(Pin::new(&mut *nap).poll(cx).is_ready())).await
    }

    fn lying(alarms: &Alarms) -> usize {
        alarms.places.borrow().all.iter().filter(|place| place.waker.is_some()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_nap_ends_on_time_and_not_with_the_tick_before() {
        let alarms = Rc::new(Alarms::default());
        let started = Instant::now();
        let mut nap = Nap::new(&alarms, started, Duration::from_millis(1234));
        assert!(!is_over(&mut nap).await);
        assert_eq!(lying(&alarms), 1);
        for tick in 1..=11 {
            tokio::time::advance(TICK).await;
            alarms.tick(tick);
        }
        assert_eq!(lying(&alarms), 0, "it has rung by now");
        assert!(!is_over(&mut nap).await);
        nap.await;
        assert_eq!(started.elapsed(), Duration::from_millis(1234));
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_nap_needs_no_tick() {
        let alarms = Rc::new(Alarms::default());
        let started = Instant::now();
        Nap::new(&alarms, started, Duration::from_millis(299)).await;
        assert_eq!(started.elapsed(), Duration::from_millis(299));
    }

    #[tokio::test(start_paused = true)]
    async fn places_of_those_who_got_up_are_taken_again() {
        let alarms = Rc::new(Alarms::default());
        for _ in 0..100 {
            let mut naps = [0; 3].map(|_| Nap::new(&alarms, Instant::now(), Duration::from_secs(60)));
            for nap in &mut naps {
                assert!(!is_over(nap).await);
            }
        }
        assert_eq!((lying(&alarms), alarms.places.borrow().all.len()), (0, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_wakes_everybody_long_before_the_time() {
        let alarms = Rc::new(Alarms::default());
        let waiting = tokio::task::LocalSet::new();
        let napping = Rc::clone(&alarms);
        let woken = waiting.spawn_local(async move {
            let mut nap = Nap::new(&napping, Instant::now(), Duration::from_secs(60));
            poll_fn(|cx| {
                let over = Pin::new(&mut nap).poll(cx).is_ready();
                if over || napping.is_cut() { Poll::Ready(over) } else { Poll::Pending }
            })
            .await
        });
        waiting
            .run_until(async {
                tokio::task::yield_now().await;
                alarms.cut();
                assert!(!woken.await.unwrap(), "woken, and not because the time was over");
            })
            .await;
    }
}
