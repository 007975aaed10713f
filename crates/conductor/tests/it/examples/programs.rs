//! Programs of other languages that a test runs as child processes.

use std::path::Path;
use std::process::{Command, Output};

use crate::repository::root;
use crate::support::skip::skipped;

/// Whether a program is installed. Where it is not, this says so; the gate, which installs it, fails.
pub(crate) fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        skipped(&format!("{program} is not installed"));
    }
    found
}

/// Runs a program in the repository's root with the two variables that every example reads, and nothing else of its
/// own. Returns what it printed; panics where it fails.
pub(crate) fn run(program: &str, arguments: &[&str], url: &str, key: &str, more: &[(&str, &str)]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .env("CONDUCTOR_URL", url)
        .env("CONDUCTOR_KEY", key)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(more.iter().copied())
        .output();
    let Output { status, stdout, stderr } = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{program} {arguments:?} ended with {status}:\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// Runs a script as HomeyScript does: in an asynchronous function, with the card's argument in `args` and the
/// settings that an earlier script has kept.
pub(crate) fn run_homey_script(script: &Path, argument: &str, url: &str, key: &str) -> String {
    const HOST: &str = "
        const [path, argument, url, key] = process.argv.slice(1);
        const kept = { conductorUrl: url, conductorKey: key };
        const globals = { args: [argument], fetch, log: console.log, global: { get: (name) => kept[name] } };
        const code = require('node:fs').readFileSync(path, 'utf8');
        const context = require('node:vm').createContext(globals);
        require('node:vm').runInContext(`(async () => {\\n${code}\\n})()`, context).then((id) => console.log(id));
    ";
    let script = script.to_str().expect("a path of the repository is a text");
    run("node", &["-e", HOST, "--", script, argument, url, key], url, key, &[])
}
