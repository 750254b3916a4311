//! "Did you mean": the known word that a mistyped one is closest to.
//!
//! Never guesses far: a suggestion that is not obviously the word that was meant is worse than none.

/// Longer words are not compared; the distance is quadratic in their length.
const WORD_CHARS_MAX: usize = 64;

/// The one of `known` that `typed` is most likely a misspelling of.
#[must_use]
pub(super) fn closest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase().replace('-', "_");
    if typed.chars().count() > WORD_CHARS_MAX {
        return None;
    }
    known
        .into_iter()
        .filter(|word| word.chars().count() <= WORD_CHARS_MAX)
        .map(|word| (distance(&typed, &word.to_lowercase().replace('-', "_")), word))
        .filter(|(distance, word)| *distance <= (word.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Edits (insert, delete, replace, swap two neighbours) that turn one word into the other.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let width = right.len() + 1;
    let mut rows = vec![vec![0_usize; width]; left.len() + 1];
    for (column, cell) in rows[0].iter_mut().enumerate() {
        *cell = column;
    }
    for i in 1..=left.len() {
        rows[i][0] = i;
        for j in 1..=right.len() {
            let replace = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_word() {
        let known = ["wait_max", "hold_for", "identity", "order"];
        for (typed, meant) in [
            ("wiat_max", "wait_max"),
            ("wait-max", "wait_max"),
            ("Order", "order"),
            ("odrer", "order"),
            ("identiy", "identity"),
        ] {
            assert_eq!(closest(typed, known), Some(meant), "{typed}");
        }
    }

    #[test]
    fn a_word_that_is_far_from_all_gets_no_suggestion() {
        assert_eq!(closest("tls_cert", ["wait_max", "order"]), None);
        assert_eq!(closest(&"x".repeat(100_000), ["order"]), None);
    }
}
