//! Who may ask for what.

use http::Method;
use serde_json::json;

use crate::support::client::{Client, Reply, reply};
use crate::support::server::{ADMIN_KEY, KEY_A, KEY_B, TENANT_A, World};

async fn with_authorization(client: &Client, path: &str, value: Option<&str>) -> Reply {
    let request = client.request(Method::GET, path);
    reply(match value {
        Some(value) => request.header("authorization", value),
        None => request,
    })
    .await
}

#[tokio::test]
async fn a_key_is_taken_in_every_form_and_everything_else_is_refused() {
    let server = World::new().start().await;
    let client = Client::new(&server, None);
    for good in [format!("Bearer {KEY_A}"), format!("bearer {KEY_A}"), format!("BEARER  {KEY_A}"), KEY_A.to_owned()] {
        with_authorization(&client, "/channels", Some(&good)).await.expect(200);
    }
    for missing in [None, Some(""), Some("Bearer"), Some("Bearer  ")] {
        let refused = with_authorization(&client, "/channels", missing).await;
        assert_eq!(refused.problem(401)["type"], "/docs#problem-missing-key", "{missing:?}");
        assert!(refused.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
    }
    let longer = format!("Bearer {KEY_A}x");
    let basic = format!("Basic {KEY_A}");
    for wrong in ["Bearer not-a-key", &longer, &basic, &KEY_A[1..], ADMIN_KEY, "Bearer \u{e9}\u{e9}"] {
        let refused = with_authorization(&client, "/channels", Some(wrong)).await;
        assert_eq!(refused.problem(403)["type"], "/docs#problem-wrong-key", "{wrong}");
        let text = String::from_utf8_lossy(&refused.body).into_owned();
        assert!(!text.contains(wrong.trim_start_matches("Bearer ")), "{text}");
    }
}

#[tokio::test]
async fn the_next_key_opens_as_well_so_that_a_key_is_changed_without_an_outage() {
    let mut world = World::new();
    let next = "the-next-key-of-the-first-tenant-0123456789abcdef";
    world.variables.push(("KEY_A_NEXT".into(), next.into()));
    let server = world.start().await;
    for key in [KEY_A, next] {
        Client::new(&server, Some(key)).get("/channels").await.expect(200);
    }
}

#[tokio::test]
async fn metrics_open_to_the_operator_alone() {
    let server = World::new().start().await;
    Client::new(&server, None).get("/metrics").await.problem(401);
    for key in [KEY_A, KEY_B, "wrong"] {
        Client::new(&server, Some(key)).get("/metrics").await.problem(403);
    }
    Client::new(&server, Some(KEY_A)).send(&json!({ "channel": "log", "message": "count me" })).await;
    let metrics = Client::new(&server, Some(ADMIN_KEY)).get("/metrics").await;
    assert_eq!(metrics.status, 200);
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(text.contains(&format!("conductor_notifications_accepted_total{{tenant=\"{TENANT_A}\"")), "{text}");
}

#[tokio::test]
async fn metrics_are_open_on_their_own_listener_and_where_no_operators_key_is_set() {
    let mut world = World::new();
    world.variables.retain(|(name, _)| name != "CONDUCTOR_ADMIN_KEY");
    let server = world.start().await;
    let open = Client::new(&server, None).get("/metrics").await;
    assert_eq!(open.status, 200);

    let server = World::new().start().await;
    let address = server.server.metrics_address().expect("a listener for metrics");
    let own = Client::new(&server, None).at(&format!("http://{address}"));
    assert_eq!(own.get("/metrics").await.status, 200);
    own.get("/docs/docs.js").await.problem(404);
}
