//! Values that are texts in the files and more than that in the program: durations, rates, networks, addresses.
//!
//! A value whose shape the schema has refused already is passed over here in silence.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use conductor_core::Rate;
use conductor_core::retention::{KEPT_MAX, KEPT_MIN};
use ipnet::IpNet;
use serde_json::Value;
use url::Url;

use super::document::Document;
use super::model::Lasting;
use super::report::Report;

const DAY: u64 = 24 * 60 * 60;

/// What the time limit of one attempt may be.
pub(super) const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(10 * 60);
/// How old a notification may become.
pub(super) const EXPIRES_AFTER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * DAY);
/// How late a text may be before it says so.
pub(super) const DELAY_NOTE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * DAY);
/// How long ended notifications, or their content, may be kept.
pub(super) const KEPT: RangeInclusive<Duration> = KEPT_MIN..=KEPT_MAX;
/// Instead of a duration.
const FOREVER: &str = "forever";
/// The time that a rate may count for.
const RATE_PER: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(30 * DAY);

/// Reads a duration such as `500ms`, `30s`, `5m`, `24h`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(60 * 60).map(Duration::from_secs),
        "d" => number.checked_mul(DAY).map(Duration::from_secs),
        _ => None,
    }
}

/// Reads how long ended notifications are kept: a duration such as `30d`, or `forever`.
pub(super) fn parse_lasting(text: &str) -> Option<Lasting> {
    if text == FOREVER { Some(Lasting::Forever) } else { parse_duration(text).map(Lasting::For) }
}

/// Writes a duration in the largest unit that shows it whole.
pub(super) fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let whole = units.iter().find(|(_, unit)| millis > 0 && millis.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{millis}ms"), |(name, unit)| format!("{}{name}", millis / unit))
}

/// One place in a document, and where its faults go.
pub(super) struct Reader<'a, 't> {
    pub(super) document: &'a Document<'t>,
    pub(super) report: &'a mut Report,
}

impl Reader<'_, '_> {
    /// The member's duration, if it is there and within the range.
    pub(super) fn duration(
        &mut self,
        object: &Value,
        pointer: &str,
        name: &str,
        range: &RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let duration = parse_duration(object.get(name)?.as_str()?)?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let found = format!("{} is out of range", self.document.show(&format!("{pointer}/{name}")));
        let expected = format!("{} to {}", format_duration(*range.start()), format_duration(*range.end()));
        self.report.add_first(self.document.error(&format!("{pointer}/{name}"), found).expected(expected));
        None
    }

    /// How long the member says that something is kept, if it is there and within the range.
    pub(super) fn lasting(&mut self, object: &Value, pointer: &str, name: &str) -> Option<Lasting> {
        match parse_lasting(object.get(name)?.as_str()?)? {
            Lasting::Forever => Some(Lasting::Forever),
            Lasting::For(_) => self.duration(object, pointer, name, &KEPT).map(Lasting::For),
        }
    }

    /// The member's rate, if it is there.
    pub(super) fn rate(&mut self, object: &Value, pointer: &str, name: &str) -> Option<Rate> {
        let rate = object.get(name).filter(|rate| rate.is_object())?;
        let number = |name: &str| rate.get(name).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
        let per = match rate.get("per") {
            Some(_) => self.duration(rate, &format!("{pointer}/{name}"), "per", &RATE_PER)?,
            None => Duration::from_secs(1),
        };
        let limit = NonZeroU32::new(number("limit")?)?;
        let burst = number("burst").and_then(NonZeroU32::new).unwrap_or(limit);
        Some(Rate { limit, per, burst })
    }

    /// The member's networks; none where it is not there.
    pub(super) fn networks(&mut self, object: &Value, pointer: &str, name: &str) -> Vec<IpNet> {
        let mut networks = Vec::new();
        let entries = object.get(name).and_then(Value::as_array);
        for (index, text) in entries.into_iter().flatten().filter_map(Value::as_str).enumerate() {
            match text.parse::<IpNet>() {
                Ok(network) => networks.push(network.trunc()),
                Err(_) if !text.contains('/') => {}
                Err(_) => {
                    let pointer = format!("{pointer}/{name}/{index}");
                    let found = format!("{} is no network", self.document.show(&pointer));
                    let fault = self.document.error(&pointer, found);
                    self.report.add_first(fault.expected("a network as CIDR, such as 192.168.0.0/16 or fd00::/8"));
                }
            }
        }
        networks
    }

    /// The member's address, if it is there. It has one of these schemes and names a host, but no user and password:
    /// those would be secrets.
    pub(super) fn address(&mut self, object: &Value, pointer: &str, name: &str, schemes: &[&str]) -> Option<Url> {
        let text = object.get(name)?.as_str()?;
        let pointer = format!("{pointer}/{name}");
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(_) if !text.contains("://") => return None,
            Err(error) => {
                let fault = self.document.error(&pointer, format!("this is no address: {error}"));
                self.report.add_first(fault.expected("an address such as https://example.com/path"));
                return None;
            }
        };
        let fault = if !schemes.contains(&url.scheme()) {
            let found = format!("the scheme `{}` is not supported here", url.scheme());
            self.document.error(&pointer, found).expected(format!("an address with {}", schemes.join(" or ")))
        } else if !url.has_host() {
            self.document.error(&pointer, "the address names no host").expected("https://example.com/path")
        } else if !url.username().is_empty() || url.password().is_some() {
            let fault = self.document.error(&pointer, "the address has a user or a password in it");
            fault.expected("an address without secrets").help("credentials stand in environment variables only")
        } else {
            return Some(url);
        };
        self.report.add_first(fault);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        let cases = [
            ("500ms", Some(Duration::from_millis(500))),
            ("30s", Some(Duration::from_secs(30))),
            ("5m", Some(Duration::from_secs(300))),
            ("24h", Some(Duration::from_secs(DAY))),
            ("7d", Some(Duration::from_secs(7 * DAY))),
            ("30", None),
            ("s", None),
            ("", None),
            ("1.5s", None),
            ("-1s", None),
            ("1 s", None),
            ("1w", None),
            ("99999999999999999999s", None),
            ("999999999999999999d", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }

    #[test]
    fn a_duration_reads_back_what_it_is_written_as() {
        for text in ["500ms", "30s", "5m", "24h", "7d", "90s", "36h", "0ms"] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(parse_duration(&format_duration(duration)), Some(duration), "{text}");
        }
        assert_eq!(format_duration(Duration::from_secs(DAY)), "1d");
        assert_eq!(format_duration(Duration::from_secs(90)), "90s");
    }
}
