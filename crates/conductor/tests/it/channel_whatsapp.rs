//! `whatsapp` through the whole server: sent through Meta, and what Meta reports later.

use serde_json::json;

use super::support::provider::Provider;
use super::support::receipts::{WHATSAPP_CHANNEL, whatsapp_receipt, whatsapp_status, whatsapp_taken};
use super::support::server::{KEY_A, TestServer, World, http};

async fn start() -> (TestServer, Provider) {
    let provider = Provider::start().await;
    provider.then(whatsapp_taken());
    (World::new().with_receipts(&provider.url()).start().await, provider)
}

async fn status_of(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn a_template_goes_out_and_its_receipts_are_told() {
    let (server, provider) = start().await;
    let template = json!({ "name": "order_sent", "language": "en_US", "parameters": ["42"] });
    let body = json!({ "channel": "whatsapp", "message": "Order 42 was sent", "data": { "template": template } });
    let id = server.send(KEY_A, &body).await;
    let sent = provider.wait_for(1).await[0].json();
    assert_eq!((&sent["to"], &sent["template"]["name"]), (&json!("+15557654321"), &json!("order_sent")));
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(story["deliveries"][0]["providerId"], "wamid.HBgL");

    let token = sent["biz_opaque_callback_data"].as_str().expect("a token");
    for (status, expected) in
        [("sent", "sent"), ("failed", "undelivered"), ("delivered", "delivered"), ("failed", "delivered")]
    {
        assert_eq!(status_of(whatsapp_receipt(&server, &whatsapp_status(token, status))).await, 200);
        let story = server.wait_for(KEY_A, &id, expected).await;
        if expected == "undelivered" {
            let receipt = json!({ "status": "undelivered", "at": "2025-06-08T20:59:43.000Z", "code": "131026",
                "detail": "Message undeliverable" });
            assert_eq!(story["deliveries"][0]["receipt"], receipt);
        }
    }
}

#[tokio::test]
async fn only_meta_can_report_and_only_the_verify_token_opens_the_address() {
    let (server, provider) = start().await;
    let id = server.send(KEY_A, &json!({ "channel": "whatsapp", "message": "m" })).await;
    let token = provider.wait_for(1).await[0].json()["biz_opaque_callback_data"].as_str().unwrap().to_owned();
    let story = server.wait_for(KEY_A, &id, "sent").await;
    let forged =
        whatsapp_receipt(&server, &whatsapp_status(&token, "failed")).body(whatsapp_status(&token, "delivered"));
    assert_eq!(status_of(forged).await, 403);
    assert_eq!(server.get(KEY_A, &format!("/notifications/{id}")).await.1, story);

    let check = |verify: &str| {
        let query = format!("hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={verify}");
        http().get(server.url(&format!("/receipts/{WHATSAPP_CHANNEL}?{query}")))
    };
    let answer = check("the-verify-token").send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, "1158201444"));
    assert_eq!(status_of(check("another")).await, 403);
}
