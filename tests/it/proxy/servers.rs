//! Several servers of one shop: which of them is sent to, when one fails, fills up, is checked or taken out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use oncegate::{
    config::Config,
    upstream::{Balance, fleet::Role},
};
use serde_json::Value;

use super::{
    gate::{Gate, Typed, get, order},
    shop::{Shop, eventually, ok},
    wire::Wire,
};

fn named(name: &'static str) -> Shop {
    Shop::answers(move |_| ok(name))
}

fn one_core(shops: &[&Shop]) -> Typed {
    Typed { runtime: "workers = 1".to_owned(), ..Typed::before_all(shops) }
}

fn who_answers(client: &mut Wire, times: usize) -> Vec<String> {
    (0..times).map(|_| client.ask(get("/a")).text()).collect()
}

fn server_of(gate: &Gate, shop: &Shop) -> Value {
    let told: Value = serde_json::from_str(&gate.look("/upstreams").text()).expect("it is JSON");
    let servers = told["upstreams"][0]["servers"].as_array().expect("a list").clone();
    let address = shop.address.to_string();
    servers.into_iter().find(|server| server["server"] == address.as_str()).expect("it is listed")
}

fn change(gate: &Gate, shop: &Shop, word: &str) -> u16 {
    let target = format!("/upstreams/shop/servers/{}/{word}", shop.address);
    let head = format!("POST {target} HTTP/1.1\r\nHost: {}\r\nOncegate-Operator: me\r\n\r\n", gate.admin);
    Wire::connect(gate.admin).ask(head).status()
}

#[test]
fn servers_get_their_share_in_turn() {
    let (one, other) = (named("one"), named("other"));
    let gate = Gate::changed(&one_core(&[&one, &other]), |config: &mut Config| {
        config.upstreams[0].servers[0].weight = 2;
    });
    assert_eq!(who_answers(&mut gate.client(), 6), ["one", "other", "one", "one", "other", "one"]);
}

#[test]
fn one_order_goes_to_one_server_and_one_client_to_one() {
    let shops = [named("a"), named("b"), named("c")];
    let gate = Gate::changed(&one_core(&[&shops[0], &shops[1], &shops[2]]), |config: &mut Config| {
        config.upstreams[0].fleet.balance = Balance::Hash;
    });
    let mut client = gate.client();
    let mut places = Vec::new();
    for id in 0..12 {
        let asked = |client: &mut Wire, body: &str| client.ask(order(&id.to_string(), body)).text();
        let place = asked(&mut client, "cart");
        assert_eq!(asked(&mut client, "another cart"), place);
        places.push(place);
    }
    places.sort();
    places.dedup();
    assert!(places.len() > 1, "twelve orders are spread");
    let mut same = who_answers(&mut client, 6);
    same.dedup();
    assert_eq!(same.len(), 1);
}

#[test]
fn a_busy_server_is_passed_by_where_the_least_busy_is_next() {
    let (go_on, told) = mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let busy = Shop::talks(move |wire, seen| {
        while let Some(request) = wire.request()? {
            seen.note(&request);
            told.lock().expect("nobody panics").recv().map_err(std::io::Error::other)?;
            wire.try_send(ok("busy"))?;
        }
        Ok(())
    });
    let idle = named("idle");
    let gate = Gate::changed(&one_core(&[&busy, &idle]), |config: &mut Config| {
        config.upstreams[0].fleet.balance = Balance::LeastConnections;
    });
    let mut waiting = gate.client();
    waiting.send(get("/slow"));
    busy.wait_for(1);
    assert_eq!(who_answers(&mut gate.client(), 5), ["idle"; 5]);
    go_on.send(()).expect("the shop waits");
    assert_eq!(waiting.answer().text(), "busy");
    // What was counted in is counted out.
    assert_eq!(server_of(&gate, &busy)["at_work"], 0);
}

#[test]
fn a_full_server_lets_wait_and_refuses_whom_it_cannot() {
    let (go_on, told) = mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let shop = Shop::talks(move |wire, seen| {
        while let Some(request) = wire.request()? {
            seen.note(&request);
            told.lock().expect("nobody panics").recv().map_err(std::io::Error::other)?;
            wire.try_send(ok("served"))?;
        }
        Ok(())
    });
    let gate = Gate::changed(&one_core(&[&shop]), |config: &mut Config| {
        let upstream = &mut config.upstreams[0];
        upstream.servers[0].connections_max = Some(1);
        upstream.fleet.queue_max = 1;
        upstream.fleet.queue_timeout = Duration::from_secs(30);
    });
    let (mut first, mut second) = (gate.client(), gate.client());
    first.send(get("/first"));
    shop.wait_for(1);
    second.send(get("/second"));
    eventually("the second waits", || server_of(&gate, &shop)["waiting"] == 1);
    let refused = gate.client().ask(get("/third"));
    assert_eq!(refused.status(), 503);
    assert!(refused.get("retry-after").is_some());
    assert_eq!(shop.requests().len(), 1);
    for _ in 0..2 {
        go_on.send(()).expect("the shop waits");
    }
    assert_eq!((first.answer().text(), second.answer().text()), ("served".into(), "served".into()));
}

#[test]
fn an_order_that_finds_no_room_is_not_sent_and_may_come_again() {
    let (go_on, told) = mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let shop = Shop::talks(move |wire, seen| {
        while let Some(request) = wire.request()? {
            seen.note(&request);
            told.lock().expect("nobody panics").recv().map_err(std::io::Error::other)?;
            wire.try_send(ok("served"))?;
        }
        Ok(())
    });
    let gate = Gate::changed(&one_core(&[&shop]), |config: &mut Config| {
        let upstream = &mut config.upstreams[0];
        upstream.servers[0].connections_max = Some(1);
        upstream.fleet.queue_max = 0;
    });
    let mut first = gate.client();
    first.send(get("/first"));
    shop.wait_for(1);
    let refused = gate.client().ask(order("1", "cart"));
    assert_eq!(refused.status(), 502, "{}", refused.text());
    assert_eq!(shop.requests().len(), 1);
    for _ in 0..2 {
        go_on.send(()).expect("the shop waits");
    }
    first.answer();
    let again = gate.client().ask(order("1", "cart"));
    assert_eq!((again.status(), again.get("oncegate-verdict")), (200, Some("lead")));
}

#[test]
fn a_server_that_fails_its_checks_gets_nothing_until_it_passes_them() {
    let healthy = Arc::new(AtomicBool::new(true));
    let is_healthy = Arc::clone(&healthy);
    let checked = Shop::answers(move |request| {
        if !request.start.contains("/health") {
            return ok("checked");
        }
        if is_healthy.load(SeqCst) {
            ok("fine")
        } else {
            "HTTP/1.1 503 Down\r\ncontent-length: 0\r\n\r\n".into()
        }
    });
    let other = Shop::answers(|request| ok(if request.start.contains("/health") { "fine" } else { "other" }));
    let health = "health = { path = \"/health\", expect = { status = [200], body = \"^fine$\" }, interval = \
                  \"100ms\", fall = 2, rise = 2 }";
    let gate = Gate::start(&Typed { upstream: health.to_owned(), ..one_core(&[&checked, &other]) });
    let condition = || server_of(&gate, &checked)["condition"].as_str().map(str::to_owned);
    eventually("it is checked", || checked.requests().len() > 2);
    assert_eq!(condition().as_deref(), Some("up"));
    healthy.store(false, SeqCst);
    eventually("it is taken out", || condition().as_deref() == Some("unhealthy"));
    assert_eq!(who_answers(&mut gate.client(), 4), ["other"; 4]);
    assert!(server_of(&gate, &checked)["check"].as_str().is_some_and(|why| why.contains("503")));
    let up = format!("oncegate_server_up{{upstream=\"shop\",server=\"{}\"}}", checked.address);
    let is_up = |wanted: &str| gate.look("/metrics").text().contains(&format!("{up} {wanted}\n"));
    eventually("the metric shows it", || is_up("0"));
    healthy.store(true, SeqCst);
    eventually("it is back", || condition().as_deref() == Some("up"));
    eventually("the metric shows it", || is_up("1"));
    let mut answers = who_answers(&mut gate.client(), 4);
    answers.sort();
    assert_eq!(answers, ["checked", "checked", "other", "other"]);
}

#[test]
fn when_no_server_is_up_it_is_said_at_once_and_nothing_is_sent() {
    let shop = Shop::answers(|_| "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n");
    let health = "health = { path = \"/health\", interval = \"100ms\", fall = 1, rise = 1 }";
    let gate = Gate::start(&Typed { upstream: health.to_owned(), ..one_core(&[&shop]) });
    eventually("it is out", || server_of(&gate, &shop)["condition"] == "unhealthy");
    for request in [get("/a"), order("1", "cart")] {
        assert_eq!(gate.client().ask(request).status(), 502);
    }
    assert!(shop.requests().iter().all(|request| request.start.starts_with("GET /health ")));
}

#[test]
fn an_operator_takes_a_server_out_and_what_it_has_ends_well() {
    let (go_on, told) = mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let leaving = Shop::talks(move |wire, seen| {
        while let Some(request) = wire.request()? {
            seen.note(&request);
            told.lock().expect("nobody panics").recv().map_err(std::io::Error::other)?;
            wire.try_send(ok("leaving"))?;
        }
        Ok(())
    });
    let staying = named("staying");
    let gate = Gate::start(&one_core(&[&leaving, &staying]));
    let mut running = gate.client();
    running.send(get("/a"));
    leaving.wait_for(1);
    assert_eq!(change(&gate, &leaving, "drain"), 200);
    assert_eq!(server_of(&gate, &leaving)["condition"], "drained");
    assert_eq!(who_answers(&mut gate.client(), 5), ["staying"; 5]);
    go_on.send(()).expect("the shop waits");
    assert_eq!(running.answer().text(), "leaving");
    assert_eq!(change(&gate, &leaving, "restore"), 200);
    go_on.send(()).expect("the shop is there");
    let mut answers = who_answers(&mut gate.client(), 2);
    answers.sort();
    assert_eq!(answers, ["leaving", "staying"]);
}

#[test]
fn nobody_takes_a_server_out_from_a_web_page_or_by_looking() {
    let shop = named("shop");
    let gate = Gate::before(&shop);
    let target = format!("/upstreams/shop/servers/{}/drain", shop.address);
    assert_eq!(gate.look(&target).status(), 405);
    let forged = format!("POST {target} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n", gate.admin);
    assert_eq!(Wire::connect(gate.admin).ask(forged).status(), 403);
    assert_eq!(server_of(&gate, &shop)["condition"], "up");
}

#[test]
fn a_backup_serves_while_the_others_cannot_be_reached() {
    let (gone, backup) = (named("gone"), named("backup"));
    let mut typed = one_core(&[&gone, &backup]);
    // Nobody listens there.
    typed.servers[0] = ([127, 0, 0, 1], 1).into();
    let gate =
        Gate::changed(&typed, |config: &mut Config| config.upstreams[0].servers[1].role = Role::Backup);
    assert_eq!(who_answers(&mut gate.client(), 5), ["backup"; 5]);
    assert_eq!(gate.client().ask(order("1", "cart")).text(), "backup");
}
