//! What is wrong, and where the report says so.

use crate::config::report::{Fault, Severity};
use crate::config::testing::{Files, KEY, OTHER, OTHER_KEY, TENANT, pattern};
use crate::config::{Environment, Report, load};

/// Whether a fault of that severity stands at that place and says these words.
fn has(report: &Report, severity: Severity, file: &str, pointer: Option<&str>, words: &[&str]) -> bool {
    report.faults().iter().any(|fault| {
        let name = fault.place.as_ref().and_then(|place| place.file.file_name());
        let printed = fault.to_string();
        fault.severity == severity
            && name.is_some_and(|name| name == file)
            && fault.pointer() == pointer
            && words.iter().all(|word| printed.contains(word))
    })
}

/// The report has this error and no other.
#[track_caller]
fn only(files: &Files, file: &str, pointer: impl Into<Option<&'static str>>, words: &[&str]) {
    let report = files.refused();
    assert!(has(&report, Severity::Error, file, pointer.into(), words), "{words:?} not in:\n{report}");
    assert_eq!(report.errors(), 1, "{report}");
}

/// The configuration is accepted with this warning and no other.
#[track_caller]
fn warned(files: &Files, words: &[&str]) {
    let (_, report) = files.accepted();
    let printed = report.to_string();
    assert!(words.iter().all(|word| printed.contains(word)), "{words:?} not in:\n{printed}");
    assert_eq!((report.errors(), report.warnings()), (0, 1), "{printed}");
}

fn tenant(more: &str) -> Files {
    Files::good().tenants(&format!(r#"[{{"id": "{TENANT}", "name": "Acme", "authKeyEnvVar": "KEY"{more}}}]"#))
}

fn options(options: &str) -> Files {
    Files::good().channel("parrot-talk", &format!(r#", "options": {{{options}}}"#))
}

#[test]
fn bad_json_is_told_with_its_place_and_the_other_files_are_still_checked() {
    let cases = [
        ("[\n  {\"id\": 1,,}\n]", (2, 12)),
        ("[\n  {\"ü\": 'x'}\n]", (2, 9)),
        ("{\"tenants\": [", (1, 13)),
        ("[] []", (1, 4)),
        ("[{\"id\": 0x10}]", (1, 9)),
        ("[{id: 1}]", (1, 3)),
        ("[1 2]", (1, 3)),
    ];
    for (text, expected) in cases {
        let files = Files::good().tenants(text).plugins("[{\"nam\": \"log\"}, {\"name\": \"parrot-talk\"}]");
        let report = files.refused();
        let fault = &report.faults()[0];
        assert!(fault.to_string().contains("tenants.json:"), "{report}");
        assert_eq!((fault.line(), fault.column()), (Some(expected.0), Some(expected.1)), "{text}\n{report}");
        assert!(has(&report, Severity::Error, "plugins.json", Some("/0/nam"), &["did you mean `name`?"]), "{report}");
    }
}

#[test]
fn deep_nesting_is_a_fault_and_no_overflow() {
    let report = Files::good().tenants(&"[".repeat(100_000)).refused();
    assert!(report.to_string().contains("depth"), "{report}");
    Files::good().tenants(&format!("{}{}", "[".repeat(500), "]".repeat(500))).refused();
}

#[test]
fn files_that_cannot_be_read_are_told() {
    let files = Files::good();
    std::fs::remove_file(files.path("channels.json")).unwrap();
    only(&files, "channels.json", None, &["does not exist", "conductor init"]);
    let files = Files::good();
    std::fs::write(files.path("plugins.json"), b"[\n \xff]").unwrap();
    only(&files, "plugins.json", None, &["not UTF-8", "plugins.json:2:2"]);
    for empty in ["", "  \n", "// only a comment"] {
        only(&Files::good().tenants(empty), "tenants.json", None, &["empty", "`conductor init`"]);
    }
    let files = Files::good();
    std::fs::remove_file(files.path("channels.json")).unwrap();
    std::fs::create_dir(files.path("channels.json")).unwrap();
    only(&files, "channels.json", None, &["cannot be read"]);
}

#[test]
fn a_missing_directory_is_one_fault() {
    let root = tempfile::tempdir().unwrap();
    let environment = Environment::from_pairs([("A", "b")]);
    let report = load(&root.path().join("none"), &environment, &[]).err().unwrap();
    assert_eq!(report.errors(), 1);
    assert!(report.to_string().contains("the directory does not exist"), "{report}");
}

#[test]
fn a_file_of_another_shape_is_refused() {
    only(&Files::good().plugins("7"), "plugins.json", "", &["found a number", "a list of plugins"]);
}

#[test]
fn an_object_without_its_list_is_refused() {
    let report = Files::good().tenants(r#"{"tenant": []}"#).refused();
    assert!(has(&report, Severity::Error, "tenants.json", Some("/tenant"), &["did you mean `tenants`?"]), "{report}");
    assert!(has(&report, Severity::Error, "tenants.json", Some(""), &["`tenants` is missing"]), "{report}");
    let report = Files::good().tenants(r#"{"tenants": {}}"#).refused();
    assert!(has(&report, Severity::Error, "tenants.json", Some("/tenants"), &["a list of tenants"]), "{report}");
}

#[test]
fn faults_of_tenants_are_told_with_their_place() {
    let t = "tenants.json";
    only(&tenant(r#", "wieght": 2"#), t, "/0/wieght", &["`wieght`", "did you mean `weight`?", ":1:"]);
    only(&tenant(r#", "weight": 0"#), t, "/0/weight", &["found 0", "1 to 1000"]);
    only(&tenant(r#", "weight": "2""#), t, "/0/weight", &["found \"2\"", "a whole number"]);
    only(&tenant(r#", "weight": 1.5"#), t, "/0/weight", &["found 1.5", "a whole number"]);
    let kept = "a duration such as 12h, 30d or 365d, or forever";
    only(&tenant(r#", "retentoin": "90d""#), t, "/0/retentoin", &["did you mean `retention`?"]);
    only(&tenant(r#", "retention": "never""#), t, "/0/retention", &["found \"never\"", kept]);
    only(&tenant(r#", "retention": 90"#), t, "/0/retention", &["found 90", kept]);
    only(&tenant(r#", "retention": "59m""#), t, "/0/retention", &["is out of range", "1h to 3650d"]);
    only(&tenant(r#", "redactAfter": "9999d""#), t, "/0/redactAfter", &["is out of range", "1h to 3650d"]);
    only(&tenant(r#", "redactAfter": "forever""#), t, "/0/redactAfter", &["a duration such as"]);
    warned(
        &tenant(r#", "retention": "7d", "redactAfter": "168h""#),
        &["never removed on its own", "less than `retention`"],
    );
    only(&tenant(r#", "name": "twice""#), t, "/0/name", &["`name` stands twice", "line 1"]);
    only(&tenant(r#", "rateLimit": {"queued": 0}"#), t, "/0/rateLimit/queued", &["a whole number from 1"]);
    only(&tenant(r#", "rateLimit": {"bytes": "1M"}"#), t, "/0/rateLimit/bytes", &["a whole number of bytes"]);
    only(&tenant(r#", "rateLimit": 5"#), t, "/0/rateLimit", &["an object"]);
    only(&tenant(r#", "rateLimit": {"requests": {"per": "1s"}}"#), t, "/0/rateLimit/requests", &["`limit` is missing"]);
    only(
        &tenant(r#", "rateLimit": {"requests": {"per": "1 s", "limit": 1}}"#),
        t,
        "/0/rateLimit/requests/per",
        &["a duration such as"],
    );
    only(
        &tenant(r#", "rateLimit": {"requests": {"per": "0s", "limit": 1}}"#),
        t,
        "/0/rateLimit/requests/per",
        &["out of range", "1ms to 30d"],
    );
    only(&Files::good().tenants("[7]").channels("[]"), t, "/0", &["found a number", "an object"]);
    let nameless = format!(r#"[{{"id": "{TENANT}", "authKeyEnvVar": "KEY"}}]"#);
    only(&Files::good().tenants(&nameless), t, "/0", &["`name` is missing", "What people call"]);
    let empty = format!(r#"[{{"id": "{TENANT}", "name": "", "authKeyEnvVar": "KEY"}}]"#);
    only(&Files::good().tenants(&empty), t, "/0/name", &["1 to 200 characters"]);
    let bad = r#"[{"id": "01943c2a", "name": "A", "authKeyEnvVar": "KEY"}]"#;
    only(&Files::good().tenants(bad).channels("[]"), t, "/0/id", &["found \"01943c2a\"", "a UUID such as"]);
    let variable = format!(r#"[{{"id": "{TENANT}", "name": "A", "authKeyEnvVar": "MY-KEY"}}]"#);
    only(&Files::good().tenants(&variable), t, "/0/authKeyEnvVar", &["the name of an environment variable"]);
}

fn two_tenants(other: &str, variable: &str) -> Files {
    Files::good().variable("KEY2", OTHER_KEY).tenants(&format!(
        r#"[{{"id": "{TENANT}", "name": "A", "authKeyEnvVar": "KEY"}},
            {{"id": "{other}", "name": "B", "authKeyEnvVar": "{variable}"}}]"#
    ))
}

#[test]
fn tenants_have_ids_and_keys_of_their_own() {
    let t = "tenants.json";
    only(&two_tenants(TENANT, "KEY2"), t, "/1/id", &["belongs to another tenant", "line 1"]);
    let upper = two_tenants(&TENANT.to_ascii_uppercase(), "KEY2");
    only(&upper, t, "/1/id", &["belongs to another tenant"]);
    only(&two_tenants(OTHER, "KEY"), t, "/1/authKeyEnvVar", &["is the key of the tenant \"A\" too"]);
    only(&two_tenants(OTHER, "KEY2").variable("KEY2", KEY), t, "/1/authKeyEnvVar", &["the tenant \"A\" too"]);
    only(&two_tenants(OTHER, "KEY2").variable("KEY2_NEXT", KEY), t, "/1/authKeyEnvVar", &["`KEY2_NEXT`", "\"A\" too"]);
    only(&Files::good().variable("CONDUCTOR_ADMIN_KEY", KEY), t, "/0/authKeyEnvVar", &["the operator's own key"]);
}

#[test]
fn keys_that_are_missing_empty_or_unusable_are_faults() {
    let (t, place) = ("tenants.json", "/0/authKeyEnvVar");
    only(
        &Files::good().without("KEY"),
        t,
        place,
        &[
            "the variable `KEY` is not set",
            "`KEY_FILE`",
            "the API key of the tenant \"Acme\"",
            "add the line `KEY=…` to data/.env",
        ],
    );
    only(&Files::good().variable("KEY", ""), t, place, &["`KEY` is set, but empty", "`KEY=…`"]);
    only(&Files::good().variable("KEY", "   "), t, place, &["the key in `KEY` is empty"]);
    only(&Files::good().variable("KEY", &format!("{KEY} ")), t, place, &["white space"]);
    only(&Files::good().variable("KEY", &format!("{KEY}\nX")), t, place, &["no request can send"]);
    only(&Files::good().variable("KEY", &KEY.repeat(100)), t, place, &["too long"]);
    let unreadable = Files::good().without("KEY").variable("KEY_FILE", "/nonexistent/key");
    only(&unreadable, t, place, &["`KEY_FILE` names the file /nonexistent/key, which cannot be read"]);
    let admin = Files::good().variable("CONDUCTOR_ADMIN_KEY_FILE", "/nonexistent/key").refused();
    assert!(admin.to_string().contains("`CONDUCTOR_ADMIN_KEY_FILE` names the file"), "{admin}");
}

#[test]
fn weak_keys_are_warnings() {
    warned(&Files::good().variable("KEY", "0123456789abcdef"), &["the key in `KEY` is weak", "fewer than 32"]);
    warned(&Files::good().variable("KEY", &"abcd".repeat(16)), &["is weak", "fewer than 8 different"]);
    warned(&Files::good().variable("KEY_NEXT", "short"), &["the key in `KEY_NEXT` is weak"]);
    warned(&Files::good().variable("CONDUCTOR_ADMIN_KEY", "short"), &["the operator's key", "is weak"]);
    warned(&Files::good().variable("CONDUCTOR_ADMIN_KEY", ""), &["counts as not set"]);
    warned(&Files::good().variable("KEY_FILE", "/nonexistent"), &["both `KEY` and `KEY_FILE` are set"]);
}

fn callback(members: &str) -> Files {
    tenant(&format!(r#", "callbacks": [{{{members}}}]"#)).variable("HOOK", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
}

#[test]
fn faults_of_callbacks_are_told_with_their_place() {
    let t = "tenants.json";
    let good = r#""url": "https://a.example/", "secretEnvVar": "HOOK""#;
    callback(good).accepted();
    only(&callback(r#""url": "https://a.example/""#), t, "/0/callbacks/0", &["`secretEnvVar` is missing"]);
    only(
        &callback(&format!(r#"{good}, "events": ["notification.fail"]"#)),
        t,
        "/0/callbacks/0/events/0",
        &["found \"notification.fail\"", "`notification.delivered`, `notification.undelivered`, `notification.failed`"],
    );
    let url = |url: &str| callback(&format!(r#""url": "{url}", "secretEnvVar": "HOOK""#));
    only(&url("a.example"), t, "/0/callbacks/0/url", &["an address such as"]);
    only(&url("ftp://a.example/"), t, "/0/callbacks/0/url", &["scheme `ftp`", "https or http"]);
    only(&url("https://me:pw@a.example/"), t, "/0/callbacks/0/url", &["a user or a password"]);
    only(&url("https://[::1/"), t, "/0/callbacks/0/url", &["no address"]);
    only(
        &callback(&format!(r#"{good}, "allowNetworks": ["10.0.0.1", "10.0.0.0/8"]"#)),
        t,
        "/0/callbacks/0/allowNetworks/0",
        &["found \"10.0.0.1\"", "a network as CIDR"],
    );
    let place = "/0/callbacks/0/secretEnvVar";
    only(&callback(good).without("HOOK"), t, place, &["the variable `HOOK` is not set", "whsec_"]);
    only(&callback(good).variable("HOOK", "abc"), t, place, &["does not begin with `whsec_` or `whsk_`"]);
    only(&callback(good).variable("HOOK", "whsec_AAAA"), t, place, &["decodes to 3 bytes"]);
    only(&callback(good).variable("HOOK", "whsk_AAAA"), t, place, &["decodes to 3 bytes; an ed25519 key has 32"]);
    only(&callback(good).variable("HOOK_NEXT", "abc"), t, place, &["the secret in `HOOK_NEXT` does not begin"]);
    let twice = tenant(&format!(r#", "callbacks": [{{{good}}}, {{{good}, "events": ["channel.up"]}}]"#));
    let twice = twice.variable("HOOK", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    only(&twice, t, "/0/callbacks/1/url", &["another callback of this tenant has this URL", "one entry for each URL"]);
}

#[test]
fn faults_of_plugins_are_told_with_their_place() {
    let p = "plugins.json";
    let files = |text: &str| Files::good().plugins(text).channels("[]");
    only(
        &files(r#"[{"name": "parot-talk"}]"#),
        p,
        "/0/name",
        &["no plugin \"parot-talk\"", "did you mean `parrot-talk`?"],
    );
    only(
        &files(r#"{"plugins": [{"name": "log"}, {"name": "log"}]}"#),
        p,
        "/plugins/1/name",
        &["stands twice", "line 1"],
    );
    only(&files(r#"[{"name": "parrot-talk"}, {"name": "parrot-bot"}]"#), p, "/1/name", &["stands twice"]);
    only(&files(r#"[{"name": "log", "enabled": "yes"}]"#), p, "/0/enabled", &["found \"yes\"", "true or false"]);
    only(&files(r#"[{"name": "log", "options": []}]"#), p, "/0/options", &["found a list", "an object"]);
    only(&files(r#"[{"enabled": true}]"#), p, "/0", &["`name` is missing"]);
    only(
        &files(r#"[{"name": "smoke", "enabled": false}]"#),
        p,
        "/0/name",
        &["no plugin \"smoke\"", "remove the entry"],
    );
}

#[test]
fn a_channel_refers_to_a_tenant_and_an_enabled_plugin() {
    let c = "channels.json";
    let stranger = format!(r#"[{{"tenantId": "{OTHER}", "channelType": "log"}}]"#);
    only(&Files::good().channels(&stranger), c, "/0/tenantId", &["no tenant has the id", TENANT]);
    let off = r#"[{"name": "parrot-talk", "enabled": false}]"#;
    let words = ["the plugin `parrot-talk` is not enabled", r#"{ "name": "parrot-talk", "enabled": true }"#];
    only(&Files::good().plugins(off), c, "/0/channelType", &words);
    only(&Files::good().plugins("[]"), c, "/0/channelType", &words);
    only(
        &Files::good().channel("parot", ""),
        c,
        "/0/channelType",
        &["no channel type \"parot\"", "did you mean `parrot-talk`?"],
    );
    // A file that cannot be read is no reason to call every reference to it wrong.
    only(&Files::good().plugins("["), "plugins.json", None, &["not JSON"]);
    only(&Files::good().tenants("["), "tenants.json", None, &["not JSON"]);
}

#[test]
fn channels_have_ids_of_their_own() {
    let c = "channels.json";
    let pair = |first: &str, second: &str| {
        let log = format!(r#""tenantId": "{TENANT}", "channelType": "log""#);
        Files::good().channels(&format!("[{{{log}{first}}},\n{{{log}{second}}}]"))
    };
    pair("", r#", "channelName": "two""#).accepted();
    only(&pair("", ""), c, "/1", &["have the name \"log\" and no `channelId`", "another `channelName`", "line 1"]);
    let id = format!(r#", "channelId": "{OTHER}""#);
    only(&pair(&id, &id), c, "/1/channelId", &["belongs to another channel", "line 1"]);
    only(&pair("", r#", "channelId": "x""#), c, "/1/channelId", &["a UUID such as"]);
}

#[test]
fn faults_of_channels_are_told_with_their_place() {
    let c = "channels.json";
    let channel = |more: &str| Files::good().channel("parrot-talk", more);
    only(&channel(r#", "chanelName": "x""#), c, "/0/chanelName", &["did you mean `channelName`?"]);
    only(&Files::good().channels(r#"[{"channelType": "log"}]"#), c, "/0", &["`tenantId` is missing"]);
    only(&channel(r#", "options": 7"#), c, "/0/options", &["an object"]);
    only(&channel(r#", "env": {"tokn": "X"}"#), c, "/0/env/tokn", &["did you mean `token`?"]);
    only(&channel(r#", "env": {"token": 7}"#), c, "/0/env/token", &["the name of an environment variable"]);
    only(&channel(r#", "env": {"channelId": "NOT_SET"}"#), c, "/0/env/channelId", &["`NOT_SET`", "`NOT_SET=…`"]);
    only(&options(r#""timeuot": "1s""#), c, "/0/options/timeuot", &["did you mean `timeout`?"]);
    only(&options(r#""lowd": true"#), c, "/0/options/lowd", &["did you mean `loud`?"]);
    only(&options(r#""timeout": "1 minute""#), c, "/0/options/timeout", &["found \"1 minute\"", "a duration such as"]);
    only(&options(r#""timeout": "0s""#), c, "/0/options/timeout", &["out of range", "1ms to 10m"]);
    only(&options(r#""timeout": "999999999999d""#), c, "/0/options/timeout", &["out of range"]);
    only(&options(r#""expiresAfter": "366d""#), c, "/0/options/expiresAfter", &["1s to 365d"]);
    only(&options(r#""delayNote": "0s""#), c, "/0/options/delayNote", &["1s to 365d"]);
    only(&options(r#""maxConcurrency": 0"#), c, "/0/options/maxConcurrency", &["1 to 1000"]);
    only(&options(r#""ordered": 1"#), c, "/0/options/ordered", &["true or false"]);
    only(&options(r#""onUnknown": "wait""#), c, "/0/options/onUnknown", &["`retry`, `hold`"]);
    only(&options(r#""rate": {"limit": 0}"#), c, "/0/options/rate/limit", &["1 to 1000000"]);
    only(&options(r#""rate": "5/s""#), c, "/0/options/rate", &["a rate such as"]);
    only(&options(r#""allowNetworks": "10.0.0.0/8""#), c, "/0/options/allowNetworks", &["a list"]);
    only(&options(r#""allowNetworks": ["10.0.0.0/33"]"#), c, "/0/options/allowNetworks/0", &["no network"]);
    only(&options(r#""baseUrl": "file:///etc/passwd""#), c, "/0/options/baseUrl", &["an address such as"]);
    only(&options(r#""baseUrl": "gopher://a.example""#), c, "/0/options/baseUrl", &["scheme `gopher`"]);
    warned(&options(r#""rate": {"per": "7d", "limit": 2}"#), &["cannot be met", "every 84h", "expires after 1d"]);
}

#[test]
fn addresses_that_will_be_refused_are_warned_of() {
    let local = |more: &str| options(&format!(r#""baseUrl": "http://192.168.1.7:8080/api"{more}"#));
    let words = ["192.168.1.7 is a private address", "\"allowNetworks\": [\"192.168.0.0/16\"]", "/0/options/baseUrl"];
    warned(&local(""), &words);
    warned(&local(r#", "allowNetworks": ["10.0.0.0/8"]"#), &words);
    let quiet = |files: &Files| assert!(files.accepted().1.is_empty(), "{}", files.accepted().1);
    quiet(&local(r#", "allowNetworks": ["192.168.1.7/32"]"#));
    quiet(&options(r#""baseUrl": "http://proxy.lan:8080""#));

    let pager = |number: &str| {
        let channel = format!(r#", "channelName": "pages", "options": {{"region": "eu", "number": "{number}"}}"#);
        Files::good().channel("pager", &channel)
    };
    warned(&pager("http://2130706433/"), &["127.0.0.1 is a loopback address", "/0/options/number"]);
    quiet(&pager("https://example.com/127.0.0.1"));
    let files = Files::good().channel("parrot-talk", r#", "providerIdEnvVar": "ROOM""#);
    let words = ["169.254.169.254 is a cloud's metadata address", "/0/providerIdEnvVar"];
    warned(&files.variable("ROOM", "http://169.254.169.254/s3cret"), &words);

    let callback = |url: &str| {
        let callback = format!(r#", "callbacks": [{{"url": "{url}", "secretEnvVar": "SECRET"}}]"#);
        tenant(&callback).variable("SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    };
    warned(&callback("http://localhost:9/x"), &["127.0.0.1 is a loopback address", "/0/callbacks/0/url"]);
    quiet(&callback("https://acme.example/hooks"));
}

#[test]
fn limits_that_can_never_be_met_are_warned_of() {
    let room = |limits: &str| tenant(&format!(r#", "rateLimit": {{{limits}}}"#));
    warned(&room(r#""bytes": 65535"#), &["more than 65535 bytes is refused", "at least 65536", "/0/rateLimit/bytes"]);
    warned(&room(r#""queued": 70000, "bytes": 65536"#), &["`queued` can never be met", "/0/rateLimit/bytes"]);
    let quiet = |files: &Files| assert!(files.accepted().1.is_empty(), "{}", files.accepted().1);
    quiet(&room(r#""queued": 65536, "bytes": 65536"#));

    let rate = |files: Files, options: &str| {
        let channel = format!(r#", "channelName": "pages", "options": {{"region": "eu", "number": "1"{options}}}"#);
        files.channel("pager", &channel)
    };
    let hourly = r#", "rate": {"per": "1h", "limit": 2}"#;
    let words = ["may have 49 notifications waiting", "48 leave", "expires after 1d", "/0/options/rate"];
    warned(&rate(room(r#""queued": 49"#), hourly), &words);
    quiet(&rate(room(r#""queued": 48"#), hourly));
    // The plugin's own rate counts where the channel says none.
    let words = ["may have 172801 notifications", "172800 leave", "/0/options/expiresAfter"];
    warned(&rate(room(r#""queued": 172801"#), ""), &words);
    quiet(&rate(room(r#""queued": 172800"#), ""));
    let words = ["cannot be met", "pager takes 2 messages in 1s", "unless it has granted more", "/0/options/rate"];
    warned(&rate(Files::good(), r#", "rate": {"per": "1s", "limit": 3}"#), &words);
    quiet(&rate(Files::good(), r#", "rate": {"per": "1s", "limit": 2, "burst": 50}"#));
    quiet(&rate(Files::good(), r#", "rate": {"per": "1s", "limit": 3}, "baseUrl": "https://pager.example""#));
}

#[test]
fn faults_in_what_a_plugin_is_told_are_told() {
    let c = "channels.json";
    only(&options(r#""loud": "yes""#), c, "/0/options/loud", &["found \"yes\"", "true or false"]);
    only(&options(r#""loud": true, "mood": "sad""#), c, "/0/options/mood", &["a sad parrot is not loud"]);
    only(&options(r#""mood": "angry""#), c, "/0/options/mood", &["found \"angry\""]);
    only(&options(r#""port": 70000"#), c, "/0/options/port", &["found 70000", "65535"]);
    let port = pattern("PORT");
    only(&Files::good().variable(&port, "70000"), c, "/0/channelType", &[&port, "does not fit", "65535"]);
    only(&Files::good().variable(&port, "http"), c, "/0/channelType", &[&port, "a whole number"]);
    only(&Files::good().variable(&pattern("TOKEN"), "wrong"), c, "/0/channelType", &["*** does not begin with tok_"]);
    let pager = Files::good().channel("pager", r#", "options": {"number": "1"}"#);
    only(&pager, c, "/0/options", &["`region` is missing"]);
    let pager = Files::good().channel("pager", r#", "options": {"region": "eu"}"#);
    let number = pattern("NUMBER").replace("PARROT_TALK", "PAGER");
    only(&pager, c, "/0/channelType", &[&format!("the variable `{number}` is not set"), "`number` of the channel"]);
}

#[test]
fn a_missing_secret_is_told_with_every_name_that_was_looked_for() {
    let files = Files::good().channel("parrot-talk", r#", "channelName": "alerts", "providerSecretEnvVar": "BOT""#);
    let token = pattern("TOKEN");
    only(
        &files.without(&token),
        "channels.json",
        "/0/providerSecretEnvVar",
        &[
            "(looked for `BOT`, `BOT_FILE`,",
            &format!("`{token}`, `{token}_FILE`)"),
            "`token` of the channel \"alerts\" (parrot-talk): for the tests",
            "add the line `BOT=…` to data/.env",
        ],
    );
    let words = [&*format!("the variable `{token}` is not set"), &format!("`{token}=…`")];
    only(&Files::good().without(&token), "channels.json", "/0/channelType", &words);
}

#[test]
fn a_secret_in_the_file_is_told_with_where_it_belongs() {
    let token = pattern("TOKEN");
    let files = options(r#""token": "tok_hunter2""#);
    let words = ["`token` is a secret", "committed", &format!("`{token}=…`")];
    only(&files, "channels.json", "/0/options/token", &words);
    only(&files.without(&token), "channels.json", "/0/options/token", &words);
}

#[test]
fn all_faults_of_all_files_are_told_at_once() {
    let files = Files::good()
        .without("KEY")
        .without(&pattern("TOKEN"))
        .tenants(&format!(
            "[{{\"id\": \"{TENANT}\", \"name\": \"Acme\", \"authKeyEnvVar\": \"KEY\",\n \"wieght\": 0}}]"
        ))
        .plugins("[{\"name\": \"parrot-talk\"},\n{\"name\": \"smoke\"}]")
        .channel("parrot-talk", ",\n\"options\": {\"timeout\": 7,\n\"token\": 1}, \"env\": {\"nope\": \"X\"}")
        .variable("CONDUCTOR_ADMIN_KEY", "weak");
    let report = files.refused();
    let places: Vec<_> = report.faults().iter().filter_map(Fault::pointer).collect();
    let expected =
        ["/0/authKeyEnvVar", "/0/wieght", "/1/name", "/0/options/timeout", "/0/options/token", "/0/env/nope"];
    assert_eq!(places, expected, "{report}");
    assert!(report.to_string().ends_with("\n6 errors, 1 warning"), "{report}");
}

#[test]
fn faults_of_env_files_stop_the_start() {
    let files = Files::good();
    let root = tempfile::tempdir().unwrap();
    let token = pattern("TOKEN");
    std::fs::write(root.path().join(".env"), format!("KEY={KEY}\n{token}=tok_x\nno assignment\n")).unwrap();
    let environment = Environment::load(&root.path().join("none"), root.path());
    let report = load(files.directory.path(), &environment, crate::config::testing::PLUGINS).err().unwrap();
    assert!(has(&report, Severity::Error, ".env", None, &[".env:3:1", "NAME=value"]), "{report}");
    assert_eq!(report.errors(), 1, "{report}");
}

#[test]
fn a_report_reads_like_this() {
    let files = Files::good().channels(&format!(
        "// Our channels.\n{{ \"channels\": [\n  {{ \"tenantId\": \"{OTHER}\", \"channelType\": \"log\" }},\n] }}"
    ));
    let path = files.path("channels.json").display().to_string();
    let expected = format!(
        r#"error: no tenant has the id "{OTHER}"
  --> {path}:3:17 (/channels/0/tenantId)
     |
   3 |   {{ "tenantId": "{OTHER}", "channelType": "log" }},
     |                 {}
  expected: the id of a tenant of tenants.json
  help: did you mean `{TENANT}`?

1 error"#,
        "^".repeat(38)
    );
    assert_eq!(files.refused().to_string(), expected);
}
