//! From an order as a person writes it to the lanes that it may mean.
//!
//! A person writes what the log shows: the parts of one key with `+` between them. A `+` may as well stand inside a
//! part, so every way of reading the text is given; whoever asks looks which of them there is.

use super::{Rules, fingerprint::Secret, reading::lane_of, shown};
use crate::store::Key;

/// How many ways of reading one text are given for one route.
const WAYS_MAX: usize = 64;

/// One way of reading it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    pub lane: Key,
    /// As the log shows it: never in the clear what came from a cookie or a header.
    pub shown: String,
}

/// The lanes that a text means under a route's rules, at most `WAYS_MAX` (64) of them; those with the fewest parts first.
#[must_use]
pub fn lanes_named(rules: &Rules, secret: &Secret, text: &str) -> Vec<Named> {
    let mut found: Vec<Named> = Vec::new();
    for sources in &rules.order {
        for parts in ways(text, sources.len(), WAYS_MAX - found.len()) {
            let lane = lane_of(&rules.upstream, secret, parts.iter().map(|part| part.as_bytes()));
            if found.iter().all(|known| known.lane != lane) {
                found.push(Named { lane, shown: shown::typed(rules, secret, sources, &parts) });
            }
        }
    }
    found
}

/// Every way to read a text as so many parts, none of them empty, at most `max`.
fn ways(text: &str, parts: usize, max: usize) -> Vec<Vec<&str>> {
    if parts <= 1 {
        return if text.is_empty() || max == 0 { Vec::new() } else { vec![vec![text]] };
    }
    let mut all = Vec::new();
    for (at, _) in text.match_indices('+').take(WAYS_MAX) {
        let first = &text[..at];
        if first.is_empty() {
            continue;
        }
        for mut rest in ways(&text[at + 1..], parts - 1, max - all.len()) {
            rest.insert(0, first);
            all.push(rest);
        }
        if all.len() >= max {
            break;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{
        super::sample::{Sample, rules, secret},
        *,
    };

    #[test]
    fn what_the_log_shows_names_the_lane_of_the_request() {
        for (order, body) in
            [("form:a", "a=7"), ("form:a + form:b", "a=x%2By&b=z"), ("form:a", "a=x%2By%2Bz")]
        {
            let rules = rules(&[order]);
            let read = Sample::form(body).read(&rules).unwrap();
            let named = lanes_named(&rules, &secret(), &read.order);
            assert!(named.contains(&Named { lane: read.lanes[0], shown: read.order.clone() }), "{body}");
        }
    }

    #[test]
    fn a_cookie_that_is_typed_in_the_clear_is_shown_as_its_hash() {
        let named = lanes_named(&rules(&["cookie:s"]), &secret(), "topsecret");
        assert!(named[0].shown.starts_with('#'), "{named:?}");
    }

    #[test]
    fn a_text_of_many_parts_is_read_in_a_bounded_number_of_ways() {
        let rules = rules(&["form:a + form:b + form:c", "form:a"]);
        assert_eq!(lanes_named(&rules, &secret(), &"a+".repeat(500)).len(), WAYS_MAX);
        assert!(lanes_named(&rules, &secret(), "").is_empty());
    }
}
