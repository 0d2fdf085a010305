//! Flags of `adopt`.

use std::time::Duration;

use clap::Args;

use super::ChangeArgs;
use crate::time::duration;

/// Flags of `adopt`.
#[derive(Debug, Args)]
#[command(
    after_help = "A service that a registry has at an address of this host, and whose port a program listens \
    on, becomes a file in /etc/meshd/services.d: its callers reach it as before, and those whose hosts run \
    meshd with mTLS. With --try the files lie with the daemon until `meshctl confirm`."
)]
pub(crate) struct AdoptArgs {
    /// Only these services, NAME or NAMESPACE/NAME; all unless given
    pub(crate) services: Vec<String>,
    /// Take it back by itself after this time unless `meshctl confirm` comes first
    #[arg(long = "try", value_parser = duration, value_name = "TIME", conflicts_with = "undo")]
    pub(crate) for_time: Option<Duration>,
    /// Switch these services off again: callers first, then the file
    #[arg(long, requires = "services")]
    pub(crate) undo: bool,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}
