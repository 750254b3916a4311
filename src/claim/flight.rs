//! Flights of this process: the same fingerprint in flight here is joined without asking the store.
//!
//! A flight is begun by one client and driven by a task of its own; every client, the first one too, holds a
//! [`Ticket`] and waits for the flight's end. This module is synchronous but for the waiting itself: no map guard
//! outlives a statement, and nothing here talks to the store or the shop.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use dashmap::{DashMap, Entry};
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::store::{Key, hash::Short};

/// What a client gets when it asks to take part.
pub enum Joined<E> {
    /// Nobody runs this request here: the caller drives the flight.
    Begin(Ticket<E>, Arc<Flight<E>>),
    Follow(Ticket<E>),
    /// The flight carries as many followers as the route allows.
    Full,
    /// The same event id is in flight with another body.
    Mismatch,
}

/// Who may join a flight that has left for the shop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Boarding {
    /// Anybody, until it ends: equal requests have equal answers.
    UntilEnd,
    /// Nobody: a later arrival may mean something newer and shares the run after this one (`signal`).
    UntilSent,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Leader,
    Follower,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Waiting,
    /// It follows a run of another replica; whoever comes now may mean something newer than that run knows.
    Closed,
    Sent,
    /// Every client left before anything was sent: nobody may join any more.
    Withdrawn,
}

struct Seats {
    phase: Phase,
    taken: usize,
    /// How many have ever come on board.
    boarded: usize,
    /// Who waits for the end, by ticket, in the order in which they came.
    waiting: SmallVec<[(usize, Waker); 1]>,
}

impl Seats {
    fn wait(&mut self, ticket: usize, waker: &Waker) {
        match self.waiting.binary_search_by_key(&ticket, |(number, _)| *number) {
            Ok(at) => self.waiting[at].1.clone_from(waker),
            Err(at) => self.waiting.insert(at, (ticket, waker.clone())),
        }
    }

    fn wait_no_more(&mut self, ticket: usize) {
        if let Ok(at) = self.waiting.binary_search_by_key(&ticket, |(number, _)| *number) {
            self.waiting.remove(at);
        }
    }
}

/// One run of one request. `E` is how it ended.
pub struct Flight<E> {
    key: Option<Key>,
    body: Option<Key>,
    /// It was taken off the table, where it was put once.
    forgotten: AtomicBool,
    seats: Mutex<Seats>,
    deserted: Notify,
    end: OnceLock<E>,
}

impl<E> Flight<E> {
    fn new(key: Option<Key>, body: Option<Key>) -> Self {
        let seats =
            Mutex::new(Seats { phase: Phase::Waiting, taken: 1, boarded: 1, waiting: SmallVec::new() });
        let (forgotten, deserted) = (AtomicBool::new(false), Notify::new());
        Self { key, body, forgotten, seats, deserted, end: OnceLock::new() }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        // A poisoned lock means a panic elsewhere; counts are still consistent, since no step here can panic.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many clients are waiting for the end, the leader's among them.
    pub fn clients(&self) -> usize {
        self.seats().taken
    }

    /// How many have come on board so far, those who left among them.
    pub fn boarded(&self) -> usize {
        self.seats().boarded
    }

    /// Lets nobody on board any more, if nobody has come since `boarded` was asked for. False where somebody has.
    #[must_use]
    pub fn close(&self, boarded: usize) -> bool {
        let mut seats = self.seats();
        if seats.boarded != boarded {
            return false;
        }
        if seats.phase == Phase::Waiting {
            seats.phase = Phase::Closed;
        }
        true
    }

    /// From here on the flight runs to its end whoever leaves. False when every client has left before.
    #[must_use]
    pub fn set_out(&self) -> bool {
        let mut seats = self.seats();
        if seats.phase == Phase::Withdrawn {
            return false;
        }
        seats.phase = Phase::Sent;
        true
    }

    /// Nothing was sent after all: as long as nobody waits, the flight may be given up again.
    #[must_use]
    pub fn come_back(&self) -> bool {
        let mut seats = self.seats();
        seats.phase = if seats.taken == 0 { Phase::Withdrawn } else { Phase::Waiting };
        seats.phase == Phase::Waiting
    }

    /// Resolves when the last client has left before anything was sent.
    pub async fn deserted(&self) {
        loop {
            let notified = self.deserted.notified();
            if self.seats().phase == Phase::Withdrawn {
                return;
            }
            notified.await;
        }
    }
}

/// A client's place on a flight. Dropping it frees the place at once.
pub struct Ticket<E> {
    flights: Arc<Flights<E>>,
    flight: Arc<Flight<E>>,
    /// The how manieth it is of its flight.
    number: usize,
    role: Role,
}

impl<E: Clone> Ticket<E> {
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether it may have left for the shop already.
    pub fn has_set_out(&self) -> bool {
        self.flight.seats().phase == Phase::Sent
    }

    /// How the flight ended. Those who wait learn it in the order in which they came. It always comes: a task that
    /// dies says so itself (see [`super::driver::Driver`]).
    pub async fn end(&mut self) -> E {
        poll_fn(|cx| self.poll_end(cx)).await
    }

    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<E> {
        if self.flight.end.get().is_none() {
            // The end is written before those are woken who wait, so one that is missed here wakes us.
            self.flight.seats().wait(self.number, cx.waker());
        }
        self.flight.end.get().map_or(Poll::Pending, |end| Poll::Ready(end.clone()))
    }
}

impl<E> Drop for Ticket<E> {
    fn drop(&mut self) {
        if self.role == Role::Follower {
            self.flights.followers.fetch_sub(1, Relaxed);
        }
        let withdrawn = {
            let mut seats = self.flight.seats();
            seats.taken -= 1;
            seats.wait_no_more(self.number);
            if seats.taken == 0 && matches!(seats.phase, Phase::Waiting | Phase::Closed) {
                seats.phase = Phase::Withdrawn;
            }
            seats.phase == Phase::Withdrawn
        };
        if withdrawn {
            self.flights.forget(&self.flight);
            self.flight.deserted.notify_one();
        }
    }
}

/// The table of flights that may be joined.
pub struct Flights<E> {
    by_key: DashMap<Key, Arc<Flight<E>>, Short>,
    followers: AtomicUsize,
    running: AtomicUsize,
}

impl<E> Default for Flights<E> {
    fn default() -> Self {
        Self { by_key: DashMap::default(), followers: AtomicUsize::new(0), running: AtomicUsize::new(0) }
    }
}

impl<E: Clone> Flights<E> {
    /// Takes part in the flight of this fingerprint, or begins one. Without a fingerprint nothing is shared.
    pub fn join(
        self: &Arc<Self>,
        key: Option<Key>,
        body: Option<Key>,
        boarding: Boarding,
        followers_max: usize,
    ) -> Joined<E> {
        let Some(key) = key else {
            return self.begin(Arc::new(Flight::new(None, body)));
        };
        match self.by_key.entry(key) {
            Entry::Vacant(place) => {
                let flight = Arc::new(Flight::new(Some(key), body));
                drop(place.insert(Arc::clone(&flight)));
                self.begin(flight)
            }
            Entry::Occupied(mut place) => match self.board(place.get(), body, boarding, followers_max) {
                Boarded::Yes(ticket) => Joined::Follow(ticket),
                Boarded::Full => Joined::Full,
                Boarded::OtherBody => Joined::Mismatch,
                Boarded::Gone => {
                    let flight = Arc::new(Flight::new(Some(key), body));
                    place.insert(Arc::clone(&flight));
                    drop(place);
                    self.begin(flight)
                }
            },
        }
    }

    fn begin(self: &Arc<Self>, flight: Arc<Flight<E>>) -> Joined<E> {
        self.running.fetch_add(1, Relaxed);
        let (flights, role) = (Arc::clone(self), Role::Leader);
        let ticket = Ticket { flights, flight: Arc::clone(&flight), number: 1, role };
        Joined::Begin(ticket, flight)
    }

    fn board(
        self: &Arc<Self>,
        flight: &Arc<Flight<E>>,
        body: Option<Key>,
        boarding: Boarding,
        followers_max: usize,
    ) -> Boarded<E> {
        let mut seats = flight.seats();
        match (seats.phase, boarding) {
            (Phase::Withdrawn | Phase::Closed, _) | (Phase::Sent, Boarding::UntilSent) => {
                return Boarded::Gone;
            }
            (Phase::Waiting, _) | (Phase::Sent, Boarding::UntilEnd) => {}
        }
        if flight.body != body {
            return Boarded::OtherBody;
        }
        if seats.taken > followers_max {
            return Boarded::Full;
        }
        seats.taken += 1;
        seats.boarded += 1;
        self.followers.fetch_add(1, Relaxed);
        let (flights, role) = (Arc::clone(self), Role::Follower);
        Boarded::Yes(Ticket { flights, flight: Arc::clone(flight), number: seats.boarded, role })
    }

    /// Says how a flight ended, to everybody on it. Nobody new comes on board afterwards: whoever comes later asks
    /// the store, so that a failure reaches only those who were waiting for it.
    pub fn end(&self, flight: &Arc<Flight<E>>, end: E) {
        self.forget(flight);
        self.announce(flight, end);
    }

    /// Says how a flight ended and leaves it open to those who come later: for an answer that the store could not
    /// be told yet.
    pub fn announce(&self, flight: &Arc<Flight<E>>, end: E) {
        // A flight ends once; what was said first stands.
        if flight.end.set(end).is_ok() {
            let waiting = std::mem::take(&mut flight.seats().waiting);
            for (_, waker) in waiting {
                waker.wake();
            }
        }
    }

    /// The task of a flight is over.
    pub fn landed(&self, flight: &Arc<Flight<E>>) {
        self.forget(flight);
        self.running.fetch_sub(1, Relaxed);
    }
}

impl<E> Flights<E> {
    /// Takes the flight off the table, if the place is still its own: a newer flight of the same key stays.
    pub fn forget(&self, flight: &Arc<Flight<E>>) {
        if let Some(key) = flight.key
            && !flight.forgotten.swap(true, Relaxed)
        {
            self.by_key.remove_if(&key, |_, held| Arc::ptr_eq(held, flight));
        }
    }

    /// Whether a request of this fingerprint may find a flight to join.
    pub fn has(&self, key: &Key) -> bool {
        self.by_key.contains_key(key)
    }

    /// Flights that run or wait in this process.
    pub fn running(&self) -> usize {
        self.running.load(Relaxed)
    }

    /// Clients that wait for another client's request.
    pub fn followers(&self) -> usize {
        self.followers.load(Relaxed)
    }
}

enum Boarded<E> {
    Yes(Ticket<E>),
    Full,
    OtherBody,
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    type Table = Arc<Flights<&'static str>>;

    fn key(n: u8) -> Option<Key> {
        Some(Key([n; 32]))
    }

    fn join(table: &Table, n: u8, boarding: Boarding) -> Joined<&'static str> {
        table.join(key(n), None, boarding, 10)
    }

    fn begin(table: &Table, n: u8) -> (Ticket<&'static str>, Arc<Flight<&'static str>>) {
        match join(table, n, Boarding::UntilEnd) {
            Joined::Begin(ticket, flight) => (ticket, flight),
            Joined::Follow(_) | Joined::Full | Joined::Mismatch => panic!("somebody is there already"),
        }
    }

    #[tokio::test]
    async fn everybody_on_a_flight_learns_its_end_and_nobody_after_it() {
        let table = Table::default();
        let (mut leader, flight) = begin(&table, 1);
        let Joined::Follow(mut follower) = join(&table, 1, Boarding::UntilEnd) else { panic!("must follow") };
        assert_eq!((table.followers(), flight.clients()), (1, 2));
        assert!(flight.set_out());
        table.end(&flight, "done");
        assert_eq!((leader.end().await, follower.end().await), ("done", "done"));
        assert!(matches!(join(&table, 1, Boarding::UntilEnd), Joined::Begin(..)));
    }

    #[tokio::test]
    async fn a_flight_that_all_clients_left_before_it_set_out_is_withdrawn() {
        let table = Table::default();
        let (leader, flight) = begin(&table, 1);
        drop(leader);
        flight.deserted().await;
        assert!(!flight.set_out());
        assert!(matches!(join(&table, 1, Boarding::UntilEnd), Joined::Begin(..)));
    }

    #[test]
    fn a_flight_that_has_set_out_runs_on_without_clients_and_can_be_joined() {
        let table = Table::default();
        let (leader, flight) = begin(&table, 1);
        assert!(flight.set_out());
        drop(leader);
        assert!(matches!(join(&table, 1, Boarding::UntilEnd), Joined::Follow(_)));
    }

    #[test]
    fn a_signal_that_comes_after_the_run_began_shares_the_next_run() {
        let table = Table::default();
        let (_leader, flight) = begin(&table, 1);
        assert!(matches!(join(&table, 1, Boarding::UntilSent), Joined::Follow(_)));
        assert!(flight.set_out());
        let Joined::Begin(_next, next) = join(&table, 1, Boarding::UntilSent) else {
            panic!("must begin anew")
        };
        table.landed(&flight);
        assert!(
            matches!(join(&table, 1, Boarding::UntilSent), Joined::Follow(_)),
            "the trailing run was lost"
        );
        assert!(!Arc::ptr_eq(&flight, &next));
    }

    #[test]
    fn followers_are_bounded_and_a_place_is_free_again_at_once() {
        let table = Table::default();
        let Joined::Begin(_leader, _flight) = table.join(key(1), None, Boarding::UntilEnd, 1) else {
            panic!()
        };
        let Joined::Follow(first) = table.join(key(1), None, Boarding::UntilEnd, 1) else { panic!() };
        assert!(matches!(table.join(key(1), None, Boarding::UntilEnd, 1), Joined::Full));
        drop(first);
        assert!(matches!(table.join(key(1), None, Boarding::UntilEnd, 1), Joined::Follow(_)));
    }

    #[test]
    fn the_same_event_with_another_body_is_not_the_same_request() {
        let table = Table::default();
        let Joined::Begin(_leader, _flight) = table.join(key(1), key(7), Boarding::UntilEnd, 1) else {
            panic!()
        };
        assert!(matches!(table.join(key(1), key(8), Boarding::UntilEnd, 1), Joined::Mismatch));
    }

    #[tokio::test]
    async fn a_flight_ends_once_and_who_asks_later_learns_the_same() {
        let table = Table::default();
        let (mut ticket, flight) = begin(&table, 1);
        table.announce(&flight, "done");
        table.end(&flight, "broken");
        table.landed(&flight);
        assert_eq!(ticket.end().await, "done");
    }
}
