//! The program itself, as an operator starts it: for what can only be seen of a process of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    gate::{Typed, look},
    wire::{Message, Wire},
};

/// It must be up, and gone, within this.
const WAIT_MAX: Duration = Duration::from_secs(10);

pub(super) struct Program {
    child: Child,
    pub(super) address: SocketAddr,
    pub(super) admin: SocketAddr,
    /// Its standard error, by lines.
    said: Receiver<String>,
    _folder: TempDir,
}

#[derive(Clone, Copy)]
pub(super) enum Signal {
    Terminate,
    Hangup,
}

impl Program {
    pub(super) fn start(typed: &Typed) -> Self {
        Self::limited(typed, None)
    }

    /// With at most so many files open.
    pub(super) fn limited(typed: &Typed, files_max: Option<usize>) -> Self {
        let folder = tempfile::tempdir().expect("there is a place for files");
        let path = folder.path().join("oncegate.toml");
        fs::write(&path, typed.text()).expect("the place is ours");
        let program = env!("CARGO_BIN_EXE_oncegate");
        let mut command = match files_max {
            None => Command::new(program),
            Some(max) => {
                let mut command = Command::new("sh");
                command.arg("-c").arg(format!("ulimit -n {max}; exec \"$0\" \"$@\"")).arg(program);
                command
            }
        };
        command.arg("run").arg("--config").arg(&path).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
        let said = BufReader::new(child.stderr.take().expect("it was piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                // Nobody listens any more once it is up.
                let _ = sender.send(line);
            }
        });
        let address = said_address(&lines, "oncegate: listening on ");
        let admin = said_address(&lines, "oncegate: operators: http://");
        Self { child, address, admin, said: lines, _folder: folder }
    }

    pub(super) fn client(&self) -> Wire {
        Wire::connect(self.address)
    }

    pub(super) fn look(&self, target: &str) -> Message {
        look(self.admin, target)
    }

    pub(super) fn signal(&self, signal: Signal) {
        let name = match signal {
            Signal::Terminate => "-TERM",
            Signal::Hangup => "-HUP",
        };
        let sent = Command::new("kill").arg(name).arg(self.child.id().to_string()).status();
        assert!(sent.expect("there is a kill").success());
    }

    /// Waits until it says a line that begins so.
    pub(super) fn says(&self, begin: &str) {
        while !self.said.recv_timeout(WAIT_MAX).expect("it says so").starts_with(begin) {}
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Waits for its end and gives the exit code.
    pub(super) fn exit_code(&mut self) -> i32 {
        let until = Instant::now() + WAIT_MAX;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status.code().unwrap_or_else(|| -status.signal().unwrap_or(0));
            }
            assert!(Instant::now() < until, "it has not ended");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Memory in use, in bytes.
    pub(super) fn resident(&self) -> u64 {
        self.status("VmRSS:") << 10
    }

    /// The most memory that was ever in use, in bytes.
    pub(super) fn resident_max(&self) -> u64 {
        self.status("VmHWM:") << 10
    }

    fn status(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("Linux says so");
        line.trim().trim_end_matches(" kB").parse().expect("it is a number")
    }

    /// How many files are open.
    pub(super) fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }

    /// Time on a processor so far, in ticks of 10 ms.
    pub(super) fn busy_ticks(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let rest = text.rsplit(')').next().expect("the name is in brackets");
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended is only reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn said_address(lines: &Receiver<String>, before: &str) -> SocketAddr {
    let mut said = Vec::new();
    while let Ok(line) = lines.recv_timeout(WAIT_MAX) {
        if let Some(rest) = line.strip_prefix(before) {
            let address = rest.split(['/', ' ']).next().expect("there is a first part");
            return address.parse().expect("it is an address");
        }
        said.push(line);
    }
    panic!("it did not say \"{before}\": {said:?}")
}
