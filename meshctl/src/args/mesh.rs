//! Flags of the commands that make, enter and leave a mesh.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use super::ChangeArgs;
use crate::{sign::public_key, time::duration};

/// Flags of `init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Name of the mesh for people; a random one such as mesh-7f3a2c unless set
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Trust domain of every identity; NAME.internal unless set
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) trust_domain: Option<String>,
    /// DNS domain of service names
    #[arg(long, default_value = "mesh.internal")]
    pub(crate) domain: String,
    /// Refuse plaintext, and deny calls unless a policy allows them
    #[arg(long)]
    pub(crate) strict: bool,
    /// Lifetime of a service's certificate, at least 60s
    #[arg(long, value_parser = duration, value_name = "TIME", default_value = "24h")]
    pub(crate) leaf_ttl: Duration,
    /// Name of the first operator; your user's name unless set
    #[arg(long, value_name = "NAME")]
    pub(crate) operator: Option<String>,
    /// Public key of the first operator, from `meshctl operator key`; a key of your own is made unless set
    #[arg(long, value_name = "HEX", value_parser = public_key)]
    pub(crate) operator_key: Option<[u8; 32]>,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

/// Flags of `join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// File that holds the token; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,
    /// The state directory was copied from another machine: throw that identity away
    #[arg(long)]
    pub(crate) fresh: bool,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

/// `token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it: a secret
    Create(TokenCreate),
}

/// Flags of `token create`.
#[derive(Debug, Args)]
pub(crate) struct TokenCreate {
    /// How long it can be used, at most 7d
    #[arg(long, value_parser = duration, value_name = "TIME", default_value = "1h")]
    pub(crate) ttl: Duration,
    /// How many hosts may use it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uses: u32,
    /// The host that joins becomes an authority: it may issue certificates and grants
    #[arg(long)]
    pub(crate) authority: bool,
    /// Services that the host may offer: NAME, NAMESPACE/NAME, NAMESPACE/* or *
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_value = "*")]
    pub(crate) services: Vec<String>,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

/// Flags of `leave`.
#[derive(Debug, Args)]
pub(crate) struct LeaveArgs {
    /// Leave although this host holds the root (`meshctl backup` first) or is the last authority: without the one no
    /// authority can be made or renewed, without the other nothing can be renewed
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

/// `operator`.
#[derive(Debug, Subcommand)]
pub(crate) enum OperatorCommand {
    /// Give a person's key the right to change the mesh
    Add(OperatorAdd),
    /// Who may change the mesh
    List,
    /// Take a right back
    Revoke(OperatorRevoke),
    /// Print your public key; make the key when there is none
    Key,
}

/// Flags of `operator add`.
#[derive(Debug, Args)]
pub(crate) struct OperatorAdd {
    /// Name for people
    pub(crate) name: String,
    /// Public key, from `meshctl operator key`
    #[arg(long, value_name = "HEX", value_parser = public_key)]
    pub(crate) key: [u8; 32],
    /// Namespaces that may be changed; `*` for all, and for resources of the mesh
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_value = "*")]
    pub(crate) namespaces: Vec<String>,
    /// How long
    #[arg(long, value_parser = duration, value_name = "TIME", default_value = "365d")]
    pub(crate) ttl: Duration,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

/// Flags of `operator revoke`.
#[derive(Debug, Args)]
pub(crate) struct OperatorRevoke {
    /// Name or public key
    pub(crate) operator: String,
    #[command(flatten)]
    pub(crate) edit: super::EditArgs,
}
