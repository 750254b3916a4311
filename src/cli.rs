//! The command line: arguments become meaning once, commands print.
//!
//! The only module that may write to standard output and standard error. Exit codes: 0 fine, 1 failed while running,
//! 2 drain deadline passed, 64 usage or configuration (EX_USAGE of sysexits.h).

use std::{ffi::OsString, process::ExitCode};

use clap::{Args, Parser, Subcommand};

pub mod check;
pub mod demo;
pub mod explain;
pub mod orders;
pub mod run;
mod signals;

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    Fine,
    /// Failed while running.
    Failed,
    /// Something was still in flight when the drain deadline passed.
    DrainDeadline,
    /// The arguments or the configuration are wrong.
    Usage,
}

impl Exit {
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Fine => 0,
            Exit::Failed => 1,
            Exit::DrainDeadline => 2,
            Exit::Usage => 64,
        }
    }
}

/// A reverse proxy that makes "pay once" true.
#[derive(Parser, Debug)]
#[command(name = "oncegate", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serve: stand in front of a shop
    Run(run::RunArgs),
    /// Tell everything that is wrong with a configuration, opening nothing
    Check(check::CheckArgs),
    /// Say what a configuration makes of one request, and why
    Explain(explain::ExplainArgs),
    /// What is under way and in doubt at a running process; resolve an order in doubt, forget a kept answer
    Orders(orders::OrdersArgs),
    /// Show the difference on this machine: a naive shop, double clicks, callbacks, direct and through the gate
    Demo(demo::DemoArgs),
}

/// Where a configuration comes from, the same in every command that needs one.
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// The configuration, a TOML file
    #[arg(long, value_name = "FILE", env = "ONCEGATE_CONFIG")]
    pub config: std::path::PathBuf,
}

/// Reads the arguments, runs the command, says how it ended.
pub fn main(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let exit = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => match arguments.command {
            Command::Run(args) => run::main(args),
            Command::Check(args) => check::main(&args),
            Command::Explain(args) => explain::main(&args),
            Command::Orders(args) => orders::main(&args),
            Command::Demo(args) => demo::main(&args),
        },
        Err(error) => {
            // Help and version are asked for; anything else is a mistake. A closed pipe is nobody's.
            let _ = error.print();
            if error.use_stderr() { Exit::Usage } else { Exit::Fine }
        }
    };
    ExitCode::from(exit.code())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_misspelt_command_is_a_mistake_and_help_is_not() {
        let failed = |words: &[&str]| Arguments::try_parse_from(words).unwrap_err().use_stderr();
        assert!(failed(&["oncegate", "chekc"]));
        assert!(failed(&["oncegate", "check"]));
        assert!(!failed(&["oncegate", "--help"]));
        assert!(!failed(&["oncegate", "--version"]));
    }

    #[test]
    fn run_takes_a_file_or_an_address_and_not_both() {
        let parse = |words: &str| Arguments::try_parse_from(words.split(' '));
        assert!(parse("oncegate run --config a.toml").is_ok());
        assert!(parse("oncegate run --upstream http://a --listen 127.0.0.1:1").is_ok());
        assert!(parse("oncegate run --upstream http://a --config a.toml").is_err());
        assert!(parse("oncegate run --config a.toml --listen 127.0.0.1:1").is_err());
    }
}
