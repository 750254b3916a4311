//! The binary: hands the arguments to the library and its exit code to the shell.

use std::process::ExitCode;

/// A request makes and drops some forty small things.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    oncegate::cli::main(std::env::args_os())
}
