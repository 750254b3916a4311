//! Cases 47 to 53: bodies that two readers read differently, and bodies that cost more to read than to send.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
};

use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};

use super::{
    client::{Answer, Raw},
    shop::Shop,
    stage::{Stage, request},
};

const ROUTES: &str = r#"
[[route]]
name = "json"
upstream = "shop"
match = { path = "/json" }
guard = { mode = "once", order = ["json:/order_id"], identity = "none", on_no_key = "refuse" }

[[route]]
name = "form"
upstream = "shop"
match = { path = "/form" }
guard = { mode = "once", order = ["form:order_id"], identity = "none", on_no_key = "refuse" }

[[route]]
name = "lax"
upstream = "shop"
match = { path = "/lax" }
guard = { mode = "once", order = ["json:/order_id"], identity = "none" }

[[route]]
name = "everything-else"
upstream = "shop"
"#;

fn sent(path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let kind = if kind.is_empty() { String::new() } else { format!("\nContent-Type: {kind}") };
    request(&format!("POST {path} HTTP/1.1\nHost: shop.example{kind}"), body)
}

fn json(body: &str) -> Vec<u8> {
    sent("/json", "application/json", body.as_bytes())
}

fn form(body: &str) -> Vec<u8> {
    sent("/form", "application/x-www-form-urlencoded", body.as_bytes())
}

/// Refused as what it is, with nothing at the shop, and nothing the worse for it.
fn refused(stage: &mut Stage, bytes: &[u8], statuses: &[u16]) -> Answer {
    let (answer, seen) = stage.ask_and_look(bytes);
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
    assert!(statuses.contains(&answer.status), "{} for {shown:?}", answer.status);
    assert_eq!(seen, [], "{shown:?}");
    stage.check(&shown);
    answer
}

fn verdict(stage: &mut Stage, bytes: &[u8]) -> String {
    let answer = stage.ask(bytes);
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(bytes));
    stage.check("a good body");
    answer.verdict().to_owned()
}

#[test]
fn a_json_key_that_stands_twice_is_refused() {
    let mut stage = Stage::with(ROUTES);
    for body in [
        r#"{"order_id":"A","order_id":"B"}"#,
        r#"{"order_id":"A","\u006frder_id":"B"}"#,
        r#"{"\u006Frder_id":"A","order_id":"A"}"#,
        r#"{"order_id":"A","order\u005fid":{}}"#,
        r#"{"order_id":null,"order_id":"A"}"#,
        r#"{"order_id":"A", "x":1 , "order_id" : "A"}"#,
    ] {
        refused(&mut stage, &json(body), &[400]);
    }
    // An escaped spelling alone is the same key: the second is a replay.
    assert_eq!(verdict(&mut stage, &json(r#"{"order_id":"A"}"#)), "lead");
    assert_eq!(verdict(&mut stage, &json(r#"{"\u006frder_id":"\u0041"}"#)), "replay");
}

#[test]
fn numbers_are_the_text_that_they_were_sent_as() {
    let mut stage = Stage::with(ROUTES);
    for id in [
        "1",
        "1.0",
        "1e0",
        "\"1\"",
        "1.00",
        "10e-1",
        "12345678901234567890123",
        "12345678901234567890124",
        "18446744073709551616",
        "18446744073709551617",
        "0.1",
        "0.10",
        "-0",
        "0",
        "1E0",
        "9007199254740993",
        "9007199254740992",
        "1e400",
        "1e401",
    ] {
        let body = json(&format!("{{\"order_id\":{id}}}"));
        assert_eq!(verdict(&mut stage, &body), "lead", "{id}");
        assert_eq!(verdict(&mut stage, &body), "replay", "{id}");
    }
    for id in ["01", "+1", "1.", ".1", "0x1", "NaN", "Infinity", "1e", "--1", "1_0"] {
        refused(&mut stage, &json(&format!("{{\"order_id\":{id}}}")), &[400]);
    }
    // Neither of these names an order.
    for id in ["null", "{}", "[]", "\"\""] {
        refused(&mut stage, &json(&format!("{{\"order_id\":{id}}}")), &[400]);
    }
}

#[test]
fn json_that_is_a_bomb_or_no_json_is_refused() {
    let mut stage = Stage::with(ROUTES);
    let deep = |depth: usize| format!("{{\"order_id\":1,\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(verdict(&mut stage, &json(&deep(100))), "lead");
    let values = format!("{{\"order_id\":1,\"x\":[{}1]}}", "1,".repeat(300_000));
    let keys: String = (0..60_000).map(|number| format!(",\"k{number}\":1")).collect();
    for body in [
        deep(128),
        deep(129),
        deep(10_000),
        deep(400_000),
        "[".repeat(1_000_000),
        "{\"a\":".repeat(180_000),
        format!("{{\"order_id\":1{}", keys),
        values,
        "{\"order_id\":1}x".into(),
        "{\"order_id\":1}{}".into(),
        "{\"order_id\":1,}".into(),
        "{'order_id':1}".into(),
        "\u{feff}{\"order_id\":1}".into(),
        "{\"order_id\":1 /* x */}".into(),
        "{order_id:1}".into(),
        "{".into(),
        "\"".into(),
        "{\"order_id\":\"a\nb\"}".into(),
        "{\"order_id\":\"\\x\"}".into(),
        "{\"order_id\":\"\\u12\"}".into(),
        "{\"order_id\":1}\0".into(),
        "nul".into(),
        " ".into(),
        "{\"order_id\"".into(),
        "{\"order_id\":\"\0\"}".into(),
    ] {
        refused(&mut stage, &json(&body), &[400]);
    }
    let text = "{\"order_id\":1}";
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let utf32: Vec<u8> = text.chars().flat_map(|letter| u32::from(letter).to_be_bytes()).collect();
    for body in
        [utf16, utf32, b"{\"order_id\":\"\xff\"}".to_vec(), b"{\"order_id\":\"\xed\xa0\x80\"}".to_vec()]
    {
        refused(&mut stage, &sent("/json", "application/json", &body), &[400]);
    }
    for size in [(1 << 20) + 1, 10 << 20] {
        let head = format!(
            "POST /json HTTP/1.1\r\nHost: shop.example\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        );
        let mut raw = stage.open(head.as_bytes(), &[]);
        // It is over the bound by what it says of itself; nobody waits for it.
        assert_eq!(raw.answer().map(|answer| answer.status), Some(413));
        stage.check("49: too large");
    }
    // Lone surrogates: different texts stay different, whatever a shop makes of them.
    for id in ["\\ud800", "\\ud801", "\\udc00", "\\ufffd", "\\ud800\\ud800"] {
        let answer = stage.ask(&json(&format!("{{\"order_id\":\"{id}\"}}")));
        assert!(
            answer.status == 400 || answer.verdict() == "lead",
            "{id}: {} {}",
            answer.status,
            answer.verdict()
        );
    }
    stage.check("49");
}

#[test]
fn a_form_field_that_a_shop_could_read_in_two_ways_is_refused() {
    let mut stage = Stage::with(ROUTES);
    for body in [
        "order_id=1&order_id=2",
        "order_id=1&order_id=1",
        "order_id=1&order%5fid=2",
        "order_id=1&order.id=2",
        "order_id=1&order+id=2",
        "order_id=1&order%20id=2",
        "order_id[]=1&order_id=2",
        "order_id=1&order_id[]=2",
        "order_id=1&order_id[x]=2",
        "order_id=1&%6frder_id=2",
        "order_id=1&+order_id=2",
        "order_id=1&order_id%00x=2",
        "order_id=1&order[id=2",
        "order_id&order_id=1",
        "x=1",
        "order_id=",
        "order_id",
        "",
        "{\"order_id\":1}",
        "[1]",
        "=1",
        "&&&",
    ] {
        refused(&mut stage, &form(body), &[400]);
    }
    let many = format!("order_id=1{}", "&x=y".repeat(1000));
    refused(&mut stage, &form(&many), &[400]);
    assert_eq!(verdict(&mut stage, &form("order_id=a+b&x=1")), "lead");
    for same in ["order_id=a%20b&x=1", "order%5Fid=a+b&x=1", "order_id=%61+b&x=%31"] {
        assert_eq!(verdict(&mut stage, &form(same)), "replay", "{same}");
    }
    // `;` is no separator: PHP reads one long value, and so does the guard.
    assert_eq!(verdict(&mut stage, &form("order_id=1;order_id=2")), "lead");
}

#[test]
fn a_multipart_body_that_two_readers_could_cut_differently_is_refused() {
    let mut stage = Stage::with(ROUTES);
    let part = |head: &str, value: &str| format!("--b\r\n{head}\r\n\r\n{value}\r\n");
    let field =
        |name: &str, value: &str| part(&format!("Content-Disposition: form-data; name=\"{name}\""), value);
    let one = field("order_id", "1");
    let ok = |body: String| {
        sent("/form", "multipart/form-data; boundary=b", format!("{body}--b--\r\n").as_bytes())
    };
    let parts = field("x", "y").repeat(10_000);
    let cases = [
        ok(format!("{one}{one}")),
        ok(format!("{one}{}", field("order_id[]", "2"))),
        ok(format!("{one}{}", field("order.id", "2"))),
        ok(format!("{one}{parts}")),
        ok(format!("{one}{}", part(&format!("X: {}", "y".repeat(20_000)), "z"))),
        ok(part("Content-Disposition: form-data; name=\"order_id\"; name=\"x\"", "1")),
        ok(part(
            "Content-Disposition: form-data; name=\"order_id\"\r\nContent-Disposition: form-data; name=\"x\"",
            "1",
        )),
        ok(part("Content-Disposition: form-data; name=\"order_id\"; filename=\"x.txt\"", "1")),
        ok(part("Content-Disposition: form-data;\r\n name=\"order_id\"", "1")),
        ok(part(
            "Content-Disposition: form-data; name=\"order_id\"\r\nContent-Transfer-Encoding: base64",
            "MQ==",
        )),
        ok(part("Content-Disposition: form-data; name*=utf-8''order_id", "1")),
        ok(format!("before\r\n{one}")),
        ok(format!("{one}--b--\r\n{}", field("order_id", "2"))),
        ok(one.replace("\r\n", "\n")),
        sent("/form", "multipart/form-data", format!("{one}--b--\r\n").as_bytes()),
        sent("/form", "multipart/form-data; boundary=", format!("{one}--b--\r\n").as_bytes()),
        sent("/form", "multipart/form-data; boundary=b; boundary=c", format!("{one}--b--\r\n").as_bytes()),
        sent("/form", "multipart/form-data; boundary=c", format!("{one}--b--\r\n").as_bytes()),
        sent(
            "/form",
            &format!("multipart/form-data; boundary={}", "b".repeat(200)),
            format!("{one}--b--\r\n").as_bytes(),
        ),
        sent("/form", "multipart/form-data; boundary=b", one.as_bytes()),
        sent("/form", "multipart/form-data; boundary=b", b"--b--\r\n"),
        sent("/form", "multipart/form-data; boundary=b", b"--b\r\n"),
    ];
    for bytes in &cases {
        refused(&mut stage, bytes, &[400]);
    }
    // The boundary is chance, not content; a value may hold what looks like one.
    assert_eq!(verdict(&mut stage, &ok(format!("{one}{}", field("x", "--c\r\n --b")))), "lead");
    let other = format!("{one}{}--b--\r\n", field("x", "--c\r\n --b"))
        .replace("--b\r\nContent", "--q\r\nContent")
        .replace("--b--", "--q--");
    assert_eq!(
        verdict(&mut stage, &sent("/form", "multipart/form-data; boundary=\"q\"", other.as_bytes())),
        "replay"
    );
}

#[test]
fn a_body_that_is_not_what_it_is_declared_as_is_refused_and_not_taken_for_one_without_a_key() {
    let mut stage = Stage::with(ROUTES);
    let (as_json, as_form) = (b"{\"order_id\":1}".as_slice(), b"order_id=1".as_slice());
    // `/lax` lets requests without a key go by; these have one, to a shop that does not care what was declared.
    for path in ["/json", "/lax"] {
        for kind in [
            "application/x-www-form-urlencoded",
            "",
            "text/plain",
            "application/octet-stream",
            "multipart/form-data; boundary=b",
            "application/json; charset=utf-16",
            "application/json; charset=utf-8; charset=utf-16",
            "text/json",
            "application/json, text/plain",
            "application/json\nContent-Type: text/plain",
            "json",
            "application/xml",
        ] {
            refused(&mut stage, &sent(path, kind, as_json), &[400]);
        }
        refused(&mut stage, &sent(path, "application/json", as_form), &[400]);
    }
    for kind in [
        "application/json",
        "",
        "text/plain",
        "application/x-www-form-urlencoded; charset=utf-16",
        "application/x-www-form-urlencoded; charset=utf-7",
    ] {
        refused(&mut stage, &sent("/form", kind, as_form), &[400]);
    }
    for kind in [
        "application/json;charset=UTF-8",
        "APPLICATION/JSON",
        "application/vnd.api+json",
        "application/json ; x=y",
    ] {
        let body = format!("{{\"order_id\":\"{kind}\"}}");
        assert_eq!(verdict(&mut stage, &sent("/json", kind, body.as_bytes())), "lead", "{kind}");
    }
    // Really without a key: it goes by, and says so.
    assert_eq!(verdict(&mut stage, &sent("/lax", "application/json", b"{\"x\":1}")), "bypass");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn coded(coding: &str, body: &[u8]) -> Vec<u8> {
    sent("/json", &format!("application/json\nContent-Encoding: {coding}"), body)
}

#[test]
fn a_compressed_body_is_read_for_its_key_and_sent_as_it_came() {
    let mut stage = Stage::with(ROUTES);
    let body = b"{\"order_id\":\"zipped\"}";
    let zipped = gzip(body);
    let (answer, seen) = stage.ask_and_look(&coded("gzip", &zipped));
    assert_eq!((answer.verdict(), &seen[0].body), ("lead", &zipped));
    assert_eq!(seen[0].field("content-encoding").as_deref(), Some("gzip"));
    assert_eq!(verdict(&mut stage, &coded("x-gzip", &gzip(body))), "replay");
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory takes it");
    let deflated = encoder.finish().expect("memory takes it");
    assert_eq!(verdict(&mut stage, &coded("deflate", &deflated)), "replay");
    let cut = &zipped[..zipped.len() - 4];
    let mut flipped = zipped.clone();
    flipped[zipped.len() - 6] ^= 1;
    let trailing = [zipped.as_slice(), b"{\"order_id\":\"other\"}"].concat();
    for (coding, body) in [
        ("gzip", body.as_slice()),
        ("gzip", cut),
        ("gzip", &flipped),
        ("gzip", &trailing),
        ("br", &zipped),
        ("gzip, gzip", &gzip(&zipped)),
        ("gzip\nContent-Encoding: gzip", &zipped),
        ("deflate", &zipped),
        ("deflate, gzip", &zipped),
        ("zstd", &zipped),
        ("identity", &zipped),
        ("gzip;q=1", &zipped),
        ("none", body),
    ] {
        refused(&mut stage, &coded(coding, body), &[400, 413, 415]);
    }
}

/// The program itself, so that its memory is its own.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    /// The most memory it ever had, in KiB.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says so");
        line.trim().trim_end_matches("kB").trim().parse().expect("a number")
    }
}

#[test]
fn a_decompression_bomb_costs_no_more_than_its_bound() {
    let shop = Shop::open();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("oncegate.toml");
    let text = format!(
        "listener = [{{ address = \"127.0.0.1:0\" }}]\nupstream = [{{ name = \"shop\", servers = [\"http://{}\"] }}]\n\
         [runtime]\nworkers = 1\n{ROUTES}",
        shop.address
    );
    std::fs::write(&file, text).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncegate"));
    command.arg("run").arg("--config").arg(&file).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut program = Program(command.spawn().expect("the program starts"));
    let told = BufReader::new(program.0.stderr.take().expect("it is piped"));
    let address =
        told.lines().map_while(Result::ok).find_map(|line| line.split_once("listening on ")?.1.parse().ok());
    let address = address.expect("it says where it listens");
    let ask = |bytes: &[u8]| {
        let mut raw = Raw::connect(address);
        raw.send(bytes);
        raw.answer().expect("an answer").status
    };
    assert_eq!(ask(&json("{\"order_id\":1}")), 200);
    let before = program.peak();
    // Members one after the other are one stream: a megabyte on the wire, nine hundred when unfolded.
    let member = gzip(&vec![b' '; 1 << 20]);
    let bomb = member.repeat((1 << 20) / member.len() - 1);
    assert!(bomb.len() < 1 << 20 && bomb.len() / member.len() > 200);
    for _ in 0..4 {
        assert_eq!(ask(&coded("gzip", &bomb)), 400);
    }
    let grown = program.peak() - before;
    assert!(grown < 32 << 10, "{grown} KiB for four bombs of which each unfolds to hundreds of MiB");
    assert_eq!(ask(&json("{\"order_id\":2}")), 200);
}
