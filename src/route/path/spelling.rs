//! The readings of a path that is not plain.
//!
//! A set of candidates walks through the steps that servers take; where servers differ at a step, both ways stay in
//! the set. The first candidate is the primary reading. The set has a bound in number and in bytes, and a path that
//! would need more is not a path that any shop hands out. Nothing here judges what a path is allowed to do.

use super::{Doubt, Readings};

/// Readings that one path may have before the aliases. An honest path has one, an odd one two to eight.
const CANDIDATES_MAX: usize = 32;
/// Bytes that all candidates may have together, beyond the first: bounds the work that one request can cause.
const CANDIDATE_BYTES_MAX: usize = 16 * 1024;
/// How often a path may be decoded. Three layers of servers that each decode once is more than was ever seen.
const DECODINGS_MAX: usize = 4;
/// Bytes that are not UTF-8 stand as this plus the byte.
const STAND_IN: u32 = 0xF700;

pub(super) fn read(raw: &[u8]) -> Readings {
    let path = after_authority(raw);
    let mut set = Set::new(path);
    set.or(without_host);
    // Tomcat and its kin cut parameters before decoding, PHP shops not at all (RFC 3986 section 3.3 leaves it open).
    set.rather(cut_parameters);
    set.decode_once();
    set.or(|path| Some(decode(path, Slash::Decoded)));
    set.or(decode_fully);
    set.or(mend_utf8);
    set.or(narrow);
    set.or(|path| replaced(path, b'\\', b'/'));
    set.or(cut_parameters);
    set.or(|path| cut_at(path, |byte| matches!(byte, b'?' | b'#')));
    set.or(|path| cut_at(path, |byte| byte.is_ascii_control()));
    set.or(|path| without(path, |byte| byte.is_ascii_control()));
    set.or(|path| Some(trim_segments(path, |byte| byte == b' ')));
    set.or(|path| has_parent(path).then(|| resolve(path, Parent::Dropped)));
    set.each(|path| resolve(path, Parent::Resolved));
    // Windows file systems end a name before its trailing dots and spaces.
    set.or(|path| Some(resolve(&trim_segments(path, |byte| matches!(byte, b'.' | b' ')), Parent::Resolved)));
    set.finish(doubt(path))
}

/// What stays after `http://host`, where a target in absolute form (RFC 9112 section 3.2.2) was left whole.
fn after_authority(raw: &[u8]) -> &[u8] {
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| raw.len() >= scheme.len() && raw[..scheme.len()].eq_ignore_ascii_case(scheme));
    match scheme {
        None => raw,
        Some(scheme) => {
            let rest = &raw[scheme.len()..];
            &rest[rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len())..]
        }
    }
}

/// `//host/path` is a reference without a scheme (RFC 3986 section 4.2), and PHP's `parse_url` reads it so.
fn without_host(path: &[u8]) -> Option<Vec<u8>> {
    let rest = path.strip_prefix(b"//")?;
    rest.iter().position(|byte| *byte == b'/').map(|at| rest[at..].to_vec())
}

struct Set {
    list: Vec<Vec<u8>>,
    bytes: usize,
    full: bool,
}

impl Set {
    fn new(path: &[u8]) -> Self {
        Self { list: vec![path.to_vec()], bytes: 0, full: false }
    }

    /// Once the set has been full, only the primary reading goes on: a doubt of this kind matches every guarded path, so
    /// the other readings would be work for nothing.
    fn push(&mut self, path: Vec<u8>) {
        if self.full || self.list.contains(&path) {
            return;
        }
        if self.list.len() == CANDIDATES_MAX || self.bytes + path.len() > CANDIDATE_BYTES_MAX {
            self.full = true;
            self.list.truncate(1);
            return;
        }
        self.bytes += path.len();
        self.list.push(path);
    }

    fn each(&mut self, step: impl Fn(&[u8]) -> Vec<u8>) {
        for path in &mut self.list {
            *path = step(path);
        }
    }

    /// Some servers take this step, but the primary reading does not.
    fn or(&mut self, step: impl Fn(&[u8]) -> Option<Vec<u8>>) {
        for at in 0..self.list.len() {
            if let Some(path) = self.list.get(at).and_then(|path| step(path)) {
                self.push(path);
            }
        }
    }

    /// Some servers do not take this step, but the primary reading does.
    fn rather(&mut self, step: impl Fn(&[u8]) -> Option<Vec<u8>>) {
        for at in 0..self.list.len() {
            let Some(path) = self.list.get_mut(at) else { break };
            if let Some(next) = step(path) {
                let before = std::mem::replace(path, next);
                self.push(before);
            }
        }
    }

    fn decode_once(&mut self) {
        for at in 0..self.list.len() {
            let Some(path) = self.list.get_mut(at) else { break };
            let kept = decode(path, Slash::Kept);
            *path = decode(path, Slash::Decoded);
            self.push(kept);
        }
    }

    fn finish(self, doubt: Option<Doubt>) -> Readings {
        let doubt = if self.full { Some(Doubt::TooManyReadings) } else { doubt };
        let mut readings = Readings {
            path: String::new(),
            others: Vec::with_capacity(self.list.len() - 1),
            doubt,
            spellings: 0,
        };
        for (at, path) in self.list.iter().enumerate() {
            let text = to_text(path);
            if at == 0 {
                readings.path = text;
            } else if text != readings.path && !readings.others.contains(&text) {
                readings.others.push(text);
            }
        }
        readings.spellings = readings.others.len();
        readings
    }
}

/// Looks at the path decoded once: what is still in doubt deeper down appears as a reading of its own.
fn doubt(path: &[u8]) -> Option<Doubt> {
    let mut bad = false;
    let mut slash = false;
    let mut at = 0;
    while let Some(found) = path[at..].iter().position(|byte| *byte == b'%') {
        at += found;
        match escape(&path[at..]) {
            Some(byte) => slash |= byte == b'/',
            None => bad = true,
        }
        at += 1;
    }
    let decoded = decode(path, Slash::Decoded);
    let mended = mend_utf8(&decoded);
    if decoded.contains(&0) {
        Some(Doubt::NulByte)
    } else if decoded.contains(&b'\\') {
        Some(Doubt::Backslash)
    } else if slash {
        Some(Doubt::EncodedSlash)
    } else if (0..decoded.len()).any(|at| overlong(&decoded[at..]).is_some()) {
        Some(Doubt::Overlong)
    } else if bad || mended.is_some() {
        Some(Doubt::BadEncoding)
    } else if decoded.iter().any(u8::is_ascii_control) {
        Some(Doubt::Control)
    } else {
        None
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slash {
    Decoded,
    /// `%2f` stays as it is, as in Apache with `AllowEncodedSlashes NoDecode`.
    Kept,
}

fn decode(path: &[u8], slash: Slash) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        match escape(&path[at..]) {
            Some(b'/') if slash == Slash::Kept => {
                decoded.extend_from_slice(b"%2F");
                at += 3;
            }
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(path[at]);
                at += 1;
            }
        }
    }
    decoded
}

/// Decoded until nothing changes, and with it `%u0063`, which classic ASP and some firewalls read.
fn decode_fully(path: &[u8]) -> Option<Vec<u8>> {
    let mut now = path.to_vec();
    for _ in 0..DECODINGS_MAX {
        let next = decode_wide(&decode(&now, Slash::Decoded));
        if next == now {
            break;
        }
        now = next;
    }
    (now != path).then_some(now)
}

fn decode_wide(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        let wide = match path[at..] {
            [b'%', b'u' | b'U', a, b, c, d, ..] => number(&[a, b, c, d]).and_then(char::from_u32),
            _ => None,
        };
        match wide {
            Some(character) => {
                decoded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                at += 6;
            }
            None => {
                decoded.push(path[at]);
                at += 1;
            }
        }
    }
    decoded
}

/// The byte that `%hh` at the front stands for (RFC 3986 section 2.1).
fn escape(path: &[u8]) -> Option<u8> {
    match path {
        [b'%', high, low, ..] => number(&[*high, *low]).and_then(|value| u8::try_from(value).ok()),
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, digit| Some(sum * 16 + char::from(*digit).to_digit(16)?))
}

/// Overlong sequences as the ASCII that they hide, other bytes that are not UTF-8 left out: what decoders that are too
/// kind make of it (RFC 3629 section 10).
fn mend_utf8(path: &[u8]) -> Option<Vec<u8>> {
    if std::str::from_utf8(path).is_ok() {
        return None;
    }
    let mut mended = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        if let Some((byte, length)) = overlong(&path[at..]) {
            mended.push(byte);
            at += length;
            continue;
        }
        // No character is longer than four bytes, so a window keeps this linear.
        let window = &path[at..path.len().min(at + 4)];
        let chunk = window.utf8_chunks().next();
        match chunk.and_then(|chunk| chunk.valid().chars().next()) {
            Some(character) => {
                mended.extend_from_slice(&path[at..at + character.len_utf8()]);
                at += character.len_utf8();
            }
            None => at += 1,
        }
    }
    Some(mended)
}

/// An ASCII character in two, three or four bytes.
fn overlong(path: &[u8]) -> Option<(u8, usize)> {
    let low = |byte: u8| byte & 0x3F;
    match *path {
        // The second byte is not checked: IIS once read `%c0%2f` and `%c1%1c` as well.
        [lead @ (0xC0 | 0xC1), tail, ..] => Some((((lead & 1) << 6) | low(tail), 2)),
        [0xE0, middle @ (0x80 | 0x81), tail @ 0x80..=0xBF, ..] => Some((((middle & 1) << 6) | low(tail), 3)),
        [0xF0, 0x80, middle @ (0x80 | 0x81), tail @ 0x80..=0xBF, ..] => {
            Some((((middle & 1) << 6) | low(tail), 4))
        }
        _ => None,
    }
}

/// Full-width forms and the two letters that fold to ASCII: what a best-fit mapping or a Unicode fold makes of them.
fn narrow(path: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(path).ok().filter(|text| !text.is_ascii())?;
    let narrowed: String = text
        .chars()
        .map(|character| match character {
            '\u{FF01}'..='\u{FF5E}' => {
                char::from_u32(u32::from(character) - 0xFF00 + 0x20).unwrap_or(character)
            }
            '\u{212A}' => 'k',
            '\u{017F}' => 's',
            other => other,
        })
        .collect();
    (narrowed != text).then(|| narrowed.into_bytes())
}

fn replaced(path: &[u8], from: u8, to: u8) -> Option<Vec<u8>> {
    path.contains(&from).then(|| path.iter().map(|byte| if *byte == from { to } else { *byte }).collect())
}

fn without(path: &[u8], unwanted: impl Fn(u8) -> bool) -> Option<Vec<u8>> {
    let kept: Vec<u8> = path.iter().copied().filter(|byte| !unwanted(*byte)).collect();
    (kept.len() < path.len()).then_some(kept)
}

fn cut_at(path: &[u8], end: impl Fn(u8) -> bool) -> Option<Vec<u8>> {
    path.iter().position(|byte| end(*byte)).map(|at| path[..at].to_vec())
}

fn cut_parameters(path: &[u8]) -> Option<Vec<u8>> {
    path.contains(&b';').then(|| {
        let mut kept = Vec::with_capacity(path.len());
        let mut inside = false;
        for &byte in path {
            inside = byte == b';' || (inside && byte != b'/');
            if !inside {
                kept.push(byte);
            }
        }
        kept
    })
}

fn trim_segments(path: &[u8], unwanted: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut trimmed = Vec::with_capacity(path.len());
    for (at, mut segment) in path.split(|byte| *byte == b'/').enumerate() {
        while let [rest @ .., last] = segment
            && unwanted(*last)
        {
            segment = rest;
        }
        // Leading dots are names of their own; only spaces are cut there.
        while let [b' ', rest @ ..] = segment {
            segment = rest;
        }
        if at > 0 {
            trimmed.push(b'/');
        }
        trimmed.extend_from_slice(segment);
    }
    trimmed
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Parent {
    Resolved,
    /// A shop that reads the target as it came does not step back at `..`; its router sees what stands before it.
    Dropped,
}

fn has_parent(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|segment| segment == b"..")
}

/// RFC 3986 section 5.2.4, with empty segments set aside first.
fn resolve(path: &[u8], parent: Parent) -> Vec<u8> {
    let mut resolved = Vec::with_capacity(path.len() + 1);
    for segment in path.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." if parent == Parent::Dropped => {}
            b".." => {
                let cut = resolved.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                resolved.truncate(cut);
            }
            name => {
                resolved.push(b'/');
                resolved.extend_from_slice(name);
            }
        }
    }
    if resolved.is_empty() {
        resolved.push(b'/');
    }
    resolved
}

fn to_text(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    let stand_in =
        |byte: u8| char::from_u32(STAND_IN + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER);
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            if ('\u{F780}'..='\u{F7FF}').contains(&character) {
                text.extend(character.encode_utf8(&mut [0; 4]).bytes().map(stand_in));
            } else {
                text.push(character);
            }
        }
        text.extend(chunk.invalid().iter().copied().map(stand_in));
    }
    text
}
