//! `files.toml` to packages: not written yet.

/// Builds the packages.
pub(crate) fn run(_rest: &[String]) -> anyhow::Result<()> {
    anyhow::bail!("packages are not built yet")
}
