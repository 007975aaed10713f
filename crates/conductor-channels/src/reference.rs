//! What the table says of a plugin, in words: `conductor plugin show` and `docs/CHANNELS.md` have it from here.

use std::time::Duration;

use conductor_core::TextLimit;
use serde_json::Value;

use crate::{Plugin, Setting};

/// One of a plugin's own options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnOption {
    /// Its name in `options`.
    pub name: String,
    /// What it is where the channel does not say, as JSON; none where it is left out.
    pub default: Option<String>,
    /// What it is for.
    pub about: String,
}

impl Plugin {
    /// The options that are no settings, by name.
    pub fn own_options(&self) -> Vec<OwnOption> {
        let schema = self.schema();
        let properties = schema["properties"].as_object().into_iter().flatten();
        let is_setting = |name: &str| self.settings.iter().any(|setting| setting.camel_case() == name);
        let own = properties.filter(|(name, _)| !is_setting(name)).map(|(name, property)| OwnOption {
            name: name.clone(),
            default: property.get("default").filter(|default| !default.is_null()).map(Value::to_string),
            about: property["description"].as_str().unwrap_or_default().replace('\n', " "),
        });
        own.collect()
    }

    /// Whether and for what a setting is needed.
    pub fn need_of(&self, setting: &Setting) -> &'static str {
        let is_of_a_way = self.ways.iter().any(|way| way.contains(&setting.name));
        match (setting.required, is_of_a_way) {
            (_, true) => "for one of several ways",
            (true, false) => "required",
            (false, false) => "optional",
        }
    }

    /// What a channel of this plugin does and does not do by itself: what is asked, and the answer.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let longest = match self.limits.text {
            Some(TextLimit { max, unit }) => {
                format!("{} {}; a longer text goes out in parts", thousands(max), unit.as_str())
            }
            None => "no limit for which a text would be cut into parts".into(),
        };
        let pace = match self.rate {
            Some(rate) => {
                let burst = rate.burst.get();
                format!("{} in {}, of which {burst} may go at once", rate.limit, span(rate.per))
            }
            None => "no limit of its own".into(),
        };
        let shared = match self.allowances {
            None => "each channel counts for itself".into(),
            Some(allowances) => {
                let known = allowances.iter().map(|allowance| {
                    format!("{} in {} for {}, ", thousands(allowance.most), span(allowance.per), allowance.whose)
                });
                format!("{}and what the provider says of its limits", known.collect::<String>())
            }
        };
        let again = if self.dedupes {
            "the provider makes one message of both"
        } else {
            "the provider makes a message of each, so that after an unknown outcome `onUnknown` decides"
        };
        vec![
            ("the longest message", longest),
            ("attempts under way at once (`maxConcurrency`)", self.max_concurrency.to_string()),
            ("messages of one channel (`rate`)", pace),
            ("all channels with the same credentials together, of whatever tenant", shared),
            ("a request that is repeated", again.into()),
        ]
    }
}

/// A time as people say it.
fn span(time: Duration) -> String {
    match time.as_secs() {
        1 => "a second".into(),
        60 => "a minute".into(),
        seconds => format!("{seconds} seconds"),
    }
}

/// A number with a comma between its thousands.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut written = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            written.push(',');
        }
        written.push(digit);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PLUGINS;
    use crate::contract::plugin;

    #[test]
    fn numbers_and_times_are_written_as_people_do() {
        assert_eq!([0, 999, 1_000, 65_536, 1_234_567].map(thousands), ["0", "999", "1,000", "65,536", "1,234,567"]);
        assert_eq!(
            [1, 60, 270].map(|seconds| span(Duration::from_secs(seconds))),
            ["a second", "a minute", "270 seconds"]
        );
    }

    #[test]
    fn options_are_what_is_no_setting() {
        let options = plugin("telegram").own_options();
        let names: Vec<&str> = options.iter().map(|option| option.name.as_str()).collect();
        assert_eq!(names, ["linkPreview", "messageThreadId"]);
        assert_eq!((options[0].default.as_deref(), options[1].default.as_deref()), (Some("true"), None));
    }

    #[test]
    fn whoever_has_to_be_told_something_says_how_to_get_it() {
        for plugin in PLUGINS {
            assert_eq!(plugin.steps.is_empty(), plugin.settings.is_empty(), "{}", plugin.kind);
            assert!(plugin.steps.iter().all(|step| step.ends_with('.')), "{}", plugin.kind);
            for option in plugin.own_options() {
                assert!(!option.about.is_empty(), "{}: {}", plugin.kind, option.name);
            }
        }
    }

    #[test]
    fn the_facts_name_what_is_shared() {
        let facts = plugin("telegram").facts();
        let shared = "30 in a second for a bot, 5 in 5 seconds for a chat, 20 in a minute for a group, and what the \
                      provider says of its limits";
        assert_eq!(facts[3].1, shared);
        assert_eq!(plugin("log").facts()[3].1, "each channel counts for itself");
    }
}
