//! Bytes and numbers as signatures have them written.
//!
//! Strict: what could be read in two ways is read in none.

/// Hexadecimal in either case.
pub(super) fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_chunks::<2>();
    if text.is_empty() || !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Base64 with the standard letters and its padding (RFC 4648 section 4).
pub(super) fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let (groups, rest) = text.as_chunks::<4>();
    if text.is_empty() || !rest.is_empty() {
        return None;
    }
    let mut out = Vec::with_capacity(groups.len() * 3);
    for (index, group) in groups.iter().enumerate() {
        let padding = group.iter().rev().take_while(|&&byte| byte == b'=').count();
        if padding > 2 || (padding > 0 && index + 1 != groups.len()) {
            return None;
        }
        let mut bits = 0_u32;
        for &byte in &group[..4 - padding] {
            bits = bits << 6 | sextet(byte)?;
        }
        bits <<= 6 * padding;
        let [_, bytes @ ..] = bits.to_be_bytes();
        // Bits below the padding would be a second way to write the same bytes.
        if bytes[3 - padding..].iter().any(|&byte| byte != 0) {
            return None;
        }
        out.extend_from_slice(&bytes[..3 - padding]);
    }
    Some(out)
}

fn sextet(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

/// Digits and nothing else.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_read_in_one_way_only() {
        assert_eq!(hex(b"00fFa1"), Some(vec![0, 255, 0xa1]));
        assert_eq!(base64(b"Zm9vYg=="), Some(b"foob".to_vec()));
        assert_eq!(base64(b"Zm9vYmE="), Some(b"fooba".to_vec()));
        assert_eq!(base64(b"+/+/"), Some(vec![0xfb, 0xff, 0xbf]));
        for wrong in ["", "0", "0g", "+1", "0x"] {
            assert_eq!(hex(wrong.as_bytes()), None, "{wrong}");
        }
        for wrong in ["", "Zm9", "Zm9vYh==", "Zg==Zg==", "Z===", "====", "Zm9-", "Zm 9"] {
            assert_eq!(base64(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(
            (number(b"17"), number(b"+17"), number(b""), number(&[b'9'; 30])),
            (Some(17), None, None, None)
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = (hex(&text), base64(&text), number(&text));
        }
    }
}
