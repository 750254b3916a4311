//! The seeded simulation: the real claim table and the real memory store, in virtual time, against what the promise
//! says.
//!
//! One seed is one run: replicas, clients that come, repeat, leave and return, a shop of any temper, a store that is
//! slow or cut off. The same seed gives the same run. `ONCEGATE_SIM_SEED=n cargo test --test sim` runs one seed again
//! in every group, `ONCEGATE_SIM_SEEDS=m` says how many seeds all groups run together.
//!
//! A simulation that finds nothing proves nothing, so the code was broken on purpose, one way at a time, with debug
//! assertions off. What found it first, among 200 seeds a group:
//!
//! | what was broken | seed | what it found |
//! |---|---|---|
//! | a flight does not hold its lane | 0 | G2 one lane |
//! | a lease that runs out frees instead of leaving a doubt | 2000003 | G5 second send, G1 |
//! | a failed answer is recorded | 1000003 | G4 |
//! | the fence is not compared at a settle | 2000058 | G2, G1 |
//! | a flight that everybody left is sent all the same | 9 | G7 sent for nobody |
//! | a waiter takes the answer of an earlier flight | 1000007 | signal: older than its question |
//! | a lane in doubt is free | 1 | G2 |
//! | a signal joins a run that was sent | 1000008 | signal: older than its question |
//! | a lost exchange is abandoned | 1 | G1, G2 |
//! | a lease is not renewed | 0 | G8 claim lost |
//! | the hold is half as long | 2 | G5, G1 |
//! | sent again after a reset | 2 | G1 |
//! | the leader's client goes and its flight ends | 0 | G1, G2 |
//! | one follower too many | 5 | G9 |
//! | renewals are ignored | 19 | renewal |
//! | a place in a lane leaks | 0 | liveness |
//! | a failure that the store was not told stays on the table | 3000033 | G4 |
//! | a replay does not count as delivered | 8 | section 4 |
//! | the seen life begins with the settle | 8 | G5 |
//! | every delivery begins it anew | 5 | section 4 |
//!
//! Not found: followers that a doubt does not wake, since they ask again by themselves within two seconds; and, so
//! rare is it, a signal that came on board between the end of one run and the next claim and is given a run that
//! began in between. That no signal closes its flight at all was found by 13.

#[cfg(test)]
mod check;
#[cfg(test)]
mod excuse;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod log;
#[cfg(test)]
mod plan;
#[cfg(test)]
mod replica;
#[cfg(test)]
mod shared;
#[cfg(test)]
mod shop;
#[cfg(test)]
mod wire;
#[cfg(test)]
mod world;

#[cfg(test)]
mod tests {
    use super::{check::Check, plan::Group, world::run};

    /// Seeds of all tests together, unless the environment says otherwise.
    const SEEDS: u64 = 4000;
    const SLICES: u64 = 8;

    fn number(name: &str) -> Option<u64> {
        std::env::var(name).ok()?.parse().ok()
    }

    fn try_seed(seed: u64, group: Group) {
        let (plan, log, end) = run(seed, group);
        let book = log.book();
        let found = Check { plan: &plan, group, book: &book }.all().and(end);
        if let Err(violation) = found {
            let trace = book.trace.join("\n");
            panic!(
                "ONCEGATE_SIM_SEED={seed} ({group:?}): {violation}\n{plan:#?}\n{trace}\n\nONCEGATE_SIM_SEED={seed} ({group:?}): {violation}"
            );
        }
    }

    fn explore(group: Group, slice: u64) {
        if let Some(seed) = number("ONCEGATE_SIM_SEED") {
            return try_seed(seed, group);
        }
        let seeds = number("ONCEGATE_SIM_SEEDS").unwrap_or(SEEDS) / SLICES;
        for seed in slice * 1_000_000..slice * 1_000_000 + seeds {
            try_seed(seed, group);
        }
    }

    #[test]
    fn the_promise_holds_whatever_the_shop_does() {
        explore(Group::Sound, 0);
    }

    #[test]
    fn the_promise_holds_whatever_the_shop_does_and_again() {
        explore(Group::Sound, 1);
    }

    #[test]
    fn the_promise_holds_when_replicas_die() {
        explore(Group::Crashes, 2);
    }

    #[test]
    fn the_promise_holds_when_the_store_is_slow_or_cut_off() {
        explore(Group::Store, 3);
    }

    #[test]
    fn the_promise_holds_when_the_store_is_away() {
        explore(Group::Outages, 4);
    }

    #[test]
    fn the_promise_holds_when_the_store_loses_its_last_writes() {
        explore(Group::Failovers, 5);
    }

    #[test]
    fn the_promise_holds_when_the_store_comes_back_empty() {
        explore(Group::Emptied, 6);
    }

    #[test]
    fn the_promise_holds_when_everything_breaks() {
        explore(Group::Everything, 7);
    }

    #[test]
    fn the_same_seed_is_the_same_run() {
        let runs = [
            (Group::Sound, 1),
            (Group::Crashes, 2),
            (Group::Store, 3),
            (Group::Store, 4),
            (Group::Outages, 5),
            (Group::Failovers, 6),
            (Group::Emptied, 7),
            (Group::Everything, 8),
        ];
        for (group, seed) in runs {
            let first = run(seed, group).1;
            let second = run(seed, group).1;
            let (first, second) = (&first.book().trace, &second.book().trace);
            let differ = first.iter().zip(second.iter()).position(|(one, other)| one != other);
            if let Some(place) = differ {
                panic!("{group:?} {seed}: {:#?} and {:#?}", &first[..=place], &second[place]);
            }
            assert_eq!(first.len(), second.len());
        }
    }
}
