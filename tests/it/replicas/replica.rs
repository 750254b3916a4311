//! The replicas: the program itself, as an operator starts it, one life after the other.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, mpsc},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    HOLD, LEASE, Plan, Policy,
    network::{Net, Party},
};

/// It must be up within this.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// When a replica said that it goes on without the store, or with it again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) replica: usize,
    pub(super) at: Instant,
    pub(super) is_up: bool,
}

pub(super) struct Replicas {
    folder: TempDir,
    net: Arc<Net>,
    places: Vec<Mutex<Option<Place>>>,
    lives: Arc<Mutex<Vec<usize>>>,
    turns: Arc<Mutex<Vec<Turn>>>,
    /// Lines of panics and broken promises, which nobody wants to see.
    complaints: Arc<Mutex<Vec<String>>>,
}

/// One that runs.
struct Place {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        // It may be gone already, and a stopped one is killed just so.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Replicas {
    pub(super) fn new(
        plan: Plan,
        net: Arc<Net>,
        lives: Arc<Mutex<Vec<usize>>>,
        (shops, store): (&[SocketAddr], &str),
    ) -> Arc<Self> {
        let folder = tempfile::tempdir().expect("there is a place for files");
        for (replica, shop) in shops.iter().enumerate() {
            let text = configuration(plan, *shop, store);
            fs::write(folder.path().join(format!("{replica}.toml")), text).expect("the place is ours");
        }
        let places = shops.iter().map(|_| Mutex::default()).collect();
        let (turns, complaints) = (Arc::default(), Arc::default());
        let replicas = Self { folder, net, places, lives, turns, complaints };
        (0..shops.len()).for_each(|replica| replicas.start(replica));
        Arc::new(replicas)
    }

    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// Where it listens for clients, if it lives.
    pub(super) fn address(&self, replica: usize) -> Option<SocketAddr> {
        self.place(replica).as_ref().map(|place| place.address)
    }

    pub(super) fn admin(&self, replica: usize) -> Option<SocketAddr> {
        self.place(replica).as_ref().map(|place| place.admin)
    }

    pub(super) fn signal(&self, replica: usize, signal: &str) {
        let place = self.place(replica);
        let Some(place) = place.as_ref() else { return };
        let status = Command::new("kill").args([signal, &place.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill {signal}");
    }

    /// As with `kill -9`.
    pub(super) fn kill(&self, replica: usize) {
        self.place(replica).take();
    }

    /// Starts the next life; blocks until it listens.
    pub(super) fn start(&self, replica: usize) {
        lock(&self.lives)[replica] += 1;
        let file = self.folder.path().join(format!("{replica}.toml"));
        let place = self.run(replica, &file);
        *self.place(replica) = Some(place);
    }

    pub(super) fn turns(&self) -> Vec<Turn> {
        lock(&self.turns).clone()
    }

    pub(super) fn complaints(&self) -> Vec<String> {
        lock(&self.complaints).clone()
    }

    fn place(&self, replica: usize) -> MutexGuard<'_, Option<Place>> {
        lock(&self.places[replica])
    }

    fn run(&self, replica: usize, file: &PathBuf) -> Place {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oncegate"));
        command.arg("run").arg("--config").arg(file).stdin(Stdio::null());
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        self.net.enlist(child.id(), Party::Replica(replica));
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let turns = Arc::clone(&self.turns);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let is_up = line.contains("\"event\":\"store-back\"");
                let is_down = ["store-down", "store-forgot"]
                    .iter()
                    .any(|event| line.contains(&format!("\"event\":\"{event}\"")));
                if is_up || is_down {
                    lock(&turns).push(Turn { replica, at: Instant::now(), is_up });
                }
            }
        });
        let (sender, lines) = mpsc::channel();
        let complaints = Arc::clone(&self.complaints);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains("panicked") {
                    lock(&complaints).push(line.clone());
                }
                // Nobody listens any more once it is up.
                let _ = sender.send(line);
            }
        });
        let address = said(&lines, "oncegate: listening on ");
        let admin = said(&lines, "oncegate: operators: http://");
        Place { child, address, admin }
    }
}

fn said(lines: &mpsc::Receiver<String>, before: &str) -> SocketAddr {
    let mut all = Vec::new();
    while let Ok(line) = lines.recv_timeout(WAIT_MAX) {
        if let Some(rest) = line.strip_prefix(before) {
            let address = rest.split(['/', ' ']).next().expect("there is a first part");
            return address.parse().expect("it is an address");
        }
        all.push(line);
    }
    panic!("it did not say \"{before}\": {all:?}")
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().expect("nobody panics with it")
}

fn configuration(plan: Plan, shop: SocketAddr, store: &str) -> String {
    let on_store_down = match plan.policy {
        Policy::Refuse => "refuse",
        Policy::Local => "local",
    };
    let (lease, hold, wait_replicas) = (LEASE.as_secs(), HOLD.as_secs(), plan.wait_replicas);
    format!(
        r#"
listener = [{{ address = "127.0.0.1:0" }}]
admin = {{ listen = "127.0.0.1:0" }}
upstream = [{{ name = "shop", servers = ["http://{shop}"] }}]

[store]
kind = "redis"
url = "{store}"
wait_replicas = {wait_replicas}
lease = "{lease}s"
deadline = "600ms"
on_store_down = "{on_store_down}"
secret = "not a secret: sixteen bytes and more"

[[route]]
name = "checkout"
upstream = "shop"
match = {{ methods = ["POST"], path = "/checkout" }}

[route.guard]
mode = "once"
order = ["form:order"]
identity = "none"
done_when = {{ status = [200] }}
hold_for = "{hold}s"
wait_max = "3s"

[[route]]
name = "everything-else"
upstream = "shop"
"#
    )
}
