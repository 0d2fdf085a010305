//! Everything off, until it is undone: works with the daemon dead, and survives a reboot.
//!
//! The switch is a file in the state directory. A daemon that lives sees it at its next look (at once, when
//! it is asked over its socket) and takes its rules down itself; a daemon that starts installs nothing.

use std::{fs, io, path::Path, time::Duration};

use crate::{
    apply::{RemoveError, Settings, remove_all},
    marker::set,
    nft::{self, Nft},
    routes::Routes,
    rules,
};

pub use crate::marker::{active, marker};

/// Switches bypass on and removes all rules and routes of ours.
///
/// The table of a daemon that lives stays until that daemon sees the marker: nobody else may touch it. True when it
/// stands.
pub async fn enter(state_dir: &Path) -> Result<bool, RemoveError> {
    let record = |source| RemoveError::Record {
        path: marker(state_dir),
        source,
    };
    set(state_dir).map_err(record)?;
    sweep(state_dir).await
}

/// Removes all rules and routes of ours, without switching anything: for a purge. True when the table of a daemon
/// that lives stands.
pub async fn sweep(state_dir: &Path) -> Result<bool, RemoveError> {
    let settings = Settings::new(state_dir, state_dir);
    let nft = Nft::find(None)?;
    let routes = Routes::open()?;
    remove_all(&nft, &routes, &settings).await
}

/// True as soon as no table of a daemon stands, false when one still does after `patience`.
pub async fn owner_gone(patience: Duration) -> Result<bool, RemoveError> {
    Ok(nft::gone(&Nft::find(None)?, rules::OWNER, patience).await?)
}

/// Switches bypass off; a daemon that lives applies its rules again when it is told, or at its next intent.
pub fn leave(state_dir: &Path) -> Result<(), RemoveError> {
    match fs::remove_file(marker(state_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| RemoveError::Record {
            path: marker(state_dir),
            source,
        }),
    }
}
