//! From a message to what stands in the mailbox.
//!
//! <https://www.rfc-editor.org/rfc/rfc5322>, MIME: <https://www.rfc-editor.org/rfc/rfc2045>

use std::time::SystemTime;

use conductor_core::{Format, Message, Priority, Timestamp};
use lettre::address::Envelope;
use lettre::message::header::{ContentTransferEncoding, ContentType, From, HeaderName, HeaderValue, ReplyTo, To};
use lettre::message::{Body, Mailbox, Mailboxes, MultiPart, SinglePart};

use super::markup;

/// The longest subject that is made from a text without a title, in characters.
const SUBJECT_MAX: usize = 120;

/// What all letters of a channel have in common.
pub(super) struct Letterhead {
    pub(super) from: Mailbox,
    pub(super) reply_to: Option<Mailbox>,
}

impl Letterhead {
    /// The same in every attempt, so that mailboxes that look for doubles find them.
    pub(super) fn message_id(&self, message: &Message) -> String {
        format!("{}@{}", message.part_id(), self.from.email.domain())
    }

    /// The whole letter in ASCII, with CRLF at the end of every line.
    pub(super) fn write(
        &self,
        message: &Message,
        to: &[Mailbox],
        now: Timestamp,
    ) -> Result<Vec<u8>, lettre::error::Error> {
        let recipients = to.iter().map(|mailbox| mailbox.email.clone()).collect();
        let mut builder = lettre::Message::builder()
            .envelope(Envelope::new(Some(self.from.email.clone()), recipients)?)
            .header(From::from(Mailboxes::from(self.from.clone())))
            .header(To::from(to.iter().cloned().collect::<Mailboxes>()))
            .date(SystemTime::UNIX_EPOCH + now.since(Timestamp::ZERO))
            .message_id(Some(format!("<{}>", self.message_id(message))))
            .subject(subject(message))
            // Asks holiday repliers and the like for silence. <https://www.rfc-editor.org/rfc/rfc3834#section-5>
            .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".into()));
        if let Some(reply_to) = &self.reply_to {
            builder = builder.header(ReplyTo::from(Mailboxes::from(reply_to.clone())));
        }
        for (name, value) in urgency(message.priority) {
            builder = builder.raw_header(HeaderValue::new(HeaderName::new_from_ascii_str(name), (*value).into()));
        }
        let letter = match message.format {
            Format::Text => builder.singlepart(part(ContentType::TEXT_PLAIN, &message.body)),
            Format::Markdown => builder.multipart(
                MultiPart::alternative()
                    .singlepart(part(ContentType::TEXT_PLAIN, &markup::plain(&message.body)))
                    .singlepart(part(ContentType::TEXT_HTML, &markup::page(&message.body))),
            ),
        };
        Ok(letter?.formatted())
    }
}

/// What mail programs know for how urgent a letter is; none for a usual one.
const fn urgency(priority: Priority) -> &'static [(&'static str, &'static str)] {
    match priority {
        Priority::High => &[("X-Priority", "1 (Highest)"), ("Importance", "high"), ("Priority", "urgent")],
        Priority::Normal => &[],
        Priority::Low => &[("X-Priority", "5 (Lowest)"), ("Importance", "low"), ("Priority", "non-urgent")],
    }
}

/// The title, else the text's first line; always one line.
fn subject(message: &Message) -> String {
    let title = message.title.as_deref().filter(|_| message.part == 0).map(line).filter(|title| !title.is_empty());
    title.unwrap_or_else(|| {
        let plain;
        let text = match message.format {
            Format::Text => &message.body,
            Format::Markdown => {
                plain = markup::plain(&message.body);
                &plain
            }
        };
        let first = text.lines().map(line).find(|line| !line.is_empty());
        first.map_or_else(|| "Notification".to_owned(), |first| shortened(&first))
    })
}

/// One line: what breaks lines or cannot be seen becomes a space.
fn line(text: &str) -> String {
    let visible = text.split(|letter: char| letter.is_whitespace() || letter.is_control());
    visible.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(SUBJECT_MAX) {
        Some((cut, _)) => format!("{}…", line[..cut].trim_end()),
        None => line.to_owned(),
    }
}

fn part(kind: ContentType, text: &str) -> SinglePart {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let odd = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t');
    let body = if text.contains(odd) {
        let encoded = Body::new_with_encoding(text, ContentTransferEncoding::QuotedPrintable);
        encoded.unwrap_or_else(Body::new)
    } else {
        Body::new(text)
    };
    SinglePart::builder().header(kind).body(body)
}
