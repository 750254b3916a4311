//! What single bytes and single values of a message head may be: token, target, host, length, coding.
//!
//! Pure functions over slices. They never look at more than one line, and they never repair anything: a value that
//! two readers could read differently has no meaning here.

use std::net::Ipv6Addr;

use super::Violation;

/// May stand in a token: a method, an option of `Connection` (RFC 9110 5.6.2).
pub(super) const TOKEN: u8 = 1;
/// May stand in a field name here: a token without `_`. CGI turns `-` and `_` into the same variable, so that
/// `Content_Length` would become a second `Content-Length` behind us.
pub(super) const NAME: u8 = 2;
/// May stand in the path of a target. What `http::Uri` takes, without bytes above 0x7F: RFC 3986 has none.
const PATH: u8 = 4;
/// May stand behind the `?` of a target.
const QUERY: u8 = 8;
/// May stand in a host name. Narrower than RFC 3986: no `,` (a list), no `%`, no sub-delims, which no name has.
const HOST: u8 = 16;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        let word = byte.is_ascii_alphanumeric();
        let mut class = 0;
        if word
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
        {
            class |= if byte == b'_' { TOKEN } else { TOKEN | NAME };
        }
        if matches!(byte, 0x21..=0x7E) && !matches!(byte, b'#' | b'<' | b'>' | b'`' | b'?') {
            class |= PATH;
        }
        if matches!(byte, 0x21..=0x7E) && !matches!(byte, b'"' | b'#' | b'<' | b'>') {
            class |= QUERY;
        }
        if word || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            class |= HOST;
        }
        table[at] = class;
        at += 1;
    }
    table
}

/// Whether this byte is of one of these classes.
pub(super) const fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// How many bytes at the front are of this class.
pub(super) fn span(bytes: &[u8], class: u8) -> usize {
    bytes.iter().position(|&byte| !is(byte, class)).unwrap_or(bytes.len())
}

/// Whether a value holds no control byte but HTAB (RFC 9110 5.5). Bytes above 0x7F pass. Eight bytes at a time: half
/// of a head is values, and every request pays for this.
pub(super) fn value_is_clean(value: &[u8]) -> bool {
    let (words, rest) = value.as_chunks::<8>();
    let controls = |bytes: &[u8]| bytes.iter().any(|&byte| byte < 0x20 && byte != b'\t' || byte == 0x7F);
    !words.iter().any(|word| may_hold_control(u64::from_le_bytes(*word)) && controls(word)) && !controls(rest)
}

/// Whether one of eight bytes is below 0x20 or is 0x7F. A byte that is smaller than what is taken from it borrows, and
/// its highest bit shows that, where it was not set before.
const fn may_hold_control(word: u64) -> bool {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let below = word.wrapping_sub(ONES * 0x20) & !word;
    let delete = word ^ (ONES * 0x7F);
    let is_delete = delete.wrapping_sub(ONES) & !delete;
    (below | is_delete) & (ONES * 0x80) != 0
}

/// A value without the blanks around it (OWS, RFC 9110 5.6.3).
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Path and query of a target: `/path?query`, or `?query` behind the authority of an absolute target.
pub(super) fn path_is_clean(target: &[u8]) -> bool {
    let path = span(target, PATH);
    match target.get(path) {
        None => true,
        Some(b'?') => span(&target[path + 1..], QUERY) == target.len() - path - 1,
        Some(_) => false,
    }
}

/// `host` or `host:port`, and nothing else: no user, no list, no path, not empty (RFC 9112 3.2).
pub(super) fn host_is_clean(host: &[u8]) -> bool {
    split_port(host).is_some()
}

/// `host:port` with a port that is there, the form of CONNECT (RFC 9112 3.2.3).
pub(super) fn host_and_port_is_clean(host: &[u8]) -> bool {
    split_port(host).is_some_and(|port| port.is_some())
}

/// The port of a valid host, or `None` where the host is not valid.
fn split_port(host: &[u8]) -> Option<Option<u16>> {
    const HOST_BYTES_MAX: usize = 255;
    let name = match host {
        [b'[', rest @ ..] => {
            let end = memchr::memchr(b']', rest)?;
            str::from_utf8(&rest[..end]).ok()?.parse::<Ipv6Addr>().ok()?;
            end + 2
        }
        name => span(name, HOST),
    };
    if name == 0 || name > HOST_BYTES_MAX {
        return None;
    }
    match &host[name..] {
        [] => Some(None),
        [b':', port @ ..] => Some(Some(number(port)?.try_into().ok()?)),
        _ => None,
    }
}

/// The length that a `Content-Length` line names: digits only (RFC 9110 8.6), below 2^62 so that no sum of it with a
/// buffer can run over.
pub(super) fn length(value: &[u8]) -> Result<u64, Violation> {
    const LENGTH_MAX: u64 = 1 << 62;
    match number(value) {
        Some(length) if length < LENGTH_MAX => Ok(length),
        _ => Err(Violation::bad("Content-Length must be one decimal number")),
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, &digit| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// `chunked` and nothing else passes. A coding that we do not know is 501 (RFC 9112 6.1); what is no list of codings,
/// or names chunked more than once or not alone at the end, is 400.
pub(super) fn coding(value: &[u8]) -> Result<(), Violation> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut chunked_before = false;
    for coding in value.split(|&byte| byte == b',').map(trim) {
        if coding.is_empty() || span(coding, TOKEN) != coding.len() || chunked_before {
            return Err(Violation::bad("Transfer-Encoding must be exactly `chunked`"));
        }
        chunked_before = coding.eq_ignore_ascii_case(b"chunked");
    }
    Err(Violation::new(501, "this Transfer-Encoding is not supported"))
}

/// What a `Connection` line says, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Options {
    Plain,
    Upgrade,
}

/// Reads one `Connection` line. It may not name a field that frames the message, carries an identity or a key, or
/// says where the message came from: whoever forwards would have to take that field out (RFC 9110 7.6.1).
pub(super) fn connection(value: &[u8]) -> Result<Options, Violation> {
    let mut options = Options::Plain;
    for option in value.split(|&byte| byte == b',').map(trim) {
        if span(option, TOKEN) != option.len() {
            return Err(Violation::bad("Connection must be a list of names"));
        }
        if is_end_to_end(option) {
            return Err(Violation::bad("Connection names a field that must not be dropped on the way"));
        }
        if option.eq_ignore_ascii_case(b"upgrade") {
            options = Options::Upgrade;
        }
    }
    Ok(options)
}

fn is_end_to_end(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 17] = [
        b"accept",
        b"authorization",
        b"cookie",
        b"date",
        b"expect",
        b"forwarded",
        b"host",
        b"idempotency-key",
        b"origin",
        b"referer",
        b"traceparent",
        b"transfer-encoding",
        b"user-agent",
        b"via",
        b"x-http-method-override",
        b"x-real-ip",
        b"x-request-id",
    ];
    const PREFIXES: [&[u8]; 3] = [b"content-", b"oncegate-", b"x-forwarded-"];
    listed(name, &NAMES, &PREFIXES)
}

/// Fields that must not come behind the body: whoever merged them into the head would have been lied to about
/// framing, routing, identity or content (RFC 9110 6.5.1).
pub(super) fn is_forbidden_in_trailers(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 21] = [
        b"age",
        b"authorization",
        b"cache-control",
        b"connection",
        b"cookie",
        b"date",
        b"expect",
        b"forwarded",
        b"host",
        b"idempotency-key",
        b"keep-alive",
        b"max-forwards",
        b"origin",
        b"pragma",
        b"range",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"vary",
    ];
    const PREFIXES: [&[u8]; 5] = [b"content-", b"if-", b"oncegate-", b"proxy-", b"x-forwarded-"];
    listed(name, &NAMES, &PREFIXES)
}

fn listed(name: &[u8], names: &[&[u8]], prefixes: &[&[u8]]) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known))
        || prefixes
            .iter()
            .any(|prefix| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_name_or_address_with_at_most_one_port() {
        for good in ["shop.example", "SHOP", "a_b:80", "10.0.0.1:65535", "[::1]", "[2001:db8::1]:443", "x:0"]
        {
            assert!(host_is_clean(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":",
            ":80",
            "a:",
            "a:65536",
            "a:-1",
            "a:+1",
            "a:8 0",
            "u@h",
            "a,b",
            "a/b",
            "a?b",
            "a#b",
            "a b",
            "[::1",
            "[]",
            "[::1]x",
            "[::g]",
            "[::1%25eth0]",
            "a%41",
            "a:1:2",
            "::1",
            "a\u{e4}",
        ] {
            assert!(!host_is_clean(bad.as_bytes()), "{bad}");
        }
        assert!(!host_is_clean(&[b'a'; 256]));
        assert!(host_and_port_is_clean(b"a:1"));
        assert!(!host_and_port_is_clean(b"a"));
    }

    #[test]
    fn a_length_is_digits_below_two_to_the_62nd() {
        assert_eq!(length(b"0"), Ok(0));
        assert_eq!(length(b"005"), Ok(5));
        assert_eq!(length(b"4611686018427387903"), Ok((1 << 62) - 1));
        let bad: [&[u8]; 13] = [
            b"",
            b"+5",
            b"-5",
            b"0x5",
            b"5.0",
            b"5 5",
            b"1_0",
            b"5,5",
            b"5;",
            b"4611686018427387904",
            b"18446744073709551621",
            b"\xc2\xb2",
            b"\xd9\xa5",
        ];
        for value in bad {
            assert!(length(value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn only_chunked_is_a_transfer_coding_that_passes() {
        assert_eq!(coding(b"Chunked"), Ok(()));
        let table: [(&[u8], u16); 11] = [
            (b"gzip, chunked", 501),
            (b"identity", 501),
            (b"xchunked", 501),
            (b"gzip", 501),
            (b"chunked, chunked", 400),
            (b"chunked, gzip", 400),
            (b", chunked", 400),
            (b"chunked,", 400),
            (b"", 400),
            (b"chunked;q=1", 400),
            (b"\"chunked\"", 400),
        ];
        for (value, status) in table {
            assert_eq!(coding(value).map_err(|violation| violation.status), Err(status), "{value:?}");
        }
    }

    #[test]
    fn connection_may_not_name_what_frames_or_identifies() {
        assert_eq!(connection(b"keep-alive, X-Hop"), Ok(Options::Plain));
        assert_eq!(connection(b"close, TE"), Ok(Options::Plain));
        assert_eq!(connection(b"keep-alive, Upgrade"), Ok(Options::Upgrade));
        for bad in
            ["Host", "close, cookie", "X-Forwarded-For", "Content-Length", "Idempotency-Key", "a b", "\"x\""]
        {
            assert!(connection(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_control_byte_is_found_wherever_it_stands() {
        for len in 1..20 {
            for at in 0..len {
                for byte in 0..=255u8 {
                    for around in [b' ', b'a', b'~', 0x80, 0xFF, b'\t'] {
                        let mut value = vec![around; len];
                        value[at] = byte;
                        let control = byte < 0x20 && byte != b'\t' || byte == 0x7F;
                        assert_eq!(value_is_clean(&value), !control, "{value:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_clean_path_is_one_that_hyper_takes() {
        for byte in 0..=255u8 {
            for target in [[b'/', byte].as_slice(), &[b'/', b'?', byte]] {
                let ours = path_is_clean(target);
                let theirs = http::Uri::try_from(target).is_ok();
                assert!(!ours || theirs, "{target:?}");
                assert_eq!(ours, theirs && byte < 0x80 && byte != b'#', "{target:?}");
            }
        }
    }
}
