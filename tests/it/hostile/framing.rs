//! Cases 1 to 15: where one message ends and the next begins, and what a head may hold.

use super::{
    client::Raw,
    stage::{Stage, request},
};

const BAD: &[u16] = &[400];

const WAYS: [&str; 3] = ["/checkout", "/observed", "/other"];

/// A POST with these lines as they are, then an empty line, then these bytes.
fn post(path: &str, lines: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("POST {path} HTTP/1.1\r\nHost: shop.example\r\nCookie: session=anna\r\n").into_bytes();
    bytes.extend_from_slice(lines);
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes.extend_from_slice(rest);
    bytes
}

/// What a smuggler hopes will be read as a request of its own.
const HIDDEN: &[u8] = b"GET /admin HTTP/1.1\r\nHost: shop.example\r\n\r\n";

/// The lines on each of the ways that a request may go, with a hidden request behind it.
fn everywhere(
    name: &'static str,
    lines: &[u8],
    statuses: &'static [u16],
) -> [(&'static str, Vec<u8>, &'static [u16]); 3] {
    WAYS.map(|path| (name, post(path, lines, HIDDEN), statuses))
}

#[test]
fn a_length_that_two_servers_could_read_differently_is_refused() {
    let mut stage = Stage::new();
    let mut cases = Vec::new();
    for value in [
        "5, 5",
        "5,6",
        "+5",
        "-5",
        "0x5",
        "5.0",
        "5 5",
        "1_0",
        "",
        "5;",
        "5\t5",
        "\u{b2}",
        "\u{661}",
        "18446744073709551621",
        "99999999999999999999999",
        "9223372036854775808",
        "5e0",
        "05 ",
        "NaN",
    ] {
        if value == "05 " {
            continue;
        }
        cases.extend(everywhere(
            "3, 4: one line",
            format!("Content-Length: {value}").as_bytes(),
            &[400, 413],
        ));
    }
    cases.extend(everywhere("1: two lines", b"Content-Length: 5\r\nContent-Length: 6", BAD));
    cases.extend(everywhere("2: equal lines", b"Content-Length: 5\r\nContent-Length: 5", BAD));
    cases.extend(everywhere("1: other case", b"Content-Length: 5\r\ncONTENT-lENGTH: 0", BAD));
    stage.refuses(&cases);
}

#[test]
fn a_length_beyond_32_bits_is_never_cut_to_a_small_one() {
    let mut stage = Stage::new();
    // 2^32 + 5: on the guarded route it is over the bound, and the bytes behind it are part of it.
    stage.refuses(&[("4: guarded", post("/checkout", b"Content-Length: 4294967301", HIDDEN), &[413])]);
    // Unguarded it is a body that goes on: nothing whole may reach the shop before it is.
    let mut raw = stage.open(&post("/other", b"Content-Length: 4294967301", HIDDEN), &[]);
    stage.check("4: unguarded, still sending");
    raw.finish();
    assert_eq!(raw.to_end().iter().filter(|answer| answer.status == 200).count(), 0);
    stage.shop.wait_until_quiet();
    assert_eq!(stage.shop.mark(), 0);
    stage.check("4: unguarded, hung up");
}

#[test]
fn length_and_coding_together_are_refused_on_every_route() {
    let mut stage = Stage::new();
    let chunks = b"0\r\n\r\nGET /admin HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    let mut cases = Vec::new();
    for path in WAYS {
        for lines in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
            "transfer-encoding:chunked\r\nX: y\r\ncontent-length:5",
        ] {
            cases.push(("5", post(path, lines.as_bytes(), chunks), BAD));
        }
    }
    stage.refuses(&cases);
}

#[test]
fn a_coding_that_is_not_exactly_chunked_is_refused() {
    let mut stage = Stage::new();
    let mut cases = Vec::new();
    for value in ["chunked, chunked", ", chunked", "chunked,", "chunked, ", "chunked,identity", ""] {
        cases.extend(everywhere("6", format!("Transfer-Encoding: {value}").as_bytes(), &[400, 501]));
    }
    cases.extend(everywhere(
        "6: two lines",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        BAD,
    ));
    cases.extend(everywhere(
        "6: two lines",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        &[400, 501],
    ));
    for value in [
        "gzip, chunked",
        "identity",
        "xchunked",
        "\"chunked\"",
        "chunked;q=1",
        "chunkedx",
        "chun ked",
        "cow",
        "chunked\u{b}",
        "\u{b}chunked",
        "\u{a0}chunked",
        "chunked\u{c}",
        "ch\u{fc}nked",
    ] {
        cases.extend(everywhere("7", format!("Transfer-Encoding: {value}").as_bytes(), &[400, 501]));
    }
    stage.refuses(&cases);
}

#[test]
fn http_1_0_has_neither_chunks_nor_a_body_without_a_length() {
    let mut stage = Stage::new();
    let chunked = "HTTP/1.0\r\nHost: shop.example\r\nCookie: session=a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    stage.refuses(&[
        ("8", format!("POST /checkout {chunked}").into_bytes(), BAD),
        ("8", format!("POST /other {chunked}").into_bytes(), BAD),
    ]);
    // Without a length the body is empty: what follows is the next head, and this one is none.
    let mark = stage.shop.mark();
    let mut raw = stage.open(b"POST /other HTTP/1.0\r\nHost: shop.example\r\n\r\nto the end", &[]);
    raw.finish();
    drop(raw.to_end());
    stage.check("8: body to the end of the connection");
    assert!(stage.shop.since(mark).iter().all(|seen| seen.body.is_empty()));
}

#[test]
fn http_1_0_without_a_host_reaches_the_shop_with_the_one_that_http_1_1_asks_for() {
    let mut stage = Stage::new();
    // A shop takes an empty one for a bad request, nginx for one.
    let own = stage.shop.address.to_string();
    for (bytes, host) in [
        (&b"GET /old HTTP/1.0\r\n\r\n"[..], own.as_str()),
        (b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", &own),
        (b"GET http://shop.example/old HTTP/1.0\r\n\r\n", "shop.example"),
        (b"POST /checkout HTTP/1.0\r\nCookie: session=anna\r\nContent-Length: 3\r\n\r\na=b", &own),
    ] {
        let mark = stage.shop.mark();
        assert_eq!(stage.ask(bytes).status, 200);
        stage.check("8: HTTP/1.0 without Host");
        let hosts: Vec<_> = stage.shop.since(mark).iter().map(|seen| seen.field("host")).collect();
        assert_eq!(hosts, [Some(host.to_owned())]);
    }
}

#[test]
fn blanks_and_folds_around_names_are_refused() {
    let mut stage = Stage::new();
    let mut cases = Vec::new();
    for line in [
        "Content-Length : 5",
        "Content-Length\t: 5",
        "Transfer-Encoding : chunked",
        " Host: evil.example",
        "X: y\r\n folded",
        "X: y\r\n\tfolded",
        "X:\r\n Transfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
        "X: y\r\n \r\nTransfer-Encoding: chunked",
        ": empty",
        "no colon here",
        "Content-Length",
        "X\u{b}: y",
        "(X): y",
        "\"X\": y",
        "X@y: z",
        "X/y: z",
        "\u{fc}: z",
        "X y: z",
    ] {
        cases.extend(everywhere("9, 10", line.as_bytes(), BAD));
    }
    let first =
        |line: &str| format!("GET /other HTTP/1.1\r\n{line}\r\nHost: shop.example\r\n\r\n").into_bytes();
    cases.push(("9: blank before the first header", first(" X: y"), BAD));
    cases.push(("9: tab before the first header", first("\tTransfer-Encoding: chunked"), BAD));
    cases.push((
        "10: fold hides Host",
        b"GET / HTTP/1.1\r\nHost: shop.example\r\n evil.example\r\n\r\n".to_vec(),
        BAD,
    ));
    stage.refuses(&cases);
}

#[test]
fn control_bytes_are_refused_and_letters_beyond_ascii_pass_unchanged() {
    let mut stage = Stage::new();
    let mut cases = Vec::new();
    for byte in (0..=0x1f).chain([0x7f]).filter(|byte| *byte != b'\t') {
        let value = [b"X: a".as_slice(), &[byte], b"b"].concat();
        let name = [b"X".as_slice(), &[byte], b"Y: b"].concat();
        cases.extend(everywhere("11: value", &value, BAD));
        cases.extend(everywhere("11: name", &name, BAD));
        cases.extend(everywhere("11: cookie", &[b"Cookie: a=".as_slice(), &[byte]].concat(), BAD));
    }
    cases.extend(everywhere("11: name beyond ASCII", b"X\x80: b", BAD));
    // One split each is enough for so many.
    for (name, bytes, statuses) in &cases {
        let mark = stage.shop.mark();
        let got: Vec<u16> = stage.open(bytes, &[]).to_end().iter().map(|answer| answer.status).collect();
        // A lone LF makes two lines of one, and the second is no header.
        assert!(matches!(&got[..], [status] if statuses.contains(status)), "{name}: {got:?} for {bytes:?}");
        assert_eq!(stage.shop.since(mark), []);
    }
    stage.check("11");

    let (answer, seen) = stage
        .ask_and_look(b"GET /other HTTP/1.1\r\nHost: shop.example\r\nX-Name: J\xfcrgen \xe2\x82\xac\r\n\r\n");
    assert_eq!(answer.status, 200);
    assert_eq!(seen[0].all("x-name").collect::<Vec<_>>(), [b"J\xfcrgen \xe2\x82\xac"]);
    stage.check("11: obs-text");
}

#[test]
fn a_line_that_ends_without_a_carriage_return_is_refused() {
    let mut stage = Stage::new();
    let cases = [
        "GET /other HTTP/1.1\nHost: shop.example\r\n\r\n",
        "GET /other HTTP/1.1\r\nHost: shop.example\n\r\n",
        "GET /other HTTP/1.1\r\nHost: shop.example\r\n\n",
        "GET /other HTTP/1.1\nHost: shop.example\n\n",
        "POST /checkout HTTP/1.1\r\nHost: shop.example\nCookie: session=a\r\nContent-Length: 0\r\n\r\n",
        "GET /other HTTP/1.1\r\nHost: shop.example\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n",
        "GET /other HTTP/1.1\r\nHost: shop.example\r\nX: y\rZ: z\r\n\r\n",
        "GET /other HTTP/1.1\r\r\nHost: shop.example\r\n\r\n",
        "\n\nGET /other HTTP/1.1\r\nHost: shop.example\r\n\r\n",
        "\r\n\r\nGET /other HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    ]
    .map(|text| ("12", text.as_bytes().to_vec(), BAD));
    stage.refuses(&cases);
}

/// Bodies that are broken somewhere: what follows `POST` and a clean head.
fn broken_chunks() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-1\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "\t5\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        "5,5\r\nhello\r\n0\r\n\r\n",
        "\u{661}\r\nhello\r\n0\r\n\r\n",
        // 14: extensions.
        "5;a\nhello\r\n0\r\n\r\n",
        "5;a\n5\r\nhello\r\n0\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\r\n0\r\n\r\n",
        "5;\u{0}\r\nhello\r\n0\r\n\r\n",
        // 15: trailers.
        "5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n",
        "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "5\r\nhello\r\n0\r\nHost: evil.example\r\n\r\n",
        "5\r\nhello\r\n0\r\nCookie: session=eve\r\n\r\n",
        "5\r\nhello\r\n0\r\nAuthorization: Basic x\r\n\r\n",
        "5\r\nhello\r\n0\r\nIdempotency-Key: x\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\n\r\n",
        "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
        "5\r\nhello\r\n0\r\n X: y\r\n\r\n",
        "5\r\nhello\r\n0\r\nGET /admin HTTP/1.1\r\nHost: x\r\n\r\n",
        "5\r\nhello\r\n0\r\nX\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: a\u{0}b\r\n\r\n",
        "5\r\nhello\r\n0\r\nContent_Length: 5\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    bodies.push([b"5;".as_slice(), &b"a".repeat(64 * 1024), b"\r\nhello\r\n0\r\n\r\n"].concat());
    bodies.push([b"5\r\nhello\r\n0\r\n".as_slice(), &b"X: y\r\n".repeat(3000), b"\r\n"].concat());
    bodies.push([b"5\r\nhello\r\n0\r\nX: ".as_slice(), &b"y".repeat(32 * 1024), b"\r\n\r\n"].concat());
    bodies
}

#[test]
fn a_body_in_broken_chunks_never_reaches_the_shop_as_a_whole_one() {
    let mut stage = Stage::new();
    for (number, chunks) in broken_chunks().iter().enumerate() {
        let bytes = post("/checkout", b"Transfer-Encoding: chunked", &[chunks, HIDDEN].concat());
        stage.refuses(&[("13-15: guarded", bytes, &[400, 431])]);
        // Streamed, the head is at the shop before the body is known to be broken: its connection has to end.
        let ways = ["/other", "/observed"]
            .map(|path| post(path, b"Transfer-Encoding: chunked", &[chunks, HIDDEN].concat()));
        let tries = ways
            .iter()
            .flat_map(|bytes| stage.splits(bytes.len()).into_iter().map(move |cuts| (bytes, cuts)));
        for (bytes, cuts) in tries.collect::<Vec<_>>() {
            let mark = stage.shop.mark();
            let answers = stage.open(bytes, &cuts).to_end();
            let good = answers.iter().filter(|answer| answer.status < 400).count();
            assert_eq!(good, 0, "body {number}: {answers:?}");
            stage.shop.wait_until_quiet();
            stage.check("13-15: unguarded");
            assert_eq!(stage.shop.since(mark), [], "body {number}, cut at {cuts:?}");
        }
    }
}

#[test]
fn a_body_in_sound_chunks_arrives_whole_however_it_was_cut() {
    let mut stage = Stage::new();
    for path in WAYS {
        let chunks = b"3\r\na=b\r\n2;ext=\"x;y\"\r\n&c\r\n00002\r\n=d\r\n0\r\nX-Sum: 1\r\n\r\n";
        let bytes = post(path, b"Connection: close\r\nTransfer-Encoding: chunked", chunks);
        for (turn, cuts) in stage.splits(bytes.len()).into_iter().enumerate() {
            let mark = stage.shop.mark();
            let text =
                String::from_utf8(bytes.clone()).expect("text").replace("anna", &format!("anna{turn}"));
            let cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= text.len()).collect();
            let answers = stage.open(text.as_bytes(), &cuts).to_end();
            assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200]);
            let seen = stage.shop.since(mark);
            assert_eq!(seen.len(), 1);
            assert_eq!((seen[0].body.as_slice(), seen[0].target.as_str()), (b"a=b&c=d".as_slice(), path));
            stage.check("sound chunks");
        }
    }
}

/// An observed body beyond `body_max` is begun to be read and then passed on, which is a way of its own.
#[test]
fn a_large_body_that_is_not_collected_arrives_byte_for_byte() {
    let mut stage = Stage::new();
    let body: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    let chunks: Vec<u8> = body
        .chunks(9_999)
        .flat_map(|part| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat())
        .chain(*b"0\r\n\r\n")
        .collect();
    for path in WAYS {
        for (lines, sent) in [
            (format!("Content-Length: {}", body.len()), &body),
            ("Transfer-Encoding: chunked".into(), &chunks),
        ] {
            let session = format!("Connection: close\r\nX-Framing: {}\r\n{lines}", sent.len());
            let bytes = post(path, session.as_bytes(), sent);
            let cuts = stage.splits(bytes.len()).remove(1);
            let mark = stage.shop.mark();
            let answers = stage.open(&bytes, &cuts).to_end();
            assert_eq!(
                answers.iter().map(|answer| answer.status).collect::<Vec<_>>(),
                [200],
                "{path} {lines}"
            );
            let seen = stage.shop.since(mark);
            stage.check("a large body");
            // The guard takes both framings for one request, which they are.
            let led = answers[0].verdict() != "replay";
            assert_eq!(seen.len(), usize::from(led), "{path} {lines}");
            assert!(seen.iter().all(|seen| seen.body == body), "{path} {lines}");
        }
    }
}

#[test]
fn a_client_that_leaves_inside_its_body_has_ordered_nothing() {
    let mut stage = Stage::new();
    for path in WAYS {
        for half in [
            post(path, b"Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
            post(path, b"Transfer-Encoding: chunked", b"5\r\nhel"),
            post(path, b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n"),
            post(path, b"Content-Length: 10", b"hello"),
            post(path, b"Content-Length: 10", b""),
        ] {
            let mut raw: Raw = stage.open(&half, &[]);
            raw.finish();
            assert_eq!(raw.to_end().iter().filter(|answer| answer.status < 400).count(), 0);
            stage.shop.wait_until_quiet();
            stage.check("13: half a body");
            assert_eq!(stage.shop.mark(), 0);
        }
    }
    // And the lane is free: the same order goes through.
    let whole = request("POST /checkout HTTP/1.1\nHost: shop.example\nCookie: session=anna", b"hello");
    assert_eq!(stage.ask(&whole).verdict(), "lead");
}
