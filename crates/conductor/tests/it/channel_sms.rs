//! `sms` through the whole server: sent through Twilio, and what Twilio reports later.

use serde_json::{Value, json};

use super::support::provider::{Answer, Provider, Received};
use super::support::receipts::{PUBLIC_URL, SMS_CHANNEL, form, sms_receipt, sms_taken};
use super::support::server::{KEY_A, KEY_B, TENANT_A, TestServer, World};

async fn start() -> (TestServer, Provider) {
    let provider = Provider::start().await;
    provider.then(sms_taken());
    (World::new().with_receipts(&provider.url()).start().await, provider)
}

fn field(received: &Received, name: &str) -> String {
    let mut pairs = url::form_urlencoded::parse(&received.body);
    pairs.find(|(found, _)| found == name).expect("the form has this field").1.into_owned()
}

/// The query of the address that the message wants its receipts at.
fn query(received: &Received) -> String {
    let callback = field(received, "StatusCallback");
    let prefix = format!("{PUBLIC_URL}/receipts/{SMS_CHANNEL}?");
    callback.strip_prefix(&prefix).expect("the channel's own address").to_owned()
}

async fn status_of(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.expect("an answer").status().as_u16()
}

const DELIVERED: &[(&str, &str)] =
    &[("MessageSid", "SM0123456789abcdef0123456789abcdef"), ("MessageStatus", "delivered")];
const UNDELIVERED: &[(&str, &str)] = &[("MessageStatus", "undelivered"), ("ErrorCode", "30003")];

#[tokio::test]
async fn a_receipt_tells_that_the_message_arrived() {
    let (server, provider) = start().await;
    let id = server.send(KEY_A, &json!({ "channel": "sms", "message": "The pump is off", "priority": "high" })).await;
    let received = provider.wait_for(1).await.remove(0);
    assert_eq!(field(&received, "Body"), "HIGH PRIORITY\nThe pump is off");
    assert_eq!((field(&received, "To"), field(&received, "From")), ("+15557654321".into(), "+15551234567".into()));
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(story["deliveries"][0]["providerId"], "SM0123456789abcdef0123456789abcdef");
    assert_eq!(story["deliveries"][0].get("receipt"), None);

    let query = query(&received);
    assert_eq!(status_of(sms_receipt(&server, &query, &[("MessageStatus", "sent")])).await, 200);
    assert_eq!(server.wait_for(KEY_A, &id, "sent").await, story, "it is on its way");
    assert_eq!(status_of(sms_receipt(&server, &query, DELIVERED)).await, 200);
    let story = server.wait_for(KEY_A, &id, "delivered").await;
    assert_eq!(story["deliveries"][0]["receipt"]["status"], "delivered");
    for late in [DELIVERED, UNDELIVERED] {
        assert_eq!(status_of(sms_receipt(&server, &query, late)).await, 200);
        assert_eq!(server.get(KEY_A, &format!("/notifications/{id}")).await.1, story, "nothing changes any more");
    }
}

#[tokio::test]
async fn what_did_not_arrive_is_a_dead_letter_that_can_be_sent_again() {
    let (server, provider) = start().await;
    let id = server.send(KEY_A, &json!({ "channel": "sms", "message": "m" })).await;
    let first = provider.wait_for(1).await.remove(0);
    server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(status_of(sms_receipt(&server, &query(&first), UNDELIVERED)).await, 200);
    let story = server.wait_for(KEY_A, &id, "undelivered").await;
    let receipt = &story["deliveries"][0]["receipt"];
    assert_eq!((&receipt["code"], &receipt["detail"]), (&json!("30003"), &json!("the phone is off or out of reach")));
    let (_, list) = server.get(KEY_A, "/notifications?status=undelivered").await;
    assert_eq!(list["data"][0]["id"], id);
    let (status, _) = server.post(KEY_A, &format!("/notifications/{id}/retry"), &json!({})).await;
    assert_eq!(status, 200);
    let second = provider.wait_for(2).await.remove(1);
    server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(status_of(sms_receipt(&server, &query(&second), DELIVERED)).await, 200);
    let story = server.wait_for(KEY_A, &id, "delivered").await;
    let statuses: Vec<&Value> = story["deliveries"].as_array().unwrap().iter().map(|d| &d["status"]).collect();
    assert_eq!(statuses, ["undelivered", "delivered"]);
}

#[tokio::test]
async fn what_did_not_arrive_goes_on_to_the_fallback() {
    let (sms, hook) = (Provider::start().await, Provider::start().await);
    sms.then(sms_taken());
    let world = World::new().with_receipts(&sms.url()).webhook(TENANT_A, "hook", &hook.url(), &json!({}));
    let server = world.start().await;
    let body = json!({ "channel": "sms", "message": "m", "fallback": [{ "channel": "webhook" }] });
    let id = server.send(KEY_A, &body).await;
    let first = sms.wait_for(1).await.remove(0);
    server.wait_for(KEY_A, &id, "sent").await;
    for _ in 0..2 {
        assert_eq!(status_of(sms_receipt(&server, &query(&first), UNDELIVERED)).await, 200);
    }
    assert_eq!(hook.wait_for(1).await[0].message(), "m");
    let story = server.wait_for(KEY_A, &id, "sent").await;
    let statuses: Vec<&Value> = story["deliveries"].as_array().unwrap().iter().map(|d| &d["status"]).collect();
    assert_eq!(statuses, ["undelivered", "sent"]);
    assert_eq!(hook.received().len(), 1);
}

#[tokio::test]
async fn a_long_text_is_delivered_when_its_last_part_is() {
    let (server, provider) = start().await;
    let id = server.send(KEY_A, &json!({ "channel": "sms", "message": "word ".repeat(400) })).await;
    let parts = provider.wait_for(2).await;
    server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(parts.len(), 2);
    assert_eq!(status_of(sms_receipt(&server, &query(&parts[1]), DELIVERED)).await, 200);
    server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(status_of(sms_receipt(&server, &query(&parts[0]), DELIVERED)).await, 200);
    server.wait_for(KEY_A, &id, "delivered").await;
}

#[tokio::test]
async fn nobody_else_can_report() {
    let (server, provider) = start().await;
    let id = server.send(KEY_A, &json!({ "channel": "sms", "message": "m" })).await;
    let query = query(&provider.wait_for(1).await[0]);
    let story = server.wait_for(KEY_A, &id, "sent").await;
    let unsigned = || form(&server, &format!("/receipts/{SMS_CHANNEL}?{query}"), DELIVERED);
    assert_eq!(status_of(unsigned()).await, 403);
    assert_eq!(status_of(unsigned().bearer_auth(KEY_A)).await, 403, "a tenant's key is no signature");
    assert_eq!(status_of(unsigned().header("x-twilio-signature", "AAAA")).await, 403);
    let of_the_other = server.send(KEY_B, &json!({ "channel": "log", "message": "m" })).await;
    let theirs = server.wait_for(KEY_B, &of_the_other, "sent").await;
    for token in [format!("{of_the_other}.0.0.1"), format!("{id}.1.0.1"), "nonsense".to_owned()] {
        let request = sms_receipt(&server, &format!("delivery={token}"), UNDELIVERED);
        assert_eq!(status_of(request).await, 200, "{token} is passed over");
    }
    assert_eq!(server.get(KEY_A, &format!("/notifications/{id}")).await.1, story);
    assert_eq!(server.get(KEY_B, &format!("/notifications/{of_the_other}")).await.1, theirs);
}

#[tokio::test]
async fn a_number_that_wants_no_more_is_a_dead_letter() {
    let (server, provider) = start().await;
    let body = r#"{"code":21610,"message":"Attempt to send to unsubscribed recipient","status":400}"#;
    provider.next(Answer { body, ..Answer::status(400) });
    let id = server.send(KEY_A, &json!({ "channel": "sms", "message": "m", "targetId": "+15550001111" })).await;
    let story = server.wait_for(KEY_A, &id, "failed").await;
    let attempt = &story["deliveries"][0]["attempts"][0];
    assert_eq!((&attempt["outcome"], &attempt["code"]), (&json!("permanent"), &json!("21610")));
    assert_eq!(attempt["detail"], "Attempt to send to unsubscribed recipient");
}
