//! Mattermost through the whole server.

use serde_json::json;

use super::support::provider::{Answer, Provider};
use super::support::server::{KEY_A, TENANT_A, TestServer, World};

async fn with_mattermost(provider: &Provider) -> TestServer {
    let mut world = World::new();
    world.plugins = json!([{ "name": "log" }, { "name": "mattermost" }]);
    world.channels.push(json!({
        "tenantId": TENANT_A, "channelType": "mattermost", "channelName": "chat",
        "env": { "botToken": "BOT" },
        "options": {
            "serverUrl": provider.url(), "channelId": "4xp9fdt77pncbef59f4k1qe83o", "allowNetworks": ["127.0.0.0/8"],
        },
    }));
    world.variables.push(("BOT".into(), "a-bots-token".into()));
    world.start().await
}

#[tokio::test]
async fn a_post_is_made_once_more_with_the_same_id_when_the_server_was_busy() {
    let provider = Provider::start().await;
    provider.next(Answer::status(503).header("retry-after", "0"));
    provider.then(Answer { body: r#"{"id":"q1w2e3r4t5y6u7i8o9p0a1s2d3"}"#, ..Answer::status(201) });
    let server = with_mattermost(&provider).await;
    let body = json!({ "channel": "mattermost", "title": "Pump", "message": "**off** @all", "format": "markdown" });
    let id = server.send(KEY_A, &body).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(story["deliveries"][0]["providerId"], "q1w2e3r4t5y6u7i8o9p0a1s2d3");
    let received = provider.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].header("authorization"), "Bearer a-bots-token");
    assert_eq!(received[0].json(), received[1].json());
    assert_eq!(received[0].json()["message"], "**Pump**\n**off** @\u{200B}all");
    assert_eq!(received[0].json()["pending_post_id"], story["deliveries"][0]["id"]);
}
