//! How long it takes from a request to the provider, beside whatever else the server does.

use std::time::{Duration, Instant};

use serde_json::json;

use super::provider::Provider;
use super::server::{KEY_B, TestServer};

/// So many are sent for one figure, one after so long a time.
const COUNT: usize = 100;
const PACE: Duration = Duration::from_millis(50);
/// A busy machine adds so much to nine of ten of them, whatever the server does, and so much to the slowest.
const NOISE: Duration = Duration::from_millis(50);
const NOISE_OF_SLOWEST: Duration = Duration::from_millis(100);

/// How long it took from the requests to the provider, the shortest first.
#[derive(Debug)]
pub(crate) struct Latency(Vec<Duration>);

impl Latency {
    /// Times from requests of tenant B to the arrival at its provider, 20 a second.
    pub(crate) async fn of(server: &TestServer, provider: &Provider) -> Self {
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
        Self(times)
    }

    fn percentile(&self, percent: usize) -> Duration {
        self.0[(COUNT * percent).div_ceil(100) - 1]
    }
}

/// Fails unless it takes what it took on the idle server: at most twice that, and what a busy machine adds. One stall
/// of the machine's disk is two of a hundred, so that the slowest but one counts only with `LATENCY_P99` set.
#[track_caller]
pub(crate) fn expect_as_idle(idle: &Latency, now: &Latency, beside: &str) {
    for percent in [50, 90, 99] {
        let (idle, now) = (idle.percentile(percent), now.percentile(percent));
        let told = format!("p{percent} from request to provider: {idle:?} on the idle server, {now:?} beside {beside}");
        eprintln!("{told}");
        let noise = if percent == 99 { NOISE_OF_SLOWEST } else { NOISE };
        assert!(now <= idle * 2 + noise || (percent == 99 && !counts_slowest()), "{told}");
    }
}

#[expect(clippy::disallowed_methods, reason = "how strict a test is, is not the server's configuration")]
fn counts_slowest() -> bool {
    std::env::var_os("LATENCY_P99").is_some()
}
