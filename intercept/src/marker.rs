//! The file that stands for bypass.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Whether bypass is on.
pub fn active(state_dir: &Path) -> bool {
    marker(state_dir).exists()
}

/// The file that stands for bypass.
pub fn marker(state_dir: &Path) -> PathBuf {
    state_dir.join("bypass")
}

/// Writes it, so that it survives a loss of power.
pub(crate) fn set(state_dir: &Path) -> io::Result<()> {
    let file = fs::File::create(marker(state_dir))?;
    io::Write::write_all(
        &mut &file,
        b"Interception is off. `meshctl unbypass` switches it on again.\n",
    )?;
    file.sync_all()?;
    fs::File::open(state_dir)?.sync_all()
}
