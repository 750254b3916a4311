//! Durations and sizes as they are typed: a whole number and a unit, `"250ms"`, `"24h"`, `"64KiB"`.
//!
//! Never takes a bare number: whoever reads `5` sees seconds, whoever wrote it may have meant milliseconds. Never
//! takes decimal units of size either: half the world reads `KB` as 1024.

use std::time::Duration;

/// Why a text is not a duration or not a size. The sentence goes into a problem as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnitProblem {
    #[error("has no unit; write {0}")]
    NoUnit(String),
    #[error("has the unknown unit `{unit}`; write one of {known}")]
    UnknownUnit { unit: String, known: &'static str },
    #[error("has the unit `{unit}`, which some read as 1000 and some as 1024; did you mean \"{meant}\"?")]
    DecimalUnit { unit: String, meant: String },
    #[error("does not begin with a whole number; write for example {0}")]
    NoNumber(&'static str),
    #[error("is larger than anything that can be counted")]
    TooLarge,
}

const DURATIONS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, usize); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads `"250ms"`, `"5s"`, `"10m"`, `"24h"`, `"7d"`.
pub(super) fn duration(text: &str) -> Result<Duration, UnitProblem> {
    let (number, unit) = split(text, "\"5s\" or \"250ms\"")?;
    if unit.is_empty() {
        return Err(UnitProblem::NoUnit(format!("\"{number}s\" or \"{number}ms\"")));
    }
    let (_, factor) = DURATIONS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| UnitProblem::UnknownUnit { unit: unit.to_owned(), known: "ms, s, m, h, d" })?;
    number.checked_mul(*factor).map(Duration::from_millis).ok_or(UnitProblem::TooLarge)
}

/// Reads `"512B"`, `"64KiB"`, `"1MiB"`, `"2GiB"` as bytes.
pub(super) fn size(text: &str) -> Result<usize, UnitProblem> {
    let (number, unit) = split(text, "\"64KiB\" or \"1MiB\"")?;
    if unit.is_empty() {
        // 65536 is a number of bytes; 64 could be one of anything.
        let bytes = usize::try_from(number).ok().filter(|bytes| *bytes != 0 && bytes.is_multiple_of(1 << 10));
        return Err(UnitProblem::NoUnit(match bytes {
            Some(bytes) => format!("\"{}\"", show_size(bytes)),
            None => format!("\"{number}B\" or \"{number}KiB\""),
        }));
    }
    if let Some((_, factor)) = SIZES.iter().find(|(name, _)| *name == unit) {
        let number = usize::try_from(number).map_err(|_| UnitProblem::TooLarge)?;
        return number.checked_mul(*factor).ok_or(UnitProblem::TooLarge);
    }
    // `KB`, `kb`, `k`, `mib`: the unit that was meant is the one with the same first letter.
    let meant = SIZES.iter().find(|(name, _)| {
        let (first, typed) = (name.chars().next(), unit.chars().next().map(|c| c.to_ascii_uppercase()));
        first == typed && unit.len() <= 3
    });
    Err(match meant {
        Some((name, _)) => {
            UnitProblem::DecimalUnit { unit: unit.to_owned(), meant: format!("{number}{name}") }
        }
        None => UnitProblem::UnknownUnit { unit: unit.to_owned(), known: "B, KiB, MiB, GiB" },
    })
}

/// A duration in the largest unit that divides it, as it would be typed.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let fits = DURATIONS.iter().rev().find(|(_, factor)| millis != 0 && millis.is_multiple_of(*factor));
    let (name, factor) = fits.unwrap_or(&DURATIONS[0]);
    format!("{}{name}", millis / factor)
}

/// A size in the largest unit that divides it, as it would be typed.
#[must_use]
pub fn show_size(bytes: usize) -> String {
    let fits = SIZES.iter().rev().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor));
    let (name, factor) = fits.unwrap_or(&SIZES[0]);
    format!("{}{name}", bytes / factor)
}

fn split<'a>(text: &'a str, example: &'static str) -> Result<(u64, &'a str), UnitProblem> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitProblem::NoNumber(example));
    }
    // Digits only, so a failure to parse can only be an overflow.
    let number = number.parse().map_err(|_| UnitProblem::TooLarge)?;
    Ok((number, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, millis) in
            [("250ms", 250), ("5s", 5_000), ("10m", 600_000), ("24h", 86_400_000), ("2d", 172_800_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
            assert_eq!(duration(&show_duration(Duration::from_millis(millis))), duration(text));
        }
        assert_eq!(show_duration(Duration::ZERO), "0ms");
    }

    #[test]
    fn a_bare_number_is_told_which_units_it_may_have_meant() {
        assert_eq!(duration("5").unwrap_err().to_string(), "has no unit; write \"5s\" or \"5ms\"");
        assert_eq!(size("64").unwrap_err().to_string(), "has no unit; write \"64B\" or \"64KiB\"");
        assert_eq!(size("65536").unwrap_err().to_string(), "has no unit; write \"64KiB\"");
    }

    #[test]
    fn decimal_sizes_are_refused_with_the_binary_one_beside() {
        for (text, meant) in [("64KB", "64KiB"), ("1mb", "1MiB"), ("1M", "1MiB"), ("3gib", "3GiB")] {
            assert!(size(text).unwrap_err().to_string().contains(meant), "{text}");
        }
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("512 B"), Ok(512));
    }

    #[test]
    fn what_is_no_number_or_too_large_is_refused() {
        assert!(matches!(duration("soon"), Err(UnitProblem::NoNumber(_))));
        assert!(matches!(duration("-5s"), Err(UnitProblem::NoNumber(_))));
        assert!(matches!(duration("1.5s"), Err(UnitProblem::UnknownUnit { .. })));
        assert_eq!(duration("99999999999999999999s"), Err(UnitProblem::TooLarge));
        assert_eq!(duration("18446744073709551615d"), Err(UnitProblem::TooLarge));
        assert_eq!(size("18446744073709551615GiB"), Err(UnitProblem::TooLarge));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in ".*") {
            let _ = (duration(&text), size(&text));
        }

        #[test]
        fn what_is_shown_reads_back(millis in 0_u64..1 << 40, bytes in 0_usize..1 << 40) {
            let time = Duration::from_millis(millis);
            prop_assert_eq!(duration(&show_duration(time)), Ok(time));
            prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }
    }
}
