//! Providers that can be reached in several ways, each with settings of its own.

use conductor_core::Problems;

use crate::camel_case;

/// Finds what is wrong with the settings of a plugin that has several ways: whether those that are given are one of
/// [`crate::ChannelPlugin::WAYS`] and all of it, and whether each of them is good.
pub(crate) fn check(ways: &[&[&str]], settings: &[Told], problems: &mut Problems) {
    let given: Vec<&str> = settings.iter().filter(|told| told.result.is_some()).map(|told| told.name).collect();
    complete(ways, &given, problems);
    for Told { name, result, help } in settings {
        if let Some(Err(reason)) = result {
            problems.add_with_help(camel_case(name), *reason, *help);
        }
    }
}

/// A setting of a way.
pub(crate) struct Told {
    name: &'static str,
    /// Whether it is good; none where it is not given.
    result: Option<Result<(), &'static str>>,
    help: &'static str,
}

impl Told {
    /// What `read` makes of the setting, if it is given. `help` says where to find a good one.
    pub(crate) fn of<T: ?Sized, R>(
        name: &'static str,
        given: Option<&T>,
        read: impl FnOnce(&T) -> Result<R, &'static str>,
        help: &'static str,
    ) -> Self {
        Self { name, result: given.map(|value| read(value).map(drop)), help }
    }
}

fn complete(ways: &[&[&str]], given: &[&str], problems: &mut Problems) {
    let begun: Vec<(&[&str], &str)> = ways
        .iter()
        .filter_map(|way| way.iter().find(|name| given.contains(name)).map(|first| (*way, *first)))
        .collect();
    match begun.as_slice() {
        [] => {
            let all: Vec<String> = ways.iter().map(|way| listed(way)).collect();
            problems.add_with_help("", "nothing says where to send to", format!("set {}", all.join(", or ")));
        }
        [(way, first)] => {
            for name in way.iter().filter(|name| !given.contains(name)) {
                let message = format!("is missing, and `{}` alone is not enough", camel_case(first));
                problems.add_with_help(camel_case(name), message, format!("set {}", listed(way)));
            }
        }
        [(_, first), others @ ..] => {
            for (_, other) in others {
                let message = format!("is set, but so is `{}`; a channel sends in one way only", camel_case(first));
                let help =
                    "take one of the two away, or name the variable of the one that is meant in the channel's `env`";
                problems.add_with_help(camel_case(other), message, help);
            }
        }
    }
}

fn listed(way: &[&str]) -> String {
    let names: Vec<String> = way.iter().map(|name| format!("`{}`", camel_case(name))).collect();
    names.join(" with ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAYS: &[&[&str]] = &[&["BOT_TOKEN", "ROOM"], &["WEBHOOK_URL"]];

    fn faults(given: &[&str]) -> Vec<String> {
        let mut problems = Problems::new();
        complete(WAYS, given, &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn exactly_one_way_is_given_and_whole() {
        for good in [&["BOT_TOKEN", "ROOM"][..], &["WEBHOOK_URL"]] {
            assert!(faults(good).is_empty(), "{good:?}");
        }
        let none = faults(&[]);
        assert!(none.len() == 1 && none[0].contains("set `botToken` with `room`, or `webhookUrl`"), "{none:?}");
        let half = faults(&["ROOM"]);
        assert!(half.len() == 1 && half[0].starts_with("botToken: is missing, and `room` alone"), "{half:?}");
        let both = faults(&["BOT_TOKEN", "WEBHOOK_URL"]);
        assert!(both.len() == 1 && both[0].starts_with("webhookUrl: is set, but so is `botToken`"), "{both:?}");
    }
    #[test]
    fn what_is_given_has_to_be_good_too() {
        let digits = |text: &str| text.parse::<u8>().map_err(|_| "is no number");
        let told = |name, value| Told::of(name, value, digits, "for example 7");
        let mut problems = Problems::new();
        let settings = [told("BOT_TOKEN", Some("x")), told("ROOM", Some("7")), told("WEBHOOK_URL", None)];
        check(WAYS, &settings, &mut problems);
        let faults: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(faults.len() == 1 && faults[0].starts_with("botToken: is no number"), "{faults:?}");
    }
}
