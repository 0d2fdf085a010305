//! What the daemon's command line offers, and which room carries it out.
//!
//! `meshd` alone is the daemon. The other forms work without a running daemon: they check a
//! configuration, answer names, take the host out of the mesh's path, or restore a backup.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::{boot, config, telemetry};

/// The mesh daemon.
#[derive(Debug, Parser)]
#[command(name = "meshd", version, about = "The mesh daemon", long_about = None)]
pub(crate) struct Arguments {
    /// Configuration file; `conf.d/*.toml` and `services.d/*.toml` beside it are read too
    #[arg(
        long,
        env = "MESHD_CONFIG",
        default_value = config::DEFAULT,
        global = true
    )]
    config: PathBuf,
    /// Check the configuration, name every fault, and end
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the configuration as it is meant, defaults included
    Config,
    /// Answer the mesh's names: the small process that outlives the daemon
    Names,
    /// Take meshd out of this host's path: no rule, no route, until `unbypass`
    Bypass,
    /// Undo `bypass`
    Unbypass,
    /// Remove everything meshd keeps in the kernel: what `purge` does
    Uninstall,
    /// Put an authority's backup (JSON on standard input) into an empty state directory
    Restore,
}

/// Runs what the arguments ask for.
pub(crate) fn carry_out(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.check {
        return Ok(check(&arguments.config));
    }
    let told = |faults: Vec<_>| anyhow::anyhow!(config::faults_text(&faults));
    let read = || config::load(&arguments.config).map_err(told);
    // What must work when everything else fails does not need a configuration without faults.
    let rescued = || config::rescued(&arguments.config).map_err(told);
    match &arguments.command {
        None => boot::daemon(&arguments.config, read()?),
        Some(Command::Config) => {
            let loaded = read()?;
            telemetry::print(&mesh_model::config::effective(&loaded.boot, &loaded.live));
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Names) => boot::names(&rescued()?),
        Some(Command::Bypass) => boot::bypass(&rescued()?, true),
        Some(Command::Unbypass) => boot::bypass(&rescued()?, false),
        Some(Command::Uninstall) => boot::uninstall(&rescued()?),
        Some(Command::Restore) => {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut std::io::stdin(), &mut text)
                .context("cannot read the backup from standard input")?;
            boot::restore(&rescued()?, &text)
        }
    }
}

fn check(path: &std::path::Path) -> ExitCode {
    match config::load(path) {
        Ok(loaded) => {
            telemetry::print(&format!(
                "{}: ok, {} services, {} sources\n",
                path.display(),
                loaded.live.services.len(),
                loaded.live.sources.len()
            ));
            ExitCode::SUCCESS
        }
        Err(faults) => {
            telemetry::complain(&config::faults_text(&faults));
            ExitCode::from(1)
        }
    }
}
