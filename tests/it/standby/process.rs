//! The program and a real Redis, which is killed and started again. Each Redis has a port and a folder of its own.

use std::{
    fs,
    io::{BufRead, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Whatever is waited for happens within this.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// A Redis of the test's own.
struct Redis {
    child: Option<Child>,
    port: u16,
    folder: TempDir,
    arguments: Vec<&'static str>,
}

impl Redis {
    fn start(arguments: &[&'static str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it has one").port();
        let folder = tempfile::tempdir().expect("a folder for a Redis");
        let mut redis = Self { child: None, port, folder, arguments: arguments.to_vec() };
        redis.again();
        redis
    }

    /// Starts on the same port, with what is left in its folder.
    fn again(&mut self) {
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--dir"])
            .arg(self.folder.path());
        command.args(["--save", ""]).args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null());
        self.child = Some(command.spawn().expect("redis-server is installed (tests/install)"));
        until("Redis answers", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    fn dies(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.dies();
    }
}

/// A shop that counts.
struct Shop {
    address: SocketAddr,
    orders: Arc<AtomicUsize>,
}

impl Shop {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it has one");
        let orders = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&orders);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let counted = Arc::clone(&counted);
                thread::spawn(move || serve(stream, &counted));
            }
        });
        Self { address, orders }
    }

    fn orders(&self) -> usize {
        self.orders.load(SeqCst)
    }
}

fn serve(stream: TcpStream, orders: &AtomicUsize) {
    let mut reader = BufReader::new(stream);
    while let Some((_, _, _body)) = read_message(&mut reader) {
        let text = format!("run {}", orders.fetch_add(1, SeqCst) + 1);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

type Fields = Vec<(String, String)>;

/// First line, fields, body.
fn read_message(reader: &mut impl BufRead) -> Option<(String, Fields, String)> {
    let mut first = String::new();
    if reader.read_line(&mut first).ok()? == 0 {
        return None;
    }
    let mut fields = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = fields.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().expect("a length"))];
    reader.read_exact(&mut body).ok()?;
    Some((first, fields, String::from_utf8(body).expect("text")))
}

struct Answer {
    status: u16,
    fields: Fields,
    body: String,
}

impl Answer {
    fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

fn exchange(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(request.as_bytes()).expect("it reads");
    let (first, fields, body) = read_message(&mut BufReader::new(stream)).expect("an answer");
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, fields, body }
}

/// One replica, as an operator starts it.
struct Program {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    _folder: TempDir,
}

/// What a start came to that did not succeed.
struct Failed {
    code: i32,
    said: String,
}

impl Program {
    fn start(shop: &Shop, store: &str) -> Self {
        Self::try_start(shop, store).unwrap_or_else(|failed| panic!("{}: {}", failed.code, failed.said))
    }

    fn try_start(shop: &Shop, store: &str) -> Result<Self, Failed> {
        let folder = tempfile::tempdir().expect("a folder for a file");
        let path = folder.path().join("oncegate.toml");
        fs::write(&path, configuration(shop, store)).expect("the folder is ours");
        let mut child = run(&path);
        let mut said = BufReader::new(child.stderr.take().expect("it was piped"));
        let (mut address, mut admin, mut all) = (None, None, String::new());
        while address.is_none() || admin.is_none() {
            let mut line = String::new();
            if said.read_line(&mut line).expect("text") == 0 {
                let code = child.wait().expect("it is our child").code().unwrap_or(-1);
                return Err(Failed { code, said: all });
            }
            let at = |before: &str| {
                let rest = line.strip_prefix(before)?;
                rest.split(['/', ' ', '\n']).next()?.parse::<SocketAddr>().ok()
            };
            address = address.or(at("oncegate: listening on "));
            admin = admin.or(at("oncegate: operators: http://"));
            all.push_str(&line);
        }
        thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, written) = (BufReader::new(child.stdout.take().expect("it was piped")), Arc::clone(&log));
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                written.lock().expect("nobody panics with it").push(line);
            }
        });
        let (address, admin) = (address.expect("it said so"), admin.expect("it said so"));
        Ok(Self { child, address, admin, log, _folder: folder })
    }

    fn post(&self, order: &str) -> Answer {
        let body = format!("order={order}");
        exchange(
            self.address,
            &format!(
                "POST /checkout HTTP/1.1\r\nHost: shop\r\nContent-Type: application/x-www-form-urlencoded\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        )
    }

    fn look(&self, path: &str) -> Answer {
        exchange(self.admin, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.look("/metrics").body;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
    }

    fn events(&self, name: &str) -> usize {
        let wanted = format!("\"event\":\"{name}\"");
        self.log.lock().expect("nobody panics with it").iter().filter(|line| line.contains(&wanted)).count()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(path: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncegate"));
    command.arg("run").arg("--config").arg(path).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

fn configuration(shop: &Shop, store: &str) -> String {
    format!(
        r#"
listener = [{{ address = "127.0.0.1:0" }}]
admin = {{ listen = "127.0.0.1:0" }}
upstream = [{{ name = "shop", servers = ["http://{}"] }}]

[store]
{store}

[[route]]
name = "checkout"
upstream = "shop"
match = {{ methods = ["POST"], path = "/checkout" }}
guard = {{ mode = "once", order = ["form:order"], identity = "none", hold_for = "3s", wait_max = "2s" }}

[[route]]
name = "everything-else"
upstream = "shop"
"#,
        shop.address
    )
}

fn store(redis: &Redis, more: &str) -> String {
    format!("kind = \"redis\"\nurl = \"redis://127.0.0.1:{}/0\"\nlease = \"1s\"\n{more}", redis.port)
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < WAIT_MAX, "it never happened that {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

// Redis is killed under two replicas and comes back with what it knew: each goes on alone, and nothing runs twice.
#[test]
fn replicas_sell_on_while_redis_is_dead_and_agree_again_afterwards() {
    let shop = Shop::open();
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (one, other) = (Program::start(&shop, &store(&redis, "")), Program::start(&shop, &store(&redis, "")));
    assert_eq!(one.post("1001").field("oncegate-verdict"), "lead");
    let replayed = other.post("1001");
    assert_eq!(
        (replayed.field("oncegate-verdict"), replayed.body.as_str()),
        ("replay", "run 1"),
        "one secret"
    );
    assert_eq!(one.look("/ready").body, "ready\n");

    redis.dies();
    let alone = one.post("1002");
    assert_eq!(alone.field("oncegate-verdict"), "lead");
    for replica in [&one, &other] {
        until("it is down", || replica.metric("oncegate_store_up") == 0);
    }
    assert!(one.post("1003").field("cache-status").ends_with("; detail=store-down-local"));
    assert_eq!(one.post("1001").body, "run 1", "its own records go on");
    let ready = one.look("/ready");
    assert_eq!((ready.status, ready.body.as_str()), (200, "ready, store-down\n"));

    redis.again();
    until("they are back", || one.metric("oncegate_store_up") + other.metric("oncegate_store_up") == 2);
    let replayed = other.post("1002");
    assert_eq!((replayed.field("oncegate-verdict"), &replayed.body), ("replay", &alone.body));
    assert_eq!((shop.orders(), one.events("store-down"), one.events("store-back")), (3, 1, 1));
    assert_eq!(one.look("/ready").body, "ready\n");
}

// Redis is killed and comes back with nothing: what the replicas know is written back, and trusted after the hold.
#[test]
fn a_redis_that_came_back_empty_is_told_what_it_forgot() {
    let shop = Shop::open();
    let mut redis = Redis::start(&["--appendonly", "no"]);
    let (one, other) = (Program::start(&shop, &store(&redis, "")), Program::start(&shop, &store(&redis, "")));
    assert_eq!(one.post("1001").field("oncegate-verdict"), "lead");
    redis.dies();
    redis.again();
    for replica in [&one, &other] {
        until("it is seen", || replica.metric("oncegate_store_forgot_total") == 1);
        until("it is trusted again", || replica.metric("oncegate_store_up") == 1);
        assert_eq!((replica.events("store-forgot"), replica.events("store-back")), (1, 1));
    }
    let replayed = other.post("1001");
    assert_eq!((replayed.field("oncegate-verdict"), replayed.body.as_str()), ("replay", "run 1"));
    assert_eq!(shop.orders(), 1);
}

// Without the store nobody knows the secret by which all replicas name orders.
#[test]
fn a_replica_starts_without_the_store_only_with_a_secret_of_its_own() {
    let shop = Shop::open();
    let mut redis = Redis::start(&[]);
    redis.dies();
    let failed = Program::try_start(&shop, &store(&redis, "")).err().expect("it must not start");
    assert_eq!(failed.code, 1);
    assert!(failed.said.contains("there is no `secret` in [store]"), "{}", failed.said);

    let secret = "secret = \"not a secret: sixteen bytes and more\"";
    let alone = Program::start(&shop, &store(&redis, secret));
    assert_eq!(alone.metric("oncegate_store_up"), 0);
    assert_eq!(alone.post("1001").field("oncegate-verdict"), "lead");
    let refusing = Program::start(&shop, &store(&redis, &format!("{secret}\non_store_down = \"refuse\"")));
    assert_eq!(refusing.post("1002").status, 503);
    assert_eq!(refusing.look("/ready").status, 503);
    redis.again();
    for replica in [&alone, &refusing] {
        until("it is found", || replica.metric("oncegate_store_up") == 1);
        assert_eq!(replica.look("/ready").body, "ready\n");
    }
    assert_eq!(refusing.post("1001").field("oncegate-verdict"), "replay");
    assert_eq!(shop.orders(), 1);
}

// A Redis that throws keys away when it is full keeps no promise.
#[test]
fn a_redis_that_evicts_is_told_of_and_no_store_for_who_refuses_to_do_without() {
    let shop = Shop::open();
    let redis = Redis::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let failed = Program::try_start(&shop, &store(&redis, "on_store_down = \"refuse\""));
    let failed = failed.err().expect("it must not start");
    assert_eq!(failed.code, 1);
    assert!(failed.said.contains("maxmemory-policy is allkeys-lru"), "{}", failed.said);
    let warned = Program::start(&shop, &store(&redis, ""));
    until("it is counted", || warned.metric("oncegate_store_finding{what=\"evicts\"}") == 1);
    until("it is logged", || warned.events("store-finding") > 0);
}

// What a replica did alone is told before its process ends.
#[test]
fn a_replica_that_ends_while_it_is_coming_back_tells_what_it_knows() {
    let shop = Shop::open();
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let secret = "secret = \"not a secret: sixteen bytes and more\"";
    let mut one = Program::start(&shop, &store(&redis, secret));
    redis.dies();
    until("it is alone", || {
        one.post("1001");
        one.metric("oncegate_store_up") == 0
    });
    redis.again();
    let id = one.child.id().to_string();
    assert!(Command::new("kill").arg("-TERM").arg(id).status().expect("there is a kill").success());
    assert_eq!(one.child.wait().expect("it is our child").code(), Some(0));
    let other = Program::start(&shop, &store(&redis, secret));
    assert_eq!(other.post("1001").field("oncegate-verdict"), "replay");
    assert_eq!(shop.orders(), 1);
}
