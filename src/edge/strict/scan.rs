//! Is this a request head that every server behind us reads the way we do?
//!
//! A pure scanner over bytes: no I/O, no clock, nothing repaired, nothing copied. It goes line by line, and every rule
//! is looked at when its line is complete, so that the verdict does not depend on how the bytes were split on the way.

use std::ops::Range;

use memchr::{memchr, memchr3};

use super::{
    StrictLimits, Violation,
    field::{self, NAME, Options, TOKEN},
    rules,
};

/// What was found in the bytes that were looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing wrong so far, and no end.
    Partial,
    Whole(Head),
    Bad(Violation),
}

/// A head that passed: all that whoever follows the bytes behind it has to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Including the empty line at its end, and the one that may have stood before it.
    pub len: usize,
    pub body: Body,
    pub version: Version,
    pub wish: Wish,
}

/// How the body is framed. HTTP/1.0 without `Content-Length` has none, whatever the method: a body that ends with the
/// connection could never be answered, and what follows is read as the next head (RFC 9112 6.3, rule 7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    Length(u64),
    Chunked,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Version {
    Http10,
    #[default]
    Http11,
}

/// Whether the client wants to leave HTTP behind after this request (RFC 9110 7.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    Stay,
    Upgrade,
}

/// A method longer than any that is registered, by far.
pub(super) const METHOD_BYTES_MAX: usize = 32;

/// Looks at bytes that begin where a head begins.
#[must_use]
pub fn head(bytes: &[u8], limits: &StrictLimits) -> Verdict {
    Progress::default().advance(bytes, limits)
}

/// What is known of a head that is not complete yet. All places count from the first byte of the head.
#[derive(Debug, Default)]
pub(super) struct Progress {
    stage: Stage,
    /// Where the line under way begins.
    line: usize,
    /// Up to where a line end was looked for.
    seen: usize,
    fields: usize,
    version: Version,
    /// The authority of an absolute target or of CONNECT.
    authority: Option<Range<usize>>,
    host: Option<Range<usize>>,
    length: Option<u64>,
    /// Seen: `Transfer-Encoding: chunked`.
    chunked: bool,
    /// Seen: a line `Upgrade`.
    upgrade: bool,
    /// Seen: `upgrade` in a `Connection` line.
    upgrade_option: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Stage {
    /// One empty line may come first (RFC 9112 2.2), more may not.
    #[default]
    Start,
    RequestLine,
    Fields,
}

impl Progress {
    /// Goes on with the same bytes as before and more behind them.
    pub(super) fn advance(&mut self, bytes: &[u8], limits: &StrictLimits) -> Verdict {
        match self.lines(bytes, limits) {
            Ok(Some(head)) => Verdict::Whole(head),
            Ok(None) => Verdict::Partial,
            Err(violation) => Verdict::Bad(violation),
        }
    }

    fn lines(&mut self, bytes: &[u8], limits: &StrictLimits) -> Result<Option<Head>, Violation> {
        let view = &bytes[..bytes.len().min(limits.head_bytes_max)];
        loop {
            if self.stage != Stage::Fields {
                self.peek(&view[self.line..], limits)?;
            }
            let Some(feed) = memchr(b'\n', &view[self.seen..]).map(|at| self.seen + at) else {
                self.seen = view.len();
                if bytes.len() > limits.head_bytes_max {
                    return Err(Violation::new(431, "the request head is too long"));
                }
                return Ok(None);
            };
            let [line @ .., b'\r'] = &view[self.line..feed] else {
                return Err(Violation::bad("a line must end with CR LF"));
            };
            let start = self.line;
            (self.line, self.seen) = (feed + 1, feed + 1);
            match self.stage {
                Stage::Start if line.is_empty() => self.stage = Stage::RequestLine,
                Stage::Start | Stage::RequestLine => {
                    self.request_line(line, start)?;
                    self.stage = Stage::Fields;
                }
                Stage::Fields if line.is_empty() => return self.end(view).map(Some),
                Stage::Fields => self.field(line, start, limits)?,
            }
        }
    }

    /// What can be said of a request line before it is complete: garbage (a TLS hello, say) is answered at once, and
    /// a target that is too long has its own status. It says the same of every longer prefix of the same bytes.
    fn peek(&self, line: &[u8], limits: &StrictLimits) -> Result<(), Violation> {
        if self.stage == Stage::Start && matches!(line, [b'\r'] | [b'\r', b'\n', ..]) {
            return Ok(());
        }
        let method = field::span(&line[..line.len().min(METHOD_BYTES_MAX + 1)], TOKEN);
        if method > METHOD_BYTES_MAX {
            return Err(Violation::new(501, "the method is too long to be one that anybody knows"));
        }
        let target = match line.get(method) {
            None => return Ok(()),
            Some(b' ') if method > 0 => &line[method + 1..],
            Some(_) => return Err(Violation::bad("a request must begin with a method and one space")),
        };
        let most = limits.target_bytes_max;
        if target.len() > most && memchr3(b' ', b'\r', b'\n', &target[..=most]).is_none() {
            return Err(Violation::new(414, "the request target is too long"));
        }
        Ok(())
    }

    fn request_line(&mut self, line: &[u8], start: usize) -> Result<(), Violation> {
        const BAD: Violation = Violation::bad("a request line must be `METHOD target HTTP/1.1`");
        let method_end = memchr(b' ', line).ok_or(BAD)?;
        let (method, rest) = (&line[..method_end], &line[method_end + 1..]);
        let target_end = memchr(b' ', rest).ok_or(BAD)?;
        let (target, version) = (&rest[..target_end], &rest[target_end + 1..]);
        self.version = match version {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(Violation::new(505, "only HTTP/1.1 and HTTP/1.0 are spoken here"));
            }
            _ => return Err(BAD),
        };
        let shift = start + method_end + 1;
        self.authority = authority(method, target)?.map(|found| found.start + shift..found.end + shift);
        Ok(())
    }

    fn field(&mut self, line: &[u8], start: usize, limits: &StrictLimits) -> Result<(), Violation> {
        if self.fields == limits.fields_max {
            return Err(rules::TOO_MANY_FIELDS);
        }
        self.fields += 1;
        let name_end = field::span(line, NAME);
        match line.get(name_end) {
            Some(b':') if name_end > 0 => {}
            Some(b' ' | b'\t') if name_end == 0 => {
                return Err(Violation::bad("a header line must not begin with a blank"));
            }
            Some(b' ' | b'\t') => {
                return Err(Violation::bad("a header name must not be followed by a blank"));
            }
            Some(b'_') => return Err(Violation::bad("a header name must not hold an underscore")),
            _ => return Err(Violation::bad("a header line must be `Name: value`")),
        }
        let (name, value) = (&line[..name_end], &line[name_end + 1..]);
        if !field::value_is_clean(value) {
            return Err(Violation::bad("a header value holds a control character"));
        }
        // By length first: of the names that matter here no two have the same.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(start + name_end + 1, value),
            6 if name.eq_ignore_ascii_case(b"expect") => rules::expect(field::trim(value)),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                if field::connection(field::trim(value))? == Options::Upgrade {
                    self.upgrade_option = true;
                }
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(field::trim(value)),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.transfer_encoding(field::trim(value))
            }
            _ => Ok(()),
        }
    }

    fn host(&mut self, value_start: usize, value: &[u8]) -> Result<(), Violation> {
        if self.host.is_some() {
            return Err(rules::HOST_TWICE);
        }
        let host = field::trim(value);
        if !field::host_is_clean(host) {
            return Err(Violation::bad("Host must be one host name or address, and at most one port"));
        }
        let blanks = value.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let from = value_start + blanks;
        self.host = Some(from..from + host.len());
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Violation> {
        if self.length.is_some() {
            return Err(Violation::bad("Content-Length must be given once"));
        }
        self.length = Some(field::length(value)?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Violation> {
        if self.version == Version::Http10 {
            return Err(Violation::bad("HTTP/1.0 has no Transfer-Encoding"));
        }
        if self.chunked {
            return Err(Violation::bad("Transfer-Encoding must be given once"));
        }
        field::coding(value)?;
        self.chunked = true;
        Ok(())
    }

    /// The rules that need the whole head.
    fn end(&self, head: &[u8]) -> Result<Head, Violation> {
        let body = match (self.length, self.chunked) {
            (Some(_), true) => {
                return Err(Violation::bad("Content-Length and Transfer-Encoding exclude each other"));
            }
            (None, true) => Body::Chunked,
            (length, false) => Body::Length(length.unwrap_or(0)),
        };
        if self.host.is_none() && self.version == Version::Http11 {
            return Err(rules::HOST_MISSING);
        }
        if let (Some(authority), Some(host)) = (&self.authority, &self.host)
            && !head[authority.clone()].eq_ignore_ascii_case(&head[host.clone()])
        {
            return Err(rules::HOSTS_DIFFER);
        }
        // HTTP/1.0 cannot be upgraded (RFC 9110 7.8), and neither can a hop that was not told so by `Connection`.
        let wish = match (self.version, self.upgrade, self.upgrade_option) {
            (Version::Http11, true, true) => Wish::Upgrade,
            _ => Wish::Stay,
        };
        Ok(Head { len: self.line, body, version: self.version, wish })
    }
}

/// Checks the target in the form that its method asks for (RFC 9112 3.2); where it names an authority, says where.
fn authority(method: &[u8], target: &[u8]) -> Result<Option<Range<usize>>, Violation> {
    const BAD: Violation = Violation::bad("the request target is malformed");
    match target {
        _ if method == b"CONNECT" => {
            let good = field::host_and_port_is_clean(target) && http::Uri::try_from(target).is_ok();
            if good { Ok(Some(0..target.len())) } else { Err(BAD) }
        }
        [b'/', ..] if field::path_is_clean(target) => Ok(None),
        b"*" if method == b"OPTIONS" => Ok(None),
        _ => {
            let scheme = [b"http://".as_slice(), b"https://"]
                .into_iter()
                .find(|scheme| {
                    target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
                })
                .ok_or(BAD)?
                .len();
            let rest = &target[scheme..];
            let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
            // hyper parses the target once more, and counts the colons of an address differently: only what both
            // of us take may pass, so that it is we who answer.
            let good = field::host_is_clean(&rest[..end])
                && field::path_is_clean(&rest[end..])
                && http::Uri::try_from(target).is_ok();
            if good { Ok(Some(scheme..scheme + end)) } else { Err(BAD) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::LIMITS, *};

    fn status_of(bytes: &[u8]) -> u16 {
        match super::head(bytes, &LIMITS) {
            Verdict::Partial => 0,
            Verdict::Whole(_) => 200,
            Verdict::Bad(violation) => violation.status,
        }
    }

    /// A request with these lines between the request line and the empty line.
    fn with(lines: &str) -> Vec<u8> {
        format!("POST /take HTTP/1.1\r\nHost: shop\r\n{lines}\r\n").into_bytes()
    }

    #[test]
    fn an_honest_head_passes() {
        let heads: [&[u8]; 16] = [
            b"GET / HTTP/1.1\r\nHost: shop.example:8080\r\n\r\n",
            b"\r\nGET / HTTP/1.1\r\nHost: shop\r\n\r\n",
            b"post /a?b={}|[]&c=%22 HTTP/1.1\r\nhost:shop\r\nX:\t v \t\r\nEmpty:\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: shop\r\n\r\n",
            b"GET http://Shop/x HTTP/1.1\r\nHost: shop\r\n\r\n",
            b"GET HTTPS://shop:443?x HTTP/1.1\r\nHost: shop:443\r\n\r\n",
            b"CONNECT shop:443 HTTP/1.1\r\nHost: shop:443\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: shop\r\nX-Name: caf\xc3\xa9\xff\r\n\r\n",
            b"PUT / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\n",
            b"PUT / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding:  Chunked \r\n\r\n",
            b"PUT / HTTP/1.1\r\nHost: shop\r\nExpect: 100-Continue\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: X-Hop, TE\r\nConnection: close\r\n\r\n",
            b"GET //evil/%2e%2e HTTP/1.1\r\nHost: shop\r\n\r\n",
        ];
        for head in heads {
            match super::head(head, &LIMITS) {
                Verdict::Whole(found) => assert_eq!(found.len, head.len()),
                other => panic!("{}: {other:?}", head.escape_ascii()),
            }
        }
    }

    /// Cases 1 to 29 of the adversarial table that are about a head, by number.
    #[test]
    fn a_head_that_two_servers_could_read_differently_is_refused() {
        let lines: [(u16, &str, u16); 52] = [
            (1, "Content-Length: 5\r\nContent-Length: 6\r\n", 400),
            (1, "Content-Length: 5, 6\r\n", 400),
            (2, "Content-Length: 5\r\nContent-Length: 5\r\n", 400),
            (2, "Content-Length: 5, 5\r\n", 400),
            (3, "Content-Length: +5\r\n", 400),
            (3, "Content-Length: -5\r\n", 400),
            (3, "Content-Length: 0x5\r\n", 400),
            (3, "Content-Length: 5 5\r\n", 400),
            (3, "Content-Length: 1_0\r\n", 400),
            (3, "Content-Length:\r\n", 400),
            (3, "Content-Length: \u{b2}\r\n", 400),
            (4, "Content-Length: 18446744073709551621\r\n", 400),
            (5, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
            (5, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400),
            (6, "Transfer-Encoding: chunked, chunked\r\n", 400),
            (6, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
            (6, "Transfer-Encoding: , chunked\r\n", 400),
            (7, "Transfer-Encoding: gzip, chunked\r\n", 501),
            (7, "Transfer-Encoding: identity\r\n", 501),
            (7, "Transfer-Encoding: xchunked\r\n", 501),
            (7, "Transfer-Encoding: \"chunked\"\r\n", 400),
            (7, "Transfer-Encoding: chunked;q=1\r\n", 400),
            (9, "Content-Length : 5\r\n", 400),
            (9, "Transfer-Encoding\t: chunked\r\n", 400),
            (9, " Content-Length: 5\r\n", 400),
            (10, "X: a\r\n Transfer-Encoding: chunked\r\n", 400),
            (10, "X: a\r\n\tb\r\n", 400),
            (11, "X: a\rb\r\n", 400),
            (11, "X: a\0b\r\n", 400),
            (11, "X: a\x0bb\r\n", 400),
            (11, "X: a\x0cb\r\n", 400),
            (11, "X: a\x7fb\r\n", 400),
            (11, "X\u{e4}: a\r\n", 400),
            (11, "Transfer-Encoding: \x0bchunked\r\n", 400),
            (11, ": a\r\n", 400),
            (11, "no colon\r\n", 400),
            (12, "X: a\nY: b\r\n", 400),
            (18, "Host: shop\r\n", 400),
            (22, "Connection: Host\r\n", 400),
            (22, "Connection: close, Cookie\r\n", 400),
            (22, "Connection: Idempotency-Key\r\n", 400),
            (22, "Connection: X-Forwarded-For\r\n", 400),
            (22, "Connection: Content-Length\r\n", 400),
            (22, "Connection: Transfer-Encoding\r\n", 400),
            (22, "Connection: X-Request-Id\r\n", 400),
            (25, "Expect: tea\r\n", 417),
            (25, "Expect: 100-continue, tea\r\n", 417),
            (25, "Expect:\r\n", 417),
            (29, "Content_Length: 5\r\n", 400),
            (29, "Transfer_Encoding: chunked\r\n", 400),
            (29, "Idempotency_Key: 1\r\n", 400),
            (29, "X_Forwarded_For: 1\r\n", 400),
        ];
        for (case, lines, status) in lines {
            assert_eq!(status_of(&with(lines)), status, "case {case}: {lines:?}");
        }
    }

    #[test]
    fn a_request_line_that_is_not_exact_is_refused() {
        let heads: [(u16, &str, u16); 33] = [
            (17, "GET  / HTTP/1.1", 400),
            (17, "GET /  HTTP/1.1", 400),
            (17, "GET\t/ HTTP/1.1", 400),
            (17, "GET /\tHTTP/1.1", 400),
            (17, "GET / HTTP/1.1 ", 400),
            (17, " GET / HTTP/1.1", 400),
            (17, "GET /", 400),
            (17, "GET / HTTP/2.0", 505),
            (17, "GET / HTTP/1.2", 505),
            (17, "GET / HTTP/1.10", 400),
            (17, "GET / http/1.1", 400),
            (17, "GET / HTTP/1,1", 400),
            (17, "PRI * HTTP/2.0", 505),
            (17, "G\u{e9}T / HTTP/1.1", 400),
            (17, "G@T / HTTP/1.1", 400),
            (17, "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGH / HTTP/1.1", 501),
            (20, "GET shop:80 HTTP/1.1", 400),
            (20, "GET * HTTP/1.1", 400),
            (20, "GET @x/p HTTP/1.1", 400),
            (20, "GET file:///etc/passwd HTTP/1.1", 400),
            (20, "GET ftp://shop/ HTTP/1.1", 400),
            (20, "CONNECT / HTTP/1.1", 400),
            (20, "CONNECT shop HTTP/1.1", 400),
            (20, "CONNECT u@shop:80 HTTP/1.1", 400),
            (19, "GET http://other/ HTTP/1.1", 400),
            (19, "GET http://u@shop/ HTTP/1.1", 400),
            (19, "GET http:///x HTTP/1.1", 400),
            (21, "GET /a#b HTTP/1.1", 400),
            (21, "GET /a?b#c HTTP/1.1", 400),
            (21, "GET /a\u{e4} HTTP/1.1", 400),
            (21, "GET /a\x01 HTTP/1.1", 400),
            (21, "GET /a\x7f HTTP/1.1", 400),
            (21, "GET /a\rb HTTP/1.1", 400),
        ];
        for (case, line, status) in heads {
            let head = format!("{line}\r\nHost: shop\r\n\r\n");
            assert_eq!(status_of(head.as_bytes()), status, "case {case}: {line:?}");
        }
    }

    #[test]
    fn a_host_that_is_not_one_server_is_refused() {
        for host in ["", "a,b", "u@h", "a/b", "a:x", "a:65536", "a:", "a b", "[::1", "a\t"] {
            let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(
                status_of(head.as_bytes()),
                if host == "a\t" { 200 } else { 400 },
                "case 18: {host:?}"
            );
        }
        assert_eq!(status_of(b"GET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status_of(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status_of(b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    }

    #[test]
    fn garbage_is_refused_before_its_line_ends() {
        assert_eq!(status_of(b"\x16\x03\x01"), 400);
        assert_eq!(status_of(b"\r\n\r"), 400);
        assert_eq!(status_of(b"\n"), 400);
        assert_eq!(status_of(b"\rG"), 400);
        assert_eq!(status_of(b"GET / HTTP/1.1\n"), 400);
        assert_eq!(status_of(b"GET /\r\n"), 400);
        assert_eq!(status_of(b"GET / HTTP/1.1\r\nHost: a\n"), 400);
        assert_eq!(status_of(b"GET / HTTP/1.1\r\nHost: a\r\n\r"), 0);
    }

    #[test]
    fn a_head_has_bounds_each_with_its_status() {
        let target =
            |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(len - 1)).into_bytes();
        assert_eq!(status_of(&target(1024)), 200);
        assert_eq!(status_of(&target(1025)), 414);
        assert_eq!(status_of(&target(1025)[..1030]), 414);

        let head = |len: usize| {
            let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(len - frame)).into_bytes()
        };
        assert_eq!(status_of(&head(8192)), 200);
        assert_eq!(status_of(&head(8193)), 431);
        assert_eq!(status_of(&head(9000)[..8192]), 0);
        assert_eq!(status_of(&head(9000)[..8193]), 431);

        assert_eq!(status_of(&with(&"X: y\r\n".repeat(63))), 200);
        assert_eq!(status_of(&with(&"X: y\r\n".repeat(64))), 431);
    }

    #[test]
    fn a_head_says_how_its_body_is_framed_and_whether_it_wants_to_leave() {
        let framed = |lines: &str| match super::head(&with(lines), &LIMITS) {
            Verdict::Whole(head) => (head.body, head.wish),
            other => panic!("{other:?}"),
        };
        assert_eq!(framed(""), (Body::Length(0), Wish::Stay));
        assert_eq!(framed("Content-Length: 7\r\n"), (Body::Length(7), Wish::Stay));
        assert_eq!(framed("Transfer-Encoding: chunked\r\n"), (Body::Chunked, Wish::Stay));
        assert_eq!(framed("Upgrade: websocket\r\n"), (Body::Length(0), Wish::Stay));
        assert_eq!(framed("Upgrade: a\r\nConnection: x, upgrade\r\n"), (Body::Length(0), Wish::Upgrade));
        let old = b"POST / HTTP/1.0\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n";
        assert!(matches!(super::head(old, &LIMITS), Verdict::Whole(head) if head.wish == Wish::Stay));
    }
}
