//! Where the programs under test are: the release build unless the environment says otherwise.

use std::path::PathBuf;

/// The path of a built program: `MESH_BIN_DIR/name`, or the release build of this workspace.
pub fn built(name: &str) -> PathBuf {
    let directory = std::env::var_os("MESH_BIN_DIR").map_or_else(
        || {
            std::env::var_os("CARGO_TARGET_DIR")
                .map_or_else(|| workspace().join("target"), PathBuf::from)
                .join("release")
        },
        PathBuf::from,
    );
    directory.join(name)
}

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map_or_else(|| own.clone(), PathBuf::from)
}
