//! The tables of `docs/CHANNELS.md` are those of the program: what stands between the marks is made from the plugins.
//! `UPDATE_DOCS=true cargo test -p conductor --test it docs::channels` writes it anew.

use std::fmt::Write as _;

use conductor_channels::{Classic, PLUGINS, Plugin, Setting};

use crate::repository::{read, root};

const END: &str = "<!-- end of what is generated -->";

fn begin(name: &str) -> String {
    format!("<!-- generated: {name} -->")
}

#[test]
fn the_tables_are_those_of_the_program() {
    let path = root().join("docs/CHANNELS.md");
    let document = read(&path);
    let made = generated(&document);
    if made != document && updates() {
        std::fs::write(&path, &made).expect("the document can be written");
        return;
    }
    let differs = document.lines().zip(made.lines()).position(|(old, new)| old != new);
    let line = differs.unwrap_or(document.lines().count().min(made.lines().count()));
    assert!(
        made == document,
        "docs/CHANNELS.md differs from the program in line {}:\n  {}\n  {}\nUPDATE_DOCS=true cargo test -p conductor --test it \
         docs::channels writes it anew",
        line + 1,
        document.lines().nth(line).unwrap_or_default(),
        made.lines().nth(line).unwrap_or_default(),
    );
}

#[test]
fn a_table_that_is_not_the_programs_is_noticed() {
    let document = read(&root().join("docs/CHANNELS.md"));
    let wrong = document.replacen("| `botToken` | `…_DISCORD_BOT_TOKEN`", "| `botToken` | `…_DISCORD_TOKEN`", 1);
    assert!(wrong != document, "the row that is spoilt is not there");
    assert!(generated(&wrong) != wrong, "it is not noticed");
    assert!(generated(&wrong) == generated(&document), "it is not mended");
}

#[expect(clippy::disallowed_methods, reason = "whoever runs the tests says so in the environment")]
fn updates() -> bool {
    std::env::var("UPDATE_DOCS").is_ok_and(|value| value == "true")
}

/// The document with what the plugins say between the marks.
fn generated(document: &str) -> String {
    let blocks = PLUGINS.iter().map(|plugin| (plugin.kind, of(plugin)));
    let mut made = document.to_owned();
    for (name, text) in blocks.chain([("overview", overview())]) {
        let mark = begin(name);
        let (before, rest) = made.split_once(&mark).unwrap_or_else(|| panic!("docs/CHANNELS.md has no {mark}"));
        let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("docs/CHANNELS.md has no {END} after {mark}"));
        made = format!("{before}{mark}\n\n{}\n\n{END}{after}", text.trim_end());
    }
    made
}

fn overview() -> String {
    let mut table = String::from("| type | | the provider removes doubles |\n| --- | --- | --- |\n");
    for plugin in PLUGINS {
        let doubles = if plugin.dedupes { "yes" } else { "no" };
        let _ = writeln!(table, "| [`{0}`](#{0}) | {1} | {doubles} |", plugin.kind, cell(plugin.about));
    }
    table
}

fn of(plugin: &Plugin) -> String {
    let mut text = String::new();
    if plugin.settings.is_empty() {
        text.push_str("No settings.\n");
    } else {
        text.push_str("| setting | variable | secret | needed | |\n| --- | --- | --- | --- | --- |\n");
    }
    for setting in plugin.settings {
        text.push_str(&row(plugin, setting));
    }
    let options = plugin.own_options();
    text.push_str(if options.is_empty() {
        "\nNo options of its own.\n"
    } else {
        "\n| option | default | |\n| --- | --- | --- |\n"
    });
    for option in options {
        let default = option.default.map_or("none".into(), |default| format!("`{default}`"));
        let _ = writeln!(text, "| `{}` | {default} | {} |", option.name, cell(&option.about));
    }
    text.push_str("\n| by itself | |\n| --- | --- |\n");
    for (what, how) in plugin.facts() {
        let _ = writeln!(text, "| {what} | {} |", cell(&how));
    }
    if !plugin.steps.is_empty() {
        text.push_str("\n**Get the credentials**\n\n");
    }
    for (number, step) in (1..).zip(plugin.steps) {
        let _ = writeln!(text, "{number}. {step}");
    }
    text
}

fn row(plugin: &Plugin, setting: &Setting) -> String {
    let kind = plugin.kind.to_uppercase().replace('-', "_");
    let classic = match setting.classic {
        None => "",
        Some(Classic::Id) => ", or `providerIdEnvVar`",
        Some(Classic::Secret) => ", or `providerSecretEnvVar`",
    };
    let secret = if setting.secret { "yes" } else { "no" };
    let target = if plugin.target == Some(setting.name) { " A notification's `targetId` takes its place." } else { "" };
    let (name, variable) = (setting.camel_case(), setting.name);
    let (need, about) = (plugin.need_of(setting), cell(setting.about));
    format!("| `{name}` | `…_{kind}_{variable}`{classic} | {secret} | {need} | {about}{target} |\n")
}

/// A text that does not end its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
