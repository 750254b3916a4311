//! `oncegate demo` (stand-in; the real one is written in parallel).

use clap::Args;

use super::Exit;

#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Exit after the table
    #[arg(long)]
    pub once: bool,
    /// Print the table as JSON
    #[arg(long)]
    pub json: bool,
    /// How many orders to place
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub orders: u32,
}

pub fn main(_: DemoArgs) -> Exit {
    Exit::Failed
}
