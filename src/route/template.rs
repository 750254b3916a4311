//! Path templates and path regexes, compiled.
//!
//! Literals match whatever their ASCII case is: a shop may fold it, and a guard that takes in more than the shop does
//! is on the safe side. What a path captured keeps its case.

use std::collections::HashSet;

use regex::bytes::{Regex, RegexBuilder};
use thiserror::Error;

use super::pattern::REGEX_BYTES_MAX;

/// Which paths a rule is about.
#[derive(Clone, Debug)]
pub(super) struct Template {
    /// What every matching path begins with, in any case: most requests are turned away here.
    prefix: String,
    regex: Regex,
}

#[derive(Debug, Error)]
pub(super) enum TemplateError {
    #[error("a path begins with a slash")]
    NoSlash,
    #[error(
        "the template is compared with a path that has been read: write it decoded, without `?`, `#`, `;`, `\\`, `%`, \
         doubled slashes and dot segments"
    )]
    Spelling,
    #[error("`{0}` is not a name: letters, digits and underscores, not beginning with a digit")]
    Name(String),
    #[error("the name `{0}` stands twice")]
    Twice(String),
    #[error("a brace has no partner")]
    Brace,
    #[error("`{{{0}}}` must be a segment of its own")]
    NotAlone(String),
    #[error("`{{*{0}}}` must be the last segment")]
    NotLast(String),
    #[error("two placeholders stand side by side, so that nothing tells where one ends")]
    SideBySide,
    #[error(
        "this is not a regular expression that can be used on a path (it is matched as bytes, in any ASCII case)"
    )]
    Regex(#[from] regex::Error),
}

impl Template {
    /// `/rest/{store?}/V1/guest-carts/{cart}`: `{x}` takes a segment or a part of one, `{x?}` a segment or none,
    /// `{*rest}` what follows, if anything. A literal segment `index.php` may be left out by the client.
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        let path = text.strip_prefix('/').ok_or(TemplateError::NoSlash)?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut builder = Builder::default();
        let mut segments = path.split('/').peekable();
        while let Some(segment) = segments.next() {
            let last = segments.peek().is_none();
            // `/` alone has one empty segment and nothing to compare.
            if !(path.is_empty() && last) {
                builder.segment(segment, last)?;
            }
        }
        Ok(Self { regex: compile(&format!("^{}/?$", builder.regex))?, prefix: builder.prefix })
    }

    /// A regular expression as it was written: found anywhere in the path unless it is anchored. Its named groups are
    /// captures.
    pub(super) fn regex(text: &str) -> Result<Self, TemplateError> {
        Ok(Self { prefix: String::new(), regex: compile(text)? })
    }

    /// The cheap test: false means that the path cannot match.
    pub(super) fn could_begin(&self, path: &str) -> bool {
        let (path, prefix) = (path.as_bytes(), self.prefix.as_bytes());
        path.len() >= prefix.len() && path[..prefix.len()].eq_ignore_ascii_case(prefix)
    }

    pub(super) fn is_match(&self, path: &str) -> bool {
        self.could_begin(path) && self.regex.is_match(path.as_bytes())
    }

    /// What the path's placeholders took, or `None` if it does not match. A placeholder that took nothing is left out.
    pub(super) fn captures(&self, path: &str) -> Option<Vec<(String, String)>> {
        if !self.could_begin(path) {
            return None;
        }
        let captures = self.regex.captures(path.as_bytes())?;
        let named = self.regex.capture_names().enumerate().filter_map(|(at, name)| {
            let value = captures.get(at)?.as_bytes();
            Some((name?.to_owned(), String::from_utf8_lossy(value).into_owned()))
        });
        Some(named.collect())
    }
}

/// Bytes and ASCII folding, since the crate is built without Unicode case tables and a path need not be text. A dot takes
/// line ends as well: `%0a` in a path must not put it out of a rule's reach.
fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .unicode(false)
        .case_insensitive(true)
        .dot_matches_new_line(true)
        .size_limit(REGEX_BYTES_MAX)
        .build()
}

#[derive(Default)]
struct Builder {
    regex: String,
    prefix: String,
    /// A placeholder or something that may be left out has come: the prefix ends before it.
    open: bool,
    names: HashSet<String>,
}

impl Builder {
    fn segment(&mut self, segment: &str, last: bool) -> Result<(), TemplateError> {
        if matches!(segment, "" | "." | "..") {
            return Err(TemplateError::Spelling);
        }
        let whole = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        if let Some(name) = whole.and_then(|name| name.strip_suffix('?')) {
            self.open = true;
            let name = self.name(name)?;
            self.regex.push_str(&format!("(?:/(?P<{name}>[^/]+))?"));
        } else if let Some(name) = whole.and_then(|name| name.strip_prefix('*')) {
            self.open = true;
            let name = self.name(name)?;
            if !last {
                return Err(TemplateError::NotLast(name));
            }
            self.regex.push_str(&format!("(?:/(?P<{name}>.*))?"));
        } else if segment.eq_ignore_ascii_case("index.php") {
            // A directory's index is served without its name (RFC 3986 section 6.2.3 is about the same habit).
            self.open = true;
            self.regex.push_str("(?:/index\\.php)?");
        } else {
            self.regex.push('/');
            self.add_to_prefix("/");
            self.parts(segment)?;
        }
        Ok(())
    }

    /// A segment of literals and plain placeholders.
    fn parts(&mut self, segment: &str) -> Result<(), TemplateError> {
        let mut rest = segment;
        while !rest.is_empty() {
            let (literal, after) = match rest.split_once('{') {
                None => (rest, None),
                Some((literal, after)) => (literal, Some(after)),
            };
            self.literal(literal)?;
            let Some(after) = after else { break };
            let (name, next) = after.split_once('}').ok_or(TemplateError::Brace)?;
            if name.starts_with('*') || name.ends_with('?') {
                return Err(TemplateError::NotAlone(name.to_owned()));
            }
            if next.starts_with('{') {
                return Err(TemplateError::SideBySide);
            }
            let name = self.name(name)?;
            self.open = true;
            self.regex.push_str(&format!("(?P<{name}>[^/]+)"));
            rest = next;
        }
        Ok(())
    }

    fn literal(&mut self, text: &str) -> Result<(), TemplateError> {
        if text.contains('}') {
            return Err(TemplateError::Brace);
        }
        let odd =
            |character: char| matches!(character, '?' | '#' | ';' | '\\' | '%') || character.is_control();
        if text.contains(odd) {
            return Err(TemplateError::Spelling);
        }
        for byte in text.bytes() {
            // The regex works on bytes, so a character beyond ASCII is written as the bytes that it has.
            if byte.is_ascii_alphanumeric() {
                self.regex.push(char::from(byte));
            } else {
                self.regex.push_str(&format!("\\x{byte:02X}"));
            }
        }
        self.add_to_prefix(text);
        Ok(())
    }

    fn add_to_prefix(&mut self, text: &str) {
        if !self.open {
            self.prefix.push_str(text);
        }
    }

    fn name(&mut self, name: &str) -> Result<String, TemplateError> {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !plain || name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(TemplateError::Name(name.to_owned()));
        }
        if !self.names.insert(name.to_owned()) {
            return Err(TemplateError::Twice(name.to_owned()));
        }
        Ok(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(template: &str, path: &str) -> Option<String> {
        let captures = Template::parse(template).unwrap().captures(path)?;
        Some(captures.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_literal_matches_itself_in_any_case_and_nothing_longer() {
        assert_eq!(taken("/checkout", "/CheckOut").as_deref(), Some(""));
        for path in ["/checkouts", "/check/out", "/a/checkout", "/checkout/a", "/", "/checkou"] {
            assert_eq!(taken("/checkout", path), None, "{path}");
        }
    }

    #[test]
    fn the_root_matches_only_the_root() {
        assert!(taken("/", "/").is_some());
        assert!(taken("/", "/a").is_none());
    }

    #[test]
    fn a_trailing_slash_of_the_template_is_set_aside() {
        assert!(taken("/checkout/", "/checkout").is_some());
    }

    #[test]
    fn a_placeholder_takes_one_segment_and_keeps_its_case() {
        let template = "/rest/{store?}/V1/guest-carts/{cart}/payment-information";
        let with = taken(template, "/REST/De/v1/guest-carts/AbC/payment-information");
        assert_eq!(with.as_deref(), Some("store=De cart=AbC"));
        let without = taken(template, "/rest/V1/guest-carts/AbC/payment-information");
        assert_eq!(without.as_deref(), Some("cart=AbC"));
        assert_eq!(taken(template, "/rest/V1/guest-carts/a/b/payment-information"), None);
        assert_eq!(taken(template, "/rest/V1/guest-carts/payment-information"), None);
    }

    #[test]
    fn the_rest_takes_what_follows_or_nothing() {
        assert_eq!(taken("/wc-api/{*rest}", "/wc-api/a/b").as_deref(), Some("rest=a/b"));
        assert_eq!(taken("/wc-api/{*rest}", "/wc-api").as_deref(), Some(""));
        assert_eq!(taken("/wc-api/{*rest}", "/wc-apis"), None);
        assert!(taken("/{*rest}", "/").is_some());
    }

    #[test]
    fn a_placeholder_may_be_a_part_of_a_segment() {
        assert_eq!(taken("/order-{id}.html", "/ORDER-7.html").as_deref(), Some("id=7"));
        assert_eq!(taken("/order-{id}.html", "/order-7xhtml"), None);
    }

    #[test]
    fn a_character_beyond_ascii_is_matched_by_its_bytes() {
        assert_eq!(taken("/zahlung/übersicht/{x}", "/Zahlung/übersicht/ä").as_deref(), Some("x=ä"));
    }

    #[test]
    fn the_front_controller_may_be_left_out() {
        for path in ["/index.php", "/INDEX.php", "/"] {
            assert!(taken("/index.php", path).is_some(), "{path}");
        }
        assert!(taken("/shop/index.php", "/shop").is_some());
    }

    #[test]
    fn a_regex_is_found_anywhere_and_gives_its_named_groups() {
        let regex = Template::regex(r"/order-pay/(?P<order>\d+)$").unwrap();
        assert_eq!(regex.captures("/x/ORDER-PAY/12"), Some(vec![("order".to_owned(), "12".to_owned())]));
        assert_eq!(regex.captures("/x/order-pay/12/y"), None);
    }

    #[test]
    fn mistakes_are_named() {
        for (template, part) in [
            ("checkout", "slash"),
            ("/a//b", "doubled"),
            ("/a/../b", "dot segments"),
            ("/a%20b", "decoded"),
            ("/a?b=c", "decoded"),
            ("/{a", "partner"),
            ("/a}", "partner"),
            ("/{}", "not a name"),
            ("/{a-b}", "not a name"),
            ("/{1a}", "not a name"),
            ("/{a}/{a}", "twice"),
            ("/x{a?}", "of its own"),
            ("/{*a}/b", "last"),
            ("/{a}{b}", "side by side"),
        ] {
            let error = Template::parse(template).unwrap_err().to_string();
            assert!(error.contains(part), "{template}: {error}");
        }
        assert!(Template::regex("(").is_err());
    }
}
