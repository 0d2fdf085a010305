//! What came of it: applied how, refused why, and what people are told.

use std::{error::Error as _, io, net::SocketAddr, path::PathBuf};

use mesh_model::finding::{Finding, Severity};

use crate::{
    nft::NftError,
    routes::{Piece, RouteError},
    rules,
};

/// Interception cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No usable `nft`.
    #[error("interception needs nft")]
    Nft(#[from] NftError),
    /// No routing socket.
    #[error("interception needs the kernel's routes")]
    Routes(#[from] RouteError),
    /// The path would mean something else to nft.
    #[error("runtime directory {} has a character that nft does not take in a path", .0.display())]
    Path(PathBuf),
}

/// An intent that could not be applied; the tables are as they were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// nft failed.
    #[error("rules cannot be applied")]
    Nft(#[from] NftError),
    /// A route or rule was refused.
    #[error("routes cannot be applied")]
    Routes(#[from] RouteError),
    /// A file cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The mask has no room for a second value beside the daemon's own.
    #[error("mark {value:#x} with mask {mask:#x} leaves no room for the mark of replies")]
    Mark {
        /// The daemon's own.
        value: u32,
        /// The bits that are ours.
        mask: u32,
    },
    /// Another process holds the table.
    #[error("table inet {} is held by another process", rules::OWNER)]
    Held,
}

/// Something could not be removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// nft failed.
    #[error("rules cannot be removed")]
    Nft(#[from] NftError),
    /// A route or rule was refused.
    #[error("routes cannot be removed")]
    Routes(#[from] RouteError),
    /// The bypass marker or the record cannot be changed.
    #[error("{} cannot be changed", path.display())]
    Record {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What an apply did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// How.
    pub how: How,
    /// Registered ports that are not captured.
    pub skipped: Vec<Skipped>,
    /// What works less well than it should.
    pub findings: Vec<Finding>,
}

/// How an intent was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Whole tables were replaced.
    Replaced,
    /// Elements were changed.
    Changed,
    /// The kernel followed it already.
    Unchanged,
    /// Not at all: bypass is on, everything of ours was taken away.
    Bypassed,
}

/// A registered port that is not captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// The port.
    pub address: SocketAddr,
    /// True: sshd listens on it; false: the configuration says so.
    pub ssh: bool,
}

/// How much is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The daemon stops: programs go on directly, by the fallback.
    Stop,
    /// Nothing of ours stays: leave, bypass, purge.
    Everything,
}

pub(super) fn skip_finding(skipped: &Skipped) -> Finding {
    let (what, remedy) = if skipped.ssh {
        (
            "sshd listens on it, so it is not intercepted",
            "give the service another port",
        )
    } else {
        (
            "the configuration says that it is not intercepted",
            "nothing, if that is meant",
        )
    };
    Finding::new(
        "intercept-port-skipped",
        Severity::Warning,
        format!("port {}", skipped.address),
        what,
        remedy,
    )
}

pub(super) fn lost(subject: &str, what: &str) -> Finding {
    Finding::new(
        "intercept-lost",
        Severity::Warning,
        subject,
        what,
        "find out which program removed it, when it happens again",
    )
}

pub(super) fn route_finding(piece: &Piece, error: &RouteError) -> Finding {
    let cause = error
        .source()
        .map_or_else(String::new, |cause| format!(": {cause}"));
    Finding::new(
        "intercept-route",
        Severity::Warning,
        piece.to_string(),
        format!("{error}{cause}"),
        "look at `ip route show table all` and `ip rule`",
    )
}
