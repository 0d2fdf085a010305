//! Flags of the commands that change this host alone.

use std::path::PathBuf;

use clap::Args;

use super::ChangeArgs;

/// Flags of `enrol`.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes /etc/systemd/system/UNIT.d/50-meshd.conf, whose ExecStartPre binds the \
    unit's cgroup to its service before the main process starts. Which service that is says a \
    [[service]] with `unit = \"UNIT\"` in /etc/meshd/services.d. A unit \
    that systemd does not know is refused."
)]
pub(crate) struct EnrolArgs {
    /// The unit, such as web.service
    pub(crate) unit: String,
    /// Bind the cgroup of the calling process now: what the drop-in runs
    #[arg(long, conflicts_with = "remove")]
    pub(crate) starting: bool,
    /// Take the drop-in away
    #[arg(long)]
    pub(crate) remove: bool,
    /// Directory of the units
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/etc/systemd/system",
        hide = true
    )]
    pub(crate) units: PathBuf,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

/// Flags of `bypass` and `unbypass`.
#[derive(Debug, Args)]
pub(crate) struct BypassArgs {
    /// The daemon's configuration file, for the case that the daemon does not answer
    #[arg(
        long,
        env = "MESHD_CONFIG",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

/// Flags of `backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// New file (mode 0600); `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Flags of `restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// File that `backup` wrote; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The daemon's configuration file
    #[arg(
        long,
        env = "MESHD_CONFIG",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}
