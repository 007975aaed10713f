//! Plugins that misbehave, a clock that jumps, a neighbour that sends without end: what was accepted still leaves, once,
//! and nobody else is held up.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use conductor::clock::SystemClock;
use conductor::server::{Options, Server, StartError};
use conductor_channels::{ChannelContext, ChannelPlugin, InitError, PLUGINS, Plugin, Setting};
use conductor_core::{Channel, Clock, Limits, Message, Problems, Receipt, SendError, SendErrorKind, Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::support::provider::{Answer, DEADLINE, Provider};
use super::support::server::{KEY_A, KEY_B, TENANT_A, TENANT_B, TestServer, World, answer, http};

/// The plugin `odd`: it does what the message says.
struct Odd;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoConfig {}

impl ChannelPlugin for Odd {
    const KIND: &'static str = "odd";
    const ABOUT: &'static str = "Does what the message says";
    const SETTINGS: &'static [Setting] = &[];
    const LIMITS: Limits = Limits::NONE;
    type Config = NoConfig;

    fn validate(_: &NoConfig, _: &mut Problems) {}

    async fn initialize(_: NoConfig, _: ChannelContext) -> Result<Self, InitError> {
        Ok(Self)
    }
}

static ODD: &[Plugin] = &[PLUGINS[0], PLUGINS[1], Plugin::of::<Odd>()];

/// What has come out of the plugin, in the order in which it came.
static SENT: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct PanicsAtItsEnd;

impl Drop for PanicsAtItsEnd {
    fn drop(&mut self) {
        panic!("as the test wants it");
    }
}

#[async_trait]
impl Channel for Odd {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let again = message.attempt > 1;
        match message.body.split(':').next() {
            Some("panic") if !again => panic!("as the test wants it"),
            Some("panic at the end") if !again => {
                let _end = PanicsAtItsEnd;
                std::future::pending::<()>().await;
            }
            Some("never") if !again => std::future::pending().await,
            Some("unknown") if !again => return Err(SendError::new(SendErrorKind::Unknown, "no answer")),
            _ => {}
        }
        SENT.lock().unwrap().push(message.body.clone());
        Ok(Receipt::default())
    }

    async fn shutdown(&self) {
        std::future::pending::<()>().await;
    }
}

fn odd_world(options: &Value) -> World {
    let mut world = World { table: ODD, ..World::new() };
    world.plugins = json!([{ "name": "log" }, { "name": "webhook" }, { "name": "odd" }]);
    for (tenant, name) in [(TENANT_A, "odd a"), (TENANT_B, "odd b")] {
        world
            .channels
            .push(json!({ "tenantId": tenant, "channelType": "odd", "channelName": name, "options": options }));
    }
    world
}

fn odd(message: &str) -> Value {
    json!({ "channel": "odd", "message": message })
}

fn outcomes(story: &Value) -> Vec<&str> {
    let attempts = story["deliveries"][0]["attempts"].as_array().into_iter().flatten();
    attempts.filter_map(|attempt| attempt["outcome"].as_str()).collect()
}

#[tokio::test]
async fn a_plugin_that_panics_or_never_returns_takes_neither_its_channel_nor_its_lane_along() {
    let server = odd_world(&json!({ "maxConcurrency": 1, "timeout": "1s" })).start().await;
    let mut ids = Vec::new();
    for (message, outcome) in [("panic:1", "retryable"), ("never:1", "unknown"), ("panic at the end:1", "retryable")] {
        ids.push((server.send(KEY_A, &odd(message)).await, outcome));
    }
    let last = server.send(KEY_A, &odd("fine:1")).await;
    server.wait_for(KEY_A, &last, "sent").await;
    for (id, outcome) in ids {
        let story = server.wait_for(KEY_A, &id, "sent").await;
        assert_eq!(outcomes(&story), [outcome, "sent"], "{story:#}");
    }
    let start = Instant::now();
    server.stop().await;
    assert!(start.elapsed() < Duration::from_secs(9), "two channels that do not shut down: {:?}", start.elapsed());
}

#[tokio::test]
async fn an_unknown_outcome_is_held_or_tried_again_as_the_channel_says() {
    let server = odd_world(&json!({ "onUnknown": "hold", "timeout": "1s" })).start().await;
    for message in ["unknown:hold", "never:hold"] {
        let id = server.send(KEY_A, &odd(message)).await;
        let story = server.wait_for(KEY_A, &id, "held").await;
        assert_eq!(outcomes(&story), ["unknown"]);
        assert_eq!(server.post(KEY_A, &format!("/notifications/{id}/retry"), &json!({})).await.0, 200);
        server.wait_for(KEY_A, &id, "sent").await;
    }
    let server = odd_world(&json!({ "onUnknown": "retry" })).start().await;
    let id = server.send(KEY_A, &odd("unknown:retry")).await;
    assert_eq!(outcomes(&server.wait_for(KEY_A, &id, "sent").await), ["unknown", "sent"]);
}

/// The system's clock, put forward or back.
pub(crate) struct Shifted(AtomicI64);

impl Shifted {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(0)))
    }

    pub(crate) fn shift(&self, by: i64) {
        self.0.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for Shifted {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(SystemClock.now().millis() + self.0.load(Ordering::SeqCst))
    }
}

const HOUR: i64 = 3_600_000;

/// When this has been sent, the dispatcher has looked at the clock, and at all that was due before.
async fn marker(server: &TestServer, name: &str) {
    let id = server.send(KEY_B, &odd(name)).await;
    server.wait_for(KEY_B, &id, "sent").await;
}

#[tokio::test]
async fn what_is_scheduled_leaves_when_the_clock_says_so_however_it_jumps() {
    let clock = Shifted::new();
    let server = World { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..odd_world(&json!({})) }.start().await;
    let at = clock.now().plus(Duration::from_secs(3_600));
    let body = json!({ "channel": "odd", "message": "fine:scheduled", "sendAt": at.to_string() });
    let id = server.send(KEY_A, &body).await;
    let status = async |expected: &str| {
        let (_, story) = server.get(KEY_A, &format!("/notifications/{id}")).await;
        assert_eq!(story["status"], expected);
    };
    clock.shift(-HOUR);
    marker(&server, "fine:an hour back").await;
    status("scheduled").await;
    clock.shift(HOUR + HOUR / 2);
    marker(&server, "fine:half an hour on").await;
    status("scheduled").await;
    clock.shift(HOUR);
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(outcomes(&story), ["sent"]);
    // Put back again: what is over stays over.
    clock.shift(-2 * HOUR);
    marker(&server, "fine:two hours back").await;
    status("sent").await;
    assert_eq!(SENT.lock().unwrap().iter().filter(|sent| *sent == "fine:scheduled").count(), 1);
}

#[tokio::test]
async fn a_clock_that_is_put_back_stops_no_channel() {
    let (paced, limited) = (Provider::start().await, Provider::start().await);
    let clock = Shifted::new();
    let rate = json!({ "rate": { "per": "1s", "limit": 2, "burst": 1 } });
    let world = World { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..World::new() };
    let world = world.webhook(TENANT_A, "paced", &paced.url(), &rate);
    let server = world.webhook(TENANT_B, "limited", &limited.url(), &json!({})).start().await;
    limited.next(Answer::status(429).header("retry-after", "1"));
    let send = async |key, message: &str| {
        server.send(key, &json!({ "channel": "webhook", "message": message, "targetId": message })).await
    };
    send(KEY_A, "1").await;
    let waits = send(KEY_B, "limited").await;
    paced.wait_for(1).await;
    server.wait_for(KEY_B, &waits, "retrying").await;
    clock.shift(-HOUR);
    let start = Instant::now();
    for message in ["2", "3"] {
        let id = send(KEY_A, message).await;
        server.wait_for(KEY_A, &id, "sent").await;
    }
    let other = send(KEY_B, "other").await;
    server.wait_for(KEY_B, &other, "sent").await;
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let (_, story) = server.get(KEY_B, &format!("/notifications/{waits}")).await;
    assert_eq!(story["status"], "retrying", "its own time has not come by the clock");
    clock.shift(HOUR);
    server.wait_for(KEY_B, &waits, "sent").await;
}

#[tokio::test]
async fn what_turns_out_not_to_be_due_yet_waits_and_is_sent_in_its_time() {
    let provider = Provider::start().await;
    let clock = Shifted::new();
    let world = World { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..World::new() };
    let world = world.webhook(TENANT_A, "hook", &provider.url(), &json!({ "maxConcurrency": 1 }));
    let slow = Answer::status(200).after(Duration::from_millis(500));
    provider.next(slow.clone());
    let server = world.clone().start().await;
    let mut ids = Vec::new();
    for message in ["1", "2", "3"] {
        ids.push(server.send(KEY_A, &json!({ "channel": "webhook", "message": message, "targetId": message })).await);
    }
    // The next process reads the others back, so that it sees what they are due at.
    provider.wait_for(1).await;
    let directory = server.stop().await;
    provider.next(slow);
    let server = world.start_in(directory).await;
    provider.wait_for(2).await;
    clock.shift(-HOUR);
    server.wait_for(KEY_A, &ids[1], "sent").await;
    let (_, channels) = server.get(KEY_A, "/channels").await;
    assert_eq!(channels["data"][1]["queued"], 1);
    assert_eq!(provider.received().len(), 2, "nothing is sent before its time");
    clock.shift(HOUR);
    server.wait_for(KEY_A, &ids[2], "sent").await;
    assert_eq!(provider.received().len(), 3);
}

/// The median and the longest time from the request to the outcome.
async fn to_outcome(server: &TestServer, count: usize) -> (Duration, Duration) {
    let mut times = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        let request = http().post(server.url("/notifications")).bearer_auth(KEY_B).header("prefer", "wait=20");
        let (status, told) = answer(request.json(&odd("fine:timed"))).await;
        assert_eq!(status, 200, "{told}");
        times.push(start.elapsed());
        // Not in step with what the other tenant's channel does.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(10..60))).await;
    }
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() - 1])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_with_fifty_thousand_in_the_queue_delays_nobody_else() {
    let provider = Provider::start().await;
    provider.then(Answer::status(200).after(Duration::from_millis(20)));
    let world = odd_world(&json!({}));
    let server = world.webhook(TENANT_A, "busy", &provider.url(), &json!({ "maxConcurrency": 4 })).start().await;
    let (idle, _) = to_outcome(&server, 31).await;
    let targets = |batch: usize| (0..1_000).map(move |n| format!("{}", (batch * 1_000 + n) % 97));
    for batch in 0..50 {
        let one = |target| json!({ "channel": "webhook", "message": "x", "priority": "high", "targetId": target });
        let all: Vec<Value> = targets(batch).map(one).collect();
        let (status, _) = server.post(KEY_A, "/notifications/batch", &json!({ "notifications": all })).await;
        assert_eq!(status, 207);
    }
    let (_, channels) = server.get(KEY_A, "/channels").await;
    let queued =
        channels["data"].as_array().unwrap().iter().filter_map(|channel| channel["queued"].as_u64()).sum::<u64>();
    assert!(queued > 40_000, "only {queued} wait: the test proves nothing");
    let (busy, longest) = to_outcome(&server, 31).await;
    eprintln!("median to the outcome: {idle:?} alone, {busy:?} beside {queued} queued; longest {longest:?}");
    assert!(busy < idle * 5 + Duration::from_millis(50), "{idle:?} alone, {busy:?} beside {queued} queued");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused_and_the_first_goes_on() {
    let world = World::new();
    let server = world.clone().start().await;
    let (directory, config) = (server.directory(), server.directory().join("config"));
    let environment = conductor::config::environment::Environment::from_pairs(world.variables.clone());
    let (configuration, _) = conductor::config::load(&config, &environment, PLUGINS).unwrap_or_else(|r| panic!("{r}"));
    let source = conductor::config::Source {
        config_dir: config,
        plugins: PLUGINS,
        settings: None,
        environment: Box::new(|| conductor::config::environment::Environment::from_pairs([("A", "B")])),
    };
    let second = Server::start(Options {
        configuration,
        source,
        data_dir: directory.to_owned(),
        listener: std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
        metrics_listener: None,
        public_url: None,
        plugins: PLUGINS,
        clock: Arc::new(SystemClock),
        limits: world.limits,
        audit_kept: None,
        trusted_proxies: Vec::new(),
    });
    assert!(matches!(second.await, Err(StartError::Store(_))));
    let id = server.send(KEY_A, &json!({ "channel": "log", "message": "x" })).await;
    server.wait_for(KEY_A, &id, "sent").await;
}

#[tokio::test]
async fn a_store_that_is_gone_is_told_at_once() {
    let server = World::new().start().await;
    server.server.app().store.close().await;
    let start = Instant::now();
    // Only a new start mends it, so that an orchestrator has to be told.
    for path in ["/livez", "/readyz", "/notifications"] {
        assert_eq!(server.get(KEY_A, path).await.0, 503, "{path}");
    }
    assert_eq!(server.post(KEY_A, "/notifications", &json!({ "channel": "log", "message": "x" })).await.0, 503);
    assert_eq!(server.get(KEY_A, "/health").await.0, 200);
    assert!(start.elapsed() < DEADLINE / 4);
}

#[tokio::test]
async fn what_expires_does_so_by_the_clock_however_it_jumps_and_a_pause_ends_with_it() {
    let provider = Provider::start().await;
    let clock = Shifted::new();
    let world = World { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..World::new() };
    let server = world.webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    provider.next(Answer::status(429).header("retry-after", "1800"));
    let send = async |message: &str, minutes: i64| {
        let at = Timestamp::from_millis(clock.now().millis() + minutes * 60_000);
        let body =
            json!({ "channel": "webhook", "message": message, "targetId": message, "expiresAt": at.to_string() });
        server.send(KEY_A, &body).await
    };
    // The channel is left alone for half an hour; one message cannot wait so long.
    let pauses = send("pauses", 600).await;
    server.wait_for(KEY_A, &pauses, "retrying").await;
    let (short, long) = (send("short", 20).await, send("long", 600).await);
    clock.shift(-HOUR);
    let status = async |id: &str| server.get(KEY_A, &format!("/notifications/{id}")).await.1["status"].clone();
    // It waits, and what the clock says now is before it was accepted.
    assert_eq!(status(&short).await, "scheduled");
    clock.shift(2 * HOUR);
    server.wait_for(KEY_A, &short, "expired").await;
    server.wait_for(KEY_A, &long, "sent").await;
    server.wait_for(KEY_A, &pauses, "sent").await;
    clock.shift(-HOUR);
    assert_eq!(status(&short).await, "expired", "what is over stays over");
    assert_eq!(provider.received().len(), 3);
}
