//! The manual pages and `docs/meshctl.md`, both from the table of flags.

use std::path::Path;

use clap::{Arg, Command, CommandFactory as _};

use crate::{
    args::Arguments,
    failure::{Exit, Failure},
    print::Put as _,
};

/// Writes one manual page per command.
pub(crate) fn manual(directory: &Path) -> Result<Exit, Failure> {
    let place = directory.display().to_string();
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(built(), directory))
        .map_err(|error| Failure::local(place, &error))?;
    Ok(Exit::Done)
}

/// Prints `docs/meshctl.md`.
pub(crate) fn run() -> Result<Exit, Failure> {
    crate::print::text(&markdown())?;
    Ok(Exit::Done)
}

fn built() -> Command {
    // Pages must not depend on the width of somebody's terminal.
    Arguments::command().term_width(100)
}

/// The whole document.
fn markdown() -> String {
    let mut command = built();
    command.build();
    let mut out = String::from(
        "# meshctl\n\n*Made by `meshctl docs` from the program itself; a test compares the two.*\n\n",
    );
    out.push_str(&text(
        command.get_long_about().or_else(|| command.get_about()),
    ));
    out.push_str(&text(command.get_after_help()));
    out.push_str("## Everywhere\n\n");
    out.push_str(&flags(
        command.get_arguments().filter(|a| a.is_global_set()),
    ));
    out.push_str("## Changes\n\nEvery command that changes something also takes:\n\n");
    let shared = shared();
    let apply = command.find_subcommand("apply");
    let all = apply.map(Command::get_arguments).into_iter().flatten();
    out.push_str(&flags(
        all.filter(|argument| shared.contains(&id(argument))),
    ));
    for sub in command.get_subcommands() {
        section(&mut out, "meshctl", sub);
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn section(out: &mut String, parent: &str, command: &Command) {
    if command.is_hide_set() {
        return;
    }
    let name = format!("{parent} {}", command.get_name());
    if command.has_subcommands() {
        for sub in command
            .get_subcommands()
            .filter(|sub| sub.get_name() != "help")
        {
            section(out, &name, sub);
        }
        return;
    }
    let shared = shared();
    let is_shared = |argument: &Arg| shared.contains(&id(argument));
    let own = || {
        command
            .get_arguments()
            .filter(|a| !a.is_global_set() && !a.is_hide_set() && id(a) != "help")
    };
    let changes = own().any(|argument| id(argument) == "dry_run");
    write!(out, "## {name}\n\n```\n{name}");
    for argument in own().filter(|argument| !is_shared(argument)) {
        write!(out, " {}", usage(argument));
    }
    out.push_str(if changes {
        " [CHANGES]\n```\n\n"
    } else {
        "\n```\n\n"
    });
    out.push_str(&text(
        command.get_long_about().or_else(|| command.get_about()),
    ));
    out.push_str(&text(command.get_after_help()));
    out.push_str(&flags(own().filter(|argument| !is_shared(argument))));
    let undo = own().any(|argument| id(argument) == "confirm_within");
    if undo {
        out.push_str("Takes `--confirm-within`.\n\n");
    }
}

fn shared() -> Vec<&'static str> {
    vec![
        "dry_run",
        "reason",
        "wait",
        "wait_timeout",
        "confirm_within",
    ]
}

fn id(argument: &Arg) -> &str {
    argument.get_id().as_str()
}

fn usage(argument: &Arg) -> String {
    let word = spelling(argument);
    if argument.is_required_set() {
        word
    } else {
        format!("[{word}]")
    }
}

fn spelling(argument: &Arg) -> String {
    let values: Vec<String> = argument
        .get_value_names()
        .map(|names| names.iter().map(ToString::to_string).collect())
        .unwrap_or_default();
    let takes = argument.get_action().takes_values();
    let many = argument
        .get_num_args()
        .is_some_and(|range| range.max_values() > values.len().max(1));
    let dots = if argument.is_positional() && many {
        "…"
    } else {
        ""
    };
    let value = if takes {
        values.join(" ") + dots
    } else {
        String::new()
    };
    let optional = argument
        .get_num_args()
        .is_some_and(|range| range.min_values() == 0);
    let flag = match (argument.get_short(), argument.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, Some(long)) => format!("--{long}"),
        (None, None) => return value,
    };
    match (takes, optional) {
        (false, _) => flag,
        (true, true) => format!("{flag}[={value}]"),
        (true, false) => format!("{flag} {value}"),
    }
}

#[expect(
    single_use_lifetimes,
    reason = "an anonymous lifetime in `impl Trait` is not stable"
)]
fn flags<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let mut out = String::new();
    for argument in arguments {
        let help = argument
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        write!(out, "* `{}`: {help}", spelling(argument));
        let defaults: Vec<String> = argument
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy().into_owned())
            .filter(|value| !value.is_empty())
            .collect();
        if !defaults.is_empty() && argument.get_action().takes_values() {
            write!(out, " (default: `{}`)", defaults.join(" "));
        }
        if let Some(variable) = argument.get_env() {
            write!(out, " (environment: `{}`)", variable.to_string_lossy());
        }
        let choices: Vec<String> = argument
            .get_possible_values()
            .iter()
            .map(|choice| format!("`{}`", choice.get_name()))
            .collect();
        if choices.len() > 1 && argument.get_action().takes_values() {
            write!(out, " (one of {})", choices.join(", "));
        }
        out.push('\n');
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

fn text(styled: Option<&clap::builder::StyledStr>) -> String {
    styled
        .map(|styled| format!("{styled}\n\n"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/meshctl.md");

    #[test]
    fn the_document_is_the_program() {
        let now = markdown();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(PATH, &now).unwrap();
        }
        let written = std::fs::read_to_string(PATH).unwrap_or_default();
        assert_eq!(
            written, now,
            "run `UPDATE=1 cargo test -p meshctl the_document`"
        );
    }

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        manual(directory.path()).unwrap();
        for page in ["meshctl.1", "meshctl-join.1", "meshctl-route-split.1"] {
            assert!(directory.path().join(page).is_file(), "{page}");
        }
    }
}
