//! How a notification reads in Slack.
//!
//! <https://docs.slack.dev/messaging/formatting-message-text>

use conductor_core::{Format, Message};

use crate::head;
use crate::markdown::{Dialect, Rendering, escape, escape_without_marks};

/// Whether Slack is to read marks in the text of this message. Slack has no escape for them: text that is to arrive as
/// it was typed goes out with all of them switched off, its title too.
pub(super) fn has_marks(message: &Message) -> bool {
    message.format == Format::Markdown
}

/// The whole text of a message: priority, title, body. Of a text in parts the first one alone has priority and title.
pub(super) fn written(message: &Message, allow_mentions: bool) -> String {
    if has_marks(message) {
        let mut text = head::lines(message, ("*", "*"), |title| escape(title, Dialect::SlackMrkdwn));
        text.push_str(&Rendering { dialect: Dialect::SlackMrkdwn, allow_mentions }.render(&message.body));
        return text;
    }
    let mut text = head::lines(message, ("", ""), |title| escape_without_marks(title, false));
    text.push_str(&escape_without_marks(&message.body, allow_mentions));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::markdown::BREAK;
    use proptest::prelude::*;

    /// What Slack shows of a text without marks: the three entities are read, and the break has no width.
    fn shown(text: &str) -> String {
        text.replace(BREAK, "").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    }

    #[test]
    fn marks_stay_as_they_are_and_only_what_slack_reads_is_escaped() {
        let text = "*a* _b_ ~c~ `d` > e & f <https://example.com|g>";
        assert_eq!(escape_without_marks(text, false), "*a* _b_ ~c~ `d` &gt; e &amp; f &lt;https://example.com|g&gt;");
        assert_eq!(escape_without_marks("at 12:30:45 :tada: a:b", false), "at 12:30:45 :\u{200B}tada: a:b");
    }

    #[test]
    fn mentions_are_only_what_they_may_be() {
        let text = "<!channel> <@U024BE7LH> <#C024BE7LR> @here";
        let quiet = escape_without_marks(text, false);
        assert_eq!(quiet, "&lt;!channel&gt; &lt;@U024BE7LH&gt; &lt;#C024BE7LR&gt; @\u{200B}here");
        assert_eq!(escape_without_marks(text, true), text);
        assert_eq!(escape_without_marks("<https://evil.example|x>", true), "&lt;https://evil.example|x&gt;");
    }

    #[test]
    fn addresses_stay_whole() {
        assert_eq!(
            escape_without_marks("see https://a.example/?b=1&c=:d:", false),
            "see https://a.example/?b=1&amp;c=:d:"
        );
    }

    proptest! {
        #[test]
        fn what_is_shown_is_what_was_typed(text in r"[a-z0-9 \n*_~`|<>&;:@!#.-]{0,60}") {
            let escaped = escape_without_marks(&text, false);
            prop_assert!(!escaped.contains('<') && !escaped.contains('>'));
            prop_assert_eq!(shown(&escaped), text);
        }

        #[test]
        fn any_text_can_be_escaped(text: String) {
            let escaped = escape_without_marks(&text, true);
            prop_assert!(shown(&escaped).len() <= text.len().max(escaped.len()));
        }
    }
}
