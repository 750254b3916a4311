//! `oncegate run`: the gateway, from its configuration to its exit code.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;

use super::{
    Exit, check,
    signals::{Hangup, Signals},
};
use crate::{
    config::Config,
    server::{Drained, Server},
};

#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The configuration, a TOML file
    #[arg(
        long,
        value_name = "FILE",
        env = "ONCEGATE_CONFIG",
        conflicts_with = "upstream",
        required_unless_present = "upstream"
    )]
    pub config: Option<PathBuf>,
    /// A shop to stand in front of without a file, for a first try: everything passes through, nothing is guarded
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// Where to listen, with --upstream [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", requires = "upstream", conflicts_with = "config")]
    pub listen: Option<String>,
}

/// Serves until SIGTERM or SIGINT.
pub fn main(args: RunArgs) -> Exit {
    let loaded = match (&args.config, &args.upstream) {
        (Some(path), _) => Config::load(path),
        (None, Some(url)) => Config::for_upstream(url, args.listen.as_deref()),
        (None, None) => return Exit::Usage,
    };
    let checked = match loaded {
        Ok(checked) => checked,
        Err(problems) => {
            write_to_stderr(&check::show(&problems));
            return Exit::Usage;
        }
    };
    write_to_stderr(&check::show(&checked.warnings));
    let signals = match Signals::listen(Hangup::IsRefused) {
        Ok(signals) => signals,
        Err(error) => return failed(&format!("cannot listen for signals: {error}")),
    };
    let server = match Server::start(checked.config) {
        Ok(server) => server,
        Err(error) => return failed(&error.to_string()),
    };
    for notice in &server.notices {
        say(notice);
    }
    for address in &server.addresses {
        say(&format!("listening on {address}"));
    }
    if let Some(address) = &server.admin_address {
        say(&format!("operators: http://{address}/metrics /live /ready"));
    }
    signals.wait_for(1);
    say("draining; a second signal ends at once");
    match server.drain(|| signals.have_come(2)) {
        Drained::Whole => Exit::Fine,
        Drained::Cut { flights, connections } => {
            say(&format!("cut off: {flights} flights and {connections} connections were still open"));
            Exit::DrainDeadline
        }
    }
}

pub(super) fn failed(text: &str) -> Exit {
    say(&format!("error: {text}"));
    Exit::Failed
}

/// To standard error, where the log is not.
pub(super) fn say(text: &str) {
    write_to_stderr(&format!("oncegate: {text}\n"));
}

fn write_to_stderr(text: &str) {
    // A closed pipe is nobody's mistake.
    let _ = io::stderr().write_all(text.as_bytes());
}
