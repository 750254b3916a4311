//! What an operator reads when a configuration is wrong, word for word, and that the shipped ones are right.
//!
//! A golden file changes with `UPDATE_GOLDEN=1 cargo test --test it config`; look at the difference before keeping it.

use std::{fs, path::Path, time::Duration};

use oncegate::{
    config::{Checked, Config, Mode, Style},
    store::InDoubtPolicy,
};
use proptest::prelude::*;

const FOLDER: &str = "tests/golden/config";

/// What loading a file comes to, as an operator sees it.
fn told(path: &Path) -> String {
    let environment = |name: &str| (name == "SHOP").then(|| "10.0.0.10".to_owned());
    match Config::load_with(path, &environment) {
        Ok(checked) => format!("fine\n{}", checked.warnings.lines()),
        Err(problems) => problems.lines(),
    }
}

#[test]
fn every_problem_is_told_word_for_word() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut compared = 0;
    let mut files: Vec<_> = fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "toml")) {
        let golden = path.with_extension("txt");
        let told = told(&path);
        if update {
            fs::write(&golden, &told).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(told, expected, "{}", path.display());
        compared += 1;
    }
    assert!(compared >= 8, "only {compared} golden files were found");
}

#[test]
fn a_terminal_is_shown_the_line_that_is_meant() {
    let problems = Config::load(Path::new("tests/golden/config/typos.toml")).unwrap_err();
    let shown = problems.snippets(Style::Plain);
    let expected = fs::read_to_string("tests/golden/config/typos.snippets").unwrap_or_default();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write("tests/golden/config/typos.snippets", &shown).unwrap();
        return;
    }
    assert_eq!(shown, expected);
}

#[test]
fn the_shipped_configurations_are_sound_and_without_warnings() {
    for path in ["conf/minimal.toml", "conf/oncegate.toml", "conf/replicas.toml"] {
        let folder = Path::new(path);
        let checked = Config::load_with(folder, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(checked.warnings.lines(), "", "{path}");
        assert!(checked.config.routes.iter().any(|route| route.guard.is_some()), "{path} guards nothing");
        assert!(!checked.config.routes.last().unwrap().has_match, "{path} ends with a catch-all");
    }
}

#[test]
fn the_shortest_configuration_is_ten_lines() {
    let text = fs::read_to_string("conf/minimal.toml").unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
    assert!(lines <= 10, "{lines}");
}

#[test]
fn every_option_that_the_shipped_file_shows_commented_out_is_one() {
    let text = fs::read_to_string("conf/oncegate.toml").unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("oncegate.toml");
    let is_option = |line: &str| {
        let key = line.strip_prefix("# ").and_then(|rest| rest.split_once(" = ")).map(|(key, _)| key);
        key.is_some_and(|key| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
    };
    let mut tried = 0;
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| is_option(line)) {
        let key = line[2..].split_once(" = ").unwrap().0;
        // The other way to write something that stands there already would be a repetition.
        let active = lines.iter().position(|other| other.starts_with(&format!("{key} = ")));
        let mut changed: Vec<&str> = lines.clone();
        changed[index] = &line[2..];
        if let Some(active) = active.filter(|active| index.abs_diff(*active) < 4) {
            changed[active] = "";
        }
        fs::write(&path, changed.join("\n")).unwrap();
        let told = match Config::load_with(&path, &|_| None) {
            Ok(checked) => checked.warnings.lines(),
            Err(problems) => problems.lines(),
        };
        // The files of the examples are not there, everything else is in order.
        let missing_file = told.contains("No such file") || told.contains("conf.d/*.toml");
        assert!(told.is_empty() || missing_file, "line {}: {line}\n{told}", index + 1);
        tried += 1;
    }
    assert!(tried > 40, "only {tried} options were found");
}

#[test]
fn a_first_try_without_a_file_passes_everything_through() {
    let Checked { config, warnings } = Config::for_upstream("http://10.0.0.10:8081", None).unwrap();
    assert!(warnings.lines().starts_with("command line: warning: no route has a guard;"), "{warnings}");
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:8080");
    assert_eq!(config.upstreams[config.routes[0].upstream].servers[0].address, "10.0.0.10:8081");
    assert!(config.routes[0].guard.is_none() && !config.routes[0].has_match);

    let problems = Config::for_upstream("10.0.0.10:8081\"\n${HOME}", Some(":80")).unwrap_err();
    assert!(problems.lines().lines().all(|line| line.starts_with("command line: ")), "{problems}");
    assert!(problems.lines().contains("did you mean \"0.0.0.0:80\"?"), "{problems}");
}

#[test]
fn what_is_typed_arrives_with_its_defaults() {
    let config = Config::load(Path::new("conf/oncegate.toml")).unwrap().config;
    let checkout = config.route("checkout").unwrap().guard.as_ref().unwrap();
    assert_eq!(checkout.in_doubt, InDoubtPolicy::Hold(Duration::from_secs(1800)));
    assert_eq!(checkout.replay_unseen_for, Duration::from_secs(86_400));
    assert_eq!((checkout.body_max, checkout.decoded_max), (1 << 20, 4 << 20));
    let callback = config.route("provider-callback").unwrap().guard.as_ref().unwrap();
    assert_eq!(callback.in_doubt, InDoubtPolicy::Retry);
    assert_eq!(callback.replay_unseen_for, Duration::from_secs(3 * 86_400), "as long as replay_for");
    let back = config.route("return-page").unwrap().guard.as_ref().unwrap();
    assert_eq!((back.mode, back.in_doubt), (Mode::Serial, InDoubtPolicy::Retry));
    assert_eq!(config.upstreams[0].idle_timeout, Duration::from_secs(4));
    assert_eq!(config.limits.buffers_max, 256 << 20);
}

#[test]
fn check_ends_with_0_or_64_and_json_is_json() {
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_oncegate"));
        command.args(arguments).env_remove("ONCEGATE_CONFIG").output().unwrap()
    };
    let fine = run(&["check", "--config", "conf/minimal.toml"]);
    assert_eq!(fine.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&fine.stdout).contains("checkout"), "{fine:?}");

    let wrong = run(&["check", "--json", "--config", "tests/golden/config/typos.toml"]);
    assert_eq!(wrong.status.code(), Some(64));
    let object: serde_json::Value = serde_json::from_slice(&wrong.stdout).unwrap();
    assert_eq!((&object["sound"], &object["problems"][1]["line"]), (&false.into(), &2.into()));

    let lines = run(&["check", "--config", "tests/golden/config/typos.toml"]);
    assert!(lines.stdout.is_empty());
    let golden = fs::read("tests/golden/config/typos.txt").unwrap();
    assert_eq!(String::from_utf8_lossy(&lines.stderr), String::from_utf8_lossy(&golden));

    let shipped = run(&["check", "--config", "conf/oncegate.toml"]);
    assert_eq!(shipped.status.code(), Some(64), "there is no such certificate here");
    let told = String::from_utf8_lossy(&shipped.stderr).into_owned();
    assert!(told.starts_with("certificates: /etc/oncegate/shop.pem cannot be read"), "{told}");

    let refused = run(&["run", "--config", "tests/golden/config/typos.toml"]);
    assert_eq!(refused.status.code(), Some(64));
    assert_eq!(refused.stderr, lines.stderr, "a gateway that does not start says why");

    assert_eq!(run(&["chekc"]).status.code(), Some(64));
    assert_eq!(run(&["check"]).status.code(), Some(64));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Half-edited files are what `check` and a reload meet in practice.
    #[test]
    fn no_damaged_file_makes_the_check_panic(start in 0_usize..9000, cut in 0_usize..80, put in "[\\PC\n]{0,6}") {
        let whole = fs::read_to_string("conf/oncegate.toml").unwrap();
        let bound = |mut index: usize| {
            index = index.min(whole.len());
            while !whole.is_char_boundary(index) {
                index -= 1;
            }
            index
        };
        let text = format!("{}{put}{}", &whole[..bound(start)], &whole[bound(start + cut)..]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        fs::write(&path, text).unwrap();
        if let Err(problems) = Config::load_with(&path, &|_| None) {
            prop_assert!(problems.has_errors());
            prop_assert!(!problems.lines().is_empty() && !problems.snippets(Style::Plain).is_empty());
        }
    }
}
