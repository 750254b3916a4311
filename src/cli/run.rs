//! `oncegate run` (stand-in; the real one is written in parallel).

use std::path::PathBuf;

use clap::Args;

use super::Exit;

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

pub fn main(_: RunArgs) -> Exit {
    Exit::Failed
}
