//! Arrays of objects that are alike: the lines of a cart, the events of a webhook.
//!
//! Such objects differ in their values only. What stands between the values (`{"sku":`, `,"qty":`) is the same bytes
//! each time, and so is all that follows from it: which names there are, how they are sorted, whether there is white
//! space. It is kept of one item, and what stands in the next one is compared with it, which costs half of reading it;
//! and `write` need not sort its members anew.
//!
//! An item of which one byte differs is left to the reader of everything (`parse`), from its first byte on: what is
//! kept may be of no use, but is never taken for what stands there. Items that hold arrays or objects, unless empty
//! ones, are left to it from the start. So no more than [`KEPT_MAX`] items of an array are begun twice, and nothing
//! that nests is.

use smallvec::SmallVec;

use super::{
    NODES_MAX,
    parse::{self, Leaf, Name, Node, NodeKind, Parser, Row, Span},
};

/// So often the items of an array may turn out not to be alike; then no more is kept.
const KEPT_MAX: usize = 4;

/// What stood between the values of one item.
#[derive(Default)]
pub(super) struct Shape {
    gaps: SmallVec<[Gap; 4]>,
    /// Whether there is no white space in them.
    is_tight: bool,
    /// And whether the names are sorted: `write` would leave it as it is.
    stands: bool,
    /// How often one was kept, or would have been if it could.
    kept: usize,
}

/// All that stands before the value of a member: from the end of the value before it, or from the opening brace.
struct Gap {
    /// Its first bytes, and which bits of them count: it may be shorter.
    first: u128,
    counts: u128,
    /// Where it was found.
    start: usize,
    length: usize,
    /// The name in it, where it was found. An item that is alike has the same name, so its nodes name this place.
    name: Name,
}

impl Shape {
    /// Keeps the item that begins with the node `item` and ends with the last one, if it is an object of simple values
    /// that has no escapes in its names. Says whether it did.
    #[inline]
    pub(super) fn keep(&mut self, text: &[u8], nodes: &[Node], item: usize) -> bool {
        self.kept += 1;
        self.kept <= KEPT_MAX && self.keep_members(text, &nodes[item], &nodes[item + 1..], item + 1)
    }

    /// `first` is the place of the first member's node.
    fn keep_members(&mut self, text: &[u8], object: &Node, members: &[Node], first: usize) -> bool {
        let is_simple = |(index, member): (usize, &Node)| member.next as usize == first + index + 1;
        if !members.iter().enumerate().all(is_simple) {
            return false;
        }
        self.gaps.clear();
        (self.is_tight, self.stands) = (true, true);
        let mut last = None;
        for member in members {
            let Some(gap) = Gap::before(member, last, object.span, text) else { return false };
            self.is_tight &= gap.length == (gap.name.span.end - gap.name.span.start) as usize + 2;
            self.stands &= last.is_none_or(|last| order(last, text) <= order(member.name, text));
            self.gaps.push(gap);
            last = Some(member.name);
        }
        self.stands &= self.is_tight;
        !members.is_empty()
    }
}

/// By what the names of members are sorted, where they have no escapes.
fn order(name: Name, text: &[u8]) -> (u64, &[u8]) {
    (name.begins, &text[name.span.start as usize + 1..name.span.end as usize - 1])
}

impl Gap {
    /// `last` is the name of the member before. `None`: the name has escapes, or the text ends soon.
    fn before(member: &Node, last: Option<Name>, object: Span, text: &[u8]) -> Option<Self> {
        let span = member.name.span;
        let before = text.get(..span.start as usize)?.trim_ascii_end();
        let start = match last {
            None => object.start as usize,
            // The end of the value before the comma.
            Some(_) => before.strip_suffix(b",")?.trim_ascii_end().len(),
        };
        let colon = text.get(span.end as usize..)?.trim_ascii_start();
        let end = text.len() - colon.strip_prefix(b":")?.trim_ascii_start().len();
        let gap = &text[start..end];
        Some(Self {
            first: u128::from_le_bytes(*text[start..].first_chunk()?),
            counts: u128::MAX >> (128 - 8 * gap.len().min(16)),
            start,
            length: gap.len(),
            name: member.name,
        })
    }

    /// Where it ends, if it stands at `at`. What has less than 16 bytes of text behind it is not looked at.
    #[inline(always)]
    fn end(&self, text: &[u8], at: usize) -> Option<usize> {
        let first = u128::from_le_bytes(*text.get(at..)?.first_chunk()?);
        let is_there =
            (first ^ self.first) & self.counts == 0 && (self.length <= 16 || self.is_rest(text, at));
        is_there.then_some(at + self.length)
    }

    #[inline(never)]
    fn is_rest(&self, text: &[u8], at: usize) -> bool {
        text.get(at + 16..at + self.length) == text.get(self.start + 16..self.start + self.length)
    }
}

impl Parser {
    /// Reads the items that are like the one before them, from the comma at `end` on. Gives the place where the last of
    /// them ends.
    #[inline(never)]
    pub(super) fn alike(&mut self, text: &[u8], shape: &Shape, mut end: usize) -> usize {
        let gaps = &shape.gaps[..];
        let size = 1 + gaps.len();
        while self.nodes.len() + size <= NODES_MAX {
            let (item, unescaped) = (self.nodes.len(), self.unescaped.len());
            let Some(next_end) = self.one_alike(text, shape, gaps, end) else {
                self.nodes.truncate(item);
                self.unescaped.truncate(unescaped);
                break;
            };
            let object = &mut self.nodes[item];
            object.span.end = next_end as u32;
            // If the gaps do not stand, `self.stands` is false because of the item that they were kept of.
            if self.unescaped.len() > unescaped {
                (object.stands, object.row) = (false, Row::Loose);
                self.stands = false;
            }
            end = next_end;
        }
        end
    }

    /// Reads one of them, as if its values had no escapes. `None`: it is not alike, or not JSON.
    #[inline(always)]
    fn one_alike(&mut self, text: &[u8], shape: &Shape, gaps: &[Gap], end: usize) -> Option<usize> {
        let mut at = match text.get(end..)?.first_chunk()? {
            b",{" => end + 1,
            _ => self.after_comma(text, end)?,
        };
        self.nodes.push(Node {
            name: Name::default(),
            span: parse::span(at, at),
            next: (self.nodes.len() + 1 + gaps.len()) as u32,
            kind: NodeKind::Object,
            stands: shape.stands,
            row: if shape.is_tight { Row::Tight } else { Row::Loose },
        });
        for gap in gaps {
            let Leaf { span, kind, end } = parse::leaf(text, gap.end(text, at)?, &mut self.unescaped).ok()?;
            let next = self.nodes.len() as u32 + 1;
            self.nodes.push(Node { name: gap.name, span, next, kind, stands: true, row: Row::No });
            at = end;
        }
        match text.get(at)? {
            b'}' => Some(at + 1),
            // In an item without any other, white space would be overlooked.
            _ if shape.is_tight => None,
            _ => match self.token(text, at) {
                (at, b'}') => Some(at + 1),
                _ => None,
            },
        }
    }

    #[inline(never)]
    fn after_comma(&mut self, text: &[u8], at: usize) -> Option<usize> {
        let (at, byte) = self.token(text, at);
        (byte == b',').then(|| self.token(text, at + 1).0)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fmt};

    use bytes::Bytes;
    use proptest::{collection::vec, prelude::*, sample::select};
    use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
    use serde_json::value::RawValue;

    use crate::request::json::{DEPTH_MAX, Document, JsonProblem, NODES_MAX, Pointer};

    /// A document as another parser reads it, which knows nothing of shapes.
    enum Model {
        Word(String),
        Text(String),
        Array(Vec<Model>),
        /// By name; those of one name in their order.
        Object(BTreeMap<String, Vec<Model>>),
    }

    impl<'de> Deserialize<'de> for Model {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let raw = <&RawValue>::deserialize(deserializer)?.get();
            let inner = match raw.as_bytes()[0] {
                b'"' => serde_json::from_str(raw).map(Self::Text),
                b'[' => serde_json::from_str(raw).map(Self::Array),
                b'{' => serde_json::from_str(raw).map(|Members(members)| Self::Object(members)),
                _ => Ok(Self::Word(raw.into())),
            };
            inner.map_err(D::Error::custom)
        }
    }

    struct Members(BTreeMap<String, Vec<Model>>);

    impl<'de> Deserialize<'de> for Members {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Each;
            impl<'de> Visitor<'de> for Each {
                type Value = Members;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object")
                }

                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                    let mut members = BTreeMap::<String, Vec<Model>>::new();
                    while let Some((name, value)) = map.next_entry()? {
                        members.entry(name).or_default().push(value);
                    }
                    Ok(Members(members))
                }
            }
            deserializer.deserialize_map(Each)
        }
    }

    impl Model {
        /// `left_out` are the tokens of a pointer.
        fn canonical(&self, left_out: &[&str]) -> String {
            match self {
                Self::Word(word) => word.clone(),
                Self::Text(text) => quoted(text),
                Self::Array(items) => {
                    let item = |(index, item): (usize, &Self)| match left_out {
                        [token, inner @ ..] if *token == "*" || *token == index.to_string() => match inner {
                            [] => "_".into(),
                            _ => item.canonical(inner),
                        },
                        _ => item.canonical(&[]),
                    };
                    format!("[{}]", items.iter().enumerate().map(item).collect::<Vec<_>>().join(","))
                }
                Self::Object(members) => {
                    let mut out = Vec::new();
                    for (name, values) in members {
                        let inner = left_out.strip_prefix(&[name.as_str()]);
                        if inner == Some(&[]) {
                            continue;
                        }
                        let value = |value: &Self| value.canonical(inner.unwrap_or_default());
                        out.extend(values.iter().map(|each| format!("{}:{}", quoted(name), value(each))));
                    }
                    format!("{{{}}}", out.join(","))
                }
            }
        }
    }

    fn quoted(text: &str) -> String {
        let escaped = |char| match char {
            '"' | '\\' => format!("\\{char}"),
            '\0'..' ' => format!("\\u{:04x}", u32::from(char)),
            other => other.into(),
        };
        format!("\"{}\"", text.chars().map(escaped).collect::<String>())
    }

    fn model(text: &str) -> Option<Model> {
        serde_json::from_str(text).ok()
    }

    fn parse(text: &str) -> Result<Document, JsonProblem> {
        Document::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn canonical(text: &str, left_out: Option<&str>) -> Option<String> {
        let document = parse(text).ok()?;
        let skip = left_out.map(|pointer| document.matches(&Pointer::parse(pointer).unwrap()));
        Some(String::from_utf8(document.canonical(&skip.unwrap_or_default()).into_owned()).unwrap())
    }

    const NAMES: [&str; 8] = ["sku", "qty", "price", "pric", "é", "a_name_of_more_than_16_bytes", "sku", ""];
    const VALUES: [&str; 28] = [
        "1",
        "0",
        "7",
        "19.90",
        "0.5",
        "-5",
        "-0.0",
        "1e5",
        "1.5E-7",
        "12345678",
        "1234567",
        "123456.5",
        "123456789.25",
        r#""""#,
        r#""A""#,
        r#""SKU-000001""#,
        r#""of more than sixteen bytes""#,
        r#""\u0041""#,
        r#""x\ny\/z""#,
        r#""é""#,
        "true",
        "false",
        "null",
        "[]",
        "{}",
        "[1, 2]",
        r#"{"b":1,"a":2}"#,
        r#"[{"a":1},{"a":2},{"a":"\""}]"#,
    ];

    const PLACES: [&str; 6] = ["*", "0", "1", "2", "3", "4"];

    /// How one item differs from the others.
    #[derive(Clone, Copy, Debug)]
    enum Twist {
        None,
        Swapped,
        Renamed,
        Added,
        Doubled,
        Escaped,
        Spaced,
        Missing,
    }

    type Item = (Vec<usize>, Twist, usize);

    fn item() -> impl Strategy<Value = Item> {
        use Twist::{Added, Doubled, Escaped, Missing, None, Renamed, Spaced, Swapped};
        let twist = select(vec![
            None, None, None, None, None, None, None, None, Swapped, Renamed, Added, Doubled, Escaped,
            Spaced, Missing,
        ]);
        // Half of the values are simple, so that items follow one another that are alike.
        let value = prop_oneof![0..17_usize, 0..VALUES.len()];
        (vec(value, 5), twist, 0..20_usize)
    }

    /// An array of objects that all have these names, but for their twists.
    fn rows(names: &[&str], items: &[Item], style: usize) -> String {
        let (before, colon, comma, end) =
            [("", ":", ",", ""), ("", ": ", ", ", ""), ("\n      ", ": ", ",\n      ", "\n   ")][style];
        let items: Vec<String> = items
            .iter()
            .map(|(values, twist, place)| {
                let mut members: Vec<(String, String)> = names
                    .iter()
                    .zip(values)
                    .map(|(name, &value)| (format!("\"{name}\""), VALUES[value].into()))
                    .collect();
                let (space, place) = (place % 4, place % members.len().max(1));
                let (mut colon, mut comma, mut end) = (colon, comma, end);
                match twist {
                    _ if members.is_empty() => {}
                    Twist::None => {}
                    Twist::Swapped => members.swap(0, place),
                    Twist::Renamed => members[place].0.insert(1, 'q'),
                    Twist::Added => members.insert(place, ("\"more\"".into(), "[]".into())),
                    Twist::Doubled => members.insert(place, members[0].clone()),
                    Twist::Escaped => members[place].0.insert_str(1, "\\u0073"),
                    Twist::Spaced => match space {
                        0 => colon = " :",
                        1 => colon = ":  ",
                        2 => comma = " ,",
                        _ => end = " ",
                    },
                    Twist::Missing => drop(members.remove(place)),
                }
                let members: Vec<_> =
                    members.iter().map(|(name, value)| format!("{name}{colon}{value}")).collect();
                format!("{{{before}{}{end}}}", members.join(comma))
            })
            .collect();
        format!("{{\"cart\":\"k\",\"items\":[{}],\"z\":1}}", items.join(comma))
    }

    fn names() -> impl Strategy<Value = Vec<&'static str>> {
        vec(select(NAMES.to_vec()), 0..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn items_that_are_alike_or_nearly_have_the_text_that_they_have_without_shapes(
            names in names(), items in vec(item(), 0..9), style in 0..3_usize, place in select(PLACES.to_vec()),
            left_out in select(NAMES.to_vec()),
        ) {
            let text = rows(&names, &items, style);
            let model = model(&text).expect("what is made here is JSON");
            prop_assert_eq!(canonical(&text, None), Some(model.canonical(&[])), "{}", text);
            let members = (format!("/items/{place}/{left_out}"), vec!["items", place, left_out]);
            let whole = (format!("/items/{place}"), vec!["items", place]);
            for (pointer, tokens) in [members, whole] {
                let found = canonical(&text, Some(&pointer));
                prop_assert_eq!(found, Some(model.canonical(&tokens)), "{} without {}", text, pointer);
            }
        }

        #[test]
        fn one_byte_more_or_less_is_never_overlooked(
            names in names(), items in vec(item(), 2..6), style in 0..3_usize, place in any::<prop::sample::Index>(),
            byte in select(b"{}[],:\"\\ 0a.-x".to_vec()), change in 0..3_usize,
        ) {
            let mut text = rows(&names, &items, style).into_bytes();
            let place = place.index(text.len());
            match change {
                0 => text[place] = byte,
                1 => text.insert(place, byte),
                _ => drop(text.remove(place)),
            }
            if let Ok(text) = String::from_utf8(text) {
                let expected = model(&text).map(|model| model.canonical(&[]));
                prop_assert_eq!(canonical(&text, None), expected, "{}", text);
            }
        }

        #[test]
        fn an_array_that_is_cut_off_is_refused(
            names in names(), items in vec(item(), 2..6), style in 0..3_usize, place in any::<prop::sample::Index>(),
        ) {
            let text = rows(&names, &items, style);
            let cut = text.get(..place.index(text.len()));
            prop_assert!(cut.is_none_or(|cut| parse(cut).is_err()), "{:?}", cut);
        }
    }

    #[test]
    fn no_change_of_one_byte_of_a_cart_is_overlooked() {
        let names = ["sku", "qty", "a_name_of_more_than_16_bytes", "price"];
        let item = |values: [usize; 4]| (values.to_vec(), Twist::None, 0);
        let items =
            [item([15, 0, 16, 3]), item([14, 2, 13, 0]), item([15, 9, 14, 4]), item([20, 23, 17, 22])];
        for style in 0..3 {
            let text = rows(&names, &items, style);
            let check = |changed: Vec<u8>| {
                let Ok(changed) = String::from_utf8(changed) else { return };
                let expected = model(&changed).map(|model| model.canonical(&[]));
                assert_eq!(canonical(&changed, None), expected, "{changed}");
            };
            for place in 0..text.len() {
                let parts = (&text.as_bytes()[..place], &text.as_bytes()[place + 1..]);
                check([parts.0, parts.1].concat());
                for byte in *b"{}[],:\"\\ 0a.-x" {
                    check([parts.0, &[byte], parts.1].concat());
                    check([parts.0, &[byte], &text.as_bytes()[place..]].concat());
                }
            }
        }
    }

    #[test]
    fn white_space_and_escapes_in_one_item_are_not_taken_over() {
        for (items, expected) in [
            (r#"[{"a":1},{"a":2 },{"a":3}]"#, r#"[{"a":1},{"a":2},{"a":3}]"#),
            (r#"[{"a":1},{"a": 2},{"a":3}]"#, r#"[{"a":1},{"a":2},{"a":3}]"#),
            (
                r#"[{"b":1,"a":"x"},{"b":2,"a":"\u0079"},{"b":3,"a":"z"}]"#,
                r#"[{"a":"x","b":1},{"a":"y","b":2},{"a":"z","b":3}]"#,
            ),
            (r#"[{ "b": 1, "a": 1 }, { "b": 2, "a": 2 }]"#, r#"[{"a":1,"b":1},{"a":2,"b":2}]"#),
        ] {
            let text = format!(r#"{{"items":{items},"pad":"0123456789"}}"#);
            let expected = format!(r#"{{"items":{expected},"pad":"0123456789"}}"#);
            assert_eq!(canonical(&text, None), Some(expected));
        }
    }

    #[test]
    fn values_are_found_in_items_that_are_alike() {
        let text = r#"[{"id":"A","n":1},{"id":"B","n":2},{"id":"C","n":3,"id":"D"},{"id":"E","n":4},{"id":"F","n":5}]"#;
        let document = parse(text).unwrap();
        let found = |pointer| document.lookup(&Pointer::parse(pointer).unwrap());
        assert_eq!(format!("{:?}", found("/1/id")), format!("{:?}", crate::request::Lookup::text("B")));
        assert_eq!(document.matches(&Pointer::parse("/*/id").unwrap()).len(), 6);
        assert!(matches!(found("/*/id"), crate::request::Lookup::Ambiguous(_)));
        assert!(matches!(found("/*/n"), crate::request::Lookup::Found(values) if values.len() == 5));
    }

    #[test]
    fn the_bounds_hold_for_items_that_are_alike() {
        let nested = |depth: usize, item: &str| {
            let items = format!(r#"{{"a":1}},{{"a":2}},{item},{{"a":3}}"#);
            format!("{}{items}{}", "[".repeat(depth), "]".repeat(depth))
        };
        assert!(parse(&nested(DEPTH_MAX - 1, r#"{"a":1}"#)).is_ok());
        assert_eq!(parse(&nested(DEPTH_MAX, r#"{"a":1}"#)).err(), Some(JsonProblem::TooDeep));
        for inner in ["[]", "{}"] {
            let item = format!(r#"{{"a":{inner}}}"#);
            assert!(parse(&nested(DEPTH_MAX - 2, &item)).is_ok());
            assert_eq!(parse(&nested(DEPTH_MAX - 1, &item)).err(), Some(JsonProblem::TooDeep));
        }
        // The array is a value too, and each item three.
        let of =
            |items: usize| format!(r#"[{}{{"a":1,"b":2}}]{:16}"#, r#"{"a":1,"b":2},"#.repeat(items - 1), "");
        assert!(parse(&of((NODES_MAX - 1) / 3)).is_ok());
        assert_eq!(parse(&of((NODES_MAX - 1) / 3 + 1)).err(), Some(JsonProblem::TooMany));
    }
}
