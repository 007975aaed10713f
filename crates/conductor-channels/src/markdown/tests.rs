use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::properties::ALL;
use super::*;

mod dialects;
mod typed;

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

proptest! {
    #[test]
    fn no_mention_survives(text in soup()) {
        properties::no_mention_survives(&text);
    }

    #[test]
    fn html_is_nested_properly_and_has_allowed_tags_alone(text in soup()) {
        properties::html_is_sound(&text);
    }

    #[test]
    fn any_text_renders(text: String) {
        properties::output_is_bounded(&text);
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
