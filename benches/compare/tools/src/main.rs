//! The two ends of the comparison in one program: `shop` answers, `load` asks. Both run in one thread on epoll, so that
//! they cost little beside what stands between them. They speak just the HTTP/1.1 that the comparison needs, and end
//! with an error at anything else: a figure is never taken of answers that are not the right ones.

mod load;
mod message;
mod shop;

use std::{env, error::Error, process::ExitCode};

type Outcome<T> = Result<T, Box<dyn Error>>;

const USAGE: &str = "compare-tools shop ADDRESS | compare-tools load NAME=VALUE…";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["shop", address] => shop::run(address),
        ["load", ref settings @ ..] => load::run(settings),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare-tools: {error}");
            ExitCode::FAILURE
        }
    }
}
