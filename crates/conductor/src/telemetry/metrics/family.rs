//! What is counted, at one moment: read by Prometheus as text, and sent over OTLP.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use conductor_core::Distribution;

/// A metric with all its series.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Its name, as Prometheus knows it.
    pub name: &'static str,
    /// What it says, in one line.
    pub help: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// One for each set of labels.
    pub samples: Vec<Sample>,
}

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the process starts anew.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often something took how long.
    Histogram,
}

/// One series of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The names and values of its labels.
    pub labels: Vec<(&'static str, Text)>,
    /// Its value.
    pub value: Value,
}

/// A label's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// One of the program's own words.
    Word(&'static str),
    /// One from the configuration, which many series have.
    Shared(Arc<str>),
}

/// A series' value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number of things.
    Whole(u64),
    /// A measure.
    Real(f64),
    /// How many took how long.
    Distribution(Distribution),
}

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Word(word) => word,
            Self::Shared(text) => text,
        }
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Self::Whole(is.into())
    }
}

impl From<Distribution> for Value {
    fn from(distribution: Distribution) -> Self {
        Self::Distribution(distribution)
    }
}

impl Family {
    /// A counter without series yet. Its name ends with `_total`.
    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Counter, samples: Vec::new() }
    }

    /// A gauge without series yet.
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Gauge, samples: Vec::new() }
    }

    /// A histogram without series yet.
    pub fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Histogram, samples: Vec::new() }
    }

    /// Adds a series.
    pub fn add(&mut self, labels: impl Into<Vec<(&'static str, Text)>>, value: impl Into<Value>) {
        self.samples.push(Sample { labels: labels.into(), value: value.into() });
    }

    /// The same with its only series, which has no labels.
    #[must_use]
    pub fn with(mut self, value: impl Into<Value>) -> Self {
        self.add([], value);
        self
    }
}

/// What a text of [`text`] is called in `Content-Type`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// These metrics in Prometheus' text format, without those that have no series.
///
/// <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>
pub fn text(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        // Writing to a string cannot fail.
        let _ = write_family(&mut text, family);
    }
    text
}

fn write_family(out: &mut String, Family { name, help, kind, samples }: &Family) -> fmt::Result {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
    for Sample { labels, value } in samples {
        let line = |out: &mut String, suffix: &str, bound: Option<&str>| {
            out.push_str(name);
            out.push_str(suffix);
            let more = bound.map(|bound| ("le", Text::Shared(bound.into())));
            write_labels(out, labels.iter().chain(&more));
        };
        match value {
            Value::Whole(number) => {
                line(out, "", None);
                writeln!(out, " {number}")?;
            }
            Value::Real(number) => {
                line(out, "", None);
                writeln!(out, " {number}")?;
            }
            Value::Distribution(distribution) => {
                let mut below = 0;
                let bounds = distribution.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
                for (bound, count) in bounds.zip(&distribution.counts) {
                    below += count;
                    line(out, "_bucket", Some(&bound));
                    writeln!(out, " {below}")?;
                }
                line(out, "_sum", None);
                writeln!(out, " {}", distribution.sum.as_secs_f64())?;
                line(out, "_count", None);
                writeln!(out, " {below}")?;
            }
        }
    }
    Ok(())
}

fn write_labels<'a>(out: &mut String, labels: impl Iterator<Item = &'a (&'static str, Text)>) {
    let mut opened = false;
    for (name, value) in labels {
        out.push(if opened { ',' } else { '{' });
        opened = true;
        out.push_str(name);
        out.push_str("=\"");
        for letter in value.as_str().chars() {
            match letter {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                other => out.push(other),
            }
        }
        out.push('"');
    }
    if opened {
        out.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_core::Histogram;
    use std::time::Duration;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let mut counter = Family::counter("x_total", "Things.");
        counter.add([("a", Text::Word("one")), ("b", Text::Shared("q\"\\\n".into()))], 7);
        let histogram = Histogram::new(&[0.5, 1.0]);
        [100, 700, 9_000].iter().for_each(|millis| histogram.observe(Duration::from_millis(*millis)));
        let mut took = Family::histogram("took_seconds", "How long.");
        took.add([("a", Text::Word("one"))], histogram.distribution());
        let families = [counter, took, Family::gauge("empty", "Nothing."), Family::gauge("on", "Whether.").with(true)];
        let expected = "\
# HELP x_total Things.
# TYPE x_total counter
x_total{a=\"one\",b=\"q\\\"\\\\\\n\"} 7
# HELP took_seconds How long.
# TYPE took_seconds histogram
took_seconds_bucket{a=\"one\",le=\"0.5\"} 1
took_seconds_bucket{a=\"one\",le=\"1\"} 2
took_seconds_bucket{a=\"one\",le=\"+Inf\"} 3
took_seconds_sum{a=\"one\"} 9.8
took_seconds_count{a=\"one\"} 3
# HELP on Whether.
# TYPE on gauge
on 1
";
        assert_eq!(text(&families), expected);
    }
}
