//! `oncegate demo` as somebody who has just installed it runs it: the shop loses money directly and none behind the
//! gate.

use std::process::{Command, Output};

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oncegate")).arg("demo").args(arguments).output().unwrap()
}

#[test]
fn the_demo_shows_the_race_directly_and_none_through_the_gate() {
    let shown = demo(&["--once", "--orders", "5", "--json"]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    assert!(shown.stderr.is_empty(), "a pipe is shown no progress: {shown:?}");
    let table: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&table["right"], &table["purchases"]), (&true.into(), &5.into()));
    let patterns = table["patterns"].as_array().unwrap();
    assert_eq!(patterns.len(), 4);
    for pattern in patterns {
        assert!(pattern["direct"]["charges"].as_u64() > Some(5), "no race, so nothing is shown: {pattern}");
        assert_eq!(pattern["gate"]["charges"], 5, "{pattern}");
        assert_eq!(pattern["gate"]["stock"], 5, "{pattern}");
        assert_eq!(pattern["gate"]["orders"], 5, "{pattern}");
        assert_eq!(pattern["gate"]["answers_equal"], true, "{pattern}");
    }
}

#[test]
fn the_configuration_of_the_demo_can_be_kept_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("demo.toml");
    std::fs::write(&path, demo(&["--toml"]).stdout).unwrap();
    let check =
        Command::new(env!("CARGO_BIN_EXE_oncegate")).args(["check", "--config"]).arg(&path).output().unwrap();
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    assert!(check.stderr.is_empty(), "{check:?}");
}
