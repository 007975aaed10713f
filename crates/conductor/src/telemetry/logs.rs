//! Log lines: text for people, or one JSON object a line. A logged value can never begin a line of its own.

use std::fmt::{self, Write};
use std::sync::Arc;

use conductor_core::{Clock, Timestamp};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt};

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// `[2024-01-15T10:30:00.000Z] [INFO] [conductor:plugin:discord] Discord bot connected`
    #[default]
    Text,
    /// `{"timestamp":…,"level":"INFO","target":"conductor:plugin:discord","message":…,"fields":{…}}`
    Json,
}

/// Sends everything that is logged from now on to the standard error. `filter` is written as in `RUST_LOG`; what of it
/// cannot be understood counts as `info`. A second call changes nothing.
pub fn install(filter: &str, format: LogFormat, clock: Arc<dyn Clock>) {
    // It fails only where the process logs already, and then it goes on doing so.
    let _ = tracing::subscriber::set_global_default(subscriber(filter, format, clock, std::io::stderr));
}

/// What [`install`] installs, writing elsewhere.
pub fn subscriber<W>(filter: &str, format: LogFormat, clock: Arc<dyn Clock>, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let line = Line { format, clock };
    let layer =
        tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer).fmt_fields(Fields).event_format(line);
    tracing_subscriber::registry().with(layer.with_filter(filter))
}

/// Writes one event.
struct Line {
    format: LogFormat,
    clock: Arc<dyn Clock>,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Collected::default();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(formatted) = span.extensions().get::<FormattedFields<N>>() {
                fields.add_formatted(formatted.as_str());
            }
        }
        event.record(&mut fields);
        let metadata = event.metadata();
        let line = match self.format {
            LogFormat::Text => fields.text(self.clock.now(), *metadata.level(), metadata.target()),
            LogFormat::Json => fields.json(self.clock.now(), *metadata.level(), metadata.target()),
        };
        writer.write_str(&line)
    }
}

/// Keeps a span's fields as JSON objects, one after the other, until an event within the span is written.
struct Fields;

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut collected = Collected::default();
        fields.record(&mut collected);
        write!(writer, "{}", Value::Object(collected.values))
    }
}

/// An event's message and fields, with those of the spans around it.
#[derive(Default)]
struct Collected {
    message: String,
    values: Map<String, Value>,
}

impl Collected {
    fn add_formatted(&mut self, objects: &str) {
        for object in serde_json::Deserializer::from_str(objects).into_iter::<Map<String, Value>>().flatten() {
            self.values.extend(object);
        }
    }

    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", value) => self.message = value.to_string(),
            (name, value) => drop(self.values.insert(name.to_owned(), value)),
        }
    }

    fn text(&self, now: Timestamp, level: Level, target: &str) -> String {
        let mut line = format!("[{now}] [{level}] [{}] ", colons(target));
        escape(&self.message, &mut line);
        for (name, value) in &self.values {
            line.push(' ');
            escape(name, &mut line);
            line.push('=');
            match value {
                Value::String(text) if needs_quotes(text) => quote(text, &mut line),
                Value::String(text) => escape(text, &mut line),
                other => line.push_str(&other.to_string()),
            }
        }
        line.push('\n');
        line
    }

    fn json(self, now: Timestamp, level: Level, target: &str) -> String {
        let string = |text: &str| Value::from(text).to_string();
        let mut line =
            format!("{{\"timestamp\":\"{now}\",\"level\":\"{level}\",\"target\":{}", string(&colons(target)));
        line.push_str(",\"message\":");
        line.push_str(&string(&self.message));
        line.push_str(",\"fields\":");
        line.push_str(&Value::Object(self.values).to_string());
        line.push_str("}\n");
        line
    }
}

impl Visit for Collected {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Value::from(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::from(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::from(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::from(value));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::from(value));
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, Value::from(value.to_string()));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::from(format!("{value:?}")));
    }
}

/// `conductor::plugin::discord` as `conductor:plugin:discord`; the other crates of this program are parts of it too:
/// `conductor_store::sqlite` is `conductor:store:sqlite`.
fn colons(target: &str) -> String {
    let target = target.replace("::", ":");
    for part in ["core", "store", "channels"] {
        let rest = target.strip_prefix("conductor_").and_then(|rest| rest.strip_prefix(part));
        if let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with(':')) {
            return format!("conductor:{part}{rest}");
        }
    }
    target
}

fn needs_quotes(text: &str) -> bool {
    let is_quoted = text.len() >= 2 && text.starts_with('"') && text.ends_with('"');
    !is_quoted && (text.is_empty() || text.contains(|c: char| c == '=' || c == '"' || c.is_whitespace()))
}

fn quote(text: &str, line: &mut String) {
    line.push('"');
    let mut rest = text;
    while let Some(at) = rest.find(['"', '\\']) {
        escape(&rest[..at], line);
        line.push('\\');
        line.push_str(&rest[at..=at]);
        rest = &rest[at + 1..];
    }
    escape(rest, line);
    line.push('"');
}

/// Writes a text without anything that a terminal or a log collector could take for more than text: line breaks,
/// control characters, marks that turn the direction of writing.
fn escape(text: &str, line: &mut String) {
    for c in text.chars() {
        match c {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => push_code(c, line),
            c if c.is_control() => push_code(c, line),
            c => line.push(c),
        }
    }
}

fn push_code(c: char, line: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(line, "\\u{{{:x}}}", u32::from(c));
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use conductor_core::ManualClock;
    use tracing::{debug, error, info, info_span, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, format: LogFormat, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_705_314_600_000)));
        tracing::subscriber::with_default(subscriber(filter, format, clock, move || writer.clone()), log);
        String::from_utf8(lines.0.lock().expect("not poisoned").clone()).expect("UTF-8")
    }

    fn text(log: impl FnOnce()) -> String {
        logged("info", LogFormat::Text, log)
    }

    #[test]
    fn a_line_has_time_level_part_and_message() {
        let line = text(|| info!(target: "conductor::plugin::discord", "Discord bot connected"));
        assert_eq!(line, "[2024-01-15T10:30:00.000Z] [INFO] [conductor:plugin:discord] Discord bot connected\n");
    }

    #[test]
    fn fields_follow_the_message() {
        let line = text(|| {
            warn!(target: "t", name = "two words", tenant.id = 7, ok = true, empty = "", kind = ?Some("x"), path = %"a=b", "Sent");
        });
        let fields = "empty=\"\" kind=\"Some(\\\"x\\\")\" name=\"two words\" ok=true path=\"a=b\" tenant.id=7";
        assert_eq!(line, format!("[2024-01-15T10:30:00.000Z] [WARN] [t] Sent {fields}\n"));
    }

    #[test]
    fn a_logged_value_cannot_begin_a_line_or_command_a_terminal() {
        let evil = "a\n[2024-01-15T10:30:00.000Z] [ERROR] \u{1b}[2J\r\u{9b}\u{202e}\u{2028}\0";
        let line = text(|| info!(target: "t", value = evil, shown = %evil, debug = ?evil, "{evil}"));
        assert_eq!(line.matches('\n').count(), 1);
        assert!(
            line.trim_end_matches('\n').chars().all(|c| !c.is_control() && c != '\u{202e}' && c != '\u{2028}'),
            "{line:?}"
        );
        assert!(line.contains("a\\n[2024"), "{line}");
        let json = logged("info", LogFormat::Json, || info!(value = evil, "{evil}"));
        assert_eq!(json.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((value["message"].as_str(), value["fields"]["value"].as_str()), (Some(evil), Some(evil)));
    }

    #[test]
    fn json_has_one_object_a_line() {
        let lines = logged("info", LogFormat::Json, || {
            error!(target: "conductor_store::sqlite", duration_ms = 12, ratio = 0.5, "Slow");
            info!(target: "conductor", "Ready");
        });
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let first = serde_json::json!({ "timestamp": "2024-01-15T10:30:00.000Z", "level": "ERROR",
            "target": "conductor:store:sqlite", "message": "Slow", "fields": { "duration_ms": 12, "ratio": 0.5 } });
        assert_eq!(lines[0], first);
        assert_eq!(lines[1]["fields"], serde_json::json!({}));
    }

    #[test]
    fn an_event_carries_the_fields_of_the_spans_around_it() {
        let log = || {
            let outer = info_span!("request", request.id = "r1", later = tracing::field::Empty).entered();
            outer.record("later", "x y");
            let _inner = info_span!("attempt", number = 2, request.id = "r2").entered();
            info!(target: "t", number = 3, "Sent");
        };
        let line = text(log);
        assert!(line.ends_with("[t] Sent later=\"x y\" number=3 request.id=r2\n"), "{line}");
    }

    #[test]
    fn a_filter_says_what_is_logged() {
        let log = || {
            debug!(target: "conductor::dispatch", "fine");
            info!(target: "conductor_store", "store");
            info!(target: "hyper::client", "noise");
            warn!(target: "hyper::client", "trouble");
        };
        let lines = logged("warn,conductor=info", LogFormat::Text, log);
        assert!(lines.contains("store") && lines.contains("trouble"), "{lines}");
        assert!(!lines.contains("fine") && !lines.contains("noise"), "{lines}");
    }

    #[test]
    fn the_other_crates_are_parts_of_the_program() {
        assert_eq!(colons("conductor_channels::http"), "conductor:channels:http");
        assert_eq!(colons("conductor_core"), "conductor:core");
        assert_eq!(colons("conductor_corex"), "conductor_corex");
        assert_eq!(colons("hyper_util::client"), "hyper_util:client");
    }
}
