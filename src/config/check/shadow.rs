//! Routes that can never match, because one before them takes all that they would.
//!
//! It compares what was typed, and never guesses: a route is only said to be taken where each condition of the one
//! before it follows from a condition of its own.

use crate::config::file::{Entry, Kind, Table, Value};

/// Segments of a path that are compared; each that may be missing doubles the ways to read the rest.
const SEGMENTS_MAX: usize = 16;

/// Whether the first `[route.match]` takes every request that the second one takes.
pub(super) fn takes_all(first: &Table, second: &Table) -> bool {
    first.entries.iter().all(|Entry { key, value, .. }| {
        let Some(own) = find(second, key) else { return false };
        match key.as_str() {
            "methods" => all_among(own, value, |own, method| {
                own.eq_ignore_ascii_case(method)
                    || (own.eq_ignore_ascii_case("HEAD") && method.eq_ignore_ascii_case("GET"))
            }),
            "hosts" => all_among(own, value, is_below),
            "content_type" => all_among(own, value, |own, kind| own.eq_ignore_ascii_case(kind)),
            "path" => match (&value.kind, &own.kind) {
                (Kind::Text(first), Kind::Text(second)) => covers(&segments(first), &segments(second)),
                _ => is_same(&value.kind, &own.kind),
            },
            "headers" => fields(value, own, str::eq_ignore_ascii_case),
            "query" | "cookies" | "form" | "json" => fields(value, own, |one, other| one == other),
            _ => is_same(&value.kind, &own.kind),
        }
    })
}

/// Whether two tables say the same.
pub(super) fn is_same_table(one: &Table, other: &Table) -> bool {
    one.entries.len() == other.entries.len()
        && one
            .entries
            .iter()
            .all(|entry| find(other, &entry.key).is_some_and(|value| is_same(&entry.value.kind, &value.kind)))
}

fn is_same(one: &Kind, other: &Kind) -> bool {
    match (one, other) {
        (Kind::Text(one), Kind::Text(other)) => one == other,
        (Kind::Integer(one), Kind::Integer(other)) => one == other,
        (Kind::Boolean(one), Kind::Boolean(other)) => one == other,
        (Kind::Array(one), Kind::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| is_same(&one.kind, &other.kind))
        }
        (Kind::Table(one), Kind::Table(other)) => is_same_table(one, other),
        _ => false,
    }
}

fn find<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    table.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}

/// The texts of a text or a list of texts; `None` where there is anything else.
fn texts(value: &Value) -> Option<Vec<&str>> {
    let items = match &value.kind {
        Kind::Array(items) => items.as_slice(),
        _ => std::slice::from_ref(value),
    };
    items
        .iter()
        .map(|item| match &item.kind {
            Kind::Text(text) => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

fn all_among(own: &Value, first: &Value, is_among: impl Fn(&str, &str) -> bool) -> bool {
    let (Some(own), Some(first)) = (texts(own), texts(first)) else { return false };
    !own.is_empty() && own.iter().all(|own| first.iter().any(|first| is_among(own, first)))
}

/// `a.shop.example` is among `*.shop.example`.
fn is_below(own: &str, host: &str) -> bool {
    let (own, host) = (own.to_ascii_lowercase(), host.to_ascii_lowercase());
    own == host
        || host
            .strip_prefix('*')
            .is_some_and(|domain| own.strip_suffix(domain).is_some_and(|label| !label.is_empty()))
}

/// Each field that the first one asks for is asked for by the second, with a value that the first one takes.
fn fields(first: &Value, second: &Value, is_name: impl Fn(&str, &str) -> bool) -> bool {
    let (Kind::Table(first), Kind::Table(second)) = (&first.kind, &second.kind) else { return false };
    first.entries.iter().all(|asked| {
        let own = second.entries.iter().find(|own| is_name(&own.key, &asked.key));
        own.is_some_and(|own| {
            texts(&asked.value).is_some_and(|values| values.contains(&"*"))
                || all_among(&own.value, &asked.value, |own, value| own == value)
        })
    })
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Segment {
    Literal(String),
    /// `{x}`
    One,
    /// `{x?}`
    Optional,
    /// `{*x}`
    Rest,
    /// A placeholder inside a literal; the names are taken out.
    Mixed(String),
}

fn segments(template: &str) -> Vec<Segment> {
    let path = template.trim_matches('/');
    if path.is_empty() {
        return Vec::new();
    }
    path.split('/').map(segment).collect()
}

fn segment(text: &str) -> Segment {
    match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some(name) if !name.contains(['{', '}']) => match (name.starts_with('*'), name.ends_with('?')) {
            (true, _) => Segment::Rest,
            (_, true) => Segment::Optional,
            (false, false) => Segment::One,
        },
        _ if text.contains('{') => {
            let mut plain = String::new();
            for part in text.split_inclusive(['{', '}']) {
                plain.push_str(if part.ends_with('}') { "}" } else { part });
            }
            Segment::Mixed(plain.to_ascii_lowercase())
        }
        _ => Segment::Literal(text.to_ascii_lowercase()),
    }
}

/// Whether the first template takes every path that the second one takes.
fn covers(first: &[Segment], second: &[Segment]) -> bool {
    use Segment::{Literal, Mixed, One, Optional, Rest};
    if first.len().max(second.len()) > SEGMENTS_MAX {
        return first == second;
    }
    match (first.split_first(), second.split_first()) {
        (None, None) => true,
        (Some((Rest, _)), _) => true,
        (None, Some(_)) | (_, Some((Rest, _))) => false,
        (Some((Optional, first)), None) => covers(first, second),
        (Some((_, _)), None) => false,
        (Some((Optional, rest)), Some((Optional, others))) => covers(rest, others),
        // With it and without it.
        (Some((One, rest)), Some((Optional, others))) => covers(first, others) && covers(rest, others),
        (Some((_, _)), Some((Optional, _))) => false,
        (Some((Optional, rest)), Some((_, others))) => covers(rest, others) || covers(rest, second),
        (Some((One, rest)), Some((Literal(_) | One | Mixed(_), others))) => covers(rest, others),
        (Some((Literal(one), rest)), Some((Literal(other), others))) => one == other && covers(rest, others),
        (Some((Mixed(one), rest)), Some((Mixed(other), others))) => one == other && covers(rest, others),
        (Some((Literal(_) | Mixed(_), _)), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_covered(first: &str, second: &str) -> bool {
        covers(&segments(first), &segments(second))
    }

    #[test]
    fn a_template_takes_what_is_narrower_and_nothing_else() {
        for (first, second) in [
            ("/checkout", "/Checkout/"),
            ("/checkout/{cart}", "/checkout/{id}"),
            ("/checkout/{cart}", "/checkout/mine"),
            ("/checkout/{cart}", "/checkout/cart-{id}"),
            ("/cart-{a}", "/cart-{b}"),
            ("/{*rest}", "/checkout/{cart}"),
            ("/{*rest}", "/"),
            ("/checkout/{*rest}", "/checkout"),
            ("/rest/{store?}/V1", "/rest/V1"),
            ("/rest/{store?}/V1", "/rest/en/V1"),
            ("/rest/{store?}/V1", "/rest/{shop?}/V1"),
            ("/{a?}/{b?}", "/x"),
            ("/", "/"),
        ] {
            assert!(is_covered(first, second), "{first} takes {second}");
        }
        for (first, second) in [
            ("/checkout", "/checkout/{cart}"),
            ("/checkout/{cart}", "/checkout/{cart?}"),
            ("/checkout/{cart}", "/checkout/{*rest}"),
            ("/checkout/mine", "/checkout/{cart}"),
            ("/rest/{store?}/V1", "/rest/a/b/V1"),
            ("/cart-{a}", "/cart-7"),
            ("/a", "/b"),
            ("/{a}", "/"),
        ] {
            assert!(!is_covered(first, second), "{first} does not take {second}");
        }
    }
}
