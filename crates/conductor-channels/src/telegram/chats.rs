//! Where a message goes, and what is known of chats until the next start.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use conductor_core::{Scope, Timestamp};
use serde_json::Value;

use crate::identity::Kept;

/// The most moves of groups that are kept in mind.
const MOVED_MAX: usize = 1_000;
/// Telegram's numbers have at most 52 significant bits.
/// <https://core.telegram.org/bots/api#chat>
const NUMBER_MAX: u64 = 1 << 52;
/// The shortest and the longest name of a chat or channel, without the `@`.
const NAME_LENGTHS: std::ops::RangeInclusive<usize> = 4..=32;

/// A chat.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Chat {
    /// Negative for groups and channels.
    Number(i64),
    /// A public one's name, with the `@`.
    Name(String),
}

/// A chat, and the topic in it where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) chat: Chat,
    pub(super) topic: Option<i64>,
}

impl Place {
    /// `chat` or `chat:topic`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (chat, topic) = match text.split_once(':') {
            Some((chat, topic)) => (chat, Some(number(topic).filter(|topic| *topic > 0)?)),
            None => (text, None),
        };
        Some(Self { chat: Chat::parse(chat)?, topic })
    }
}

impl Chat {
    fn parse(text: &str) -> Option<Self> {
        let Some(name) = text.strip_prefix('@') else { return number(text).map(Self::Number) };
        let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
        let is_name = begins && NAME_LENGTHS.contains(&name.len()) && name.bytes().all(named);
        is_name.then(|| Self::Name(text.to_owned()))
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Number(number) => Value::from(*number),
            Self::Name(name) => Value::from(name.as_str()),
        }
    }
}

/// A number as Telegram writes one, and not zero.
fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let written = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: i64 = written.then(|| text.parse().ok()).flatten()?;
    (number != 0 && number.unsigned_abs() <= NUMBER_MAX).then_some(number)
}

/// The chat of a target that may name a topic of it: both count together.
pub(super) fn without_topic(target: &str) -> &str {
    target.split_once(':').map_or(target, |(chat, _)| chat)
}

/// Whether a target is a group or a channel, and not one person.
pub(super) fn is_shared(target: &str) -> bool {
    target.starts_with(['-', '@'])
}

/// What Telegram's answers have told of a bot's chats. It may be forgotten: Telegram tells it again.
#[derive(Default)]
pub(super) struct Chats(Mutex<Known>);

#[derive(Default)]
struct Known {
    moved: HashMap<Chat, i64>,
    /// The chat that was told last to wait, and until when.
    limited: Option<(Chat, Timestamp)>,
}

impl Kept for Chats {
    fn is_spent(&self) -> bool {
        true
    }
}

impl Chats {
    /// The chat under the number that it has now.
    pub(super) fn current(&self, chat: Chat) -> Chat {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.moved.get(&chat).map_or(chat, |to| Chat::Number(*to))
    }

    /// A group has become a supergroup with another number.
    pub(super) fn moved(&self, from: &Chat, to: i64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.moved.len() >= MOVED_MAX {
            known.moved.clear();
        }
        known.moved.insert(from.clone(), to);
    }

    /// How far a wait reaches. Telegram does not say whether a chat or the whole bot is too fast; but when a second
    /// chat has to wait while a first one does, it is the bot.
    pub(super) fn limited(&self, chat: &Chat, until: Timestamp, now: Timestamp, told: Scope) -> Scope {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let other = known.limited.as_ref().is_some_and(|(other, until)| other != chat && *until > now);
        known.limited = Some((chat.clone(), until));
        if other { Scope::Channel } else { told }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_chat_and_perhaps_a_topic() {
        let place = |chat, topic| Some(Place { chat, topic });
        assert_eq!(Place::parse("-1001234567890"), place(Chat::Number(-1_001_234_567_890), None));
        assert_eq!(Place::parse("42:7"), place(Chat::Number(42), Some(7)));
        assert_eq!(Place::parse("@al_ert5:7"), place(Chat::Name("@al_ert5".into()), Some(7)));
        for wrong in [
            "",
            "0",
            "-",
            "+5",
            " 5",
            "5 ",
            "1e3",
            "٤٢",
            "general",
            "@",
            "@abc",
            "@5abcd",
            "@with-dash",
            "5:",
            "5:0",
            "5:-1",
            "5:x",
            ":5",
            "5:6:7",
            "4503599627370497",
            "9223372036854775808",
            "@aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert_eq!(Place::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn two_chats_that_have_to_wait_at_once_stop_the_bot() {
        let (chats, at) = (Chats::default(), Timestamp::from_millis);
        let limited = |chat, until, now| chats.limited(&Chat::Number(chat), at(until), at(now), Scope::Lane);
        assert_eq!(limited(1, 5_000, 0), Scope::Lane);
        assert_eq!(limited(1, 6_000, 1_000), Scope::Lane);
        assert_eq!(limited(2, 6_000, 2_000), Scope::Channel);
        assert_eq!(limited(3, 9_000, 6_000), Scope::Lane, "the others may send again");
    }

    #[test]
    fn only_so_many_moves_are_kept() {
        let chats = Chats::default();
        for number in 1..=i64::try_from(MOVED_MAX).unwrap() + 1 {
            chats.moved(&Chat::Number(number), -number);
        }
        let last = i64::try_from(MOVED_MAX).unwrap() + 1;
        assert_eq!(chats.current(Chat::Number(last)), Chat::Number(-last));
        assert!(chats.0.lock().unwrap().moved.len() <= MOVED_MAX);
    }
}
