//! `retry`, `cancel`, `resolve`, one by one and many at once.

use async_trait::async_trait;
use conductor_channels::{ChannelContext, ChannelPlugin, InitError, Plugin, Setting};
use conductor_core::{Channel, Limits, Message, Problems, Receipt, SendError, SendErrorKind};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::provider::{Answer, Provider};
use crate::support::server::{KEY_A, TENANT_A, TestServer, World};

/// A server whose tenant A has a webhook channel on a provider that refuses everything for good.
async fn refusing() -> (TestServer, Client, Provider) {
    let provider = Provider::start().await;
    provider.then(Answer::status(404));
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    let client = Client::new(&server, Some(KEY_A));
    (server, client, provider)
}

async fn dead_letter(client: &Client, message: &str) -> String {
    let id = client.send(&json!({ "channel": "webhook", "message": message })).await;
    client.until(&id, "failed").await;
    id
}

#[tokio::test]
async fn a_dead_letter_is_sent_again_with_a_fresh_expiry() {
    let (_server, client, provider) = refusing().await;
    let id = client.send(&json!({ "channel": "webhook", "message": "m", "expiresAt": "2999-01-01T00:00:00Z" })).await;
    client.until(&id, "failed").await;
    provider.then(Answer::status(200));
    let state = client.act(&format!("/notifications/{id}/retry")).await.expect(200);
    assert!(["queued", "sending", "sent"].iter().any(|word| state["status"] == *word), "{state}");
    let story = client.until(&id, "sent").await;
    assert_eq!(story["deliveries"].as_array().unwrap().len(), 2);
    assert_eq!(story["deliveries"][0]["status"], "failed");
}

#[tokio::test]
async fn a_dead_letter_goes_another_way() {
    let (_server, client, _provider) = refusing().await;
    for body in [json!({ "channel": "log" }), json!({ "channel": "log", "targetId": "elsewhere" })] {
        let id = dead_letter(&client, "m").await;
        client.post(&format!("/notifications/{id}/retry"), &body).await.expect(200);
        let story = client.until(&id, "sent").await;
        assert_eq!(story["deliveries"][1]["channel"], "log");
        assert_eq!(story["deliveries"][1]["targetId"], body["targetId"]);
    }
    let id = dead_letter(&client, "m").await;
    client.post(&format!("/notifications/{id}/retry"), &json!({ "targetId": "elsewhere" })).await.expect(200);
    let story = client.until(&id, "failed").await;
    assert_eq!(story["deliveries"][1]["channel"], "webhook");
    assert_eq!(story["deliveries"][1]["targetId"], "elsewhere");
    for bad in [json!({ "channel": "nowhere" }), json!({ "chanel": "log" }), json!([]), json!({ "targetId": "" })] {
        client.post(&format!("/notifications/{id}/retry"), &bad).await.problem(400);
    }
}

#[tokio::test]
async fn a_change_that_the_status_does_not_allow_is_refused() {
    let (_server, client, _provider) = refusing().await;
    let sent = client.send(&json!({ "channel": "log", "message": "m" })).await;
    client.until(&sent, "sent").await;
    for action in ["retry", "cancel", "resolve"] {
        let refused = client.act(&format!("/notifications/{sent}/{action}")).await.problem(409);
        assert_eq!(refused["type"], "/docs#problem-wrong-status");
        assert_eq!(refused["notificationStatus"], "sent");
    }
    for id in ["01943c2a-7c3e-7000-8000-00000000ffff", "no-uuid", "%ff"] {
        for action in ["retry", "cancel", "resolve"] {
            client.act(&format!("/notifications/{id}/{action}")).await.problem(404);
        }
        client.get(&format!("/notifications/{id}")).await.problem(404);
    }
}

#[tokio::test]
async fn what_waits_can_be_taken_back() {
    let (_server, client, _provider) = refusing().await;
    let body = json!({ "channel": "log", "message": "m", "sendAt": "2999-01-01T00:00:00Z" });
    let id = client.send(&body).await;
    let state = client.act(&format!("/notifications/{id}/cancel")).await.expect(200);
    assert_eq!((&state["status"], &state["id"]), (&json!("canceled"), &json!(id)));
    client.act(&format!("/notifications/{id}/cancel")).await.problem(409);
}

#[tokio::test]
async fn a_held_one_is_resolved_or_sent_again() {
    let mut world = World::new();
    world.table = WITH_SILENT;
    world.plugins = json!([{ "name": "log" }, { "name": "silent" }]);
    let silent = json!({ "tenantId": TENANT_A, "channelType": "silent", "options": { "onUnknown": "hold" } });
    world.channels.push(silent);
    let server = world.start().await;
    let client = Client::new(&server, Some(KEY_A));
    let body = json!({ "channel": "silent", "message": "m" });
    let waited = client.post_with("/notifications", &[("prefer", "wait=20")], &body).await;
    let held = waited.expect(202);
    assert_eq!(held["status"], "held");
    let id = held["id"].as_str().unwrap();
    assert_eq!(retry_many(&client, &json!({ "dryRun": true })).await["matched"], 0);
    assert_eq!(retry_many(&client, &json!({ "dryRun": true, "status": "held" })).await["matched"], 1);
    let state = client.act(&format!("/notifications/{id}/resolve")).await.expect(200);
    assert_eq!(state["status"], "sent");
    client.act(&format!("/notifications/{id}/resolve")).await.problem(409);
    let other = client.send(&body).await;
    client.until(&other, "held").await;
    client.post(&format!("/notifications/{other}/retry"), &json!({ "channel": "log" })).await.expect(200);
    client.until(&other, "sent").await;
}

/// A channel that never hears an answer.
struct Silent;

static WITH_SILENT: &[Plugin] = &[Plugin::of::<conductor_channels::log::Log>(), Plugin::of::<Silent>()];

/// Takes no setting and no option.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[async_trait]
impl Channel for Silent {
    async fn send(&self, _: &Message) -> Result<Receipt, SendError> {
        Err(SendError::new(SendErrorKind::Unknown, "no answer came"))
    }
}

impl ChannelPlugin for Silent {
    const KIND: &'static str = "silent";
    const ABOUT: &'static str = "Never hears an answer.";
    const SETTINGS: &'static [Setting] = &[];
    const LIMITS: Limits = Limits::NONE;
    type Config = Nothing;
    fn validate(_: &Nothing, _: &mut Problems) {}
    async fn initialize(_: Nothing, _: ChannelContext) -> Result<Self, InitError> {
        Ok(Self)
    }
}

async fn retry_many(client: &Client, body: &Value) -> Value {
    client.post("/notifications/retry", body).await.expect(200)
}

#[tokio::test]
async fn many_dead_letters_are_counted_filtered_and_sent_again() {
    let (_server, client, provider) = refusing().await;
    for message in ["red one", "red two", "blue"] {
        dead_letter(&client, message).await;
    }
    client.send(&json!({ "channel": "log", "message": "red but sent" })).await;
    let dry = retry_many(&client, &json!({ "dryRun": true })).await;
    assert_eq!(dry, json!({ "matched": 3, "more": false }));
    assert_eq!(retry_many(&client, &json!({ "dryRun": true, "q": "RED" })).await["matched"], 2);
    assert_eq!(retry_many(&client, &json!({ "dryRun": true, "status": "expired" })).await["matched"], 0);
    assert_eq!(retry_many(&client, &json!({ "dryRun": true, "channel": "log" })).await["matched"], 0);
    let before = provider.received().len();
    provider.then(Answer::status(200));
    let done = retry_many(&client, &json!({ "q": "red" })).await;
    for (member, value) in
        [("status", json!("done")), ("matched", json!(2)), ("retried", json!(2)), ("skipped", json!(0))]
    {
        assert_eq!(done[member], value, "{done}");
    }
    provider.wait_for(before + 2).await;
    let redirected = retry_many(&client, &json!({ "redirect": { "channel": "log" } })).await;
    assert_eq!(redirected["retried"], 1);
    let list = client.get("/notifications?q=blue").await.expect(200);
    let story = client.until(list["data"][0]["id"].as_str().unwrap(), "sent").await;
    assert_eq!(story["deliveries"][1]["channel"], "log");
    assert_eq!(client.act("/notifications/retry").await.expect(200)["matched"], 0);
}

#[tokio::test]
async fn a_rate_spreads_them_over_time() {
    let (_server, client, _provider) = refusing().await;
    let mut ids = Vec::new();
    for message in ["one", "two", "three"] {
        ids.push(dead_letter(&client, message).await);
    }
    let done = retry_many(&client, &json!({ "rate": { "per": "8s", "limit": 2 } })).await;
    assert_eq!(done["retried"], 3);
    let due = async |id: &str| {
        let story = client.get(&format!("/notifications/{id}")).await.expect(200);
        let due = story["deliveries"][1]["dueAt"].as_str().map(|text| conductor_core::Timestamp::parse(text).unwrap());
        due.map(conductor_core::Timestamp::seconds)
    };
    let (one, two) = (due(&ids[0]).await.expect("due later"), due(&ids[1]).await.expect("due later"));
    assert!((3..=5).contains(&(one - two)), "{one} {two}");
}

#[tokio::test]
async fn a_wish_that_is_unclear_is_refused() {
    let (_server, client, _provider) = refusing().await;
    for (bad, field) in [
        (json!({ "status": "sent" }), "status"),
        (json!({ "rate": 0 }), "rate"),
        (json!({ "rate": { "per": "soon", "limit": 1 } }), "rate.per"),
        (json!({ "dryrun": true }), "dryrun"),
        (json!({ "redirect": {} }), "redirect.channel"),
        (json!({ "redirect": { "channel": "nowhere" } }), "redirect.channel"),
        (json!({ "limit": 5 }), "limit"),
    ] {
        let refused = client.post("/notifications/retry", &bad).await;
        refused.problem(400);
        assert_eq!(refused.fields(), [field], "{bad}");
    }
}
