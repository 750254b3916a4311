//! What was typed: the files of a configuration as one tree, in which every key and value knows its place.
//!
//! Takes in `include`d files and `${NAME}` variables. Never says what a value means; that is `check`'s.
//!
//! The tree is walked by hand instead of through serde: serde stops at the first error, and its `flatten` and
//! `untagged` lose the places of what they read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::problem::{At, Report, Sources};

/// Files of one configuration, the first one included.
const FILES_MAX: usize = 256;
/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 4 << 20;

#[derive(Clone, Debug)]
pub(super) struct Value {
    pub at: At,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Text(String),
    Integer(i64),
    Boolean(bool),
    Array(Vec<Value>),
    Table(Table),
    /// A float or a date: nothing in a configuration is one.
    Other(&'static str),
}

impl Kind {
    /// What it is called in a message.
    #[must_use]
    pub(super) fn name(&self) -> &'static str {
        match self {
            Kind::Text(_) => "a text",
            Kind::Integer(_) => "a number",
            Kind::Boolean(_) => "true or false",
            Kind::Array(_) => "a list",
            Kind::Table(_) => "a table",
            Kind::Other(name) => name,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// In the order of the file.
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub key_at: At,
    pub value: Value,
}

/// Looks environment variables up; an argument, so that tests need not change their own environment.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads a file and all it includes; `None` where this file itself cannot be read. Where something in it cannot be
/// parsed the problem is in the report and the tree has what could be read.
pub(super) fn read(
    path: &Path,
    environment: Environment<'_>,
    sources: &mut Sources,
    report: &Report,
) -> Option<Table> {
    let mut loader = Loader { environment: Some(environment), sources, report, open: Vec::new(), files: 0 };
    // The name goes in first, so that a file that cannot be read has a place to be reported at.
    let root = loader.sources.add_file(path.to_owned(), String::new());
    let at = At::new(root, 0..0);
    let text = loader.text(path, &at)?;
    loader.sources.set_text(root, text.clone());
    Some(loader.file(path, root, &text, &at))
}

/// Reads a text that stands for command line arguments.
pub(super) fn read_arguments(
    name: &'static str,
    text: String,
    sources: &mut Sources,
    report: &Report,
) -> Table {
    let file = sources.add_arguments(name, text.clone());
    let mut loader = Loader { environment: None, sources, report, open: Vec::new(), files: 0 };
    loader.parse(file, &text)
}

struct Loader<'a> {
    /// `None`: what was typed on a command line has been through a shell already.
    environment: Option<Environment<'a>>,
    sources: &'a mut Sources,
    report: &'a Report,
    /// The files that are being read, outermost first: what an include must not lead back to.
    open: Vec<PathBuf>,
    files: usize,
}

impl Loader<'_> {
    fn text(&mut self, path: &Path, from: &At) -> Option<String> {
        self.files += 1;
        if self.files > FILES_MAX {
            let mend = "merge some of them, or look for a pattern that matches more than was meant";
            self.report.error(from, format!("more than {FILES_MAX} files are included"), "", mend);
            return None;
        }
        match read_text(path, FILE_BYTES_MAX) {
            Ok(text) => Some(text),
            Err(error) => {
                let what = format!("{} cannot be read: {error}", path.display());
                self.report.error(from, what, "nothing of it is known", "check the path and its permissions");
                None
            }
        }
    }

    fn file(&mut self, path: &Path, file: usize, text: &str, from: &At) -> Table {
        let canonical = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if self.open.contains(&canonical) {
            let what = format!("{} includes itself, directly or through another file", path.display());
            self.report.error(from, what, "reading it would never end", "take this include out");
            return Table::default();
        }
        let mut table = self.parse(file, text);
        self.open.push(canonical);
        self.include(path, &mut table);
        self.open.pop();
        table
    }

    fn parse(&mut self, file: usize, text: &str) -> Table {
        let (parsed, errors) = DeTable::parse_recoverable(text);
        let mut is_first = true;
        for error in errors {
            let at = At::new(file, error.span().unwrap_or(0..0));
            let message = one_line(error.message());
            // The header of a table that was not understood leaves its keys to the table before.
            if !is_first && message.starts_with("duplicate key") {
                continue;
            }
            if is_first {
                self.report.tear_from(At { start: section_of(text, at.start), ..at.clone() });
                is_first = false;
            }
            // Whatever follows is read as if it stood in that list.
            let is_open = message.contains("array elements") || message.contains("in array");
            let mend = match is_open {
                true => "close the list or the text that begins before this; see https://toml.io",
                false => "mend the syntax; see https://toml.io",
            };
            self.report.syntax(&at, format!("this is not TOML: {message}"), mend);
            if is_open {
                break;
            }
        }
        self.table(file, parsed.into_inner())
    }

    fn table(&self, file: usize, table: DeTable<'_>) -> Table {
        let mut entries: Vec<Entry> = table
            .into_iter()
            .map(|(key, value)| Entry {
                key_at: At::new(file, key.span()),
                key: key.into_inner().into_owned(),
                value: self.value(file, value),
            })
            .collect();
        entries.sort_by(|left, right| left.key_at.cmp(&right.key_at));
        Table { entries }
    }

    fn value(&self, file: usize, value: Spanned<DeValue<'_>>) -> Value {
        let at = At::new(file, value.span());
        let kind = match value.into_inner() {
            DeValue::String(text) => Kind::Text(self.expand(&text, &at)),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(number) => Kind::Integer(number),
                Err(_) => Kind::Other("a number that is too large"),
            },
            DeValue::Boolean(flag) => Kind::Boolean(flag),
            DeValue::Float(_) => Kind::Other("a decimal number"),
            DeValue::Datetime(_) => Kind::Other("a date"),
            DeValue::Array(items) => {
                Kind::Array(items.into_iter().map(|item| self.value(file, item)).collect())
            }
            DeValue::Table(table) => Kind::Table(self.table(file, table)),
        };
        Value { at, kind }
    }

    /// Puts the environment in for `${NAME}`; `$${NAME}` stays as `${NAME}`. A `$` alone is a `$`, as regular
    /// expressions need it.
    fn expand(&self, text: &str, at: &At) -> String {
        let Some(environment) = self.environment else { return text.to_owned() };
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dollar) = rest.find("${") {
            let (before, from) = rest.split_at(dollar);
            if let Some(before) = before.strip_suffix('$') {
                out.push_str(before);
                out.push_str("${");
                rest = &from[2..];
                continue;
            }
            out.push_str(before);
            let Some((name, after)) = from[2..].split_once('}').filter(|(name, _)| is_name(name)) else {
                let mend = "write ${NAME} with letters, digits and underscores, or $${ for a literal ${";
                self.report.error(at, "`${` without the name of a variable", "", mend);
                return text.to_owned();
            };
            match environment(name) {
                Some(value) => out.push_str(&value),
                None => {
                    let what = format!("the environment variable `{name}` is not set");
                    let mend = format!("set it, or write the value here in place of ${{{name}}}");
                    self.report.error(at, what, "the value would be empty", mend);
                }
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }

    /// Reads the included files and puts what they hold before what the including file holds, so that a route
    /// without a match, which must stand last, can stand in the main file.
    fn include(&mut self, path: &Path, table: &mut Table) {
        let Some(position) = table.entries.iter().position(|entry| entry.key == "include") else { return };
        let Entry { value, .. } = table.entries.remove(position);
        let Kind::Array(patterns) = value.kind else {
            self.report.error(
                &value.at,
                "`include` is not a list",
                "nothing is included",
                "write include = [\"conf.d/*.toml\"]",
            );
            return;
        };
        let base = path.parent().unwrap_or(Path::new(""));
        let mut included = Table::default();
        for pattern in patterns {
            let Kind::Text(text) = &pattern.kind else {
                let what = format!("`include` holds {}", pattern.kind.name());
                self.report.error(&pattern.at, what, "", "write the path of a file, with `*` in its name");
                continue;
            };
            match matching(base, text) {
                Ok(files) if files.is_empty() => {
                    let what = format!("no file matches `{text}`");
                    let follows = "what should be configured there is missing";
                    self.report.error(&pattern.at, what, follows, "mend the path, which starts at this file");
                }
                Ok(files) => {
                    for path in files {
                        let Some(text) = self.text(&path, &pattern.at) else { continue };
                        let file = self.sources.add_file(path.clone(), text.clone());
                        merge(&mut included, self.file(&path, file, &text, &pattern.at), self.report);
                    }
                }
                Err(reason) => {
                    let mend = "a `*` may stand in the last part of the path only, and the folder must exist";
                    self.report.error(&pattern.at, format!("`{text}`: {reason}"), "", mend);
                }
            }
        }
        merge(&mut included, std::mem::take(table), self.report);
        *table = included;
    }
}

/// Where the section begins that a place stands in: the last line up to it with a header of the whole file's.
fn section_of(text: &str, place: usize) -> usize {
    let mut from = 0;
    let mut begins = 0;
    for line in text.split_inclusive('\n') {
        if from > place {
            break;
        }
        let header = line.trim_start().strip_prefix('[').map(|header| header.trim_start_matches('['));
        if header.is_some_and(|header| !header.split(']').next().unwrap_or(header).contains('.')) {
            begins = from;
        }
        from += line.len();
    }
    begins
}

/// Adds what another file holds: lists of tables grow, anything else may stand once.
fn merge(into: &mut Table, from: Table, report: &Report) {
    for entry in from.entries {
        let Some(there) = into.entries.iter_mut().find(|there| there.key == entry.key) else {
            into.entries.push(entry);
            continue;
        };
        match (&mut there.value.kind, entry.value.kind) {
            (Kind::Array(there), Kind::Array(more)) => there.extend(more),
            _ => {
                let what = format!("`{}` stands in two of the included files", entry.key);
                report.error(&entry.key_at, what, "one of them would be ignored", "keep one of them");
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum PatternProblem {
    #[error("the folder part has a `*`")]
    StarInFolder,
    #[error("more than one `*`")]
    Stars,
    #[error("the folder cannot be read")]
    Folder(#[source] io::Error),
}

/// The files that a pattern names, in the order of their names. A `*` does not match hidden files.
fn matching(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, PatternProblem> {
    let path = base.join(pattern);
    let (Some(name), Some(folder)) = (path.file_name().and_then(|name| name.to_str()), path.parent()) else {
        return Ok(Vec::new());
    };
    if Path::new(pattern).parent().is_some_and(|folder| folder.to_string_lossy().contains('*')) {
        return Err(PatternProblem::StarInFolder);
    }
    let Some((prefix, suffix)) = name.split_once('*') else {
        return Ok(if path.is_file() { vec![path] } else { Vec::new() });
    };
    if suffix.contains('*') {
        return Err(PatternProblem::Stars);
    }
    let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut files = Vec::new();
    for entry in fs::read_dir(listed).map_err(PatternProblem::Folder)? {
        let found = entry.map_err(PatternProblem::Folder)?.file_name();
        let Some(found) = found.to_str() else { continue };
        let long_enough = found.len() >= prefix.len() + suffix.len();
        let hidden = found.starts_with('.') && !prefix.starts_with('.');
        if long_enough && !hidden && found.starts_with(prefix) && found.ends_with(suffix) {
            files.push(folder.join(found));
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a file of at most so many bytes.
pub(super) fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    use io::Read;
    let mut text = String::new();
    fs::File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {bytes_max} bytes"),
        ));
    }
    Ok(text)
}

/// The part of another parser's message that fits on one line.
#[must_use]
pub(super) fn one_line(message: &str) -> String {
    let line = message.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn is_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_with(path: &Path, environment: Environment<'_>) -> (Table, String) {
        let (mut sources, report) = (Sources::default(), Report::default());
        let table = read(path, environment, &mut sources, &report).unwrap_or_default();
        (table, report.finish(sources).lines())
    }

    fn keys(table: &Table) -> Vec<&str> {
        table.entries.iter().map(|entry| entry.key.as_str()).collect()
    }

    #[test]
    fn included_files_come_first_and_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("conf.d")).unwrap();
        fs::write(folder.path().join("conf.d/20-b.toml"), "[[route]]\nname = 'b'\n").unwrap();
        fs::write(folder.path().join("conf.d/10-a.toml"), "[[route]]\nname = 'a'\n").unwrap();
        fs::write(folder.path().join("conf.d/.hidden.toml"), "broken").unwrap();
        let main = folder.path().join("main.toml");
        fs::write(&main, "include = ['conf.d/*.toml']\n[[route]]\nname = 'last'\n").unwrap();
        let (table, problems) = read_with(&main, &|_| None);
        assert_eq!(problems, "");
        let Kind::Array(routes) = &table.entries[0].value.kind else { panic!("{table:?}") };
        let names: Vec<&str> = routes
            .iter()
            .map(|route| match &route.kind {
                Kind::Table(table) => match &table.entries[0].value.kind {
                    Kind::Text(name) => name.as_str(),
                    _ => "",
                },
                _ => "",
            })
            .collect();
        assert_eq!(names, ["a", "b", "last"]);
    }

    #[test]
    fn a_file_that_includes_itself_is_told_so_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("main.toml");
        fs::write(&main, "include = ['main.toml', 'nothing-*.toml', 'a*/b.toml', 7]\n").unwrap();
        let (_, problems) = read_with(&main, &|_| None);
        assert!(problems.contains("includes itself"), "{problems}");
        assert!(problems.contains("no file matches `nothing-*.toml`"), "{problems}");
        assert!(problems.contains("the folder part has a `*`"), "{problems}");
        assert!(problems.contains("`include` holds a number"), "{problems}");
        assert_eq!(problems.lines().count(), 4, "{problems}");
    }

    #[test]
    fn variables_are_put_in_and_missing_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("main.toml");
        let text = "a = 'x${HOST}y'\nb = '$${HOST}'\nc = '${NONE}'\nd = '^a$'\ne = '${'\n";
        fs::write(&main, text).unwrap();
        let (table, problems) = read_with(&main, &|name| (name == "HOST").then(|| "shop".to_owned()));
        let texts: Vec<&str> = table
            .entries
            .iter()
            .map(|entry| match &entry.value.kind {
                Kind::Text(text) => text.as_str(),
                _ => "",
            })
            .collect();
        assert_eq!(texts, ["xshopy", "${HOST}", "", "^a$", "${"]);
        assert!(problems.contains("main.toml:3:5: the environment variable `NONE` is not set"), "{problems}");
        assert!(problems.contains("main.toml:5:5: `${` without the name"), "{problems}");
    }

    #[test]
    fn every_syntax_error_is_reported_and_the_rest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("main.toml");
        fs::write(&main, "a = \nb = 1\nc = = 2\nd = 3\n").unwrap();
        let (table, problems) = read_with(&main, &|_| None);
        assert!(problems.lines().count() >= 2, "{problems}");
        assert!(keys(&table).contains(&"d"), "{table:?}");
    }

    #[test]
    fn a_missing_file_is_a_problem_of_its_own() {
        let (_, problems) = read_with(Path::new("/nonexistent/oncegate.toml"), &|_| None);
        assert!(problems.starts_with("/nonexistent/oncegate.toml:1:1: "), "{problems}");
    }
}
