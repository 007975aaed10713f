//! The `OTEL_*` variables: whether traces and metrics are exported, and where to. What is wrong with one is a warning, as
//! OpenTelemetry asks: whoever watches over the messages must not keep them from leaving.
//!
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>,
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>

use std::time::Duration;

use conductor_channels::http::{below, check_url};
use http::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::environment::{Environment, Lookup};
use super::report::{Fault, Report};
use crate::telemetry::otlp::{Settings, Target};
use crate::telemetry::traces::Sampler;

/// The most headers, and the most attributes of the resource, that are taken.
const PAIRS_MAX: usize = 64;
/// The longest value of one, in bytes.
const VALUE_MAX_BYTES: usize = 4_096;
/// The most spans that may wait, whatever the variable says.
const QUEUE_MAX: u64 = 65_536;
/// The longest time that a variable may say, in milliseconds: a day.
const TIME_MAX: u64 = 24 * 60 * 60 * 1_000;
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// What is exported; none where nothing is.
pub(super) fn settings(environment: &Environment, report: &mut Report) -> Option<Settings> {
    let mut variables = Variables { environment, report };
    if variables.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return None;
    }
    let traces = variables.target("TRACES", "/v1/traces");
    let metrics = variables.target("METRICS", "/v1/metrics");
    if traces.is_none() && metrics.is_none() {
        return None;
    }
    let queue = variables.number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048, QUEUE_MAX);
    let batch = variables.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, queue);
    let delay = variables.number("OTEL_BSP_SCHEDULE_DELAY", 5_000, TIME_MAX);
    let every = variables.number("OTEL_METRIC_EXPORT_INTERVAL", 60_000, TIME_MAX);
    Some(Settings {
        sampler: if traces.is_some() { variables.sampler() } else { Sampler::default() },
        traces,
        metrics,
        resource: variables.resource(),
        queue: usize::try_from(queue).unwrap_or(usize::MAX),
        batch: usize::try_from(batch.min(queue)).unwrap_or(usize::MAX),
        delay: Duration::from_millis(delay),
        every: Duration::from_millis(every),
    })
}

struct Variables<'a> {
    environment: &'a Environment,
    report: &'a mut Report,
}

impl Variables<'_> {
    /// An empty variable counts as none.
    fn get(&self, name: &str) -> Option<String> {
        self.environment.get(name).map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    fn warn(&mut self, name: &str, found: &str, expected: &str) {
        let fault = Fault::error(format!("{name} {found}, so it is passed over")).as_warning();
        self.report.add(fault.expected(expected));
    }

    /// That of a signal, else that of all.
    fn of_signal(&self, signal: &str, rest: &str) -> Option<(String, String)> {
        let names = [format!("OTEL_EXPORTER_OTLP_{signal}_{rest}"), format!("OTEL_EXPORTER_OTLP_{rest}")];
        names.into_iter().find_map(|name| self.get(&name).map(|value| (name, value)))
    }

    fn number(&mut self, name: &str, default: u64, max: u64) -> u64 {
        let default = default.min(max);
        let Some(text) = self.get(name) else { return default };
        match text.parse() {
            Ok(number) if (1..=max).contains(&number) => number,
            _ => {
                self.warn(name, "is no number that can be used", &format!("a whole number from 1 to {max}"));
                default
            }
        }
    }

    /// Where a signal goes, if it is exported.
    fn target(&mut self, signal: &str, path: &str) -> Option<Target> {
        let own = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
        let (name, url) = match (self.get(&own), self.get(ENDPOINT)) {
            (Some(url), _) => (own.as_str(), Url::parse(&url)),
            (None, Some(url)) => (ENDPOINT, Url::parse(&url).map(|base| below(&base, path))),
            (None, None) => return None,
        };
        let exporter = format!("OTEL_{signal}_EXPORTER");
        match self.get(&exporter).as_deref() {
            None | Some("otlp") => {}
            Some("none") => return None,
            Some(_) => {
                self.warn(&exporter, "names an exporter that this server has not", "otlp or none");
                return None;
            }
        }
        let Some(url) = url.ok().filter(|url| check_url(url).is_ok()) else {
            self.warn(
                name,
                "is no address",
                "a collector's address without a user name, such as http://localhost:4318",
            );
            return None;
        };
        if let Some((name, protocol)) = self.of_signal(signal, "PROTOCOL")
            && protocol != "http/protobuf"
        {
            let expected = "http/protobuf, which a collector takes on port 4318";
            self.warn(&name, "names a protocol that this server does not speak: nothing goes there", expected);
            return None;
        }
        if let Some((name, value)) = self.of_signal(signal, "COMPRESSION")
            && value != "none"
        {
            self.warn(&name, "asks for what this server does not do", "none");
        }
        let timeouts = [format!("OTEL_EXPORTER_OTLP_{signal}_TIMEOUT"), "OTEL_EXPORTER_OTLP_TIMEOUT".to_owned()];
        let timeout = timeouts.iter().find(|name| self.get(name).is_some()).unwrap_or(&timeouts[1]);
        let timeout = Duration::from_millis(self.number(timeout, 10_000, TIME_MAX));
        Some(Target { url, headers: self.headers(signal), timeout })
    }

    /// They often hold a key, so that a file may hold them, and nothing of them is shown.
    fn headers(&mut self, signal: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let names = [format!("OTEL_EXPORTER_OTLP_{signal}_HEADERS"), "OTEL_EXPORTER_OTLP_HEADERS".to_owned()];
        for name in names {
            let value = match self.environment.lookup(&name) {
                Lookup::Found { value, .. } => value,
                Lookup::Empty | Lookup::Missing => continue,
                Lookup::Unreadable { .. } => {
                    self.warn(&format!("{name}_FILE"), "cannot be read", "a file that this user may read");
                    return headers;
                }
            };
            for (header, value) in pairs(value.expose()).take(PAIRS_MAX) {
                match (HeaderName::try_from(&header), HeaderValue::try_from(&value)) {
                    (Ok(header), Ok(mut value)) if value.len() <= VALUE_MAX_BYTES => {
                        value.set_sensitive(true);
                        headers.insert(header, value);
                    }
                    _ => self.warn(&name, "has an entry that is no header", "name=value, with commas between them"),
                }
            }
            return headers;
        }
        headers
    }

    fn resource(&mut self) -> Vec<(String, String)> {
        const NAME: &str = "service.name";
        let mut resource = vec![
            (NAME.to_owned(), "conductor".to_owned()),
            ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ];
        let mut set = |name: String, value: String| {
            resource.retain(|(known, _)| *known != name);
            resource.push((name, value));
        };
        let attributes = self.get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        for (name, value) in pairs(&attributes).take(PAIRS_MAX).filter(|(_, value)| value.len() <= VALUE_MAX_BYTES) {
            set(name, value);
        }
        if let Some(name) = self.get("OTEL_SERVICE_NAME") {
            set(NAME.to_owned(), name);
        }
        resource
    }

    fn sampler(&mut self) -> Sampler {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
        let name = self.get(NAME);
        let (parent_decides, rest) = match name.as_deref() {
            None => return Sampler::default(),
            Some(name) => name.strip_prefix("parentbased_").map_or((false, name), |rest| (true, rest)),
        };
        let ratio = match rest {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => match self.get(ARGUMENT).map(|text| text.parse::<f64>()) {
                None => 1.0,
                Some(Ok(ratio)) if (0.0..=1.0).contains(&ratio) => ratio,
                Some(_) => {
                    self.warn(ARGUMENT, "is no share", "a number from 0 to 1");
                    1.0
                }
            },
            _ => {
                let expected = "always_on, always_off, traceidratio, or one of them after parentbased_";
                self.warn(NAME, "names a sampler that this server has not", expected);
                return Sampler::default();
            }
        };
        Sampler { parent_decides, ratio }
    }
}

/// Pairs as W3C Baggage writes them: `name=value,other=value`, values percent-encoded. What is no pair is left out.
fn pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    let pair = |entry: &str| {
        let (name, value) = entry.split_once('=')?;
        let name = name.trim();
        (!name.is_empty()).then(|| (name.to_owned(), decoded(value.trim())))
    };
    text.split(',').filter_map(pair)
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Option<Settings>, String) {
        let mut report = Report::new();
        let settings = settings(&Environment::from_pairs(pairs.iter().copied()), &mut report);
        assert_eq!(report.errors(), 0, "{report}");
        (settings, if report.is_empty() { String::new() } else { report.to_string() })
    }

    #[test]
    fn without_an_address_nothing_is_exported() {
        for none in [
            &[][..],
            &[("OTEL_SERVICE_NAME", "x")],
            &[(ENDPOINT, " ")],
            &[(ENDPOINT, "http://localhost:4318"), ("OTEL_SDK_DISABLED", "TRUE")],
            &[(ENDPOINT, "http://c"), ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "none")],
        ] {
            assert_eq!(read(none), (None, String::new()), "{none:?}");
        }
    }

    #[test]
    fn one_address_serves_both_signals_and_each_may_have_its_own() {
        let (settings, report) = read(&[(ENDPOINT, "http://collector:4318/otlp/")]);
        let settings = settings.unwrap();
        let url = |target: &Option<Target>| target.as_ref().map(|target| target.url.to_string());
        assert_eq!(url(&settings.traces).as_deref(), Some("http://collector:4318/otlp/v1/traces"));
        assert_eq!(url(&settings.metrics).as_deref(), Some("http://collector:4318/otlp/v1/metrics"));
        assert_eq!((settings.queue, settings.batch, settings.every.as_secs()), (2_048, 512, 60));
        assert_eq!(settings.traces.unwrap().timeout.as_secs(), 10);
        assert_eq!(report, "");
        let (settings, _) = read(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://t.example/in?x=1")]);
        let settings = settings.unwrap();
        assert_eq!(url(&settings.traces).as_deref(), Some("https://t.example/in?x=1"));
        assert_eq!(settings.metrics, None);
    }

    #[test]
    fn everything_that_is_named_is_taken() {
        let (settings, report) = read(&[
            (ENDPOINT, "http://c:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20abc=, x-scope = tenant1"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-own=1"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment=a%2Cb,junk"),
            ("OTEL_SERVICE_NAME", "notify"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "250"),
        ]);
        assert_eq!(report, "");
        let settings = settings.unwrap();
        let traces = settings.traces.unwrap();
        assert_eq!(
            (&traces.headers["authorization"], &traces.headers["x-scope"]),
            (&HeaderValue::from_static("Basic abc="), &HeaderValue::from_static("tenant1"))
        );
        assert!(!format!("{:?}", traces.headers).contains("abc"), "a header may be a key");
        assert_eq!(traces.timeout, Duration::from_millis(1_500));
        assert_eq!(settings.metrics.unwrap().headers.len(), 1);
        let has = |name: &str, value: &str| settings.resource.contains(&(name.to_owned(), value.to_owned()));
        assert!(has("service.name", "notify") && has("deployment.environment", "a,b"), "{:?}", settings.resource);
        assert_eq!(settings.resource.len(), 3);
        assert_eq!(settings.sampler, Sampler { parent_decides: true, ratio: 0.25 });
        assert_eq!((settings.queue, settings.batch, settings.every.as_millis()), (100, 100, 250));
    }

    #[test]
    fn what_is_wrong_is_a_warning_that_shows_no_value() {
        let bad = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "s3cret", false),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:s3cret@c", false),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "s3cret", false),
            ("OTEL_TRACES_EXPORTER", "s3cret", true),
            ("OTEL_EXPORTER_OTLP_HEADERS", "no header=s3cret", true),
            ("OTEL_EXPORTER_OTLP_HEADERS_FILE", "/nonexistent/s3cret", true),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "s3cret", true),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "s3cret", true),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0", true),
            ("OTEL_TRACES_SAMPLER", "s3cret", true),
        ];
        for (name, value, exports) in bad {
            let (settings, report) = read(&[(ENDPOINT, "http://c:4318"), (name, value)]);
            assert!(report.contains(name) && !report.contains("s3cret"), "{name}: {report}");
            assert_eq!(settings.is_some(), exports, "{name}={value}");
        }
        let (settings, report) =
            read(&[(ENDPOINT, "http://c"), ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")]);
        assert!(report.contains("a number from 0 to 1"), "{report}");
        assert_eq!(settings.unwrap().sampler, Sampler { parent_decides: false, ratio: 1.0 });
    }
}
