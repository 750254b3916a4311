//! The configurations that the README shows are ones that oncegate takes, without a warning.

use std::fs;

use oncegate::config::Config;

/// What stands around a fragment that shows single routes.
const LISTENER: &str = "listener = [{ address = \"127.0.0.1:8080\" }]\n";
const UPSTREAM: &str = "upstream = [{ name = \"shop\", servers = [\"http://127.0.0.1:8081\"] }]\n";
/// What stands behind a fragment that shows servers only.
const GUARDED: &str = "\n[[route]]\nname = \"back\"\nupstream = \"shop\"\nmatch = { methods = [\"GET\"], path = \"/back\" }\n\
                       guard = { mode = \"serial\", order = [\"query:id\"] }\n";
const AFTER: &str = "\n[[route]]\nname = \"everything-else\"\nupstream = \"shop\"\n";

fn shown() -> Vec<String> {
    let text = fs::read_to_string("README.md").unwrap();
    text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or("").to_owned()).collect()
}

#[test]
fn every_configuration_in_the_readme_is_sound_and_without_warnings() {
    let shown = shown();
    assert!(shown.len() >= 5, "only {} configurations were found", shown.len());
    let folder = tempfile::tempdir().unwrap();
    for text in shown {
        let whole = if text.contains("listener") {
            text.clone()
        } else if text.contains("[[upstream]]") {
            format!("{LISTENER}{text}{GUARDED}{AFTER}")
        } else {
            format!("{LISTENER}{UPSTREAM}{text}{AFTER}")
        };
        let path = folder.path().join("shown.toml");
        fs::write(&path, whole).unwrap();
        let checked = Config::load(&path).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        assert_eq!(checked.warnings.lines(), "", "{text}");
    }
}

#[test]
fn the_short_configuration_in_the_readme_is_the_one_that_is_shipped() {
    let shipped = fs::read_to_string("conf/minimal.toml").unwrap();
    let settings = shipped.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    assert_eq!(shown().first().map(|text| text.trim()), Some(settings.trim()));
}
