//! Case 30: thousands of valid requests with a few bytes of harm in them.
//!
//! The oracle is the strict reader: of the bytes that a client sent it says which requests they are, up to the first
//! that is none. What the shop got must be some of these, in their order, each with the same method, target, fields and
//! body. That the gate refuses more than the oracle does is its right; that it lets through more is the bug.

use std::{collections::VecDeque, time::Duration};

use rand::{RngExt as _, SeedableRng, rngs::SmallRng};

use super::{
    client::Raw,
    stage::Stage,
    strict::{self, Request, Side},
};

/// In a debug build on a busy machine this takes a few seconds. `HOSTILE_MUTANTS=100000` for a long run, and
/// `HOSTILE_SEED` for another one.
const MUTANTS: usize = 2500;

const SEEDS: &[&[u8]] = &[
    b"GET /page?a=b HTTP/1.1\r\nHost: shop.example\r\nX-One: 1\r\nAccept: */*\r\n\r\n",
    b"POST /checkout HTTP/1.1\r\nHost: shop.example\r\nCookie: session=anna\r\nContent-Length: 11\r\n\r\na=b&c=d&e=f",
    b"POST /checkout HTTP/1.1\r\nHost: shop.example\r\nCookie: session=ben\r\nTransfer-Encoding: chunked\r\n\r\n5\r\na=b&c\r\n3;x=y\r\n=d&\r\n0\r\n\r\n",
    b"POST /other HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n",
    b"PUT /other HTTP/1.1\r\nHost: shop.example\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{\"a\":\"b\"}",
    b"POST /other HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 60\r\n\r\nGET /admin HTTP/1.1\r\nHost: shop.example\r\nX-Long: 12345678\r\n\r\n",
    b"GET http://shop.example/page HTTP/1.1\r\nHost: shop.example\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\r\n",
    b"GET /old HTTP/1.0\r\nHost: shop.example\r\nConnection: keep-alive\r\n\r\n",
    b"POST /other HTTP/1.1\r\nHost: shop.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\na=b",
    b"GET /chat HTTP/1.1\r\nHost: shop.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
];

const HARM: &[&[u8]] = &[
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b"0",
    b"5",
    b"_",
    b"%",
    b"#",
    b"/",
    b"\"",
    b"\r\n ",
    b"\r\n\t",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length:\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer_Encoding: chunked\r\n",
    b" Transfer-Encoding: chunked\r\n",
    b"Host: evil.example\r\n",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"chunked",
    b"0\r\n\r\n",
    b"GET /admin HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    b"+",
    b"0x",
    b"Connection: close\r\n",
    b"Connection: Content-Length\r\n",
    b"Upgrade: h2c\r\nConnection: Upgrade\r\n",
];

/// Every request in it says of which turn it is.
fn mutant(turn: usize, random: &mut SmallRng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.random_range(1..=3) {
        let seed = SEEDS[random.random_range(0..SEEDS.len())];
        let line = seed.iter().position(|&byte| byte == b'\n').map_or(0, |feed| feed + 1);
        bytes.extend_from_slice(&seed[..line]);
        bytes.extend_from_slice(format!("X-Turn: {turn}\r\n").as_bytes());
        bytes.extend_from_slice(&seed[line..]);
    }
    for _ in 0..random.random_range(1..=3) {
        harm(&mut bytes, random);
    }
    bytes
}

fn harm(bytes: &mut Vec<u8>, random: &mut SmallRng) {
    if bytes.is_empty() {
        return;
    }
    let at = random.random_range(0..bytes.len());
    let piece = HARM[random.random_range(0..HARM.len())];
    // Where a line begins, since most of what harms is a line.
    let line = bytes[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |feed| feed + 1);
    let line_end =
        bytes[at..].iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |feed| at + feed + 1);
    match random.random_range(0..9) {
        0 => bytes[at] = random.random(),
        1 => bytes[at] ^= 1 << random.random_range(0..8),
        2 => drop(bytes.splice(at..at, piece.iter().copied())),
        3 | 4 => drop(bytes.splice(line..line, piece.iter().copied())),
        5 => drop(bytes.drain(at..(at + random.random_range(1..8)).min(bytes.len()))),
        6 => drop(bytes.drain(line..line_end)),
        7 => {
            let copy = bytes[line..line_end].to_vec();
            drop(bytes.splice(line..line, copy));
        }
        _ => bytes.truncate(at),
    }
}

/// What a proxy adds, makes anew, or takes for itself. All else has to be as it came.
fn is_ours(name: &str) -> bool {
    const OURS: [&str; 14] = [
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "forwarded",
        "via",
        "x-request-id",
        "traceparent",
        "oncegate-fence",
        "accept-encoding",
        "upgrade",
        "x-real-ip",
        "tracestate",
        "expect",
    ];
    OURS.contains(&name) || name.starts_with("x-forwarded-")
}

/// Whether the shop's request is the client's.
fn is_same(shop: &Request, client: &Request) -> bool {
    let target = match client.target.strip_prefix('/') {
        Some(_) => client.target.clone(),
        None if client.target == "*" => "*".to_owned(),
        None => {
            let rest = client.target.split_once("://").map_or("", |(_, rest)| rest);
            let from = rest.find(['/', '?']).unwrap_or(rest.len());
            let (slash, rest) = (if rest[from..].starts_with('/') { "" } else { "/" }, &rest[from..]);
            format!("{slash}{rest}")
        }
    };
    let added = |(name, value): &&(String, Vec<u8>)| {
        !is_ours(name) && !client.fields.iter().any(|(known, own)| known == name && own == value)
    };
    let host = client.field("host").or(Some(String::new()));
    shop.method == client.method
        && shop.target == target
        && shop.body == client.body
        && (shop.field("host") == host || client.version == "HTTP/1.0")
        && shop.fields.iter().find(added).is_none()
}

/// Takes a request that the shop got from those that were sent. False where it is none of them, or comes once more.
fn take(sent: &mut [Vec<Request>], got: &Request) -> bool {
    sent.iter_mut().any(|sent| {
        let found = sent.iter().position(|sent| is_same(got, sent));
        found.map(|at| sent.remove(at)).is_some()
    })
}

#[test]
fn what_a_mutant_brings_to_the_shop_is_what_a_strict_reader_finds_in_it() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let mutants =
        number("HOSTILE_MUTANTS").map_or(MUTANTS, |count| usize::try_from(count).unwrap_or(MUTANTS));
    let seed = number("HOSTILE_SEED").unwrap_or(20);
    let mut random = SmallRng::seed_from_u64(seed);
    let mut stage = Stage::new();
    let (mut clean, mut refused) = (0, 0);
    let mut recent: VecDeque<Vec<Request>> = VecDeque::new();
    for turn in 0..mutants {
        let bytes = mutant(turn, &mut random);
        let cuts: Vec<usize> = match random.random_range(0..3) {
            0 => vec![random.random_range(0..=bytes.len())],
            _ => Vec::new(),
        };
        let mark = stage.shop.mark();
        let mut raw = Raw::connect(stage.gate);
        raw.send_cut(&bytes, &cuts);
        // A whole request is answered at once; half of one would be waited for until its timeout, so the end is said.
        let _ = raw.glance(Duration::from_millis(3));
        raw.finish();
        let bad = raw.ending().iter().any(|status| *status >= 400);
        stage.shop.wait_until_quiet();
        let got = stage.shop.since(mark);
        // A client that has left says nothing of when its request arrives: it may be a few turns later.
        recent.push_back(strict::all(&bytes, Side::Client));
        if recent.len() > 20 {
            recent.pop_front();
        }
        let shown = String::from_utf8_lossy(&bytes);
        let sent = recent.make_contiguous();
        assert!(
            got.iter().all(|got| take(sent, got)),
            "seed {seed}, mutant {turn}: of {shown:?}\nthe shop got {got:#?}"
        );
        clean += got.len();
        refused += usize::from(bad);
        if turn % 200 == 0 {
            stage.check(&format!("mutant {turn} of seed {seed}: {shown:?}"));
        }
        assert_eq!(stage.shop.unclean(), [], "seed {seed}, mutant {turn}: {shown:?}");
    }
    stage.check("the last mutant");
    // Neither kind may be rare, or the run has shown nothing.
    assert!(clean > mutants / 4 && refused > mutants / 4, "{clean} went through, {refused} were refused");
}

#[test]
fn the_oracle_itself_tells_requests_apart() {
    let sent = strict::all(&[SEEDS[1], SEEDS[3]].concat(), Side::Client);
    assert_eq!(sent.len(), 2);
    let mut left = [sent.clone()];
    assert!(take(&mut left, &sent[1]) && take(&mut left, &sent[0]));
    assert!(!take(&mut left, &sent[0]), "it was sent once");
    let body = Request { body: b"x".to_vec(), ..sent[1].clone() };
    let target = Request { target: "/admin".to_owned(), ..sent[1].clone() };
    let mut field = sent[0].clone();
    field.fields.push(("cookie".to_owned(), b"session=eve".to_vec()));
    for other in [body, target, field] {
        assert!(!take(&mut [sent.clone()], &other));
    }
    let hidden =
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(strict::all(hidden, Side::Client), []);
}
