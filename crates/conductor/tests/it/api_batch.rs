//! `POST /notifications/batch`.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::provider::Provider;
use crate::support::server::{KEY_A, TENANT_A, World};

fn statuses(answer: &Value) -> Vec<u64> {
    let results = answer["results"].as_array().expect("results");
    results.iter().map(|result| result["status"].as_u64().expect("a status")).collect()
}

#[tokio::test]
async fn each_is_accepted_or_refused_on_its_own_and_in_order() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let batch = json!({ "notifications": [
        { "channel": "log", "message": "one" },
        { "channel": "log" },
        "no object",
        { "channel": "nowhere", "message": "three", "priority": 5 },
        { "channel": "log", "message": "four" },
    ] });
    let answer = client.post("/notifications/batch", &batch).await.expect(207);
    assert_eq!(statuses(&answer), [202, 400, 400, 400, 202]);
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results[1]["details"], json!([{ "field": "message", "message": "is required" }]));
    assert!(results[1]["error"].as_str().unwrap().contains("message"));
    let fields: Vec<_> = results[3]["details"].as_array().unwrap().iter().map(|d| d["field"].clone()).collect();
    assert_eq!(fields, ["priority", "channel"]);
    for (index, message) in [(0, "one"), (4, "four")] {
        let story = client.until(results[index]["id"].as_str().unwrap(), "sent").await;
        assert_eq!(story["message"], message);
    }
    assert_eq!(client.get("/notifications").await.expect(200)["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_large_batch_goes_at_once_and_keeps_its_order() {
    // More than tokio lets one task do before it makes it yield.
    const COUNT: usize = 300;
    let provider = Provider::start().await;
    let options = json!({ "maxConcurrency": 1 });
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &options).start().await;
    let client = Client::new(&server, Some(KEY_A));
    let items: Vec<_> = (0..COUNT).map(|n| json!({ "channel": "webhook", "message": n.to_string() })).collect();
    let answer = client.post("/notifications/batch", &json!({ "notifications": items })).await.expect(207);
    assert_eq!(statuses(&answer), [202; COUNT]);
    let received = provider.wait_for(COUNT).await;
    let messages: Vec<_> = received.iter().map(|request| request.message()).collect();
    assert_eq!(messages, (0..COUNT).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_that_is_no_batch_is_refused_whole() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let item = json!({ "channel": "log", "message": "m" });
    for bad in [
        json!({}),
        json!([item]),
        json!({ "notifications": [] }),
        json!({ "notifications": {} }),
        json!({ "notifications": [item], "channel": "log" }),
        json!({ "notifications": vec![item.clone(); 1001] }),
    ] {
        client.post("/notifications/batch", &bad).await.problem(400);
    }
    assert_eq!(client.get("/notifications").await.expect(200)["data"], json!([]));
}

#[tokio::test]
async fn a_batch_again_gets_the_same_answer_and_another_request_with_its_key_is_refused() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let key = &[("idempotency-key", "b")];
    let batch =
        json!({ "notifications": [{ "channel": "log", "message": "one" }, { "channel": "log", "message": "two" }] });
    let first = client.post_with("/notifications/batch", key, &batch).await;
    let again = client.post_with("/notifications/batch", key, &batch).await;
    assert_eq!(first.expect(207), again.expect(207));
    assert_eq!((first.header("idempotent-replay"), again.header("idempotent-replay")), (None, Some("true")));
    let other = json!({ "notifications": [{ "channel": "log", "message": "other" }] });
    client.post_with("/notifications/batch", key, &other).await.problem(422);
    client.post_with("/notifications", key, &other["notifications"][0]).await.problem(422);
    assert_eq!(client.get("/notifications").await.expect(200)["data"].as_array().unwrap().len(), 2);
}
