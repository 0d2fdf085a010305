//! Flags of the commands about discovery sources.

use clap::{Args, Subcommand};

/// Commands about discovery sources.
#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Each source of this host: state since when and why, what it has
    Status,
    /// What sources say, service by service
    Dump(RegistryDump),
    /// What two sources say differently about a service; exits 1 when they do
    Diff(RegistryDiff),
}

/// Flags of `registry dump`.
#[derive(Debug, Args)]
pub(crate) struct RegistryDump {
    /// Only this source; its id
    pub(crate) source: Option<String>,
    /// Only this service: NAME or NAMESPACE/NAME
    pub(crate) service: Option<String>,
}

/// Flags of `registry diff`.
#[derive(Debug, Args)]
#[command(
    after_help = "Lines: - only A has the address, + only B has it, ~ both have it, differently. \
    Ids and labels are the registries' own business and are not compared."
)]
pub(crate) struct RegistryDiff {
    /// One source; its id
    pub(crate) a: String,
    /// The other source; its id
    pub(crate) b: String,
    /// The service: NAME or NAMESPACE/NAME
    pub(crate) service: String,
}
