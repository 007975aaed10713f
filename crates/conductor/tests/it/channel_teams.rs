//! Microsoft Teams through the whole server.

use serde_json::json;

use super::support::provider::{Answer, Provider};
use super::support::server::{KEY_A, TENANT_A, World};

#[tokio::test]
async fn a_card_reaches_the_workflow_and_none_is_too_large() {
    let provider = Provider::start().await;
    provider.then(Answer::status(202));
    let mut world = World::new();
    world.plugins = json!([{ "name": "log" }, { "name": "teams" }]);
    world.channels.push(json!({
        "tenantId": TENANT_A, "channelType": "teams", "channelName": "office", "providerSecretEnvVar": "HOOK",
        "options": { "allowNetworks": ["127.0.0.0/8"] },
    }));
    world.variables.push(("HOOK".into(), format!("{}?sig=a-secret", provider.url())));
    let server = world.start().await;
    let text = "The \"pump\" is off.\n".repeat(2_500);
    let body = json!({ "channel": "teams", "title": "Pump", "message": text, "priority": "high" });
    let id = server.send(KEY_A, &body).await;
    server.wait_for(KEY_A, &id, "sent").await;
    let received = provider.received();
    assert!(received.len() > 1, "{}", received.len());
    for (index, received) in received.iter().enumerate() {
        assert!(received.body.len() <= 28_000, "{}", received.body.len());
        let card = received.json()["attachments"][0]["content"]["body"].clone();
        assert_eq!(card[0]["text"] == "⚠️ HIGH PRIORITY" && card[1]["text"] == "Pump", index == 0);
    }
}
