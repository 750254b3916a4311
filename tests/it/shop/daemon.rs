//! A daemon that a test starts and that cannot outlive it.
//!
//! It ends when the test drops it, and, through `setpriv --pdeathsig`, also when the test's thread dies without
//! dropping anything (a killed test run). It is ended by its own process id, never by name. It must be started from
//! the thread that runs the test, because the signal follows that thread.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const READY_WITHIN: Duration = Duration::from_secs(30);
const ENDED_WITHIN: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(10);

pub(crate) struct Daemon {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// Whose rights a daemon runs with when the tests run as root.
#[derive(Clone, Copy)]
pub(crate) enum Rights {
    /// Those of `www-data`: MariaDB and php-fpm refuse to be root, and need not be.
    Web,
    /// Those of the test: www-data may not even enter the folder of a binary that was just built.
    Own,
}

impl Daemon {
    /// Starts `program`; what it prints goes to `NAME.out` in `directory`.
    pub(crate) fn start<A: AsRef<OsStr>>(
        name: &'static str,
        program: &Path,
        arguments: &[A],
        rights: Rights,
        directory: &Path,
    ) -> Self {
        let log = directory.join(name).with_extension("out");
        let out = File::create(&log).expect("the test's directory is writable");
        let errors = out.try_clone().expect("an open file can be duplicated");
        let child = command(program, rights, &["--pdeathsig", "TERM"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        Self { name, child, log }
    }

    /// Waits until `ready` says so. `Err` holds what the daemon printed when it ended instead.
    pub(crate) fn wait_until(&mut self, mut ready: impl FnMut() -> bool) -> Result<(), String> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child can be waited for") {
                return Err(format!("{} ended with {status}:\n{}", self.name, self.printed()));
            }
            if ready() {
                return Ok(());
            }
            assert!(Instant::now() < deadline, "{} is not ready in time:\n{}", self.name, self.printed());
            std::thread::sleep(POLL_EVERY);
        }
    }

    fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to end. The standard library can only kill, and a killed nginx or php-fpm leaves its workers behind.
    fn terminate(&self) {
        let pid = self.child.id().to_string();
        // A failure means that it has ended already, which the wait that follows sees.
        let _ =
            Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &pid]).stderr(Stdio::null()).status();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.terminate();
        let deadline = Instant::now() + ENDED_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(POLL_EVERY);
        }
        // Both fail when it has ended in time, as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command with the `rights` given. `setpriv` replaces itself by the program, so the process id stays.
pub(crate) fn command(program: &Path, rights: Rights, options: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    if let (Rights::Web, Some((user, group))) = (rights, web_owner()) {
        command.args(["--reuid", &user.to_string(), "--regid", &group.to_string(), "--clear-groups"]);
    }
    command.args(options).arg(program);
    command
}

/// The ids of `www-data` when the tests run as root, who alone can change to them.
pub(crate) fn web_owner() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    if fs::metadata("/proc/self").expect("Linux has /proc").uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("everybody may read the list of users");
    let line =
        users.lines().find_map(|line| line.strip_prefix("www-data:")).expect("Debian has a www-data user");
    let mut ids = line.split(':').skip(1).map(|id| id.parse().expect("user and group are numbers"));
    Some((ids.next()?, ids.next()?))
}

/// Finds an installed program. Debian names some by their version (`php-fpm8.2`); the newest is taken.
pub(crate) fn find_program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Daemons live in sbin, which is not on the path of every user.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let is_wanted = |file: &PathBuf| {
        let version = file.file_name().and_then(OsStr::to_str).and_then(|file| file.strip_prefix(name));
        version.is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
    };
    folders
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter(is_wanted)
        .max_by(|one, other| one.file_name().cmp(&other.file_name()))
        .unwrap_or_else(|| panic!("{name} is not installed; tests/install installs what the tests need"))
}

/// A port of the loopback address that was free a moment ago.
pub(crate) fn pick_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    socket.local_addr().expect("a bound socket has an address").port()
}
