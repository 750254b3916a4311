//! Reads one table, key by key: each key with its type, its unit and its bounds, and in the end what nobody asked for.
//!
//! Never stops: a value that cannot be used becomes a problem and its default, and reading goes on.

use std::{cell::RefCell, fmt, ops::RangeInclusive, time::Duration};

use super::{
    file::{Entry, Kind, Table, Value, read_text},
    problem::{At, Report, Sources},
    suggest, units,
};

/// Bytes of a file that holds a secret.
const SECRET_BYTES_MAX: u64 = 4096;

/// What every check needs: where to report, and which file a place is in.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub report: &'a Report,
    pub sources: &'a Sources,
}

/// A value and the place where it stands.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub value: T,
    pub at: At,
}

/// One table while it is read. Remembers which keys were asked for, so that [`Reader::finish`] can name the others.
pub(super) struct Reader<'a> {
    pub context: Context<'a>,
    /// As it stands in the file: `[store]`, `[[route]]`.
    pub name: String,
    pub at: At,
    table: &'a Table,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Reader<'a> {
    #[must_use]
    pub(super) fn new(context: Context<'a>, name: impl Into<String>, at: At, table: &'a Table) -> Self {
        Reader { context, name: name.into(), at, table, known: RefCell::default() }
    }

    #[must_use]
    pub(super) fn report(&self) -> &'a Report {
        self.context.report
    }

    /// The entry of a key, which from now on is a known one.
    pub(super) fn entry(&self, key: &'static str) -> Option<&'a Entry> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        self.table.entries.iter().find(|entry| entry.key == key)
    }

    pub(super) fn value(&self, key: &'static str) -> Option<&'a Value> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// All entries, for tables whose keys are the user's own words.
    #[must_use]
    pub(super) fn entries(&self) -> &'a [Entry] {
        &self.table.entries
    }

    /// Where a key stands, or the table if it does not.
    pub(super) fn at_key(&self, key: &str) -> At {
        self.table
            .entries
            .iter()
            .find(|entry| entry.key == key)
            .map_or(&self.at, |entry| &entry.key_at)
            .clone()
    }

    /// Where the value of a key stands, or the table if there is none.
    pub(super) fn at_value(&self, key: &str) -> At {
        self.table
            .entries
            .iter()
            .find(|entry| entry.key == key)
            .map_or(&self.at, |entry| &entry.value.at)
            .clone()
    }

    pub(super) fn text(&self, key: &'static str) -> Option<Located<String>> {
        let value = self.value(key)?;
        match &value.kind {
            Kind::Text(text) => Some(Located { value: text.clone(), at: value.at.clone() }),
            other => self.wrong_type(key, value, other, "a text in quotes"),
        }
    }

    /// A key without which the table means nothing.
    pub(super) fn required_text(
        &self,
        key: &'static str,
        follows: &str,
        mend: &str,
    ) -> Option<Located<String>> {
        if self.value(key).is_none() {
            self.report().missing(&self.at, format!("{} without `{key}`", self.name), follows, mend);
        }
        self.text(key)
    }

    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        let Some(value) = self.value(key) else { return default };
        match &value.kind {
            Kind::Boolean(flag) => *flag,
            other => self.wrong_type(key, value, other, "true or false").unwrap_or(default),
        }
    }

    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = choices.iter().find(|(name, _)| *name == text.value).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let mend = match suggest::closest(&text.value, names.iter().copied()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("write one of \"{}\"", names.join("\", \"")),
            };
            self.report().error(&text.at, format!("`{key}` cannot be \"{}\"", text.value), "", mend);
        }
        found
    }

    pub(super) fn duration(
        &self,
        key: &'static str,
        default: Duration,
        bounds: RangeInclusive<Duration>,
    ) -> Duration {
        self.measure(key, default, &bounds, units::duration, units::show_duration, "\"5s\" or \"250ms\"")
    }

    pub(super) fn size(&self, key: &'static str, default: usize, bounds: RangeInclusive<usize>) -> usize {
        self.measure(key, default, &bounds, units::size, units::show_size, "\"64KiB\" or \"1MiB\"")
    }

    pub(super) fn count(&self, key: &'static str, default: usize, bounds: RangeInclusive<usize>) -> usize {
        let Some(value) = self.value(key) else { return default };
        let Kind::Integer(number) = value.kind else {
            return self.wrong_type(key, value, &value.kind, "a whole number").unwrap_or(default);
        };
        match usize::try_from(number) {
            Ok(number) if bounds.contains(&number) => number,
            _ => self.out_of_bounds(key, &value.at, number, bounds.start(), bounds.end(), default),
        }
    }

    fn measure<T: Copy + PartialOrd>(
        &self,
        key: &'static str,
        default: T,
        bounds: &RangeInclusive<T>,
        parse: impl Fn(&str) -> Result<T, units::UnitProblem>,
        show: impl Fn(T) -> String,
        example: &str,
    ) -> T {
        let Some(value) = self.value(key) else { return default };
        let text = match &value.kind {
            Kind::Text(text) => text.clone(),
            // A bare number is read on as if it were quoted, so that the message is about the missing unit.
            Kind::Integer(number) => number.to_string(),
            other => return self.wrong_type(key, value, other, example).unwrap_or(default),
        };
        match parse(&text) {
            Ok(parsed) if bounds.contains(&parsed) => parsed,
            Ok(parsed) => {
                let (least, most) = (show(*bounds.start()), show(*bounds.end()));
                self.out_of_bounds(key, &value.at, show(parsed), least, most, default)
            }
            Err(problem) => {
                let what = format!("`{key} = {text}` {problem}");
                self.report().error(&value.at, what, "", "");
                default
            }
        }
    }

    /// A text, or a list of texts.
    pub(super) fn texts(&self, key: &'static str) -> Vec<Located<String>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let items = match &value.kind {
            Kind::Array(items) => items.as_slice(),
            _ => std::slice::from_ref(value),
        };
        let mut texts = Vec::new();
        for item in items {
            match &item.kind {
                Kind::Text(text) => texts.push(Located { value: text.clone(), at: item.at.clone() }),
                other => {
                    self.wrong_type::<()>(key, item, other, "a text, or a list of texts");
                }
            }
        }
        texts
    }

    pub(super) fn table(&self, key: &'static str) -> Option<Reader<'a>> {
        let entry = self.entry(key)?;
        let name = if self.name.is_empty() { format!("[{key}]") } else { format!("`{key}`") };
        match &entry.value.kind {
            Kind::Table(table) => Some(Reader::new(self.context, name, entry.value.at.clone(), table)),
            other => self.wrong_type(key, &entry.value, other, "a table"),
        }
    }

    /// The tables of a list; a table alone is a list of one where the file says `{ … }`.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Reader<'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let items = match &value.kind {
            Kind::Array(items) => items.as_slice(),
            Kind::Table(_) if self.name.is_empty() => {
                let what = format!("[{key}] stands with single brackets");
                let follows = "there may be several, so it is a list";
                self.report().error(&self.at_key(key), what, follows, format!("write [[{key}]]"));
                std::slice::from_ref(value)
            }
            _ => std::slice::from_ref(value),
        };
        let mut readers = Vec::new();
        for item in items {
            match &item.kind {
                Kind::Table(table) => {
                    let name = if self.name.is_empty() { format!("[[{key}]]") } else { format!("`{key}`") };
                    readers.push(Reader::new(self.context, name, item.at.clone(), table));
                }
                other => {
                    self.wrong_type::<()>(key, item, other, "a table");
                }
            }
        }
        readers
    }

    /// A text in the file, or `{ file = "…" }`: the text of that file without the line end behind it.
    pub(super) fn secret(&self, key: &'static str) -> Option<Located<String>> {
        self.value(key).and_then(|value| self.one_secret(key, value))
    }

    /// One such secret, or a list of them.
    pub(super) fn secrets(&self, key: &'static str) -> Vec<Located<String>> {
        let items = match self.value(key).map(|value| (value, &value.kind)) {
            Some((_, Kind::Array(items))) => items.as_slice(),
            Some((value, _)) => std::slice::from_ref(value),
            None => &[],
        };
        items.iter().filter_map(|item| self.one_secret(key, item)).collect()
    }

    fn one_secret(&self, key: &'static str, value: &Value) -> Option<Located<String>> {
        let text = match &value.kind {
            Kind::Text(text) => text.clone(),
            Kind::Table(table) => {
                let reader = Reader::new(self.context, format!("`{key}`"), value.at.clone(), table);
                let path = reader.required_text("file", "there is no secret", "write { file = \"…\" }");
                reader.finish();
                let path = path?;
                let full = self.context.sources.folder(path.at.file).join(&path.value);
                match read_text(&full, SECRET_BYTES_MAX) {
                    Ok(text) => text.trim_end_matches(['\r', '\n']).to_owned(),
                    Err(error) => {
                        let what = format!("{} cannot be read: {error}", full.display());
                        let mend = "check the path, which starts at this file, and who may read it";
                        self.report().error(&path.at, what, "there is no secret", mend);
                        return None;
                    }
                }
            }
            other => return self.wrong_type(key, value, other, "a text, or { file = \"…\" }"),
        };
        Some(Located { value: text, at: value.at.clone() })
    }

    /// A key that a later version will know. An option that is read and ignored would be worse than this problem.
    pub(super) fn unavailable(&self, key: &'static str, mend: &str) {
        if let Some(entry) = self.entry(key) {
            unavailable(self.report(), &entry.key_at, &format!("`{key}`"), mend);
        }
    }

    /// Like [`Reader::unavailable`], but the values that say "not used" are fine.
    pub(super) fn unavailable_unless(&self, key: &'static str, off: &str, mend: &str) {
        let is_off = match self.value(key).map(|value| &value.kind) {
            Some(Kind::Text(text)) => text == off,
            Some(Kind::Boolean(flag)) => !flag,
            Some(Kind::Integer(_) | Kind::Array(_) | Kind::Table(_) | Kind::Other(_)) | None => false,
        };
        if !is_off {
            self.unavailable(key, mend);
        }
    }

    /// Reports every key that nobody asked for. To be called when all known keys were.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        for entry in &self.table.entries {
            if known.contains(&entry.key.as_str()) {
                continue;
            }
            let place = if self.name.is_empty() { "the file".to_owned() } else { self.name.clone() };
            let what = format!("{place} has no key `{}`", entry.key);
            let mend = match suggest::closest(&entry.key, known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            self.report().error(&entry.key_at, what, "nothing would read it", mend);
        }
    }

    fn wrong_type<T>(&self, key: &str, value: &Value, found: &Kind, wanted: &str) -> Option<T> {
        let what = format!("`{key}` is {}", found.name());
        self.report().error(&value.at, what, "", format!("write {wanted}"));
        None
    }

    fn out_of_bounds<T>(
        &self,
        key: &str,
        at: &At,
        found: impl fmt::Display,
        least: impl fmt::Display,
        most: impl fmt::Display,
        default: T,
    ) -> T {
        let mend = format!("write something from {least} to {most}");
        self.report().error(at, format!("`{key}` is {found}, which is out of its bounds"), "", mend);
        default
    }
}

/// Says that something is not there yet, and what to do meanwhile.
pub(super) fn unavailable(report: &Report, at: &At, what: &str, mend: &str) {
    report.error(at, format!("{what} is not available in this version"), "it would be ignored", mend);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file;

    /// Reads a text as the top of a file and gives the problems as lines.
    fn problems_of(text: &str, read: impl Fn(&Reader<'_>)) -> String {
        let (mut sources, report) = (Sources::default(), Report::default());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        let table = file::read(&path, &|_| None, &mut sources, &report).unwrap();
        let at = At { file: 0, start: 0, end: 0 };
        read(&Reader::new(Context { report: &report, sources: &sources }, "[t]", at, &table));
        report.finish(sources).lines().replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn a_bare_number_misses_its_unit() {
        let text = problems_of("wait = 5\nroom = 64\n", |reader| {
            let second = Duration::from_secs(1);
            assert_eq!(reader.duration("wait", second, Duration::ZERO..=Duration::from_secs(60)), second);
            assert_eq!(reader.size("room", 9, 0..=1000), 9);
        });
        assert_eq!(
            text,
            "c.toml:1:8: `wait = 5` has no unit; write \"5s\" or \"5ms\"\n\
             c.toml:2:8: `room = 64` has no unit; write \"64B\" or \"64KiB\"\n"
        );
    }

    #[test]
    fn bounds_are_named_with_their_unit() {
        let text = problems_of("wait = '2h'\nmany = -1\n", |reader| {
            reader.duration("wait", Duration::ZERO, Duration::from_millis(100)..=Duration::from_secs(60));
            reader.count("many", 1, 1..=10);
        });
        assert!(
            text.contains("`wait` is 2h, which is out of its bounds; write something from 100ms to 1m"),
            "{text}"
        );
        assert!(
            text.contains("`many` is -1, which is out of its bounds; write something from 1 to 10"),
            "{text}"
        );
    }

    #[test]
    fn unknown_keys_and_words_are_told_what_was_meant() {
        let text = problems_of("mdoe = 'one'\nmode = 'onec'\n", |reader| {
            reader.choice("mode", &[("once", 1), ("serial", 2)]);
            reader.finish();
        });
        assert!(
            text.contains("c.toml:1:1: [t] has no key `mdoe`; nothing would read it; did you mean `mode`?")
        );
        assert!(text.contains("c.toml:2:8: `mode` cannot be \"onec\"; did you mean \"once\"?"), "{text}");
    }

    #[test]
    fn a_secret_comes_from_a_file_beside_the_configuration() {
        let text =
            problems_of("a = { file = 'c.toml' }\nb = { file = 'none' }\nc = { fiel = '' }\n", |reader| {
                assert!(reader.secret("a").unwrap().value.starts_with("a = {"));
                assert!(reader.secret("b").is_none());
                assert!(reader.secret("c").is_none());
            });
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("did you mean `file`?"), "{text}");
    }
}
