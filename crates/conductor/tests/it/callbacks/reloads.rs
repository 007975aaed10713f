//! A configuration that is taken over while the server runs takes effect for callbacks too.

use serde_json::{Value, json};

use super::{FAILED, SECRET, callback, endpoint, fail, failing, with_callbacks};
use crate::support::client::Client;
use crate::support::provider::{Answer, Provider};
use crate::support::server::{KEY_A, World};

const NEW: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[tokio::test]
async fn a_reload_adds_changes_and_removes_endpoints() {
    let (first, second) = (Provider::start().await, Provider::start().await);
    let mut world = failing(&first).await;
    let listening = world.tenants.clone();
    world.tenants[0].as_object_mut().unwrap().remove("callbacks");
    let server = world.clone().start().await;
    fail(&server).await;
    world.tenants = listening;
    assert_eq!(server.reload(&world).await.0, 200);
    let told = fail(&server).await;
    let received = first.wait_for(1).await;
    assert_eq!(received[0].json()["data"]["id"], told, "what came before the reload is not told");
    // Another secret: what waits stays, and goes out with the new one.
    first.next(Answer::status(500));
    let waits = fail(&server).await;
    endpoint(&server, |endpoint| endpoint["status"] == "failing").await;
    world.variables.retain(|(name, _)| name != "HOOK");
    world.variables.push(("HOOK".into(), NEW.into()));
    assert_eq!(server.reload(&world).await.0, 200);
    let received = first.wait_for(3).await;
    assert_eq!(received[2].json()["data"]["id"], waits);
    let accepts =
        |secret: &str| standardwebhooks::Webhook::new(secret).unwrap().verify(&received[2].body, &received[2].headers);
    assert!(accepts(NEW).is_ok() && accepts(SECRET).is_err());
    // Another URL is another endpoint.
    let world = with_callbacks(World { ..world }, &[callback(&second.url(), FAILED)]);
    assert_eq!(server.reload(&world).await.0, 200);
    fail(&server).await;
    second.wait_for(1).await;
    let page = Client::new(&server, Some(KEY_A)).get("/callbacks").await.expect(200);
    assert_eq!(page["data"].as_array().map(Vec::len), Some(1), "{page:#}");
    assert_eq!(first.received().len(), 3);
    server.stop().await;
}

#[tokio::test]
async fn a_reload_with_another_secret_enables_what_was_disabled() {
    let receiver = Provider::start().await;
    receiver.next(Answer::status(410));
    let mut world = failing(&receiver).await;
    let server = world.clone().start().await;
    fail(&server).await;
    endpoint(&server, |endpoint| endpoint["status"] == "disabled").await;
    assert_eq!(server.reload(&world).await.0, 200);
    endpoint(&server, |endpoint| endpoint["status"] == "disabled").await;
    world.variables.retain(|(name, _)| name != "HOOK");
    world.variables.push(("HOOK".into(), NEW.into()));
    assert_eq!(server.reload(&world).await.0, 200);
    let enabled = endpoint(&server, |endpoint| endpoint["status"] != "disabled").await;
    assert_eq!(enabled["disabledAt"], Value::Null);
    fail(&server).await;
    receiver.wait_for(2).await;
    assert_eq!(json!(receiver.received().len()), 2);
    server.stop().await;
}
