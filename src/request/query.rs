//! Queries and urlencoded forms, decoded to bytes once, with names as PHP reads them.
//!
//! PHP is the reader that the guarded shops have in common, and it reads several spellings as one name: `a.b`, `a b`
//! and `a_b` are one. A key that could be meant by two fields is ambiguous; nothing here picks one of them.

use std::borrow::Cow;

use super::lookup::{Lookup, NESTED_BYTES_MAX};

/// PHP's `max_input_vars`: what stands after so many fields is not seen by the shop.
pub const PAIRS_MAX: usize = 1000;

/// A decoded name and its decoded value.
pub type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// The pairs of a query or an urlencoded body. Empty pieces are skipped; a piece without `=` has an empty value.
pub fn pairs(raw: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    raw.split(|&byte| byte == b'&').filter(|piece| !piece.is_empty()).map(|piece| {
        match memchr::memchr(b'=', piece) {
            Some(at) => (decode(&piece[..at], Plus::IsSpace), decode(&piece[at + 1..], Plus::IsSpace)),
            None => (decode(piece, Plus::IsSpace), Cow::Borrowed(&[] as &[u8])),
        }
    })
}

/// Whether there are more than [`PAIRS_MAX`] pieces.
#[must_use]
pub fn is_overlong(raw: &[u8]) -> bool {
    memchr::memchr_iter(b'&', raw).count() >= PAIRS_MAX
}

/// Looks a name up in a raw query or urlencoded body.
#[must_use]
pub fn lookup(raw: &[u8], name: &[u8]) -> Lookup {
    if raw.is_empty() {
        return Lookup::Absent;
    }
    if is_overlong(raw) {
        return Lookup::Unreadable(format!("there are more than {PAIRS_MAX} fields"));
    }
    lookup_in(pairs(raw), name)
}

/// Looks a name up among decoded pairs. Besides a name that stands twice, a field that would make an array of the
/// wanted one, or overwrite it (`id` and `id[]`), is ambiguous.
pub fn lookup_in<'a>(pairs: impl Iterator<Item = Pair<'a>>, name: &[u8]) -> Lookup {
    let wanted = php_name(name);
    let mut found = None;
    for (name, value) in pairs {
        let name = php_name(&name);
        if base(&name) != base(&wanted) {
            continue;
        }
        if name == wanted {
            if found.is_some() {
                return Lookup::Ambiguous("it stands twice".into());
            }
            found = Some(value);
        } else if overlaps(&name, &wanted) {
            return Lookup::Ambiguous("it stands there as a value and as an array, or twice".into());
        }
    }
    match found {
        None => Lookup::Absent,
        Some(value) if value.len() > NESTED_BYTES_MAX => {
            Lookup::Unreadable(format!("it is longer than {NESTED_BYTES_MAX} bytes"))
        }
        Some(value) => Lookup::text(value),
    }
}

/// The name under which PHP registers a field; empty where PHP drops it.
///
/// Leading spaces are cut; a NUL ends the name; `.`, space and a `[` without its `]` become `_`; what stands behind
/// the last index is dropped; an index of one white space is the empty index. Compared with PHP 8.2's `parse_str`.
#[must_use]
pub fn php_name(name: &[u8]) -> Cow<'_, [u8]> {
    // Names are short: a search that is made for long texts would take longer to begin.
    if !name.iter().any(|byte| matches!(byte, b'.' | b' ' | b'[' | 0)) {
        return Cow::Borrowed(name);
    }
    let name = without_leading_spaces(name);
    let name = &name[..memchr::memchr(0, name).unwrap_or(name.len())];
    let at = memchr::memchr(b'[', name).unwrap_or(name.len());
    let (head, mut rest) = name.split_at(at);
    if head.is_empty() {
        return Cow::Owned(Vec::new());
    }
    let mut out: Vec<u8> = head.iter().map(|&byte| underscore(byte)).collect();
    if !rest.is_empty() && memchr::memchr(b']', rest).is_none() {
        out.extend(rest.iter().map(|&byte| underscore(byte)));
        return Cow::Owned(out);
    }
    while let Some(inside) = rest.strip_prefix(b"[") {
        let skipped = usize::from(inside.first().is_some_and(|byte| is_c_space(*byte)));
        if inside.get(skipped) == Some(&b']') {
            out.extend_from_slice(b"[]");
            rest = &inside[skipped + 1..];
            continue;
        }
        let Some(end) = memchr::memchr(b']', inside) else { break };
        out.push(b'[');
        out.extend_from_slice(&inside[..=end]);
        rest = &inside[end + 1..];
    }
    Cow::Owned(out)
}

/// The part of a PHP name before its first index: the variable that it is stored in.
#[must_use]
pub fn base(php_name: &[u8]) -> &[u8] {
    &php_name[..memchr::memchr(b'[', php_name).unwrap_or(php_name.len())]
}

/// What `+` means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plus {
    /// In queries and urlencoded bodies.
    IsSpace,
    /// In cookies and paths.
    IsItself,
}

/// Percent-decodes once. What is no escape stays as it is, as PHP and the URL standard have it.
#[must_use]
pub fn decode(text: &[u8], plus: Plus) -> Cow<'_, [u8]> {
    let first = match plus {
        Plus::IsSpace => memchr::memchr2(b'+', b'%', text),
        Plus::IsItself => memchr::memchr(b'%', text),
    };
    if first.is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'+' if plus == Plus::IsSpace => out.push(b' '),
            b'%' => match text.get(at..at + 2).and_then(hex2) {
                Some(decoded) => {
                    out.push(decoded);
                    at += 2;
                }
                None => out.push(b'%'),
            },
            other => out.push(other),
        }
    }
    Cow::Owned(out)
}

fn without_leading_spaces(name: &[u8]) -> &[u8] {
    &name[name.iter().take_while(|&&byte| byte == b' ').count()..]
}

fn underscore(byte: u8) -> u8 {
    if matches!(byte, b' ' | b'.' | b'[') { b'_' } else { byte }
}

fn is_c_space(byte: u8) -> bool {
    matches!(byte, b' ' | 9..=13)
}

fn hex2(digits: &[u8]) -> Option<u8> {
    let value = digits.iter().try_fold(0, |sum, &digit| Some(sum * 16 + char::from(digit).to_digit(16)?))?;
    u8::try_from(value).ok()
}

/// Whether two different names of one variable can stand in each other's way: one is inside the other, or one
/// appends (`a[]`) and so takes an index that the other names.
fn overlaps(one: &[u8], other: &[u8]) -> bool {
    let appends = |name: &[u8]| name.windows(2).any(|two| two == b"[]");
    one.starts_with(other) || other.starts_with(one) || appends(one) || appends(other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(raw: &str, name: &str) -> Option<String> {
        match lookup(raw.as_bytes(), name.as_bytes()) {
            Lookup::Found(values) => Some(String::from_utf8_lossy(&values[0].bytes).into_owned()),
            Lookup::Absent => None,
            other => panic!("{other:?}"),
        }
    }

    fn is_ambiguous(raw: &str, name: &str) -> bool {
        matches!(lookup(raw.as_bytes(), name.as_bytes()), Lookup::Ambiguous(_))
    }

    /// The expected names were taken from PHP 8.2's `parse_str`.
    #[test]
    fn names_are_read_as_php_reads_them() {
        let cases = [
            ("a.b", "a_b"),
            (" a", "a"),
            ("a b", "a_b"),
            ("a[b", "a_b"),
            ("a[b.c d", "a_b_c_d"),
            ("a[b][c", "a[b]"),
            ("a[b]junk", "a[b]"),
            ("a[ ]", "a[]"),
            ("a[ b]", "a[ b]"),
            ("a\0b", "a"),
            ("[a]", ""),
            ("[", ""),
            ("a.b[c.d]", "a_b[c.d]"),
            ("a[b]]", "a[b]"),
            ("a]b", "a]b"),
            ("\na", "\na"),
            ("a[[b]", "a[[b]"),
            ("a[b][", "a[b]"),
        ];
        for (name, php) in cases {
            assert_eq!(php_name(name.as_bytes()), php.as_bytes(), "{name:?}");
        }
    }

    #[test]
    fn a_field_is_decoded_once() {
        assert_eq!(found("%69d=a%2Bb+c", "id").as_deref(), Some("a+b c"));
        assert_eq!(found("id=%2541", "id").as_deref(), Some("%41"));
        assert_eq!(found("id=50%&x=%zz", "id").as_deref(), Some("50%"));
        assert_eq!(found("id=a;id=b", "id").as_deref(), Some("a;id=b"));
        assert_eq!(found("id=&x", "id"), None);
        assert_eq!(found("wc-ajax=checkout", "wc-ajax").as_deref(), Some("checkout"));
        assert_eq!(found("orderId%5B%5D=c2Ft", "orderId[]").as_deref(), Some("c2Ft"));
    }

    #[test]
    fn a_field_that_stands_twice_in_any_spelling_is_ambiguous() {
        let cases = [
            "id=1&id=2",
            "id=1&%69d=1",
            "id=1&id[]=2",
            "id[]=2",
            "id=1&id[x]=2",
            "id=1&+id=2",
            "id=1&id%00x=2",
        ];
        for raw in cases {
            assert!(is_ambiguous(raw, "id"), "{raw}");
        }
        assert!(is_ambiguous("a.b=1&a_b=2", "a_b"));
        assert!(is_ambiguous("a[0]=1&a[]=2", "a[0]"));
        assert!(is_ambiguous("a[b]=1&a=2", "a[b]"));
        assert_eq!(found("a[b]=1&a[c]=2&ab=3", "a[b]").as_deref(), Some("1"));
    }

    #[test]
    fn more_fields_than_php_reads_are_unreadable() {
        let raw = "x=1&".repeat(PAIRS_MAX) + "id=1";
        assert!(matches!(lookup(raw.as_bytes(), b"id"), Lookup::Unreadable(_)));
        assert_eq!(found(&("x=1&".repeat(PAIRS_MAX - 1) + "id=1"), "id").as_deref(), Some("1"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(raw in proptest::collection::vec(any::<u8>(), 0..64), name in proptest::collection::vec(any::<u8>(), 0..8)) {
            let _ = lookup(&raw, &name);
            let _ = php_name(&raw);
        }

        #[test]
        fn a_php_name_is_its_own_php_name(name in r"[ab .\[\]]{0,10}") {
            let once = php_name(name.as_bytes()).into_owned();
            prop_assert_eq!(php_name(&once).into_owned(), once);
        }
    }
}
