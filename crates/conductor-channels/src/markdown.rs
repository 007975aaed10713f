//! Markdown and plain text in the dialects of the providers.
//!
//! Markdown is CommonMark with strikethrough, tables and task lists; bare addresses become links. A line stays a line:
//! what ends one in the source ends one where it is read. Raw HTML is shown as text. Only `http`, `https`, `mailto` and
//! `tel` make links; any other target is shown.
//!
//! Where a dialect knows no way to write a special character, a zero-width space ([`BREAK`]) beside it takes its
//! meaning away. The same character disarms mentions.

use pulldown_cmark::{Event, Options, Parser, TextMergeStream};

mod escape;
mod html;
mod lines;
mod link;
mod mention;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod properties;
mod style;
mod table;
#[cfg(test)]
mod tests;

/// The character that keeps a special one from being special: a zero-width space.
pub const BREAK: char = '\u{200B}';

/// How deep quotes and lists are nested at most. What lies deeper is shown on the last level.
pub const DEPTH_MAX: usize = 8;

/// What a provider reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Text without markup.
    Plain,
    /// Slack's `mrkdwn`. It has no escape for `*`, `_`, `~` and backticks, so [`BREAK`] disarms them; text that must
    /// come through untouched is sent with `"mrkdwn": false` or as a `plain_text` object instead.
    SlackMrkdwn,
    /// The tags that Telegram takes with `"parse_mode": "HTML"`.
    TelegramHtml,
    /// The tags that Pushover takes with `html=1`: bold, italic and links.
    PushoverHtml,
    /// The tags that Matrix takes in a `formatted_body`.
    MatrixHtml,
    /// A fragment for the body of an e-mail, without a head and without styles.
    EmailHtml,
    /// WhatsApp's marks.
    WhatsApp,
    /// Google Chat's own syntax: `MARKUP_SYNTAX_CHAT`.
    GoogleChat,
    /// Mattermost's Markdown.
    Mattermost,
    /// Discord's Markdown.
    Discord,
    /// What a `TextBlock` of an Adaptive Card takes in Teams: bold, italic, lists and links.
    TeamsCard,
}

/// How a text becomes what a provider reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rendering {
    /// What the provider reads.
    pub dialect: Dialect,
    /// Whether the provider's mentions in the text may fire.
    pub allow_mentions: bool,
}

impl Rendering {
    /// Markdown in the dialect. Any input renders; the output's size is in proportion to the input's.
    pub fn render(self, markdown: &str) -> String {
        match self.dialect {
            Dialect::MatrixHtml | Dialect::EmailHtml => html::render(markdown, self),
            _ => lines::render(markdown, self),
        }
    }

    /// Plain text so that the dialect shows it as it was typed.
    pub fn escape(self, text: &str) -> String {
        escape::typed(text, self)
    }
}

/// [`Rendering::render`] with mentions disarmed.
pub fn render(markdown: &str, dialect: Dialect) -> String {
    Rendering { dialect, allow_mentions: false }.render(markdown)
}

/// [`Rendering::escape`] with mentions disarmed.
pub fn escape(text: &str, dialect: Dialect) -> String {
    Rendering { dialect, allow_mentions: false }.escape(text)
}

/// Plain text so that Slack shows it as it was typed in a message with `"mrkdwn": false`.
pub fn escape_without_marks(text: &str, allow_mentions: bool) -> String {
    escape::unmarked(text, allow_mentions)
}

fn events(markdown: &str) -> impl Iterator<Item = Event<'_>> {
    let options = Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TABLES | Options::ENABLE_TASKLISTS;
    TextMergeStream::new(Parser::new_ext(markdown, options))
}
