//! Stand-in for the query reader, until the real one takes its place.

use percent_encoding::percent_decode;

/// The pairs of a query, decoded, with their names as PHP reads them.
#[must_use]
pub fn pairs(raw: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let decode = |text: &str| percent_decode(text.replace('+', " ").as_bytes()).collect::<Vec<u8>>();
    raw.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (php_name(&decode(name)), decode(value))
        })
        .collect()
}

/// A name as PHP reads it: leading spaces cut, `.` and space become `_`, up to the first `[`.
#[must_use]
pub fn php_name(raw: &[u8]) -> Vec<u8> {
    let start = raw.iter().position(|byte| *byte != b' ').unwrap_or(raw.len());
    let mut name = raw[start..].to_vec();
    for byte in &mut name {
        match byte {
            b'.' | b' ' => *byte = b'_',
            b'[' => break,
            _ => {}
        }
    }
    name
}
