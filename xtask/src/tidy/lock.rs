//! One TLS stack, one HTTP stack, one runtime: by the resolved graph of the lock file.
//!
//! The lock file alone names crates that no feature switches on, so cargo is asked what is really built.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::House;
use crate::command;

/// Crates that must not be in the product, with what is used instead.
const BANNED: [(&str, &str); 6] = [
    ("ring", "aws-lc-rs"),
    ("openssl", "rustls"),
    ("openssl-sys", "rustls"),
    ("native-tls", "rustls"),
    ("reqwest", "hyper"),
    ("serde_yaml", "serde-saphyr"),
];
/// Crates that must be there once.
const ONCE: [&str; 8] = [
    "rustls",
    "tokio",
    "hyper",
    "h2",
    "http",
    "rustls-webpki",
    "aws-lc-rs",
    "prost",
];

pub(super) fn breaches(_house: &House) -> Vec<String> {
    let tree = command::output(
        Path::new("cargo"),
        &[
            "tree",
            "--workspace",
            "--all-features",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--locked",
        ],
    );
    match tree {
        Ok(text) => judge(&text),
        Err(error) => vec![format!("Cargo.lock: {error:#}")],
    }
}

/// Each line is `name vVERSION` and more.
fn judge(tree: &str) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            versions.entry(name).or_default().insert(version);
        }
    }
    let banned = BANNED.iter().filter(|(name, _)| versions.contains_key(name)).map(|(name, instead)| {
        format!("Cargo.lock: {name} is built; use {instead} (`cargo tree -i {name}` tells who wants it)")
    });
    let twice = ONCE.iter().filter_map(|name| {
        let all = versions.get(name).filter(|all| all.len() > 1)?;
        let all: Vec<&str> = all.iter().copied().collect();
        Some(format!(
            "Cargo.lock: {name} is built {} times: {}",
            all.len(),
            all.join(", ")
        ))
    });
    banned.chain(twice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_stack_is_found() {
        let clean = "rustls v0.23.1\nhyper v1.12.0\nrustls v0.23.1 (*)\n";
        assert!(judge(clean).is_empty());
        assert_eq!(judge(&format!("{clean}rustls v0.21.0\n")).len(), 1);
        assert_eq!(judge(&format!("{clean}ring v0.17.0\n")).len(), 1);
    }
}
