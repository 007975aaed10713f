//! Text that is only text.

use pulldown_cmark::CodeBlockKind;

use super::mention::{self, Behind};
use super::{BREAK, Dialect, Rendering, link};

/// The longest name of an emoji between two colons, in bytes.
const EMOJI_MAX: usize = 64;
/// The longest name of a code block's language, in bytes.
const LANGUAGE_MAX: usize = 32;

/// How a text is escaped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Escape {
    pub(super) rendering: Rendering,
    /// Whether the text begins a line.
    pub(super) line_start: bool,
    /// Whether the text is shown exactly as typed: blanks and names of emoji too. Otherwise it comes from Markdown.
    pub(super) typed: bool,
}

/// The whole text as it was typed.
pub(super) fn typed(text: &str, rendering: Rendering) -> String {
    if rendering.dialect == Dialect::Plain {
        return text.to_owned();
    }
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    Escape { rendering, line_start: true, typed: true }.push(&mut out, &text);
    out
}

/// The whole text as it was typed, for Slack with its marks switched off: only entities, emoji and mentions are left.
pub(super) fn unmarked(text: &str, allow_mentions: bool) -> String {
    let rendering = Rendering { dialect: Dialect::SlackMrkdwn, allow_mentions };
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let escape = Escape { rendering, line_start: false, typed: true };
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let (mut before, mut at) = (None, 0);
    while let Some(letter) = text[at..].chars().next() {
        let rest = &text[at..];
        if let Some(length) = escape.address(&mut out, rest, before).or_else(|| escape.mention(&mut out, rest)) {
            before = rest[..length].chars().next_back();
            at += length;
            continue;
        }
        let beside = Beside { before, after: &text[at + letter.len_utf8()..], line_start: false };
        slack(&mut out, letter);
        let emoji = letter == ':' && beside.begins_emoji(Dialect::SlackMrkdwn);
        let behind = Behind { text: beside.after, in_code: false, goes_on: false };
        if emoji || (letter == '@' && mention::fires(rendering, before, behind)) {
            out.push(BREAK);
        }
        at += letter.len_utf8();
        before = Some(letter);
    }
    out
}

/// The text of code: no marks work there, so that only what the dialect reads in code too is escaped.
pub(super) fn code(out: &mut String, text: &str, rendering: Rendering) {
    let mut before = None;
    for (at, letter) in text.char_indices() {
        let after = &text[at + letter.len_utf8()..];
        match rendering.dialect {
            Dialect::SlackMrkdwn => slack(out, letter),
            Dialect::TelegramHtml | Dialect::PushoverHtml | Dialect::MatrixHtml | Dialect::EmailHtml => {
                entity(out, letter);
            }
            _ => out.push(letter),
        }
        let opens = letter == '<' && mention::opens_in_code(rendering, after);
        let behind = Behind { text: after, in_code: true, goes_on: true };
        if opens || (letter == '@' && mention::fires(rendering, before, behind)) {
            out.push(BREAK);
        }
        before = Some(letter);
    }
}

/// The language that a code block names, if it is a name.
pub(super) fn language<'a>(kind: &'a CodeBlockKind<'_>) -> Option<&'a str> {
    let CodeBlockKind::Fenced(info) = kind else { return None };
    let name = info.split([' ', '\t', ',', '{']).next().unwrap_or_default();
    let named = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '-' | '_' | '#' | '.');
    (!name.is_empty() && name.len() <= LANGUAGE_MAX && name.chars().all(named)).then_some(name)
}

/// Writes a character so that it is one in HTML.
pub(super) fn entity(out: &mut String, letter: char) {
    match letter {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '"' => out.push_str("&quot;"),
        '\0' => out.push('\u{FFFD}'),
        _ => out.push(letter),
    }
}

/// Writes a character so that it is one in Slack, which knows three entities.
fn slack(out: &mut String, letter: char) {
    match letter {
        '&' | '<' | '>' => entity(out, letter),
        _ => out.push(letter),
    }
}

/// Whether the dialect's marks have no escape but [`BREAK`].
pub(super) fn has_bare_marks(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::SlackMrkdwn | Dialect::WhatsApp | Dialect::GoogleChat)
}

/// Whether a character is one of the marks that [`has_bare_marks`] is about.
pub(super) fn is_mark(letter: char) -> bool {
    matches!(letter, '*' | '_' | '~' | '`')
}

impl Escape {
    /// Appends a text.
    pub(super) fn push(self, out: &mut String, text: &str) {
        if self.rendering.dialect == Dialect::Plain {
            out.push_str(text);
            return;
        }
        let mut line_start = self.line_start;
        let mut before = out.chars().next_back().filter(|_| !line_start);
        let mut at = 0;
        while let Some(letter) = text[at..].chars().next() {
            let rest = &text[at..];
            let length = self.address(out, rest, before).or_else(|| self.mention(out, rest));
            let length = length.or_else(|| if line_start { self.list_number(out, rest) } else { None });
            if let Some(length) = length {
                before = text[..at + length].chars().next_back();
                at += length;
                line_start = false;
                continue;
            }
            let blank = letter != '\n' && letter.is_whitespace();
            self.letter(out, &Beside { before, after: &rest[letter.len_utf8()..], line_start }, letter);
            at += letter.len_utf8();
            before = Some(letter);
            line_start = letter == '\n' || (line_start && blank);
        }
    }

    /// Writes an address at the beginning of `rest` so that it stays one, and returns its length.
    fn address(self, out: &mut String, rest: &str, before: Option<char>) -> Option<usize> {
        let dialect = self.rendering.dialect;
        let inside_word = before.is_some_and(char::is_alphanumeric);
        let kept = !matches!(dialect, Dialect::MatrixHtml | Dialect::EmailHtml);
        if !self.typed || !kept || inside_word || !rest.starts_with("http") {
            return None;
        }
        let length = link::bare(rest)?;
        let address = &rest[..length];
        match dialect {
            Dialect::TelegramHtml if address.contains('@') => {
                out.push_str("<a href=\"");
                address.chars().for_each(|letter| entity(out, letter));
                out.push_str("\">");
                Self { typed: false, ..self }.push(out, address);
                out.push_str("</a>");
            }
            Dialect::TeamsCard => {
                let target = link::target(address, self.rendering)?;
                // With an exclamation mark before it, it would be an image.
                if before == Some('!') {
                    out.push(BREAK);
                }
                out.push('[');
                Self { typed: false, line_start: false, ..self }.push(out, address);
                out.push_str("](");
                link::push_in_brackets(out, &target);
                out.push(')');
            }
            Dialect::Mattermost => {
                out.push('<');
                self.whole(out, address);
                out.push('>');
            }
            _ => self.whole(out, address),
        }
        Some(length)
    }

    /// An address without escapes in it, since they would become a part of it.
    fn whole(self, out: &mut String, address: &str) {
        for (at, letter) in address.char_indices() {
            match letter {
                '@' if mention::fires_in_address(self.rendering, &address[..at], &address[at + 1..]) => {
                    out.push_str("%40");
                }
                '>' if self.rendering.dialect == Dialect::Mattermost => out.push_str("%3E"),
                _ if self.rendering.dialect == Dialect::SlackMrkdwn => slack(out, letter),
                _ if matches!(self.rendering.dialect, Dialect::TelegramHtml | Dialect::PushoverHtml) => {
                    entity(out, letter);
                }
                _ => out.push(letter),
            }
        }
    }

    /// Writes a mention in angle brackets that may fire, and returns its length.
    fn mention(self, out: &mut String, rest: &str) -> Option<usize> {
        if !self.rendering.allow_mentions || !rest.starts_with('<') {
            return None;
        }
        let length = mention::bracketed(self.rendering.dialect, rest)?;
        out.push_str(&rest[..length]);
        Some(length)
    }

    fn letter(self, out: &mut String, beside: &Beside<'_>, letter: char) {
        let dialect = self.rendering.dialect;
        // Behind a piece of Markdown a name may go on in the next, and providers read over tags.
        let behind = Behind { text: beside.after, in_code: false, goes_on: !self.typed };
        if letter == '@' && mention::fires(self.rendering, beside.before, behind) {
            out.push('@');
            out.push(BREAK);
            return;
        }
        if letter == ':' && self.typed && beside.begins_emoji(dialect) {
            out.push(':');
            out.push(BREAK);
            return;
        }
        match dialect {
            Dialect::Plain => out.push(letter),
            Dialect::TelegramHtml | Dialect::PushoverHtml => entity(out, letter),
            Dialect::MatrixHtml | Dialect::EmailHtml => self.in_html(out, beside, letter),
            Dialect::SlackMrkdwn | Dialect::WhatsApp | Dialect::GoogleChat => {
                between_marks(out, beside, dialect, letter);
            }
            Dialect::Mattermost | Dialect::Discord | Dialect::TeamsCard => self.in_markdown(out, beside, letter),
        }
    }

    fn in_html(self, out: &mut String, beside: &Beside<'_>, letter: char) {
        match letter {
            '\n' if self.typed => out.push_str("<br>"),
            '\t' if self.typed => out.push_str("\u{A0}\u{A0}\u{A0}\u{A0}"),
            ' ' if self.typed && (beside.line_start || beside.after.starts_with([' ', '\n'])) => out.push('\u{A0}'),
            _ => entity(out, letter),
        }
    }

    fn in_markdown(self, out: &mut String, beside: &Beside<'_>, letter: char) {
        let dialect = self.rendering.dialect;
        let next = beside.after.chars().next();
        match letter {
            '\\' | '*' | '_' | '~' | '`' | '|' | '[' => out.extend(['\\', letter]),
            '>' | '#' | '-' | '+' if beside.line_start => out.extend(['\\', letter]),
            '<' | ']' | '&' if dialect == Dialect::TeamsCard => out.extend(['\\', letter]),
            '<' if dialect == Dialect::Discord => out.push_str("\\<"),
            '=' if beside.line_start && dialect == Dialect::TeamsCard => out.push_str("\\="),
            '=' if beside.line_start && dialect == Dialect::Mattermost => out.extend([BREAK, letter]),
            '{' if dialect == Dialect::TeamsCard && next == Some('{') => out.extend([letter, BREAK]),
            '<' | '&' if dialect == Dialect::Mattermost => {
                out.push(letter);
                if next.is_some_and(|next| next.is_ascii_alphanumeric() || matches!(next, '/' | '!' | '?' | '#')) {
                    out.push(BREAK);
                }
            }
            '\n' if self.typed && dialect == Dialect::TeamsCard => out.push_str("\n\n"),
            ' ' if beside.line_start && dialect != Dialect::Discord => out.push('\u{A0}'),
            '\t' if beside.line_start && dialect != Dialect::Discord => out.push_str("\u{A0}\u{A0}\u{A0}\u{A0}"),
            '\0' => out.push('\u{FFFD}'),
            _ => out.push(letter),
        }
    }

    /// Writes a number that would begin a list's entry so that it does not, and returns the length of what was written:
    /// the digits and the sign behind them.
    fn list_number(self, out: &mut String, rest: &str) -> Option<usize> {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let sign = rest.as_bytes().get(digits).filter(|sign| digits > 0 && matches!(sign, b'.' | b')'))?;
        if !rest[digits + 1..].chars().next().is_none_or(char::is_whitespace) {
            return None;
        }
        match self.rendering.dialect {
            Dialect::Mattermost | Dialect::Discord | Dialect::TeamsCard => {
                out.push_str(&rest[..digits]);
                out.push('\\');
            }
            Dialect::WhatsApp | Dialect::GoogleChat => {
                out.push(BREAK);
                out.push_str(&rest[..digits]);
            }
            _ => out.push_str(&rest[..digits]),
        }
        out.push(char::from(*sign));
        Some(digits + 1)
    }
}

/// What stands beside a character.
struct Beside<'a> {
    before: Option<char>,
    after: &'a str,
    line_start: bool,
}

impl Beside<'_> {
    /// Whether a colon here begins the name of an emoji: `:name:`.
    fn begins_emoji(&self, dialect: Dialect) -> bool {
        let known = matches!(dialect, Dialect::SlackMrkdwn | Dialect::Mattermost);
        if !known || self.before.is_some_and(|letter| letter.is_ascii_digit()) {
            return false;
        }
        let named = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+' | b'\'');
        let length = self.after.bytes().take(EMOJI_MAX).take_while(named).count();
        length > 0 && self.after[length..].starts_with(':')
    }
}

/// A character in a dialect without escapes: a mark beside a blank or between two letters is none.
fn between_marks(out: &mut String, beside: &Beside<'_>, dialect: Dialect, letter: char) {
    let next = beside.after.chars().next();
    let in_word = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
    let lines = match dialect {
        Dialect::SlackMrkdwn => letter == '>',
        _ => matches!(letter, '>' | '-' | '*' | '+' | '#'),
    };
    if beside.line_start && lines {
        out.push(BREAK);
    }
    if is_mark(letter) {
        if letter != '`' && in_word(beside.before) && in_word(next) {
            out.push(letter);
            return;
        }
        if beside.before.is_some_and(|before| !before.is_whitespace()) && !out.ends_with(BREAK) {
            out.push(BREAK);
        }
        out.push(letter);
        if next.is_some_and(|next| !next.is_whitespace()) {
            out.push(BREAK);
        }
        return;
    }
    match dialect {
        Dialect::SlackMrkdwn => slack(out, letter),
        Dialect::GoogleChat if letter == '<' && next.is_some_and(|next| !next.is_whitespace()) => {
            out.push(letter);
            out.push(BREAK);
        }
        _ => out.push(letter),
    }
}
