//! The configuration files that the documents show are loaded.

use std::fs;
use std::path::Path;

use conductor::config::{self, Environment};
use conductor_channels::PLUGINS;

use super::markdown::{Block, blocks};
use crate::repository::{read, root};

const FILES: &[&str] = &["tenants.json", "channels.json", "plugins.json"];
const DOCUMENTS: &[&str] = &["README.md", "docs/CONFIGURATION.md", "docs/CHANNELS.md"];
/// Its tenants and keys are those that the other documents' channels belong to.
const REFERENCE: &str = "docs/CONFIGURATION.md";

/// Loads a directory; the error is the report that a person would see, also of warnings.
pub(crate) fn load(directory: &Path, variables: Vec<(String, String)>) -> Result<(), String> {
    match config::load(directory, &Environment::from_pairs(variables), PLUGINS) {
        Ok((_, report)) if report.is_empty() => Ok(()),
        Ok((_, report)) | Err(report) => Err(report.to_string()),
    }
}

fn blocks_of(document: &str) -> Vec<Block> {
    blocks(&read(&root().join(document)))
}

fn marked<'a>(blocks: &'a [Block], file: &str) -> Vec<&'a Block> {
    blocks.iter().filter(|block| block.mark() == Some(file)).collect()
}

/// The variables of every `dotenv` block, with keys for what the documents do not show.
fn variables(document: &str) -> Vec<(String, String)> {
    let mut found = vec![("CONDUCTOR_ADMIN_KEY".to_owned(), "fedcba9876543210".repeat(4))];
    for block in blocks_of(REFERENCE).iter().chain(&blocks_of(document)).filter(|block| block.language() == "dotenv") {
        let pairs = block.text.lines().filter_map(|line| line.split_once('='));
        found.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    found
}

/// A directory with the reference's tenants, every plugin and no channels, and these files instead where they are given.
fn load_with(document: &str, shown: &[(&str, &str)]) -> Result<(), String> {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let enabled: Vec<_> = PLUGINS.iter().map(|plugin| serde_json::json!({ "name": plugin.kind })).collect();
    let tenants = marked(&blocks_of(REFERENCE), "tenants.json")[0].text.clone();
    let plugins = serde_json::Value::Array(enabled).to_string();
    for (name, usual) in [("tenants.json", tenants.as_str()), ("channels.json", "[]"), ("plugins.json", &plugins)] {
        let text = shown.iter().find(|(shown, _)| *shown == name).map_or(usual, |(_, text)| text);
        fs::write(directory.path().join(name), text).expect("a file can be written");
    }
    load(directory.path(), variables(document))
}

#[test]
fn every_configuration_file_that_is_shown_loads_without_a_warning() {
    let mut count = 0;
    for document in DOCUMENTS {
        let blocks = blocks_of(document);
        for file in FILES {
            for block in marked(&blocks, file) {
                let loaded = load_with(document, &[(file, &block.text)]);
                assert!(loaded.is_ok(), "{document}:{}:\n{}", block.line, loaded.unwrap_err());
                count += 1;
            }
        }
    }
    assert!(count >= 8, "only {count} files found");
    let broken = load_with(REFERENCE, &[("channels.json", r#"[{ "tenantID": "x" }]"#)]);
    assert!(broken.is_err(), "the check would not notice a broken file");
}

#[test]
fn the_files_of_the_readme_load_together() {
    let blocks = blocks_of("README.md");
    let [channels, plugins] = ["channels.json", "plugins.json"].map(|file| (file, &*marked(&blocks, file)[0].text));
    let loaded = load_with("README.md", &[channels, plugins]);
    assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
}

#[test]
fn no_configuration_file_is_shown_unmarked() {
    for document in DOCUMENTS {
        for block in blocks_of(document).iter().filter(|block| block.language() == "json" && block.mark().is_none()) {
            let value: serde_json::Value = serde_json::from_str(&block.text).expect("another test says which is not");
            let file = FILES.iter().find(|file| value.get(file.trim_end_matches(".json")).is_some());
            assert_eq!(file, None, "{document}:{}: mark this block, so that it is loaded", block.line);
        }
    }
}
