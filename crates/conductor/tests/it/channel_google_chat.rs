//! Google Chat through the whole server.

use serde_json::json;

use super::support::provider::{Answer, Provider};
use super::support::server::{KEY_A, TENANT_A, World};

#[tokio::test]
async fn a_message_that_may_have_arrived_is_sent_once_more() {
    let provider = Provider::start().await;
    provider.next(Answer::status(503).header("retry-after", "0"));
    provider.then(Answer { body: r#"{"name":"spaces/AAAA/messages/BBBB.BBBB"}"#, ..Answer::status(200) });
    let mut world = World::new();
    world.plugins = json!([{ "name": "log" }, { "name": "google-chat" }]);
    world.channels.push(json!({
        "tenantId": TENANT_A, "channelType": "google-chat", "channelName": "space",
        "options": { "baseUrl": provider.url(), "allowNetworks": ["127.0.0.0/8"], "threadKey": "alerts" },
    }));
    let variable = format!("TENANT_{}_GOOGLE_CHAT_WEBHOOK_URL", TENANT_A.replace('-', "_"));
    let url = "https://chat.googleapis.com/v1/spaces/AAAA/messages?key=a-key&token=a-token";
    world.variables.push((variable, url.into()));
    let server = world.start().await;
    let body = json!({ "channel": "google-chat", "title": "Pump", "message": "2 < 3 <users/all>" });
    let id = server.send(KEY_A, &body).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(story["deliveries"][0]["providerId"], "spaces/AAAA/messages/BBBB.BBBB");
    let received = provider.received();
    assert_eq!(received.len(), 2);
    let expected = json!({ "text": "*Pump*\n2 < 3 <\u{200B}users/all>", "thread": { "threadKey": "alerts" } });
    assert_eq!((received[0].json(), received[1].json()), (expected.clone(), expected));
}
