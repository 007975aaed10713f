//! What of a notification goes out: one message, or the parts of a text that is too long for one.
//!
//! Every attempt of a delivery gets the same parts, whatever has happened in between, so that one can go on where another
//! came to. So a part has room for the note on the delay whether it is late or not, and for its markup's escapes
//! whether it goes out with it or as plain text. Only another configuration moves the cuts, which their hash tells.

use std::time::Duration;

use conductor_channels::text::{closed, split};
use conductor_core::store::Lease;
use conductor_core::{DeliveryId, Format, Message, TextLimit, Timestamp};
use uuid::Uuid;

use crate::registry::LiveChannel;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// A longer delay is told as this one.
const DELAY_MAX: Duration = Duration::from_secs(1_000 * DAY - 1);
/// So much room a note on the delay takes, at the most.
const LONGEST_NOTE: &str = "\ndelayed by 999 d 23 h";
/// The most digits that the number of parts has.
const DIGITS_MAX: usize = 4;

/// Whether the text goes out with markup that can be left off.
pub(super) fn is_rich(channel: &LiveChannel, lease: &Lease) -> bool {
    channel.limits.rich && lease.notification.format == Format::Markdown && !lease.progress.plain
}

/// What goes out.
pub(super) struct Content {
    /// The messages in their order; at least one.
    pub(super) messages: Vec<Message>,
    /// For each message, a hash of the text of all up to it.
    pub(super) cuts: Vec<u64>,
}

/// The content of a delivery.
pub(super) fn content(channel: &LiveChannel, lease: &Lease, now: Timestamp) -> Content {
    let notification = &lease.notification;
    let note = note(channel.delay_note, notification.first_due(), now);
    let mut bodies = match channel.limits.text {
        Some(limit) => parts(channel, lease, limit),
        None => vec![notification.message.clone()],
    };
    let cuts = cuts(lease, &bodies);
    if let (Some(note), Some(last)) = (note, bodies.last_mut()) {
        *last = format!("{}\n{note}", closed(last, notification.format));
    }
    let parts = u32::try_from(bodies.len()).expect("the number of parts is small");
    // A part of a text that is cut otherwise is no repetition, whatever its number is.
    let delivery = cuts.last().filter(|_| parts > 1).map_or(lease.key.id(), |all| DeliveryId::new(*all));
    let message = |(part, body): (u32, String)| {
        let body = if parts > 1 { format!("{body}\n({}/{parts})", part + 1) } else { body };
        Message { delivery, part, parts, body, ..message(lease) }
    };
    let messages = (0..).zip(bodies).map(message).collect();
    Content { messages, cuts: cuts.iter().map(|cut| cut.as_u64_pair().0).collect() }
}

/// For each part, a hash of the delivery and of all parts up to it.
fn cuts(lease: &Lease, bodies: &[String]) -> Vec<Uuid> {
    let next = |before: &mut Uuid, body: &String| {
        *before = Uuid::new_v5(before, body.as_bytes());
        Some(*before)
    };
    bodies.iter().scan(lease.key.id().uuid(), next).collect()
}

/// Everything of a message but its text.
fn message(lease: &Lease) -> Message {
    let notification = &lease.notification;
    Message {
        notification: notification.id,
        delivery: lease.key.id(),
        ordinal: lease.key.ordinal,
        attempt: lease.attempt,
        target: lease.target.clone(),
        title: notification.title.clone(),
        body: String::new(),
        format: if lease.progress.plain { Format::Text } else { notification.format },
        priority: notification.priority,
        data: notification.data.clone(),
        metadata: notification.metadata.clone(),
        accepted_at: notification.accepted_at,
        expires_at: lease.expires_at,
        key: notification.key.clone(),
        part: 0,
        parts: 1,
        trace: None,
    }
}

/// The text, or what it is cut into so that each part fits with its number and a note.
fn parts(channel: &LiveChannel, lease: &Lease, limit: TextLimit) -> Vec<String> {
    let (text, format) = (&lease.notification.message, lease.notification.format);
    let room = if channel.delay_note.is_some() { LONGEST_NOTE } else { "" };
    let mut probe = message(lease);
    let mut fits = |body: String, part: u32| {
        (probe.body, probe.part) = (body, part);
        let mut fits_as = |format| {
            probe.format = format;
            channel.channel.length(&probe) <= limit.max
        };
        fits_as(format) && (format == Format::Text || !channel.limits.rich || fits_as(Format::Text))
    };
    let whole = if room.is_empty() { text.clone() } else { closed(text, format) };
    if fits(format!("{whole}{room}"), 0) {
        return vec![text.clone()];
    }
    let mut cut = Vec::new();
    for digits in 1..=DIGITS_MAX {
        let number = "9".repeat(digits);
        cut = split(text, format, |part, number_of| fits(format!("{part}{room}\n({number}/{number})"), number_of));
        if cut.len().to_string().len() <= digits {
            break;
        }
    }
    cut
}

/// How late the text is, in plain words, where that is worth telling.
fn note(least: Option<Duration>, due: Timestamp, now: Timestamp) -> Option<String> {
    let late = now.since(due);
    (late > least?).then(|| format!("delayed by {}", in_words(late.min(DELAY_MAX))))
}

fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    let two = |of: u64, unit: &str, rest: u64, smaller: &str| match rest {
        0 => format!("{of} {unit}"),
        rest => format!("{of} {unit} {rest} {smaller}"),
    };
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min", seconds / MINUTE),
        HOUR..DAY => two(seconds / HOUR, "h", seconds % HOUR / MINUTE, "min"),
        _ => two(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_told_in_plain_words() {
        for (seconds, words) in [
            (45, "45 s"),
            (60, "1 min"),
            (14 * 60 + 59, "14 min"),
            (3_600, "1 h"),
            (2 * 3_600 + 5 * 60, "2 h 5 min"),
            (24 * 3_600, "1 d"),
            (49 * 3_600 + 59 * 60, "2 d 1 h"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
        let longest = format!("\ndelayed by {}", in_words(DELAY_MAX));
        assert_eq!(longest, LONGEST_NOTE);
    }

    #[test]
    fn only_what_is_later_than_the_channel_wants_to_hear_of_says_so() {
        let due = Timestamp::from_millis(1_705_314_600_000);
        let five = Some(Duration::from_secs(300));
        assert_eq!(note(five, due, due.plus(Duration::from_secs(300))), None);
        assert_eq!(note(five, due, due.plus(Duration::from_secs(301))).as_deref(), Some("delayed by 5 min"));
        assert_eq!(note(None, due, due.plus(Duration::from_secs(9_999))), None);
        assert_eq!(note(five, due, Timestamp::ZERO), None, "the clock was put back");
        assert!(note(five, Timestamp::ZERO, due).is_some_and(|note| note.len() < LONGEST_NOTE.len()));
    }
}
