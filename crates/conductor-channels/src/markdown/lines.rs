//! Markdown in the dialects that are written in lines.

use pulldown_cmark::{Event, LinkType, Tag, TagEnd};

use super::escape::{self, Escape};
use super::link::{self, Piece};
use super::style::{self, Heading, Marks, Style};
use super::table::Table;
use super::{BREAK, DEPTH_MAX, Rendering, events};

mod blocks;
mod links;

/// Markdown in a dialect that is written in lines.
pub(super) fn render(markdown: &str, rendering: Rendering) -> String {
    let mut writer = Writer::new(rendering, markdown.len());
    for event in events(markdown) {
        writer.event(event);
    }
    writer.out.truncate(writer.out.trim_end().len());
    writer.out
}

struct Writer {
    rendering: Rendering,
    style: Style,
    out: String,
    /// What is open in the source.
    frames: Vec<Frame>,
    /// What every line begins with, outermost first; at most [`DEPTH_MAX`].
    containers: Vec<Container>,
    /// The marks that are open, outermost first.
    marks: Vec<OpenMarks>,
    link: Option<links::OpenLink>,
    /// The text of an open code block, or of a block of HTML.
    verbatim: Option<String>,
    /// The language of an open code block.
    language: Option<String>,
    table: Option<Table>,
    line: Line,
    /// How many line ends come before the next text.
    wanted: usize,
    in_heading: bool,
}

/// Where the writer is in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Before it: its beginning is not written.
    Before,
    /// At its beginning, but for the tag of a quote.
    InQuoteTag,
    /// Behind its beginning.
    Start,
    /// Behind a text, or marks that were opened.
    Text,
    /// Behind a text that ends with a character that could be a mark.
    LooseMark,
    /// Behind marks that were closed.
    ClosedMarks,
}

/// What an element of the source is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// Only what is in it.
    Nothing,
    Container,
    /// A list, with the number of its next entry.
    List(Option<u64>),
    Marks,
    Link,
}

#[derive(Debug)]
enum Container {
    Quote { used: bool },
    QuoteTag,
    Item { marker: String, indent: usize, used: bool },
}

#[derive(Debug, Clone, Copy)]
struct OpenMarks {
    marks: Marks,
    /// Where their text begins.
    start: usize,
}

impl Writer {
    fn new(rendering: Rendering, length: usize) -> Self {
        Self {
            rendering,
            style: Style::of(rendering.dialect),
            out: String::with_capacity(length + length / 4),
            frames: Vec::new(),
            containers: Vec::new(),
            marks: Vec::new(),
            link: None,
            verbatim: None,
            language: None,
            table: None,
            line: Line::Before,
            wanted: 0,
            in_heading: false,
        }
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => {
                let frame = self.start(tag);
                self.frames.push(frame);
            }
            Event::End(tag) => {
                let frame = self.frames.pop().unwrap_or(Frame::Nothing);
                self.end(tag, frame);
            }
            Event::Text(text) | Event::Html(text) if self.verbatim.is_some() => {
                self.verbatim.get_or_insert_default().push_str(&text);
            }
            Event::Text(text) => self.linked_text(&text),
            Event::Html(text) | Event::InlineHtml(text) => self.text_in_lines(&text),
            Event::Code(text) => self.code(&text),
            Event::SoftBreak | Event::HardBreak => self.line_break(),
            Event::Rule => {
                self.gap(2);
                self.begin();
                self.out.push_str(self.style.rule);
                self.line = Line::Before;
            }
            Event::TaskListMarker(done) => {
                self.begin();
                self.out.push_str(if done { self.style.tasks.0 } else { self.style.tasks.1 });
                self.line = Line::Text;
            }
            Event::InlineMath(text) | Event::DisplayMath(text) | Event::FootnoteReference(text) => self.text(&text),
        }
    }

    fn start(&mut self, tag: Tag<'_>) -> Frame {
        match tag {
            Tag::Paragraph => self.gap(2),
            Tag::Heading { level, .. } => return self.start_heading(level as usize),
            Tag::BlockQuote(_) => return self.start_quote(),
            Tag::CodeBlock(kind) => {
                self.gap(2);
                self.language = escape::language(&kind).map(str::to_owned);
                self.verbatim = Some(String::new());
            }
            Tag::HtmlBlock => {
                self.gap(2);
                self.verbatim = Some(String::new());
            }
            Tag::List(first) => {
                let nested = self.containers.iter().any(|container| matches!(container, Container::Item { .. }));
                self.gap(if nested { 1 } else { 2 });
                return Frame::List(first);
            }
            Tag::Item => return self.start_item(),
            Tag::Emphasis => return self.open(self.style.italic),
            Tag::Strong => return self.open(self.style.bold),
            Tag::Strikethrough => return self.open(self.style.strike),
            Tag::Link { link_type: LinkType::Email, dest_url, .. } => {
                return self.start_link(&format!("mailto:{dest_url}"));
            }
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => return self.start_link(&dest_url),
            Tag::Table(_) => {
                self.gap(2);
                self.table = Some(Table::default());
            }
            Tag::TableHead | Tag::TableRow => self.in_table(Table::begin_row),
            Tag::TableCell => self.in_table(Table::begin_cell),
            _ => {}
        }
        Frame::Nothing
    }

    fn end(&mut self, tag: TagEnd, frame: Frame) {
        match tag {
            TagEnd::Paragraph => self.line = Line::Before,
            TagEnd::Heading(_) => {
                self.in_heading = false;
                if frame == Frame::Marks {
                    self.close();
                }
                self.line = Line::Before;
            }
            TagEnd::BlockQuote(_) | TagEnd::Item if frame == Frame::Container => self.end_container(),
            TagEnd::CodeBlock => self.end_code_block(),
            TagEnd::HtmlBlock => {
                let html = self.verbatim.take().unwrap_or_default();
                self.text_in_lines(html.trim_end());
                self.line = Line::Before;
            }
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough if frame == Frame::Marks => self.close(),
            TagEnd::Link | TagEnd::Image if frame == Frame::Link => self.end_link(),
            TagEnd::TableHead | TagEnd::TableRow => self.in_table(Table::end_row),
            TagEnd::Table => {
                if let Some(table) = self.table.take() {
                    self.table(&table);
                }
            }
            _ => {}
        }
    }

    fn in_table(&mut self, change: impl FnOnce(&mut Table)) {
        if let Some(table) = &mut self.table {
            change(table);
        }
    }

    fn start_heading(&mut self, level: usize) -> Frame {
        self.gap(2);
        self.begin();
        match self.style.heading {
            Heading::Text => Frame::Nothing,
            Heading::Signs(deepest) if level <= deepest => {
                self.in_heading = true;
                self.out.extend(std::iter::repeat_n('#', level));
                self.out.push(' ');
                self.line = Line::Text;
                Frame::Nothing
            }
            Heading::Bold | Heading::Signs(_) => self.open(self.style.bold),
        }
    }

    fn start_quote(&mut self) -> Frame {
        self.gap(2);
        if self.containers.len() == DEPTH_MAX {
            return Frame::Nothing;
        }
        let in_tag = self.containers.iter().any(|container| matches!(container, Container::QuoteTag));
        if self.style.quote_is_tag && !in_tag {
            self.begin();
            self.out.push_str("<blockquote>");
            self.containers.push(Container::QuoteTag);
            self.line = Line::InQuoteTag;
        } else {
            self.containers.push(Container::Quote { used: false });
        }
        Frame::Container
    }

    fn start_item(&mut self) -> Frame {
        self.gap(1);
        if self.containers.len() == DEPTH_MAX {
            return Frame::Nothing;
        }
        let marker = match self.frames.last_mut() {
            Some(Frame::List(Some(number))) => {
                let marker = format!("{number}. ");
                *number = number.saturating_add(1);
                marker
            }
            _ => self.style.bullet.to_owned(),
        };
        let indent = self.style.indent.unwrap_or_else(|| marker.chars().count());
        self.containers.push(Container::Item { marker, indent, used: false });
        Frame::Container
    }

    fn end_container(&mut self) {
        match self.containers.last() {
            Some(Container::Item { used: false, .. }) => self.begin(),
            Some(Container::QuoteTag) => self.out.push_str("</blockquote>"),
            _ => {}
        }
        self.containers.pop();
        self.line = Line::Before;
    }

    /// Ends the line, so that the next text comes so many lines further down.
    fn gap(&mut self, lines: usize) {
        if self.line == Line::InQuoteTag {
            return;
        }
        let unused = |container: &Container| matches!(container, Container::Item { used: false, .. });
        self.line = Line::Before;
        self.wanted = self.wanted.max(if self.containers.iter().any(unused) { 1 } else { lines });
    }

    /// Begins a line, where none is begun: with the line ends before it and the signs of all containers.
    fn begin(&mut self) {
        let first = match self.line {
            Line::Before => 0,
            // What is around the tag stands before it.
            Line::InQuoteTag => {
                self.containers.iter().position(|c| matches!(c, Container::QuoteTag)).map_or(0, |at| at + 1)
            }
            _ => return,
        };
        if self.line == Line::Before && !self.out.is_empty() {
            for line in 0..self.wanted.max(1) {
                if line > 0 {
                    self.empty_line();
                }
                self.out.push('\n');
            }
        }
        let sign = self.quote_sign();
        for container in &mut self.containers[first..] {
            match container {
                Container::QuoteTag => {}
                Container::Quote { used } => {
                    self.out.push_str(sign);
                    *used = true;
                }
                Container::Item { indent, used: true, .. } => self.out.extend(std::iter::repeat_n(' ', *indent)),
                Container::Item { marker, used, .. } => {
                    self.out.push_str(marker);
                    *used = true;
                }
            }
        }
        self.wanted = 0;
        self.line = Line::Start;
    }

    /// Writes what an empty line begins with: the signs of the quotes that go on in it.
    fn empty_line(&mut self) {
        let start = self.out.len();
        for container in &self.containers {
            match container {
                Container::Quote { used: true } => self.out.push_str(self.quote_sign()),
                Container::Item { indent, used: true, .. } => self.out.extend(std::iter::repeat_n(' ', *indent)),
                Container::QuoteTag => {}
                Container::Quote { .. } | Container::Item { .. } => break,
            }
        }
        let written = self.out[start..].trim_end().len();
        self.out.truncate(start + written);
    }

    fn quote_sign(&self) -> &'static str {
        if self.style.link == style::Link::Tag { "&gt; " } else { "> " }
    }

    /// Ends a line in a paragraph.
    fn line_break(&mut self) {
        let in_item = self.containers.iter().any(|container| matches!(container, Container::Item { .. }));
        let one_line = self.in_heading || self.link.is_some() || (self.style.lines_are_paragraphs && in_item);
        if one_line || self.table.is_some() {
            return self.text(" ");
        }
        let mut again = Vec::new();
        if self.style.marks_end_at_line {
            again.extend(self.marks.iter().map(|open| open.marks));
            again.iter().for_each(|_| self.close());
        }
        self.gap(if self.style.lines_are_paragraphs { 2 } else { 1 });
        self.begin();
        for marks in again {
            self.open(marks);
        }
    }

    /// Opens marks, unless the dialect has none or they are open.
    fn open(&mut self, marks: Marks) -> Frame {
        let shown_as_typed = self.link.is_some() && self.style.link == style::Link::Angle;
        let open = self.marks.iter().any(|open| open.marks == marks);
        if marks.0.is_empty() || open || shown_as_typed || self.table.is_some() {
            return Frame::Nothing;
        }
        self.begin();
        self.part(true);
        self.out.push_str(marks.0);
        self.marks.push(OpenMarks { marks, start: self.out.len() });
        self.line = Line::Text;
        Frame::Marks
    }

    /// Closes the marks that were opened last; where nothing is in them, they vanish.
    fn close(&mut self) {
        let Some(OpenMarks { marks, start }) = self.marks.pop() else { return };
        if self.out.len() == start {
            self.out.truncate(start - marks.0.len());
        } else {
            self.out.push_str(marks.1);
            self.line = Line::ClosedMarks;
        }
    }

    /// Keeps what follows from touching a mark that it would change; `marks` says whether marks follow, else it is a
    /// letter.
    fn part(&mut self, marks: bool) {
        let bare = escape::has_bare_marks(self.rendering.dialect);
        let before = self.out.chars().next_back();
        let touches = match self.line {
            Line::LooseMark => true,
            Line::ClosedMarks => bare || marks,
            Line::Text => bare && marks && before.is_some_and(char::is_alphanumeric),
            _ => false,
        };
        if touches && !before.is_some_and(|letter| matches!(letter, BREAK | '>')) {
            self.out.push(BREAK);
        }
    }

    /// Text of the source, with its bare addresses as links.
    fn linked_text(&mut self, text: &str) {
        if self.link.is_some() || self.table.is_some() {
            return self.text(text);
        }
        for piece in link::pieces(text) {
            match piece {
                Piece::Text(text) => self.text(text),
                Piece::Address(address) => {
                    self.start_link(address);
                    self.text(address);
                    self.end_link();
                }
            }
        }
    }

    /// Text that may have several lines.
    fn text_in_lines(&mut self, text: &str) {
        for (at, line) in text.split('\n').enumerate() {
            if at > 0 {
                self.line_break();
            }
            self.text(line);
        }
    }

    /// Text without line ends.
    fn text(&mut self, text: &str) {
        if let Some(table) = &mut self.table {
            if let Some(cell) = table.cell() {
                cell.push_str(text);
            }
            self.link.iter_mut().for_each(|link| link.label.push_str(text));
            return;
        }
        let Some(first) = text.chars().next() else { return };
        self.begin();
        if first.is_alphanumeric() || escape::is_mark(first) {
            self.part(false);
        }
        if let Some(link) = &mut self.link {
            link.label.push_str(text);
        }
        let line_start = self.line == Line::Start;
        Escape { rendering: self.rendering, line_start, typed: false }.push(&mut self.out, text);
        let loose = escape::has_bare_marks(self.rendering.dialect) && text.ends_with(escape::is_mark);
        self.line = if loose { Line::LooseMark } else { Line::Text };
    }
}
