//! The documents say what the program does.

mod api;
mod callbacks;
mod channels;
mod commands;
pub(crate) mod configuration;
pub(crate) mod markdown;
mod operations;
mod webhook;

use std::path::{Path, PathBuf};

use conductor_channels::PLUGINS;
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

#[test]
fn every_channel_is_documented_with_its_settings_and_options() {
    let document = read(&root().join("docs/CHANNELS.md"));
    let mut faults = Vec::new();
    for plugin in PLUGINS {
        let kind = plugin.kind;
        let Some(section) = section(&document, kind) else {
            faults.push(format!("no section \"## {kind}\""));
            continue;
        };
        let settings = plugin.settings.iter().map(|setting| setting.camel_case());
        let upper = kind.to_uppercase().replace('-', "_");
        let variables = plugin.settings.iter().map(|setting| format!("…_{upper}_{}", setting.name));
        let schema = plugin.schema();
        let fields: Vec<_> = schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name).collect();
        let aliases = plugin.aliases.iter().map(|alias| (*alias).to_owned());
        for name in settings.chain(variables).chain(fields.iter().map(|name| (*name).clone())).chain(aliases) {
            if !section.contains(&format!("`{name}`")) {
                faults.push(format!("\"## {kind}\" does not name `{name}`"));
            }
        }
        for name in first_cells(section) {
            if !fields.iter().any(|field| **field == name) {
                faults.push(format!("\"## {kind}\" names `{name}`, which is neither a setting nor an option"));
            }
        }
    }
    assert!(faults.is_empty(), "docs/CHANNELS.md:\n  {}", faults.join("\n  "));
}

/// The text under a heading of the second level.
fn section<'a>(document: &'a str, heading: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("\n## {heading}\n"))?;
    Some(rest.split_once("\n## ").map_or(rest, |(section, _)| section))
}

/// The names in code type that begin the rows of tables.
fn first_cells(section: &str) -> Vec<String> {
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split_once("` |").map(|(name, _)| name.to_owned())).collect()
}
