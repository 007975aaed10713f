//! What is right, and what it becomes.

use std::time::Duration;

use conductor_core::callbacks::{Event, EventSet};
use conductor_core::{ChannelId, OnUnknown, TenantId};
use serde_json::json;

use crate::config::testing::{Files, KEY, OTHER, OTHER_KEY, TENANT, pattern};
use crate::config::{ADMIN_KEY_VARIABLE, CommonOptions, Lasting};

#[test]
fn the_object_and_the_bare_list_say_the_same() {
    let bare = Files::good();
    let (from_list, _) = bare.accepted();
    let wrap = |name: &str| {
        let text = std::fs::read_to_string(bare.path(&format!("{name}.json"))).unwrap();
        format!("// A comment.\n{{ \"$schema\": \"x.json\", /* and one */ \"{name}\": {text}, }}")
    };
    let object = Files::good().tenants(&wrap("tenants")).channels(&wrap("channels")).plugins(&wrap("plugins"));
    let (from_object, report) = object.accepted();
    assert!(report.is_empty(), "{report}");
    assert_eq!(from_list.tenants[0].id, from_object.tenants[0].id);
    assert_eq!(from_list.channels[0].id, from_object.channels[0].id);
    assert_eq!(*from_list.channels[0].values, *from_object.channels[0].values);
    let kinds = |configuration: &crate::config::Configuration| {
        configuration.plugins.iter().map(|plugin| plugin.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&from_list), kinds(&from_object));
}

#[test]
fn a_byte_order_mark_is_no_fault() {
    Files::good().plugins("\u{feff}[{\"name\": \"parrot-talk\"}]").accepted();
}

#[test]
fn the_originals_files_load_unchanged() {
    let upper = TENANT.to_ascii_uppercase().replace('-', "_");
    let files = Files::good()
        .tenants(&format!(
            r#"[{{ "id": "{TENANT}", "name": "Default Tenant", "authKeyEnvVar": "TENANT_{upper}_AUTHKEY" }}]"#
        ))
        .channels(&format!(
            r#"[
              {{ "tenantId": "{TENANT}", "channelType": "log", "providerIdEnvVar": "TENANT_{upper}_LOG_ID",
                 "providerSecretEnvVar": "TENANT_{upper}_LOG_SECRET" }},
              {{ "tenantId": "{TENANT}", "channelType": "parrot-bot",
                 "channelId": "01943C2A-7C3E-7000-8000-0000000000C1",
                 "providerIdEnvVar": "TENANT_{upper}_DISCORD_CHANNEL_ID",
                 "providerSecretEnvVar": "TENANT_{upper}_DISCORD_BOT_TOKEN" }}
            ]"#
        ))
        .plugins(
            r#"[{ "name": "log", "enabled": true, "options": {} },
                { "name": "parrot-bot", "enabled": true, "options": {} }]"#,
        )
        .variable(&format!("TENANT_{upper}_AUTHKEY"), KEY)
        .variable(&format!("TENANT_{upper}_DISCORD_CHANNEL_ID"), "42")
        .variable(&format!("TENANT_{upper}_DISCORD_BOT_TOKEN"), "tok_original");
    let (configuration, report) = files.accepted();
    assert!(report.is_empty(), "{report}");
    let [log, parrot] = &configuration.channels[..] else { panic!("two channels") };
    let tenant: TenantId = TENANT.parse().unwrap();
    assert_eq!((log.name.as_str(), log.id), ("log", ChannelId::derive(tenant, "log", "log")));
    assert!(log.values.is_empty());
    assert_eq!((parrot.name.as_str(), parrot.plugin.kind), ("parrot-bot", "parrot-talk"));
    assert_eq!(parrot.id.to_string(), "01943c2a-7c3e-7000-8000-0000000000c1");
    assert_eq!(json!(*parrot.values), json!({ "token": "tok_original", "channelId": "42" }));
}

#[test]
fn a_derived_id_is_that_of_tenant_kind_and_name() {
    let (configuration, _) = Files::good().channel("parrot-bot", r#", "channelName": "alerts""#).accepted();
    let expected = ChannelId::derive(TENANT.parse().unwrap(), "parrot-talk", "alerts");
    assert_eq!(configuration.channels[0].id, expected);
    assert_eq!(configuration.channels[0].name, "alerts");
}

#[test]
fn a_setting_is_taken_from_the_named_variable_then_the_pattern_then_the_options() {
    let named = r#", "providerIdEnvVar": "CLASSIC", "options": {"channelId": "options"}"#;
    let by_env =
        r#", "providerIdEnvVar": "CLASSIC", "env": {"channelId": "NAMED"}, "options": {"channelId": "options"}"#;
    let plain = r#", "options": {"channelId": "options"}"#;
    let all = [("NAMED", "env"), ("CLASSIC", "classic"), (&pattern("CHANNEL_ID"), "pattern")];
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 7] = [
        (by_env, &all, "env"),
        (named, &all, "classic"),
        (plain, &all, "pattern"),
        (named, &all[2..], "pattern"),
        (by_env, &all[2..], "pattern"),
        (plain, &[], "options"),
        (named, &[], "options"),
    ];
    for (more, variables, expected) in cases {
        let files = Files::good().channel("parrot-talk", more);
        let files = variables.iter().fold(files, |files, (name, value)| files.variable(name, value));
        let (configuration, _) = files.accepted();
        assert_eq!(configuration.channels[0].values["channelId"], expected, "{more} {variables:?}");
    }
}

#[test]
fn a_setting_of_a_number_is_read_as_one() {
    let (configuration, _) = Files::good().variable(&pattern("PORT"), "8080").accepted();
    assert_eq!(configuration.channels[0].values["port"], 8080);
    let (configuration, _) = Files::good().variable(&pattern("CHANNEL_ID"), "8080").accepted();
    assert_eq!(configuration.channels[0].values["channelId"], "8080");
}

#[test]
fn an_empty_variable_of_an_optional_setting_is_none() {
    let files = Files::good().channel("parrot-talk", r#", "providerIdEnvVar": "ID""#).variable("ID", "");
    let (configuration, _) = files.accepted();
    assert!(!configuration.channels[0].values.contains_key("channelId"));
}

#[test]
fn a_secret_is_read_from_a_file() {
    let files = Files::good().file("token", "tok_from_file\n");
    let path = files.path("token").display().to_string();
    let files = files.without(&pattern("TOKEN")).variable(&format!("{}_FILE", pattern("TOKEN")), &path);
    let (configuration, report) = files.accepted();
    assert!(report.is_empty(), "{report}");
    assert_eq!(configuration.channels[0].values["token"], "tok_from_file");
}

#[test]
fn the_common_options_are_apart_from_the_plugins_own() {
    let options = r#", "options": {
        "baseUrl": "http://192.168.1.7:8080/api", "allowNetworks": ["192.168.1.7/16", "fd00::/8"], "timeout": "500ms",
        "maxConcurrency": 3, "rate": {"per": "5m", "limit": 5, "burst": 10}, "expiresAfter": "7d", "ordered": true, "delayNote": "5m",
        "onUnknown": "hold", "allowMentions": true, "loud": true, "mood": "merry"
    }"#;
    let (configuration, report) = Files::good().channel("parrot-talk", options).accepted();
    assert!(report.is_empty(), "{report}");
    let channel = &configuration.channels[0];
    assert_eq!(json!(*channel.values), json!({ "token": "tok_secret", "loud": true, "mood": "merry" }));
    let common = &channel.common;
    assert_eq!(common.base_url.as_ref().map(url::Url::as_str), Some("http://192.168.1.7:8080/api"));
    assert_eq!(common.allow_networks, ["192.168.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()]);
    let day = Duration::from_secs(24 * 60 * 60);
    assert_eq!((common.timeout, common.expires_after), (Duration::from_millis(500), 7 * day));
    assert_eq!((common.max_concurrency, common.on_unknown), (Some(3), OnUnknown::Hold));
    assert_eq!(common.delay_note, Some(Duration::from_secs(300)));
    assert!(common.ordered && common.allow_mentions);
    let rate = common.rate.unwrap();
    assert_eq!((rate.limit.get(), rate.burst.get(), rate.per), (5, 10, Duration::from_secs(300)));
}

#[test]
fn options_that_are_not_there_have_their_defaults() {
    let (configuration, _) = Files::good().accepted();
    assert_eq!(configuration.channels[0].common, CommonOptions::default());
    let (configuration, _) = Files::good().channel("parrot-talk", r#", "options": {"rate": {"limit": 5}}"#).accepted();
    let rate = configuration.channels[0].common.rate.unwrap();
    assert_eq!((rate.limit.get(), rate.burst.get(), rate.per), (5, 5, Duration::from_secs(1)));
}

#[test]
fn a_tenant_has_two_keys_a_weight_limits_and_callbacks() {
    let files = Files::good()
        .tenants(&format!(
            r#"{{"tenants": [{{"id": "{TENANT}", "name": "Acme", "authKeyEnvVar": "KEY", "weight": 7,
              "rateLimit": {{"requests": {{"per": "1s", "limit": 100, "burst": 200}}, "queued": 100000}},
              "callbacks": [{{"url": "https://acme.example/hooks?x=1", "secretEnvVar": "HOOK",
                              "events": ["notification.failed"], "allowNetworks": ["10.0.0.0/8"]}}]}}]}}"#
        ))
        .variable("KEY_NEXT", OTHER_KEY)
        .variable("HOOK", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
        .variable("HOOK_NEXT", "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=");
    let (configuration, report) = files.accepted();
    assert!(report.is_empty(), "{report}");
    let tenant = &configuration.tenants[0];
    let keys: Vec<_> = tenant.keys.iter().map(conductor_core::Secret::expose).collect();
    assert_eq!(keys, [KEY, OTHER_KEY]);
    assert_eq!((tenant.key_variable.as_str(), tenant.weight, tenant.queued), ("KEY", 7, Some(100_000)));
    assert_eq!(tenant.requests.map(|rate| rate.burst.get()), Some(200));
    let callback = &tenant.callbacks[0];
    assert_eq!(callback.url.as_str(), "https://acme.example/hooks?x=1");
    let secrets: Vec<_> = callback.secrets.iter().map(conductor_core::Secret::expose).collect();
    assert_eq!(
        secrets,
        ["whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="]
    );
    assert_eq!(callback.events.iter().collect::<Vec<_>>(), [Event::NotificationFailed]);
    assert_eq!(callback.allow_networks.len(), 1);
}

#[test]
fn a_callback_without_a_list_of_events_is_told_of_all() {
    for events in ["", r#", "events": []"#] {
        let callback = format!(r#"{{"url": "https://a.example/", "secretEnvVar": "HOOK"{events}}}"#);
        let tenant =
            format!(r#"[{{"id": "{TENANT}", "name": "A", "authKeyEnvVar": "KEY", "callbacks": [{callback}]}}]"#);
        let files = Files::good().tenants(&tenant).variable("HOOK", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        let (configuration, _) = files.accepted();
        assert_eq!(configuration.tenants[0].callbacks[0].events, EventSet::all());
    }
}

#[test]
fn a_tenant_says_how_long_its_notifications_are_kept() {
    let read = |more: &str| {
        let text = format!(r#"[{{"id": "{TENANT}", "name": "Acme", "authKeyEnvVar": "KEY"{more}}}]"#);
        let (configuration, report) = Files::good().tenants(&text).accepted();
        assert!(report.is_empty(), "{report}");
        (configuration.tenants[0].retention, configuration.tenants[0].redact_after)
    };
    let days = |days: u64| Duration::from_secs(days * 86_400);
    assert_eq!(read(""), (None, None));
    assert_eq!(read(r#", "retention": "forever", "redactAfter": "7d""#), (Some(Lasting::Forever), Some(days(7))));
    assert_eq!(read(r#", "retention": "90d""#), (Some(Lasting::For(days(90))), None));
}

#[test]
fn a_second_key_that_is_empty_is_none() {
    let (configuration, report) = Files::good().variable("KEY_NEXT", "").accepted();
    assert!(report.is_empty(), "{report}");
    assert_eq!(configuration.tenants[0].keys.len(), 1);
}

#[test]
fn the_operators_key_is_found_also_in_a_file() {
    let (configuration, report) = Files::good().variable(ADMIN_KEY_VARIABLE, OTHER_KEY).accepted();
    assert!(report.is_empty(), "{report}");
    assert_eq!(configuration.admin_key.unwrap().expose(), OTHER_KEY);
    let files = Files::good().file("admin", OTHER_KEY);
    let path = files.path("admin").display().to_string();
    let (configuration, _) = files.variable("CONDUCTOR_ADMIN_KEY_FILE", &path).accepted();
    assert_eq!(configuration.admin_key.unwrap().expose(), OTHER_KEY);
    assert!(Files::good().accepted().0.admin_key.is_none());
}

#[test]
fn a_disabled_plugin_is_not_among_the_enabled_ones() {
    let files = Files::good().plugins(r#"[{"name": "log", "enabled": false}, {"name": "parrot-bot"}]"#);
    let (configuration, _) = files.accepted();
    let kinds: Vec<_> = configuration.plugins.iter().map(|plugin| plugin.kind).collect();
    assert_eq!(kinds, ["parrot-talk"]);
}

#[test]
fn two_tenants_may_use_the_same_channel_name() {
    let files = Files::good()
        .tenants(&format!(
            r#"[{{"id": "{TENANT}", "name": "A", "authKeyEnvVar": "KEY"}},
                {{"id": "{OTHER}", "name": "B", "authKeyEnvVar": "KEY2"}}]"#
        ))
        .variable("KEY2", OTHER_KEY)
        .channels(&format!(
            r#"[{{"tenantId": "{TENANT}", "channelType": "log"}}, {{"tenantId": "{OTHER}", "channelType": "log"}}]"#
        ));
    let (configuration, _) = files.accepted();
    assert_ne!(configuration.channels[0].id, configuration.channels[1].id);
}
