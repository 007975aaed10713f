//! The image and the compose files fit the program and one another. No engine is needed to see that.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::docs::configuration::load;
use crate::examples::yaml;
use crate::repository::{read, root};

const COMPOSE_FILES: &[&str] = &["docker-compose.yml", "examples/compose/docker-compose.yml"];

fn dockerfile() -> Vec<String> {
    let text = read(&root().join("Dockerfile")).replace("\\\n", " ");
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn the_image_builds_every_crate_of_the_workspace() {
    let lines = dockerfile();
    for entry in fs::read_dir(root().join("crates")).expect("crates/ can be read") {
        let name = entry.expect("an entry can be read").file_name().into_string().expect("a name is a text");
        let copied = format!("COPY crates/{name}/Cargo.toml crates/{name}/");
        assert!(lines.contains(&copied), "the Dockerfile lacks: {copied}");
    }
}

#[test]
fn the_image_runs_without_rights_and_asks_itself_for_its_health() {
    let lines = dockerfile();
    let runtime = lines.iter().rposition(|line| line.starts_with("FROM ")).expect("there are stages");
    for expected in [
        "USER 10001:10001",
        "WORKDIR /app",
        "VOLUME /app/data",
        "EXPOSE 3333",
        "STOPSIGNAL SIGTERM",
        "ENTRYPOINT [\"conductor\"]",
    ] {
        assert!(lines[runtime..].iter().any(|line| line == expected), "the image lacks: {expected}");
    }
    let health = lines[runtime..].iter().find(|line| line.starts_with("HEALTHCHECK")).expect("there is one");
    assert!(health.ends_with("CMD [\"conductor\", \"health\"]"), "{health}");
    let manifest = read(&root().join("Cargo.toml"));
    let wanted = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("it is stated");
    let image = format!("FROM rust:{}-slim-bookworm AS build", wanted.trim_matches('"'));
    assert!(lines.contains(&image), "the image is built with another Rust than {wanted}");
}

#[test]
fn compose_files_keep_data_and_let_attempts_end() {
    for path in COMPOSE_FILES {
        let file = yaml::load(Path::new(path), &[]);
        let conductor = &file["services"]["conductor"];
        let volumes = texts(&conductor["volumes"]);
        assert!(volumes.contains(&"conductor-data:/app/data"), "{path}: {volumes:?}");
        assert!(volumes.iter().any(|volume| volume.contains(":/app/data/config")), "{path}: {volumes:?}");
        assert!(file["volumes"].get("conductor-data").is_some(), "{path} does not declare its volume");
        let grace = conductor["stop_grace_period"].as_str().and_then(|text| text.trim_end_matches('s').parse().ok());
        assert!(grace.is_some_and(|seconds: u32| seconds > 30), "{path}: a stop takes up to 30 s");
    }
}

#[test]
fn compose_files_give_no_service_of_ours_more_than_it_needs() {
    for path in COMPOSE_FILES {
        let file = yaml::load(Path::new(path), &[]);
        let ours = file["services"].as_object().expect("there are services").iter();
        for (name, service) in ours.filter(|(_, service)| service["image"] == "conductor:latest") {
            assert_eq!(service["read_only"], true, "{path}: {name}");
            assert_eq!(texts(&service["cap_drop"]), ["ALL"], "{path}: {name}");
            assert_eq!(texts(&service["security_opt"]), ["no-new-privileges:true"], "{path}: {name}");
            let is_root = service["user"] == "root";
            assert_eq!(service["cap_add"].is_array(), is_root, "{path}: {name}");
            // SQLite may need a place for what does not fit into memory.
            assert!(is_root || texts(&service["tmpfs"]) == ["/tmp"], "{path}: {name}");
        }
    }
}

#[test]
fn compose_secrets_are_declared_and_named() {
    let file = yaml::load(Path::new(COMPOSE_FILES[1]), &[]);
    let conductor = &file["services"]["conductor"];
    let granted = texts(&conductor["secrets"]);
    let mut used = Vec::new();
    for (variable, value) in conductor["environment"].as_object().expect("there are variables") {
        if variable.ends_with("_FILE") {
            let secret = value.as_str().and_then(|path| path.strip_prefix("/run/secrets/")).expect("a secret's path");
            used.push(secret);
        }
    }
    let declared: Vec<_> = file["secrets"].as_object().expect("there are secrets").keys().map(String::as_str).collect();
    let sorted = |mut names: Vec<&str>| {
        names.sort_unstable();
        names.join(" ")
    };
    assert_eq!(sorted(used), sorted(granted.clone()));
    assert_eq!(sorted(granted), sorted(declared));
}

#[test]
fn the_example_configuration_loads_with_the_variables_that_compose_passes() {
    let file = yaml::load(Path::new(COMPOSE_FILES[1]), &[]);
    let variables = file["services"]["conductor"]["environment"].as_object().expect("there are variables");
    let names = variables.keys().filter_map(|name| name.strip_suffix("_FILE"));
    // Any value will do, as long as no two keys are alike.
    let pairs: Vec<_> =
        names.enumerate().map(|(i, name)| (name.to_owned(), format!("0123456789abcdef{i}").repeat(4))).collect();
    let loaded = load(&root().join("examples/compose/config"), pairs);
    assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
}
