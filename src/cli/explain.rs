//! `oncegate explain`: what a configuration makes of one request, and of one answer to it.
//!
//! It asks the code that the gateway runs, so that it cannot say anything else. It opens no socket.

use std::{
    error::Error,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Args;

use super::{ConfigArgs, Exit, check, run::say};
use crate::{config::Config, edge::http::strict_limits};
use raw::RawError;

mod raw;
mod report;
mod text;

#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// A file with a raw HTTP request, or - for standard input
    #[arg(value_name = "REQUEST")]
    pub request: PathBuf,
    /// A file with a raw answer to it: how it would be judged
    #[arg(long, value_name = "FILE")]
    pub answer: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

pub fn main(args: &ExplainArgs) -> Exit {
    let config = match Config::load(&args.config.config) {
        Ok(checked) => checked.config,
        Err(problems) => {
            // A closed pipe is nobody's mistake, here and below.
            let _ = io::stderr().write_all(check::show(&problems).as_bytes());
            return Exit::Usage;
        }
    };
    match explained(args, &config) {
        Ok(told) => {
            let _ = io::stdout().write_all(told.as_bytes());
            Exit::Fine
        }
        Err((path, error)) => {
            let source = error.source().map_or_else(String::new, |source| format!(": {source}"));
            say(&format!("error: {}: {error}{source}", path.display()));
            Exit::Usage
        }
    }
}

fn explained<'a>(args: &'a ExplainArgs, config: &Config) -> Result<String, (&'a Path, RawError)> {
    let limits = strict_limits(&config.limits);
    let at = |path: &'a Path| move |error| (path, error);
    let path = args.request.as_path();
    let request = raw::read(path).and_then(|file| raw::request(&file, &limits)).map_err(at(path))?;
    let answer = match args.answer.as_deref() {
        Some(path) => Some(raw::read(path).and_then(|file| raw::answer(&file)).map_err(at(path))?),
        None => None,
    };
    let report = report::report(config, request, answer);
    Ok(match args.json {
        true => format!("{:#}\n", serde_json::json!(report)),
        false => text::text(&report),
    })
}
