//! What holds for any text in every dialect. The tests try it with texts of their own, the fuzzer with what it finds.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::{BREAK, Dialect, Rendering, escape, escape_without_marks, render};

pub(super) mod markup;

/// Every dialect.
pub(super) const ALL: [Dialect; 11] = [
    Dialect::Plain,
    Dialect::PushoverHtml,
    Dialect::SlackMrkdwn,
    Dialect::TelegramHtml,
    Dialect::MatrixHtml,
    Dialect::EmailHtml,
    Dialect::WhatsApp,
    Dialect::GoogleChat,
    Dialect::Mattermost,
    Dialect::Discord,
    Dialect::TeamsCard,
];

const HTML: [Dialect; 4] = [Dialect::TelegramHtml, Dialect::PushoverHtml, Dialect::MatrixHtml, Dialect::EmailHtml];

/// What a provider gets is in proportion to what was written.
pub(crate) fn output_is_bounded(text: &str) {
    for dialect in ALL {
        for allow_mentions in [false, true] {
            let rendering = Rendering { dialect, allow_mentions };
            let (rendered, escaped) = (rendering.render(text).len(), rendering.escape(text).len());
            assert!(rendered <= 64 * text.len() + 1024, "{dialect:?}: {rendered} bytes of {text:?}");
            assert!(escaped <= 16 * text.len() + 64, "{dialect:?}: {escaped} bytes of {text:?}");
        }
    }
}

/// No mention fires, neither in markdown nor in plain text.
pub(crate) fn no_mention_survives(text: &str) {
    for dialect in ALL {
        for out in [render(text, dialect), escape(text, dialect)] {
            assert_eq!(live_mention(dialect, &out), None, "{dialect:?}: {text:?}");
        }
    }
    let unmarked = escape_without_marks(text, false);
    assert_eq!(live_mention(Dialect::SlackMrkdwn, &unmarked), None, "without marks: {text:?}");
}

/// What is left of a mention that fires, in what a provider gets.
fn live_mention(dialect: Dialect, out: &str) -> Option<String> {
    if dialect == Dialect::TelegramHtml {
        return telegram_name(out);
    }
    let out = out.to_lowercase();
    let signs: &[&str] = match dialect {
        Dialect::SlackMrkdwn => &["<!", "<@", "<#", "@here", "@channel", "@everyone"],
        Dialect::MatrixHtml => &["@room"],
        Dialect::GoogleChat => &["<users/"],
        Dialect::Mattermost => &["@all", "@here", "@channel"],
        Dialect::Discord => &["@everyone", "@here"],
        _ => &[],
    };
    // What an address holds is no text: there Matrix does not look.
    let out = if dialect == Dialect::MatrixHtml { markup::read(dialect, &out).ok()?.text } else { out };
    signs.iter().find(|sign| out.contains(**sign)).map(|sign| format!("{sign} in {out}"))
}

/// A name outside of code that Telegram would mention.
fn telegram_name(out: &str) -> Option<String> {
    let shown = markup::read(Dialect::TelegramHtml, out).ok()?.outside_code;
    let letters: Vec<_> = shown.chars().collect();
    let named = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
    let mentioned = |at: &usize| {
        let inside = *at > 0 && letters[at - 1].is_ascii_alphanumeric();
        letters[*at] == '@' && !inside && letters.get(at + 1).is_some_and(named)
    };
    (0..letters.len()).find(mentioned).map(|at| format!("a name at {at} of {shown}"))
}

/// HTML is nested properly and has the tags alone that the provider takes.
pub(crate) fn html_is_sound(text: &str) {
    for dialect in HTML {
        for allow_mentions in [false, true] {
            let rendering = Rendering { dialect, allow_mentions };
            for out in [rendering.render(text), rendering.escape(text)] {
                let read = markup::read(dialect, &out);
                assert!(read.is_ok(), "{dialect:?}: {:?} in {out:?} of {text:?}", read.err());
            }
        }
    }
}

/// Plain text is shown as it was typed.
pub(crate) fn typed_text_is_shown(text: &str) {
    assert_eq!(escape(text, Dialect::Plain), text);
    for dialect in HTML {
        let shown = markup::read(dialect, &escape(text, dialect)).map(|shown| seen(&shown.text));
        assert_eq!(shown.as_ref(), Ok(&seen(text)), "{dialect:?}");
    }
    for out in [escape(text, Dialect::SlackMrkdwn), escape_without_marks(text, false)] {
        assert!(!out.contains(['<', '>']), "{out:?}");
        let shown = out.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        assert_eq!(seen(&shown), seen(text), "{out:?}");
    }
    for dialect in [Dialect::WhatsApp, Dialect::GoogleChat] {
        assert_eq!(seen(&escape(text, dialect)), seen(text), "{dialect:?}");
    }
    for dialect in [Dialect::Mattermost, Dialect::TeamsCard] {
        let out = escape(text, dialect);
        let shown = shown_of_markdown(&out).unwrap_or_else(|other| panic!("{dialect:?}: {other} of {text:?}"));
        assert_eq!(words(&shown), words(text), "{dialect:?}: {out:?}");
    }
    let out = escape(text, Dialect::Discord);
    assert_eq!(words(&shown_of_discord(&out)), words(text), "{out:?}");
}

/// Where a dialect has no escape, no mark of a plain text opens. Addresses stay as they are.
pub(crate) fn no_bare_mark_opens(text: &str) {
    let text = text.replace("http", "h");
    for dialect in [Dialect::SlackMrkdwn, Dialect::WhatsApp, Dialect::GoogleChat] {
        let out = escape(&text, dialect);
        assert_eq!(opening_mark(&out), None, "{dialect:?}: {out:?} of {text:?}");
    }
}

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
pub(crate) fn shown_of_discord(text: &str) -> String {
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
