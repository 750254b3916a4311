//! A redis-server of a test's own: started on a free port with a folder of its own, killed when it is dropped.
//!
//! The unit tests of the store read this file too, so it names nothing of the crate.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long a server may take to begin, or to answer.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct RedisServer {
    child: Child,
    pub(crate) port: u16,
    /// Where the nodes of a Cluster talk to each other.
    pub(crate) bus_port: u16,
    folder: TempDir,
    arguments: Vec<String>,
}

impl RedisServer {
    /// Persists nothing, but for what the settings say: `["--maxmemory", "1mb"]`.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::start_with(|_, port, _| {
            let port = port.to_string();
            let plain = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port];
            plain.iter().chain(settings).map(|&argument| argument.to_owned()).collect()
        })
    }

    /// A node of a Cluster, which knows no other yet.
    pub(crate) fn start_node() -> Self {
        Self::start_with(|_, port, bus_port| {
            format!(
                "--bind 127.0.0.1 --save  --appendonly no --port {port} --cluster-enabled yes --cluster-port {bus_port} \
                 --cluster-node-timeout 2000"
            )
            .split(' ')
            .map(str::to_owned)
            .collect()
        })
    }

    /// A Sentinel that watches the primary on this port, and decides alone and soon.
    pub(crate) fn start_sentinel(master: &str, primary: u16) -> Self {
        Self::start_with(|folder, port, _| {
            let file = folder.join("sentinel.conf");
            let text = format!(
                "bind 127.0.0.1\nport {port}\nsentinel monitor {master} 127.0.0.1 {primary} 1\n\
                 sentinel down-after-milliseconds {master} 500\nsentinel failover-timeout {master} 2000\n"
            );
            fs::write(&file, text).expect("its settings");
            vec![file.to_string_lossy().into_owned(), "--sentinel".to_owned()]
        })
    }

    /// What it is started with is said for its folder, its port and its second port.
    pub(crate) fn start_with(arguments: impl Fn(&Path, u16, u16) -> Vec<String>) -> Self {
        // Another process may take the port first; then the server ends at once, and another port is tried.
        for _ in 0..10 {
            let folder = tempfile::tempdir().expect("a folder for the server");
            let (port, bus_port) = (free_port(), free_port());
            let arguments = arguments(folder.path(), port, bus_port);
            let child = spawn(&folder, &arguments);
            let mut server = Self { child, port, bus_port, folder, arguments };
            if server.has_begun() {
                return server;
            }
        }
        panic!("redis-server does not start; tests/install installs it");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// One command, as it would be typed, and its answer as it comes over the wire.
    pub(crate) fn command(&self, command: &str) -> String {
        self.ask(command, PATIENCE).unwrap_or_else(|| panic!("no answer to {command}"))
    }

    /// The same, where it may be gone, or not answer at all.
    pub(crate) fn ask(&self, command: &str, patience: Duration) -> Option<String> {
        send(self.port, command, patience)
    }

    /// As with `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// On the same port, with whatever its folder has kept.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.folder, &self.arguments);
        assert!(self.has_begun(), "it starts again");
    }

    /// Stops the process where it stands, so that it answers nobody and refuses nobody, or lets it go on.
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill {signal}");
    }

    fn has_begun(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if self.child.try_wait().expect("it can be asked").is_some() {
                return false;
            }
            if self.ask("PING", PATIENCE).is_some_and(|answer| answer.starts_with("+PONG")) {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("redis-server does not answer");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may be gone already; a test that ends has no use for the error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &TempDir, arguments: &[String]) -> Child {
    Command::new("redis-server")
        .args(arguments)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed (tests/install)")
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it is bound").port()
}

fn send(port: u16, command: &str, patience: Duration) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
    // It closes too, once it has answered. A Sentinel knows no QUIT.
    stream.shutdown(Shutdown::Write).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
