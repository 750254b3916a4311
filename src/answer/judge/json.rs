//! One value out of an answer's JSON, by pointer (RFC 6901), with number text as it was sent.
//!
//! Nothing is built but the value that is asked for. It is as forgiving as the shops' own scripts are: this is an
//! answer to be judged, not a request to be told apart from another, so of two members of one name the last counts,
//! as it does in `JSON.parse`.

use std::{borrow::Cow, fmt};

use memchr::memmem;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

/// A JSON value as the text it was sent as.
pub(super) type Raw<'a> = &'a RawValue;

/// A parsed JSON pointer, with the text it was written as. `*` is each item of an array and each member of an object: an
/// answer of GraphQL names its members as the client liked.
#[derive(Clone, Debug)]
pub(super) struct Pointer {
    written: String,
    steps: Vec<String>,
}

/// How many places of a body are tried where JSON may begin. A notice that quotes an array has some of its own.
const STARTS_MAX: usize = 8;

/// The JSON in a body: all of it, or else the first value that begins with `{"`. PHP prints notices before the answer
/// and plugins print comments behind it; WooCommerce's own script cuts both away.
pub(super) fn root(body: &[u8]) -> Option<Raw<'_>> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if let Ok(whole) = serde_json::from_slice(body) {
        return Some(whole);
    }
    for start in memmem::find_iter(body, b"{\"").take(STARTS_MAX) {
        let mut rest = serde_json::Deserializer::from_slice(&body[start..]);
        match <Raw<'_>>::deserialize(&mut rest) {
            Ok(value) => return Some(value),
            // It broke off: what stands in it is not the answer.
            Err(error) if error.is_eof() => return None,
            Err(_) => {}
        }
    }
    None
}

/// The text to compare: a string's content, anything else as it was sent; nothing for `null`.
pub(super) fn text(raw: Raw<'_>) -> Option<Cow<'_, str>> {
    let text = raw.get();
    if text == "null" {
        return None;
    }
    if !text.starts_with('"') {
        return Some(Cow::Borrowed(text));
    }
    // Without an escape the content stands between the quotes; with one it has to be built.
    match serde_json::from_str::<&str>(text) {
        Ok(content) => Some(Cow::Borrowed(content)),
        Err(_) => serde_json::from_str::<String>(text).ok().map(Cow::Owned),
    }
}

impl Pointer {
    /// `None` where it neither is empty nor starts with `/`, or escapes with anything but `~0` and `~1`.
    pub(super) fn parse(written: &str) -> Option<Self> {
        let steps = if written.is_empty() { Vec::new() } else { steps(written.strip_prefix('/')?)? };
        Some(Self { written: written.to_owned(), steps })
    }

    pub(super) fn written(&self) -> &str {
        &self.written
    }

    /// All that it leads to, at most [`FOUND_MAX`].
    pub(super) fn find<'a>(&self, root: Raw<'a>) -> Vec<Raw<'a>> {
        let mut here = vec![root];
        for step in &self.steps {
            let mut there = Vec::new();
            for raw in here {
                let mut value = serde_json::Deserializer::from_str(raw.get());
                if step == "*" {
                    // In a value that is neither there is nothing.
                    there.extend(value.deserialize_any(Each).unwrap_or_default());
                } else {
                    there.extend(value.deserialize_any(Step(step)).ok().flatten());
                }
            }
            there.truncate(FOUND_MAX);
            here = there;
        }
        here
    }
}

fn steps(rest: &str) -> Option<Vec<String>> {
    let unescape = |step: &str| {
        let left = step.replace("~0", "").replace("~1", "");
        (!left.contains('~')).then(|| step.replace("~1", "/").replace("~0", "~"))
    };
    rest.split('/').map(unescape).collect()
}

/// How many values a pointer may lead to.
const FOUND_MAX: usize = 256;

/// All that stands in an object or an array.
struct Each;

impl<'de> Visitor<'de> for Each {
    type Value = Vec<Raw<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some((_, value)) = map.next_entry::<IgnoredAny, Raw<'de>>()? {
            if all.len() < FOUND_MAX {
                all.push(value);
            }
        }
        Ok(all)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(value) = items.next_element()? {
            if all.len() < FOUND_MAX {
                all.push(value);
            }
        }
        Ok(all)
    }
}

/// One step of a pointer into an object or an array.
struct Step<'s>(&'s str);

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<Raw<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(Named(self.0))? {
            if is_it {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        // RFC 6901, section 4: an index has no leading zero and no sign.
        let plain =
            self.0 == "0" || (!self.0.starts_with('0') && self.0.bytes().all(|byte| byte.is_ascii_digit()));
        let mut left = match self.0.parse::<usize>() {
            Ok(index) if plain => index,
            _ => return Err(A::Error::custom("no index")),
        };
        while left > 0 {
            if items.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
            left -= 1;
        }
        let found = items.next_element()?;
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

/// Whether a member has this name, told without building the name.
struct Named<'s>(&'s str);

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Named<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(document: &str, pointer: &str) -> Option<String> {
        let root = root(document.as_bytes())?;
        let found: Vec<_> =
            Pointer::parse(pointer)?.find(root).into_iter().filter_map(text).map(Cow::into_owned).collect();
        (!found.is_empty()).then(|| found.join("|"))
    }

    #[test]
    fn pointers_follow_rfc_6901() {
        let document = r#"{"foo":["bar",{"a":2}],"":0,"a/b":1,"m~n":8,"k\"l":6,"\u00e9":7}"#;
        for (pointer, found) in [
            ("/foo/0", Some("bar")),
            ("/foo/1/a", Some("2")),
            ("/foo/1", Some("{\"a\":2}")),
            ("/", Some("0")),
            ("/a~1b", Some("1")),
            ("/m~0n", Some("8")),
            ("/k\"l", Some("6")),
            ("/é", Some("7")),
            ("/foo/2", None),
            ("/foo/00", None),
            ("/foo/+0", None),
            ("/foo/-", None),
            ("/foo/0/x", None),
            ("/absent", None),
            ("foo", None),
            ("/m~2n", None),
            ("/foo/*", Some("bar|{\"a\":2}")),
            ("/*/1/a", Some("2")),
            ("/foo/*/a/*", None),
        ] {
            assert_eq!(at(document, pointer).as_deref(), found, "{pointer}");
        }
        assert_eq!(at("42", "").as_deref(), Some("42"));
    }

    #[test]
    fn what_stands_in_an_answer_that_broke_off_is_not_the_answer() {
        assert_eq!(at(r#"{"result":"failure","data":{"result":"success"}"#, "/result"), None);
        assert_eq!(at(r#"Notice {"x {"result":"failure"}"#, "/result").as_deref(), Some("failure"));
    }

    #[test]
    fn of_two_members_of_one_name_the_last_counts() {
        assert_eq!(at(r#"{"a":1,"b":0,"\u0061":2}"#, "/a").as_deref(), Some("2"));
    }
}
