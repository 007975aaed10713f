//! How long it takes from a request to the provider, beside whatever else the server does.

use std::time::{Duration, Instant};

use serde_json::json;

use super::provider::Provider;
use super::server::{KEY_B, TestServer};

/// So many are sent for one figure, one after so long a time.
const COUNT: usize = 100;
const PACE: Duration = Duration::from_millis(50);
/// A busy machine adds so much to the slowest of them, whatever the server does.
const NOISE: Duration = Duration::from_millis(100);

/// The 99th percentile of the time from a request of tenant B to the arrival at its provider, 20 a second.
pub(crate) async fn p99(server: &TestServer, provider: &Provider) -> Duration {
    let before = provider.received().len();
    let mut posted = Vec::new();
    let mut ticks = tokio::time::interval(PACE);
    for number in 0..COUNT {
        ticks.tick().await;
        posted.push(Instant::now());
        server.send(KEY_B, &json!({ "channel": "webhook", "message": number.to_string() })).await;
    }
    let received = provider.wait_for(before + COUNT).await;
    let took = |received: &super::provider::Received| {
        let number: usize = received.message().parse().expect("the number that was sent");
        received.at.saturating_duration_since(posted[number])
    };
    let mut times: Vec<_> = received[before..].iter().map(took).collect();
    times.sort_unstable();
    times[COUNT - COUNT / 100 - 1]
}

/// Fails unless the time is what it was on the idle server: at most twice that, and what a busy machine adds.
#[track_caller]
pub(crate) fn expect_as_idle(idle: Duration, now: Duration, beside: &str) {
    eprintln!("p99 from request to provider: {idle:?} on the idle server, {now:?} beside {beside}");
    assert!(now <= idle * 2 + NOISE, "{idle:?} on the idle server, {now:?} beside {beside}");
}
