//! What else of a tenant follows: where it hears of state changes, and how long what it sent is kept.

use std::time::Duration;

use conductor_core::TenantId;
use serde_json::json;

use super::super::support::provider::Provider;
use super::super::support::server::{KEY_A, TENANT_A, WEBHOOK_SECRET, World};

#[tokio::test]
async fn callbacks_and_retention_go_by_the_configuration_in_use() {
    let (first, second) = (Provider::start().await, Provider::start().await);
    let world = |url: Option<String>, retention: &str| {
        let mut world = World::new();
        let (allowed, events) = (json!(["127.0.0.0/8"]), json!(["notification.sent"]));
        let callback = |url| json!({ "url": url, "secretEnvVar": "HOOK", "allowNetworks": allowed, "events": events });
        let callbacks = url.map(callback);
        world.tenants[0]["callbacks"] = callbacks.into_iter().collect();
        world.tenants[0]["retention"] = json!(retention);
        world.variables.push(("HOOK".into(), WEBHOOK_SECRET.into()));
        world
    };
    let hello = json!({ "channel": "log", "message": "hello" });
    let server = world(None, "1h").start().await;
    let id = server.send(KEY_A, &hello).await;
    server.wait_for(KEY_A, &id, "sent").await;
    let tenant: TenantId = TENANT_A.parse().expect("an id");
    let kept = || server.server.app().registry().retention().tenants[&tenant].whole;
    assert_eq!(kept(), Some(Duration::from_secs(3_600)));

    assert_eq!(server.reload(&world(Some(first.url()), "2h")).await.0, 200);
    assert_eq!(kept(), Some(Duration::from_secs(7_200)));
    let id = server.send(KEY_A, &hello).await;
    let told = first.wait_for(1).await;
    assert_eq!((&told[0].json()["type"], &told[0].json()["data"]["id"]), (&json!("notification.sent"), &json!(id)));

    assert_eq!(server.reload(&world(Some(second.url()), "2h")).await.0, 200);
    let id = server.send(KEY_A, &hello).await;
    assert_eq!(second.wait_for(1).await[0].json()["data"]["id"], json!(id));
    assert_eq!(first.received().len(), 1, "it is configured no more");
    server.stop().await;
}
