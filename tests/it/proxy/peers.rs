//! Clients that others wrote: curl, openssl and nghttp2's. Each is given its time, and ends with the test.

use std::{
    io::Write,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

/// What a program had to say.
pub(super) struct Said {
    pub(super) out: String,
    pub(super) err: String,
}

/// Runs a program within 20 seconds, with this as its input.
pub(super) fn run(program: &str, arguments: &[&str], input: &str) -> Said {
    let mut command = Command::new("timeout");
    command.args(["-k", "1", "20", program]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("tests/install installs {program}: {error}"));
    // One that has read enough has gone.
    let _ = child.stdin.take().expect("it was piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { out: text(&output.stdout), err: text(&output.stderr) }
}

/// curl, to a name that stands for an address, trusting an authority. Prints the body, then a line with what `-w` asks.
pub(super) fn curl(authority: &Path, to: SocketAddr, url: &str, arguments: &[&str]) -> Said {
    let connect_to = format!("::{}:{}", to.ip(), to.port());
    let authority = authority.to_str().expect("a path of ours");
    let mut all = vec!["-sS", "--noproxy", "*", "--cacert", authority, "--connect-to", &connect_to];
    all.extend_from_slice(arguments);
    all.push(url);
    run("curl", &all, "")
}

/// openssl's client, which says at length what it sees of a handshake.
pub(super) fn openssl(to: SocketAddr, arguments: &[&str], input: &str) -> Said {
    let to = to.to_string();
    let mut all = vec!["s_client", "-connect", &to];
    all.extend_from_slice(arguments);
    run("openssl", &all, input)
}
