//! Text that was typed is the text that is shown.

use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::super::{BREAK, Dialect, escape};
use super::{HTML, markup, soup};

/// A text as far as people can tell it from another one.
fn seen(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n").replace('\t', "    ").replace('\0', "\u{FFFD}");
    text.replace('\u{A0}', " ").replace(BREAK, "").replace("%40", "@").replace("%3E", ">")
}

/// The words, for dialects that fold blanks.
fn words(text: &str) -> Vec<String> {
    seen(text).split_whitespace().map(str::to_owned).collect()
}

/// What a reader of Markdown shows of a text; anything but paragraphs and links is an error.
fn shown_of_markdown(text: &str) -> Result<String, String> {
    let options = Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TABLES | Options::ENABLE_TASKLISTS;
    let mut out = String::new();
    for event in Parser::new_ext(text, options) {
        match event {
            Event::Text(text) => out.push_str(&text),
            Event::SoftBreak | Event::HardBreak => out.push('\n'),
            Event::Start(Tag::Paragraph | Tag::Link { .. }) | Event::End(TagEnd::Link) => {}
            Event::End(TagEnd::Paragraph) => out.push('\n'),
            other => return Err(format!("{other:?} in {text:?}")),
        }
    }
    Ok(out)
}

/// What Discord shows: a backslash before anything but letters, digits and blanks vanishes.
fn shown_of_discord(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letters.peek() {
            Some(next) if letter == '\\' && next.is_ascii_punctuation() => out.extend(letters.next()),
            _ => out.push(letter),
        }
    }
    out
}

/// The first mark that could open: no blank behind it, no letter before it.
fn opening_mark(text: &str) -> Option<usize> {
    let letters: Vec<_> = text.chars().collect();
    let blank = |letter: Option<&char>| letter.is_none_or(|letter| letter.is_whitespace() || *letter == BREAK);
    (0..letters.len()).find(|at| {
        let before = at.checked_sub(1).and_then(|at| letters.get(at));
        let joined = before.is_some_and(|letter| letter.is_alphanumeric());
        matches!(letters[*at], '*' | '_' | '~' | '`') && !blank(letters.get(at + 1)) && !joined
    })
}

proptest! {
    #[test]
    fn html_shows_what_was_typed(text in soup()) {
        for dialect in HTML {
            let shown = markup::read(dialect, &escape(&text, dialect)).unwrap().text;
            prop_assert_eq!(seen(&shown), seen(&text), "{:?}", dialect);
        }
    }

    #[test]
    fn slack_shows_what_was_typed(text in soup()) {
        let out = escape(&text, Dialect::SlackMrkdwn);
        prop_assert!(!out.contains(['<', '>']), "{out:?}");
        let shown = out.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        prop_assert_eq!(seen(&shown), seen(&text), "{:?}", out);
    }

    #[test]
    fn whatsapp_and_google_chat_show_what_was_typed(text in soup()) {
        for dialect in [Dialect::WhatsApp, Dialect::GoogleChat] {
            prop_assert_eq!(seen(&escape(&text, dialect)), seen(&text), "{:?}", dialect);
        }
    }

    #[test]
    fn no_bare_mark_opens(text in soup()) {
        let text = text.replace("http", "h");
        for dialect in [Dialect::SlackMrkdwn, Dialect::WhatsApp, Dialect::GoogleChat] {
            let out = escape(&text, dialect);
            prop_assert_eq!(opening_mark(&out), None, "{:?}: {:?}", dialect, out);
        }
    }

    #[test]
    fn readers_of_markdown_show_what_was_typed(text in soup()) {
        for dialect in [Dialect::Mattermost, Dialect::TeamsCard] {
            let out = escape(&text, dialect);
            let shown = shown_of_markdown(&out).map_err(TestCaseError::fail)?;
            prop_assert_eq!(words(&shown), words(&text), "{:?}: {:?}", dialect, out);
        }
    }

    #[test]
    fn discord_shows_what_was_typed(text in soup()) {
        let shown = shown_of_discord(&escape(&text, Dialect::Discord));
        prop_assert_eq!(words(&shown), words(&text));
    }

    #[test]
    fn plain_text_stays_as_it_is(text: String) {
        prop_assert_eq!(escape(&text, Dialect::Plain), text);
    }
}
