//! The lines before a message's text: the mark of high priority, and the title.

use conductor_core::{Message, Priority};

/// What goes before a message of high priority, in two pieces: the second one is bold where that can be.
pub(crate) const HIGH: (&str, &str) = ("⚠️ ", "HIGH PRIORITY");

/// Whether the message begins with the mark of high priority. Of a text in parts only the first one does.
pub(crate) fn is_marked(message: &Message) -> bool {
    message.part == 0 && message.priority == Priority::High
}

/// The title in one line, if the message begins with one. Of a text in parts only the first one does.
pub(crate) fn title(message: &Message) -> Option<String> {
    let title = message.title.as_deref().filter(|_| message.part == 0)?;
    let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(title).filter(|title| !title.is_empty())
}

/// Both, each as a line of its own between the marks of bold text, the title through `escape`.
pub(crate) fn lines(message: &Message, bold: (&str, &str), escape: impl Fn(&str) -> String) -> String {
    let mut lines = String::with_capacity(message.body.len() + 64);
    if is_marked(message) {
        lines.extend([HIGH.0, bold.0, HIGH.1, bold.1, "\n"]);
    }
    if let Some(title) = title(message) {
        lines.extend([bold.0, &escape(&title), bold.1, "\n"]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::message;

    #[test]
    fn mark_and_title_are_lines_of_the_first_part() {
        let mut message = message("text");
        assert_eq!(lines(&message, ("*", "*"), str::to_owned), "");
        message.priority = Priority::High;
        message.title = Some("  Pump \n off ".into());
        assert_eq!(lines(&message, ("*", "*"), str::to_uppercase), "⚠️ *HIGH PRIORITY*\n*PUMP OFF*\n");
        message.part = 1;
        assert_eq!(lines(&message, ("*", "*"), str::to_owned), "");
        (message.part, message.title) = (0, Some(" \n".into()));
        assert_eq!(lines(&message, ("", ""), str::to_owned), "⚠️ HIGH PRIORITY\n");
    }
}
