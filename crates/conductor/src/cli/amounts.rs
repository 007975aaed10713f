//! Sizes, counts and times as a person reads them.

use std::time::Duration;

use conductor_core::Timestamp;

/// A number of bytes: `512 B`, `34.5 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut tenths, mut unit) = (u128::from(bytes) * 10 / 1024, 0);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A number with its noun: `1 delivery`, `12,345 deliveries`.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped} {}", if number == 1 { one } else { many })
}

/// A length of time in its largest unit: `40 s`, `3 min`, `5 h`, `12 days`.
pub(super) fn length(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A time with how long ago it was: `2024-01-15T10:30:00.000Z (3 min ago)`.
pub(super) fn time(at: Timestamp, now: Timestamp) -> String {
    match at > now {
        true => format!("{at} (in {})", length(at.since(now))),
        false => format!("{at} ({} ago)", length(now.since(at))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_told_in_the_unit_that_a_person_would_choose() {
        let sizes = [0, 1_023, 1_024, 1_536, 1_048_575, 1_048_576, 36_175_872, 5 << 30, 7 << 50].map(size);
        let expected =
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1023.9 KiB", "1.0 MiB", "34.5 MiB", "5.0 GiB", "7168.0 TiB"];
        assert_eq!(sizes, expected);
        let counts = [0, 1, 999, 1_000, 12_345, 1_234_567].map(|number| count(number, "delivery", "deliveries"));
        let expected = [
            "0 deliveries",
            "1 delivery",
            "999 deliveries",
            "1,000 deliveries",
            "12,345 deliveries",
            "1,234,567 deliveries",
        ];
        assert_eq!(counts, expected);
        let lengths = [0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(|seconds| length(Duration::from_secs(seconds)));
        assert_eq!(lengths, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]);
        let now = Timestamp::from_millis(1_705_314_600_000);
        assert_eq!(time(now.minus(Duration::from_secs(180)), now), "2024-01-15T10:27:00.000Z (3 min ago)");
        assert_eq!(time(now.plus(Duration::from_secs(60)), now), "2024-01-15T10:31:00.000Z (in 60 s)");
    }
}
