//! How a host gets into a mesh and out of it: making one, joining one, tokens, backup, restore.
//!
//! Everything that a host is stands in `<state_dir>/identity`: it appears whole or not at all, and it is
//! bound to the machine. In: requests of the owner, tokens. Out: an [`Identity`] on disk. Never: changes
//! anything on disk before the last step has worked.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use mesh_identity::{
    archive::{self, ArchiveError},
    file::FileError,
};
use mesh_model::{admin::Backup, config::Boot};

use crate::intake::Host;

/// What an issuer decides on a token and a request.
mod admit;
/// A mesh is made.
mod create;
/// What a host is, as it stands on disk.
mod identity;
/// The joining side.
mod join;
/// Which machine this is.
mod machine;
/// Whether two hosts reach each other's ports.
mod probe;
/// A host whose certificate has ended gets a new one.
mod recover;
/// The admitting side: connections without a client certificate.
mod serve;
/// Join tokens that this host has given out.
mod tokens;
/// What goes over a join's connection.
mod wire;

pub(crate) use create::init;
pub(crate) use identity::{Identity, IdentityError};
pub(crate) use join::join;
pub(crate) use probe::Probes;
pub(crate) use recover::recover;
pub(crate) use serve::{JoinServer, RELAY_KIND, Reach};
pub(crate) use tokens::Tokens;

/// Where this host stands: what admission needs of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Site {
    /// State directory.
    pub(crate) state_dir: PathBuf,
    /// Name of this host for people.
    pub(crate) host_name: String,
    /// Addresses at which others reach it, preferred first.
    pub(crate) addresses: Vec<IpAddr>,
    /// Where the control state listens, UDP and TCP.
    pub(crate) cluster: SocketAddr,
    /// Where the tunnel listens.
    pub(crate) tunnel: SocketAddr,
    /// False: membership runs over TCP alone, so UDP is not tested.
    pub(crate) udp: bool,
}

impl Site {
    /// From the configuration and what is known of the host.
    pub(crate) fn new(boot: &Boot, host: &Host) -> Self {
        Self {
            state_dir: boot.state_dir.clone(),
            host_name: host.name.clone(),
            addresses: host.addresses.clone(),
            cluster: boot.cluster.listen,
            tunnel: boot.listeners.tunnel,
            udp: boot.cluster.udp,
        }
    }
    /// Addresses of the control state, as a token names them.
    pub(crate) fn seeds(&self) -> Vec<String> {
        let port = self.cluster.port();
        let own = self.cluster.ip();
        let addresses = if own.is_unspecified() {
            self.addresses.clone()
        } else {
            vec![own]
        };
        addresses
            .into_iter()
            .map(|ip| SocketAddr::new(ip, port).to_string())
            .collect()
    }
}

/// True when this host is in a mesh, by its state directory.
pub(crate) fn exists(state_dir: &Path) -> bool {
    identity::directory(state_dir).exists()
}

/// Forgets the mesh: keys, grants, certificates, tokens. What was registered elsewhere is not touched.
pub(crate) fn forget(state_dir: &Path) -> Result<(), FileError> {
    archive::clear(&identity::directory(state_dir))
}

/// Why a backup cannot be restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// A host has one identity.
    #[error("{} holds an identity already: restore into an empty state directory", .0.display())]
    Present(PathBuf),
    /// The backup is damaged, or the files cannot be written.
    #[error("cannot put the files of the backup in place")]
    Archive(#[from] ArchiveError),
    /// Its parts do not make an authority.
    #[error("the backup is no whole authority")]
    Identity(#[from] IdentityError),
    /// It belongs to somebody without an authority.
    #[error("the backup is of a host that is no authority")]
    NoAuthority,
}

/// Puts an authority's backup into an empty state directory and binds it to this machine.
///
/// Refuses when any identity is present, and when the backup is not a whole authority; then nothing is left.
pub(crate) fn restore(state_dir: &Path, backup: &Backup) -> Result<(), RestoreError> {
    if exists(state_dir) {
        return Err(RestoreError::Present(identity::directory(state_dir)));
    }
    let machine = machine::Machine::current();
    let mut files = archive::from_backup(backup)?;
    files.retain(|(name, _)| identity::BACKED_UP.contains(&name.as_str()));
    files.push(machine.file());
    let trial = state_dir.join("identity.trial");
    archive::clear(&trial).map_err(ArchiveError::from)?;
    archive::install(&trial, &files)?;
    let whole = Identity::open(&trial, &machine);
    archive::clear(&trial).map_err(ArchiveError::from)?;
    if !whole?.is_authority() {
        return Err(RestoreError::NoAuthority);
    }
    Ok(archive::install(&identity::directory(state_dir), &files)?)
}

#[cfg(test)]
mod tests;
