//! Whose turn it is: which server of an upstream an exchange is sent to, and which after that if it cannot be reached.
//!
//! Each core takes its own turns; what the servers have to do is counted over all cores. A server that should not be
//! sent to is never chosen, whatever the way of choosing.

use std::cell::RefCell;

use smallvec::SmallVec;

use super::fleet::{Balance, Fleet, Rank, Role};

/// What an exchange that is balanced by `hash` is known by: the same goes to the same server for as long as it is up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Affinity(pub u64);

impl Affinity {
    /// Of an order, a client's address, or whatever keeps exchanges together.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        // FNV-1a, and stirred: it has to be the same on every replica and after every update.
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(stir(hash))
    }
}

/// A server, and how good it is: 0 is best.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Chosen {
    pub server: usize,
    pub tier: u8,
}

/// The servers that were tried for one exchange.
pub(super) type Tried = SmallVec<[usize; 4]>;

/// One core's turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// What each server has saved up, in hundredths of weights.
    credits: RefCell<Vec<i64>>,
}

impl Turns {
    /// The server to try next; `None`: there is none that may be tried and was not.
    pub(super) fn next(&self, fleet: &Fleet, affinity: Option<Affinity>, tried: &Tried) -> Option<Chosen> {
        let ranked = (0..fleet.len())
            .filter(|server| !tried.contains(server))
            .filter_map(|server| Some((tier(fleet.rank(server)?), server)));
        // The best that there is: primaries before backups, and those that are set aside when nobody else is left.
        let mut best: Option<u8> = None;
        let mut candidates: SmallVec<[usize; 8]> = SmallVec::new();
        for (tier, server) in ranked {
            if best.is_none_or(|best| tier < best) {
                best = Some(tier);
                candidates.clear();
            }
            if best == Some(tier) {
                candidates.push(server);
            }
        }
        let server = match (candidates.as_slice(), fleet.settings.balance) {
            ([], _) => None,
            ([only], _) => Some(*only),
            (several, Balance::RoundRobin) => self.in_turn(fleet, several),
            (several, Balance::LeastConnections) => self.least_busy(fleet, several),
            (several, Balance::Hash) => match affinity {
                Some(affinity) => by_hash(fleet, several, affinity),
                None => self.in_turn(fleet, several),
            },
        };
        Some(Chosen { server: server?, tier: best? })
    }

    /// Smooth weighted round robin: each saves up its share, the richest is taken and pays for all. With weights 5, 1
    /// and 1 the first is never taken more than three times in a row.
    fn in_turn(&self, fleet: &Fleet, candidates: &[usize]) -> Option<usize> {
        let mut credits = self.credits.borrow_mut();
        credits.resize(fleet.len(), 0);
        let mut total = 0;
        for &server in candidates {
            let share = i64::try_from(fleet.share(server)).unwrap_or(i64::MAX / 1024);
            credits[server] += share;
            total += share;
        }
        // The first of equals, so that turns begin with the first server.
        let chosen = candidates.iter().copied().rev().max_by_key(|&server| credits[server])?;
        credits[chosen] -= total;
        Some(chosen)
    }

    fn least_busy(&self, fleet: &Fleet, candidates: &[usize]) -> Option<usize> {
        let load = |server: usize| {
            // With the one that is about to come: of idle servers the one with the greatest share is taken.
            let busy = (fleet.at_work(server) as u128 + 1) << 32;
            busy / u128::from(fleet.share(server).max(1))
        };
        let least = candidates.iter().map(|&server| load(server)).min()?;
        let equals: SmallVec<[usize; 8]> =
            candidates.iter().copied().filter(|&server| load(server) <= least).collect();
        match equals.as_slice() {
            [only] => Some(*only),
            // Another core may have taken the least busy one just now.
            [] => candidates.first().copied(),
            several => self.in_turn(fleet, several),
        }
    }
}

/// Weighted rendezvous hashing: each server draws a number from its address and the key, and the highest has it. When
/// one goes, only what was its own moves.
fn by_hash(fleet: &Fleet, candidates: &[usize], affinity: Affinity) -> Option<usize> {
    let score = |server: usize| {
        let drawn = stir(Affinity::of(fleet.address(server).as_bytes()).0 ^ affinity.0);
        // In (0, 1): 53 bits are what a float holds.
        let uniform = ((drawn >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -(fleet.share(server) as f64) / uniform.ln()
    };
    candidates.iter().copied().max_by(|one, other| score(*one).total_cmp(&score(*other)))
}

fn tier((rank, role): (Rank, Role)) -> u8 {
    match (rank, role) {
        (Rank::Willing, Role::Primary) => 0,
        (Rank::Willing, Role::Backup) => 1,
        (Rank::Reluctant, Role::Primary) => 2,
        (Rank::Reluctant, Role::Backup) => 3,
    }
}

/// The finaliser of SplitMix64: every bit of what goes in changes half of those that come out.
fn stir(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::upstream::{
        Reached,
        fleet::{FleetSettings, Health, ServerSettings, Service},
    };

    fn fleet(balance: Balance, weights: &[u32], backups: usize) -> Arc<Fleet> {
        let servers = weights.iter().enumerate().map(|(number, &weight)| ServerSettings {
            address: format!("10.0.0.{number}:80"),
            weight,
            connections_max: None,
            role: if number + backups >= weights.len() { Role::Backup } else { Role::Primary },
        });
        Fleet::new(servers.collect(), FleetSettings { balance, ..FleetSettings::default() })
    }

    fn taken(turns: &Turns, fleet: &Fleet, times: usize) -> Vec<usize> {
        let next = |_| turns.next(fleet, None, &Tried::default()).map(|chosen| chosen.server);
        (0..times).filter_map(next).collect()
    }

    #[test]
    fn turns_follow_the_weights_and_are_spread() {
        let (turns, fleet) = (Turns::default(), fleet(Balance::RoundRobin, &[5, 1, 1], 0));
        assert_eq!(taken(&turns, &fleet, 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn a_server_that_was_tried_is_not_tried_again_and_then_there_is_none() {
        let (turns, fleet) = (Turns::default(), fleet(Balance::RoundRobin, &[1, 1], 0));
        let mut tried = Tried::default();
        while let Some(chosen) = turns.next(&fleet, None, &tried) {
            assert!(!tried.contains(&chosen.server));
            tried.push(chosen.server);
        }
        assert_eq!(tried.len(), 2);
    }

    #[test]
    fn backups_wait_until_every_other_server_is_out() {
        let (turns, fleet) = (Turns::default(), fleet(Balance::RoundRobin, &[1, 1, 1], 1));
        assert!(!taken(&turns, &fleet, 20).contains(&2));
        fleet.set_health(0, Health::Down);
        assert_eq!(taken(&turns, &fleet, 2), [1, 1]);
        fleet.set_service(1, Service::Drained);
        assert_eq!(taken(&turns, &fleet, 2), [2, 2]);
        fleet.set_health(2, Health::Down);
        assert_eq!(taken(&turns, &fleet, 1), [0_usize; 0]);
    }

    #[test]
    fn servers_that_only_fail_are_never_all_left_alone() {
        let (turns, fleet) = (Turns::default(), fleet(Balance::RoundRobin, &[1, 1], 0));
        for _ in 0..3 {
            fleet.connected(0, Reached::No);
        }
        assert_eq!(taken(&turns, &fleet, 3), [1, 1, 1]);
        for _ in 0..3 {
            fleet.connected(1, Reached::No);
        }
        assert_eq!(taken(&turns, &fleet, 4).len(), 4);
    }

    #[test]
    fn the_least_busy_server_for_its_weight_is_next() {
        let (turns, fleet) = (Turns::default(), fleet(Balance::LeastConnections, &[1, 3], 0));
        let mut slots = Vec::new();
        let mut busy = [0, 0];
        for server in taken(&turns, &fleet, 1) {
            assert_eq!(server, 1, "of two that idle, the one with the greater share");
        }
        for _ in 0..40 {
            let server = taken(&turns, &fleet, 1)[0];
            busy[server] += 1;
            slots.push(fleet.enter(server).expect("there is no bound"));
        }
        assert_eq!(busy, [10, 30]);
        drop(slots);
        assert_eq!(fleet.at_work(1), 0);
    }

    #[test]
    fn one_order_goes_to_one_server_and_only_those_of_a_lost_server_move() {
        let (turns, fleet) = (Turns::default(), fleet(Balance::Hash, &[1, 1, 2], 0));
        let place = |order: u32| {
            let affinity = Some(Affinity::of(&order.to_be_bytes()));
            turns.next(&fleet, affinity, &Tried::default()).expect("one is up").server
        };
        let before: Vec<usize> = (0..4000).map(place).collect();
        assert_eq!(before, (0..4000).map(place).collect::<Vec<_>>());
        let shares = [0, 1, 2].map(|server| before.iter().filter(|&&one| one == server).count());
        assert!((850..1150).contains(&shares[0]) && (1850..2150).contains(&shares[2]), "{shares:?}");
        fleet.set_health(1, Health::Down);
        for (order, &server) in (0..4000).zip(&before) {
            let now = place(order);
            assert!(now == server || server == 1, "order {order} moved from {server} to {now}");
        }
    }

    #[test]
    fn a_server_that_came_up_gets_its_share_by_and_by() {
        let servers = ["a:80", "b:80"].map(|address| ServerSettings {
            address: address.to_owned(),
            weight: 10,
            connections_max: None,
            role: Role::Primary,
        });
        let settings = FleetSettings { slow_start: Duration::from_secs(3600), ..FleetSettings::default() };
        let (turns, fleet) = (Turns::default(), Fleet::new(servers.to_vec(), settings));
        fleet.set_health(0, Health::Down);
        fleet.set_health(0, Health::Up);
        let slow = taken(&turns, &fleet, 110).iter().filter(|&&server| server == 0).count();
        assert_eq!(slow, 10, "a tenth of the other's");
    }
}
