//! Connections spread over cores, orders do not: what comes on different cores meets in one claim table.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
};

use super::{
    gate::{Gate, Typed, get, order},
    shop::{Shop, eventually, ok},
    wire::Wire,
};

const CLIENTS: usize = 16;

fn every_way() -> impl Iterator<Item = (String, &'static str)> {
    ["dispatch", "reuseport"].into_iter().flat_map(|accept| {
        [1, 2, 4].map(|workers| (format!("workers = {workers}\naccept = \"{accept}\""), accept))
    })
}

#[test]
fn the_same_order_on_many_cores_reaches_the_shop_once() {
    for (runtime, _) in every_way() {
        let (go_on, told) = mpsc::channel::<()>();
        let told = Mutex::new(told);
        let shop = Shop::talks(move |wire, seen| {
            while let Some(request) = wire.request()? {
                seen.note(&request);
                told.lock().expect("nobody panics").recv().map_err(io::Error::other)?;
                wire.try_send(ok("order 1001"))?;
            }
            Ok(())
        });
        let gate = Gate::start(&Typed { runtime: runtime.clone(), ..Typed::before(&shop) });
        let mut clients: Vec<Wire> = (0..CLIENTS).map(|_| gate.client()).collect();
        for client in &mut clients {
            client.send(order("1", "cart"));
        }
        let others = i64::try_from(CLIENTS - 1).expect("it is small");
        eventually("all but one follow", || gate.metric("oncegate_followers") == others);
        assert_eq!(gate.metric("oncegate_flights"), 1, "{runtime}");
        go_on.send(()).expect("the shop waits");
        let answers: Vec<_> = clients.iter_mut().map(Wire::answer).collect();
        assert!(answers.iter().all(|answer| answer.text() == "order 1001"), "{runtime}");
        let leads = answers.iter().filter(|answer| answer.get("oncegate-verdict") == Some("lead")).count();
        assert_eq!((leads, shop.requests().len()), (1, 1), "{runtime}");
        // And later, on any core, it is replayed.
        for client in &mut clients {
            assert_eq!(client.ask(order("1", "cart")).get("oncegate-verdict"), Some("replay"), "{runtime}");
        }
        assert_eq!(shop.requests().len(), 1, "{runtime}");
    }
}

#[test]
fn requests_of_one_order_on_many_cores_never_overlap() {
    for (runtime, _) in every_way() {
        let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, top) = (Arc::clone(&inside), Arc::clone(&most));
        let shop = Shop::answers(move |_| {
            top.fetch_max(counted.fetch_add(1, SeqCst) + 1, SeqCst);
            thread::yield_now();
            counted.fetch_sub(1, SeqCst);
            ok("done")
        });
        let gate = Gate::start(&Typed { runtime: runtime.clone(), ..Typed::before(&shop) });
        let mut clients: Vec<Wire> = (0..CLIENTS).map(|_| gate.client()).collect();
        for round in 0..5 {
            for (number, client) in clients.iter_mut().enumerate() {
                // All of one order, no two the same, and the browser's way back among them.
                match number % 4 {
                    0 => client.send(get("/back?id=1")),
                    _ => client.send(order("1", &format!("cart {round} {number}"))),
                }
            }
            for client in &mut clients {
                assert_eq!(client.answer().text(), "done", "{runtime}");
            }
        }
        assert_eq!((most.load(SeqCst), shop.requests().len()), (1, 5 * CLIENTS), "{runtime}");
    }
}

#[test]
fn connections_are_handed_to_the_core_with_the_fewest() {
    let shop = Shop::counts();
    let gate = Gate::start(&Typed { runtime: "workers = 4".to_owned(), ..Typed::before(&shop) });
    let mut clients: Vec<Wire> = (0..8).map(|_| gate.client()).collect();
    for client in &mut clients {
        assert_eq!(client.ask(get("/a")).status(), 200);
    }
    // Each core has its own connections to the shop, and every one of them was used.
    assert_eq!(shop.connections(), 4);
}
