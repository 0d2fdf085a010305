//! The configuration as written: TOML, unknown keys refused.
