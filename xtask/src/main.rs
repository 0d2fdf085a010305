//! The workshop: checks, laws of the house, generated documents, test runs, packages.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs cargo and other programs, loudly.
mod command;
/// Documents that are generated from the code or compared with it.
mod docs;
/// `files.toml` to packages.
mod package;
/// Every suite, one after the other, and one sum.
mod suites;
/// The laws of the house.
mod tidy;

#[derive(Parser)]
#[command(name = "xtask", about = "The workshop of meshd.")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Format, lints, tests, documentation, laws: everything that must hold before a change lands.
    Check,
    /// The laws of the house; prints the largest files and functions as advice.
    Tidy,
    /// Writes the generated documents.
    Docs {
        /// Compare instead of writing.
        #[arg(long)]
        check: bool,
    },
    /// Runs every suite and prints the sum as its last line.
    Test {
        /// Only the suites whose name contains this.
        only: Option<String>,
    },
    /// Builds the packages.
    Package {
        /// Passed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Check => check(),
        Task::Tidy => tidy::run(),
        Task::Docs { check } => docs::run(if check {
            docs::Mode::Compare
        } else {
            docs::Mode::Write
        }),
        Task::Test { only } => suites::run(only.as_deref()),
        Task::Package { rest } => package::run(&rest),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            command::say_error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn check() -> anyhow::Result<()> {
    command::heading("format");
    command::cargo(&["fmt", "--all", "--check"], &[])?;
    command::heading("lints");
    command::cargo(
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    )?;
    command::heading("laws");
    tidy::run()?;
    command::heading("documents");
    docs::run(docs::Mode::Compare)?;
    command::heading("documentation");
    command::cargo(
        &[
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ],
        &[("RUSTDOCFLAGS", "-D warnings")],
    )?;
    command::heading("tests");
    suites::unit()
}
