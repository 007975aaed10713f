//! Links.

use super::{Frame, Line, Writer};
use crate::markdown::escape::{self, Escape};
use crate::markdown::link;
use crate::markdown::style::Link;
use crate::markdown::{BREAK, Dialect};

/// A link whose text is being written.
#[derive(Debug)]
pub(super) struct OpenLink {
    /// The target as the source has it.
    source: String,
    /// The target, where it may become a link.
    target: Option<String>,
    /// Where the text begins in what is written.
    start: usize,
    /// The text as the source has it.
    pub(super) label: String,
}

impl OpenLink {
    /// Whether the text says no more than the target.
    fn is_itself(&self) -> bool {
        let short = self.source.strip_prefix("mailto:").or_else(|| self.source.strip_prefix("tel:"));
        self.label.is_empty() || self.label == self.source || short.is_some_and(|short| short == self.label)
    }
}

impl Writer {
    /// Begins a link. A link in a link is only its text.
    pub(super) fn start_link(&mut self, source: &str) -> Frame {
        if self.link.is_some() {
            return Frame::Nothing;
        }
        if self.table.is_none() {
            self.begin();
            if self.style.link != Link::Spelled {
                let image = self.style.link == Link::Brackets && self.out.ends_with('!');
                if self.line == Line::LooseMark || image {
                    self.out.push(BREAK);
                }
                if self.line != Line::Start {
                    self.line = Line::Text;
                }
            }
        }
        let target = link::target(source, self.rendering);
        self.link = Some(OpenLink { source: source.to_owned(), target, start: self.out.len(), label: String::new() });
        Frame::Link
    }

    pub(super) fn end_link(&mut self) {
        let Some(link) = self.link.take() else { return };
        if self.table.is_some() {
            return self.shown(&link);
        }
        match &link.target {
            None => self.shown(&link),
            Some(target) if link.is_itself() => self.bare(&link, target),
            Some(target) => self.named(&link, target),
        }
        self.line = Line::Text;
    }

    /// A target that is no link: it is shown behind the text.
    fn shown(&mut self, link: &OpenLink) {
        if link.label.is_empty() {
            self.text(&link.source);
        } else if !link.is_itself() {
            self.text(" (");
            self.text(&link.source);
            self.text(")");
        }
    }

    /// A link that shows its own address.
    fn bare(&mut self, link: &OpenLink, target: &str) {
        let is_web = target.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("http"));
        match (self.style.link, self.rendering.dialect) {
            (Link::Spelled, _) | (_, Dialect::GoogleChat | Dialect::Discord) => {
                // An address for mail is text like any other: what was written of it stays.
                if is_web || link.label.is_empty() {
                    self.out.truncate(link.start);
                    self.out.push_str(target);
                }
            }
            (Link::Angle, _) if is_web => {
                self.out.truncate(link.start);
                self.out.push('<');
                escape::code(&mut self.out, target, self.rendering);
                self.out.push('>');
            }
            (Link::Brackets, Dialect::Mattermost) if is_web => {
                self.out.truncate(link.start);
                self.out.push('<');
                self.out.push_str(target);
                self.out.push('>');
            }
            _ => self.named(link, target),
        }
    }

    /// A link that shows another text.
    fn named(&mut self, link: &OpenLink, target: &str) {
        if link.label.is_empty() {
            let escape = Escape { rendering: self.rendering, line_start: false, typed: false };
            escape.push(&mut self.out, target);
        }
        let label = self.out.split_off(link.start);
        // Google Chat has no way to write these in a link's text.
        let unfit = self.rendering.dialect == Dialect::GoogleChat && link.label.contains(['<', '>', '|']);
        match self.style.link {
            Link::Angle if !unfit => {
                self.out.push('<');
                escape::code(&mut self.out, target, self.rendering);
                self.out.push('|');
                self.out.push_str(&label);
                self.out.push('>');
            }
            Link::Spelled | Link::Angle => {
                self.out.push_str(&label);
                self.out.push_str(" (");
                self.out.push_str(target.strip_prefix("mailto:").unwrap_or(target));
                self.out.push(')');
            }
            Link::Brackets => {
                let escaped = self.rendering.dialect == Dialect::TeamsCard;
                self.out.push('[');
                self.out.push_str(&if escaped { label } else { label.replace(']', "\\]") });
                self.out.push_str("](");
                link::push_in_brackets(&mut self.out, target);
                self.out.push(')');
            }
            Link::Tag => {
                self.out.push_str("<a href=\"");
                target.chars().for_each(|letter| escape::entity(&mut self.out, letter));
                self.out.push_str("\">");
                self.out.push_str(&label);
                self.out.push_str("</a>");
            }
        }
    }
}
