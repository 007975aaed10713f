//! The documents say what the program does.

pub(crate) mod markdown;

use std::path::{Path, PathBuf};

use markdown::{anchors, blocks, links};

use crate::repository::{files, read, root, shown};

/// Every Markdown file of the repository.
fn documents() -> Vec<PathBuf> {
    let found = files(&root(), ".md");
    assert!(found.len() > 10, "only {} documents found", found.len());
    found
}

#[test]
fn relative_links_lead_somewhere() {
    let mut faults = Vec::new();
    for document in documents() {
        for (line, target) in links(&read(&document)) {
            if !leads_somewhere(&document, &target) {
                faults.push(format!("{}:{line}: {target}", shown(&document)));
            }
        }
    }
    assert!(faults.is_empty(), "these links lead nowhere:\n  {}", faults.join("\n  "));
    assert!(!leads_somewhere(&root().join("README.md"), "docs/NOWHERE.md"));
    assert!(!leads_somewhere(&root().join("README.md"), "docs/API.md#nothing"));
}

fn leads_somewhere(document: &Path, target: &str) -> bool {
    if target.contains("://") || target.starts_with("mailto:") {
        return true;
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let folder = document.parent().expect("a document lies in a folder");
    let file = if path.is_empty() { document.to_owned() } else { folder.join(path) };
    let Some(anchor) = anchor else { return file.exists() };
    file.is_file() && anchors(&read(&file)).iter().any(|known| known == anchor)
}

#[test]
fn every_json_block_is_json() {
    let mut count = 0;
    for document in documents() {
        for block in blocks(&read(&document)).iter().filter(|block| block.language() == "json") {
            let parsed = serde_json::from_str::<serde_json::Value>(&block.text);
            assert!(parsed.is_ok(), "{}:{}: {}", shown(&document), block.line, parsed.unwrap_err());
            count += 1;
        }
    }
    assert!(count > 10, "only {count} blocks found");
}

#[test]
fn the_gate_runs_the_one_command_that_the_readme_names() {
    let readme = read(&root().join("README.md"));
    let section = readme.split_once("## Test it").expect("the README says how to test").1;
    let command = blocks(section)[0].text.trim().to_owned();
    let gate = read(&root().join(".ci/run"));
    assert!(gate.lines().any(|line| line == command), ".ci/run does not run `{command}`");
}
