//! What channels have in common that put a short text on a screen.

use conductor_core::{Format, Message, Priority};
use unicode_segmentation::UnicodeSegmentation as _;

use crate::http::Response;
use crate::markdown::{Dialect, render};

/// The longest id of a provider's that is kept, in bytes.
const ID_MAX_BYTES: usize = 256;

/// The text for a screen that knows no markup.
pub(crate) fn body(message: &Message) -> String {
    match message.format {
        Format::Text => message.body.clone(),
        Format::Markdown => render(&message.body, Dialect::Plain),
    }
}

/// The title in one line. Of a text in parts the first one alone has it.
pub(crate) fn title(message: &Message) -> Option<String> {
    let title = message.title.as_deref().filter(|_| message.part == 0)?;
    let line = title.split_whitespace().collect::<Vec<_>>().join(" ");
    (!line.is_empty()).then_some(line)
}

/// How urgent this message is. Of a text in parts the first one alone raises an alarm.
pub(crate) const fn urgency(message: &Message) -> Priority {
    match message.priority {
        Priority::High if message.part > 0 => Priority::Normal,
        priority => priority,
    }
}

/// The text if it fits, else its longest beginning that does, with an ellipsis. A cut text keeps at most `most` bytes.
/// `fits` must hold for every beginning of a text for which it holds. None where not even one character fits.
pub(crate) fn shortened(text: &str, most: usize, fits: impl Fn(&str) -> bool) -> Option<String> {
    if fits(text) {
        return Some(text.to_owned());
    }
    let ends: Vec<usize> =
        text.grapheme_indices(true).map(|(at, _)| at).skip(1).take_while(|end| *end <= most).collect();
    let cut = |end: usize| format!("{}…", text[..end].trim_end());
    let fitting = ends.partition_point(|end| fits(&cut(*end)));
    Some(cut(*ends.get(fitting.checked_sub(1)?)?))
}

/// Whether a success is not the provider's but a page of something between: all of it is there, and it is no JSON.
pub(crate) fn is_foreign(response: &Response) -> bool {
    response.complete && !response.body.is_empty() && response.json().is_null()
}

/// What is said of an answer that [`is_foreign`]. It is no proof that there is a message.
pub(crate) const FOREIGN: &str =
    "the answer was a success but none of the provider's: is the address right, does a proxy stand between?";

/// An id that a provider gave a message, unless it looks like none. It is stored and shown.
pub(crate) fn provider_id(text: &str) -> Option<String> {
    let is_id = (1..=ID_MAX_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_id.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::message;
    use proptest::prelude::*;

    #[test]
    fn a_text_is_cut_between_graphemes_and_says_so() {
        let bytes = |max: usize| move |text: &str| text.len() <= max;
        assert_eq!(shortened("hello", 5, bytes(5)).as_deref(), Some("hello"));
        assert_eq!(shortened("hello world", 100, bytes(10)).as_deref(), Some("hello w…"));
        assert_eq!(shortened("hello world", 100, bytes(9)).as_deref(), Some("hello…"));
        assert_eq!(shortened("a👩‍👩‍👧b", 100, bytes(19)).as_deref(), Some("a…"));
        assert_eq!(shortened("hello", 100, bytes(3)), None);
        assert_eq!(shortened("hello", 2, |text| text.chars().count() < 5).as_deref(), Some("he…"));
    }

    #[test]
    fn only_the_first_part_has_the_title_and_the_alarm() {
        let mut message = message("text");
        (message.title, message.priority) = (Some(" A \n title ".into()), Priority::High);
        assert_eq!((title(&message).as_deref(), urgency(&message)), (Some("A title"), Priority::High));
        message.part = 1;
        assert_eq!((title(&message), urgency(&message)), (None, Priority::Normal));
        message.priority = Priority::Low;
        assert_eq!(urgency(&message), Priority::Low);
        (message.part, message.title) = (0, Some(" \n".into()));
        assert_eq!(title(&message), None);
    }

    #[test]
    fn markdown_becomes_plain_text() {
        let mut message = message("**bold** <b>");
        assert_eq!(body(&message), "**bold** <b>");
        message.format = Format::Markdown;
        assert!(!body(&message).contains("**"), "{}", body(&message));
    }

    proptest! {
        #[test]
        fn what_is_cut_fits(text: String, max in 4..40_usize) {
            if let Some(short) = shortened(&text, max, |text| text.len() <= max) {
                prop_assert!(short.len() <= max);
                prop_assert!(short == text || text.starts_with(short.trim_end_matches('…')));
            }
        }
    }
}
