//! The rules of the house, kept by a test: what imports what, how long a file and a function may be, which crate is
//! used where, and that nothing lies about that is not compiled. An order that no test keeps does not hold.
//!
//! This reads the sources as text, with a reader of strings, comments and braces and nothing cleverer: it never expands
//! macros and follows no re-exports. Each rule is a function from text to complaints, and is tried on made-up text at
//! the end of this file, so that a rule that can no longer fail is noticed.

use std::{
    fmt::Write as _,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

/// The top-level modules from the outside in. A module imports only from modules that stand after it, so that there can
/// be no cycle. Which one of two neighbours stands first is decided by the imports that there are.
const ORDER: [&str; 13] = [
    "cli", "server", "admin", "edge", "gate", "config", "claim", "upstream", "answer", "route", "request",
    "store", "ops",
];

/// A crate, and the only places that may name it: exchanging it, or auditing its use, is then work in one place.
const OWNERS: [(&str, &[&str]); 15] = [
    ("clap", &["cli"]),
    ("toml", &["config"]),
    ("annotate_snippets", &["config"]),
    ("dashmap", &["claim"]),
    ("quick_xml", &["request/xml"]),
    ("hmac", &["request/verify"]),
    ("redb", &["store/file"]),
    ("redis", &["store/redis"]),
    ("rustls", &["edge/tls", "upstream"]),
    ("sha1", &["request/verify"]),
    ("sha2", &["request/verify"]),
    ("tokio_rustls", &["edge/tls", "upstream"]),
    ("x509_parser", &["edge/tls"]),
    ("tower", &["upstream"]),
    ("prometheus_client", &["ops", "server"]),
];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
/// Tests are read one at a time, and a scenario is told from its beginning to its end: they may be longer.
const TEST_FILE_LINES_MAX: usize = 800;
const TEST_FUNCTION_LINES_MAX: usize = 100;

/// Where Rust lies in this project.
const ROOTS: [&str; 4] = ["src", "tests", "benches", "fuzz/fuzz_targets"];

#[test]
fn imports_point_one_way_only() {
    check(&sources("src"), imports);
}

#[test]
fn every_module_has_its_place_in_the_order() {
    let unplaced: Vec<String> = sources("src")
        .iter()
        .map(Source::module)
        .filter(|module| !["lib", "main"].contains(module) && !ORDER.contains(module))
        .map(|module| format!("src/{module}: not in ORDER of tests/tidy.rs"))
        .collect();
    assert!(unplaced.is_empty(), "{}", told(&unplaced));
}

#[test]
fn no_file_is_longer_than_one_can_read_at_a_sitting() {
    check(&all_sources(), lengths_of_files);
}

#[test]
fn no_function_is_longer_than_a_screen() {
    check(&all_sources(), lengths_of_functions);
}

#[test]
fn each_crate_is_named_only_where_it_belongs() {
    check(&sources("src"), owners);
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    check(&all_sources(), opening);
}

#[test]
fn nothing_is_left_for_later() {
    check(&all_sources(), leftovers);
}

#[test]
fn every_file_is_compiled() {
    let orphans = orphans(&all_sources());
    assert!(orphans.is_empty(), "{}", told(&orphans));
}

fn check(files: &[Source], rule: impl Fn(&Source) -> Vec<String>) {
    assert!(!files.is_empty(), "no sources were found: the rule would hold for nothing");
    let complaints: Vec<String> = files
        .iter()
        .flat_map(|file| rule(file).into_iter().map(|what| format!("{}: {what}", file.path)))
        .collect();
    assert!(complaints.is_empty(), "{}", told(&complaints));
}

fn told(complaints: &[String]) -> String {
    complaints.iter().fold(String::new(), |mut text, complaint| {
        let _ = write!(text, "\n  {complaint}");
        text
    })
}

fn all_sources() -> Vec<Source> {
    ROOTS.into_iter().flat_map(sources).collect()
}

/// Every Rust file below `root`, in the order of their names. A root that is not there has none.
fn sources(root: &str) -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![top.join(root)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path: PathBuf = entry.expect("a folder of this project can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).expect("a source of this project can be read");
                let path = path.strip_prefix(top).expect("it was found below the top");
                found.push(Source::new(&path.to_string_lossy(), &text));
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// One file, as the rules see it.
struct Source {
    /// From the top of the project, with `/`.
    path: String,
    text: String,
    /// The text with comments, strings and everything for tests blanked out; every line is still where it was.
    code: String,
    /// How many lines are for tests.
    test_lines: usize,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let mut code = blanked(text);
        let mut test_lines = 0;
        for part in for_tests(&code) {
            test_lines += code[part.clone()].lines().count();
            let blank = wiped(&code[part.clone()]);
            code.replace_range(part, &blank);
        }
        Self { path: path.to_owned(), text: text.to_owned(), code, test_lines }
    }

    /// The top-level module that the file is part of.
    fn module(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
    }

    /// A file that is a test as a whole: below tests/, or `#[cfg(test)] mod tests;` stands above it.
    fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }
}

fn imports(file: &Source) -> Vec<String> {
    let Some(own) = ORDER.iter().position(|module| *module == file.module()) else { return Vec::new() };
    if file.is_test() {
        return Vec::new();
    }
    let mut against: Vec<&str> = imported(&file.code);
    against.retain(|module| ORDER.iter().position(|known| known == module).is_some_and(|at| at < own));
    against.sort_unstable();
    against.dedup();
    against.into_iter().map(|module| format!("imports from {module}, which stands before it")).collect()
}

/// The top-level modules that the code names: `crate::store::Key`, `crate::{gate, store::Key}`.
fn imported(code: &str) -> Vec<&str> {
    let mut modules = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(is_of_word) {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => modules.push(first_word(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut fresh = true;
                for (at, sign) in group.char_indices() {
                    match sign {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => fresh = true,
                        _ if fresh && is_of_word(sign) => {
                            modules.push(first_word(&group[at..]));
                            fresh = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    modules
}

fn lengths_of_files(file: &Source) -> Vec<String> {
    let lines = file.text.lines().count() - file.test_lines;
    let max = if file.is_test() { TEST_FILE_LINES_MAX } else { FILE_LINES_MAX };
    (lines > max).then(|| format!("{lines} lines without its tests, more than {max}")).into_iter().collect()
}

fn lengths_of_functions(file: &Source) -> Vec<String> {
    let code = &file.code;
    let max = if file.is_test() { TEST_FUNCTION_LINES_MAX } else { FUNCTION_LINES_MAX };
    let mut complaints = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].ends_with(is_of_word) {
            continue;
        }
        let end = end_of_item(code, at);
        let lines = code[at..end].lines().count();
        if lines > max {
            let name = first_word(&code[at + "fn ".len()..]);
            complaints.push(format!("fn {name} has {lines} lines, more than {max}"));
        }
    }
    complaints
}

fn owners(file: &Source) -> Vec<String> {
    let below = file.path.strip_prefix("src/").unwrap_or(&file.path).trim_end_matches(".rs");
    let mut complaints = Vec::new();
    for (name, places) in OWNERS {
        let at_home = places.iter().any(|place| {
            below.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        if !at_home && !file.is_test() && names_crate(&file.code, name) {
            complaints.push(format!("names the crate {name}, which belongs to {}", places.join(" and ")));
        }
    }
    complaints
}

fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let begins = !code[..at].ends_with(|sign| is_of_word(sign) || sign == ':');
        let rest = &code[at + name.len()..];
        let imported = code[..at].ends_with("use ") && rest.starts_with([';', ' ']);
        begins && (rest.starts_with("::") || imported)
    })
}

fn opening(file: &Source) -> Vec<String> {
    let opens = file.text.starts_with("//! ");
    (!opens).then(|| "does not open with //! and what it is for".to_owned()).into_iter().collect()
}

fn leftovers(file: &Source) -> Vec<String> {
    // Put together here, so that this file does not complain about itself.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    let mut complaints = Vec::new();
    for (line, text) in (1..).zip(file.text.lines()) {
        let left = words.iter().filter(|word| names_word(text, word));
        complaints.extend(left.map(|word| format!("{line}: {word}: finish it, or write it down elsewhere")));
    }
    let ignored = concat!("#[", "ignore");
    if blanked(&file.text).contains(ignored) {
        complaints.push("a test that is ignored keeps nothing".to_owned());
    }
    complaints
}

fn names_word(text: &str, word: &str) -> bool {
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_of_word) && !text[at + word.len()..].starts_with(is_of_word))
}

/// Files that no `mod` reaches (the compiler says nothing about them), and parents named `mod.rs`.
fn orphans(files: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let name = name.trim_end_matches(".rs");
        if name == "mod" {
            complaints.push(format!("{}: its folder's name with .rs, please, and not mod.rs", file.path));
            continue;
        }
        // Files directly in a root, and main.rs in a folder of tests/, are crates of their own.
        if (ROOTS.contains(&folder) && folder != "src") || ["lib", "main"].contains(&name) {
            continue;
        }
        let parents = [format!("{folder}.rs"), format!("{folder}/lib.rs"), format!("{folder}/main.rs")];
        let declared = files.iter().filter(|other| parents.contains(&other.path)).any(|parent| {
            let code = blanked(&parent.text);
            names_word(&code, &format!("mod {name};")) || names_word(&code, &format!("mod {name}"))
        });
        if !declared {
            complaints.push(format!("{}: no `mod {name};` reaches it", file.path));
        }
    }
    complaints
}

fn is_of_word(sign: char) -> bool {
    sign.is_alphanumeric() || sign == '_'
}

fn first_word(text: &str) -> &str {
    &text[..text.find(|sign| !is_of_word(sign)).unwrap_or(text.len())]
}

/// The parts of the code that only a test build has: what stands under `#[cfg(test)]`.
fn for_tests(code: &str) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    for (at, attribute) in code.match_indices("#[cfg(test)]") {
        if parts.last().is_none_or(|last| last.end <= at) {
            parts.push(at..end_of_item(code, at + attribute.len()));
        }
    }
    parts
}

/// Where an item ends that begins at `from`: behind its `;`, or behind the brace that closes its body.
fn end_of_item(code: &str, from: usize) -> usize {
    let mut braces = 0_usize;
    let mut others = 0_usize;
    for (at, sign) in code[from..].char_indices() {
        match sign {
            '{' => braces += 1,
            '}' => braces = braces.saturating_sub(1),
            '(' | '[' => others += 1,
            ')' | ']' => others = others.saturating_sub(1),
            _ => {}
        }
        let ends = sign == '}' || (sign == ';' && others == 0);
        if ends && braces == 0 {
            return from + at + sign.len_utf8();
        }
    }
    code.len()
}

/// The text with comments and the insides of strings and characters as blanks.
fn blanked(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(sign) = rest.chars().next() {
        let word_before = code.ends_with(is_of_word);
        let inside = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            length_of_comment(rest)
        } else if sign == '"' {
            length_of_string(rest)
        } else if sign == '\'' {
            length_of_character(rest)
        } else if word_before {
            0
        } else {
            length_of_raw_string(rest)
        };
        if inside > 0 {
            code.push_str(&wiped(&rest[..inside]));
            rest = &rest[inside..];
        } else {
            code.push(sign);
            rest = &rest[sign.len_utf8()..];
        }
    }
    code
}

/// Blanks of the same length in bytes, with the ends of lines kept.
fn wiped(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

fn length_of_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let (step, change) = match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (2, 1),
            [b'*', b'/', ..] => (2, -1),
            _ => (1, 0),
        };
        at += step;
        depth = depth.saturating_add_signed(change);
        if depth == 0 {
            break;
        }
    }
    at
}

/// Of a string that begins with its quote, both quotes included.
fn length_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Of `'x'` or `'\u{1f}'`; of the tick of a lifetime, none.
fn length_of_character(text: &str) -> usize {
    let mut signs = text.char_indices().skip(1);
    match (signs.next(), signs.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let after = at + escaped.len_utf8();
            text[after..].find('\'').map_or(text.len(), |end| after + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// Of `r"…"`, `br#"…"#`; of anything else, none.
fn length_of_raw_string(text: &str) -> usize {
    let Some(marked) = ["r", "br", "cr"].iter().find_map(|prefix| text.strip_prefix(prefix)) else {
        return 0;
    };
    let hashes = marked.bytes().take_while(|byte| *byte == b'#').count();
    let Some(inside) = marked[hashes..].strip_prefix('"') else { return 0 };
    let closing = format!("\"{}", "#".repeat(hashes));
    inside.find(&closing).map_or(text.len(), |end| text.len() - inside.len() + end + closing.len())
}

/// Each rule is shown something that it must complain about, and something near it that it must not.
#[cfg(test)]
mod made_up {
    use super::*;

    fn complains(rule: impl Fn(&Source) -> Vec<String>, path: &str, text: &str) -> bool {
        !rule(&Source::new(path, text)).is_empty()
    }

    #[test]
    fn an_import_against_the_order_is_found() {
        assert!(complains(imports, "src/store/memory.rs", "use crate::gate::Core;"));
        assert!(complains(imports, "src/store.rs", "use crate::{ops::now, gate::{self, Core}};"));
        assert!(complains(imports, "src/ops.rs", "fn of() -> crate::store::Key {}"));
        assert!(!complains(imports, "src/gate.rs", "use crate::{store::Key, ops};"));
        assert!(!complains(imports, "src/store.rs", "use crate::store::Key; // crate::gate"));
        assert!(!complains(imports, "src/store.rs", "#[cfg(test)] mod tests { use crate::gate; }"));
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let lines = "const A: u8 = 0;\n".repeat(FILE_LINES_MAX);
        assert!(!complains(lengths_of_files, "src/a.rs", &lines));
        assert!(complains(lengths_of_files, "src/a.rs", &format!("{lines}const B: u8 = 0;\n")));
        assert!(!complains(lengths_of_files, "tests/a.rs", &format!("{lines}const B: u8 = 0;\n")));
        assert!(complains(lengths_of_files, "src/a/tests.rs", &lines.repeat(2)));
        let tests = "#[cfg(test)]\nmod tests {\n    fn one() {}\n}\n";
        assert!(!complains(lengths_of_files, "src/a.rs", &format!("{lines}{tests}")));
    }

    #[test]
    fn a_long_function_is_found() {
        let of = |lines: usize| format!("fn one(a: [u8; 3]) {{\n{}}}\n", "    let a = '}';\n".repeat(lines));
        assert!(!complains(lengths_of_functions, "src/a.rs", &of(FUNCTION_LINES_MAX - 2)));
        assert!(complains(lengths_of_functions, "src/a.rs", &of(FUNCTION_LINES_MAX - 1)));
        assert!(!complains(lengths_of_functions, "tests/a.rs", &of(FUNCTION_LINES_MAX)));
        assert!(complains(lengths_of_functions, "tests/a.rs", &of(TEST_FUNCTION_LINES_MAX)));
        let two = format!("{}{}", of(40), of(40));
        assert!(!complains(lengths_of_functions, "src/a.rs", &two));
    }

    #[test]
    fn a_crate_outside_its_place_is_found() {
        assert!(complains(owners, "src/gate.rs", "use dashmap::DashMap;"));
        assert!(complains(owners, "src/gate.rs", "fn a() -> toml::Value {}"));
        assert!(complains(owners, "src/claims.rs", "use dashmap::DashMap;"));
        assert!(!complains(owners, "src/claim/flight.rs", "use dashmap::DashMap;"));
        assert!(!complains(owners, "src/gate.rs", "let a = \"toml::Value\"; crate::toml::a(); mytoml::b();"));
    }

    #[test]
    fn a_file_without_its_purpose_is_found() {
        assert!(complains(opening, "src/a.rs", "// What it is for.\n"));
        assert!(!complains(opening, "src/a.rs", "//! What it is for.\n"));
    }

    #[test]
    fn what_is_left_for_later_is_found() {
        assert!(complains(leftovers, "src/a.rs", concat!("// TO", "DO: later")));
        assert!(complains(leftovers, "tests/a.rs", concat!("#[", "ignore = \"slow\"]\nfn a() {}")));
        assert!(!complains(leftovers, "src/a.rs", "// To do this well, XXXL is too large."));
    }

    #[test]
    fn a_file_that_no_mod_reaches_is_found() {
        let files = |parent: &str| {
            orphans(&[
                Source::new("src/lib.rs", "pub mod a;"),
                Source::new("src/a.rs", parent),
                Source::new("src/a/b.rs", ""),
            ])
        };
        assert_eq!(files("// mod b;\nmod bc;").len(), 1);
        assert_eq!(files("#[cfg(test)]\nmod b;"), Vec::<String>::new());
        assert_eq!(orphans(&[Source::new("src/a/mod.rs", "")]).len(), 1);
    }

    #[test]
    fn strings_characters_and_comments_are_no_code() {
        let text = "a /* { /* } */ { */ \"{\\\"\" '{' '\\'' '\\u{7d}' &'b str r#\"}\"# br\"{\" c // {";
        let code = blanked(text);
        assert_eq!(code.len(), text.len());
        assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "&'b", "str", "c"]);
    }
}
