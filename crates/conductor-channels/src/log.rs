//! Writes notifications to the server's log: for a first look, and where the log is what people watch.

use std::fmt::Write as _;

use async_trait::async_trait;
use conductor_core::{Channel, Health, Limits, Message, Priority, Problems, Receipt, SendError};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{ChannelContext, ChannelPlugin, InitError, Setting};

/// The `log` plugin. It is the one place where a notification's text reaches the log: showing it is its purpose.
pub struct Log {
    tenant: String,
    channel: String,
}

/// What a `log` channel can be told: nothing beyond the options that every channel takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {}

impl ChannelPlugin for Log {
    const KIND: &'static str = "log";
    const ABOUT: &'static str = "Writes notifications to the server's log";
    const SETTINGS: &'static [Setting] = &[];
    const LIMITS: Limits = Limits::NONE;
    type Config = Config;

    fn validate(_: &Config, _: &mut Problems) {}

    async fn initialize(_: Config, context: ChannelContext) -> Result<Self, InitError> {
        Ok(Self { tenant: context.tenant_name, channel: context.channel_name })
    }
}

#[async_trait]
impl Channel for Log {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let text = line(message);
        let Self { tenant, channel } = self;
        let (priority, delivery) = (message.priority.as_str(), message.delivery);
        if message.priority == Priority::High {
            tracing::warn!(
                target: "conductor::plugin::log",
                { tenant.name = %tenant, channel.name = %channel, priority, delivery.id = %delivery },
                "HIGH PRIORITY: {text}"
            );
        } else {
            tracing::info!(
                target: "conductor::plugin::log",
                { tenant.name = %tenant, channel.name = %channel, priority, delivery.id = %delivery },
                "{text}"
            );
        }
        Ok(Receipt::default())
    }

    async fn health_check(&self) -> Health {
        Health::Up
    }
}

fn line(message: &Message) -> String {
    let mut line = String::with_capacity(message.body.len() + 64);
    if let Some(title) = &message.title {
        escape(title, &mut line);
        line.push_str(": ");
    }
    escape(&message.body, &mut line);
    if let Some(target) = &message.target {
        line.push_str(" (for ");
        escape(target, &mut line);
        line.push(')');
    }
    line
}

/// Nothing that a caller sends may begin a log line of its own, move the cursor or turn the text's direction.
fn escape(text: &str, into: &mut String) {
    for letter in text.chars() {
        match letter {
            '\n' => into.push_str("\\n"),
            '\r' => into.push_str("\\r"),
            '\t' => into.push_str("\\t"),
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escape_code(letter, into),
            letter if letter.is_control() => escape_code(letter, into),
            letter => into.push(letter),
        }
    }
}

fn escape_code(letter: char, into: &mut String) {
    write!(into, "{}", letter.escape_unicode()).expect("a String takes all that is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{captured, context, faults, message, plugin};
    use crate::http::HttpClients;

    async fn logged(message: &Message) -> String {
        let (logs, _guard) = captured();
        let channel = Log::initialize(Config {}, context(&HttpClients::new(), None)).await.unwrap();
        assert_eq!(channel.send(message).await, Ok(Receipt::default()));
        logs.text()
    }

    #[tokio::test]
    async fn the_text_and_where_it_came_from_are_written() {
        let mut message = message("the pump is off");
        message.title = Some("Cellar".into());
        let logs = logged(&message).await;
        for part in [" INFO ", "conductor::plugin::log", "Cellar: the pump is off", "Acme", "alerts", "normal"] {
            assert!(logs.contains(part), "{part}: {logs}");
        }
    }

    #[test]
    fn there_is_nothing_to_set() {
        assert_eq!(plugin("log").schema()["additionalProperties"], false);
        assert!(faults(plugin("log"), serde_json::json!({})).is_empty());
        assert_eq!(faults(plugin("log"), serde_json::json!({ "colour": "red" })).len(), 1);
    }

    #[tokio::test]
    async fn high_priority_is_a_marked_warning() {
        let mut message = message("fire");
        message.priority = Priority::High;
        let logs = logged(&message).await;
        assert!(logs.contains(" WARN "), "{logs}");
        assert!(logs.contains("HIGH PRIORITY: fire"), "{logs}");
    }

    #[tokio::test]
    async fn a_text_cannot_forge_a_line_or_reach_the_terminal() {
        let logs = logged(&message("a\nb\r\u{1b}[31mred\u{202e}\u{9b}")).await;
        assert_eq!(logs.trim_end().lines().count(), 1, "{logs}");
        assert!(logs.contains(r"a\nb\r\u{1b}[31mred\u{202e}\u{9b}"), "{logs}");
    }
}
