//! What must hold for any input, as functions that panic where it does not. The fuzz targets call them with what the
//! fuzzer makes up, the tests with what it has found (`fuzz/corpus`).

mod signatures;

use conductor_core::Format;
use conductor_core::channel::Unit;

use crate::markdown::properties;
use crate::text::{self, PARTS_MAX};

pub use signatures::signatures;

/// What parts an input that is several texts.
const SEPARATOR: u8 = 0x1f;

/// The smallest limit that parts are tried with: the most bytes of one character.
const SMALLEST_LIMIT: usize = 4;

/// Text and markdown in every dialect.
pub fn markdown(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    properties::output_is_bounded(&text);
    properties::no_mention_survives(&text);
    properties::html_is_sound(&text);
    properties::typed_text_is_shown(&text);
    properties::no_bare_mark_opens(&text);
}

/// A text that is cut into parts. The first byte is the limit, the second says what it counts and whether the rest is
/// markdown.
pub fn split(data: &[u8]) {
    let [limit, options, body @ ..] = data else { return };
    let limit = SMALLEST_LIMIT + usize::from(*limit);
    let unit = [Unit::Characters, Unit::Utf16, Unit::Bytes][usize::from(options >> 1) % 3];
    let format = if options & 1 == 0 { Format::Text } else { Format::Markdown };
    let body = String::from_utf8_lossy(body);
    let parts = text::split(&body, format, |part, _| unit.count(part) <= limit);
    let told = || format!("{parts:?} of {body:?}, {limit} {}, {format}", unit.as_str());

    assert!((1..=PARTS_MAX).contains(&parts.len()), "{}", told());
    // What is left when there are as many as there may be stays in the last one.
    let bounded = if parts.len() == PARTS_MAX { PARTS_MAX - 1 } else { parts.len() };
    assert!(parts[..bounded].iter().all(|part| unit.count(part) <= limit), "too long: {}", told());
    let is_blank = body.trim().is_empty();
    assert!(is_blank || parts.iter().all(|part| !part.trim().is_empty()), "an empty part: {}", told());
    let joined = parts.concat();
    match format {
        Format::Text => assert_eq!(letters(&joined, ""), letters(&body, ""), "lost or doubled: {}", told()),
        // A fence that is closed and opened again brings marks and the name of its language.
        Format::Markdown => {
            let joined = letters(&joined, "`~");
            let mut left = joined.chars();
            let is_kept = letters(&body, "`~").chars().all(|letter| left.any(|other| other == letter));
            assert!(is_kept, "lost: {}", told());
        }
    }
}

/// The text without white space and without some marks.
fn letters(text: &str, marks: &str) -> String {
    text.chars().filter(|letter| !letter.is_whitespace() && !marks.contains(*letter)).collect()
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn what_the_fuzzer_found_for_markdown_holds() {
        replay("markdown", super::markdown);
    }

    #[test]
    fn what_the_fuzzer_found_for_parts_holds() {
        replay("split", super::split);
    }

    #[test]
    fn what_the_fuzzer_found_for_signatures_holds() {
        replay("signatures", super::signatures);
    }
}
