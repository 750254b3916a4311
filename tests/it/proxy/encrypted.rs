//! TLS in front of a shop: with curl, openssl and a client that shows what a handshake came to.

use std::{io, net::TcpStream, thread};

use rustls::HandshakeKind;

use super::{
    certificates::{Authority, Encrypted, Versions, connect, read, shown},
    gate::{Gate, Typed, get, order},
    peers::{curl, openssl},
    shop::{Shop, eventually},
    wire::{Ended, Wire},
};

/// An authority that has signed for `shop.example`, and a shop behind a gate that shows this.
fn encrypted(shop: &Shop, more: &str) -> (Authority, Gate) {
    let authority = Authority::new();
    authority.sign("shop", &["shop.example"]);
    let gate = gate(&authority, shop, &["shop"], more);
    (authority, gate)
}

fn gate(authority: &Authority, shop: &Shop, files: &[&str], more: &str) -> Gate {
    Gate::start(&Typed { listener: authority.listener(files) + more, ..Typed::before(shop) })
}

fn handshakes(gate: &Gate, result: &str) -> u64 {
    labelled(gate, "oncegate_tls_handshakes_total", &format!("result=\"{result}\""))
}

fn labelled(gate: &Gate, name: &str, label: &str) -> u64 {
    let page = gate.look("/metrics").text();
    let line = page.lines().find(|line| line.starts_with(name) && line.contains(label));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{label}:\n{page}"))
}

#[test]
fn curl_is_served_over_both_versions_and_the_shop_is_told_https() {
    let shop = Shop::counts();
    let (authority, gate) = encrypted(&shop, "");
    for (number, versions) in ["1.2", "1.3"].into_iter().enumerate() {
        let only = [&*format!("--tlsv{versions}"), "--tls-max", versions, "--http1.1"];
        let said = curl(&authority.path("authority.pem"), gate.address, "https://shop.example/a", &only);
        assert_eq!(said.out, (number + 1).to_string(), "{}", said.err);
    }
    for request in shop.requests() {
        assert_eq!(request.get("x-forwarded-proto"), Some("https"));
        assert_eq!(request.get("forwarded"), Some("for=127.0.0.1;host=shop.example;proto=https"));
    }
}

#[test]
fn an_order_over_tls_is_paid_once() {
    let shop = Shop::counts();
    let (authority, gate) = encrypted(&shop, "");
    let client = authority.client(Versions::Tls13, None);
    let ask = || connect(&client, gate.address, "shop.example").unwrap().ask(order("7", "cart"));
    assert_eq!((ask().text(), ask().text()), ("1".to_owned(), "1".to_owned()));
    assert_eq!(shop.only().get("x-forwarded-proto"), Some("https"));
}

#[test]
fn older_versions_and_weak_suites_are_refused() {
    let shop = Shop::counts();
    let (_authority, gate) = encrypted(&shop, "");
    let weakest = ["-cipher", "ALL:@SECLEVEL=0"];
    for version in ["-tls1", "-tls1_1"] {
        let said = openssl(gate.address, &[&[version], &weakest[..]].concat(), "");
        // Which one depends on whether the suites or the versions are looked at first.
        let refused = ["alert protocol version", "alert handshake failure"];
        assert!(refused.iter().any(|alert| said.err.contains(alert)), "{version}: {}", said.err);
    }
    for suite in ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-SHA256", "aNULL"] {
        let cipher = format!("{suite}:@SECLEVEL=0");
        let said = openssl(gate.address, &["-tls1_2", "-cipher", &cipher], "");
        assert!(said.err.contains("alert handshake failure"), "{suite}: {}", said.err);
    }
    let said = openssl(gate.address, &["-tls1_2"], "");
    assert!(said.out.contains("Secure Renegotiation IS supported"), "{}", said.out);
    assert!(said.out.contains("Compression: NONE"), "{}", said.out);
}

#[test]
fn a_client_is_shown_the_certificate_of_the_name_that_it_asks_for() {
    let (shop, authority) = (Shop::counts(), Authority::new());
    authority.sign("first", &["first.example"]);
    authority.sign("wild", &["*.shop.example"]);
    authority.sign("exact", &["pay.shop.example"]);
    let gate = gate(&authority, &shop, &["first", "wild", "exact"], "");
    for (asked, expected) in [
        (Some("pay.shop.example"), "pay.shop.example"),
        (Some("PAY.Shop.Example"), "pay.shop.example"),
        (Some("www.shop.example"), "*.shop.example"),
        // A wildcard is one label.
        (Some("a.b.shop.example"), "first.example"),
        (Some("shop.example"), "first.example"),
        (Some("first.example"), "first.example"),
        (None, "first.example"),
    ] {
        let name = asked.map_or_else(|| vec!["-noservername"], |name| vec!["-servername", name]);
        let said = openssl(gate.address, &name, "");
        assert!(said.out.contains(&format!("subject=CN = {expected}\n")), "{asked:?}: {}", said.out);
    }
}

#[test]
fn new_files_are_shown_to_new_connections_and_open_ones_go_on() {
    let shop = Shop::counts();
    let (authority, gate) = encrypted(&shop, "");
    let client = authority.client(Versions::Tls13, None);
    let dial = || connect(&client, gate.address, "shop.example").expect("a handshake");
    let mut open = dial();
    assert_eq!(open.ask(get("/")).status(), 200);
    let old = shown(&open);

    authority.sign("shop", &["shop.example"]);
    let new = read(&authority.path("shop.pem")).remove(0);
    assert_ne!(old, new);
    // A client that was here before resumes, and is shown no certificate: each of these is a stranger.
    let strangers = || connect(&authority.client(Versions::Tls13, None), gate.address, "shop.example");
    eventually("the new certificate is shown", || shown(&strangers().expect("no handshake fails")) == new);
    assert_eq!(open.ask(get("/")).status(), 200, "the open connection goes on");
    assert_eq!(labelled(&gate, "oncegate_certificate_reloads_total", "\"done\""), 1);
}

#[test]
fn a_file_that_cannot_be_used_changes_nothing_and_is_told() {
    let shop = Shop::counts();
    let (authority, gate) = encrypted(&shop, "");
    let old = read(&authority.path("shop.pem")).remove(0);
    let refused = || labelled(&gate, "oncegate_certificate_reloads_total", "\"failed\"");
    let now = || {
        let client = authority.client(Versions::Tls13, None);
        shown(&connect(&client, gate.address, "shop.example").expect("a handshake"))
    };
    // The key of another certificate, then no certificate at all.
    authority.sign("other", &["shop.example"]);
    authority.write("shop.key", &std::fs::read(authority.path("other.key")).unwrap());
    eventually("the wrong key is refused", || refused() == 1);
    assert_eq!(now(), old);
    authority.write("shop.pem", b"<html>not today</html>");
    eventually("the page is refused", || refused() == 2);
    assert_eq!(now(), old);
    // Mended, it is taken.
    authority.sign("shop", &["shop.example"]);
    let new = read(&authority.path("shop.pem")).remove(0);
    eventually("the mended files are shown", || now() == new);
    assert_eq!((refused(), handshakes(&gate, "failed")), (2, 0));
}

#[test]
fn a_client_that_comes_back_resumes_also_after_an_exchange_of_files() {
    let shop = Shop::counts();
    let (authority, gate) = encrypted(&shop, "");
    for versions in [Versions::Tls12, Versions::Tls13] {
        let client = authority.client(versions, None);
        let visit = || {
            let mut wire = connect(&client, gate.address, "shop.example").expect("a handshake");
            assert_eq!(wire.ask(get("/")).status(), 200);
            wire.stream.conn.handshake_kind().expect("it is over")
        };
        assert_eq!(visit(), HandshakeKind::Full, "{versions:?}");
        assert_eq!(visit(), HandshakeKind::Resumed, "{versions:?}");
        let reloads = || labelled(&gate, "oncegate_certificate_reloads_total", "\"done\"");
        let before = reloads();
        authority.sign("shop", &["shop.example"]);
        eventually("the files are exchanged", || reloads() > before);
        assert_eq!(visit(), HandshakeKind::Resumed, "{versions:?}");
    }
    assert_eq!(handshakes(&gate, "resumed"), 4);
}

#[test]
fn nobody_is_offered_early_data() {
    let shop = Shop::counts();
    let (authority, gate) = encrypted(&shop, "");
    let client = authority.client(Versions::Tls13, None);
    for _ in 0..2 {
        let mut wire = connect(&client, gate.address, "shop.example").expect("a handshake");
        assert!(wire.stream.conn.early_data().is_none());
        assert_eq!(wire.ask(get("/")).status(), 200);
    }
}

#[test]
fn the_answer_of_the_authority_is_stapled_where_the_file_is_there() {
    let (shop, authority) = (Shop::counts(), Authority::new());
    authority.sign("shop", &["shop.example"]);
    let ocsp = format!(", ocsp = {:?} }}", authority.path("shop.ocsp"));
    let listener = authority.listener(&["shop"]).replace(" }", &ocsp);
    let gate = Gate::start(&Typed { listener, ..Typed::before(&shop) });
    let status = || openssl(gate.address, &["-status", "-servername", "shop.example"], "").out;
    assert!(status().contains("OCSP response: no response sent"), "{}", status());
    // The shortest answer there is: "try later" (RFC 6960 section 4.2.1).
    authority.write("shop.ocsp", &[0x30, 0x03, 0x0A, 0x01, 0x03]);
    eventually("it is stapled", || status().contains("OCSP Response Status: trylater"));
    authority.write("shop.ocsp", b"404 not found");
    eventually("what is none is refused", || {
        labelled(&gate, "oncegate_certificate_reloads_total", "\"failed\"") == 1
    });
    assert!(status().contains("OCSP Response Status: trylater"));
}

#[test]
fn a_certificate_of_the_client_is_asked_for_and_verified() {
    let stranger = Authority::new();
    stranger.sign("visitor", &["visitor.example"]);
    for (need, anonymous_is_served) in [("required", false), ("optional", true)] {
        let (shop, authority) = (Shop::counts(), Authority::new());
        authority.sign("shop", &["shop.example"]);
        authority.sign("partner", &["partner.example"]);
        let trusted = authority.path("authority.pem");
        let clients = format!("client_certificates = {{ authority = {trusted:?}, need = \"{need}\" }}");
        let gate = gate(&authority, &shop, &["shop"], &clients);
        let visit = |own: Option<(&Authority, &str)>| -> io::Result<u16> {
            let mut client = (*authority.client(Versions::Tls13, None)).clone();
            if let Some((issuer, file)) = own {
                let shown = issuer.client(Versions::Tls13, Some(file));
                client.client_auth_cert_resolver = std::sync::Arc::clone(&shown.client_auth_cert_resolver);
            }
            let mut wire: Encrypted = connect(&client.into(), gate.address, "shop.example")?;
            Ok(wire.try_answer_to(get("/"))?.status())
        };
        assert_eq!(visit(Some((&authority, "partner"))).expect("it is known"), 200);
        assert_eq!(visit(None).is_ok(), anonymous_is_served, "{need}");
        assert!(visit(Some((&stranger, "visitor"))).is_err(), "{need}");
        assert_eq!(shop.requests().len(), 1 + usize::from(anonymous_is_served));
    }
}

#[test]
fn a_handshake_that_does_not_go_on_is_ended() {
    let shop = Shop::counts();
    let authority = Authority::new();
    authority.sign("shop", &["shop.example"]);
    let limits = "handshake_timeout = \"1s\"\nhandshakes_max = 2".to_owned();
    let typed = Typed { listener: authority.listener(&["shop"]), limits, ..Typed::before(&shop) };
    let gate = Gate::start(&typed);
    // One says nothing, one has begun a hello. A third is one too many while they are there.
    let mut silent = gate.client();
    let mut begun = gate.client();
    begun.send([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]);
    eventually("a third is refused", || {
        let mut third = Wire::of(TcpStream::connect(gate.address).expect("it listens"));
        third.ended();
        handshakes(&gate, "refused") > 0 || handshakes(&gate, "late") > 0
    });
    assert_eq!((silent.ended(), begun.ended()), (Ended::Closed, Ended::Closed));
    assert!(handshakes(&gate, "late") >= 2);
    let client = authority.client(Versions::Tls13, None);
    let served = connect(&client, gate.address, "shop.example").expect("there is room again").ask(get("/"));
    assert_eq!(served.status(), 200);
}

#[test]
fn what_is_no_tls_ends_and_harms_nobody() {
    let shop = Shop::counts();
    let (authority, gate) = encrypted(&shop, "");
    let client = authority.client(Versions::Tls13, None);
    let mut bystander = connect(&client, gate.address, "shop.example").expect("a handshake");
    let too_long = [&[0x16, 0x03, 0x01, 0xFF, 0xFF][..], &[0; 70_000]].concat();
    let nothing_in_it = [0x16, 0x03, 0x01, 0x00, 0x00].repeat(1000);
    let noise: Vec<u8> =
        (0..4096_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for garbage in [get("/").as_bytes(), &too_long, &nothing_in_it, &noise, &[0x80, 0x2E, 0x01, 0x00, 0x02]] {
        let mut wire = gate.client();
        let _ = wire.try_send(garbage);
        // It may have ended by now.
        let _ = wire.stream.shutdown(std::net::Shutdown::Write);
        // An alert may come before the end.
        while wire.some().is_ok_and(|bytes| !bytes.is_empty()) {}
    }
    assert_eq!(bystander.ask(get("/")).status(), 200);
    assert_eq!(shop.requests().len(), 1);
}

#[test]
fn files_are_exchanged_under_load_without_a_failed_request() {
    let shop = Shop::counts();
    let (authority, gate) = encrypted(&shop, "");
    let exchanged = || labelled(&gate, "oncegate_certificate_reloads_total", "\"done\"") >= 2;
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut visits = 0;
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        let client = authority.client(Versions::Tls13, None);
                        let mut wire = connect(&client, gate.address, "shop.example").expect("a handshake");
                        for _ in 0..10 {
                            assert_eq!(wire.ask(get("/")).status(), 200);
                            visits += 1;
                        }
                    }
                    visits
                })
            })
            .collect();
        for count in 1..=2 {
            authority.sign("shop", &["shop.example"]);
            eventually("the files are exchanged", || {
                exchanged() || labelled(&gate, "oncegate_certificate_reloads_total", "\"done\"") == count
            });
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let visits: usize = clients.into_iter().map(|client| client.join().expect("no visit fails")).sum();
        assert!(visits > 0);
    });
    assert_eq!(handshakes(&gate, "failed"), 0);
}

#[test]
fn plain_http_is_sent_to_https_and_reaches_no_shop() {
    let shop = Shop::counts();
    let gate =
        Gate::start(&Typed { listener: "redirect_to_https = true".to_owned(), ..Typed::before(&shop) });
    let mut client = gate.client();
    let page = client.ask(get("/cart?a=b"));
    assert_eq!((page.status(), page.get("location")), (301, Some("https://shop.example/cart?a=b")));
    let placed = client.ask(order("1", "cart"));
    assert_eq!((placed.status(), placed.get("location")), (308, Some("https://shop.example/order?id=1")));
    let broken = gate.client().ask("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    assert_eq!((broken.status(), broken.get("location")), (400, None));
    assert_eq!(shop.requests().len(), 0);
}
