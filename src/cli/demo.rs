//! `oncegate demo`: a naive shop, the gate in front of it, and what double clicks and callbacks do to both.
//!
//! Needs nothing that is not in this binary, listens on loopback only, and writes no file.

use std::{
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    str::FromStr,
};

use clap::Args;

use super::{
    Exit,
    run::{failed, say},
    signals::{Hangup, Signals},
};
use crate::{
    config::{Address, Checked, Config, Problems},
    server::{Server, StartError},
};
use shop::Shop;
use storm::{Pattern, Way};
use table::Row;

mod shop;
mod storm;
mod table;

/// The configuration that the demo runs with, up to its addresses.
const TOML: &str = include_str!("demo/demo.toml");

#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Exit after the table: 0 if every purchase through the gate was charged once, else 1
    #[arg(long)]
    pub once: bool,
    /// Print the table as JSON
    #[arg(long)]
    pub json: bool,
    /// How many purchases to make in each of the patterns
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub orders: u32,
    /// Print the configuration that the demo runs with, and do nothing else
    #[arg(long, conflicts_with_all = ["once", "json", "orders"])]
    pub toml: bool,
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("the demo's own configuration is wrong: {0}")]
    Config(Problems),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the demo cannot run: {0}")]
    Io(#[from] io::Error),
    #[error("interrupted")]
    Interrupted,
}

/// What runs while the demo is up. The server is drained before the shop closes.
struct Stage {
    server: Server,
    gate: SocketAddr,
    shop: Shop,
}

pub fn main(args: &DemoArgs) -> Exit {
    if args.toml {
        // A closed pipe is nobody's mistake.
        let _ = io::stdout().write_all(TOML.as_bytes());
        return Exit::Fine;
    }
    match show(args) {
        Ok(exit) => exit,
        Err(error) => failed(&error.to_string()),
    }
}

fn show(args: &DemoArgs) -> Result<Exit, DemoError> {
    let signals = Signals::listen(Hangup::Ends)?;
    let stage = Stage::set_up(args.orders)?;
    let rows = rows(&stage, &signals, args.orders);
    if let Ok(rows) = &rows {
        let report = match args.json {
            true => format!("{:#}\n", table::to_json(rows, args.orders)),
            false => table::text(rows, args.orders),
        };
        let _ = io::stdout().write_all(report.as_bytes());
        if !args.once {
            stage.invite();
            signals.wait_for(1);
        }
    }
    let Stage { server, gate: _, shop } = stage;
    // Its end says nothing about the table; a second Ctrl-C cuts off whoever still tries things out.
    let _ = server.drain(|| signals.have_come(2));
    drop(shop);
    let right = table::is_right(&rows?, args.orders);
    Ok(if right { Exit::Fine } else { Exit::Failed })
}

impl Stage {
    fn set_up(orders: u32) -> Result<Self, DemoError> {
        let shop = Shop::open(storm::pay_max(orders))?;
        let Checked { config, .. } = configuration(shop.address).map_err(DemoError::Config)?;
        let server = Server::start(config)?;
        let gate = server.addresses.first().and_then(|address| SocketAddr::from_str(address).ok());
        let gate = gate.ok_or_else(|| io::Error::other("the gate does not say where it listens"))?;
        Ok(Self { server, gate, shop })
    }

    /// What somebody could try now.
    fn invite(&self) {
        let Self { gate, shop: Shop { address: shop, .. }, .. } = self;
        let click = format!("curl -si -b session=me -d product=1 http://{gate}/checkout");
        say(&format!(
            "the gate is up at http://{gate}/ and the shop itself at http://{shop}/; two clicks at once:"
        ));
        say(&format!("  {click} & {click}; wait"));
        if let Some(admin) = &self.server.admin_address {
            say(&format!("operators: http://{admin}/metrics /live /ready"));
        }
        say("this demo's configuration: oncegate demo --toml (ten lines are enough for one page)");
        say("Ctrl-C ends it");
    }
}

/// The configuration that `--toml` prints, with the addresses of this run.
fn configuration(shop: SocketAddr) -> Result<Checked, Problems> {
    let text = TOML.replace("http://127.0.0.1:8081", &format!("http://{shop}"));
    let mut checked = Config::from_text("demo.toml", text)?;
    let anywhere = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
    for listener in &mut checked.config.listeners {
        listener.address = anywhere.clone();
    }
    if let Some(admin) = &mut checked.config.admin {
        admin.listen = anywhere;
    }
    Ok(checked)
}

/// Every pattern, first directly and then through the gate.
fn rows(stage: &Stage, signals: &Signals, orders: u32) -> Result<Vec<Row>, DemoError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = Vec::with_capacity(Pattern::ALL.len());
    for pattern in Pattern::ALL {
        let outcome = |way, to, words| {
            if signals.have_come(1) {
                return Err(DemoError::Interrupted);
            }
            progress(&format!("{}, {words}", pattern.name()));
            let outcome = storm::run(&runtime, &stage.shop, (way, to), pattern, orders);
            progress("");
            Ok(outcome?)
        };
        let direct = outcome(Way::Direct, stage.shop.address, "direct to the shop")?;
        let gate = outcome(Way::Gate, stage.gate, "through oncegate")?;
        rows.push(Row { pattern, direct, gate });
    }
    Ok(rows)
}

/// One line that the next one takes the place of; on a terminal only.
fn progress(text: &str) {
    if io::stderr().is_terminal() {
        let _ = write!(io::stderr(), "\r{text:60}\r");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_that_is_printed_is_sound_and_without_warnings() {
        let shop = SocketAddr::from(([127, 0, 0, 1], 4711));
        let Checked { config, warnings } = configuration(shop).unwrap();
        assert_eq!(warnings.lines(), "");
        assert_eq!(config.upstreams[0].servers[0].address, "127.0.0.1:4711");
        assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:0");
        assert_eq!(config.admin.unwrap().listen.to_string(), "127.0.0.1:0");
    }
}
