//! What `docs/OPERATIONS.md` lets an operator type is tried.

use std::process::Command;

use serde_json::json;

use super::api::post;
use super::markdown::{Block, blocks};
use crate::examples::programs::installed;
use crate::repository::{read, root};
use crate::support::server::World;

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
