//! Escapes in strings (RFC 8259 section 7): how they are read, and the one way in which they are written.
//!
//! Half a surrogate pair is no character. It is kept as the three bytes that UTF-8 would use for it if it were
//! allowed to: no valid text has them, so two different strings never become equal.

use std::io::Write;

/// Reads the escape whose backslash stands at `at` and says what stands behind it. `None`: it is no escape.
pub(super) fn take(text: &[u8], at: usize, out: &mut Vec<u8>) -> Option<usize> {
    match text.get(at + 1)? {
        byte @ (b'"' | b'\\' | b'/') => out.push(*byte),
        b'b' => out.push(8),
        b'f' => out.push(12),
        b'n' => out.push(b'\n'),
        b'r' => out.push(b'\r'),
        b't' => out.push(b'\t'),
        b'u' => {
            let first = hex4(text, at + 2)?;
            if (0xD800..0xDC00).contains(&first)
                && text.get(at + 6..at + 8) == Some(b"\\u")
                && let Some(second @ 0xDC00..0xE000) = hex4(text, at + 8)
            {
                push_char(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00), out);
                return Some(at + 12);
            }
            push_char(first, out);
            return Some(at + 6);
        }
        _ => return None,
    }
    Some(at + 2)
}

/// Writes an unescaped string in quotes. What need not be escaped is not, and what must be is in one way only: two
/// strings are written alike only if they are equal. What is written is UTF-8.
pub(super) fn put(value: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = value;
    loop {
        let plain = rest.iter().position(|&byte| byte < b' ' || matches!(byte, b'"' | b'\\' | 0xED));
        let (plain, special) = rest.split_at(plain.unwrap_or(rest.len()));
        out.extend_from_slice(plain);
        rest = match special {
            [] => break,
            [byte @ (b'"' | b'\\'), rest @ ..] => {
                out.extend_from_slice(&[b'\\', *byte]);
                rest
            }
            [0xED, high @ 0xA0..=0xBF, low, rest @ ..] => {
                put_code(0xD000 | u32::from(high & 0x3F) << 6 | u32::from(low & 0x3F), out);
                rest
            }
            [control @ 0..b' ', rest @ ..] => {
                put_code(u32::from(*control), out);
                rest
            }
            [other, rest @ ..] => {
                out.push(*other);
                rest
            }
        };
    }
    out.push(b'"');
}

fn put_code(code: u32, out: &mut Vec<u8>) {
    // Writing to a `Vec` cannot fail.
    let _ = write!(out, "\\u{code:04x}");
}

fn hex4(text: &[u8], at: usize) -> Option<u32> {
    let digits = text.get(at..at + 4)?;
    digits.iter().try_fold(0, |sum, &digit| Some(sum * 16 + char::from(digit).to_digit(16)?))
}

fn push_char(code: u32, out: &mut Vec<u8>) {
    match char::from_u32(code) {
        Some(char) => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        None => {
            let low_six = |shift: u32| 0x80 | u8::try_from((code >> shift) & 0x3F).unwrap_or(0);
            out.extend_from_slice(&[0xED, low_six(6), low_six(0)]);
        }
    }
}
