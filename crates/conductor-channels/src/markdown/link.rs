//! Addresses: bare ones in a text, and which targets may become links.

use std::fmt::Write;

use super::{Rendering, mention};

/// What targets a link may have.
const SCHEMES: &[&str] = &["https:", "http:", "mailto:", "tel:"];

/// A piece of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    /// An address that is to be a link.
    Address(&'a str),
}

/// The pieces of a text, in order and without gaps.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    let mut found: Option<(usize, usize)> = None;
    std::iter::from_fn(move || {
        let (start, length) = found.take().or_else(|| first(rest)).unwrap_or((rest.len(), 0));
        if start > 0 {
            let piece = &rest[..start];
            rest = &rest[start..];
            found = (length > 0).then_some((0, length));
            return Some(Piece::Text(piece));
        }
        let piece = &rest[..length];
        rest = &rest[length..];
        (length > 0).then_some(Piece::Address(piece))
    })
}

/// Where the first address in a text begins, and its length.
fn first(text: &str) -> Option<(usize, usize)> {
    text.match_indices("http").find_map(|(at, _)| {
        let inside_word = text[..at].chars().next_back().is_some_and(char::is_alphanumeric);
        if inside_word { None } else { bare(&text[at..]).map(|length| (at, length)) }
    })
}

/// The length of an address at the beginning of `text`. Punctuation at its end belongs to the sentence.
pub(super) fn bare(text: &str) -> Option<usize> {
    let scheme = ["https://", "http://"].into_iter().find(|scheme| text.starts_with(scheme))?;
    let ends = |letter: char| letter.is_whitespace() || letter.is_control() || matches!(letter, '<' | '"' | '`' | '\\');
    let mut link = &text[..text.find(ends).unwrap_or(text.len())];
    let mut unopened = link.matches(')').count().saturating_sub(link.matches('(').count());
    while let Some(last) = link.chars().next_back() {
        match last {
            '.' | ',' | ':' | ';' | '\'' | ']' | '*' | '_' | '~' => {}
            ')' if unopened > 0 => unopened -= 1,
            _ => break,
        }
        link = &link[..link.len() - last.len_utf8()];
    }
    (link.len() > scheme.len()).then_some(link.len())
}

/// The target of a link as it can stand in any dialect's link, or nothing where it must not become one.
pub(super) fn target(target: &str, rendering: Rendering) -> Option<String> {
    let target = target.trim();
    let bytes = target.as_bytes();
    let scheme = SCHEMES
        .iter()
        .find(|scheme| bytes.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes())))?;
    let mut out = String::with_capacity(target.len());
    for (at, letter) in target.char_indices() {
        let live = letter == '@' && mention::fires_in_address(rendering, &target[..at], &target[at + 1..]);
        if live || must_be_encoded(letter) {
            let mut bytes = [0; 4];
            for byte in letter.encode_utf8(&mut bytes).bytes() {
                write!(out, "%{byte:02X}").expect("a String takes any text");
            }
        } else {
            out.push(letter);
        }
    }
    (out.len() > scheme.len()).then_some(out)
}

/// Writes a target so that it can stand between round brackets.
pub(super) fn push_in_brackets(out: &mut String, target: &str) {
    for letter in target.chars() {
        match letter {
            '(' => out.push_str("%28"),
            ')' => out.push_str("%29"),
            _ => out.push(letter),
        }
    }
}

/// What would end a link early, or would show another address than the one it leads to.
fn must_be_encoded(letter: char) -> bool {
    letter.is_whitespace()
        || letter.is_control()
        || matches!(letter, '<' | '>' | '"' | '`' | '|' | '\\' | '[' | ']' | '{' | '}' | '^')
        || matches!(letter, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}
