//! How a notification reads in Telegram.
//!
//! Markdown goes out as Telegram's HTML. Plain text goes out as it is, without a parser that could refuse it; what is
//! bold in it, and what is a link, is said beside it.
//!
//! <https://core.telegram.org/bots/api#formatting-options>

use conductor_core::{Format, Message, Priority, Unit};
use serde_json::{Value, json};

use crate::markdown::{Dialect, Rendering};

/// What goes before a message of high priority.
const HIGH_SIGN: &str = "⚠️ ";
const HIGH: &str = "HIGH PRIORITY";

/// A message as Telegram takes it.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) text: String,
    /// Whether the text is HTML; else `entities` say what of it is bold or a link.
    pub(super) is_html: bool,
    pub(super) entities: Vec<Value>,
}

impl Written {
    /// How long Telegram counts it: without tags, in UTF-16 code units.
    pub(super) fn length(&self) -> usize {
        if self.is_html { shown_length(&self.text) } else { Unit::Utf16.count(&self.text) }
    }
}

/// The whole text of a message: priority, title, body. Of a text in parts the first one alone has priority and title.
pub(super) fn written(message: &Message, allow_mentions: bool) -> Written {
    let rendering = Rendering { dialect: Dialect::TelegramHtml, allow_mentions };
    let is_first = message.part == 0;
    let is_high = is_first && message.priority == Priority::High;
    let title = message.title.as_deref().map(one_line).filter(|title| is_first && !title.is_empty());
    match message.format {
        Format::Markdown => {
            let mut text = String::with_capacity(message.body.len() + 64);
            if is_high {
                text.push_str(&format!("{HIGH_SIGN}<b>{HIGH}</b>\n"));
            }
            if let Some(title) = title {
                text.push_str(&format!("<b>{}</b>\n", rendering.escape(&title)));
            }
            text.push_str(&rendering.render(&message.body));
            Written { text, is_html: true, entities: Vec::new() }
        }
        Format::Text => {
            let mut plain = Plain::default();
            if is_high {
                plain.text(HIGH_SIGN);
                plain.bold(|plain| plain.text(HIGH));
                plain.text("\n");
            }
            if let Some(title) = title {
                plain.bold(|plain| plain.html(&rendering.escape(&title)));
                plain.text("\n");
            }
            plain.html(&rendering.escape(&message.body));
            Written { text: plain.text, is_html: false, entities: plain.entities }
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A piece of the HTML that [`Rendering`] writes.
#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Text(&'a str),
    Character(char),
    Tag(&'a str),
}

/// The pieces of such HTML: tags end at the first `>`, and four characters are written as entities.
fn pieces(html: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = html;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let (piece, length) = match first {
            '<' => {
                let end = rest.find('>').map_or(rest.len(), |end| end + 1);
                (Piece::Tag(&rest[..end]), end)
            }
            '&' => match ENTITIES.iter().find(|(entity, _)| rest.starts_with(entity)) {
                Some((entity, character)) => (Piece::Character(*character), entity.len()),
                None => (Piece::Character('&'), 1),
            },
            _ => {
                let end = rest.find(['<', '&']).unwrap_or(rest.len());
                (Piece::Text(&rest[..end]), end)
            }
        };
        rest = &rest[length..];
        Some(piece)
    })
}

const ENTITIES: &[(&str, char)] = &[("&amp;", '&'), ("&lt;", '<'), ("&gt;", '>'), ("&quot;", '"')];

fn shown_length(html: &str) -> usize {
    let length = |piece| match piece {
        Piece::Text(text) => Unit::Utf16.count(text),
        Piece::Character(_) => 1,
        Piece::Tag(_) => 0,
    };
    pieces(html).map(length).sum()
}

/// The text that such HTML shows.
fn shown(html: &str) -> String {
    let mut shown = String::with_capacity(html.len());
    for piece in pieces(html) {
        match piece {
            Piece::Text(text) => shown.push_str(text),
            Piece::Character(character) => shown.push(character),
            Piece::Tag(_) => {}
        }
    }
    shown
}

/// Plain text, with what is bold in it and what is a link beside it.
#[derive(Default)]
struct Plain {
    text: String,
    /// How much of it there is, in UTF-16 code units.
    length: usize,
    entities: Vec<Value>,
}

impl Plain {
    fn text(&mut self, text: &str) {
        self.text.push_str(text);
        self.length += Unit::Utf16.count(text);
    }

    fn bold(&mut self, write: impl FnOnce(&mut Self)) {
        let offset = self.length;
        write(self);
        self.entities.push(json!({ "type": "bold", "offset": offset, "length": self.length - offset }));
    }

    /// Adds escaped text. The only tags in it are those of links whose address Telegram could take for a mention.
    fn html(&mut self, html: &str) {
        let mut link: Option<(usize, String)> = None;
        for piece in pieces(html) {
            match piece {
                Piece::Text(text) => self.text(text),
                Piece::Character(character) => self.text(character.encode_utf8(&mut [0; 4])),
                Piece::Tag("</a>") => {
                    if let Some((offset, url)) = link.take() {
                        let length = self.length - offset;
                        self.entities
                            .push(json!({ "type": "text_link", "offset": offset, "length": length, "url": url }));
                    }
                }
                Piece::Tag(tag) => {
                    let address = tag.strip_prefix("<a href=\"").and_then(|tag| tag.strip_suffix("\">"));
                    link = address.map(|address| (self.length, shown(address)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contract::message;
    use crate::markdown::BREAK;

    fn plain(text: &str) -> Written {
        written(&message(text), false)
    }

    #[test]
    fn plain_text_goes_out_as_it_is() {
        let text = "a *b* _c_ <b>d</b> & \"e\" `f` \\ [g](http://h.example/?i&j) #k /l 😀";
        let written = plain(text);
        assert_eq!((written.text.as_str(), written.is_html), (text, false));
        assert!(written.entities.is_empty());
        assert_eq!(plain("ask @anna").text, format!("ask @{BREAK}anna"));
    }

    #[test]
    fn an_address_with_a_name_in_it_stays_a_link() {
        let written = plain("😀 https://a.example/@b?c&d !");
        let shown = format!("https://a.example/@{BREAK}b?c&d");
        assert_eq!(written.text, format!("😀 {shown} !"));
        let link = json!({ "type": "text_link", "offset": 3, "length": 25, "url": "https://a.example/@b?c&d" });
        assert_eq!(written.entities, [link]);
        assert_eq!(Unit::Utf16.count(&shown), 25);
    }

    #[test]
    fn tags_do_not_count_and_an_entity_is_one_character() {
        for (html, length) in [
            ("", 0),
            ("<b>a</b>", 1),
            ("&amp;&lt;&gt;&quot;", 4),
            ("<a href=\"http://a.example/?b&amp;c=&gt;\">😀</a>", 2),
            ("<pre><code class=\"language-rust\">x &lt; y</code></pre>", 5),
        ] {
            assert_eq!(shown_length(html), length, "{html}");
        }
    }

    proptest! {
        #[test]
        fn what_is_plain_is_what_was_typed(text in r"[a-z \n<>&/@:.\u{1F600}]{0,40}|[ -~]{0,40}") {
            prop_assert_eq!(plain(&text).text.replace(BREAK, ""), text);
        }

        #[test]
        fn what_is_said_of_the_text_lies_within_it(text in r"(https?://|[a-z😀]{1,3}|@[a-z]{2}|[./ \n&<]){0,20}") {
            let mut message = message(&text);
            message.title = Some(text);
            message.priority = Priority::High;
            let written = written(&message, false);
            let units: Vec<u16> = written.text.encode_utf16().collect();
            for entity in &written.entities {
                let at = |name: &str| usize::try_from(entity[name].as_u64().unwrap()).unwrap();
                let (from, to) = (at("offset"), at("offset") + at("length"));
                let part = String::from_utf16(&units[from..to]).expect("whole characters");
                if let Some(url) = entity["url"].as_str() {
                    prop_assert_eq!(part.replace(BREAK, ""), url);
                } else {
                    prop_assert!(!part.contains('\n'));
                }
            }
        }

        #[test]
        fn the_length_is_that_of_what_is_shown(text in "[a-z0-9*_`~<>&\"#\\-\\[\\]() \n😀]{0,60}") {
            let rendering = Rendering { dialect: Dialect::TelegramHtml, allow_mentions: false };
            let html = rendering.render(&text);
            prop_assert_eq!(shown_length(&html), Unit::Utf16.count(&shown(&html)));
        }
    }
}
