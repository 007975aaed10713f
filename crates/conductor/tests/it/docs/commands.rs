//! The commands and settings that the documents name are those of the program.

use clap::{Command, CommandFactory as _, Parser as _};
use conductor::cli::CommandLine;

use super::markdown::blocks;
use crate::repository::{files, read, root, shown};

/// The lines of a document's shell blocks that call the program, split into words.
fn calls(markdown: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for block in blocks(markdown).iter().filter(|block| block.language() == "sh") {
        for (offset, line) in block.text.lines().enumerate() {
            let words = words(line.split(" #").next().unwrap_or_default());
            if words.first().is_some_and(|word| word == "conductor") {
                found.push((block.line + 1 + offset, words));
            }
        }
    }
    found
}

/// Words as a shell takes them, as far as quotation marks go.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('"').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[test]
fn every_call_that_is_shown_is_understood() {
    let mut count = 0;
    for document in files(&root(), ".md") {
        for (line, words) in calls(&read(&document)) {
            let parsed = CommandLine::try_parse_from(&words);
            assert!(parsed.is_ok(), "{}:{line}: {}", shown(&document), parsed.unwrap_err());
            count += 1;
        }
    }
    assert!(count >= 8, "only {count} calls found");
    assert!(CommandLine::try_parse_from(["conductor", "chek"]).is_err(), "the check would not notice a wrong command");
}

/// Whether a text in code type, such as `conductor channel test <name>`, begins with a command that exists.
fn names_a_command(text: &str) -> bool {
    let mut command = CommandLine::command();
    for word in text.split(' ').skip(1).take_while(|word| !word.starts_with(['-', '<', '"'])) {
        if !command.has_subcommands() {
            return true;
        }
        let Some(child) = command.find_subcommand(word) else { return false };
        command = child.clone();
    }
    true
}

#[test]
fn every_command_in_code_type_exists() {
    let mut faults = Vec::new();
    for document in files(&root(), ".md") {
        for (index, line) in read(&document).lines().enumerate() {
            let code = line.split('`').skip(1).step_by(2).filter(|text| text.starts_with("conductor "));
            let wrong = code.filter(|text| !names_a_command(text));
            faults.extend(wrong.map(|text| format!("{}:{}: {text}", shown(&document), index + 1)));
        }
    }
    assert!(faults.is_empty(), "there are no such commands:\n  {}", faults.join("\n  "));
    assert!(names_a_command("conductor channel test <name>") && !names_a_command("conductor channel try"));
}

#[test]
fn every_command_is_documented() {
    let text: String = files(&root().join("docs"), ".md").iter().map(|path| read(path)).collect();
    let mut open = vec![("conductor".to_owned(), CommandLine::command())];
    while let Some((name, command)) = open.pop() {
        let children: Vec<Command> =
            command.get_subcommands().filter(|child| child.get_name() != "help").cloned().collect();
        assert!(!children.is_empty() || text.contains(&name), "no document names `{name}`");
        open.extend(children.into_iter().map(|child| (format!("{name} {}", child.get_name()), child)));
    }
}

#[test]
fn every_process_setting_is_documented() {
    let document = read(&root().join("docs/CONFIGURATION.md"));
    let mut count = 0;
    for argument in CommandLine::command().get_arguments() {
        let Some(variable) = argument.get_env().and_then(|name| name.to_str()) else { continue };
        assert!(document.contains(&format!("`{variable}`")), "docs/CONFIGURATION.md lacks {variable}");
        if let Some(flag) = argument.get_long().filter(|_| !argument.is_hide_set()) {
            assert!(document.contains(&format!("`--{flag}`")), "docs/CONFIGURATION.md lacks --{flag}");
        }
        count += 1;
    }
    assert!(count >= 8, "only {count} settings found");
}
