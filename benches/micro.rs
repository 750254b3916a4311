//! What the pure stages and the memory store cost, one by one: `cargo bench`. As a test (`cargo test --bench micro`) each
//! body runs once, which keeps the benches from rotting and measures nothing.
//!
//! Nothing here opens a socket. Side-by-side measurements against other proxies are not micro benches.

use std::{hint::black_box, path::Path, time::Duration};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use oncegate::{
    config::{Config, Guard, Route},
    edge::strict::{StrictLimits, scan},
    request::{self, Reading, Secret, View},
    route::{matcher::Head, path},
    store::{
        Ask, Claimed, Ending, Fence, Headers, Hold, InDoubtPolicy, Kept, Key, May, Owner, Record, Settled,
        Store,
        memory::{Memory, MemoryLimits},
    },
};

const PATH: &str = "/rest/default/V1/guest-carts/k3VwT0h8aGm2pYxQ/payment-information";
const COOKIE: &str = "PHPSESSID=4b1f0c0f2d9e4a6f8c1b; wp_lang=de_DE; _ga=GA1.2.1234567890.1700000000";
const DECODED_BYTES_MAX: usize = 4 << 20;

fn fingerprint(bench: &mut Criterion) {
    let config = config();
    let guard = guard(&config);
    let secret = Secret::new([7; 32]);
    let body = order_of_two_kilobytes();
    let headers = headers();
    assert!((1800..2200).contains(&body.len()), "{} bytes are no 2 KB", body.len());
    let mut group = bench.benchmark_group("fingerprint");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("JSON of 2 KB", |run| {
        run.iter(|| reading(guard, &secret, black_box(&headers), black_box(&body)));
    });
    group.finish();
}

fn reading(guard: &Guard, secret: &Secret, headers: &HeaderMap, body: &Bytes) -> Reading {
    let content = request::body::read(headers, body, DECODED_BYTES_MAX);
    let params = [("cart".to_owned(), "k3VwT0h8aGm2pYxQ".to_owned())];
    let view =
        View { method: &Method::POST, host: "shop.example", path: PATH, query: "", headers, params: &params };
    request::read(&guard.rules, secret, &view, &content).expect("the order is in the path")
}

fn routing(bench: &mut Criterion) {
    let config = config();
    let headers = headers();
    let mut group = bench.benchmark_group("route");
    let mut asked = |name: &str, path: &str, expected: &str| {
        group.bench_function(name, |run| {
            run.iter(|| assert_eq!(first_match(&config.routes, black_box(path), &headers).name, expected));
        });
    };
    asked("a guarded path, sixth of seven", PATH, "guest-checkout");
    asked("a picture, last of seven", "/media/catalog/shirt-blue/front-view", "everything-else");
    asked(
        "a path in an odd spelling",
        "/rest//V1/./guest%2Dcarts/k3;x/payment-information",
        "guest-checkout",
    );
    group.finish();
}

fn first_match<'r>(routes: &'r [Route], raw_path: &str, headers: &HeaderMap) -> &'r Route {
    let readings = path::read(raw_path);
    let view = View {
        method: &Method::POST,
        host: "shop.example",
        path: &readings.path,
        query: "",
        headers,
        params: &[],
    };
    routes
        .iter()
        .find(|route| matches!(route.matcher.head(&view, &readings), Head::Yes(_)))
        .expect("the last route takes everything")
}

fn claiming(bench: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("needs no resources");
    let store = Memory::new(MemoryLimits { records_bytes_max: 64 << 20, states_max: 1 << 20 });
    let mut number = 0_u64;
    bench.bench_function("claim and settle, memory store", |run| {
        run.iter_batched(
            || {
                number += 1;
                ask(number)
            },
            |ask| {
                let settled = runtime.block_on(async {
                    let Ok(Claimed::Lead(hold)) = store.claim(&ask).await else { return None };
                    store.settle(&hold, done(hold.fence)).await.ok()
                });
                assert_eq!(settled, Some(Settled::InTime));
            },
            BatchSize::SmallInput,
        );
    });
    let first = ask(0);
    let held: Option<Hold> = runtime.block_on(async {
        let Ok(Claimed::Lead(hold)) = store.claim(&first).await else { return None };
        let settled = store.settle(&hold, done(hold.fence)).await;
        settled.ok().map(|_| hold)
    });
    assert!(held.is_some(), "a fresh order leads");
    bench.bench_function("claim of a duplicate, memory store", |run| {
        run.iter(|| {
            let claimed = runtime.block_on(store.claim(black_box(&first)));
            assert!(matches!(claimed, Ok(Claimed::Replay(_))));
        });
    });
}

fn scanning(bench: &mut Criterion) {
    let limits = StrictLimits { head_bytes_max: 64 << 10, target_bytes_max: 16 << 10, fields_max: 100 };
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: shop.example\r\nuser-agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101\r\n\
         accept: */*\r\naccept-language: de,en-US;q=0.7,en;q=0.3\r\naccept-encoding: gzip, deflate, br\r\n\
         content-type: application/json\r\ncontent-length: 2000\r\norigin: https://shop.example\r\n\
         x-requested-with: XMLHttpRequest\r\ncookie: {COOKIE}\r\nconnection: keep-alive\r\n\r\n"
    );
    let mut group = bench.benchmark_group("strict head");
    group.throughput(Throughput::Bytes(head.len() as u64));
    group.bench_function("a browser's, of twelve lines", |run| {
        run.iter(|| {
            let verdict = scan::head(black_box(head.as_bytes()), &limits);
            assert!(matches!(verdict, scan::Verdict::Whole(_)));
        });
    });
    group.finish();
}

fn judging(bench: &mut Criterion) {
    let config = config();
    let done_when = &guard(&config).done_when;
    let filler = "<li>Your order has been received.</li>".repeat(9);
    let answer = format!(
        r#"{{"messages":"{filler}","refresh":false,"result":"success","redirect":"https://shop.example/checkout/order-received/1001?key=wc_order_a1b2c3"}}"#
    );
    assert!((450..550).contains(&answer.len()), "{} bytes are no 500", answer.len());
    let headers = headers();
    bench.bench_function("judge a JSON answer of 500 B", |run| {
        run.iter(|| {
            let judged = done_when.judge(StatusCode::OK, &headers, black_box(answer.as_bytes()));
            assert_eq!(judged, oncegate::store::Judged::Done);
        });
    });
}

fn config() -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/shop.toml");
    Config::load(&path).expect("the shop of the benches is sound").config
}

fn guard(config: &Config) -> &Guard {
    config.route("guest-checkout").and_then(|route| route.guard.as_ref()).expect("benches/shop.toml has it")
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::COOKIE, HeaderValue::from_static(COOKIE));
    headers
}

/// What a guest's browser sends to place an order: addresses, a method of payment, extension attributes.
fn order_of_two_kilobytes() -> Bytes {
    let address = r#"{"countryId":"DE","regionId":"82","street":["Beispielweg 12","2. Stock"],"company":null,"telephone":"030 1234567","postcode":"10115","city":"Berlin","firstname":"Ada","lastname":"Muster","saveInAddressBook":0}"#;
    let items: Vec<String> = (1..=12)
        .map(|n| format!(r#"{{"sku":"shirt-blue-{n}","qty":{n},"price":"{n}9.90","options":{{"size":"L","gift":false}},"note":"as in \u00fcbersicht {n}"}}"#))
        .collect();
    format!(
        r#"{{"cartId":"k3VwT0h8aGm2pYxQ","email":"ada@example.org","form_key":"aB3dE5fG7h","billingAddress":{address},"shippingAddress":{address},"paymentMethod":{{"method":"checkmo","po_number":null,"additional_data":{{"items":[{}]}}}},"amount":123.40}}"#,
        items.join(",")
    )
    .into()
}

fn ask(number: u64) -> Ask {
    let key = |what: u8| {
        let mut bytes = [what; 32];
        bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        Key(bytes)
    };
    Ask {
        owner: Owner(u128::from(number)),
        lanes: [key(1)].into_iter().collect(),
        fingerprint: Some(key(2)),
        scope: None,
        body: None,
        generations: [key(3)].into_iter().collect(),
        may: May::FollowAny,
        lease: Duration::from_secs(10),
        in_doubt: InDoubtPolicy::Hold(Duration::from_mins(10)),
    }
}

fn done(fence: Fence) -> Ending {
    let record = Record {
        status: StatusCode::OK,
        headers: Headers::default(),
        body: Kept::Whole(Bytes::from_static(b"{\"result\":\"success\"}")),
        fence,
        answered_at: 1_763_683_200,
        remaining: Duration::ZERO,
    };
    Ending::Done { record: record.into(), unseen: Duration::from_mins(60), seen: Duration::from_mins(60) }
}

criterion_group!(benches, fingerprint, routing, claiming, scanning, judging);
criterion_main!(benches);
