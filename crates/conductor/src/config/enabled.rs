//! `plugins.json`: which plugins channels may use.

use conductor_channels::Plugin;
use serde_json::Value;

use super::document::Document;
use super::report::Report;
use super::shape::{self, Shape, report_misfits};

/// Reads the entries. Gives the enabled plugins in the order of the file.
pub(super) fn read(
    document: &Document<'_>,
    entries: &[(String, &Value)],
    shape: &Shape,
    plugins: &'static [Plugin],
    report: &mut Report,
) -> Vec<Plugin> {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    let mut enabled = Vec::new();
    for (pointer, entry) in entries {
        report_misfits(document, pointer, shape, entry, report);
        let Some(name) = entry.get("name").and_then(Value::as_str) else { continue };
        let is_enabled = entry.get("enabled").and_then(Value::as_bool).unwrap_or(true);
        let place = format!("{pointer}/name");
        let Some(plugin) = conductor_channels::plugin(plugins, name) else {
            let names: Vec<&str> = plugins.iter().map(|plugin| plugin.kind).collect();
            let fault = document.error(&place, format!("there is no plugin {}", document.show(&place)));
            let fault = fault.expected(format!("one of {}", shape::list(&names)));
            report.add(match shape::nearest(name, &names) {
                Some(near) => fault.help(format!("did you mean `{near}`?")),
                None => fault.help("remove the entry"),
            });
            continue;
        };
        if let Some((_, first)) = seen.iter().find(|(kind, _)| *kind == plugin.kind) {
            let found = format!("the plugin `{}` stands twice in this file", plugin.kind);
            let help = format!("keep one of the two; the other is in line {}", document.line(first));
            report.add(document.error(&place, found).help(help));
            continue;
        }
        if entry.get("options").and_then(Value::as_object).is_some_and(|options| !options.is_empty()) {
            let place = format!("{pointer}/options");
            let found = format!("the plugin `{}` takes no options here; they have no effect", plugin.kind);
            let help = "a channel's options stand at the channel, in channels.json";
            report.add(document.error(&place, found).as_warning().help(help));
        }
        seen.push((plugin.kind, pointer));
        if is_enabled {
            enabled.push(*plugin);
        }
    }
    enabled
}
