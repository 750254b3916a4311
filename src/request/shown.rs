//! Values as they may stand in a log: never a credential, never a card number, never a letter that moves a cursor.

use std::fmt::Write;

use super::{
    Rules,
    fingerprint::{Digest, Secret},
    lookup::Value,
    reading::Found,
    source::Source,
};

/// How long a shown order may be, in characters.
const SHOWN_CHARS_MAX: usize = 128;

/// All order keys of a request: the parts of one joined by `+`, several by `,`.
pub(super) fn order(rules: &Rules, secret: &Secret, found: &Found<'_>) -> String {
    let mut out = String::new();
    let mut seen: Vec<&_> = Vec::with_capacity(found.keys.len());
    for key in &found.keys {
        if seen.contains(&key) {
            continue;
        }
        for (index, (source, part)) in found.sources.iter().zip(key).enumerate() {
            match (seen.is_empty(), index) {
                (true, 0) => {}
                (false, 0) => out.push(','),
                _ => out.push('+'),
            }
            let hidden = rules.order_hash || source.is_secret();
            out.push_str(&value(secret, part, if hidden { Show::Hashed } else { Show::Clear }));
        }
        seen.push(key);
    }
    cut(out)
}

/// A value as an explanation may print it.
pub(super) fn explained(secret: &Secret, source: &Source, shown: &Value) -> String {
    cut(value(secret, shown, if source.is_secret() { Show::Hashed } else { Show::Clear }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    Clear,
    Hashed,
}

/// An order key that an operator typed, as the log would show the one that came from these sources.
pub(super) fn typed(rules: &Rules, secret: &Secret, sources: &[Source], parts: &[&str]) -> String {
    let shown = sources.iter().zip(parts).map(|(source, part)| {
        let hidden = rules.order_hash || source.is_secret();
        text(secret, part.as_bytes(), if hidden { Show::Hashed } else { Show::Clear })
    });
    cut(shown.collect::<Vec<_>>().join("+"))
}

fn value(secret: &Secret, value: &Value, show: Show) -> String {
    text(secret, &value.bytes, show)
}

fn text(secret: &Secret, bytes: &[u8], show: Show) -> String {
    if show == Show::Hashed || holds_card_number(bytes) {
        let mut digest = Digest::new(secret, "shown");
        digest.part(bytes);
        return format!("#{}", digest.finish().short());
    }
    let text = String::from_utf8_lossy(bytes);
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.into_owned();
    }
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() || turns_text(char) {
            let _ = write!(out, "{}", char.escape_unicode());
        } else {
            out.push(char);
        }
    }
    out
}

fn cut(text: String) -> String {
    if text.len() <= SHOWN_CHARS_MAX {
        return text;
    }
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        None => text,
        Some((at, _)) => text[..at].to_owned(),
    }
}

/// Letters that change the direction of what follows, or end a line where a reader of logs sees none.
fn turns_text(char: char) -> bool {
    matches!(char, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

/// 13 to 19 digits that pass the Luhn check, in one run, or with spaces and dashes between them.
fn holds_card_number(text: &[u8]) -> bool {
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    digits >= 13 && (holds_card_run(text, b"") || holds_card_run(text, b" -"))
}

fn holds_card_run(text: &[u8], between: &[u8]) -> bool {
    let mut digits: Vec<u8> = Vec::with_capacity(20);
    for &byte in text.iter().chain(b"\n") {
        if byte.is_ascii_digit() {
            digits.push(byte - b'0');
        } else if !between.contains(&byte) {
            if (13..=19).contains(&digits.len()) && passes_luhn(&digits) {
                return true;
            }
            digits.clear();
        }
    }
    false
}

fn passes_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| match (place % 2, u32::from(digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, rules};

    fn shown(id: &str) -> String {
        let body = serde_json::json!({ "id": id }).to_string();
        Sample::json(body).read(&rules(&["json:/id"])).unwrap().order
    }

    #[test]
    fn an_order_is_shown_as_it_is_and_cut() {
        assert_eq!(shown("WC-4725"), "WC-4725");
        assert_eq!(shown(&"é".repeat(300)).chars().count(), 128);
    }

    #[test]
    fn a_card_number_is_never_shown() {
        for id in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "card:4111-1111-1111-1111!",
            "7 4111111111111111",
            "378282246310005",
        ] {
            let order = shown(id);
            assert!(order.starts_with('#') && order.len() == 9, "{id}: {order}");
        }
        assert_eq!(shown("4111111111111112"), "4111111111111112");
        assert_eq!(shown("411111111111"), "411111111111");
    }

    #[test]
    fn a_cookie_or_header_is_never_shown_and_hashing_hides_everything() {
        let read = |order: &str| {
            Sample::form("id=7").header("cookie", "s=topsecret").read(&rules(&[order])).unwrap().order
        };
        assert!(read("cookie:s").starts_with('#'));
        assert!(read("cookie:s + form:id").ends_with("+7"));
        let mut hashed = rules(&["form:id"]);
        hashed.order_hash = true;
        assert!(Sample::form("id=7").read(&hashed).unwrap().order.starts_with('#'));
    }

    #[test]
    fn letters_that_turn_text_are_escaped() {
        assert_eq!(shown("a\u{202E}b\u{85}c"), "a\\u{202e}b\\u{85}c");
    }
}
