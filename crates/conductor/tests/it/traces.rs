//! Traces and metrics over OTLP, to a collector that reads them by the published schema; and what becomes of a caller's
//! `traceparent`.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::process::{Process, serving};
use crate::support::provider::{Answer, DEADLINE, Provider, Received};
use crate::support::server::{ADMIN_KEY, KEY_A, TENANT_A, TestServer, World, answer, http};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLERS_SPAN: &str = "00f067aa0ba902b7";
const TARGET: &str = "+491701234567";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLERS_SPAN}-{flags}")
}

/// A world with a webhook channel, and with these `OTEL_*` variables.
fn world(provider: &Provider, variables: &[(&str, &str)]) -> World {
    let mut world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({}));
    world.variables.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    world
}

async fn send(server: &TestServer, traceparents: &[&str]) -> String {
    let body = json!({ "channel": "webhook", "message": "the cellar is full of water", "targetId": TARGET });
    let mut request = http().post(server.url("/notifications")).bearer_auth(KEY_A).json(&body);
    for traceparent in traceparents {
        request = request.header("traceparent", *traceparent);
    }
    let (status, accepted) = answer(request).await;
    assert_eq!(status, 202, "{accepted}");
    accepted["id"].as_str().expect("an id").to_owned()
}

fn text(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|pair| pair.key == name).and_then(|pair| pair.value.as_ref()?.value.as_ref());
    match found {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => panic!("{name} is {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn traces(request: &Received) -> ExportTraceServiceRequest {
    assert_eq!(request.header("content-type"), "application/x-protobuf");
    ExportTraceServiceRequest::decode(request.body.clone()).expect("what the schema says")
}

/// Waits until the collector has so many spans of a kind.
async fn of_trace(collector: &Provider, count: usize, is_meant: impl Fn(&Span) -> bool) -> Vec<Span> {
    let start = Instant::now();
    loop {
        let received = collector.received();
        let requests = received.iter().filter(|request| request.path == "/hook/v1/traces").map(traces);
        let of_scopes = requests.flat_map(|request| request.resource_spans).flat_map(|of| of.scope_spans);
        let spans: Vec<Span> = of_scopes.flat_map(|scope| scope.spans).filter(&is_meant).collect();
        if spans.len() >= count {
            return spans;
        }
        assert!(start.elapsed() < DEADLINE, "{} of {count} spans came", spans.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_request_and_its_attempts_are_spans_of_the_callers_trace() {
    let (provider, collector) = (Provider::start().await, Provider::start().await);
    provider.next(Answer::status(503));
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=s3cret-of-the-collector"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ("OTEL_SERVICE_NAME", "notify"),
    ];
    let server = world(&provider, &variables).start().await;
    let id = send(&server, &[&traceparent("01")]).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    // The questions after its status are spans too, each a trace of its own.
    let is_of_trace = |span: &Span| hex(&span.trace_id) == TRACE;
    let spans = of_trace(&collector, 3, is_of_trace).await;

    let (request, attempts) = spans.split_first().expect("spans");
    assert_eq!((request.name.as_str(), request.kind()), ("POST /notifications", SpanKind::Server));
    assert_eq!((hex(&request.trace_id), hex(&request.parent_span_id)), (TRACE.to_owned(), CALLERS_SPAN.to_owned()));
    assert_eq!(text(&request.attributes, "http.response.status_code"), "202");
    assert_eq!(text(&request.attributes, "conductor.notification.id"), id);
    assert_eq!(attempts.len(), 2);
    let received = provider.wait_for(2).await;
    for (number, (span, received)) in (1..).zip(attempts.iter().zip(&received)) {
        assert_eq!((span.name.as_str(), span.kind()), ("attempt webhook", SpanKind::Client));
        assert_eq!((hex(&span.trace_id), &span.parent_span_id), (TRACE.to_owned(), &request.span_id));
        assert_eq!(received.header("traceparent"), format!("00-{TRACE}-{}-01", hex(&span.span_id)));
        assert_eq!(text(&span.attributes, "conductor.attempt"), number.to_string());
        assert_eq!(text(&span.attributes, "conductor.tenant.id"), TENANT_A);
        assert!(span.start_time_unix_nano >= request.start_time_unix_nano);
        assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    }
    assert_eq!(text(&attempts[0].attributes, "conductor.outcome"), "retryable");
    assert_eq!(text(&attempts[0].attributes, "conductor.code"), "503");
    assert_eq!(attempts[0].status.as_ref().map(|status| status.code), Some(2));
    assert_eq!(text(&attempts[1].attributes, "conductor.outcome"), "sent");
    assert_eq!(attempts[1].status, None);
    assert_ne!(attempts[0].span_id, attempts[1].span_id);

    let delivery = story["deliveries"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(text(&attempts[1].attributes, "conductor.delivery.id"), delivery);
    let all = collector.received();
    let resource = traces(&all[0]).resource_spans[0].resource.clone().expect("a resource");
    assert_eq!(text(&resource.attributes, "service.name"), "notify");
    for request in &all {
        assert_eq!(request.header("x-collector-key"), "s3cret-of-the-collector");
        let body = String::from_utf8_lossy(&request.body);
        assert!(![TARGET, "cellar", KEY_A, ADMIN_KEY].iter().any(|word| body.contains(word)), "{body}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_the_caller_does_not_record_is_not_exported_and_what_has_no_trace_begins_one() {
    let (provider, collector) = (Provider::start().await, Provider::start().await);
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url()), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
    let server = world(&provider, &variables).start().await;
    let unrecorded = send(&server, &[&traceparent("00")]).await;
    server.wait_for(KEY_A, &unrecorded, "sent").await;
    let own = send(&server, &[]).await;
    server.wait_for(KEY_A, &own, "sent").await;
    let [first, second] = &provider.wait_for(2).await[..] else { panic!("two requests") };
    let passed_on = first.header("traceparent").to_owned();
    assert!(passed_on.starts_with(&format!("00-{TRACE}-")) && passed_on.ends_with("-00"), "{passed_on}");
    let begun = second.header("traceparent").to_owned();
    assert!(begun.ends_with("-01") && !begun.contains(TRACE), "{begun}");
    server.stop().await;
    assert_eq!(of_trace(&collector, 2, |span| hex(&span.trace_id) == begun[3..35]).await.len(), 2);
    assert!(of_trace(&collector, 2, |_| true).await.iter().all(|span| hex(&span.trace_id) != TRACE));
}

#[tokio::test]
async fn without_a_collector_a_traceparent_is_passed_on_as_it_came_also_after_a_restart() {
    let provider = Provider::start().await;
    provider.then(Answer::status(503));
    let server = world(&provider, &[]).start().await;
    let id = send(&server, &[&traceparent("01")]).await;
    provider.wait_for(1).await;
    let directory = server.stop().await;
    provider.then(Answer::status(200));
    let before = provider.received().len();
    let server = world(&provider, &[]).start_in(directory).await;
    server.wait_for(KEY_A, &id, "sent").await;
    for received in provider.wait_for(before + 1).await {
        assert_eq!(received.header("traceparent"), traceparent("01"));
    }
    let known = provider.received().len();
    let (one, other) = (traceparent("01"), traceparent("00"));
    let (upper, none) = (one.to_uppercase(), one.replace(TRACE, &"0".repeat(32)));
    for bad in [&[][..], &[&*one, &*other], &["00-junk"], &[&*upper], &[&*none]] {
        let id = send(&server, bad).await;
        server.wait_for(KEY_A, &id, "sent").await;
    }
    for received in &provider.wait_for(known + 5).await[known..] {
        assert!(!received.headers.contains_key("traceparent"), "{received:?}");
    }
}

#[tokio::test]
async fn a_whole_batch_belongs_to_the_trace_of_its_request() {
    let provider = Provider::start().await;
    let server = world(&provider, &[]).start().await;
    let item = json!({ "channel": "webhook", "message": "x" });
    let body = json!({ "notifications": [item, item, item] });
    let request = http().post(server.url("/notifications/batch")).bearer_auth(KEY_A).json(&body);
    assert_eq!(answer(request.header("traceparent", traceparent("01"))).await.0, 207);
    assert!(provider.wait_for(3).await.iter().all(|one| one.header("traceparent") == traceparent("01")));
}

fn metrics(request: &Received) -> Vec<Metric> {
    let request = ExportMetricsServiceRequest::decode(request.body.clone()).expect("what the schema says");
    let of_scopes = request.resource_metrics.into_iter().flat_map(|of| of.scope_metrics);
    of_scopes.flat_map(|scope| scope.metrics).collect()
}

#[tokio::test]
async fn the_metrics_are_exported_too() {
    let (provider, collector) = (Provider::start().await, Provider::start().await);
    let variables = [
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &*collector.url()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "50"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "authorization=Bearer%20x"),
    ];
    let server = world(&provider, &variables).start().await;
    let id = send(&server, &[]).await;
    server.wait_for(KEY_A, &id, "sent").await;
    let seen = collector.received().len();
    let received = collector.wait_for(seen + 2).await;
    let last = received.last().expect("a request");
    assert_eq!((last.path.as_str(), last.header("authorization")), ("/hook", "Bearer x"));
    let metrics = metrics(last);
    let find = |name: &str| metrics.iter().find(|metric| metric.name == name).expect(name).data.clone().expect("data");
    let metric::Data::Sum(sent) = find("conductor.deliveries_sent") else { panic!("a sum") };
    assert!(sent.is_monotonic && sent.aggregation_temporality == 2);
    let own = sent.data_points.iter().find(|point| {
        text(&point.attributes, "tenant") == TENANT_A && text(&point.attributes, "channel_type") == "webhook"
    });
    let own = own.expect("the tenant's series");
    assert_eq!(own.value, Some(number_data_point::Value::AsInt(1)));
    assert!(own.start_time_unix_nano > 0 && own.time_unix_nano > own.start_time_unix_nano);
    let metric::Data::Histogram(age) = find("conductor.queue_age") else { panic!("a histogram") };
    let age = age.data_points.iter().find(|point| text(&point.attributes, "channel_type") == "webhook").expect("it");
    assert_eq!((age.count, age.bucket_counts.iter().sum::<u64>()), (1, 1));
    assert_eq!(age.bucket_counts.len(), age.explicit_bounds.len() + 1);
    let metric::Data::Gauge(memory) = find("process.resident_memory") else { panic!("a gauge") };
    assert!(matches!(memory.data_points[0].value, Some(number_data_point::Value::AsInt(bytes)) if bytes > 1_000_000));
    server.stop().await;
}

/// The value of one of the operator's metrics without labels.
async fn value(server: &TestServer, name: &str) -> u64 {
    let (_, text) = server.get(ADMIN_KEY, "/metrics").await;
    let text = text.as_str().expect("a text").to_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing in:\n{text}")).parse().expect("a number")
}

#[tokio::test]
async fn a_collector_that_hangs_or_is_gone_disturbs_nobody() {
    let (provider, hanging) = (Provider::start().await, Provider::start().await);
    let never = CancellationToken::new();
    hanging.then(Answer::status(200).held_until(&never));
    let gone = "http://127.0.0.1:9/";
    for address in [hanging.url().as_str(), gone] {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", address),
            ("OTEL_BSP_SCHEDULE_DELAY", "1"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "10"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "5"),
        ];
        let server = world(&provider, &variables).start().await;
        let start = Instant::now();
        for _ in 0..20 {
            let id = send(&server, &[]).await;
            server.wait_for(KEY_A, &id, "sent").await;
        }
        assert!(start.elapsed() < DEADLINE / 2, "{:?}", start.elapsed());
        // 20 requests and 20 attempts: what the queue does not hold is let go.
        assert!(value(&server, "conductor_telemetry_spans_dropped_total").await >= 20);
        let start = Instant::now();
        server.stop().await;
        assert!(start.elapsed() < Duration::from_secs(8), "the stop took {:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_reads_its_environment_and_its_log_names_the_trace() {
    let collector = Provider::start().await;
    let directory = tempfile::TempDir::new().expect("a directory");
    let mut command = serving(directory.path(), &World::new());
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()).env("OTEL_BSP_SCHEDULE_DELAY", "20");
    command.env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=s3cret-of-the-collector").env("OTEL_TRACES_SAMPLER", "nonsense");
    let process = Process::serve(&mut command);
    let body = json!({ "channel": "log", "message": "x" });
    let request = http().post(format!("{}/notifications", process.url)).bearer_auth(KEY_A).json(&body);
    assert_eq!(answer(request.header("traceparent", traceparent("01"))).await.0, 202);
    let spans = of_trace(&collector, 2, |span| hex(&span.trace_id) == TRACE).await;
    assert_eq!(spans.iter().filter(|span| span.name == "attempt log").count(), 1);
    let ended = process.stop().with(0);
    let lines = |words: &str| ended.err.lines().filter(|line| line.contains(words)).collect::<Vec<_>>();
    for words in ["Request answered", "Notification sent"] {
        let found = lines(words);
        assert!(found.len() == 1 && found[0].contains(&format!("trace.id={TRACE}")), "{found:?}");
    }
    assert!(ended.out.contains("OTEL_TRACES_SAMPLER"), "{}", ended.out);
    assert!(!ended.text().contains("s3cret"), "{}", ended.text());
    // What was counted last goes out with the stop.
    assert!(collector.received().iter().any(|request| request.path == "/hook/v1/metrics"));
}
