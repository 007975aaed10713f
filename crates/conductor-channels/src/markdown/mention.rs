//! What each provider takes for a mention.

use super::{Dialect, Rendering};

/// The names that reach everybody, at one provider or another.
const EVERYBODY: &[&str] = &["everyone", "here", "channel", "all", "room"];

/// The longest mention in angle brackets, in bytes.
const BRACKETED_MAX: usize = 120;

/// What stands behind an `@`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behind<'a> {
    pub(super) text: &'a str,
    pub(super) in_code: bool,
    /// Whether more may follow that the provider reads in one with it, and that is not known here.
    pub(super) goes_on: bool,
}

/// Whether an `@` is one that has to be disarmed in a text: `before` is what stands before it. In code only names that
/// reach everybody count.
pub(super) fn fires(rendering: Rendering, before: Option<char>, behind: Behind<'_>) -> bool {
    if rendering.allow_mentions {
        return false;
    }
    let person = |more: &[u8], at_end: bool| {
        let letter = match behind.text.bytes().next() {
            Some(byte) => byte.is_ascii_alphanumeric() || more.contains(&byte),
            None => at_end && behind.goes_on,
        };
        letter && !behind.in_code && !before.is_some_and(|letter| letter.is_ascii_alphanumeric())
    };
    match rendering.dialect {
        Dialect::TelegramHtml => person(b"_", true),
        Dialect::Mattermost => person(b"._-", false) || behind.reaches_everybody(),
        Dialect::Discord | Dialect::SlackMrkdwn | Dialect::MatrixHtml => behind.reaches_everybody(),
        Dialect::Plain
        | Dialect::PushoverHtml
        | Dialect::EmailHtml
        | Dialect::WhatsApp
        | Dialect::GoogleChat
        | Dialect::TeamsCard => false,
    }
}

/// Whether an `@` has to be encoded in a link's target, since the provider looks for mentions there too.
pub(super) fn fires_in_address(rendering: Rendering, before: &str, after: &str) -> bool {
    match rendering.dialect {
        Dialect::Mattermost | Dialect::Discord | Dialect::SlackMrkdwn => {
            let behind = Behind { text: after, in_code: false, goes_on: true };
            fires(rendering, before.chars().next_back(), behind)
        }
        _ => false,
    }
}

/// Whether a `<` in code begins a mention, which the provider reads there too: `after` is what stands behind it.
pub(super) fn opens_in_code(rendering: Rendering, after: &str) -> bool {
    rendering.dialect == Dialect::GoogleChat && !rendering.allow_mentions && starts(after, "users/")
}

impl Behind<'_> {
    /// Whether one of the names stands here, or the beginning of one that what follows may complete.
    fn reaches_everybody(self) -> bool {
        EVERYBODY.iter().any(|name| starts(self.text, name) || (self.goes_on && starts(name, self.text)))
    }
}

/// Without regard to case.
fn starts(text: &str, word: &str) -> bool {
    text.as_bytes().get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
}

/// The length of a mention in angle brackets at the beginning of `text`.
pub(super) fn bracketed(dialect: Dialect, text: &str) -> Option<usize> {
    let (signs, more): (&[&str], &[u8]) = match dialect {
        Dialect::Discord => (&["<@&", "<@!", "<@", "<#"], b""),
        Dialect::SlackMrkdwn => (&["<!", "<@", "<#"], b"^|._- "),
        Dialect::GoogleChat => (&["<users/"], b"@._-"),
        _ => return None,
    };
    let sign = signs.iter().find(|sign| text.starts_with(**sign))?;
    let named = |byte: &u8| match dialect {
        Dialect::Discord => byte.is_ascii_digit(),
        _ => byte.is_ascii_alphanumeric() || more.contains(byte),
    };
    let length = text.bytes().skip(sign.len()).take(BRACKETED_MAX).take_while(named).count();
    let end = sign.len() + length;
    (length > 0 && text[end..].starts_with('>')).then_some(end + 1)
}
