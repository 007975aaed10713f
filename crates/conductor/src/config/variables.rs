//! Finding what a configuration file only names: variables that hold keys, tokens and other settings.

use conductor_core::Secret;

use super::document::Document;
use super::environment::{Environment, FILE_SUFFIX, Lookup};
use super::report::{Fault, Report};
use super::visible::is_plain_name;

/// A variable that holds a value.
pub(super) struct Held {
    pub(super) value: Secret,
    pub(super) name: String,
}

/// Why no variable holds a value.
pub(super) enum NotHeld {
    /// None of them is set, or those that are set are empty.
    Missing,
    /// What is wrong stands in the report.
    Reported,
}

/// Looks for the first of these variables that holds a value. `pointer` is the place that is told where one of them
/// names a file that cannot be read.
pub(super) fn find(
    names: &[String],
    environment: &Environment,
    document: &Document<'_>,
    pointer: &str,
    report: &mut Report,
) -> Result<Held, NotHeld> {
    for name in names {
        match environment.lookup(name) {
            Lookup::Found { value, file_is_ignored } => {
                if file_is_ignored {
                    let found = both_are_set(name);
                    let fault = document.error(pointer, found).as_warning();
                    report.add(fault.help("unset one of the two"));
                }
                return Ok(Held { value, name: name.clone() });
            }
            Lookup::Unreadable { path, reason } => {
                let found = unreadable(name, &path, &reason);
                report.add(document.error(pointer, found).help(UNREADABLE_HELP));
                return Err(NotHeld::Reported);
            }
            Lookup::Empty | Lookup::Missing => {}
        }
    }
    Err(NotHeld::Missing)
}

/// How an unreadable file is mended.
pub(super) const UNREADABLE_HELP: &str = "mend the path, or let the server's user read the file";

/// That a variable and its file are both there.
pub(super) fn both_are_set(name: &str) -> String {
    format!("both {} and {} are set; the variable wins", shown(name), shown(&format!("{name}{FILE_SUFFIX}")))
}

/// That a variable's file cannot be read.
pub(super) fn unreadable(name: &str, path: &std::path::Path, reason: &str) -> String {
    let variable = shown(&format!("{name}{FILE_SUFFIX}"));
    format!("{variable} names the file {}, which cannot be read: {reason}", path.display())
}

/// The fault that none of these variables holds what is expected. `best` is the one that is proposed.
pub(super) fn missing(
    names: &[String],
    best: &str,
    expected: &str,
    environment: &Environment,
    document: &Document<'_>,
    pointer: &str,
) -> Fault {
    let empty: Vec<String> = names
        .iter()
        .filter(|name| matches!(environment.lookup(name), Lookup::Empty))
        .map(|name| format!("{} is set, but empty", shown(name)))
        .collect();
    let with_file = |name: &String| [shown(name), shown(&format!("{name}{FILE_SUFFIX}"))];
    let found = match (empty.first(), names) {
        (Some(empty), _) => format!("the variable {empty}"),
        (None, [name]) if is_plain_name(name) => {
            format!("the variable {} is not set, nor is `{name}{FILE_SUFFIX}`", shown(best))
        }
        (None, _) => {
            let looked_for: Vec<String> = names.iter().flat_map(with_file).collect();
            format!("the variable {} is not set (looked for {})", shown(best), looked_for.join(", "))
        }
    };
    let file = environment.data_file();
    let help = if is_plain_name(best) {
        format!("set the variable, or add the line `{best}=…` to {}", file.display())
    } else {
        format!("name a variable here, and add a line with its name and value to {}", file.display())
    };
    let fault = document.error(pointer, found);
    fault.expected(expected).help(help)
}

/// The name as it may be told. What stands in its place may be a secret that was put there by mistake.
pub(super) fn shown(name: &str) -> String {
    if is_plain_name(name) {
        format!("`{name}`")
    } else {
        "`***` (not shown, because it looks like a secret)".to_owned()
    }
}
