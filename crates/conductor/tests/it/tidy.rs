//! The house's rules, held by tests: `ARCHITECTURE.md` says them in words.

mod tokens;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::repository::{files, read, root, shown};
use tokens::{Token, tokens};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const ARCHITECTURE_LINES_MAX: usize = 200;

/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] = &["common", "util", "utils", "helper", "helpers", "types", "manager", "misc", "shared"];

/// Which of the workspace's crates each crate may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("conductor-core", &[]),
    ("conductor-store", &["conductor-core"]),
    ("conductor-channels", &["conductor-core"]),
    ("conductor", &["conductor-core", "conductor-store", "conductor-channels"]),
    // It measures the program from outside.
    ("conductor-bench", &[]),
];

/// The server's modules, lowest first. A module may import those of the layers below it.
const LAYERS: &[&[&str]] = &[
    &["clock", "ids", "outcomes", "refusals", "telemetry", "config"],
    &["registry"],
    &["app"],
    &["accept", "callbacks", "dispatch", "export", "janitor", "readings", "reload", "replays"],
    &["api"],
    &["server"],
    &["cli"],
];
/// What may be imported though it is in the same layer.
const ALSO: &[(&str, &str)] = &[
    ("telemetry", "clock"),
    ("config", "clock"),
    ("config", "ids"),
    ("config", "telemetry"),
    ("export", "readings"),
    ("replays", "accept"),
];
/// What may not be imported though it is in a layer below: strangers meet in the store and in `app`.
const STRANGERS: &[(&str, &str)] = &[
    ("api", "dispatch"),
    ("api", "export"),
    ("api", "janitor"),
    ("api", "replays"),
    ("api", "callbacks"),
    ("api", "reload"),
];

/// What `conductor-core` must not know: the outside world, the time, chance.
const WORLD: &[&str] = &["SystemTime", "Instant", "tokio", "reqwest", "rusqlite", "fastrand", "rand"];
const STD_WORLD: &[&str] = &["fs", "net", "process", "env", "thread", "io"];

fn source_files() -> Vec<PathBuf> {
    let found = files(&root().join("crates"), ".rs");
    assert!(found.len() > 20, "only {} source files found", found.len());
    found
}

fn expect_none(faults: &[String], rule: &str) {
    assert!(faults.is_empty(), "{rule}:\n  {}", faults.join("\n  "));
}

#[test]
fn no_file_is_too_long() {
    let mut faults = Vec::new();
    for path in source_files() {
        let lines = read(&path).lines().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!("{}: {lines} lines", shown(&path)));
        }
    }
    let lines = read(&root().join("ARCHITECTURE.md")).lines().count();
    if lines > ARCHITECTURE_LINES_MAX {
        faults.push(format!("ARCHITECTURE.md: {lines} lines; {ARCHITECTURE_LINES_MAX} are allowed"));
    }
    expect_none(&faults, "a source file has at most 600 lines");
}

#[test]
fn no_function_is_too_long() {
    let mut faults = Vec::new();
    for path in source_files() {
        for (name, line, length) in functions(&tokens(&read(&path))) {
            if length > FUNCTION_LINES_MAX {
                faults.push(format!("{}:{line}: `{name}` has {length} lines", shown(&path)));
            }
        }
    }
    expect_none(&faults, "a function has at most 70 lines");
}

/// Every function with a body: name, first line, number of lines.
fn functions(tokens: &[Token]) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if token.text != "fn" || tokens.get(at + 1).is_none_or(|name| name.text == "(") {
            continue;
        }
        let mut depth = 0_i32;
        let mut body = false;
        for next in &tokens[at..] {
            match next.text.as_str() {
                "(" | "[" => depth += 1,
                ")" | "]" => depth -= 1,
                ";" if depth == 0 && !body => break,
                "{" => {
                    body |= depth == 0;
                    depth += 1;
                }
                "}" => {
                    depth -= 1;
                    if body && depth == 0 {
                        found.push((tokens[at + 1].text.clone(), token.line, next.line - token.line + 1));
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    let mut faults = Vec::new();
    for path in source_files() {
        for part in path.strip_prefix(root()).unwrap_or(&path).components().skip(2) {
            let name = Path::new(part.as_os_str()).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if EMPTY_NAMES.contains(&name) {
                faults.push(shown(&path));
            }
        }
        for (name, line) in modules(&tokens(&read(&path))) {
            if EMPTY_NAMES.contains(&name.as_str()) {
                faults.push(format!("{}:{line}: mod {name}", shown(&path)));
            }
        }
    }
    expect_none(&faults, "a module is named for what it holds");
}

fn modules(tokens: &[Token]) -> Vec<(String, usize)> {
    let pairs = tokens.windows(3).filter(|three| three[0].text == "mod" && matches!(&*three[2].text, ";" | "{"));
    pairs.map(|three| (three[1].text.clone(), three[1].line)).collect()
}

#[test]
fn every_file_is_named_by_a_module() {
    let root = root();
    let mut reached = BTreeSet::new();
    let mut open: Vec<PathBuf> = Vec::new();
    for (name, _) in CRATES {
        let folder = root.join("crates").join(name);
        for start in ["src/lib.rs", "src/main.rs", "build.rs"] {
            open.extend(Some(folder.join(start)).filter(|path| path.is_file()));
        }
        // Each file directly in one of these folders is a target of its own, and each folder with a main file.
        for targets in ["src/bin", "tests", "benches", "examples"] {
            for entry in fs::read_dir(folder.join(targets)).into_iter().flatten().flatten() {
                let path = if entry.path().is_dir() { entry.path().join("main.rs") } else { entry.path() };
                open.extend(Some(path).filter(|path| path.is_file() && path.extension().is_some_and(|e| e == "rs")));
            }
        }
    }
    while let Some(path) = open.pop() {
        let source = read(&path);
        if reached.insert(path.clone()) {
            open.extend(modules(&tokens(&source)).iter().filter_map(|(name, _)| child(&path, name)));
            open.extend(paths(&source).map(|name| path.with_file_name(name)));
        }
    }
    let faults: Vec<_> = source_files().iter().filter(|path| !reached.contains(*path)).map(|p| shown(p)).collect();
    expect_none(&faults, "every source file is part of a crate (no `mod` names these)");
}

/// The files that `#[path = "…"]` names.
fn paths(source: &str) -> impl Iterator<Item = &str> {
    source.lines().filter_map(|line| line.trim().strip_prefix("#[path = \"")?.strip_suffix("\"]"))
}

/// The file that `mod name;` in `parent` stands for.
fn child(parent: &Path, name: &str) -> Option<PathBuf> {
    let stem = parent.file_stem()?.to_str()?;
    let folder = parent.parent()?;
    let folder = if matches!(stem, "lib" | "main" | "mod") { folder.to_owned() } else { folder.join(stem) };
    let candidates = [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")];
    candidates.into_iter().find(|path| path.is_file())
}

#[test]
fn crates_depend_on_one_another_only_downwards() {
    let mut faults = Vec::new();
    for (name, allowed) in CRATES {
        let manifest = read(&root().join("crates").join(name).join("Cargo.toml"));
        for found in crates_named(&manifest) {
            if found != *name && !allowed.contains(&found.as_str()) {
                faults.push(format!("{name} depends on {found}"));
            }
        }
    }
    let crates = fs::read_dir(root().join("crates")).expect("crates/ can be read").count();
    assert_eq!(crates, CRATES.len(), "a crate is missing in the table of this test");
    expect_none(&faults, "store and channels depend on core alone, core on none");
}

/// Every crate of the workspace that a manifest names outside comments.
fn crates_named(manifest: &str) -> BTreeSet<String> {
    let lines = manifest.lines().map(|line| line.split('#').next().unwrap_or_default());
    let lines = lines.filter(|line| !line.starts_with("description"));
    let words = lines.flat_map(|line| line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-'));
    words.filter(|word| CRATES.iter().any(|(name, _)| name == word)).map(str::to_owned).collect()
}

#[test]
fn modules_import_one_another_only_downwards() {
    let source = root().join("crates/conductor/src");
    let mut faults = Vec::new();
    for path in files(&source, ".rs") {
        let inside = path.strip_prefix(&source).expect("it lies there");
        let parts: Vec<_> = inside.iter().filter_map(|part| part.to_str()).collect();
        let module = parts[0].trim_end_matches(".rs");
        if matches!(module, "lib" | "main") && parts.len() == 1 {
            continue;
        }
        if layer(module).is_none() {
            faults.push(format!("{}: `{module}` is missing in the table of this test", shown(&path)));
        }
        let depth = parts.len() - usize::from(parts.last() == Some(&"mod.rs"));
        for (import, line) in imports(&tokens(&read(&path)), depth) {
            if !may_import(module, &import) {
                faults.push(format!("{}:{line}: `{module}` imports `{import}`", shown(&path)));
            }
        }
    }
    expect_none(&faults, "imports point downwards");
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Names that are no modules, such as a macro at the crate's root, may be imported by all.
fn may_import(module: &str, import: &str) -> bool {
    if module == import || layer(import).is_none() || ALSO.contains(&(module, import)) {
        return true;
    }
    layer(import) < layer(module) && !STRANGERS.contains(&(module, import))
}

/// The top modules that a file names as `crate::x`, `crate::{x, y}`, or through `super`. `depth` is the number of names
/// in the file's own module path.
fn imports(tokens: &[Token], depth: usize) -> Vec<(String, usize)> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    let (mut braces, mut inline) = (0_usize, Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        match text(at) {
            "mod" if text(at + 2) == "{" => inline.push(braces + 1),
            "{" => braces += 1,
            "}" => {
                inline.pop_if(|opened| *opened == braces);
                braces = braces.saturating_sub(1);
            }
            "crate" if text(at + 1) == "::" => found.extend(heads(tokens, at + 2)),
            "super" if text(at + 1) == "::" => {
                let mut up = 1;
                while text(at + 2) == "super" && text(at + 3) == "::" {
                    up += 1;
                    at += 2;
                }
                if up == depth + inline.len() {
                    found.extend(heads(tokens, at + 2));
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The first name after `crate::`, or each first name of a group in braces.
fn heads(tokens: &[Token], at: usize) -> Vec<(String, usize)> {
    let Some(first) = tokens.get(at) else { return Vec::new() };
    if first.text != "{" {
        return vec![(first.text.clone(), first.line)];
    }
    let (mut depth, mut found, mut expected) = (0, Vec::new(), false);
    for token in &tokens[at..] {
        match token.text.as_str() {
            "{" => {
                depth += 1;
                expected = depth == 1;
            }
            "}" => depth -= 1,
            "," => expected = depth == 1,
            _ if expected && depth == 1 => {
                found.push((token.text.clone(), token.line));
                expected = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

#[test]
fn the_core_knows_nothing_of_the_world() {
    let mut faults = Vec::new();
    for path in files(&root().join("crates/conductor-core/src"), ".rs") {
        faults.extend(
            worldly(&tokens(&read(&path))).iter().map(|(name, line)| format!("{}:{line}: {name}", shown(&path))),
        );
    }
    expect_none(&faults, "conductor-core does no I/O, reads no clock and draws no random number");
}

fn worldly(tokens: &[Token]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if token.text == "std" && tokens.get(at + 1).is_some_and(|next| next.text == "::") {
            found.extend(heads(tokens, at + 2).into_iter().filter(|(name, _)| STD_WORLD.contains(&name.as_str())));
        } else if WORLD.contains(&token.text.as_str()) {
            found.push((token.text.clone(), token.line));
        }
    }
    found
}

/// The tests walk the document to ask every call with another tenant's key: a call that is not in it would be forgotten.
#[test]
fn a_route_is_added_only_together_with_its_description() {
    let known = ["/docs/docs.css", "/docs/docs.js", "/metrics", "/health"];
    let mut faults = Vec::new();
    for path in files(&root().join("crates/conductor/src"), ".rs") {
        let source = read(&path);
        for place in source.split(".route(\"").skip(1) {
            let route = place.split('"').next().unwrap_or_default();
            if !known.contains(&route) {
                faults.push(format!("{}: {route}", shown(&path)));
            }
        }
    }
    expect_none(&faults, "routes come from `routes!`, but for the page's assets and the metrics' own listener");
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let mut faults = Vec::new();
    for path in
        [".rs", ".md", ".toml", ".yml", ".yaml", ".sh", ".py", ".js", ".mjs"].iter().flat_map(|e| files(&root(), e))
    {
        for (index, line) in read(&path).lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                faults.push(format!("{}:{}: {}", shown(&path), index + 1, line.trim()));
            }
        }
    }
    for path in source_files() {
        faults.extend(unfinished(&tokens(&read(&path))).iter().map(|line| format!("{}:{line}", shown(&path))));
    }
    expect_none(&faults, "nothing is stubbed out, ignored or put off");
}

/// Lines with a macro that stands for missing code, or an ignored test.
fn unfinished(tokens: &[Token]) -> Vec<usize> {
    let word = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let stub = |at: usize| matches!(word(at), "todo" | "unimplemented") && word(at + 1) == "!";
    let ignored = |at: usize| word(at) == "#" && word(at + 1) == "[" && word(at + 2) == "ignore";
    (0..tokens.len()).filter(|at| stub(*at) || ignored(*at)).map(|at| tokens[at].line).collect()
}

#[test]
fn the_checks_find_what_they_look_for() {
    assert!(may_import("api", "accept") && may_import("server", "dispatch") && may_import("config", "clock"));
    assert!(!may_import("api", "dispatch") && !may_import("dispatch", "api") && !may_import("telemetry", "config"));

    let names = |source: &str, depth| -> Vec<String> {
        imports(&tokens(source), depth).into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names("use crate::dispatch::Gate; // crate::api", 1), ["dispatch"]);
    assert_eq!(names("use crate::{app::App, api::{self, x}, ids};", 2), ["app", "api", "ids"]);
    assert_eq!(names("use super::api; mod a { use super::b; use super::super::server; }", 1), ["api", "server"]);
    assert_eq!(names("mod a { fn b() {} } use super::near; use super::super::far;", 2), ["far"]);

    let long = format!("impl A {{ fn b(c: [u8; 2]) -> u8 {{\n{}}} }}", "x();\n".repeat(80));
    assert_eq!(functions(&tokens(&long)), [("b".to_owned(), 1, 82)]);
    assert_eq!(functions(&tokens("trait A { fn b(); } type C = fn(u8);")), []);

    assert_eq!(modules(&tokens("pub mod a;\nmod util { }")), [("a".to_owned(), 1), ("util".to_owned(), 2)]);
    assert_eq!(paths("#[cfg(test)]\n#[path = \"a_tests.rs\"]\nmod tests;").collect::<Vec<_>>(), ["a_tests.rs"]);
    assert_eq!(unfinished(&tokens("fn a() {\n todo!() }\n#[ignore = \"slow\"]\n\"todo!()\"")), [2, 3]);
    assert_eq!(worldly(&tokens("use std::{fmt, fs::File}; std::time::Instant::now(); env!(\"A\")")).len(), 2);
    let manifest = "name = \"conductor-core\"\n# conductor\n[dependencies]\nconductor-store.workspace = true";
    assert_eq!(crates_named(manifest).into_iter().collect::<Vec<_>>(), ["conductor-core", "conductor-store"]);
}
