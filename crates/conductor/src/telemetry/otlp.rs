//! Spans and metrics as OTLP sends them: where to, and the bodies of its requests.
//!
//! <https://opentelemetry.io/docs/specs/otlp/>, field numbers from <https://github.com/open-telemetry/opentelemetry-proto>

use std::time::Duration;

use http::HeaderMap;
use url::Url;

use super::metrics::family::{Family, Kind, Sample, Value};
use super::traces::{Attribute, Ended, Sampler, Side};
use wire::Message;

mod wire;

/// The type of the bodies.
pub const CONTENT_TYPE: &str = "application/x-protobuf";
/// The most series that one request carries.
pub const SERIES_MAX: usize = 2_000;

/// What is exported, as the `OTEL_*` variables say.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where traces go.
    pub traces: Option<Target>,
    /// Where metrics go.
    pub metrics: Option<Target>,
    /// What the exporter says of the server, `service.name` among it.
    pub resource: Vec<(String, String)>,
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// The most spans that wait for the next request.
    pub queue: usize,
    /// The most spans that one request carries.
    pub batch: usize,
    /// How long a span waits for others to go with.
    pub delay: Duration,
    /// How often metrics are sent.
    pub every: Duration,
}

/// Where a signal goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The whole address.
    pub url: Url,
    /// Headers that every request gets. They may be secret, and are marked so.
    pub headers: HeaderMap,
    /// The time for one request.
    pub timeout: Duration,
}

/// The body of a request that carries these spans (`ExportTraceServiceRequest`).
pub fn traces_body(resource: &[(String, String)], spans: &[Ended]) -> Vec<u8> {
    body(resource, |scope| spans.iter().for_each(|span| scope.message(2, |message| write_span(message, span))))
}

/// The body of a request that carries these metrics (`ExportMetricsServiceRequest`). `start` is when their counters began,
/// and `now` when they were read, in nanoseconds since 1970.
pub fn metrics_body(resource: &[(String, String)], families: &[Family], start: u64, now: u64) -> Vec<u8> {
    body(resource, |scope| {
        for family in families {
            scope.message(2, |message| write_family(message, family, start, now));
        }
    })
}

/// The same metrics in parts with no more than [`SERIES_MAX`] series each.
pub fn in_parts(families: Vec<Family>) -> Vec<Vec<Family>> {
    let (mut parts, mut part, mut room) = (Vec::new(), Vec::new(), SERIES_MAX);
    for mut family in families {
        while family.samples.len() > room {
            let rest = family.samples.split_off(room);
            let samples = std::mem::replace(&mut family.samples, rest);
            part.push(Family { samples, ..family });
            parts.push(std::mem::take(&mut part));
            room = SERIES_MAX;
        }
        if !family.samples.is_empty() {
            room -= family.samples.len();
            part.push(family);
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// Traces and metrics lie in the same shell: what is exported, for which resource, by which scope.
fn body(resource: &[(String, String)], write: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut request = Message::default();
    request.message(1, |of_resource| {
        of_resource.message(1, |message| {
            for (name, value) in resource {
                write_text(message, 1, name, value);
            }
        });
        of_resource.message(2, |of_scope| {
            of_scope.message(1, |scope| {
                scope.text(1, "conductor");
                scope.text(2, env!("CARGO_PKG_VERSION"));
            });
            write(of_scope);
        });
    });
    request.into_bytes()
}

/// A `KeyValue` whose value is a text.
fn write_text(message: &mut Message, field: u32, name: &str, value: &str) {
    message.message(field, |pair| {
        pair.text(1, name);
        pair.message(2, |any| any.text(1, value));
    });
}

fn write_attribute(message: &mut Message, field: u32, name: &str, value: &Attribute) {
    match value {
        Attribute::Text(text) => write_text(message, field, name, text),
        Attribute::Number(number) => message.message(field, |pair| {
            pair.text(1, name);
            pair.message(2, |any| any.number(3, number.cast_unsigned()));
        }),
    }
}

fn write_span(message: &mut Message, span: &Ended) {
    const STATUS_ERROR: u64 = 2;
    message.bytes(1, &span.context.trace.get().to_be_bytes());
    message.bytes(2, &span.context.span.get().to_be_bytes());
    if let Some(parent) = span.parent {
        message.bytes(4, &parent.get().to_be_bytes());
    }
    message.text(5, &span.name);
    message.number(
        6,
        match span.side {
            Side::Server => 2,
            Side::Client => 3,
        },
    );
    message.fixed64(7, span.start);
    message.fixed64(8, span.end);
    for (name, value) in &span.attributes {
        write_attribute(message, 9, name, value);
    }
    if span.failed {
        message.message(15, |status| status.number(3, STATUS_ERROR));
    }
    message.fixed32(16, u32::from(span.context.sampled));
}

fn write_family(message: &mut Message, family: &Family, start: u64, now: u64) {
    const CUMULATIVE: u64 = 2;
    let (name, unit) = named(family);
    message.text(1, &name);
    message.text(2, family.help);
    message.text(3, unit);
    let start = if family.kind == Kind::Gauge { None } else { Some(start) };
    let mut points = Message::default();
    family.samples.iter().for_each(|sample| points.message(1, |point| write_point(point, sample, start, now)));
    match family.kind {
        Kind::Gauge => {}
        Kind::Counter => {
            points.number(2, CUMULATIVE);
            points.number(3, 1);
        }
        Kind::Histogram => points.number(2, CUMULATIVE),
    }
    let field = match family.kind {
        Kind::Gauge => 5,
        Kind::Counter => 7,
        Kind::Histogram => 9,
    };
    message.bytes(field, &points.into_bytes());
}

/// A `NumberDataPoint` or `HistogramDataPoint`, of which time and start have the same field numbers.
fn write_point(point: &mut Message, Sample { labels, value }: &Sample, start: Option<u64>, now: u64) {
    let attributes = if matches!(value, Value::Distribution(_)) { 9 } else { 7 };
    for (name, value) in labels {
        write_text(point, attributes, name, value.as_str());
    }
    if let Some(start) = start {
        point.fixed64(2, start);
    }
    point.fixed64(3, now);
    match value {
        Value::Whole(number) => point.fixed64(6, *number),
        Value::Real(number) => point.double(4, *number),
        Value::Distribution(distribution) => {
            point.fixed64(4, distribution.count());
            point.double(5, distribution.sum.as_secs_f64());
            point.packed(6, distribution.counts.iter().copied());
            point.packed(7, distribution.bounds.iter().map(|bound| bound.to_bits()));
        }
    }
}

/// The name and the unit as OpenTelemetry writes them. A collector that passes them on to Prometheus makes the names
/// that `/metrics` has.
fn named(family: &Family) -> (String, &'static str) {
    let name = family.name.replacen('_', ".", 1);
    let name = if family.kind == Kind::Counter { name.trim_end_matches("_total") } else { &name };
    for (suffix, unit) in [("_seconds", "s"), ("_bytes", "By")] {
        if let Some(name) = name.strip_suffix(suffix) {
            return (name.to_owned(), unit);
        }
    }
    (name.to_owned(), "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::family::Text;

    #[test]
    fn names_are_those_that_a_collector_turns_back() {
        let of = |family: Family| named(&family);
        let told = |name: &str, unit| (name.to_owned(), unit);
        assert_eq!(of(Family::counter("conductor_attempts_total", "")), told("conductor.attempts", ""));
        assert_eq!(of(Family::counter("process_cpu_seconds_total", "")), told("process.cpu", "s"));
        assert_eq!(of(Family::histogram("conductor_queue_age_seconds", "")), told("conductor.queue_age", "s"));
        assert_eq!(of(Family::gauge("conductor_store_file_bytes", "")), told("conductor.store_file", "By"));
    }

    #[test]
    fn many_series_go_in_several_parts_and_none_is_lost() {
        let family = |series: u64| {
            let mut family = Family::counter("x_total", "");
            (0..series).for_each(|number| family.add([("a", Text::Shared(number.to_string().into()))], number));
            family
        };
        let parts = in_parts(vec![family(1_500), family(0), family(4_700), family(1)]);
        let sizes: Vec<usize> = parts.iter().map(|part| part.iter().map(|of| of.samples.len()).sum()).collect();
        assert_eq!(sizes, [2_000, 2_000, 2_000, 201]);
        assert_eq!(in_parts(Vec::new()).len(), 0);
    }
}
