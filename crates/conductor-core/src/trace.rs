//! Where a request belongs in a trace that somebody keeps elsewhere: the header `traceparent` of W3C Trace Context.
//!
//! <https://www.w3.org/TR/trace-context/#traceparent-header>

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;

/// A place in a trace: the trace, the span within it that what follows belongs to, and whether anybody records it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace.
    pub trace: NonZeroU128,
    /// The span that caused what follows.
    pub span: NonZeroU64,
    /// Whether the caller records the trace.
    pub sampled: bool,
}

/// The text was no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 00-<32 hexadecimal digits>-<16>-<2>, as W3C Trace Context writes a traceparent")]
pub struct TraceContextError;

/// The length of a `traceparent` of version 00, which is the beginning of one of any later version.
const LENGTH: usize = 55;
const SAMPLED: u64 = 1;

impl TraceContext {
    /// The trace's name, for logs.
    pub fn id(self) -> impl fmt::Display {
        struct Id(NonZeroU128);
        impl fmt::Display for Id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
        Id(self.trace)
    }

    /// The same trace with another span as the cause of what follows.
    #[must_use]
    pub const fn at(self, span: NonZeroU64) -> Self {
        Self { span, ..self }
    }
}

impl FromStr for TraceContext {
    type Err = TraceContextError;

    fn from_str(text: &str) -> Result<Self, TraceContextError> {
        let bytes = text.as_bytes();
        let version = digits(bytes, 0..2)?;
        let ends_well = match version {
            0 => bytes.len() == LENGTH,
            0xff => false,
            _ => bytes.len() == LENGTH || bytes.get(LENGTH) == Some(&b'-'),
        };
        if !ends_well || [2, 35, 52].iter().any(|place| bytes[*place] != b'-') {
            return Err(TraceContextError);
        }
        let (high, low) = (digits(bytes, 3..19)?, digits(bytes, 19..35)?);
        let trace = NonZeroU128::new(u128::from(high) << 64 | u128::from(low));
        let span = NonZeroU64::new(digits(bytes, 36..52)?);
        let sampled = digits(bytes, 53..55)? & SAMPLED != 0;
        match (trace, span) {
            (Some(trace), Some(span)) => Ok(Self { trace, span, sampled }),
            _ => Err(TraceContextError),
        }
    }
}

/// At most sixteen hexadecimal digits in lower case.
fn digits(bytes: &[u8], range: std::ops::Range<usize>) -> Result<u64, TraceContextError> {
    bytes.get(range).ok_or(TraceContextError)?.iter().try_fold(0, |number, byte| match byte {
        b'0'..=b'9' => Ok(number << 4 | u64::from(byte - b'0')),
        b'a'..=b'f' => Ok(number << 4 | u64::from(byte - b'a' + 10)),
        _ => Err(TraceContextError),
    })
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_header_of_the_recommendation_reads_back() {
        let context: TraceContext = GOOD.parse().unwrap();
        assert_eq!(context.trace.get(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((context.span.get(), context.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(context.to_string(), GOOD);
        let unsampled = GOOD.replace("-01", "-00");
        assert_eq!(unsampled.parse::<TraceContext>().unwrap().to_string(), unsampled);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for later in ["cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-more", &GOOD.replacen("00", "01", 1)] {
            assert_eq!(later.parse::<TraceContext>().unwrap().to_string(), GOOD, "{later}");
        }
    }

    #[test]
    fn what_the_recommendation_calls_invalid_is_refused() {
        let bad = [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ];
        for text in bad {
            assert_eq!(text.parse::<TraceContext>(), Err(TraceContextError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_reads_back(text in "\\PC{0,60}|[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}") {
            if let Ok(context) = text.parse::<TraceContext>() {
                prop_assert_eq!(context.to_string().parse(), Ok(context));
            }
        }
    }
}
