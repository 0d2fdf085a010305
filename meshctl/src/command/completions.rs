//! `completions`: the completion script of a shell.

use clap::CommandFactory as _;

use crate::{
    args::Arguments,
    failure::{Exit, Failure},
};

/// Prints the script.
pub(crate) fn run(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "meshctl", &mut script);
    crate::print::text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
