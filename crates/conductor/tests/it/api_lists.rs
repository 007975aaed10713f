//! `GET /notifications` and `GET /channels`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::provider::{Answer, Provider};
use crate::support::server::{KEY_A, KEY_B, TENANT_A, World};

fn messages(list: &Value) -> Vec<String> {
    let data = list["data"].as_array().expect("data");
    data.iter().map(|item| item["message"].as_str().expect("a message").to_owned()).collect()
}

#[tokio::test]
async fn pages_follow_one_another_without_gaps_or_doubles() {
    let server = World::new().start().await;
    let (a, b) = (Client::new(&server, Some(KEY_A)), Client::new(&server, Some(KEY_B)));
    let items: Vec<_> = (0..25).map(|n| json!({ "channel": "log", "message": format!("m{n}") })).collect();
    a.post("/notifications/batch", &json!({ "notifications": items })).await.expect(207);
    b.send(&json!({ "channel": "log", "message": "of another" })).await;
    let (mut seen, mut path) = (Vec::new(), "/notifications?limit=10&channel=log".to_owned());
    loop {
        let page = a.get(&path).await;
        let list = page.expect(200);
        seen.extend(messages(&list));
        let Some(next) = list["next"].as_str() else {
            assert_eq!(page.header("link"), None);
            break;
        };
        let link = page.header("link").expect("a link to the next part");
        path = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
        assert_eq!(path, format!("/notifications?limit=10&channel=log&cursor={next}"));
        // What comes in between stands at the front and moves nothing.
        a.send(&json!({ "channel": "log", "message": "late" })).await;
    }
    assert_eq!(seen, (0..25).rev().map(|n| format!("m{n}")).collect::<Vec<_>>());
    assert_eq!(messages(&b.get("/notifications").await.expect(200)), ["of another"]);
}

#[tokio::test]
async fn every_filter_has_to_fit() {
    let provider = Provider::start().await;
    provider.then(Answer::status(404));
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    let client = Client::new(&server, Some(KEY_A));
    let failed = client.send(&json!({ "channel": "webhook", "message": "Alpha" })).await;
    let sent = client.send(&json!({ "channel": "log", "message": "beta", "metadata": { "room": "Küche" } })).await;
    client.until(&failed, "failed").await;
    let story = client.until(&sent, "sent").await;
    let (at, channel) = (story["timestamp"].as_str().unwrap(), story["channelId"].as_str().unwrap());
    for (query, expected) in [
        ("", &["beta", "Alpha"][..]),
        ("status=failed", &["Alpha"]),
        ("status=sent&channel=webhook", &[]),
        ("channel=webhook", &["Alpha"]),
        (&format!("channelId={channel}"), &["beta"]),
        ("q=ALPH", &["Alpha"]),
        ("q=k%C3%BCche", &["beta"]),
        (&format!("from={at}"), &["beta"]),
        (&format!("to={at}"), &["Alpha"]),
        ("status=&channel=&from=&to=&q=&limit=&cursor=", &["beta", "Alpha"]),
        ("from=2999-01-01T00:00:00Z", &[]),
        ("channel=gone", &[]),
        ("limit=1", &["beta"]),
    ] {
        let list = client.get(&format!("/notifications?{query}")).await.expect(200);
        let found = messages(&list);
        // Two that were accepted in one millisecond are on the same side of a time.
        let same_millisecond =
            query.starts_with("to=") && found.is_empty() || query.starts_with("from=") && found.len() == 2;
        assert!(found == expected || same_millisecond, "{query}: {found:?}");
        assert!(list["data"].as_array().unwrap().iter().all(|item| item.get("deliveries").is_none()));
    }
}

#[tokio::test]
async fn a_query_that_is_wrong_is_refused_with_every_fault() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let query = "status=done&channelId=x&from=now&limit=0&cursor=x&stauts=failed&limit=5&tenantId=x";
    let refused = client.get(&format!("/notifications?{query}")).await;
    refused.problem(400);
    let fields: BTreeSet<_> = refused.fields().into_iter().collect();
    let expected = ["channelId", "cursor", "from", "limit", "stauts", "status", "tenantId"].map(str::to_owned);
    assert_eq!(fields, expected.into());
    for limit in ["201", "-1", "many", "1.5"] {
        client.get(&format!("/notifications?limit={limit}")).await.problem(400);
    }
}

#[tokio::test]
async fn channels_are_listed_with_their_health() {
    let provider = Provider::start().await;
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    let client = Client::new(&server, Some(KEY_A));
    let later = json!({ "channel": "webhook", "message": "m", "sendAt": "2999-01-01T00:00:00Z" });
    let accepted = client.post("/notifications", &later).await.expect(202);
    let sent = client.send(&json!({ "channel": "webhook", "message": "m" })).await;
    client.until(&sent, "sent").await;
    let channels = client.get("/channels").await.expect(200);
    let data = channels["data"].as_array().unwrap();
    let names: Vec<_> = data.iter().map(|channel| channel["channelName"].as_str().unwrap()).collect();
    assert_eq!(names, ["log a", "hook"]);
    let hook = &data[1];
    assert_eq!((&hook["queued"], &hook["oldestQueuedAt"]), (&json!(1), &accepted["timestamp"]), "{hook}");
    assert_eq!((&hook["breaker"], &hook["pausedUntil"]), (&json!("closed"), &json!(null)));
    assert_eq!((&hook["channelType"], &hook["health"]["reason"]), (&json!("webhook"), &json!(null)));
    assert_eq!((&data[0]["queued"], &data[0]["oldestQueuedAt"]), (&json!(0), &json!(null)));
    let theirs = Client::new(&server, Some(KEY_B)).get("/channels").await.expect(200);
    assert_eq!(theirs["data"].as_array().unwrap().len(), 1);
}
