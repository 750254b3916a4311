//! What an operator does at three in the morning: looks at an order in doubt, looks into the shop, and says what became
//! of it. The program serves, the program asks; only the shop is made up.

use std::{
    fs, io,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    gate::{Typed, order},
    program::Program,
    shop::{Shop, eventually, ok},
    wire::{Message, Wire},
};
use crate::world::redis::RedisServer;

/// Breaks off the first request that it gets, and answers the others with their number.
fn breaks_off_once() -> Shop {
    let count = AtomicUsize::new(0);
    Shop::talks(move |wire, seen| {
        while let Some(request) = wire.request()? {
            seen.note(&request);
            let number = count.fetch_add(1, Relaxed) + 1;
            if number == 1 {
                return Err(io::Error::other("it broke off"));
            }
            wire.try_send(ok(&number.to_string()))?;
        }
        Ok(())
    })
}

/// What a shop waits for before it answers.
#[derive(Clone, Default)]
struct Door(Arc<(Mutex<bool>, Condvar)>);

impl Door {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |is_open| !*is_open).unwrap());
    }
}

impl Drop for Door {
    /// A test that failed leaves nobody waiting.
    fn drop(&mut self) {
        if Arc::strong_count(&self.0) == 2 {
            self.open();
        }
    }
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{} {}", self.out, self.err))
    }
}

fn orders(gate: &Program, words: &[&str]) -> Said {
    let admin = format!("http://{}", gate.admin);
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncegate"));
    command.env_remove("ONCEGATE_ADMIN").arg("orders").args(words).args(["--admin", &admin]);
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("it says text");
    Said { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
}

fn verdict(answer: &Message) -> (u16, Option<&str>) {
    (answer.status(), answer.get("oncegate-verdict"))
}

fn refusal(answer: &Message) -> (u16, String) {
    let text = answer.text();
    let name = text.split("urn:oncegate:refusal:").nth(1).and_then(|rest| rest.split('"').next());
    (answer.status(), name.unwrap_or(&text).to_owned())
}

fn in_doubt(typed: &Typed) -> Program {
    let gate = Program::start(typed);
    let first = gate.client().ask(order("WC-1001", "a teapot"));
    assert_eq!(first.status(), 502);
    gate
}

/// The store that a scenario is played over.
#[derive(Default)]
struct Stand {
    store: String,
    _folder: Option<TempDir>,
    _server: Option<RedisServer>,
}

impl Stand {
    fn file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("kind = \"file\"\npath = \"{}\"", folder.path().join("store").display());
        Self { store, _folder: Some(folder), _server: None }
    }

    fn redis() -> Self {
        let server = RedisServer::start(&[]);
        let store = format!("kind = \"redis\"\nurl = \"{}\"", server.url());
        Self { store, _folder: None, _server: Some(server) }
    }

    fn before(&self, shop: &Shop) -> Typed {
        Typed { store: self.store.clone(), ..Typed::before(shop) }
    }
}

/// What an operator does is the same over all stores.
macro_rules! over_all_stores {
    ($($scenario:ident)*) => {
        mod memory {
            $(#[test] fn $scenario() { super::$scenario(&super::Stand::default()); })*
        }
        mod file {
            $(#[test] fn $scenario() { super::$scenario(&super::Stand::file()); })*
        }
        mod redis {
            $(#[test] fn $scenario() { super::$scenario(&super::Stand::redis()); })*
        }
    };
}

over_all_stores! {
    an_order_in_doubt_is_shown_with_what_to_do_about_it
    an_order_resolved_as_done_is_refused_and_never_sent_again
    done_holds_against_another_body_where_a_record_of_the_order_would
    after_free_the_next_duplicate_leads
    a_flight_that_runs_is_shown_and_cannot_be_freed
    a_kept_answer_is_shown_with_what_became_of_the_order
    a_kept_answer_is_forgotten_on_demand
    a_lane_of_the_log_is_a_name_too
}

fn an_order_in_doubt_is_shown_with_what_to_do_about_it(stand: &Stand) {
    let shop = breaks_off_once();
    let gate = in_doubt(&stand.before(&shop));
    for words in [&[][..], &["WC-1001"]] {
        let said = orders(&gate, words);
        let row = said.out.lines().nth(1).unwrap_or_default();
        assert!(row.starts_with("WC-1001  IN DOUBT  "), "{}{}", said.out, said.err);
        assert!(row.contains("order -> shop"), "{row}");
        assert!(said.out.contains("resolve KEY --as done"), "{}", said.out);
        assert_eq!((said.code, said.err.as_str()), (0, ""));
    }
    let json = orders(&gate, &["--json"]).json();
    let row = &json["orders"][0];
    assert_eq!(
        (&row["order"], &row["state"], &row["route"]),
        (&"WC-1001".into(), &"in-doubt".into(), &"order".into())
    );
    assert!(row["fence"].as_u64().is_some_and(|fence| fence > 0), "{row}");
    let nothing = orders(&gate, &["WC-9999"]);
    assert_eq!(
        (nothing.code, nothing.out.as_str()),
        (0, "nothing of that name is under way, in doubt or kept\n")
    );
}

fn an_order_resolved_as_done_is_refused_and_never_sent_again(stand: &Stand) {
    let shop = breaks_off_once();
    let gate = in_doubt(&Typed { guard: "replay_for = \"2h\"".to_owned(), ..stand.before(&shop) });
    assert_eq!(
        refusal(&gate.client().ask(order("WC-1001", "a teapot"))),
        (503, "outcome-unknown".to_owned())
    );
    let said = orders(&gate, &["resolve", "WC-1001", "--as", "done"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.starts_with("WC-1001 at shop: done.") && said.out.contains("for 1day "), "{}", said.out);
    for _ in 0..2 {
        assert_eq!(
            refusal(&gate.client().ask(order("WC-1001", "a teapot"))),
            (409, "resolved-done".to_owned())
        );
    }
    assert_eq!(shop.requests().len(), 1);
    assert!(orders(&gate, &[]).out.starts_with("nothing is under way"));
    let again = orders(&gate, &["resolve", "WC-1001", "--as", "free"]);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("nothing is in doubt there"), "{}", again.err);
}

fn after_free_the_next_duplicate_leads(stand: &Stand) {
    let shop = breaks_off_once();
    let gate = in_doubt(&stand.before(&shop));
    let said = orders(&gate, &["resolve", "WC-1001", "--as", "free", "--json"]).json();
    assert_eq!((&said["resolved"], &said["upstream"]), (&"free".into(), &"shop".into()));
    let next = gate.client().ask(order("WC-1001", "a teapot"));
    assert_eq!((verdict(&next), next.text()), ((200, Some("lead")), "2".to_owned()));
}

fn a_flight_that_runs_is_shown_and_cannot_be_freed(stand: &Stand) {
    let door = Door::default();
    let shut = door.clone();
    let shop = Shop::answers(move |_| {
        shut.wait();
        ok("done")
    });
    let gate = Program::start(&stand.before(&shop));
    let mut leader = gate.client();
    leader.send(order("7%2B8", "a teapot"));
    shop.wait_for(1);
    let mut queued = gate.client();
    queued.send(order("7%2B8", "a teapot and a cup"));
    let states = || {
        let rows = orders(&gate, &["7+8", "--json"]).json();
        let rows = rows["orders"].as_array().expect("a list").clone();
        rows.iter().map(|row| row["state"].as_str().unwrap_or("").to_owned()).collect::<Vec<_>>()
    };
    eventually("both are shown", || states() == ["at-shop", "queued"]);
    for word in ["free", "done"] {
        let said = orders(&gate, &["resolve", "7+8", "--as", word]);
        assert_eq!((said.code, said.out.as_str()), (1, ""));
        assert!(said.err.contains("a flight that runs cannot be freed"), "{}", said.err);
    }
    assert_eq!(shop.requests().len(), 1);
    door.open();
    assert_eq!(verdict(&leader.answer()), (200, Some("lead")));
    assert_eq!(verdict(&queued.answer()), (200, Some("lead")));
    eventually("both are kept", || states() == ["kept", "kept"]);
}

fn a_kept_answer_is_forgotten_on_demand(stand: &Stand) {
    let shop = Shop::counts();
    let gate = Program::start(&stand.before(&shop));
    let ask = || gate.client().ask(order("WC%201/2", "a teapot"));
    assert_eq!(verdict(&ask()), (200, Some("lead")));
    assert_eq!(verdict(&ask()), (200, Some("replay")));
    let said = orders(&gate, &["forget", "WC 1/2"]);
    assert_eq!((said.code, said.out.lines().next()), (0, Some("WC 1/2 at shop: 1 kept and forgotten.")));
    assert_eq!(verdict(&ask()), (200, Some("lead")));
    assert_eq!(shop.requests().len(), 2);
    let other = orders(&gate, &["forget", "WC-2"]);
    assert_eq!(other.code, 1);
    assert!(other.err.contains("no answer is kept there"), "{}", other.err);
}

// Promise, section 5: after `done` a duplicate is refused as the record would have answered it. Where a record answers
// every request of its order, so does the operator's word; elsewhere another body is another request.
fn done_holds_against_another_body_where_a_record_of_the_order_would(stand: &Stand) {
    for (scope, then) in [("order", (409, "resolved-done")), ("request", (200, ""))] {
        let shop = breaks_off_once();
        let stand = if scope == "order" { stand } else { &Stand::default() };
        let guard = format!("replay_scope = \"{scope}\"");
        let gate = in_doubt(&Typed { guard, ..stand.before(&shop) });
        assert_eq!(orders(&gate, &["resolve", "WC-1001", "--as", "done"]).code, 0);
        let other = gate.client().ask(order("WC-1001", "a teapot and a cup"));
        match then {
            (200, _) => assert_eq!(verdict(&other), (200, Some("lead"))),
            (status, name) => assert_eq!(refusal(&other), (status, name.to_owned())),
        }
    }
}

fn a_kept_answer_is_shown_with_what_became_of_the_order(stand: &Stand) {
    let shop = Shop::counts();
    let gate = Program::start(&stand.before(&shop));
    let ask = || gate.client().ask(order("WC-1001", "a teapot"));
    assert_eq!(verdict(&ask()), (200, Some("lead")));
    assert_eq!(verdict(&ask()), (200, Some("replay")));
    let shown = || orders(&gate, &["WC-1001", "--json"]).json();
    eventually("the store knows that a client has it", || shown()["orders"][0]["delivered"] == true);
    let said = shown();
    let row = &said["orders"][0];
    assert_eq!((&row["state"], &row["status"]), (&"kept".into(), &200.into()), "{said}");
    let day = 24 * 60 * 60 * 1000;
    assert!(row["ends_in_ms"].as_u64().is_some_and(|ends| ends <= day && ends > day - 60_000), "{row}");
    let came: Vec<&str> = said["history"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["came_to"].as_str())
        .collect();
    assert_eq!(came, ["replayed", "done"]);
    let text = orders(&gate, &["WC-1001"]).out;
    assert!(text.contains("answer 200 is kept") && text.contains("What became of"), "{text}");
    assert!(orders(&gate, &["WC-9999"]).out.starts_with("nothing of that name"));
}

#[test]
fn where_the_log_hides_orders_its_hash_is_a_name_and_nothing_shows_the_order() {
    let shop = breaks_off_once();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let log = "level = \"info\"\norder = \"hash\"".to_owned();
    let typed = Typed { log, ..Typed::before(&shop) };
    let gate = Program::under(&typed, &format!("exec >'{}'", path.display()));
    assert_eq!(gate.client().ask(order("WC-1001", "a teapot")).status(), 502);
    let shown = |event: &str| line_of(&path, event)["order"].as_str().unwrap_or("").to_owned();
    let hash = shown("\"verdict\"");
    assert!(hash.starts_with('#') && hash.len() == 9, "{hash}");
    assert!(orders(&gate, &[]).out.contains(&hash));
    let said = orders(&gate, &["resolve", &hash, "--as", "free"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(shown("order-resolved"), hash);

    assert_eq!(gate.client().ask(order("WC-1001", "a teapot")).status(), 200);
    assert_eq!(orders(&gate, &["forget", "WC-1001"]).code, 0);
    assert_eq!(shown("order-forgotten"), hash);
    assert!(!fs::read_to_string(&path).unwrap().contains("WC-1001"));
}

/// The first line of the log that holds a text, as soon as it is there.
fn line_of(path: &Path, text: &str) -> Value {
    let mut found = None;
    eventually(text, || {
        let log = fs::read_to_string(path).unwrap_or_default();
        found = log.lines().find(|line| line.contains(text)).and_then(|line| serde_json::from_str(line).ok());
        found.is_some()
    });
    found.expect("it was waited for")
}

fn a_lane_of_the_log_is_a_name_too(stand: &Stand) {
    let shop = breaks_off_once();
    let gate = in_doubt(&stand.before(&shop));
    let json = orders(&gate, &["--json"]).json();
    let lane = json["orders"][0]["lanes"][0].as_str().expect("it has one");
    assert_eq!(lane.len(), "lane:".len() + 64);
    assert_eq!(orders(&gate, &["lane:12"]).code, 1);
    let said = orders(&gate, &["resolve", &lane[.."lane:".len() + 8], "--as", "free"]);
    assert_eq!((said.code, said.out.starts_with("WC-1001 at shop: free.")), (0, true), "{}", said.err);
}

#[test]
fn without_the_token_nothing_is_shown_and_nothing_changed() {
    let shop = breaks_off_once();
    let gate = in_doubt(&Typed { admin: "token = \"0123456789abcdef\"".to_owned(), ..Typed::before(&shop) });
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (folder.path().join("right"), folder.path().join("wrong"));
    fs::write(&right, "0123456789abcdef\n").unwrap();
    fs::write(&wrong, "secret\n").unwrap();
    let wrong = wrong.to_str().unwrap();
    for words in [&[][..], &["resolve", "WC-1001", "--as", "free"], &["forget", "WC-1001"]] {
        for token in [&[][..], &["--token-file", wrong]] {
            let said = orders(&gate, &[words, token].concat());
            assert_eq!((said.code, said.out.as_str()), (1, ""), "{words:?}");
            assert!(said.err.contains("a token is needed"), "{}", said.err);
        }
    }
    let head = "POST /orders/WC-1001/resolve?as=free HTTP/1.1\r\nHost: localhost\r\nOncegate-Operator: 1\r\n";
    let none = Wire::connect(gate.admin).ask(format!("{head}Content-Length: 0\r\n\r\n"));
    assert_eq!((none.status(), none.get("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(refusal(&gate.client().ask(order("WC-1001", "a teapot"))).0, 503);
    let said = orders(&gate, &["WC-1001", "--token-file", right.to_str().unwrap()]);
    assert!(said.out.contains("IN DOUBT"), "{}", said.err);
}

#[test]
fn what_a_web_page_could_have_a_browser_send_changes_nothing() {
    let shop = breaks_off_once();
    let gate = in_doubt(&Typed::before(&shop));
    let post = |host: &str, more: &str| {
        let head = format!("POST /orders/WC-1001/resolve?as=free HTTP/1.1\r\nHost: {host}\r\n{more}");
        Wire::connect(gate.admin).ask(format!("{head}Content-Length: 0\r\n\r\n")).status()
    };
    assert_eq!(post("localhost", ""), 403);
    assert_eq!(post("localhost", "Content-Type: text/plain\r\n"), 403);
    assert_eq!(post("shop.example", "Content-Type: application/json\r\n"), 421);
    assert_eq!(refusal(&gate.client().ask(order("WC-1001", "a teapot"))).0, 503);
    assert_eq!(post("localhost", "Content-Type: application/json\r\n"), 200);
}

#[test]
fn a_mistake_of_the_operator_is_told_apart_from_a_process_that_is_not_there() {
    let code = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oncegate"));
        command.env_remove("ONCEGATE_ADMIN").arg("orders").args(words);
        command.output().expect("the program starts").status.code()
    };
    assert_eq!(code(&["--admin", "127.0.0.1:9191"]), Some(64));
    assert_eq!(code(&["resolve", "7", "--as", "gone"]), Some(64));
    assert_eq!(code(&["resolve", "7"]), Some(64));
    assert_eq!(code(&["8", "forget", "7"]), Some(64));
    assert_eq!(code(&["--token-file", "/there/is/none"]), Some(64));
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(code(&["--admin", &format!("http://{free}")]), Some(1));
}
