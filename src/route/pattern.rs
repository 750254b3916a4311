//! What the value of a query parameter, header, cookie, form field or JSON member has to be.
//!
//! A pattern can be asked in two ways: whether a value certainly is what was meant, and whether a shop could take it
//! for that. It never decodes: values come decoded.

use regex::bytes::{Regex, RegexBuilder};
use thiserror::Error;

/// A compiled regex may take this much memory; a configuration that needs more has made a mistake.
pub(super) const REGEX_BYTES_MAX: usize = 1 << 20;

/// One condition on a value.
#[derive(Clone, Debug)]
pub struct Pattern(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Present,
    Exact(String),
    Regex(Regex),
    Any(Vec<Pattern>),
}

#[derive(Debug, Error)]
pub enum PatternError {
    #[error("this is not a regular expression that can be used")]
    Regex(#[from] regex::Error),
}

impl Pattern {
    /// `*` is present with any value, `~…` a regular expression (found anywhere unless it is anchored), anything else
    /// the value itself.
    ///
    /// # Errors
    /// What stands after `~` is not a regular expression, or one that would take too much memory.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        Ok(Self(match text.strip_prefix('~') {
            Some(regex) => Kind::Regex(compile(regex)?),
            None if text == "*" => Kind::Present,
            None => Kind::Exact(text.to_owned()),
        }))
    }

    /// One of several. Of none, nothing ever matches.
    #[must_use]
    pub fn any(patterns: Vec<Self>) -> Self {
        Self(Kind::Any(patterns))
    }

    /// The value is what was meant, byte for byte.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        match &self.0 {
            Kind::Present => true,
            Kind::Exact(text) => text.as_bytes() == value,
            Kind::Regex(regex) => regex.is_match(value),
            Kind::Any(patterns) => patterns.iter().any(|pattern| pattern.matches(value)),
        }
    }

    /// A shop could take the value for what was meant: it may fold case, and it may clean the value first. WordPress
    /// runs `wc-ajax` through `sanitize_text_field`, which drops tags, escapes and space around the value, so that
    /// `?wc-ajax=check%3Cb%3Eout%20` is a checkout.
    #[must_use]
    pub fn could_match(&self, value: &[u8]) -> bool {
        let folded = |value: &[u8]| match &self.0 {
            Kind::Exact(text) => text.as_bytes().eq_ignore_ascii_case(value),
            Kind::Any(patterns) => patterns.iter().any(|pattern| pattern.could_match(value)),
            Kind::Present | Kind::Regex(_) => self.matches(value),
        };
        folded(value) || cleaned(value).is_some_and(|value| folded(&value))
    }
}

/// Unicode first. The crate is built without Unicode case tables, so `(?i)` is tried again with ASCII folding.
fn compile(text: &str) -> Result<Regex, regex::Error> {
    let build = |unicode| RegexBuilder::new(text).unicode(unicode).size_limit(REGEX_BYTES_MAX).build();
    build(true).or_else(|error| build(false).map_err(|_| error))
}

/// The value without tags, `%hh` and control characters, and without space around it; `None` if that changes nothing.
fn cleaned(value: &[u8]) -> Option<Vec<u8>> {
    let mut kept = Vec::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        at += match value[at..] {
            [b'%', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => 3,
            [b'<', ..] => match value[at..].iter().position(|byte| *byte == b'>') {
                Some(end) => end + 1,
                // An open tag swallows the rest, as in PHP's `strip_tags`.
                None => value.len() - at,
            },
            [byte, ..] if byte.is_ascii_control() => 1,
            _ => {
                kept.push(value[at]);
                1
            }
        };
    }
    let kept = kept.trim_ascii();
    (kept.len() < value.len()).then(|| kept.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn a_star_takes_any_value_and_the_empty_one() {
        assert!(pattern("*").matches(b"") && pattern("*").matches(b"x"));
    }

    #[test]
    fn an_exact_value_is_taken_byte_for_byte() {
        assert!(pattern("checkout").matches(b"checkout"));
        assert!(!pattern("checkout").matches(b"Checkout"));
        assert!(!pattern("checkout").matches(b"checkouts"));
        assert!(pattern("").matches(b"") && !pattern("").matches(b"x"));
    }

    #[test]
    fn a_tilde_makes_a_regular_expression() {
        assert!(pattern("~^a+$").matches(b"aaa"));
        assert!(!pattern("~^a+$").matches(b"aab"));
        assert!(pattern("~(?i)^order$").matches(b"ORDER"));
        assert!(pattern("~^.$").matches("é".as_bytes()));
    }

    #[test]
    fn a_broken_or_huge_regular_expression_is_an_error() {
        assert!(Pattern::parse("~(").is_err());
        assert!(Pattern::parse("~(?:a{1000}){1000}").is_err());
    }

    #[test]
    fn a_list_takes_any_of_its_patterns() {
        let either = Pattern::any(vec![pattern("a"), pattern("~^b")]);
        assert!(either.matches(b"a") && either.matches(b"bc") && !either.matches(b"c"));
        assert!(!Pattern::any(Vec::new()).matches(b"a"));
    }

    #[test]
    fn what_a_shop_cleans_first_could_match() {
        let checkout = pattern("checkout");
        for value in ["Checkout", " checkout\t", "check<b>out", "check%41out", "checkout\0", "checkout<x"] {
            assert!(checkout.could_match(value.as_bytes()), "{value:?}");
            assert!(!checkout.matches(value.as_bytes()), "{value:?}");
        }
        for value in ["check out", "checkouts", "", "<checkout>"] {
            assert!(!checkout.could_match(value.as_bytes()), "{value:?}");
        }
        assert!(Pattern::any(vec![checkout]).could_match(b"CHECKOUT "));
    }
}
