//! `oncegate check`: loads everything, opens nothing, tells all problems at once.

use std::io::{self, IsTerminal, Write};

use clap::Args;
use serde_json::json;

use super::{ConfigArgs, Exit};
use crate::{
    config::{Checked, Config, Enforce, Guard, Problems, Route, Style, show_duration},
    request::verify::OnBadSignature,
    store::InDoubtPolicy,
};

#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Problems go to standard error, the summary to standard output; with `--json` everything to standard output.
pub fn main(args: &CheckArgs) -> Exit {
    let loaded = Config::load(&args.config.config);
    let exit = if loaded.is_ok() { Exit::Fine } else { Exit::Usage };
    // A reader that went away does not change what was found.
    let _ = if args.json { print_json(&loaded) } else { print_text(&loaded) };
    exit
}

fn print_json(loaded: &Result<Checked, Problems>) -> io::Result<()> {
    let object = match loaded {
        Ok(Checked { config, warnings }) => json!({
            "sound": true,
            "problems": warnings.to_json(),
            "routes": config.routes.iter().map(|route| route_json(config, route)).collect::<Vec<_>>(),
        }),
        Err(problems) => json!({ "sound": false, "problems": problems.to_json(), "routes": [] }),
    };
    writeln!(io::stdout(), "{object:#}")
}

fn print_text(loaded: &Result<Checked, Problems>) -> io::Result<()> {
    let problems = match loaded {
        Ok(checked) => &checked.warnings,
        Err(problems) => problems,
    };
    io::stderr().write_all(show(problems).as_bytes())?;
    let mut out = io::stdout();
    match loaded {
        Ok(Checked { config, .. }) => out.write_all(summary(config).as_bytes()),
        Err(_) => Ok(()),
    }
}

/// Problems as whoever reads standard error can use them: pictures for a person, lines for anything else.
#[must_use]
pub fn show(problems: &Problems) -> String {
    if !io::stderr().is_terminal() {
        return problems.lines();
    }
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    problems.snippets(if plain { Style::Plain } else { Style::Coloured })
}

/// One line per route.
fn summary(config: &Config) -> String {
    let width = config.routes.iter().map(|route| route.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for route in &config.routes {
        let upstream = &config.upstreams[route.upstream].name;
        let does = route.guard.as_ref().map_or_else(|| "passes through".to_owned(), promise);
        let all = if route.has_match { "" } else { " (whatever no route before it takes)" };
        text.push_str(&format!("{:width$}  -> {upstream}: {does}{all}\n", route.name));
    }
    let listeners: Vec<String> =
        config.listeners.iter().map(|listener| listener.address.to_string()).collect();
    text.push_str(&format!("fine; would listen on {}\n", listeners.join(", ")));
    text
}

fn promise(guard: &Guard) -> String {
    let observe = match guard.enforce {
        Enforce::Yes => "",
        Enforce::Observe => ", observes only",
    };
    let kept = match guard.mode {
        crate::config::Mode::Once => format!(", keeps answers {}", show_duration(guard.replay_for)),
        crate::config::Mode::Signal | crate::config::Mode::Serial => String::new(),
    };
    let doubt = match guard.in_doubt {
        InDoubtPolicy::Hold(time) => format!("held {}", show_duration(time)),
        InDoubtPolicy::Retry => "retried".to_owned(),
    };
    let wait = show_duration(guard.wait_max);
    let signed = guard.verify.as_ref().map_or_else(String::new, |verify| match verify.on_bad_signature {
        OnBadSignature::Pass => format!(", unguarded unless signed by {}", verify.scheme.name()),
        OnBadSignature::Refuse => format!(", refused unless signed by {}", verify.scheme.name()),
    });
    format!("{}{kept}, clients wait up to {wait}, in doubt: {doubt}{signed}{observe}", guard.mode.name())
}

fn route_json(config: &Config, route: &Route) -> serde_json::Value {
    let guard = route.guard.as_ref().map(|guard| {
        json!({
            "mode": guard.mode.name(),
            "enforce": guard.enforce == Enforce::Yes,
            "verify": guard.verify.as_ref().map(|verify| verify.scheme.name()),
            "wait_max_ms": millis(guard.wait_max),
            "replay_for_ms": millis(guard.replay_for),
            "hold_for_ms": match guard.in_doubt {
                InDoubtPolicy::Hold(time) => Some(millis(time)),
                InDoubtPolicy::Retry => None,
            },
        })
    });
    json!({
        "name": route.name,
        "upstream": config.upstreams[route.upstream].name,
        "has_match": route.has_match,
        "guard": guard,
    })
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
