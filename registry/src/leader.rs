//! Leaders of elections as a source: of the numbered members of a directory, the lowest is the endpoint.
//!
//! In: `<path>/…/<election>/member_0000000012` with `host:port` in it, several by commas. Out: a set per
//! election, of the leader's addresses. Never: takes the next member for the leader because the leader's data
//! cannot be understood.

use std::sync::Arc;

use mesh_model::{
    config::{SourceConfig, SourceKind},
    endpoint::ServiceKey,
};

use crate::{
    place::{address, endpoint},
    serverset,
    zookeeper::{
        ZookeeperSource,
        tree::{Kind, Layout, Member, Members, Sets},
    },
};

#[cfg(test)]
mod tests;

/// Most addresses of one leader.
const MAX_ADDRESSES: usize = 64;

/// The source; `None` when the settings are of another kind.
pub fn open(config: &SourceConfig) -> Option<ZookeeperSource> {
    let SourceKind::Leader { access, path } = &config.kind else {
        return None;
    };
    let layout = Arc::new(Elections);
    Some(ZookeeperSource::new(config, access, path, layout, false))
}

/// How elections lie.
struct Elections;

impl Layout for Elections {
    fn kind(&self, _depth: usize, name: &str) -> Kind {
        if sequence(name).is_some() {
            Kind::Member
        } else {
            Kind::Inner
        }
    }
    fn key(&self, base: &str, directory: &str) -> Option<ServiceKey> {
        serverset::key(base, directory)
    }
    fn read(&self, name: &str, data: &[u8]) -> Result<Member, String> {
        member(name, data)
    }
    fn sets(&self, members: &Members) -> Option<Sets> {
        let lowest = members
            .iter()
            .min_by_key(|(name, _)| (sequence(name), Arc::clone(name)))?;
        let leader = lowest.1.as_ref()?;
        let endpoints = leader.endpoints.iter().map(|(_, one)| one.clone());
        Some(Sets::from([(None, endpoints.collect())]))
    }
}

/// The number that the server gave to a member: its last ten digits.
fn sequence(name: &str) -> Option<u64> {
    let at = name.len().checked_sub(10)?;
    let (_, digits) = name.split_at_checked(at)?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// `host:port[,host:port…]`.
fn member(name: &str, data: &[u8]) -> Result<Member, String> {
    let text = std::str::from_utf8(data).map_err(|error| error.to_string())?;
    let mut endpoints = Vec::new();
    for place in text.split([',', ' ', '\n']).map(str::trim) {
        if place.is_empty() {
            continue;
        }
        if endpoints.len() >= MAX_ADDRESSES {
            return Err(format!("it has more than {MAX_ADDRESSES} addresses"));
        }
        let found = place
            .rsplit_once(':')
            .and_then(|(host, port)| address(host, port.parse().ok()?));
        let found = found.ok_or_else(|| {
            let short: String = place.chars().take(80).collect();
            format!("{short:?} is no host:port")
        })?;
        endpoints.push((None, endpoint(format!("{name}/{found}"), found)));
    }
    if endpoints.is_empty() {
        return Err("it names no address".into());
    }
    Ok(Member {
        endpoints,
        weights: Vec::new(),
    })
}
