//! Crates depend downward only, and pure rooms on nothing that waits, draws or opens.

use super::{House, PURE, ROOMS};

/// What each room may use. Sideways and upward edges are breaches.
const MAY_USE: [(&str, &[&str]); 10] = [
    ("model", &[]),
    ("plan", &["model"]),
    ("gossip", &["model"]),
    ("identity", &["model"]),
    ("registry", &["model"]),
    ("intercept", &["model"]),
    ("kubernetes", &["model", "registry"]),
    ("proxy", &["model", "identity"]),
    (
        "meshd",
        &[
            "model",
            "plan",
            "gossip",
            "identity",
            "registry",
            "intercept",
            "kubernetes",
            "proxy",
        ],
    ),
    ("meshctl", &["model", "plan", "identity"]),
];

/// Crates that a pure room must not have: they wait, draw, or touch the world.
const IMPURE: [&str; 14] = [
    "tokio",
    "tokio-util",
    "tokio-rustls",
    "hyper",
    "hyper-util",
    "h2",
    "nix",
    "libc",
    "socket2",
    "notify",
    "fastrand",
    "redb",
    "rtnetlink",
    "rustls",
];

pub(super) fn breaches(house: &House) -> Vec<String> {
    ROOMS.iter().flat_map(|room| of_room(house, room)).collect()
}

fn of_room(house: &House, room: &str) -> Vec<String> {
    let path = house.root.join(room).join("Cargo.toml");
    let Some(manifest) = std::fs::read_to_string(&path)
        .ok()
        .and_then(|text| text.parse::<toml::Table>().ok())
    else {
        return vec![format!("{room}/Cargo.toml: cannot be read")];
    };
    let allowed = MAY_USE
        .iter()
        .find(|(name, _)| *name == room)
        .map_or(&[][..], |(_, allowed)| allowed);
    let mut found = Vec::new();
    for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
        for name in dependencies(&manifest, section) {
            let inner = name.strip_prefix("mesh-").unwrap_or(&name);
            let is_ours =
                name.starts_with("mesh-") || ["meshd", "meshctl", "xtask"].contains(&&*name);
            if is_ours && !allowed.contains(&inner) && inner != room {
                found.push(format!(
                    "{room}/Cargo.toml: {section} name {name}, which is not below it"
                ));
            }
            let pure = PURE.contains(&room) && section == "dependencies";
            if pure && IMPURE.contains(&name.as_str()) {
                found.push(format!(
                    "{room}/Cargo.toml: a pure room must not use {name}"
                ));
            }
        }
    }
    found
}

/// Names under a section, those of `[target.*]` among them.
pub(super) fn dependencies(manifest: &toml::Table, section: &str) -> Vec<String> {
    let of = |table: &toml::Table| -> Vec<String> {
        table
            .get(section)
            .and_then(toml::Value::as_table)
            .map(|all| all.keys().cloned().collect())
            .unwrap_or_default()
    };
    let mut names = of(manifest);
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    for target in targets
        .into_iter()
        .flat_map(toml::Table::values)
        .filter_map(toml::Value::as_table)
    {
        names.extend(of(target));
    }
    names
}
