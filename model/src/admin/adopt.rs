//! Programs of this host that a registry knows already, and that could be services of the mesh.

use serde::{Deserialize, Serialize};

/// What could be adopted, and what is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Adoption {
    /// One for each instance that a registry has at an address of this host.
    pub proposals: Vec<Proposal>,
    /// Directory of the files, `services.d`.
    pub directory: String,
    /// When what is tried undoes itself, milliseconds since the epoch; 0: nothing is tried.
    pub try_until_ms: u64,
    /// Files that are tried.
    pub tried: Vec<AdoptedFile>,
}

/// A program that a registry knows at an address of this host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Proposal {
    /// `namespace/name`.
    pub service: String,
    /// The source that knows it.
    pub source: String,
    /// Where it is registered, `ip:port`.
    pub registered: String,
    /// The port that callers of the service dial.
    pub port: u16,
    /// Its unit, where one is found.
    pub unit: String,
    /// Its user, name or number, where it is not root's.
    pub user: String,
    /// `ready`, `adopted` (a file of ours is there), `tried`, `configured` (by other files), `missing` (nothing
    /// listens there).
    pub state: String,
    /// What would be captured.
    pub captured: String,
    /// What to know about it; may be empty.
    pub remark: String,
    /// The file that would be written; none unless it is ready.
    pub file: Option<AdoptedFile>,
}

/// A file of `services.d`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AdoptedFile {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Try files for a time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Try {
    /// The files.
    pub files: Vec<AdoptedFile>,
    /// They are taken back after so many milliseconds unless confirmed.
    pub for_ms: u64,
}

/// Offer a service of this host to nobody any more, while what runs goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Release {
    /// `namespace/name`.
    pub service: String,
}

/// What a file that `adopt` wrote begins with.
pub const MARK: &str = "# Written by `meshctl adopt`";
