use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

mod dialects;
mod markup;
mod typed;

const ALL: [Dialect; 11] = [
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

/// What every dialect could stumble over, in any order.
const FRAGMENTS: &[&str] = &[
    "*",
    "**",
    "_",
    "~",
    "~~",
    "`",
    "```",
    "```rust\n",
    "|",
    "||",
    "\\",
    "<",
    ">",
    "&",
    "&amp;",
    "\"",
    "'",
    "[",
    "](",
    ")",
    "![",
    "[x](http://a.b/c)",
    "](javascript:x)",
    "<https://a.b/@here>",
    "https://a.b/x_y",
    "https://@all",
    "http://",
    "<b>",
    "</b>",
    "<div>\n",
    "<!-- ",
    "-->",
    "<a href=\"x\">",
    "# ",
    "> ",
    "- ",
    "+ ",
    "1. ",
    "2) ",
    "    ",
    "\t",
    "- [ ] ",
    "===",
    "---",
    "|-|-|",
    "\n",
    "\n",
    "\n\n",
    "  \n",
    "\r\n",
    " ",
    " ",
    "a",
    "b1",
    "snake_case",
    "ä",
    "שלום",
    "👩‍👩‍👧",
    "\u{202E}",
    "\u{7}",
    "\0",
    "@",
    "@here",
    "@everyone",
    "@channel",
    "@ALL",
    "@room",
    "@name",
    "<!channel>",
    "<!here|x>",
    "<@U1>",
    "<@&2>",
    "<users/all>",
    ":smile:",
    "{{DATE(",
    "a@b.example",
    "<a@b.example>",
    "$",
    "!",
    ".",
    "(",
    "word",
];

fn soup() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(FRAGMENTS), 0..40).prop_map(|parts| parts.concat())
}

/// What is left of a mention that fires, in what a provider gets.
fn live_mention(dialect: Dialect, out: &str) -> Option<String> {
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

proptest! {
    #[test]
    fn no_mention_survives(text in soup()) {
        for dialect in ALL {
            prop_assert_eq!(live_mention(dialect, &render(&text, dialect)), None);
            prop_assert_eq!(live_mention(dialect, &escape(&text, dialect)), None);
        }
    }

    #[test]
    fn html_is_nested_properly_and_has_allowed_tags_alone(text in soup()) {
        for dialect in HTML {
            for out in [render(&text, dialect), escape(&text, dialect)] {
                let read = markup::read(dialect, &out);
                prop_assert!(read.is_ok(), "{dialect:?}: {:?} in {out:?}", read.err());
            }
        }
    }

    #[test]
    fn telegram_finds_no_name_to_mention(text in soup()) {
        for out in [render(&text, Dialect::TelegramHtml), escape(&text, Dialect::TelegramHtml)] {
            let shown = markup::read(Dialect::TelegramHtml, &out).unwrap().outside_code;
            let letters: Vec<_> = shown.chars().collect();
            for (at, _) in letters.iter().enumerate().filter(|(_, letter)| **letter == '@') {
                let name = letters.get(at + 1).is_some_and(|letter| letter.is_ascii_alphanumeric() || *letter == '_');
                let inside = at > 0 && letters[at - 1].is_ascii_alphanumeric();
                prop_assert!(!name || inside, "{shown:?}");
            }
        }
    }

    #[test]
    fn any_text_renders(text: String) {
        for dialect in ALL {
            prop_assert!(render(&text, dialect).len() <= 64 * text.len() + 1024);
            prop_assert!(escape(&text, dialect).len() <= 16 * text.len() + 64);
        }
    }

    #[test]
    fn no_letter_of_a_markdown_text_is_lost(words in prop::collection::vec("[a-z]{3,8}", 1..20), marks in prop::collection::vec(prop::sample::select(&["*", "**", "\n", "\n\n", "> ", "- ", "~~", "_", "\n# ", "1. "][..]), 20)) {
        let text: String = words.iter().zip(&marks).map(|(word, mark)| format!("{mark}{word} ")).collect();
        for dialect in ALL {
            let out = render(&text, dialect);
            let mut rest = out.as_str();
            for word in &words {
                let at = rest.find(word.as_str());
                prop_assert!(at.is_some(), "{word} of {text:?} is not in {out:?}");
                rest = &rest[at.unwrap() + word.len()..];
            }
        }
    }
}

#[test]
fn large_and_nasty_texts_take_neither_long_nor_much_space() {
    const SIZE: usize = 64 * 1024;
    let repeated = |part: &str| part.repeat(SIZE / part.len());
    let mut texts: Vec<_> = [
        ">",
        "> ",
        "- ",
        "1. ",
        "*",
        "**a ",
        "[",
        "![",
        "[a](",
        "`",
        "``a`",
        "<",
        "<b",
        "<!--",
        "|",
        "a|b\n-|-\n",
        "http://",
        "http://(",
        "@all",
        "\\",
        "&",
        "https://a.b ",
        "(",
        "\n",
        "> a\n",
        "\t",
        "_a_",
    ]
    .map(repeated)
    .into();
    texts.push(format!("{}a\n{}", "> ".repeat(200), "a\n".repeat(SIZE / 2)));
    texts.push(format!("{}a\n{}", "999999999. ".repeat(200), "a\n".repeat(SIZE / 2)));
    texts.push(format!("|{}\n|{}\n{}", "a|".repeat(4_000), "-|".repeat(4_000), "b\n".repeat(SIZE / 4)));
    texts.push(format!("|a|b|\n|-|-|\n|{}|c|\n{}", "d".repeat(SIZE / 2), "|e|f|\n".repeat(SIZE / 12)));
    let start = Instant::now();
    for text in &texts {
        for dialect in ALL {
            let out = render(text, dialect);
            assert!(out.len() <= 64 * text.len(), "{dialect:?}: {} bytes of {:?}", out.len(), &text[..20]);
            assert!(escape(text, dialect).len() <= 16 * text.len() + 64);
        }
    }
    // A rendering whose time grew with the square of the size would take many times as long.
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
}

#[test]
fn mentions_fire_where_they_may() {
    let allowed = |dialect, text| {
        let rendering = Rendering { dialect, allow_mentions: true };
        (rendering.render(text), rendering.escape(text))
    };
    let both = |text: &str| (text.to_owned(), text.to_owned());
    assert_eq!(allowed(Dialect::SlackMrkdwn, "a <!here> <@U1> @here"), both("a <!here> <@U1> @here"));
    assert_eq!(allowed(Dialect::Discord, "a <@1> <@&2> @everyone"), both("a <@1> <@&2> @everyone"));
    assert_eq!(allowed(Dialect::GoogleChat, "a <users/all> b"), both("a <users/all> b"));
    assert_eq!(allowed(Dialect::Mattermost, "a @all b"), both("a @all b"));
    assert_eq!(allowed(Dialect::TelegramHtml, "a @name b"), both("a @name b"));
    assert_eq!(allowed(Dialect::MatrixHtml, "@room").1, "@room");
}
