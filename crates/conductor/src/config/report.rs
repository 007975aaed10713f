//! Faults of the configuration, each with its place, and how a terminal shows them.

use std::fmt;
use std::path::{Path, PathBuf};

/// The most errors, and the most warnings, that a report keeps; the rest is only counted.
pub const FAULTS_MAX: usize = 100;

/// The most characters of a source line that are shown.
const LINE_MAX_CHARS: usize = 120;

/// Whether a fault stops the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but is probably not what was meant.
    Warning,
}

/// Where a fault stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as its path was given.
    pub file: PathBuf,
    /// The line, from 1; none where the fault concerns the file as a whole.
    pub position: Option<Position>,
    /// The JSON pointer of the value; empty for the whole document, none where the file is no JSON.
    pub pointer: Option<String>,
}

/// A line, a column, and what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What may be shown of the line; none where it could hold a secret.
    pub source: Option<SourceLine>,
}

/// A line as it is shown: without tabs and control characters, values that may be secrets replaced, cut to a length
/// that a terminal can show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLine {
    text: String,
    marker_start: usize,
    marker_width: usize,
}

impl SourceLine {
    /// Makes the line that is shown out of its characters, of which those from `start` to `end` (from 0) are marked.
    pub(super) fn new(text: &str, start: usize, end: usize) -> Self {
        let length = text.chars().count();
        let first = if length > LINE_MAX_CHARS { start.saturating_sub(LINE_MAX_CHARS / 2) } else { 0 };
        let shown: String = text.chars().skip(first).take(LINE_MAX_CHARS).map(printable).collect();
        let width = end.saturating_sub(start).max(1).min(LINE_MAX_CHARS.saturating_sub(start - first).max(1));
        Self { text: shown.trim_end().to_owned(), marker_start: start - first, marker_width: width }
    }
}

/// What is wrong, where, and how to mend it. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Whether it stops the start.
    pub severity: Severity,
    /// Where it stands; none where no file is to blame, as with a variable of the process.
    pub place: Option<Place>,
    /// What was found, as a sentence without a full stop.
    pub found: String,
    /// What was expected.
    pub expected: Option<String>,
    /// How to mend it.
    pub help: Option<String>,
}

impl Fault {
    /// An error without a place.
    pub fn error(found: impl Into<String>) -> Self {
        Self { severity: Severity::Error, place: None, found: found.into(), expected: None, help: None }
    }

    /// The same as a warning.
    #[must_use]
    pub fn as_warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Adds the place.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Adds the file, where no line of it is to blame.
    #[must_use]
    pub fn in_file(self, file: &Path) -> Self {
        self.at(Place { file: file.to_owned(), position: None, pointer: None })
    }

    /// Adds what was expected.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// Adds how to mend it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The line, from 1, where it is known.
    pub fn line(&self) -> Option<usize> {
        self.position().map(|position| position.line)
    }

    /// The column, from 1 and in characters, where it is known.
    pub fn column(&self) -> Option<usize> {
        self.position().map(|position| position.column)
    }

    /// The JSON pointer, where it is known.
    pub fn pointer(&self) -> Option<&str> {
        self.place.as_ref()?.pointer.as_deref()
    }

    fn position(&self) -> Option<&Position> {
        self.place.as_ref()?.position.as_ref()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(position) = &self.position {
            write!(f, ":{}:{}", position.line, position.column)?;
        }
        match &self.pointer {
            Some(pointer) if !pointer.is_empty() => write!(f, " ({})", clean(pointer)),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}", clean(&self.found))?;
        if let Some(place) = &self.place {
            write!(f, "\n  --> {place}")?;
        }
        if let Some(position) = self.position()
            && let Some(source) = &position.source
        {
            let number = position.line.to_string();
            let gutter = " ".repeat(number.len());
            write!(f, "\n   {gutter} |\n   {number} | {}", source.text)?;
            let indent = " ".repeat(source.marker_start);
            write!(f, "\n   {gutter} | {indent}{}", "^".repeat(source.marker_width))?;
        }
        if let Some(expected) = &self.expected {
            write!(f, "\n  expected: {}", clean(expected))?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {}", clean(help))?;
        }
        Ok(())
    }
}

/// Everything that is wrong, or odd, with a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    faults: Vec<Fault>,
    errors: usize,
    warnings: usize,
}

impl Report {
    /// Nothing found yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault. Beyond [`FAULTS_MAX`] of its severity it is only counted.
    pub fn add(&mut self, fault: Fault) {
        let count = match fault.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= FAULTS_MAX {
            self.faults.push(fault);
        }
    }

    /// Adds an error unless its place has one already: what one value has wrong in several ways is told once.
    pub(super) fn add_first(&mut self, fault: Fault) {
        if !self.faults.iter().any(|other| other.severity == Severity::Error && other.place == fault.place) {
            self.add(fault);
        }
    }

    /// The faults that are kept: file by file in the order in which the files were read, top to bottom.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// How many errors there are, those that are not kept included.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// How many warnings there are, those that are not kept included.
    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// Whether neither an error nor a warning was found.
    pub fn is_empty(&self) -> bool {
        self.errors == 0 && self.warnings == 0
    }

    /// How much was found: `2 errors, 1 warning`.
    pub fn summary(&self) -> String {
        let count = |count: usize, word: &str| match count {
            0 => None,
            1 => Some(format!("1 {word}")),
            _ => Some(format!("{count} {word}s")),
        };
        let parts = [count(self.errors, "error"), count(self.warnings, "warning")];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "no errors".to_owned() } else { parts.join(", ") }
    }

    /// Puts the faults into the order in which a person mends them.
    pub(super) fn sort(&mut self) {
        let mut files: Vec<PathBuf> = Vec::new();
        for place in self.faults.iter().filter_map(|fault| fault.place.as_ref()) {
            if !files.contains(&place.file) {
                files.push(place.file.clone());
            }
        }
        self.faults.sort_by_key(|fault| {
            let file = fault.place.as_ref().and_then(|place| files.iter().position(|file| *file == place.file));
            (file.unwrap_or(files.len()), fault.line(), fault.column())
        });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.faults {
            write!(f, "{fault}\n\n")?;
        }
        let more = (self.errors + self.warnings) - self.faults.len();
        if more > 0 {
            write!(f, "{more} more are not shown\n\n")?;
        }
        f.write_str(&self.summary())
    }
}

impl std::error::Error for Report {}

/// A text from a file or a variable's name could hold what a terminal takes as a command.
fn clean(text: &str) -> String {
    text.chars().map(printable).collect()
}

fn printable(letter: char) -> char {
    match letter {
        '\t' => ' ',
        // Marks that turn the direction of writing make a line show something that it does not say.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        letter if letter.is_control() => '\u{fffd}',
        letter => letter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(line: usize) -> Fault {
        let source = SourceLine::new("\t\"id\": \"\u{1b}[2J\",", 7, 12);
        let position = Position { line, column: 8, source: Some(source) };
        let place = Place { file: "tenants.json".into(), position: Some(position), pointer: Some("/0/id".into()) };
        Fault::error("no UUID").at(place).expected("a UUID").help("copy one")
    }

    #[test]
    fn a_fault_is_printed_with_its_line_and_a_marker() {
        let expected = concat!(
            "error: no UUID\n",
            "  --> tenants.json:12:8 (/0/id)\n",
            "      |\n",
            "   12 |  \"id\": \"\u{fffd}[2J\",\n",
            "      |        ^^^^^\n",
            "  expected: a UUID\n",
            "  help: copy one"
        );
        assert_eq!(fault(12).to_string(), expected);
    }

    #[test]
    fn a_long_line_is_cut_around_the_marker() {
        let line = SourceLine::new(&"x".repeat(10_000), 5_000, 5_004);
        assert_eq!((line.text.len(), line.marker_start, line.marker_width), (LINE_MAX_CHARS, 60, 4));
        let end = SourceLine::new(&"x".repeat(10_000), 9_999, 20_000);
        assert!(end.marker_start + end.marker_width <= LINE_MAX_CHARS);
    }

    #[test]
    fn a_report_counts_what_it_does_not_keep() {
        let mut report = Report::new();
        for line in 0..150 {
            report.add(fault(line));
        }
        report.add(fault(1).as_warning());
        assert_eq!(report.faults().len(), FAULTS_MAX + 1);
        assert!(report.to_string().ends_with("50 more are not shown\n\n150 errors, 1 warning"));
    }

    #[test]
    fn the_summary_counts_in_plain_words() {
        let mut report = Report::new();
        assert_eq!(report.summary(), "no errors");
        report.add(fault(1));
        assert_eq!(report.summary(), "1 error");
        report.add(fault(2));
        report.add(fault(3).as_warning());
        assert_eq!(report.summary(), "2 errors, 1 warning");
    }

    #[test]
    fn faults_stand_in_the_order_of_the_lines() {
        let mut report = Report::new();
        for line in [3, 1, 2] {
            report.add(fault(line));
        }
        report.sort();
        let lines: Vec<_> = report.faults().iter().filter_map(Fault::line).collect();
        assert_eq!(lines, [1, 2, 3]);
    }
}
