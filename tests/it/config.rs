//! What an operator reads when a configuration is wrong, word for word, and that the shipped ones are right.
//!
//! A golden file changes with `UPDATE_GOLDEN=1 cargo test --test it config`; look at the difference before keeping it.

use std::{fs, path::Path};

use oncegate::config::{Config, Style};

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
    for path in ["conf/minimal.toml", "conf/oncegate.toml"] {
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
