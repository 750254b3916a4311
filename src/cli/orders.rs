//! `oncegate orders`: what a running process has under way and in doubt, and an operator's word on it.
//!
//! It asks the process's `[admin]` listener and prints what that says; it reads no store and no configuration.

mod ask;
mod show;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::{Args, Subcommand, ValueEnum};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use self::ask::{Admin, AskError, Method};
use super::Exit;

#[derive(Args, Clone, Debug)]
pub struct OrdersArgs {
    /// An order as the log shows it (its parts joined by +), or lane:DIGITS; without it, everything that is under way
    #[arg(value_name = "KEY")]
    pub key: Option<String>,
    #[command(subcommand)]
    pub change: Option<Change>,
    /// The admin listener of the process: http://HOST:PORT or unix:/PATH
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "ONCEGATE_ADMIN",
        default_value = "http://127.0.0.1:9191"
    )]
    pub admin: String,
    /// A file with the listener's token
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print the answer as one JSON object
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Subcommand, Clone, Debug)]
pub enum Change {
    /// Say what became of an order in doubt
    Resolve {
        #[arg(value_name = "KEY")]
        key: String,
        /// done: the shop did the work, duplicates are refused; free: it did not, the next duplicate goes to the shop
        #[arg(long = "as", value_enum)]
        word: Word,
    },
    /// Drop the kept answers of an order: the next duplicate goes to the shop
    Forget {
        #[arg(value_name = "KEY")]
        key: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Word {
    Done,
    Free,
}

/// Answers go to standard output, why there is none to standard error; with `--json` everything to standard output.
pub fn main(args: &OrdersArgs) -> Exit {
    let asked = Admin::parse(&args.admin, args.token_file.as_deref()).and_then(|admin| {
        let (method, target) = target(args)?;
        admin.ask(method, &target)
    });
    let (exit, written) = match asked {
        Ok((200, said)) => (Exit::Fine, fine(args, &said)),
        Ok((status, said)) => (Exit::Failed, refused(args, status, &said)),
        Err(error) => (error.exit(), writeln!(io::stderr(), "oncegate: {error}")),
    };
    // A reader that went away does not change what was done.
    drop(written);
    exit
}

fn target(args: &OrdersArgs) -> Result<(Method, String), AskError> {
    let encoded = |key: &str| utf8_percent_encode(key, NON_ALPHANUMERIC).to_string();
    Ok(match (&args.key, &args.change) {
        (None, None) => (Method::Get, "/orders".to_owned()),
        (Some(key), None) => (Method::Get, format!("/orders/{}", encoded(key))),
        (None, Some(Change::Resolve { key, word })) => {
            let word = match word {
                Word::Done => "done",
                Word::Free => "free",
            };
            (Method::Post, format!("/orders/{}/resolve?as={word}", encoded(key)))
        }
        (None, Some(Change::Forget { key })) => (Method::Post, format!("/orders/{}/forget", encoded(key))),
        (Some(_), Some(_)) => return Err(AskError::TwoKeys),
    })
}

fn fine(args: &OrdersArgs, said: &Value) -> io::Result<()> {
    if args.json {
        return writeln!(io::stdout(), "{said:#}");
    }
    let text = match &args.change {
        None => show::orders(said, args.key.as_deref()),
        Some(Change::Resolve { .. }) => show::resolved(said),
        Some(Change::Forget { .. }) => show::forgotten(said),
    };
    io::stdout().write_all(text.as_bytes())
}

fn refused(args: &OrdersArgs, status: u16, said: &Value) -> io::Result<()> {
    if args.json && said.is_object() {
        return writeln!(io::stdout(), "{said:#}");
    }
    io::stderr().write_all(show::refused(status, said).as_bytes())
}
