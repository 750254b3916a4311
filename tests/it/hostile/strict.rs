//! A reader of requests that takes nothing but what RFC 9112 says, written without a look at the product's own.
//!
//! It serves twice: as the ears of the recording shop, where whatever it does not take is a failed test, and as the
//! oracle of the mutants, where it says which requests the bytes of a client are.

/// How much is forgiven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// What a client may send: HTTP/1.0, an empty line before a head, chunk extensions, absolute targets.
    Client,
    /// What a proxy that is to be trusted sends: none of these, and no name with an underscore.
    Shop,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) version: String,
    /// Names in lower case, values without the blanks around them, in the order in which they came.
    pub(super) fields: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// The value of a field, as text.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    /// Whether a guard led it: a fence goes with everything that was claimed.
    pub(super) fn is_guarded(&self) -> bool {
        self.field("oncegate-fence").is_some()
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Read {
    Partial,
    /// And how many bytes it took.
    Whole(Request, usize),
    Bad(&'static str),
}

pub(super) fn read(bytes: &[u8], side: Side) -> Read {
    let mut at = 0;
    if side == Side::Client && bytes.starts_with(b"\r\n") {
        at = 2;
    }
    match head(bytes, &mut at, side) {
        Ok(None) => Read::Partial,
        Err(why) => Read::Bad(why),
        Ok(Some(mut request)) => match body(&request, &bytes[at..], side) {
            Ok(None) => Read::Partial,
            Err(why) => Read::Bad(why),
            Ok(Some((body, length))) => {
                request.body = body;
                Read::Whole(request, at + length)
            }
        },
    }
}

/// All requests at the front of `bytes` that are whole and right, up to the first that is not.
pub(super) fn all(mut bytes: &[u8], side: Side) -> Vec<Request> {
    let mut found = Vec::new();
    while let Read::Whole(request, length) = read(bytes, side) {
        found.push(request);
        bytes = &bytes[length..];
    }
    found
}

fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, &'static str> {
    let rest = &bytes[*at..];
    let Some(feed) = rest.iter().position(|&byte| byte == b'\n') else { return Ok(None) };
    let Some(line) = rest[..feed].strip_suffix(b"\r") else { return Err("a line ends with a bare LF") };
    if line.contains(&b'\r') {
        return Err("a bare CR in a line");
    }
    *at += feed + 1;
    Ok(Some(line))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn head(bytes: &[u8], at: &mut usize, side: Side) -> Result<Option<Request>, &'static str> {
    let Some(first) = line(bytes, at)? else { return Ok(None) };
    let words: Vec<&[u8]> = first.split(|&byte| byte == b' ').collect();
    let [method, target, version] = words[..] else { return Err("the request line is not three words") };
    if method.is_empty() || !method.iter().all(|&byte| is_token(byte)) {
        return Err("the method is no token");
    }
    let graphic = target.iter().all(|&byte| matches!(byte, 0x21..=0x7e) && byte != b'#');
    if target.is_empty() || !graphic {
        return Err("the target holds what no target holds");
    }
    let origin = target[0] == b'/' || (target == b"*" && method == b"OPTIONS");
    let absolute = side == Side::Client && target.len() > 7 && target[..4].eq_ignore_ascii_case(b"http");
    if !origin && !absolute {
        return Err("the target is in no form that it may have");
    }
    if version != b"HTTP/1.1" && !(side == Side::Client && version == b"HTTP/1.0") {
        return Err("the version is not one that is spoken");
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut request =
        Request { method: text(method), target: text(target), version: text(version), ..Request::default() };
    loop {
        let Some(line) = line(bytes, at)? else { return Ok(None) };
        if line.is_empty() {
            break;
        }
        request.fields.push(field(line)?);
    }
    let hosts = request.all("host").count();
    if hosts > 1 || (hosts == 0 && version == b"HTTP/1.1") {
        return Err("not exactly one Host");
    }
    if request.fields.iter().any(|(name, _)| name.contains('_')) {
        return Err("a name with an underscore, which CGI reads as another name");
    }
    Ok(Some(request))
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), &'static str> {
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return Err("a field without a colon");
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
        return Err("a field name that is no token");
    }
    if value.iter().any(|&byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f) {
        return Err("a control character in a field value");
    }
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |at| at + 1);
    Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), value[start..end].to_vec()))
}

type Body = Option<(Vec<u8>, usize)>;

fn body(request: &Request, rest: &[u8], side: Side) -> Result<Body, &'static str> {
    let lengths: Vec<&[u8]> = request.all("content-length").collect();
    let codings: Vec<&[u8]> = request.all("transfer-encoding").collect();
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Some((Vec::new(), 0))),
        ([length], []) => {
            let digits =
                std::str::from_utf8(length).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            let Some(length) = digits.and_then(|text| text.parse::<usize>().ok()) else {
                return Err("a Content-Length that is no number");
            };
            Ok(rest.get(..length).map(|body| (body.to_vec(), length)))
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && request.version == "HTTP/1.1" => {
            chunked(rest, side)
        }
        _ => Err("a framing that two readers could read differently"),
    }
}

fn chunked(rest: &[u8], side: Side) -> Result<Body, &'static str> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let Some(size) = line(rest, &mut at)? else { return Ok(None) };
        let digits = size.split(|&byte| byte == b';').next().unwrap_or_default();
        if side == Side::Shop && digits.len() != size.len() {
            return Err("a chunk extension");
        }
        let text = std::str::from_utf8(digits).ok();
        let text =
            text.filter(|text| (1..16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(size) = text.and_then(|text| usize::from_str_radix(text, 16).ok()) else {
            return Err("a chunk size that is no number");
        };
        if size == 0 {
            break;
        }
        let Some(data) = rest.get(at..).and_then(|rest| rest.get(..size)) else { return Ok(None) };
        body.extend_from_slice(data);
        at += size;
        match rest.get(at..at + 2) {
            None => return Ok(None),
            Some(b"\r\n") => at += 2,
            Some(_) => return Err("chunk data that does not end where its size says"),
        }
    }
    loop {
        let Some(trailer) = line(rest, &mut at)? else { return Ok(None) };
        if trailer.is_empty() {
            return Ok(Some((body, at)));
        }
        let (name, _) = field(trailer)?;
        let framing = ["content-length", "transfer-encoding", "host", "cookie", "authorization"];
        if framing.contains(&name.as_str()) {
            return Err("a trailer that must not be one");
        }
    }
}
