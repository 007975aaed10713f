//! How a notification reads in Discord.
//!
//! <https://discord.com/developers/docs/reference#message-formatting>

use conductor_core::{Format, Message, Priority};

use crate::markdown::{Dialect, Rendering};

/// What goes before a message of high priority.
const HIGH: &str = "⚠️ **HIGH PRIORITY**";

/// The whole text of a message: priority, title, body. Of a text in parts the first one alone has priority and title.
pub(super) fn content(message: &Message, allow_mentions: bool) -> String {
    let mut content = String::with_capacity(message.body.len() + 64);
    let is_first = message.part == 0;
    if is_first && message.priority == Priority::High {
        content.push_str(HIGH);
        content.push('\n');
    }
    let title = message.title.as_deref().map(one_line).filter(|title| is_first && !title.is_empty());
    if let Some(title) = title {
        content.push_str("**");
        content.push_str(&as_typed(&title, false));
        content.push_str("**\n");
    }
    match message.format {
        Format::Text => content.push_str(&as_typed(&message.body, allow_mentions)),
        Format::Markdown => content.push_str(&message.body),
    }
    content
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text as Discord shows it as it was typed. Addresses stay untouched; so do mentions where they are to fire.
fn as_typed(text: &str, allow_mentions: bool) -> String {
    Rendering { dialect: Dialect::Discord, allow_mentions }.escape(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::markdown::properties::shown_of_discord;
    use proptest::prelude::*;

    fn escaped(text: &str) -> String {
        as_typed(text, false)
    }

    #[test]
    fn markup_arrives_as_typed() {
        assert_eq!(escaped("a*b*_c_~~d~~`e`||f||\\"), r"a\*b\*\_c\_\~\~d\~\~\`e\`\|\|f\|\|\\");
        assert_eq!(escaped("<@123> <#4> <t:5:R> <:a:6>"), r"\<@123> \<#4> \<t:5:R> \<:a:6>");
        assert_eq!(escaped("[text](https://example.com)"), r"\[text](https://example.com)");
    }

    #[test]
    fn marks_at_a_lines_start_are_escaped_only_there() {
        assert_eq!(escaped("# a # b\n> c > d\n  - e - f\n-# g"), "\\# a # b\n\\> c > d\n  \\- e - f\n\\-# g");
        assert_eq!(escaped("1. one\n12. two 3. three\n1.5 bar"), "1\\. one\n12\\. two 3. three\n1.5 bar");
    }

    #[test]
    fn addresses_stay_whole() {
        assert_eq!(escaped("see https://a.example/b_c*d?e=f_g."), "see https://a.example/b_c*d?e=f_g.");
        assert_eq!(escaped("(http://a.example/x_y)_z"), r"(http://a.example/x_y)_z");
        assert_eq!(escaped("http:// a_b"), r"http:// a\_b");
    }

    #[test]
    fn mentions_stay_only_where_they_may_fire() {
        assert_eq!(as_typed("<@1> <@!2> <@&3> <#4> <@x> <t:5>", true), r"<@1> <@!2> <@&3> <#4> \<@x> \<t:5>");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_what_was_typed(text in r"[a-z0-9 \n*_~`|<>#\[\]().+@-]{0,60}") {
            prop_assert_eq!(shown_of_discord(&escaped(&text)), text);
        }

        #[test]
        fn any_text_can_be_escaped(text: String) {
            prop_assert!(escaped(&text).len() >= text.len());
        }
    }
}
