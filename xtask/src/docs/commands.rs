//! The page of every command, made by `meshctl` itself.

use std::path::PathBuf;

use crate::command;

pub(super) fn page() -> anyhow::Result<String> {
    command::cargo(&["build", "--quiet", "-p", "meshctl"], &[])?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| command::root().join("target"), PathBuf::from);
    command::output(&target.join("debug/meshctl"), &["docs"])
}
