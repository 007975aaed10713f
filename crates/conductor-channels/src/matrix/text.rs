//! How a notification reads in Matrix.
//!
//! <https://spec.matrix.org/latest/client-server-api/#mroommessage>

use std::collections::BTreeSet;

use conductor_core::{Format, Message, Priority};
use serde_json::{Map, Value, json};

use crate::markdown::{Dialect, Rendering};

/// What goes before a message of high priority.
const HIGH: &str = "HIGH PRIORITY";
/// The most people whom a message mentions.
const MENTIONS_MAX: usize = 50;
/// The longest name of a user, in bytes.
const USER_MAX: usize = 255;

/// A message's content. Of a text in parts the first one alone has priority and title. A message of low priority is a
/// notice, which most clients show without a sound.
pub(super) fn content(message: &Message, notice: bool, allow_mentions: bool) -> Value {
    let title = message.title.as_deref().map(one_line).filter(|title| message.part == 0 && !title.is_empty());
    let is_high = message.part == 0 && message.priority == Priority::High;
    let plain = plain(message, title.as_deref(), is_high);
    let mut content = Map::new();
    let is_notice = notice || message.priority == Priority::Low;
    content.insert("msgtype".into(), if is_notice { "m.notice" } else { "m.text" }.into());
    // Whoever is not named here is not called, whatever the text says.
    content.insert("m.mentions".into(), if allow_mentions { mentions(&plain) } else { json!({}) });
    content.insert("body".into(), plain.into());
    if message.format == Format::Markdown || title.is_some() || is_high {
        content.insert("format".into(), "org.matrix.custom.html".into());
        content.insert("formatted_body".into(), html(message, title.as_deref(), is_high, allow_mentions).into());
    }
    Value::Object(content)
}

/// How many bytes a content has as JSON.
pub(super) fn length(content: &Value) -> usize {
    content.to_string().len()
}

fn plain(message: &Message, title: Option<&str>, is_high: bool) -> String {
    let mut plain = String::with_capacity(message.body.len() + 64);
    if is_high {
        plain.push_str(&format!("⚠️ {HIGH}\n"));
    }
    if let Some(title) = title {
        plain.push_str(title);
        plain.push('\n');
    }
    match message.format {
        Format::Text => plain.push_str(&message.body),
        Format::Markdown => {
            let rendering = Rendering { dialect: Dialect::Plain, allow_mentions: true };
            plain.push_str(&rendering.render(&message.body));
        }
    }
    plain
}

fn html(message: &Message, title: Option<&str>, is_high: bool, allow_mentions: bool) -> String {
    let rendering = Rendering { dialect: Dialect::MatrixHtml, allow_mentions };
    let mut html = String::with_capacity(message.body.len() * 2);
    if is_high {
        html.push_str(&format!("⚠️ <strong>{HIGH}</strong><br>"));
    }
    if let Some(title) = title {
        html.push_str(&format!("<strong>{}</strong><br>", rendering.escape(title)));
    }
    match message.format {
        Format::Text => html.push_str(&rendering.escape(&message.body)),
        Format::Markdown => html.push_str(&rendering.render(&message.body)),
    }
    html
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whom a text names: `@room`, and people as `@name:server`.
fn mentions(text: &str) -> Value {
    let mut people = BTreeSet::new();
    let mut is_to_room = false;
    for (at, _) in text.match_indices('@') {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|letter| letter.is_alphanumeric() || matches!(letter, '/' | '.' | '_' | '-')) {
            continue;
        }
        let name = &text[at..];
        match user(name) {
            Some(user) if people.len() < MENTIONS_MAX => _ = people.insert(user),
            Some(_) => {}
            None => is_to_room |= is_room(name),
        }
    }
    let mut mentions = Map::new();
    if is_to_room {
        mentions.insert("room".into(), true.into());
    }
    if !people.is_empty() {
        mentions.insert("user_ids".into(), people.into_iter().collect());
    }
    Value::Object(mentions)
}

/// Whether a text begins by naming everybody in the room.
fn is_room(text: &str) -> bool {
    let after = text.strip_prefix("@room").map(|rest| rest.chars().next());
    after.is_some_and(|next| !next.is_some_and(|next| next.is_alphanumeric() || next == '_' || next == '-'))
}

/// The user's id at the beginning of a text: `@name:server`, perhaps with a port.
/// <https://spec.matrix.org/latest/appendices/#user-identifiers>
fn user(text: &str) -> Option<String> {
    let named = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._=-/+".contains(byte);
    let name = text.bytes().skip(1).take_while(named).count();
    let rest = text[1 + name..].strip_prefix(':').filter(|_| name > 0)?;
    let served = |byte: &u8| byte.is_ascii_alphanumeric() || b".-:".contains(byte);
    let server = &rest[..rest.bytes().take_while(served).count()];
    // A sentence may end behind it.
    let server = server.trim_end_matches(['.', ':', '-']);
    let length = 2 + name + server.len();
    (!server.is_empty() && length <= USER_MAX).then(|| text[..length].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::message;

    #[test]
    fn plain_text_without_a_title_has_no_html() {
        let text = "a *b* <c> @room @bob:x.example";
        let expected = json!({ "msgtype": "m.text", "body": text, "m.mentions": {} });
        assert_eq!(content(&message(text), false, false), expected);
    }

    #[test]
    fn markdown_has_a_text_and_its_html() {
        let mut message = message("**off** & [why](https://a.example)");
        (message.format, message.priority, message.title) =
            (Format::Markdown, Priority::High, Some("a <b>\n c".into()));
        let content = content(&message, false, false);
        assert_eq!(content["body"], "⚠️ HIGH PRIORITY\na <b> c\noff & why (https://a.example)");
        assert_eq!(content["format"], "org.matrix.custom.html");
        let html = "⚠️ <strong>HIGH PRIORITY</strong><br><strong>a &lt;b&gt; c</strong><br>\
                    <p><strong>off</strong> &amp; <a href=\"https://a.example\">why</a></p>";
        assert_eq!(content["formatted_body"], html);
    }

    #[test]
    fn low_priority_and_the_option_make_notices() {
        let mut message = message("hello");
        assert_eq!(content(&message, true, false)["msgtype"], "m.notice");
        message.priority = Priority::Low;
        assert_eq!(content(&message, false, false)["msgtype"], "m.notice");
    }

    #[test]
    fn whom_a_text_names_is_called_where_that_is_allowed() {
        for (text, expected) in [
            (
                "nobody, not a@b.example nor http://x/@bob:x.example nor @roomy nor @room:x",
                json!({"user_ids": ["@room:x"]}),
            ),
            ("@room: come", json!({ "room": true })),
            ("(@room) come", json!({ "room": true })),
            ("@room", json!({ "room": true })),
            (
                "ask @bob:x.example:8448, @ann=2/3:y.example. Or @bob:x.example:8448",
                json!({ "user_ids": ["@ann=2/3:y.example", "@bob:x.example:8448"] }),
            ),
            ("@: @a: @:x @A:x @ä:x", json!({})),
        ] {
            assert_eq!(content(&message(text), false, true)["m.mentions"], expected, "{text}");
        }
        let many: String = (0..=MENTIONS_MAX).map(|number| format!("@u{number}:x ")).collect();
        assert_eq!(mentions(&many)["user_ids"].as_array().map(Vec::len), Some(MENTIONS_MAX));
    }
}
