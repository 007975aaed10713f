//! One configuration file: its values, and where in the text each of them stands.

use std::path::Path;

use conductor_channels::Plugin;
use jsonc_parser::ast::{Array, Object, ObjectProp, Value as Node};
use jsonc_parser::common::{Range, Ranged};
use jsonc_parser::errors::ParseErrorKind;
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, parse_to_ast};
use serde_json::Value;

use super::list_file::{ListFile, options};
use super::report::{Fault, Place, Position, Report, SourceLine};
use super::visible;

/// The most characters of a value that a fault repeats.
const SHOWN_MAX_CHARS: usize = 80;

const NOT_SHOWN: &str = "that is not shown, because it could be a secret";

/// Which part of a member a fault is about.
#[derive(Debug, Clone, Copy)]
enum Part {
    Name,
    Value,
}

/// A file that is JSON, with comments and trailing commas.
pub(super) struct Document<'t> {
    path: &'t Path,
    text: &'t str,
    lines: Vec<usize>,
    node: Node<'t>,
    value: Value,
    hidden: Vec<Range>,
    kind: ListFile,
}

impl<'t> Document<'t> {
    /// Reads the text. What is no JSON is reported and gives nothing; a member that stands twice is reported.
    pub(super) fn parse(
        kind: ListFile,
        path: &'t Path,
        text: &'t str,
        plugins: &'static [Plugin],
        report: &mut Report,
    ) -> Option<Self> {
        let text = text.trim_start_matches('\u{feff}');
        let collect = CollectOptions { comments: CommentCollectionStrategy::Separate, tokens: false };
        let parsed = match parse_to_ast(text, &collect, &options()) {
            Ok(parsed) => parsed,
            Err(error) => {
                report.add(syntax_fault(path, text, &error));
                return None;
            }
        };
        let Some(node) = parsed.value else {
            let fault = Fault::error("the file is empty").in_file(path);
            report.add(
                fault
                    .expected(format!("{{ \"{0}\": [ … ] }}", kind.member()))
                    .help("write at least `[]`, or remove the file and run `conductor init`, which makes a new one"),
            );
            return None;
        };
        let comments = parsed.comments.unwrap_or_default();
        let comments = comments.values().flat_map(|comments| comments.iter().map(Ranged::range));
        let mut hidden = visible::hidden(kind, &node, plugins);
        hidden.extend(comments);
        hidden.sort_by_key(|range| (range.start, range.end));
        let value = Value::from(node.clone());
        let document = Self { path, text, lines: line_starts(text), node, value, hidden, kind };
        document.report_duplicates(&document.node, &mut String::new(), report);
        Some(document)
    }

    /// The whole value.
    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    /// Which file it is.
    pub(super) fn kind(&self) -> ListFile {
        self.kind
    }

    /// An error at a value. A value that is not there stands for the nearest one around it.
    pub(super) fn error(&self, pointer: &str, found: impl Into<String>) -> Fault {
        Fault::error(found).at(self.place(pointer, Part::Value))
    }

    /// An error at the name of a member.
    pub(super) fn error_at_name(&self, pointer: &str, found: impl Into<String>) -> Fault {
        Fault::error(found).at(self.place(pointer, Part::Name))
    }

    /// The value as a fault may repeat it: cut to a bearable length, and not shown where it could be a secret.
    pub(super) fn show(&self, pointer: &str) -> String {
        let Some((node, _)) = self.find(pointer) else { return "nothing".to_owned() };
        let range = node.range();
        let hidden = !meeting(&self.hidden, range).is_empty();
        match node {
            Node::Object(_) => return "an object".to_owned(),
            Node::Array(_) => return "a list".to_owned(),
            Node::StringLit(_) if hidden => return format!("a text {NOT_SHOWN}"),
            _ if hidden => return format!("a number {NOT_SHOWN}"),
            _ => {}
        }
        let text = range.text(self.text);
        match text.char_indices().nth(SHOWN_MAX_CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        }
    }

    /// The line of a value, from 1.
    pub(super) fn line(&self, pointer: &str) -> usize {
        self.place(pointer, Part::Value).position.map_or(1, |position| position.line)
    }

    fn place(&self, pointer: &str, part: Part) -> Place {
        let (range, pointer) = match self.find(pointer) {
            Some((node, name)) => match (part, name) {
                (Part::Name, Some(name)) => (name, pointer),
                _ => (opening(node), pointer),
            },
            None => (opening(self.nearest(pointer)), pointer),
        };
        self.place_of(range, pointer)
    }

    fn place_of(&self, range: Range, pointer: &str) -> Place {
        let position = position(self.text, &self.lines, range, |line| meeting(&self.hidden, line).to_vec());
        Place { file: self.path.to_owned(), position: Some(position), pointer: Some(pointer.to_owned()) }
    }

    fn nearest(&self, pointer: &str) -> &Node<'t> {
        let mut pointer = pointer;
        while let Some((parent, _)) = pointer.rsplit_once('/') {
            if let Some((node, _)) = self.find(parent) {
                return node;
            }
            pointer = parent;
        }
        &self.node
    }

    fn find(&self, pointer: &str) -> Option<(&Node<'t>, Option<Range>)> {
        let mut node = &self.node;
        let mut name = None;
        for segment in pointer.split('/').skip(1) {
            let segment = segment.replace("~1", "/").replace("~0", "~");
            match node {
                Node::Object(Object { properties, .. }) => {
                    // The last of several is the one whose value counts, as in the converted value.
                    let property = properties.iter().rev().find(|property| property.name.as_str() == segment)?;
                    name = Some(property.name.range());
                    node = &property.value;
                }
                Node::Array(Array { elements, .. }) => {
                    name = None;
                    node = elements.get(segment.parse::<usize>().ok()?)?;
                }
                _ => return None,
            }
        }
        Some((node, name))
    }

    fn report_duplicates(&self, node: &Node<'t>, pointer: &mut String, report: &mut Report) {
        let length = pointer.len();
        match node {
            Node::Object(object) => {
                let mut names: std::collections::HashMap<&str, &ObjectProp<'t>> = std::collections::HashMap::new();
                for property in &object.properties {
                    push_segment(pointer, property.name.as_str());
                    if let Some(first) = names.insert(property.name.as_str(), property) {
                        let place = self.place_of(property.name.range(), pointer);
                        let first = self.lines.partition_point(|start| *start <= first.name.range().start);
                        let found = format!("`{}` stands twice in one object", property.name.as_str());
                        let help = format!("keep one of the two; the other is in line {first}");
                        report.add(Fault::error(found).at(place).help(help));
                    }
                    self.report_duplicates(&property.value, pointer, report);
                    pointer.truncate(length);
                }
            }
            Node::Array(array) => {
                for (index, element) in array.elements.iter().enumerate() {
                    push_segment(pointer, &index.to_string());
                    self.report_duplicates(element, pointer, report);
                    pointer.truncate(length);
                }
            }
            _ => {}
        }
    }
}

/// Adds a member's name or an index to a JSON pointer.
pub(super) fn push_segment(pointer: &mut String, segment: &str) {
    pointer.push('/');
    pointer.push_str(&segment.replace('~', "~0").replace('/', "~1"));
}

fn syntax_fault(path: &Path, text: &str, error: &jsonc_parser::errors::ParseError) -> Fault {
    let hidden = |line: Range| visible::hidden_in_broken_line(text, line);
    let position = position(text, &line_starts(text), error.range(), hidden);
    let place = Place { file: path.to_owned(), position: Some(position), pointer: None };
    let mut reason = error.kind().to_string();
    if let Some(first) = reason.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    let fault = Fault::error(format!("the file is not JSON: {reason}")).at(place);
    let fault = fault.expected("JSON; comments and commas after the last entry are allowed");
    fault.help(syntax_help(error.kind()))
}

fn syntax_help(kind: &ParseErrorKind) -> &'static str {
    match kind {
        ParseErrorKind::ExpectedComma => "write a comma between this and what stands before it",
        ParseErrorKind::ExpectedColonAfterObjectKey => "write a colon after the name",
        ParseErrorKind::ExpectedObjectValue => "write a value after the colon",
        ParseErrorKind::UnterminatedArray => "close this [ with a ] at its end",
        ParseErrorKind::UnterminatedObject => "close this { with a } at its end",
        ParseErrorKind::UnterminatedCommentBlock => "close this comment with */",
        ParseErrorKind::UnexpectedCloseBrace | ParseErrorKind::UnexpectedCloseBracket => {
            "remove it, or open it where it begins"
        }
        ParseErrorKind::UnexpectedComma => "remove the comma, or write what is missing before it",
        ParseErrorKind::SingleQuotedStringsNotAllowed => "write double quotation marks",
        ParseErrorKind::MultipleRootJsonValues => "keep one object or one list, and nothing after it",
        ParseErrorKind::UnexpectedWord | ParseErrorKind::ExpectedStringObjectProperty => {
            "put names and texts into double quotation marks"
        }
        _ => "look at what stands here and just before it",
    }
}

/// An object or a list is marked at its first character only.
fn opening(node: &Node<'_>) -> Range {
    let range = node.range();
    match node {
        Node::Object(_) | Node::Array(_) => Range::new(range.start, range.start + 1),
        _ => range,
    }
}

/// Where each line begins, in bytes.
fn line_starts(text: &str) -> Vec<usize> {
    let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(index, _)| index + 1);
    std::iter::once(0).chain(after).collect()
}

/// Where a range begins, and what may be shown of its line. The hidden ranges are sorted and apart from one another.
fn position(text: &str, lines: &[usize], range: Range, hidden: impl FnOnce(Range) -> Vec<Range>) -> Position {
    let at = text.floor_char_boundary(range.start);
    let line = lines.partition_point(|start| *start <= at);
    let start = lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
    let end = lines.get(line).copied().unwrap_or(text.len());
    let column = text[start..at].chars().count() + 1;
    let source = source_line(text[start..end].trim_end(), start, range, &hidden(Range::new(start, end)));
    Position { line, column, source: Some(source) }
}

/// Those of the sorted ranges that meet `range`.
fn meeting(ranges: &[Range], range: Range) -> &[Range] {
    let first = ranges.partition_point(|other| other.end <= range.start);
    let last = ranges.partition_point(|other| other.start < range.end);
    ranges.get(first..last).unwrap_or_default()
}

/// The line that begins at byte `offset` of the text, with `***` in the place of each hidden range.
fn source_line(line: &str, offset: usize, marked: Range, hidden: &[Range]) -> SourceLine {
    let mut shown = String::with_capacity(line.len());
    let (mut columns, mut first, mut last) = (0, None, 0);
    let (mut hidden_until, mut hidden_from) = (offset, 0);
    for (index, letter) in line.char_indices() {
        let at = offset + index;
        if at >= hidden_until {
            match hidden.iter().find(|range| range.start <= at && at < range.end) {
                Some(range) => {
                    (hidden_until, hidden_from) = (range.end, columns);
                    shown.push_str("***");
                    columns += 3;
                }
                None => {
                    shown.push(letter);
                    columns += 1;
                }
            }
        }
        if at >= marked.start && first.is_none() {
            first = Some(if at < hidden_until { hidden_from } else { columns - 1 });
        }
        if at < marked.end {
            last = columns;
        }
    }
    let first = first.unwrap_or(columns);
    SourceLine::new(&shown, first, last.max(first + 1))
}
