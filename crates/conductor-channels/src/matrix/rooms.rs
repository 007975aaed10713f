//! Names of rooms.
//!
//! <https://spec.matrix.org/latest/appendices/#identifier-grammar>

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use conductor_core::Timestamp;

/// The longest name, in bytes.
const NAME_MAX: usize = 255;
/// The most aliases that are kept.
const ALIASES_MAX: usize = 1_000;
/// How long it is taken for granted that an alias leads where it led.
const KEPT_FOR: Duration = Duration::from_secs(60 * 60);

/// A room, as a setting or a target names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Room {
    /// `!opaque:server`, in newer rooms without a server.
    Id(String),
    /// `#name:server`
    Alias(String),
}

impl Room {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let rest = text.get(1..).filter(|rest| !rest.is_empty() && is_name(text) && !rest.starts_with(':'))?;
        match text.as_bytes()[0] {
            b'!' => Some(Self::Id(text.to_owned())),
            b'#' if rest.split_once(':').is_some_and(|(_, server)| !server.is_empty()) => {
                Some(Self::Alias(text.to_owned()))
            }
            _ => None,
        }
    }
}

/// Whether this is an event's id.
pub(super) fn is_event(text: &str) -> bool {
    text.starts_with('$') && is_name(text)
}

fn is_name(text: &str) -> bool {
    text.len() <= NAME_MAX && !text.chars().any(|letter| letter.is_whitespace() || letter.is_control())
}

/// Where aliases led when they were looked up.
#[derive(Default)]
pub(super) struct Aliases(Mutex<HashMap<String, (String, Timestamp)>>);

impl Aliases {
    pub(super) fn known(&self, alias: &str, now: Timestamp) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, at) = known.get(alias)?;
        (now.since(*at) < KEPT_FOR).then(|| id.clone())
    }

    pub(super) fn keep(&self, alias: &str, id: &str, now: Timestamp) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= ALIASES_MAX {
            known.clear();
        }
        known.insert(alias.to_owned(), (id.to_owned(), now));
    }

    pub(super) fn forget(&self, alias: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(alias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_has_an_id_or_an_alias() {
        for id in ["!abc:example.org", "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM", "!a/../b:x"] {
            assert_eq!(Room::parse(id), Some(Room::Id(id.into())), "{id}");
        }
        for alias in ["#alerts:example.org:8448", "#ä/b?c#d:x"] {
            assert_eq!(Room::parse(alias), Some(Room::Alias(alias.into())), "{alias}");
        }
        let long = format!("!{}:x", "a".repeat(NAME_MAX));
        for wrong in
            ["", "!", "#", "#alerts", "#alerts:", "#:x", "!:x", "@bob:x", "alerts", "! a:x", "!a\n:x", "é!:x", &long]
        {
            assert_eq!(Room::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_alias_is_kept_for_an_hour_and_only_so_many_are() {
        let (aliases, hour) = (Aliases::default(), 3_600_000);
        aliases.keep("#a:x", "!a:x", Timestamp::ZERO);
        assert_eq!(aliases.known("#a:x", Timestamp::from_millis(hour - 1)).as_deref(), Some("!a:x"));
        assert_eq!(aliases.known("#a:x", Timestamp::from_millis(hour)), None);
        aliases.forget("#a:x");
        assert_eq!(aliases.known("#a:x", Timestamp::ZERO), None);
        for number in 0..=ALIASES_MAX {
            aliases.keep(&format!("#{number}:x"), "!a:x", Timestamp::ZERO);
        }
        assert!(aliases.0.lock().unwrap().len() <= ALIASES_MAX);
        assert!(aliases.known(&format!("#{ALIASES_MAX}:x"), Timestamp::ZERO).is_some());
    }
}
