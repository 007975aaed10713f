//! From the files and the environment to a [`Configuration`], or to everything that is wrong with them.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use conductor_channels::Plugin;
use conductor_core::Keep;
use conductor_core::retention::KEPT;
use serde_json::Value;

use super::channels::References;
use super::document::Document;
use super::environment::Environment;
use super::list_file::{ListFile, MAX_BYTES};
use super::model::Configuration;
use super::report::{Fault, Place, Position, Report};
use super::shape::{Shape, unknown_member};
use super::tenants::Tenants;
use super::{channels, enabled, otel, schema, tenants};

/// In the order in which they are read.
const LIST_FILES: [ListFile; 3] = [ListFile::Tenants, ListFile::Channels, ListFile::Plugins];

const INIT_HELP: &str = "`conductor init` makes what is missing";

/// Reads `tenants.json`, `channels.json` and `plugins.json` in `dir`, with the variables that they name. `plugins` is
/// every plugin of this build.
///
/// Beside a good configuration stand the warnings.
///
/// # Errors
///
/// All errors and warnings of all three files and all variables at once.
pub fn load(
    dir: &Path,
    environment: &Environment,
    plugins: &'static [Plugin],
) -> Result<(Configuration, Report), Report> {
    let mut report = Report::new();
    environment.faults().iter().for_each(|fault| report.add(fault.clone()));
    let admin_key = tenants::admin_key(environment, &mut report);
    let otlp = otel::settings(environment, &mut report);
    let configuration = read_files(dir, environment, &mut report).and_then(|texts| {
        let [tenants, channels, plugin_file] = &texts;
        let tenants = Entries::of(ListFile::Tenants, tenants.as_ref(), plugins, &mut report);
        let plugin_file = Entries::of(ListFile::Plugins, plugin_file.as_ref(), plugins, &mut report);
        let channels = Entries::of(ListFile::Channels, channels.as_ref(), plugins, &mut report);

        let tenants = tenants.and_then(|file| {
            let Entries { document, shape } = &file;
            let entries = entries(document, &mut report)?;
            Some(tenants::read(document, &entries, shape, admin_key.as_ref(), environment, &mut report))
        });
        let enabled = plugin_file.and_then(|Entries { document, shape }| {
            let entries = entries(&document, &mut report)?;
            Some(enabled::read(&document, &entries, shape, plugins, &mut report))
        });
        let channels = channels.and_then(|Entries { document, shape }| {
            let references = References {
                tenants: tenants.as_ref().map(|tenants| &tenants.ids),
                queued: tenants.iter().flat_map(Tenants::queued).collect(),
                enabled: enabled.as_deref(),
                plugins,
            };
            let entries = entries(&document, &mut report)?;
            Some(channels::read(&document, &entries, shape, &references, environment, &mut report))
        });
        let Tenants { list: tenants, .. } = tenants?;
        let keep = Keep { whole: Some(KEPT), content: None };
        let readings = environment.readings();
        let hash = readings.hash_of(&LIST_FILES.map(|kind| kind.path(dir)));
        let (channels, plugins) = (channels?, enabled?);
        Some(Configuration { tenants, channels, plugins, admin_key, keep, otlp, readings, hash })
    });
    report.sort();
    match configuration {
        Some(configuration) if report.errors() == 0 => Ok((configuration, report)),
        _ => Err(report),
    }
}

/// A file's path and text.
struct FileText {
    path: PathBuf,
    text: String,
}

/// Reads the texts of tenants, channels and plugins. Nothing where the directory itself is missing.
fn read_files(dir: &Path, environment: &Environment, report: &mut Report) -> Option<[Option<FileText>; 3]> {
    if !dir.is_dir() {
        let what = if dir.exists() { "this is no directory" } else { "the directory does not exist" };
        let fault = Fault::error(what).in_file(dir);
        report.add(fault.expected("the directory with the configuration files").help(INIT_HELP));
        return None;
    }
    Some(LIST_FILES.map(|kind| read_file(kind.path(dir), environment, report)))
}

fn read_file(path: PathBuf, environment: &Environment, report: &mut Report) -> Option<FileText> {
    let mut bytes = Vec::new();
    let most = MAX_BYTES as u64 + 1;
    let read = std::fs::File::open(&path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    environment.note(&path, most, read.is_ok().then_some(&bytes));
    let fault = match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Fault::error("the file does not exist").in_file(&path).help(INIT_HELP)
        }
        Err(error) => Fault::error(format!("the file cannot be read: {error}"))
            .in_file(&path)
            .help("let the server's user read the file"),
        Ok(length) if length > MAX_BYTES => Fault::error("the file is too large")
            .in_file(&path)
            .expected(format!("at most {} MiB", MAX_BYTES / (1024 * 1024))),
        Ok(_) => match String::from_utf8(bytes) {
            Ok(text) => return Some(FileText { path, text }),
            Err(error) => {
                let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
                let start = good.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                let column = String::from_utf8_lossy(&good[start..]).chars().count() + 1;
                let position = Some(Position { line, column, source: None });
                let fault = Fault::error("the file is not UTF-8").at(Place { file: path, position, pointer: None });
                fault.help("save the file as UTF-8")
            }
        },
    };
    report.add(fault);
    None
}

/// A file that is JSON, and the shape of its entries.
struct Entries<'t> {
    document: Document<'t>,
    shape: &'static Shape,
}

/// The shape of an entry. Made once: a reload checks against the same.
fn entry_shape(kind: ListFile) -> &'static Result<Shape, String> {
    static TENANT: LazyLock<Result<Shape, String>> = LazyLock::new(|| Shape::new(schema::entry(schema::tenant())));
    static CHANNEL: LazyLock<Result<Shape, String>> = LazyLock::new(|| Shape::new(schema::entry(schema::channel())));
    static PLUGIN: LazyLock<Result<Shape, String>> = LazyLock::new(|| Shape::new(schema::entry(schema::plugin())));
    match kind {
        ListFile::Tenants => &TENANT,
        ListFile::Channels => &CHANNEL,
        ListFile::Plugins => &PLUGIN,
    }
}

impl<'t> Entries<'t> {
    fn of(kind: ListFile, file: Option<&'t FileText>, plugins: &'static [Plugin], report: &mut Report) -> Option<Self> {
        let FileText { path, text } = file?;
        let document = Document::parse(kind, path, text, plugins, report)?;
        match entry_shape(kind) {
            Ok(shape) => Some(Self { document, shape }),
            Err(reason) => {
                report.add(Fault::error(format!("the schema of this file is bad: {reason}")).in_file(path));
                None
            }
        }
    }
}

/// The entries of either shape, each with its JSON pointer; nothing where there is no list.
fn entries<'d>(document: &'d Document<'_>, report: &mut Report) -> Option<Vec<(String, &'d Value)>> {
    let member = document.kind().member();
    let (pointer, list) = match document.value() {
        Value::Object(object) => {
            for name in object.keys().filter(|name| *name != member && *name != "$schema") {
                report.add(unknown_member(document, "", name, &[member.to_owned()]));
            }
            if object.get("$schema").is_some_and(|schema| !schema.is_string()) {
                let fault = document.error("/$schema", "`$schema` is no text");
                report.add(fault.expected("where an editor finds the schema of this file"));
            }
            match object.get(member) {
                Some(list) => (format!("/{member}"), list),
                None => {
                    let fault = document.error("", format!("`{member}` is missing"));
                    report.add(fault.expected(format!("{{ \"{member}\": [ … ] }} or the list alone")));
                    return None;
                }
            }
        }
        list => (String::new(), list),
    };
    let Value::Array(entries) = list else {
        let found = format!("found {}", document.show(&pointer));
        report.add(document.error(&pointer, found).expected(format!("a list of {member}")));
        return None;
    };
    Some(entries.iter().enumerate().map(|(index, entry)| (format!("{pointer}/{index}"), entry)).collect())
}
