//! What a restart leaves: the program with a store on a disk is killed, started again, and asked about its past.
//!
//! The shop counts what comes to it. Whatever happens to the program, no request may come twice that was sent once and
//! not answered.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::{
        RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    gate::{Typed, metric, order},
    program::{Program, Signal},
    shop::{Shop, eventually, ok},
    wire::{Message, Wire},
};

/// No order is without an end for longer, however often the program dies meanwhile.
const INSIST_MAX: Duration = Duration::from_secs(60);

fn on_disk(shop: &Shop, folder: &Path) -> Typed {
    Typed { store: kept_in(folder), ..Typed::before(shop) }
}

/// With leases that outlast the tests: nothing here comes from one that ran out.
fn kept_in(folder: &Path) -> String {
    format!("kind = \"file\"\npath = \"{}\"\nlease = \"60s\"", folder.display())
}

/// Takes every request and answers none.
fn silent() -> Shop {
    Shop::talks(|wire, seen| {
        while let Some(request) = wire.request()? {
            seen.note(&request);
        }
        Ok(())
    })
}

fn verdict(answer: &Message) -> (u16, Option<&str>) {
    (answer.status(), answer.get("oncegate-verdict"))
}

fn problem(answer: &Message) -> String {
    let text = answer.text();
    text.split("urn:oncegate:refusal:")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap_or(&text)
        .to_owned()
}

#[test]
fn records_answer_after_the_process_was_killed_and_after_it_ended() {
    let (shop, folder) = (Shop::counts(), tempfile::tempdir().unwrap());
    let typed = on_disk(&shop, folder.path());
    let gate = Program::start(&typed);
    let first = gate.client().ask(order("1001", "a teapot"));
    assert_eq!((verdict(&first), first.text()), ((200, Some("lead")), "1".to_owned()));
    gate.kill();

    let mut gate = Program::start(&typed);
    let again = gate.client().ask(order("1001", "a teapot"));
    assert_eq!((verdict(&again), again.text()), ((200, Some("replay")), "1".to_owned()));
    let other = gate.client().ask(order("1002", "a cup"));
    assert_eq!((verdict(&other), other.text()), ((200, Some("lead")), "2".to_owned()));
    let fence = |request: &Message| request.get("oncegate-fence").and_then(|fence| fence.parse::<u64>().ok());
    let fences: Vec<_> = shop.requests().iter().map(fence).collect();
    assert!(fences[0].is_some() && fences[0] < fences[1], "fences rise across processes: {fences:?}");
    gate.signal(Signal::Terminate);
    assert_eq!(gate.exit_code(), 0);

    let gate = Program::start(&typed);
    for (id, body) in [("1001", "a teapot"), ("1002", "a cup")] {
        assert_eq!(verdict(&gate.client().ask(order(id, body))), (200, Some("replay")));
    }
    assert_eq!(shop.requests().len(), 2);
}

#[test]
fn what_was_at_the_shop_when_the_process_died_is_in_doubt_and_not_sent_again() {
    let (shop, folder) = (silent(), tempfile::tempdir().unwrap());
    let typed = on_disk(&shop, folder.path());
    let gate = Program::start(&typed);
    let mut client = gate.client();
    client.send(order("1001", "a teapot"));
    shop.wait_for(1);
    gate.kill();

    for _ in 0..2 {
        let gate = Program::start(&typed);
        for body in ["a teapot", "a teapot and a cup"] {
            let answer = gate.client().ask(order("1001", body));
            assert_eq!((answer.status(), problem(&answer)), (503, "outcome-unknown".to_owned()), "{body}");
        }
        gate.kill();
    }
    assert_eq!(shop.requests().len(), 1);
}

#[test]
fn where_the_rule_says_retry_the_next_one_leads_after_a_restart() {
    let (shop, folder) = (silent(), tempfile::tempdir().unwrap());
    let typed = Typed { guard: "on_in_doubt = \"retry\"".to_owned(), ..on_disk(&shop, folder.path()) };
    let gate = Program::start(&typed);
    let mut client = gate.client();
    client.send(order("1001", "a teapot"));
    shop.wait_for(1);
    gate.kill();

    let gate = Program::start(&typed);
    let mut client = gate.client();
    client.send(order("1001", "a teapot"));
    shop.wait_for(2);
}

/// Orders are placed by eight clients, each of which repeats itself until it is answered, while the program is killed
/// again and again, each time when another number of requests has come to the shop.
#[test]
fn no_order_comes_twice_however_often_the_process_is_killed() {
    let shop = Shop::answers(|request| {
        thread::sleep(Duration::from_millis(3));
        ok(&request.text())
    });
    let folder = tempfile::tempdir().unwrap();
    let typed = on_disk(&shop, folder.path());
    let (gate, over) = (RwLock::new(None::<Program>), AtomicBool::new(false));
    let address = || gate.read().unwrap().as_ref().map(|gate| gate.address);
    let client = |number: u32| {
        let (mut answered, mut unknown) = (Vec::new(), 0);
        for id in (0..).map(|count| format!("{number}-{count}")) {
            if over.load(Relaxed) {
                break;
            }
            match insist(address, &id) {
                End::Answered => answered.push(id),
                End::Unknown => unknown += 1,
            }
        }
        (answered, unknown)
    };
    let (mut answered, mut unknown) = (0, 0);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|number| scope.spawn(move || client(number))).collect();
        let mut come = 0;
        for more in [1, 30, 9, 2, 40, 17, 5, 25, 3, 33, 11, 8] {
            *gate.write().unwrap() = Some(Program::start(&typed));
            come = shop.wait_for(come + more).len();
            gate.write().unwrap().take().expect("it was started").kill();
        }
        *gate.write().unwrap() = Some(Program::start(&typed));
        over.store(true, Relaxed);
        for client in clients {
            let (ids, doubts) = client.join().expect("no client panics");
            for id in &ids {
                let last = address().expect("it runs");
                let again = Wire::connect(last).ask(order(id, id));
                assert_eq!((verdict(&again), again.text()), ((200, Some("replay")), id.clone()));
            }
            (answered, unknown) = (answered + ids.len(), unknown + doubts);
        }
    });
    let mut sends: BTreeMap<String, u32> = BTreeMap::new();
    for request in shop.requests() {
        *sends.entry(request.text()).or_default() += 1;
    }
    let twice: Vec<_> = sends.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "sent more than once: {twice:?}");
    assert!(answered > 0 && unknown > 0, "{answered} answered, {unknown} in doubt: the kills came too late");
}

/// What became of an order.
enum End {
    Answered,
    Unknown,
}

/// Sends an order again and again until it is known what became of it.
fn insist(address: impl Fn() -> Option<SocketAddr>, id: &str) -> End {
    let until = Instant::now() + INSIST_MAX;
    while Instant::now() < until {
        let wire = address().and_then(|address| Wire::try_connect(address).ok());
        let answer = wire.and_then(|mut wire| wire.try_answer_to(order(id, id)).ok());
        match answer.map(|answer| (answer.status(), answer.text())) {
            Some((200, text)) => {
                assert_eq!(text, id, "an answer goes to its own order");
                return End::Answered;
            }
            Some((503, text)) if text.contains("outcome-unknown") => return End::Unknown,
            // A pause, so that a program that starts is not kept from it.
            _ => thread::sleep(Duration::from_millis(5)),
        }
    }
    panic!("nothing became of order {id}")
}

#[test]
fn a_second_process_on_the_same_store_is_refused() {
    let (shop, folder) = (Shop::counts(), tempfile::tempdir().unwrap());
    let typed = on_disk(&shop, folder.path());
    let gate = Program::start(&typed);
    let config = folder.path().join("second.toml");
    fs::write(&config, typed.text()).unwrap();
    let mut second = Command::new("timeout");
    second
        .arg("20")
        .arg(env!("CARGO_BIN_EXE_oncegate"))
        .arg("run")
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null());
    let second = second.output().expect("it can be started");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    let folder = folder.path().display();
    assert!(said.contains(&format!("another oncegate uses the store {folder}; stop it")), "{said}");
    assert_eq!(verdict(&gate.client().ask(order("1001", "a teapot"))), (200, Some("lead")));
}

#[test]
fn a_damaged_store_is_set_aside_as_it_is_and_told_of_and_the_shop_goes_on() {
    let (shop, folder) = (Shop::counts(), tempfile::tempdir().unwrap());
    let typed = on_disk(&shop, folder.path());
    let gate = Program::start(&typed);
    assert!(gate.said.is_empty(), "{:?}", gate.said);
    gate.client().ask(order("1001", "a teapot"));
    gate.kill();
    let file = folder.path().join("store.redb");
    let mut bytes = fs::read(&file).unwrap();
    for byte in &mut bytes[4096..] {
        *byte ^= 0x5a;
    }
    fs::write(&file, &bytes).unwrap();

    let gate = Program::start(&typed);
    let said = gate.said.join("\n");
    assert!(said.contains(&format!("the store {} is damaged", file.display())), "{said}");
    let aside =
        said.split("set aside as ").nth(1).and_then(|rest| rest.split(',').next()).expect("it says where");
    assert!(aside.starts_with(&format!("{}.damaged-", file.display())), "{aside}");
    assert!(fs::read(aside).unwrap() == bytes, "nothing was changed in it");
    assert_eq!(verdict(&gate.client().ask(order("1002", "a cup"))), (200, Some("lead")));
}

/// The limit on the size of files stands in for the size of a disk: what would grow beyond it is not written.
#[test]
fn on_a_full_disk_nothing_new_is_sent_what_is_kept_answers_and_room_mends_it() {
    let (shop, folder) = (Shop::answers(|_| ok(&"x".repeat(200_000))), tempfile::tempdir().unwrap());
    let typed = on_disk(&shop, folder.path());
    let blocks = 8 << 11; // of 512 bytes: 8 MiB
    let gate = Program::under(&typed, &format!("trap '' XFSZ; ulimit -S -f {blocks}"));
    assert_eq!(verdict(&gate.client().ask(order("first", "a"))), (200, Some("lead")));
    let mut refused = None;
    for number in 0..200 {
        let sent = shop.requests().len();
        let answer = gate.client().ask(order(&number.to_string(), "a"));
        if answer.status() == 503 {
            assert_eq!(problem(&answer), "store-down");
            refused = Some((number, sent));
            break;
        }
        assert_eq!(verdict(&answer), (200, Some("lead")), "the shop's answer is given, settled or not");
    }
    let (number, sent) = refused.expect("8 MiB are less than 200 answers of 200 KB");
    eventually("it is not ready", || gate.look("/ready").status() == 503);
    assert_eq!(metric(&gate.look("/metrics").text(), "oncegate_store_up"), 0);
    for other in ["x", "y"] {
        assert_eq!(problem(&gate.client().ask(order(other, "a"))), "store-down");
    }
    assert_eq!(shop.requests().len(), sent, "nothing was sent that a restart would not know of");
    assert_eq!(verdict(&gate.client().ask(order("first", "a"))), (200, Some("replay")));

    gate.set_limit("--fsize=unlimited");
    eventually("it is ready", || gate.look("/ready").status() == 200);
    assert_eq!(verdict(&gate.client().ask(order(&number.to_string(), "a"))), (200, Some("lead")));
    gate.kill();
    let gate = Program::start(&typed);
    for id in (0..=number).map(|number| number.to_string()).chain(["first".to_owned()]) {
        assert_eq!(verdict(&gate.client().ask(order(&id, "a"))), (200, Some("replay")), "{id}");
    }
}
