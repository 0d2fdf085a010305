//! The help of every command of `meshctl`, from the binary itself.

use std::path::PathBuf;

use super::head;
use crate::command;

pub(super) fn page() -> anyhow::Result<String> {
    command::cargo(&["build", "--quiet", "-p", "meshctl"], &[])?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| command::root().join("target"), PathBuf::from);
    let meshctl = target.join("debug/meshctl");
    let mut page = head("meshctl", "the binary's own help");
    page.push_str(concat!(
        "Works on any host of the mesh, through that host's own daemon. Exit codes: 0 ok · 1 finding · ",
        "2 usage · 3 daemon unreachable · 4 conflict · 5 wait timed out (accepted, not everywhere yet) · ",
        "6 not permitted.\n",
    ));
    append(&meshctl, &[], &mut page)?;
    Ok(page)
}

fn append(meshctl: &PathBuf, words: &[String], page: &mut String) -> anyhow::Result<()> {
    let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = command::output(meshctl, &arguments)?;
    let title = if words.is_empty() {
        "meshctl".to_owned()
    } else {
        format!("meshctl {}", words.join(" "))
    };
    page.push_str(&["\n## ", &title, "\n\n```text\n"].concat());
    for line in help.lines() {
        page.push_str(line.trim_end());
        page.push('\n');
    }
    page.push_str("```\n");
    if words.len() < 2 {
        for name in subcommands(&help) {
            let inner: Vec<String> = words.iter().cloned().chain([name]).collect();
            append(meshctl, &inner, page)?;
        }
    }
    Ok(())
}

/// The names under `Commands:` (clap's layout: two spaces, the name, the text).
fn subcommands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_commands() {
        let help = "Usage: x\n\nCommands:\n  init  Makes a mesh\n        more text\n  help  Print\n\nOptions:\n  -h\n";
        assert_eq!(subcommands(help), ["init"]);
    }
}
