//! What is wrong with a configuration, where, what follows from it and how to mend it: collected, sorted, shown.
//!
//! Never stops at the first problem, and never prints: it hands out text.

use std::{
    cell::{Cell, RefCell},
    fmt,
    fmt::Write,
    ops::Range,
    path::{Path, PathBuf},
};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

/// More problems than this in one run are counted, not shown: nobody reads them.
const SHOWN_MAX: usize = 200;

/// A place in one of the files that were read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct At {
    /// Index into [`Sources`].
    pub file: usize,
    pub start: usize,
    pub end: usize,
}

impl At {
    #[must_use]
    pub fn new(file: usize, span: Range<usize>) -> Self {
        At { file, start: span.start, end: span.end }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is not used.
    Error,
    /// The configuration is used; somebody may be surprised by it.
    Warning,
}

/// One sentence in three parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    pub at: At,
    pub what: String,
    /// What follows from it; empty where that is plain.
    pub follows: String,
    pub mend: String,
}

/// The texts that were read, for lines, columns and snippets.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources(Vec<Source>);

#[derive(Clone, Debug)]
struct Source {
    name: Name,
    text: String,
}

#[derive(Clone, Debug)]
enum Name {
    File(PathBuf),
    /// A text that oncegate made itself from arguments: lines and columns in it would tell the reader nothing.
    Arguments(&'static str),
}

impl Sources {
    pub(super) fn add_file(&mut self, path: PathBuf, text: String) -> usize {
        self.0.push(Source { name: Name::File(path), text });
        self.0.len() - 1
    }

    pub(super) fn add_arguments(&mut self, name: &'static str, text: String) -> usize {
        self.0.push(Source { name: Name::Arguments(name), text });
        self.0.len() - 1
    }

    pub(super) fn set_text(&mut self, file: usize, text: String) {
        if let Some(source) = self.0.get_mut(file) {
            source.text = text;
        }
    }

    #[must_use]
    pub(super) fn text(&self, file: usize) -> &str {
        self.0.get(file).map_or("", |source| &source.text)
    }

    /// Line and column of a place, both from 1, the column in characters.
    #[must_use]
    pub(super) fn line_column(&self, at: &At) -> (usize, usize) {
        let text = self.text(at.file);
        let mut start = at.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The folder that paths in this file are relative to.
    #[must_use]
    pub(super) fn folder(&self, file: usize) -> &Path {
        match self.0.get(file).map(|source| &source.name) {
            Some(Name::File(path)) => path.parent().unwrap_or(Path::new("")),
            Some(Name::Arguments(_)) | None => Path::new(""),
        }
    }

    fn name(&self, file: usize) -> String {
        match self.0.get(file).map(|source| &source.name) {
            Some(Name::File(path)) => path.display().to_string(),
            Some(Name::Arguments(name)) => (*name).to_owned(),
            None => String::new(),
        }
    }

    fn place(&self, at: &At) -> String {
        match self.0.get(at.file).map(|source| &source.name) {
            Some(Name::File(path)) => {
                let (line, column) = self.line_column(at);
                format!("{}:{line}:{column}", path.display())
            }
            Some(Name::Arguments(name)) => (*name).to_owned(),
            None => String::new(),
        }
    }
}

/// Where problems are collected while a file is read. Shared by all readers of one run.
#[derive(Debug, Default)]
pub(super) struct Report {
    list: RefCell<Vec<Problem>>,
    torn: Cell<bool>,
}

impl Report {
    pub(super) fn error(
        &self,
        at: &At,
        what: impl Into<String>,
        follows: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.push(Severity::Error, at, what.into(), follows.into(), mend.into());
    }

    pub(super) fn warning(
        &self,
        at: &At,
        what: impl Into<String>,
        follows: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.push(Severity::Warning, at, what.into(), follows.into(), mend.into());
    }

    fn push(&self, severity: Severity, at: &At, what: String, follows: String, mend: String) {
        let [what, follows, mend] = [what, follows, mend].map(|text| printable(&text));
        let problem = Problem { severity, at: at.clone(), what, follows, mend };
        let mut problems = self.list.borrow_mut();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    /// Whether something was said of this very place already.
    pub(super) fn has_told_of(&self, at: &At) -> bool {
        self.list.borrow().iter().any(|problem| problem.at == *at)
    }

    /// Notes that a part of a file could not be parsed: what seems to be missing may stand in that part.
    pub(super) fn tear(&self) {
        self.torn.set(true);
    }

    pub(super) fn is_torn(&self) -> bool {
        self.torn.get()
    }

    /// Reports that something is missing, unless it may stand where the file could not be parsed.
    pub(super) fn missing(
        &self,
        at: &At,
        what: impl Into<String>,
        follows: impl Into<String>,
        mend: impl Into<String>,
    ) {
        if !self.is_torn() {
            self.error(at, what, follows, mend);
        }
    }

    /// Ends the collection: everything in the order of the files.
    #[must_use]
    pub(super) fn finish(self, sources: Sources) -> Problems {
        let mut list = self.list.into_inner();
        list.sort_by(|left, right| (&left.at, left.severity).cmp(&(&right.at, right.severity)));
        Problems { list, sources }
    }
}

/// All problems of a run, with the texts they point into.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    list: Vec<Problem>,
    sources: Sources,
}

/// How [`Problems::snippets`] draws.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    Plain,
    Coloured,
}

impl Problems {
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// One line per problem, `file:line:column: what; what follows from it; how to mend it`: for logs and editors.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut text = String::new();
        for problem in self.list.iter().take(SHOWN_MAX) {
            let warning = if problem.severity == Severity::Warning { "warning: " } else { "" };
            let place = self.sources.place(&problem.at);
            let _ = write!(text, "{place}: {warning}{}", problem.what);
            for part in [&problem.follows, &problem.mend] {
                if !part.is_empty() {
                    let _ = write!(text, "; {part}");
                }
            }
            text.push('\n');
        }
        self.say_rest(&mut text);
        text
    }

    /// With the lines of the file and a mark below: for a terminal.
    #[must_use]
    pub fn snippets(&self, style: Style) -> String {
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Coloured => Renderer::styled(),
        };
        let mut text = String::new();
        for problem in self.list.iter().take(SHOWN_MAX) {
            let source = self.sources.text(problem.at.file);
            let level = match problem.severity {
                Severity::Error => Level::ERROR,
                Severity::Warning => Level::WARNING,
            };
            let mut group = Group::with_title(level.primary_title(problem.what.as_str()));
            match self.sources.0.get(problem.at.file).map(|source| &source.name) {
                Some(Name::File(path)) => {
                    let mark = AnnotationKind::Primary.span(mark(source, &problem.at));
                    group = group
                        .element(Snippet::source(source).path(path.display().to_string()).annotation(mark));
                }
                Some(Name::Arguments(_)) | None => {}
            }
            if !problem.follows.is_empty() {
                group = group.element(Level::NOTE.message(problem.follows.as_str()));
            }
            if !problem.mend.is_empty() {
                group = group.element(Level::HELP.message(problem.mend.as_str()));
            }
            text.push_str(&renderer.render(&[group]));
            text.push_str("\n\n");
        }
        self.say_rest(&mut text);
        text
    }

    /// For machines: an array of objects.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        #[derive(Serialize)]
        struct Shown<'a> {
            severity: Severity,
            file: String,
            line: usize,
            column: usize,
            what: &'a str,
            follows: &'a str,
            mend: &'a str,
        }
        let shown = self.list.iter().map(|problem| {
            let (line, column) = self.sources.line_column(&problem.at);
            let Problem { severity, what, follows, mend, at } = problem;
            Shown { severity: *severity, file: self.sources.name(at.file), line, column, what, follows, mend }
        });
        serde_json::json!(shown.collect::<Vec<_>>())
    }

    fn say_rest(&self, text: &mut String) {
        if self.list.len() > SHOWN_MAX {
            let _ = writeln!(text, "and {} more", self.list.len() - SHOWN_MAX);
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines())
    }
}

impl std::error::Error for Problems {}

/// Messages quote what was typed. A line break in it would make two lines of one problem, and an escape sequence or
/// a change of writing direction would have its way with the reader's terminal.
fn printable(text: &str) -> String {
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || turns(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// The span to underline: on character boundaries, within the text, and of the first line only. A table's span can
/// be a whole section, which would bury the message under its own snippet.
fn mark(source: &str, at: &At) -> Range<usize> {
    let bound = |mut index: usize| {
        index = index.min(source.len());
        while !source.is_char_boundary(index) {
            index -= 1;
        }
        index
    };
    let start = bound(at.start);
    let end = bound(at.end.max(start));
    let line_end = source[start..end].find('\n').map_or(end, |newline| start + newline);
    start..line_end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str, at: Range<usize>) -> Problems {
        let mut sources = Sources::default();
        let file = sources.add_file("gate.toml".into(), text.to_owned());
        let report = Report::default();
        report.error(&At::new(file, at), "`x` is wrong", "nothing works", "mend it");
        report.finish(sources)
    }

    #[test]
    fn a_line_says_where_what_and_how() {
        let problems = problems("a = 1\né = 2\n", 11..12);
        assert_eq!(problems.lines(), "gate.toml:2:5: `x` is wrong; nothing works; mend it\n");
    }

    #[test]
    fn a_terminal_sees_the_line_itself() {
        let shown = problems("a = 1\nb = 2\n", 10..11).snippets(Style::Plain);
        assert!(shown.contains("2 | b = 2"), "{shown}");
        assert!(shown.contains("gate.toml:2:5"), "{shown}");
        assert!(shown.contains("mend it"), "{shown}");
    }

    #[test]
    fn a_place_outside_the_text_is_no_reason_to_panic() {
        let problems = problems("é", 1..900);
        assert_eq!(problems.lines(), "gate.toml:1:1: `x` is wrong; nothing works; mend it\n");
        assert!(!problems.snippets(Style::Coloured).is_empty());
        assert_eq!(problems.to_json()[0]["line"], 1);
    }

    #[test]
    fn what_was_typed_cannot_break_lines_or_turn_the_terminal() {
        let report = Report::default();
        let at = At { file: 0, start: 0, end: 0 };
        report.error(&at, "a\nb\u{1b}[31m\u{202e}é", "", "");
        let problems = report.finish(Sources::default());
        assert_eq!(problems.list()[0].what, "a\\nb\\u{1b}[31m\\u{202e}é");
    }

    #[test]
    fn the_same_problem_is_told_once() {
        let report = Report::default();
        let at = At { file: 0, start: 0, end: 0 };
        report.error(&at, "a", "b", "c");
        report.error(&at, "a", "b", "c");
        assert_eq!(report.finish(Sources::default()).list().len(), 1);
    }
}
