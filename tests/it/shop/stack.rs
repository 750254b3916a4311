//! The naive shop, running: real nginx, real php-fpm and real MariaDB, all in one temporary directory.
//!
//! Each test has a shop of its own, with its own data, sockets and port; none of them sees the services of the
//! machine or their configuration. Nothing is left behind.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use super::client::{Click, send};
use super::daemon::{Daemon, Rights, command, find_program, pick_port, web_owner};

/// Of every product; what is missing from it afterwards was sold.
const STOCK: u32 = 1000;
/// Guards nothing: the database is reachable only through a socket in a directory of the test's own.
const PASSWORD: &str = "not-a-secret";
const NGINX_STARTS_MAX: u32 = 5;
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

const SCHEMA: &str = include_str!("../../shop/schema.sql");
const NGINX: &str = include_str!("../../shop/nginx.conf.template");
const PHP_FPM: &str = include_str!("../../shop/php-fpm.conf.template");
const PAGES: [(&str, &str); 4] = [
    ("shop.php", include_str!("../../shop/shop.php")),
    ("checkout.php", include_str!("../../shop/checkout.php")),
    ("callback.php", include_str!("../../shop/callback.php")),
    ("return.php", include_str!("../../shop/return.php")),
];

/// Fields are dropped in this order: first who calls, then who is called, last where they live.
pub(crate) struct Shop {
    address: SocketAddr,
    _nginx: Daemon,
    _php_fpm: Daemon,
    _database: Daemon,
    directory: TempDir,
}

/// How far the purchases have come when a test begins.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    /// Each shopper has a product in the cart.
    Carts,
    /// Each shopper has ordered and is away at the payment provider.
    PendingOrders,
}

/// What one purchase has done to the shop. Every purchase has a product of its own, so the stock counts its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Effects {
    pub(crate) orders: u32,
    pub(crate) payments: u32,
    pub(crate) stock_taken: u32,
}

impl Shop {
    /// A shop with the purchases `1..=purchases` about to be made.
    pub(crate) fn open(purchases: u32, start: Start) -> Self {
        let directory =
            tempfile::Builder::new().prefix("shop-").tempdir().expect("there is a place for files");
        let web = directory.path().join("web");
        fs::create_dir(&web).expect("the directory is ours");
        give_to_web(directory.path());
        give_to_web(&web);
        let database = start_database(&web);
        run_sql(&web, "", &prepared(purchases, start));
        let php_fpm = start_php_fpm(&web);
        let (nginx, address) = start_nginx(&web);
        Self { address, _nginx: nginx, _php_fpm: php_fpm, _database: database, directory }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A directory that lives as long as the shop.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What each purchase has done, in their order. Waits until the shop rests, because PHP goes on with the work of
    /// a client that has left.
    pub(crate) async fn effects(&self) -> Vec<Effects> {
        self.settled().await;
        let sql = format!(
            "SELECT (SELECT COUNT(*) FROM orders WHERE product_id = products.id),
                    (SELECT COUNT(*) FROM payments JOIN orders ON orders.id = order_id
                      WHERE product_id = products.id),
                    {STOCK} - stock
               FROM products ORDER BY id;"
        );
        let number =
            |text: Option<&str>| text.and_then(|text| text.parse().ok()).expect("SQL counts in numbers");
        let row = |line: &str| {
            let mut columns = line.split('\t');
            Effects {
                orders: number(columns.next()),
                payments: number(columns.next()),
                stock_taken: number(columns.next()),
            }
        };
        run_sql(&self.directory().join("web"), "shop", &sql).lines().map(row).collect()
    }

    /// Returns when no worker of php-fpm has anything to do but to answer this very question.
    async fn settled(&self) {
        let deadline = Instant::now() + SETTLED_WITHIN;
        loop {
            let answer = send(self.address, &Click::status()).await;
            let status: serde_json::Value =
                serde_json::from_slice(&answer.body).expect("php-fpm gives its status as JSON");
            if status["active processes"] == 1 && status["listen queue"] == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "the shop does not come to rest: {status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn start_database(web: &Path) -> Daemon {
    let data = format!("--datadir={}", web.join("data").display());
    // A server removes the temporary tables that it finds when it starts: in a shared /tmp those of its neighbours.
    let temporary = web.join("tmp");
    fs::create_dir(&temporary).expect("the directory is ours");
    give_to_web(&temporary);
    let installed = command(&find_program("mariadb-install-db"), Rights::Web, &[])
        .args([
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
        ])
        .arg(&data)
        .env("TMPDIR", &temporary)
        .output()
        .expect("mariadb-install-db can be started");
    assert!(installed.status.success(), "no database: {}", String::from_utf8_lossy(&installed.stderr));
    let socket = database_socket(web);
    let arguments = [
        "--no-defaults".to_owned(),
        data,
        format!("--tmpdir={}", temporary.display()),
        format!("--socket={}", socket.display()),
        format!("--pid-file={}", web.join("database.pid").display()),
        "--skip-networking".to_owned(),
        "--skip-log-bin".to_owned(),
        "--max-connections=200".to_owned(),
        "--innodb-buffer-pool-size=16M".to_owned(),
        // A crash of this database loses nothing that anybody wants; a sync at each commit would only cost time.
        "--innodb-flush-log-at-trx-commit=0".to_owned(),
    ];
    let mut database = Daemon::start("mariadbd", &find_program("mariadbd"), &arguments, Rights::Web, web);
    database.wait_until(|| UnixStream::connect(&socket).is_ok()).expect("the database runs");
    database
}

fn start_php_fpm(web: &Path) -> Daemon {
    let pages = web.join("htdocs");
    fs::create_dir(&pages).expect("the directory is ours");
    for (name, text) in PAGES {
        fs::write(pages.join(name), text).expect("the directory is ours");
    }
    let config = write_config(web, "php-fpm.conf", PHP_FPM, &[("@PASSWORD@", PASSWORD)]);
    let arguments = ["--nodaemonize".into(), "--fpm-config".into(), config];
    let mut php_fpm = Daemon::start("php-fpm", &find_program("php-fpm"), &arguments, Rights::Web, web);
    php_fpm.wait_until(|| UnixStream::connect(web.join("php.sock")).is_ok()).expect("php-fpm runs");
    php_fpm
}

/// nginx cannot be asked for a port of its own choice, so one is picked, and picked anew if somebody was faster.
fn start_nginx(web: &Path) -> (Daemon, SocketAddr) {
    let mut last = String::new();
    for _ in 0..NGINX_STARTS_MAX {
        let address = SocketAddr::from(([127, 0, 0, 1], pick_port()));
        let config = write_config(web, "nginx.conf", NGINX, &[("@PORT@", &address.port().to_string())]);
        let log = web.join("nginx.log");
        let arguments = ["-p".into(), web.to_owned(), "-c".into(), config, "-e".into(), log];
        let mut nginx = Daemon::start("nginx", &find_program("nginx"), &arguments, Rights::Web, web);
        // Its process id is written once the port is its own, so that nobody else's port is taken for it.
        let ready = || web.join("nginx.pid").exists() && TcpStream::connect(address).is_ok();
        match nginx.wait_until(ready) {
            Ok(()) => return (nginx, address),
            Err(error) => last = error,
        }
    }
    panic!("nginx does not start: {last}");
}

fn write_config(web: &Path, name: &str, template: &str, values: &[(&str, &str)]) -> PathBuf {
    let directory = web.to_str().expect("a temporary directory has a plain name");
    let text = template.replace("@DIRECTORY@", directory);
    let text = values.iter().fold(text, |text, (mark, value)| text.replace(mark, value));
    let file = web.join(name);
    fs::write(&file, text).expect("the directory is ours");
    file
}

/// Makes `directory` one that the daemons may enter and write to, whoever runs the tests.
fn give_to_web(directory: &Path) {
    if let Some((user, group)) = web_owner() {
        chown(directory, Some(user), Some(group)).expect("root can give files away");
    }
}

fn database_socket(web: &Path) -> PathBuf {
    web.join("database.sock")
}

/// The statements that make a fresh server the database of a shop.
fn prepared(purchases: u32, start: Start) -> String {
    let mut sql = format!(
        "CREATE DATABASE shop; CREATE USER shop@localhost IDENTIFIED BY '{PASSWORD}';
         GRANT ALL ON shop.* TO shop@localhost; USE shop; {SCHEMA}"
    );
    for id in 1..=purchases {
        sql += &format!("INSERT INTO products (id, stock) VALUES ({id}, {STOCK});\n");
        sql += &match start {
            Start::Carts => {
                format!("INSERT INTO sessions (id, product_id) VALUES ('{}', {id});\n", session(id))
            }
            Start::PendingOrders => format!(
                "INSERT INTO orders (id, session_id, product_id, status) VALUES ({id}, '{}', {id}, 'pending');\n",
                session(id)
            ),
        };
    }
    sql
}

/// The session cookie's value of the shopper who makes this purchase.
pub(crate) fn session(purchase: u32) -> String {
    format!("shopper{purchase}")
}

/// Runs statements as root and returns what they print, columns separated by tabs.
fn run_sql(web: &Path, database: &str, sql: &str) -> String {
    let script = web.join("statements.sql");
    fs::write(&script, sql).expect("the directory is ours");
    let output = command(&find_program("mariadb"), Rights::Web, &[])
        .args(["--no-defaults", "--user=root", "--batch", "--skip-column-names"])
        .arg(format!("--socket={}", database_socket(web).display()))
        .arg(format!("--database={database}"))
        .stdin(fs::File::open(&script).map_or_else(|_| Stdio::null(), Stdio::from))
        .output()
        .expect("the MariaDB client can be started");
    assert!(output.status.success(), "SQL failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("numbers are UTF-8")
}
