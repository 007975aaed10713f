//! What `docs/OPERATIONS.md` lets an operator type is tried.

use std::process::Command;
use std::time::Duration;

use conductor::telemetry::metrics::Metrics;
use conductor_core::callbacks::{CallbackNext, Event};
use conductor_core::{FailureReason, Outcome};
use serde_json::json;

use super::api::post;
use super::markdown::{Block, blocks};
use crate::examples::programs::installed;
use crate::repository::{read, root};
use crate::support::server::{TENANT_A, World};

fn document() -> String {
    read(&root().join("docs/OPERATIONS.md"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_look_into_the_store_that_is_shown_works() {
    if !installed("sqlite3") {
        return;
    }
    let server = World::new().start().await;
    tokio::task::block_in_place(|| post(&server, &json!({ "channel": "log", "message": "a cellar full of water" })));
    let data = server.stop().await;
    let folder = tempfile::tempdir().expect("a directory can be made");
    std::os::unix::fs::symlink(data.path(), folder.path().join("data")).expect("a link can be made");
    let shown: Vec<Block> =
        blocks(&document()).into_iter().filter(|block| block.text.starts_with("sqlite3 ")).collect();
    assert!(shown.len() >= 2, "only {} blocks found", shown.len());
    let mut printed = String::new();
    for Block { text, line, .. } in shown {
        let output =
            Command::new("sh").args(["-eu", "-c", &text]).current_dir(folder.path()).output().expect("sh runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "docs/OPERATIONS.md:{line}: {errors}");
        printed.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    assert!(printed.contains("a cellar full of water"), "{printed}");
    assert!(folder.path().join("conductor-copy.db").is_file(), "the copy was not made");
}

#[test]
fn every_metric_that_is_named_exists() {
    let document = document();
    let (metrics, tenant) = (Metrics::new(), TENANT_A.parse().expect("a tenant's id"));
    // What has never been counted is not exported.
    metrics.accepted(tenant, "log");
    metrics.attempted(tenant, "log", Outcome::Sent, Duration::from_millis(1));
    metrics.sent(tenant, "log", Duration::from_millis(1));
    metrics.failed(tenant, "log", FailureReason::Expired);
    metrics.callbacks.attempted(tenant, Event::NotificationSent, CallbackNext::Done);
    metrics.callbacks.dropped(tenant, 1);
    metrics.callbacks.waiting(tenant, 1, 1);
    let exported = metrics.encode();
    let code = document.split('`').skip(1).step_by(2).filter(|text| text.starts_with("conductor_"));
    let named: Vec<_> = code.map(|name| name.trim_end_matches("_total")).collect();
    assert!(named.len() >= 2, "only {named:?} found");
    for name in named {
        assert!(exported.contains(&format!("# TYPE {name} ")), "{name} is none of:\n{exported}");
    }
}
