//! The store's time across the ends of processes.
//!
//! Leases, holds and lives are measured on a clock of the store's own, which nobody can set: within a process it is
//! the monotonic clock, and from one process to the next it goes on by what has certainly passed. That is known while
//! the machine has not been started anew (the kernel's uptime of the same boot); otherwise the time between the two is
//! not counted. The wall clock is never asked. So a clock that is set, forward or back, changes nothing, and a hold or
//! record lasts longer by the time that a machine was off: it never ends early.

use std::fs;

use crate::store::Millis;

/// Which start of the machine it is.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// How many seconds ago that was, with two decimals.
const UPTIME: &str = "/proc/uptime";

/// A point in the life of a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Moment {
    boot: String,
    uptime: Millis,
}

impl Moment {
    /// Now. `None` on a system that does not say.
    pub(super) fn now() -> Option<Self> {
        let boot = fs::read_to_string(BOOT).ok()?.trim().to_owned();
        let text = fs::read_to_string(UPTIME).ok()?;
        let (seconds, rest) = text.split_whitespace().next()?.split_once('.')?;
        let hundredths: u64 = rest.get(..2)?.parse().ok()?;
        let uptime = seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(hundredths * 10)?;
        Some(Self { boot, uptime: Millis(uptime) })
    }

    pub(super) fn write(&self) -> Vec<u8> {
        [&self.uptime.0.to_le_bytes()[..], self.boot.as_bytes()].concat()
    }

    pub(super) fn read(row: &[u8]) -> Option<Self> {
        let (uptime, boot) = row.split_first_chunk()?;
        Some(Self {
            boot: str::from_utf8(boot).ok()?.to_owned(),
            uptime: Millis(u64::from_le_bytes(*uptime)),
        })
    }
}

/// Where the store's time goes on, when it had come to `last` at the moment `then`. Never before `last`.
pub(super) fn go_on(last: Millis, then: Option<&Moment>, now: Option<&Moment>) -> Millis {
    let passed = match (then, now) {
        (Some(then), Some(now)) if then.boot == now.boot => now.uptime.0.saturating_sub(then.uptime.0),
        _ => 0,
    };
    Millis(last.0.saturating_add(passed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(boot: &str, uptime: u64) -> Option<Moment> {
        Some(Moment { boot: boot.to_owned(), uptime: Millis(uptime) })
    }

    #[test]
    fn time_goes_on_by_what_has_certainly_passed_and_never_back() {
        let last = Millis(1_000_000);
        let then = moment("one", 5_000);
        let go_on = |now: Option<Moment>| go_on(last, then.as_ref(), now.as_ref());
        assert_eq!(go_on(moment("one", 65_000)), Millis(1_060_000));
        assert_eq!(go_on(moment("another", 65_000)), last, "nobody knows how long the machine was off");
        assert_eq!(go_on(moment("one", 4_000)), last);
        assert_eq!(go_on(None), last);
    }

    #[test]
    fn linux_says_which_boot_it_is_and_how_long_ago_it_was() {
        let (one, other) = (Moment::now().expect("Linux"), Moment::now().expect("Linux"));
        assert!(one.uptime > Millis(0) && one.boot.len() == 36);
        assert!(other.uptime >= one.uptime && other.boot == one.boot);
        assert_eq!(Moment::read(&one.write()), Some(one));
    }
}
