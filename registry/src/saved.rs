//! Views to bytes and back, so that a restart during an outage of the registry still routes.
//!
//! In: facts. Out: bytes that the caller stores, and back. Never: touches a disk.

use std::sync::Arc;

use mesh_model::{
    address::Address,
    endpoint::{Endpoint, Health, ServiceKey},
    fact::{RegistryView, ViewEndpoint, WireHealth},
    name::{Namespace, ServiceName},
    service::AppProtocol,
};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len, message},
};

use crate::{breath, sink::ServiceSet};

/// Saved views older than this are not used: 24 hours.
pub(crate) const MAX_AGE_MS: u64 = 24 * 3600 * 1000;
/// The format that this version writes and reads.
const FORMAT: u32 = 1;
/// The tags of [`Saved::views`], of [`SavedView::view`] and of [`RegistryView::endpoints`].
const VIEWS: u32 = 3;
const VIEW: u32 = 1;
const ENDPOINTS: u32 = 4;

#[derive(Clone, PartialEq, Message)]
struct Saved {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(uint64, tag = "2")]
    written_ms: u64,
    #[prost(message, repeated, tag = "3")]
    views: Vec<SavedView>,
    #[prost(fixed64, tag = "4")]
    checksum: u64,
}

/// A view with the part of its key that a fact does not carry.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SavedView {
    #[prost(message, optional, tag = "1")]
    pub(crate) view: Option<RegistryView>,
    #[prost(string, tag = "2")]
    pub(crate) port_name: String,
}

/// Why saved bytes are not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Not ours, cut off or changed.
    #[error("saved views are damaged")]
    Damaged,
    /// Written by another version.
    #[error("saved views have format {0}, this version reads {FORMAT}")]
    Format(u32),
    /// Older than 24 hours.
    #[error("saved views are {} h old, at most 24 are used", .0 / 3_600_000)]
    Old(u64),
}

/// The views as bytes, each with the name of its port.
pub(crate) fn save(views: &[(Arc<RegistryView>, String)], now_ms: u64) -> Vec<u8> {
    let head = Saved {
        format: FORMAT,
        written_ms: now_ms,
        ..Saved::default()
    };
    let mut bytes = head.encode_to_vec();
    for (view, port_name) in views {
        write(view, port_name, &mut bytes);
    }
    // The last field, and without it nothing else is different.
    let tail = Saved {
        checksum: checksum(&bytes),
        ..Saved::default()
    };
    bytes.extend(tail.encode_to_vec());
    bytes
}

/// Appends a view as a [`SavedView`], byte for byte as its own encoding, but without a copy of it and with pauses:
/// there may be very many endpoints.
fn write(view: &RegistryView, port_name: &str, bytes: &mut Vec<u8>) {
    let before = RegistryView {
        source: view.source.clone(),
        namespace: view.namespace.clone(),
        service: view.service.clone(),
        ..RegistryView::default()
    };
    let behind = RegistryView {
        protocol: view.protocol.clone(),
        port: view.port,
        ..RegistryView::default()
    };
    let tail = SavedView {
        view: None,
        port_name: port_name.to_owned(),
    };
    let paused = || view.endpoints.iter().inspect(|_| breath::take());
    let endpoints: usize = paused()
        .map(|one| message::encoded_len(ENDPOINTS, one))
        .sum();
    let inner = before.encoded_len() + endpoints + behind.encoded_len();
    let outer = key_len(VIEW) + encoded_len_varint(size(inner)) + inner + tail.encoded_len();
    bytes.reserve(outer + 16);
    encode_key(VIEWS, WireType::LengthDelimited, bytes);
    encode_varint(size(outer), bytes);
    encode_key(VIEW, WireType::LengthDelimited, bytes);
    encode_varint(size(inner), bytes);
    bytes.extend(before.encode_to_vec());
    paused().for_each(|one| message::encode(ENDPOINTS, one, bytes));
    bytes.extend(behind.encode_to_vec());
    bytes.extend(tail.encode_to_vec());
}

fn size(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// The views of earlier.
pub(crate) fn restore(bytes: &[u8], now_ms: u64) -> Result<Vec<SavedView>, RestoreError> {
    let mut saved = Saved::decode(bytes).map_err(|_cut| RestoreError::Damaged)?;
    let claimed = std::mem::take(&mut saved.checksum);
    if saved.format != FORMAT {
        return Err(RestoreError::Format(saved.format));
    }
    if checksum(&saved.encode_to_vec()) != claimed {
        return Err(RestoreError::Damaged);
    }
    let age = now_ms.saturating_sub(saved.written_ms);
    if age > MAX_AGE_MS {
        return Err(RestoreError::Old(age));
    }
    Ok(saved.views)
}

/// A fact back to what a source would say; `None` when a name or address no longer makes sense.
pub(crate) fn observation(saved: &SavedView) -> Option<(ServiceKey, ServiceSet)> {
    let view = saved.view.as_ref()?;
    let key = ServiceKey {
        namespace: Some(Namespace::new(&view.namespace).ok()?),
        name: ServiceName::new(&view.service).ok()?,
        port_name: Some(saved.port_name.as_str())
            .filter(|name| !name.is_empty())
            .map(Arc::from),
    };
    let endpoints = view.endpoints.iter().filter_map(observed).collect();
    let protocol = view.protocol.parse().unwrap_or(AppProtocol::Detect);
    Some((
        key,
        ServiceSet {
            port: u16::try_from(view.port).ok()?,
            protocol,
            endpoints,
        },
    ))
}

/// FNV-1a, 64 bit: against damage, not against malice (the file is the daemon's own).
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let chunks = bytes.chunks(1024).inspect(|_| breath::take());
    chunks.flatten().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// An endpoint's fact back to what a source would say; `None` when its address no longer makes sense.
pub(crate) fn observed(fact: &ViewEndpoint) -> Option<Endpoint> {
    Some(Endpoint {
        id: Arc::from(fact.id.as_str()),
        address: Address::Socket(fact.address.parse().ok()?),
        health: WireHealth::try_from(fact.health).map_or(Health::Unknown, Health::from),
        weight: fact.weight.max(1),
        priority: u16::try_from(fact.priority).unwrap_or(u16::MAX),
        locality: None,
        metadata: fact.labels.clone().into(),
        host: None,
        tunnel: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As [`save`] says them.
    fn all(views: &[SavedView]) -> Vec<(Arc<RegistryView>, String)> {
        let parts = |one: &SavedView| {
            let view = one.view.clone().unwrap_or_default();
            (Arc::new(view), one.port_name.clone())
        };
        views.iter().map(parts).collect()
    }

    fn view() -> SavedView {
        let view = RegistryView {
            source: "file/x".into(),
            namespace: "default".into(),
            service: "web".into(),
            endpoints: vec![ViewEndpoint {
                id: "a".into(),
                address: "10.0.0.1:80".into(),
                weight: 1,
                ..Default::default()
            }],
            protocol: "http".into(),
            port: 80,
        };
        SavedView {
            view: Some(view),
            port_name: "admin".into(),
        }
    }

    #[test]
    fn round_trip() {
        let bytes = save(&all(&[view()]), 1_000);
        assert_eq!(restore(&bytes, 2_000).unwrap(), [view()]);
        let (key, set) = observation(&view()).unwrap();
        assert_eq!(
            (key.name.as_str(), set.endpoints.len(), set.port),
            ("web", 1, 80)
        );
    }

    #[test]
    fn what_is_written_by_parts_is_the_plain_encoding() {
        let mut many = view();
        let one = many.view.as_mut().unwrap();
        one.endpoints = (0..300)
            .map(|number| ViewEndpoint {
                id: format!("{number}"),
                labels: std::collections::BTreeMap::from([("a".into(), "b".repeat(number))]).into(),
                weight: 1,
                ..one.endpoints[0].clone()
            })
            .collect();
        let empty = SavedView {
            view: Some(RegistryView::default()),
            port_name: String::new(),
        };
        for views in [vec![], vec![empty.clone()], vec![view(), many, empty]] {
            let mut saved = Saved {
                format: FORMAT,
                written_ms: 7,
                views: views.clone(),
                checksum: 0,
            };
            saved.checksum = checksum(&saved.encode_to_vec());
            assert_eq!(save(&all(&views), 7), saved.encode_to_vec());
        }
    }

    #[test]
    fn damage_and_age_are_noticed() {
        let bytes = save(&all(&[view()]), 1_000);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(restore(&damaged, 2_000).is_err(), "byte {at}");
        }
        assert_eq!(
            restore(&bytes, 1_000 + MAX_AGE_MS + 1),
            Err(RestoreError::Old(MAX_AGE_MS + 1))
        );
        assert!(restore(b"garbage", 0).is_err());
    }
}
