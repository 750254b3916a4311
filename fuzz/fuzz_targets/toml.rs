//! No configuration makes the check panic, and whatever is wrong with one is told.
#![no_main]

use std::{env, fs, path::PathBuf, process, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use oncegate::config::Config;

/// The configuration is read from a file, so each process has one.
static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| env::temp_dir().join(format!("oncegate-fuzz-{}.toml", process::id())));

fuzz_target!(|text: &str| {
    // An include could read files that are none of this target's business.
    if text.contains("include") || text.contains("file") {
        return;
    }
    fs::write(&*FILE, text).expect("the folder for temporary files can be written to");
    if let Err(problems) = Config::load_with(&FILE, &|_| None) {
        assert!(problems.has_errors());
    }
});
