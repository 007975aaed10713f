//! What a plugin calls a secret is one in the program too: it cannot be printed, and its memory is overwritten.

use std::path::Path;

use crate::PLUGINS;

#[test]
fn every_secret_setting_is_kept_as_a_secret() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for plugin in PLUGINS {
        let name = if plugin.kind == "discord-webhook" { "discord/webhook" } else { plugin.kind };
        let path = source.join(format!("{}.rs", name.replace('-', "_")));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for setting in plugin.settings.iter().filter(|setting| setting.secret) {
            let field = format!("pub {}: ", setting.name.to_ascii_lowercase());
            let kind = text.split(&field).nth(1).and_then(|rest| rest.split(',').next());
            assert!(matches!(kind, Some("Secret" | "Option<Secret>")), "{} of {}: {kind:?}", setting.name, plugin.kind);
        }
    }
}
