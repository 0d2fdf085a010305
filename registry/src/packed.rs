//! Endpoints in few bytes: what is kept of many of them that are seldom looked at. Pure.
//!
//! In: endpoints, and what their owner knows of each. Out: one run of bytes, and the same again from it.
//! Never: is sent or stored anywhere, so its form may change; loses anything.
//!
//! An endpoint takes some 15 bytes beside its id. Metadata and places stay shared: of those that neighbours
//! have alike one is kept.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::Arc,
};

use mesh_model::{
    address::Address,
    endpoint::{Endpoint, Health, Locality, Tunnel},
    name::HostId,
    service::AppProtocol,
};
use prost::encoding::{decode_varint, encode_varint};

use crate::{breath, set::ServiceSet};

/// So many of the last different ones are looked at for an equal one.
const NEAR: usize = 8;

/// The bits of an endpoint's first byte: its health, the form of its address, and what follows it.
const HEALTH: u8 = 0b0000_0111;
const V6: u8 = 0b0000_1000;
const HOST: u8 = 0b0001_0000;
/// Its id is not the one that the owner knows.
const NAMED: u8 = 0b0010_0000;
/// Its weight is not 1.
const WEIGHT: u8 = 0b0100_0000;
/// Its priority is not 0.
const PRIORITY: u8 = 0b1000_0000;

/// What was written by a [`Writer`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    bytes: Box<[u8]>,
    rest: Box<[Rest]>,
}

/// What endpoints have alike.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rest {
    metadata: Arc<BTreeMap<String, String>>,
    locality: Option<Arc<Locality>>,
    /// No registry says this of an endpoint.
    reach: Option<Arc<(Option<HostId>, Option<Tunnel>)>>,
}

impl Packed {
    /// A whole set.
    pub(crate) fn of(set: &ServiceSet) -> Self {
        let mut writer = Writer::default();
        writer.set(set, "");
        writer.end()
    }

    /// The set again.
    pub(crate) fn unpacked(&self) -> ServiceSet {
        let set = self.reader().set("");
        debug_assert!(set.is_some(), "what is read is what was written");
        set.unwrap_or_default()
    }

    /// Reads from the beginning.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader {
            bytes: &self.bytes,
            rest: &self.rest,
        }
    }
}

/// Writes what a [`Reader`] reads in the same order.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    rest: Vec<Rest>,
}

impl Writer {
    pub(crate) fn number(&mut self, number: u64) {
        encode_varint(number, &mut self.bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(u64::try_from(text.len()).unwrap_or(u64::MAX));
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// A set, most of whose endpoints have this id.
    pub(crate) fn set(&mut self, set: &ServiceSet, id: &str) {
        let is_plain = set.port == 0 && set.protocol == AppProtocol::default();
        let count = u64::try_from(set.endpoints.len()).unwrap_or(u64::MAX);
        self.number(count << 1 | u64::from(is_plain));
        if !is_plain {
            self.number(set.port.into());
            self.text(set.protocol.as_str());
        }
        for endpoint in &set.endpoints {
            breath::take();
            self.endpoint(endpoint, id);
        }
    }

    fn endpoint(&mut self, endpoint: &Endpoint, id: &str) {
        let is_named = *endpoint.id != *id;
        let (is_heavy, is_behind) = (endpoint.weight != 1, endpoint.priority != 0);
        let form = match &endpoint.address {
            Address::Socket(SocketAddr::V4(_)) => 0,
            Address::Socket(SocketAddr::V6(_)) => V6,
            Address::Host { .. } => HOST,
        };
        let flag = |holds: bool, bit: u8| if holds { bit } else { 0 };
        self.bytes.push(
            health_code(endpoint.health)
                | form
                | flag(is_named, NAMED)
                | flag(is_heavy, WEIGHT)
                | flag(is_behind, PRIORITY),
        );
        if is_named {
            self.text(&endpoint.id);
        }
        self.address(&endpoint.address);
        if is_heavy {
            self.number(endpoint.weight.into());
        }
        if is_behind {
            self.number(endpoint.priority.into());
        }
        let rest = self.rest(endpoint);
        self.number(rest);
    }

    fn address(&mut self, address: &Address) {
        match address {
            Address::Socket(SocketAddr::V4(at)) => {
                self.bytes.extend_from_slice(&at.ip().octets());
            }
            Address::Socket(SocketAddr::V6(at)) => {
                self.bytes.extend_from_slice(&at.ip().octets());
                self.number(at.flowinfo().into());
                self.number(at.scope_id().into());
            }
            Address::Host { host, .. } => self.text(host),
        }
        self.bytes.extend_from_slice(&address.port().to_be_bytes());
    }

    /// The number of what the endpoint has beside that.
    fn rest(&mut self, endpoint: &Endpoint) -> u64 {
        let has_reach = endpoint.host.is_some() || endpoint.tunnel.is_some();
        let reach = has_reach.then(|| Arc::new((endpoint.host, endpoint.tunnel.clone())));
        let rest = Rest {
            metadata: Arc::clone(&endpoint.metadata),
            locality: endpoint.locality.clone(),
            reach,
        };
        let near = self.rest.iter().enumerate().rev().take(NEAR);
        let known = near.into_iter().find(|(_, one)| **one == rest);
        let at = known.map_or(self.rest.len(), |(at, _)| at);
        if at == self.rest.len() {
            self.rest.push(rest);
        }
        u64::try_from(at).unwrap_or(u64::MAX)
    }

    pub(crate) fn end(self) -> Packed {
        Packed {
            bytes: self.bytes.into(),
            rest: self.rest.into(),
        }
    }
}

/// Reads what a [`Writer`] wrote; `None` behind its end.
#[derive(Debug)]
pub(crate) struct Reader<'p> {
    bytes: &'p [u8],
    rest: &'p [Rest],
}

impl<'p> Reader<'p> {
    pub(crate) fn number(&mut self) -> Option<u64> {
        decode_varint(&mut self.bytes).ok()
    }

    pub(crate) fn text(&mut self) -> Option<&'p str> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, behind) = self.bytes.split_at_checked(length)?;
        self.bytes = behind;
        std::str::from_utf8(text).ok()
    }

    pub(crate) fn set(&mut self, id: &str) -> Option<ServiceSet> {
        let head = self.number()?;
        let mut set = ServiceSet::default();
        if head & 1 == 0 {
            set.port = u16::try_from(self.number()?).ok()?;
            set.protocol = self.text()?.parse().ok()?;
        }
        let count = usize::try_from(head >> 1).ok()?;
        set.endpoints.reserve_exact(count.min(self.bytes.len()));
        for _ in 0..count {
            breath::take();
            set.endpoints.push(self.endpoint(id)?);
        }
        Some(set)
    }

    fn endpoint(&mut self, id: &str) -> Option<Endpoint> {
        let [head] = self.array()?;
        let id = if head & NAMED == 0 { id } else { self.text()? };
        let address = self.address(head)?;
        let weight = match head & WEIGHT {
            0 => 1,
            _ => u32::try_from(self.number()?).ok()?,
        };
        let priority = match head & PRIORITY {
            0 => 0,
            _ => u16::try_from(self.number()?).ok()?,
        };
        let rest = self.rest.get(usize::try_from(self.number()?).ok()?)?;
        let (host, tunnel) = rest.reach.as_deref().cloned().unwrap_or_default();
        Some(Endpoint {
            id: Arc::from(id),
            address,
            health: health_of(head & HEALTH)?,
            weight,
            priority,
            locality: rest.locality.clone(),
            metadata: Arc::clone(&rest.metadata),
            host,
            tunnel,
        })
    }

    fn address(&mut self, head: u8) -> Option<Address> {
        if head & HOST != 0 {
            let host = Arc::from(self.text()?);
            let port = u16::from_be_bytes(self.array()?);
            return Some(Address::Host { host, port });
        }
        let at = if head & V6 == 0 {
            let ip = Ipv4Addr::from(self.array::<4>()?);
            SocketAddr::from((ip, u16::from_be_bytes(self.array()?)))
        } else {
            let ip = Ipv6Addr::from(self.array::<16>()?);
            let flow = u32::try_from(self.number()?).ok()?;
            let scope = u32::try_from(self.number()?).ok()?;
            let port = u16::from_be_bytes(self.array()?);
            SocketAddrV6::new(ip, port, flow, scope).into()
        };
        Some(Address::Socket(at))
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, behind) = self.bytes.split_first_chunk()?;
        self.bytes = behind;
        Some(*array)
    }
}

fn health_code(health: Health) -> u8 {
    match health {
        Health::Unknown => 0,
        Health::Healthy => 1,
        Health::Degraded => 2,
        Health::Draining => 3,
        Health::Unhealthy => 4,
    }
}

fn health_of(code: u8) -> Option<Health> {
    Some(match code {
        0 => Health::Unknown,
        1 => Health::Healthy,
        2 => Health::Degraded,
        3 => Health::Draining,
        4 => Health::Unhealthy,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
