//! Takes away what any run of ours installed.

use std::time::Duration;

use super::{Settings, outcome::RemoveError};
use crate::{
    installed::Installed,
    nft::{self, Nft, NftError},
    routes::{Range, Routes},
    rules,
};

/// Takes away all that any run of ours installed, save an owner table whose daemon lives; true when that stands.
pub(crate) async fn remove_all(
    nft: &Nft,
    routes: &Routes,
    settings: &Settings,
) -> Result<bool, RemoveError> {
    let owner_left = match nft.delete_table(rules::OWNER).await {
        Ok(_was_there) => false,
        // Its owner lives, and nobody else may touch it.
        Err(NftError::Refused { .. }) => {
            !nft::gone(nft, rules::OWNER, Duration::from_millis(100)).await?
        }
        Err(error) => return Err(error.into()),
    };
    nft.delete_table(rules::FALLBACK).await?;
    let installed = Installed::read(&settings.state_dir);
    let ranges = installed
        .as_ref()
        .map_or_else(default_ranges, |record| record.ranges.clone());
    for range in ranges {
        routes.remove_range(range).await?;
    }
    routes
        .remove_table(installed.map_or(settings.table, |record| record.table))
        .await?;
    Installed::forget(&settings.state_dir).map_err(|source| RemoveError::Record {
        path: settings.state_dir.clone(),
        source,
    })?;
    Ok(owner_left)
}

/// The ranges of an unchanged configuration, for when the record is lost.
fn default_ranges() -> Vec<Range> {
    ["240.240.0.0/16", "fd6d:6573:6864::/64"]
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect()
}
