//! Markdown as the HTML of Matrix and of an e-mail.

use pulldown_cmark::{CodeBlockKind, Event, LinkType, Tag, TagEnd};

use super::escape::{self, Escape};
use super::link::{self, Piece};
use super::{DEPTH_MAX, Dialect, Rendering, events};

/// Markdown as HTML. The fragment's tags are always nested properly.
pub(super) fn render(markdown: &str, rendering: Rendering) -> String {
    let mut writer = Writer::new(rendering);
    for event in events(markdown) {
        writer.event(event);
    }
    while writer.out.ends_with('\n') {
        writer.out.pop();
    }
    writer.out
}

struct Writer {
    rendering: Rendering,
    out: String,
    /// What ends each open element of the source; nothing where it was not written.
    ends: Vec<Option<&'static str>>,
    depth: usize,
    /// The inline elements that are open: none is opened twice.
    open: Vec<&'static str>,
    links: Vec<Target>,
    in_head: bool,
    in_code: bool,
}

/// The outermost open link.
struct Target {
    address: Option<String>,
    /// What is shown of a target that must not become a link.
    shown: String,
    start: usize,
}

impl Writer {
    fn new(rendering: Rendering) -> Self {
        Self {
            rendering,
            out: String::new(),
            ends: Vec::new(),
            depth: 0,
            open: Vec::new(),
            links: Vec::new(),
            in_head: false,
            in_code: false,
        }
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) if self.in_code => escape::code(&mut self.out, &text, self.rendering),
            Event::Text(text) => self.text(&text),
            Event::Html(text) | Event::InlineHtml(text) => self.raw(&text),
            Event::Code(text) => {
                self.out.push_str("<code>");
                escape::code(&mut self.out, &text, self.rendering);
                self.out.push_str("</code>");
            }
            Event::SoftBreak | Event::HardBreak => self.out.push_str("<br>"),
            Event::Rule => self.out.push_str("<hr>\n"),
            Event::TaskListMarker(done) => self.out.push_str(if done { "☑ " } else { "☐ " }),
            Event::InlineMath(text) | Event::DisplayMath(text) | Event::FootnoteReference(text) => self.text(&text),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph => self.element("<p>", "</p>\n"),
            Tag::HtmlBlock => self.element("<p>", "</p>\n"),
            Tag::Heading { level, .. } => {
                const TAGS: [(&str, &str); 6] = [
                    ("<h1>", "</h1>\n"),
                    ("<h2>", "</h2>\n"),
                    ("<h3>", "</h3>\n"),
                    ("<h4>", "</h4>\n"),
                    ("<h5>", "</h5>\n"),
                    ("<h6>", "</h6>\n"),
                ];
                let (start, end) = TAGS[(level as usize).clamp(1, 6) - 1];
                self.element(start, end);
            }
            Tag::BlockQuote(_) => self.container("<blockquote>", "</blockquote>\n"),
            Tag::CodeBlock(kind) => self.code_block(&kind),
            Tag::List(None) => self.container("<ul>\n", "</ul>\n"),
            Tag::List(Some(1)) => self.container("<ol>\n", "</ol>\n"),
            Tag::List(Some(first)) => {
                let start = format!("<ol start=\"{first}\">\n");
                self.container(&start, "</ol>\n");
            }
            // An entry of a list that lies too deep goes on in the entry around it.
            Tag::Item if self.ends.last() == Some(&None) => self.element("<br>", ""),
            Tag::Item => self.element("<li>", "</li>\n"),
            Tag::Emphasis => self.inline("<em>", "</em>"),
            Tag::Strong => self.inline("<strong>", "</strong>"),
            Tag::Strikethrough => self.inline("<del>", "</del>"),
            Tag::Link { link_type: LinkType::Email, dest_url, .. } => self.link(&format!("mailto:{dest_url}")),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => self.link(&dest_url),
            Tag::Table(_) => self.element("<table>\n", "</table>\n"),
            Tag::TableHead => {
                self.in_head = true;
                self.element("<thead><tr>", "</tr></thead>\n");
            }
            Tag::TableRow => self.element("<tr>", "</tr>\n"),
            Tag::TableCell if self.in_head => self.element("<th>", "</th>"),
            Tag::TableCell => self.element("<td>", "</td>"),
            _ => self.ends.push(None),
        }
    }

    fn end(&mut self, tag: TagEnd) {
        let end = self.ends.pop().flatten();
        match tag {
            TagEnd::Link | TagEnd::Image => return self.end_link(),
            TagEnd::TableRow => {
                while self.out.ends_with("<td></td>") {
                    self.out.truncate(self.out.len() - "<td></td>".len());
                }
            }
            TagEnd::TableHead => self.in_head = false,
            TagEnd::CodeBlock => self.in_code = false,
            TagEnd::BlockQuote(_) | TagEnd::List(_) if end.is_some() => self.depth -= 1,
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough if end.is_some() => {
                self.open.pop();
            }
            // Each line of it ended with a break.
            TagEnd::HtmlBlock if self.out.ends_with("<br>") => self.out.truncate(self.out.len() - "<br>".len()),
            _ => {}
        }
        self.out.push_str(end.unwrap_or_default());
    }

    fn element(&mut self, start: &str, end: &'static str) {
        self.out.push_str(start);
        self.ends.push(Some(end));
    }

    fn container(&mut self, start: &str, end: &'static str) {
        if self.depth == DEPTH_MAX {
            self.ends.push(None);
        } else {
            self.depth += 1;
            self.element(start, end);
        }
    }

    fn inline(&mut self, start: &'static str, end: &'static str) {
        if self.open.contains(&start) {
            self.ends.push(None);
        } else {
            self.open.push(start);
            self.element(start, end);
        }
    }

    fn code_block(&mut self, kind: &CodeBlockKind<'_>) {
        self.in_code = true;
        let language = escape::language(kind).filter(|_| self.rendering.dialect == Dialect::MatrixHtml);
        match language {
            Some(language) => {
                let start = format!("<pre><code class=\"language-{language}\">");
                self.element(&start, "</code></pre>\n");
            }
            None => self.element("<pre><code>", "</code></pre>\n"),
        }
    }

    /// A link in a link is only its text.
    fn link(&mut self, target: &str) {
        self.ends.push(None);
        let address = link::target(target, self.rendering).filter(|_| self.links.is_empty());
        if let Some(address) = &address {
            self.out.push_str("<a href=\"");
            address.chars().for_each(|letter| escape::entity(&mut self.out, letter));
            self.out.push_str("\">");
        }
        let shown = if self.links.is_empty() && address.is_none() { target.to_owned() } else { String::new() };
        self.links.push(Target { address, shown, start: self.out.len() });
    }

    fn end_link(&mut self) {
        let Some(link) = self.links.pop() else { return };
        let empty = self.out.len() == link.start;
        match link.address {
            Some(address) => {
                if empty {
                    self.escaped(&address);
                }
                self.out.push_str("</a>");
            }
            None if !link.shown.is_empty() => {
                self.out.push_str(if empty { "(" } else { " (" });
                self.escaped(&link.shown);
                self.out.push(')');
            }
            None => {}
        }
    }

    /// Text of the source, with its bare addresses as links.
    fn text(&mut self, text: &str) {
        if !self.links.is_empty() {
            return self.escaped(text);
        }
        for piece in link::pieces(text) {
            match piece {
                Piece::Text(text) => self.escaped(text),
                Piece::Address(address) => {
                    self.link(address);
                    self.escaped(address);
                    self.ends.pop();
                    self.end_link();
                }
            }
        }
    }

    /// HTML of the source: it is shown.
    fn raw(&mut self, text: &str) {
        for (at, line) in text.trim_end_matches('\n').split('\n').enumerate() {
            if at > 0 {
                self.out.push_str("<br>");
            }
            self.escaped(line);
        }
        if text.ends_with('\n') {
            self.out.push_str("<br>");
        }
    }

    fn escaped(&mut self, text: &str) {
        Escape { rendering: self.rendering, line_start: false, typed: false }.push(&mut self.out, text);
    }
}
