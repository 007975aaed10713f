//! What a letter looks like.

use lettre::message::Mailbox;
use proptest::prelude::*;

use super::*;
use crate::contract::now;
use conductor_core::Timestamp;

fn letter_to(message: &Message, to: &[Mailbox]) -> String {
    let from = address::mailbox("Zoë, \"the\" boss <alerts@example.com>").unwrap();
    let letterhead = Letterhead { from, reply_to: Some(address::mailbox("help@example.com").unwrap()) };
    String::from_utf8(letterhead.write(message, to, now()).unwrap()).expect("a letter is ASCII")
}

fn letter(message: &Message) -> String {
    letter_to(message, &address::mailboxes("ops@example.com").unwrap())
}

/// The headers, unfolded.
fn headers(letter: &str) -> Vec<(String, String)> {
    let (head, _) = letter.split_once("\r\n\r\n").expect("a head and a body");
    let unfolded = head.replace("\r\n ", " ");
    let pair = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
    unfolded.split("\r\n").map(|line| pair(line).unwrap_or_else(|| panic!("{line:?} is no header"))).collect()
}

fn header(letter: &str, name: &str) -> Option<String> {
    headers(letter).into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

#[test]
fn a_letter_has_the_headers_that_mail_programs_want() {
    let sent = message("hello");
    let letter = letter(&sent);
    for (name, value) in [
        ("To", "ops@example.com"),
        ("Reply-To", "help@example.com"),
        ("Date", "Sun, 06 Nov 1994 08:49:37 +0000"),
        ("Message-ID", &*format!("<{}@example.com>", sent.part_id())),
        ("Subject", "hello"),
        ("Auto-Submitted", "auto-generated"),
        ("MIME-Version", "1.0"),
        ("Content-Type", "text/plain; charset=utf-8"),
    ] {
        assert_eq!(header(&letter, name).as_deref(), Some(value), "{letter}");
    }
    let from = header(&letter, "From").unwrap();
    assert!(from.starts_with("=?utf-8?b?") && from.ends_with("?= <alerts@example.com>"), "{from}");
    assert_eq!(header(&letter, "X-Priority"), None);
}

#[test]
fn urgency_is_told_in_the_headers_that_mail_programs_know() {
    for (priority, marks) in [
        (Priority::High, [Some("1 (Highest)"), Some("high"), Some("urgent")]),
        (Priority::Normal, [None; 3]),
        (Priority::Low, [Some("5 (Lowest)"), Some("low"), Some("non-urgent")]),
    ] {
        let letter = letter(&Message { priority, ..message("hello") });
        let found = ["X-Priority", "Importance", "Priority"].map(|name| header(&letter, name));
        assert_eq!(found.each_ref().map(Option::as_deref), marks, "{priority:?}");
    }
}

#[test]
fn the_subject_is_the_title_or_the_first_line() {
    let subject = |title: Option<&str>, body: &str| {
        let message = Message { title: title.map(str::to_owned), ..message(body) };
        header(&letter(&message), "Subject").unwrap()
    };
    assert_eq!(subject(Some("Pump"), "off"), "Pump");
    assert_eq!(subject(Some("a\r\nBcc: x@example.com\t b"), "off"), "a Bcc: x@example.com b");
    assert_eq!(subject(Some("\r\n "), "off"), "off");
    assert_eq!(subject(None, "\n  \nthe pump\u{7} is off\nsince noon"), "the pump is off");
    assert_eq!(subject(None, " \n"), "Notification");
    let long = subject(None, &"word ".repeat(100));
    assert!(long.len() < 200 && long.contains("=?utf-8?b?"), "{long}");
    let second = Message { title: Some("Pump".into()), part: 1, parts: 2, ..message("more") };
    assert_eq!(header(&letter(&second), "Subject").as_deref(), Some("more"));
}

#[test]
fn markdown_is_sent_in_two_forms() {
    let letter = letter(&Message { format: Format::Markdown, ..message("**off** <b>") });
    let kind = header(&letter, "Content-Type").unwrap();
    assert!(kind.starts_with("multipart/alternative;"), "{kind}");
    let plain = letter.find("Content-Type: text/plain; charset=utf-8").expect("a plain form");
    let html = letter.find("Content-Type: text/html; charset=utf-8").expect("an HTML form");
    assert!(plain < html, "the last form is the one that is shown");
    assert!(letter[html..].contains("<!DOCTYPE html>") && letter[html..].contains("&lt;b"), "{letter}");
    assert!(!letter[html..].contains("<b>"), "{letter}");
}

#[test]
fn many_recipients_with_names_are_named() {
    let list = (0..address::RECIPIENTS_MAX).map(|n| format!("\"Ü, {n} (x) <y>\" <a{n}@example.com>"));
    let to = address::mailboxes(&list.collect::<Vec<_>>().join(", ")).unwrap();
    let letter = letter_to(&message("hello"), &to);
    let named = header(&letter, "To").unwrap();
    assert_eq!(named.matches("@example.com>").count(), address::RECIPIENTS_MAX, "{named}");
    assert!(letter.lines().all(|line| line.len() <= 998));
}

#[test]
fn a_late_time_is_no_trouble() {
    let letterhead = Letterhead { from: address::mailbox("a@example.com").unwrap(), reply_to: None };
    for time in [Timestamp::ZERO, Timestamp::MAX] {
        assert!(letterhead.write(&message("x"), &address::mailboxes("b@example.com").unwrap(), time).is_ok());
    }
}

proptest! {
    #[test]
    fn no_text_changes_the_headers_or_the_form_of_the_lines(
        title in "[ -~\r\n\t\u{0}\u{85}\u{2028}äß😀]{0,200}",
        body in "[ -~\r\n\t\u{0}\u{85}äß😀.]{0,300}",
        markdown: bool,
    ) {
        let format = if markdown { Format::Markdown } else { Format::Text };
        let letter = letter(&Message { title: Some(title), format, ..message(&body) });
        prop_assert!(letter.is_ascii());
        prop_assert!(!letter.replace("\r\n", "").contains(['\r', '\n', '\0']), "{letter:?}");
        prop_assert!(letter.split("\r\n").all(|line| line.len() <= 998));
        let names: Vec<_> = headers(&letter).into_iter().map(|(name, _)| name).collect();
        let known = ["From", "To", "Date", "Message-ID", "Subject", "Auto-Submitted", "Reply-To", "MIME-Version",
            "Content-Type", "Content-Transfer-Encoding"];
        prop_assert!(names.iter().all(|name| known.contains(&&**name)), "{:?}", names);
        prop_assert_eq!(names.iter().filter(|name| *name == "Subject").count(), 1);
    }
}
