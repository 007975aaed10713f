//! What a channel's plugin is told: its settings out of variables, its own options out of the file.

use std::collections::{BTreeSet, HashMap};

use conductor_channels::{Classic, Plugin, Setting};
use conductor_core::secret::wipe;
use conductor_core::{Problem, Problems, Secret, SecretValues, TenantId};
use serde_json::{Map, Value};

use super::document::{Document, push_segment};
use super::environment::{Environment, Lookup};
use super::report::{Fault, Report};
use super::schema;
use super::shape::{MisfitKind, Shape, misfit_fault, unknown_member};
use super::variables::{self, NotHeld};
use super::visible::{is_plain_name, is_variable_name};

/// The plugins' schemas, made ready once for all channels.
#[derive(Default)]
pub(super) struct PluginShapes(HashMap<&'static str, Result<Shape, String>>);

impl PluginShapes {
    fn of(&mut self, plugin: &Plugin) -> &Result<Shape, String> {
        self.0.entry(plugin.kind).or_insert_with(|| Shape::new(plugin.schema()))
    }
}

/// One channel's entry, on its way to what its plugin wants.
pub(super) struct Resolver<'a, 't> {
    pub(super) document: &'a Document<'t>,
    pub(super) pointer: &'a str,
    pub(super) entry: &'a Value,
    pub(super) plugin: Plugin,
    pub(super) tenant: Option<TenantId>,
    pub(super) name: &'a str,
    pub(super) environment: &'a Environment,
}

/// The settings and options that were found, and where.
#[derive(Default)]
struct Found {
    values: SecretValues,
    /// Settings from variables: where a fault in them is told, and the variable's name.
    variables: HashMap<String, (String, String)>,
    /// Settings that are missing, which is told already.
    missing: BTreeSet<String>,
    /// What a plugin's words must not repeat.
    secrets: Vec<Secret>,
}

impl Resolver<'_, '_> {
    /// Finds settings and options and lets the plugin check them. Gives them if nothing is wrong.
    pub(super) fn resolve(&self, shapes: &mut PluginShapes, report: &mut Report) -> Option<SecretValues> {
        let before = report.errors();
        let shape = match shapes.of(&self.plugin) {
            Ok(shape) => shape,
            Err(reason) => {
                let found = format!("the plugin `{}` of this build has a bad schema: {reason}", self.plugin.kind);
                report.add(self.document.error(&self.place("channelType"), found).help("report this as a bug"));
                return None;
            }
        };
        self.check_environment_members(report);
        let mut found = Found::default();
        self.take_options(shape, &mut found, report);
        for setting in self.plugin.settings {
            self.take_setting(setting, shape, &mut found, report);
        }
        self.check(shape, &found, report);
        self.check_overruled(shape, &found, report);
        if report.errors() == before {
            let mut problems = Problems::new();
            self.plugin.validate(found.values.clone().into_inner(), &mut problems);
            for problem in problems {
                report.add(self.problem_fault(&problem, &found));
            }
        }
        (report.errors() == before).then_some(found.values)
    }

    fn place(&self, member: &str) -> String {
        let mut place = self.pointer.to_owned();
        push_segment(&mut place, member);
        place
    }

    fn place_in(&self, member: &str, name: &str) -> String {
        let mut place = self.place(member);
        push_segment(&mut place, name);
        place
    }

    fn options(&self) -> Option<&Map<String, Value>> {
        self.entry.get("options").and_then(Value::as_object)
    }

    /// The members of `env` are settings of the plugin.
    fn check_environment_members(&self, report: &mut Report) {
        let known: Vec<String> = self.plugin.settings.iter().map(Setting::camel_case).collect();
        for name in self.entry.get("env").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            if !known.contains(name) {
                report.add(unknown_member(self.document, &self.place("env"), name, &known));
            }
        }
    }

    /// Takes the plugin's own options; tells of unknown ones and of secrets that stand among them.
    fn take_options(&self, shape: &Shape, found: &mut Found, report: &mut Report) {
        let own = shape.known();
        for (name, value) in self.options().into_iter().flatten() {
            if schema::is_common_option(name) {
                continue;
            }
            let setting = self.plugin.settings.iter().find(|setting| setting.camel_case() == *name);
            match setting {
                Some(setting) if setting.secret => {
                    report.add(self.secret_in_file(setting, name));
                    found.missing.insert(name.clone());
                }
                Some(_) => {}
                None if own.contains(name) => {
                    found.values.insert(name.clone(), value.clone());
                }
                None => {
                    let is_secret = |name: &str| self.setting(name).is_some_and(|setting| setting.secret);
                    let own = own.iter().filter(|name| !is_secret(name));
                    let known = schema::COMMON_OPTIONS.iter().map(|name| (*name).to_owned()).chain(own.cloned());
                    let known: Vec<String> = known.collect();
                    report.add(unknown_member(self.document, &self.place("options"), name, &known));
                }
            }
        }
    }

    fn setting(&self, name: &str) -> Option<&'static Setting> {
        self.plugin.settings.iter().find(|setting| setting.camel_case() == name)
    }

    fn secret_in_file(&self, setting: &Setting, name: &str) -> Fault {
        let variable = self.named(setting).map(|(_, variable)| variable).or_else(|| self.pattern(setting));
        let fault = self.document.error(&self.place_in("options", name), format!("`{name}` is a secret"));
        let fault = fault.expected("no secret in this file, so that it can be committed and shown");
        let file = self.environment.data_file();
        fault.help(match variable {
            Some(variable) if is_plain_name(&variable) => format!(
                "remove it here, add the line `{variable}=…` to {}, and change the secret if the file was ever shared",
                file.display()
            ),
            _ => format!("remove it here, put it into a variable, and name that in `env`: {{ \"{name}\": \"…\" }}"),
        })
    }

    /// The variable that the entry names for a setting, and the place where it does.
    fn named(&self, setting: &Setting) -> Option<(String, String)> {
        let name = setting.camel_case();
        let variable = |value: Option<&Value>| {
            value.and_then(Value::as_str).filter(|name| is_variable_name(name)).map(str::to_owned)
        };
        if let Some(variable) = variable(self.entry.get("env").and_then(|env| env.get(&name))) {
            return Some((self.place_in("env", &name), variable));
        }
        let member = match setting.classic? {
            Classic::Id => "providerIdEnvVar",
            Classic::Secret => "providerSecretEnvVar",
        };
        variable(self.entry.get(member)).map(|variable| (self.place(member), variable))
    }

    /// The variable that holds a setting where the entry names none.
    fn pattern(&self, setting: &Setting) -> Option<String> {
        let tenant = self.tenant?.to_string().replace('-', "_");
        let kind = self.plugin.kind.to_ascii_uppercase().replace('-', "_");
        Some(format!("TENANT_{tenant}_{kind}_{}", setting.name))
    }

    /// Whether the entry itself says that the provider is reached in another way than by this setting. Then the setting
    /// is not looked for, since the variable of its pattern belongs to another channel.
    fn is_of_another_way(&self, setting: &Setting) -> bool {
        let is_told = |name: &str| {
            let setting = self.plugin.settings.iter().find(|setting| setting.name == name);
            let is_option =
                |setting: &Setting| self.options().is_some_and(|options| options.contains_key(&setting.camel_case()));
            setting.is_some_and(|setting| self.named(setting).is_some() || is_option(setting))
        };
        let (own, others): (Vec<_>, Vec<_>) = self.plugin.ways.iter().partition(|way| way.contains(&setting.name));
        let is_chosen = |ways: &[&&[&str]]| ways.iter().any(|way| way.iter().any(|name| is_told(name)));
        !own.is_empty() && !is_chosen(&own) && is_chosen(&others)
    }

    fn take_setting(&self, setting: &Setting, shape: &Shape, found: &mut Found, report: &mut Report) {
        if self.is_of_another_way(setting) {
            return;
        }
        let name = setting.camel_case();
        let named = self.named(setting);
        let place = named.as_ref().map_or_else(|| self.place("channelType"), |(place, _)| place.clone());
        let names: Vec<String> =
            named.iter().map(|(_, variable)| variable.clone()).chain(self.pattern(setting)).collect();
        match variables::find(&names, self.environment, self.document, &place, report) {
            Ok(held) => {
                found.values.insert(name.clone(), shape.read_text(&name, held.value.expose()));
                if setting.secret {
                    found.secrets.push(held.value);
                }
                found.missing.remove(&name);
                found.variables.insert(name, (place, held.name));
                return;
            }
            Err(NotHeld::Reported) => {
                found.missing.insert(name);
                return;
            }
            Err(NotHeld::Missing) => {}
        }
        if let Some(value) = self.options().and_then(|options| options.get(&name)).filter(|_| !setting.secret) {
            found.values.insert(name, value.clone());
            return;
        }
        // A setting that stands in the options although it is a secret has been told already.
        let told = found.missing.contains(&name);
        if !told && (setting.required || self.refers_to_nothing(named.as_ref())) {
            found.missing.insert(name);
            report.add(self.missing_setting(setting, &names, &place));
        }
    }

    /// Whether the entry names a variable that is not there. One that is empty says that the setting is not wanted.
    fn refers_to_nothing(&self, named: Option<&(String, String)>) -> bool {
        named.is_some_and(|(_, variable)| self.environment.lookup(variable) == Lookup::Missing)
    }

    fn missing_setting(&self, setting: &Setting, names: &[String], place: &str) -> Fault {
        let expected = format!(
            "`{}` of the channel \"{}\" ({}): {}",
            setting.camel_case(),
            self.name,
            self.plugin.kind,
            setting.about
        );
        match names.first() {
            Some(best) => variables::missing(names, best, &expected, self.environment, self.document, place),
            // Without a tenant there is no pattern, and the tenant's fault is told.
            None => self.document.error(place, format!("`{}` is missing", setting.camel_case())).expected(expected),
        }
    }

    /// Checks what was found against the plugin's schema.
    fn check(&self, shape: &Shape, found: &Found, report: &mut Report) {
        let mut values = Value::Object(found.values.clone().into_inner());
        let misfits = shape.misfits(&values);
        wipe(&mut values);
        for misfit in misfits {
            let first = misfit.pointer.split('/').nth(1).map(|name| name.replace("~1", "/").replace("~0", "~"));
            match (first, misfit.kind) {
                (None, MisfitKind::Missing { name, .. }) if found.missing.contains(&name) => {}
                (None, MisfitKind::Missing { name, .. }) if self.setting(&name).is_some() => {
                    if let Some(setting) = self.setting(&name) {
                        let names: Vec<String> = self.pattern(setting).into_iter().collect();
                        report.add(self.missing_setting(setting, &names, &self.place("channelType")));
                    }
                }
                (Some(name), kind) if found.variables.contains_key(&name) => {
                    let expected = match kind {
                        MisfitKind::Unfit { expected } => expected,
                        _ => "another value".to_owned(),
                    };
                    report.add(self.variable_fault(&name, "does not fit", found).expected(expected));
                }
                (_, kind) => {
                    report.add(misfit_fault(
                        self.document,
                        &format!("{}{}", self.place("options"), misfit.pointer),
                        kind,
                    ));
                }
            }
        }
    }

    /// Checks the settings among the options that a variable overrules: a file is right or wrong by itself.
    fn check_overruled(&self, shape: &Shape, found: &Found, report: &mut Report) {
        let Some(options) = self.options() else { return };
        let overruled = options.iter().filter(|(name, _)| found.variables.contains_key(*name));
        let overruled = overruled.filter(|(name, _)| self.setting(name).is_some_and(|setting| !setting.secret));
        let overruled: Map<String, Value> = overruled.map(|(name, value)| (name.clone(), value.clone())).collect();
        if overruled.is_empty() {
            return;
        }
        for misfit in shape.misfits(&Value::Object(overruled)) {
            if !misfit.pointer.is_empty() {
                let pointer = format!("{}{}", self.place("options"), misfit.pointer);
                report.add(misfit_fault(self.document, &pointer, misfit.kind));
            }
        }
    }

    /// A fault in the value of a variable. The value is not told, secret or not: it is not in the files.
    fn variable_fault(&self, setting: &str, what: &str, found: &Found) -> Fault {
        let (place, variable) = found.variables.get(setting).cloned().unwrap_or_default();
        let about = self.setting(setting).map(|setting| format!("; it is for: {}", setting.about)).unwrap_or_default();
        let fault = self.document.error(&place, format!("the value of {} {what}", variables::shown(&variable)));
        fault.help(format!("mend the variable{about}"))
    }

    /// The fault of what the plugin itself found. The plugin sees secrets, so its words are searched for them.
    fn problem_fault(&self, problem: &Problem, found: &Found) -> Fault {
        let name = problem.place.trim_start_matches('/').split(['/', '.', '[']).next().unwrap_or_default();
        let redact = |text: &str| {
            let secrets = found.secrets.iter().map(Secret::expose).filter(|secret| !secret.is_empty());
            secrets.fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
        };
        let fault = if let Some((place, variable)) = found.variables.get(name) {
            let message = format!("{}: {}", variables::shown(variable), redact(&problem.message));
            self.document.error(place, message)
        } else if self.options().is_some_and(|options| options.contains_key(name)) {
            self.document.error(&self.place_in("options", name), redact(&problem.message))
        } else {
            let separator = if problem.place.is_empty() { "" } else { ": " };
            let message = format!("{}{separator}{}", problem.place, redact(&problem.message));
            self.document.error(&self.place("channelType"), message)
        };
        match &problem.help {
            Some(help) => fault.help(redact(help)),
            None => fault,
        }
    }
}
