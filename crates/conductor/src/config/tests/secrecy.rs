//! No report repeats a secret, wherever somebody put it.

use proptest::prelude::*;

use crate::config::testing::{Files, TENANT, pattern};
use crate::config::{Environment, load};

/// A text that is in no name, no message and no other value.
const SECRET: &str = "xoxb-Zq9hunter2";

/// Files in which a person put a secret where none belongs. Each is refused, or accepted without a word of it.
fn leaky_files(secret: &str) -> Vec<Files> {
    let tenant = |more: &str| {
        Files::good().tenants(&format!(r#"[{{"id": "{TENANT}", "name": "Acme", "authKeyEnvVar": "KEY"{more}}}]"#))
    };
    let channel = |more: &str| Files::good().channel("parrot-talk", more);
    vec![
        tenant(&format!(r#", "authKey": "{secret}""#)),
        tenant(&format!(r#", "keys": {{"a": ["{secret}"]}}"#)),
        tenant(&format!(r#", "weight": "x", "other": "{secret}""#)),
        tenant(&format!(r#", "weight": 0 // {secret}"#)).tenants("[0] // x"),
        tenant(&format!(", \"weight\": 0 // {secret}\n")),
        tenant(&format!(", /* {secret} */ \"weight\": 0")),
        tenant(&format!(r#", "callbacks": [{{"url": "https://u:{secret}@a.example", "secretEnvVar": "NOPE"}}]"#)),
        tenant(&format!(r#", "callbacks": [{{"url": "ftp://a.example/?k={secret}", "secretEnvVar": "{secret}"}}]"#)),
        tenant(&format!(r#", "callbacks": "{secret}""#)),
        tenant(&format!(r#", "rateLimit": {{"requests": "{secret}"}}"#)),
        Files::good().tenants(&format!(r#"[{{"id": "{TENANT}", "name": "Acme", "authKeyEnvVar": "{secret}"}}]"#)),
        Files::good()
            .tenants(&format!(r#"[{{"id": "{TENANT}", "name": "Acme", "authKeyEnvVar": {{"x": "{secret}"}}}}]"#)),
        Files::good().tenants(&format!(r#"[{{"id": "x", "key": "{secret}" "#)),
        Files::good().tenants(&format!(r#"[{{"id": "x", "key": "{secret}, }}]"#)),
        Files::good().tenants(&format!(r#"[{{"id": "x", "key": {secret}, }}]"#)),
        Files::good().tenants(&format!("\"{secret}\"")),
        Files::good().tenants(&format!("[\"{secret}\"]")),
        channel(&format!(r#", "options": {{"token": "{secret}"}}"#)),
        channel(&format!(r#", "options": {{"token": ["{secret}"], "timeout": 7}}"#)),
        channel(&format!(r#", "options": {{"botToken": "{secret}"}}"#)),
        channel(&format!(r#", "options": {{"loud": 7, "password": {{"x": "{secret}"}}}}"#)),
        channel(&format!(r#", "options": "{secret}""#)),
        channel(&format!(r#", "env": {{"token": "{secret}"}}"#)),
        channel(&format!(r#", "env": {{"tokn": "{secret}"}}"#)),
        channel(&format!(r#", "env": "{secret}""#)),
        channel(&format!(r#", "providerSecretEnvVar": "{secret}""#)),
        channel(&format!(r#", "secret": "{secret}""#)),
        channel(&format!(r#", "options": {{"baseUrl": "https://a:{secret}@b.example/"}}"#)),
        channel(&format!(r#", "options": {{"baseUrl": "ftp://b.example/?key={secret}"}}"#)),
        Files::good().channel("no-such-type", &format!(r#", "options": {{"anything": "{secret}"}}"#)),
        Files::good().plugins(&format!(r#"[{{"name": "nope", "options": {{"token": "{secret}"}}}}]"#)),
        Files::good().plugins(&format!(r#"[{{"name": "log", "token": "{secret}"}}]"#)),
        Files::good().variable("KEY", secret).variable("CONDUCTOR_ADMIN_KEY", secret),
        Files::good().variable("KEY_NEXT", &format!(" {secret}")),
        Files::good().variable(&pattern("TOKEN"), secret),
        Files::good().variable(&pattern("PORT"), secret),
    ]
}

fn report_of(files: &Files) -> String {
    match files.load() {
        Ok((_, report)) => format!("{report}\n{report:?}"),
        Err(report) => format!("{report}\n{report:?}"),
    }
}

#[test]
fn no_report_repeats_a_secret() {
    for (index, files) in leaky_files(SECRET).iter().enumerate() {
        let report = report_of(files);
        assert!(report.contains("error") || report.contains("warning"), "case {index} finds nothing: {report}");
        assert!(!report.contains("hunter2"), "case {index}:\n{report}");
    }
}

#[test]
fn a_token_in_the_place_of_a_variables_name_is_not_repeated() {
    let tokens = [
        "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90",
        "MTk4NjIyNDgzNDcxOTI1MjQ4Cl2FMQZnCjm1XVW7vRze4b7Cq4se7kKWs",
        "AKIAIOSFODNN7EXAMPLEAKIAIOSFODNN7",
    ];
    for token in tokens {
        let report =
            report_of(&Files::good().channel("parrot-talk", &format!(r#", "env": {{"channelId": "{token}"}}"#)));
        assert!(report.contains("error") && !report.contains(token), "{report}");
    }
}

#[test]
fn no_env_file_is_repeated() {
    let root = tempfile::tempdir().unwrap();
    for text in [
        format!("{SECRET}\n"),
        format!("KEY={SECRET} {SECRET}\n"),
        format!("KEY='{SECRET}\n"),
        format!("KEY=\"{SECRET}\n\n"),
    ] {
        std::fs::write(root.path().join(".env"), &text).unwrap();
        let environment = Environment::load(root.path(), root.path());
        let report = load(root.path(), &environment, &[]).err().unwrap();
        assert_eq!(report.faults()[0].line(), Some(1), "{text}");
        assert!(!format!("{report}\n{report:?}").contains("hunter2"), "{report}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn no_report_repeats_a_secret_whatever_it_looks_like(
        secret in "[A-Za-z0-9:._~+/=-]{0,40}hunter2[A-Za-z0-9:._~+/=-]{12,40}",
    ) {
        for files in leaky_files(&secret) {
            prop_assert!(!report_of(&files).contains("hunter2"), "{}", report_of(&files));
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_loader_panic(text in "[\\[\\]{}\":,/* \n\u{e9}a-z0-9\\\\]{0,60}") {
        let _ = Files::good().tenants(&text).channels(&text).plugins(&text).load();
    }
}
