//! Flags of the commands that read and change resources.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::EditArgs;

/// Flags of `apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// YAML or JSON; `-` for standard input; may be repeated
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Where a resource is in conflict: replace all its versions by this one
    #[arg(long)]
    pub(crate) merge: bool,
    #[command(flatten)]
    pub(crate) edit: EditArgs,
}

/// Flags of `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// `KIND`, `KIND NAME`, `KIND/NAME` or `KIND/NAMESPACE/NAME`; everything unless given
    #[arg(num_args = 0..=2, value_name = "RESOURCE")]
    pub(crate) resource: Vec<String>,
    /// Namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
}

/// Flags of `edit`.
#[derive(Debug, Args)]
pub(crate) struct EditResourceArgs {
    /// `KIND NAME`, `KIND/NAME` or `KIND/NAMESPACE/NAME`
    #[arg(required = true, num_args = 1..=2, value_name = "RESOURCE")]
    pub(crate) resource: Vec<String>,
    /// Namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) edit: EditArgs,
}

/// Flags of `delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// `KIND NAME`, `KIND/NAME` or `KIND/NAMESPACE/NAME`
    #[arg(required_unless_present = "files", num_args = 1..=2, value_name = "RESOURCE")]
    pub(crate) resource: Vec<String>,
    /// Delete what this file names; may be repeated
    #[arg(short, long = "file", value_name = "FILE", conflicts_with = "resource")]
    pub(crate) files: Vec<PathBuf>,
    /// Namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) edit: EditArgs,
}

/// Flags of `diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// What applying this file would change; may be repeated
    #[arg(
        short,
        long = "file",
        value_name = "FILE",
        conflicts_with = "revisions"
    )]
    pub(crate) files: Vec<PathBuf>,
    /// What a commit changed, or the difference between two
    #[arg(required_unless_present = "files", num_args = 1..=2, value_name = "REVISION")]
    pub(crate) revisions: Vec<String>,
}

/// Flags of `history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Of one commit (REVISION), one resource (`KIND/NAME`, `KIND NAME`) or one kind; of all unless given
    #[arg(num_args = 0..=2, value_name = "RESOURCE")]
    pub(crate) resource: Vec<String>,
    /// Namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// How many
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: u32,
}

/// Flags of `rollback`.
#[derive(Debug, Args)]
#[command(
    after_help = "With REVISION: every resource that this commit changed gets the content that it \
    had then. With a resource: the content that it had before the last change."
)]
pub(crate) struct RollbackArgs {
    /// A revision, or `KIND/NAME`, `KIND NAME`, `KIND/NAMESPACE/NAME`
    #[arg(required = true, num_args = 1..=2, value_name = "REVISION|RESOURCE")]
    pub(crate) target: Vec<String>,
    /// Namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) edit: EditArgs,
}

/// Flags of `confirm`.
#[derive(Debug, Args)]
pub(crate) struct ConfirmArgs {
    /// The revision that --confirm-within printed; without one, what `adopt --try` tries, or else your one change that waits
    pub(crate) revision: Option<String>,
    #[command(flatten)]
    pub(crate) change: super::ChangeArgs,
}

/// `route`.
#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// Split a service's requests by weight among its versions
    Split(SplitArgs),
}

/// Flags of `route split`.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes the HTTPRoute SERVICE-split and prints it: its parent is the Service \
    SERVICE, its backends are other Services, by weight. `v1=90` means the Service SERVICE-v1; when \
    there is none, it is made in the same commit: the workloads of SERVICE with the label version v1. \
    A share for a version that no instance has is refused, since it would be answered 503. \
    A word that is no version (v and digits) is the whole name of a Service. Each request is given to \
    one backend, and stays there also when it is retried. Run it again with other weights to change \
    the split; delete it with `meshctl delete HTTPRoute SERVICE-split`.\n\n\
    Example: meshctl route split words v1=90 v2=10 --confirm-within 5m"
)]
pub(crate) struct SplitArgs {
    /// The service that is called
    pub(crate) service: String,
    /// VERSION=WEIGHT or SERVICE=WEIGHT; shares of the sum of all weights
    #[arg(required = true, num_args = 1.., value_name = "BACKEND=WEIGHT", value_parser = share)]
    pub(crate) shares: Vec<(String, u32)>,
    /// The service's port; may be left out when it has one
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    #[command(flatten)]
    pub(crate) edit: EditArgs,
}

/// Flags of `import`.
#[derive(Debug, Args)]
#[command(
    after_help = "Reads RouteRules (config.istio.io/v1alpha2, and the older `type: route-rule`) and prints \
    a VirtualService for each service and a DestinationRule for its versions. Other documents pass \
    unchanged. What could not be carried over is told on standard error. Give all rules of a service at \
    once: they become one document.\n\n\
    Example: meshctl import rules.yaml > routes.yaml && meshctl apply -f routes.yaml"
)]
pub(crate) struct ImportArgs {
    /// YAML or JSON; `-` for standard input
    #[arg(required = true, num_args = 1.., value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// Flags of `validate`.
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// YAML or JSON; `-` for standard input; may be repeated
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Only the documents themselves; the daemon is not asked what they refer to
    #[arg(long)]
    pub(crate) offline: bool,
}

fn share(text: &str) -> Result<(String, u32), String> {
    let wrong = || format!("'{text}' is not BACKEND=WEIGHT, such as v1=90");
    let (backend, weight) = text.split_once('=').ok_or_else(wrong)?;
    let weight = weight.parse().map_err(|_none| wrong())?;
    if backend.is_empty() || weight > 1_000_000 {
        return Err(wrong());
    }
    Ok((backend.to_owned(), weight))
}
