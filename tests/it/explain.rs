//! What `oncegate explain` says of real requests, word for word, with the answers of real shops.
//!
//! A golden file changes with `UPDATE_GOLDEN=1 cargo test --test it explain`; look at the difference before keeping it.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

const FOLDER: &str = "tests/golden/explain";

fn explain(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_oncegate"))
        .arg("explain")
        .args(arguments)
        .env("ONCEGATE_CONFIG", format!("{FOLDER}/shop.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that was given a file does not read this.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn told(request: &str) -> Value {
    let shown = explain(&["-", "--json"], request.as_bytes());
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    serde_json::from_slice(&shown.stdout).unwrap()
}

fn sample(name: &str) -> String {
    fs::read_to_string(format!("{FOLDER}/{name}.req.http")).unwrap()
}

#[test]
fn every_sample_is_explained_word_for_word() {
    let mut names: Vec<String> = fs::read_dir(FOLDER)
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".req.http")?.to_owned()))
        .collect();
    names.sort();
    for name in &names {
        let (request, answer) = (format!("{FOLDER}/{name}.req.http"), format!("{FOLDER}/{name}.resp.http"));
        let mut arguments = vec![request.as_str()];
        if Path::new(&answer).exists() {
            arguments.extend(["--answer", answer.as_str()]);
        }
        let shown = explain(&arguments, b"");
        assert_eq!((shown.status.code(), shown.stderr.as_slice()), (Some(0), &b""[..]), "{name}: {shown:?}");
        let shown = String::from_utf8(shown.stdout).unwrap();
        let golden = format!("{FOLDER}/{name}.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &shown).unwrap();
        }
        assert_eq!(shown, fs::read_to_string(&golden).unwrap_or_default(), "{name}");
        let moves = |char: &char| char.is_control() && *char != '\n';
        assert!(!shown.chars().any(|char| moves(&char)), "{name}");
    }
    assert!(names.len() >= 12, "only {} samples were found", names.len());
}

#[test]
fn a_second_click_has_the_fingerprint_of_the_first_and_another_customer_has_not() {
    let first = sample("checkout");
    let fingerprint = |request: &str| told(request)["reading"]["fingerprint"].clone();
    let again = first.replace("session_pages=4", "session_pages=5").replace("\r\n", "\n");
    assert_ne!(first, again);
    assert_eq!(fingerprint(&first), fingerprint(&again));
    assert_ne!(fingerprint(&first), fingerprint(&first.replace("t_5f0c9a2be17d", "t_000000000000")));
    assert_ne!(fingerprint(&first), fingerprint(&first.replace("billing_city=Paris", "billing_city=Lyons")));
}

#[test]
fn no_cookie_is_shown_in_the_clear() {
    for arguments in [&["-"][..], &["-", "--json"]] {
        let shown = explain(arguments, sample("checkout").as_bytes());
        assert!(
            !String::from_utf8_lossy(&shown.stdout).contains("5f0c9a2be17d4c63a8e1b07d92f4a6"),
            "{arguments:?}"
        );
    }
}

#[test]
fn json_says_what_would_be_done_and_why() {
    let refused = told(&sample("spelled"));
    assert_eq!(
        (&refused["verdict"]["verdict"], &refused["verdict"]["status"]),
        (&"refuse".into(), &400.into())
    );
    assert_eq!(refused["verdict"]["refusal"], "path-unreadable");
    assert_eq!(refused["route"]["name"], "guest-checkout");
    let observed = told(&sample("observed"));
    assert_eq!(
        (&observed["verdict"]["verdict"], &observed["route"]["enforce"]),
        (&"pass".into(), &false.into())
    );
    let excluded = told(&sample("guest").replace("Accept: */*", "X-Preview: 1"));
    assert_eq!(excluded["passed"][4]["because"], "`not` excludes the request");
    assert_eq!(excluded["route"]["name"], "rest");
}

#[test]
fn a_file_that_is_no_request_is_told_with_64() {
    let failed = |arguments: &[&str], input: &str| {
        let shown = explain(arguments, input.as_bytes());
        assert_eq!((shown.status.code(), shown.stdout.as_slice()), (Some(64), &b""[..]), "{shown:?}");
        String::from_utf8(shown.stderr).unwrap()
    };
    assert_eq!(
        failed(&["-"], ""),
        "oncegate: error: -: there is nothing in it; a request begins with a line like `POST /checkout HTTP/1.1`\n"
    );
    assert!(failed(&["-"], "POST / HTTP/1.1\n\n").contains("the gateway would refuse it with 400: "));
    assert!(failed(&["no-such-file"], "").contains("cannot read no-such-file: No such file"));
    let broken = "tests/golden/config/typos.toml";
    assert!(failed(&["-", "--config", broken], "").contains("typos.toml:"));
    let request = format!("{FOLDER}/return.req.http");
    assert!(failed(&[&request, "--answer", &request], "").contains("is no status line"));
}
