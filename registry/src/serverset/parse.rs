//! Members of server sets to endpoints: pure, and nothing in one can fail the others.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::endpoint::{Endpoint, Health};
use serde::Deserialize;

use crate::{
    place::{self, address, fitting},
    zookeeper::tree::{Member, Members, Selector, Sets},
};

/// A weight of 1.0.
const ONE: f64 = 100.0;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    #[serde(default)]
    service_endpoint: Option<Place>,
    #[serde(default)]
    additional_endpoints: Option<BTreeMap<String, Place>>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    shard: Option<i64>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Place {
    host: String,
    port: u16,
}

/// `{"serviceEndpoint":{"host","port"},"additionalEndpoints":{…},"status":"ALIVE","shard":3}`.
pub(super) fn member(name: &str, data: &[u8]) -> Result<Member, String> {
    let node: Node = serde_json::from_slice(data).map_err(|error| error.to_string())?;
    let mut metadata = node.metadata.unwrap_or_default();
    if let Some(shard) = node.shard {
        metadata.insert("shard".into(), shard.to_string());
    }
    let metadata = fitting(metadata);
    let locality = place::locality_in(&metadata);
    let metadata = Arc::new(metadata);
    let endpoint = |place: &Place| {
        let address = address(&place.host, place.port)
            .ok_or_else(|| format!("{}:{} cannot be dialled", place.host, place.port))?;
        Ok::<_, String>(Endpoint {
            health: health(node.status.as_deref()),
            locality: locality.clone(),
            metadata: Arc::clone(&metadata),
            ..place::endpoint(name, address)
        })
    };
    let mut endpoints = Vec::new();
    if let Some(place) = &node.service_endpoint {
        endpoints.push((None, endpoint(place)?));
    }
    for (port, place) in node.additional_endpoints.iter().flatten() {
        endpoints.push((Some(Arc::from(port.as_str())), endpoint(place)?));
    }
    if endpoints.is_empty() {
        return Err("it names no endpoint".into());
    }
    Ok(Member {
        endpoints,
        weights: Vec::new(),
    })
}

fn health(status: Option<&str>) -> Health {
    match status {
        Some("ALIVE") => Health::Healthy,
        None | Some("UNKNOWN") => Health::Unknown,
        Some("STOPPING") => Health::Draining,
        Some(_) => Health::Unhealthy,
    }
}

#[derive(Deserialize)]
struct Vector {
    vector: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    #[serde(default)]
    select: String,
    #[serde(default)]
    weight: Option<f64>,
}

/// `{"vector":[{"select":"shard=3","weight":1.5,"priority":1}]}`.
pub(super) fn vector(data: &[u8]) -> Result<Member, String> {
    let vector: Vector = serde_json::from_slice(data).map_err(|error| error.to_string())?;
    let one = |one: Descriptor| {
        let weight = one.weight.unwrap_or(1.0);
        let (word, which) = one.select.split_once('=')?;
        let which = Arc::from(which);
        let selector = match word {
            "member" => Selector::Member(which),
            "shard" => Selector::Shard(which),
            "inet" => Selector::Address(which),
            _ => return None,
        };
        weight.is_finite().then_some((selector, weight.max(0.0)))
    };
    Ok(Member {
        endpoints: Vec::new(),
        weights: vector.vector.into_iter().filter_map(one).collect(),
    })
}

/// The set of each port. Weights multiply; a weight of nothing drains.
pub(super) fn sets(members: &Members) -> Sets {
    let weights: Vec<&(Selector, f64)> = members
        .values()
        .flatten()
        .flat_map(|one| &one.weights)
        .collect();
    let mut sets = Sets::new();
    for (port, endpoint) in members.values().flatten().flat_map(|one| &one.endpoints) {
        let mut endpoint = endpoint.clone();
        if !weights.is_empty() {
            let given = |(selector, _): &&&(Selector, f64)| selects(selector, &endpoint);
            let weight: f64 = weights
                .iter()
                .filter(given)
                .map(|(_, weight)| weight)
                .product();
            if weight == 0.0 && endpoint.health.is_routable() {
                endpoint.health = Health::Draining;
            }
            endpoint.weight = scaled(weight);
        }
        sets.entry(port.clone()).or_default().push(endpoint);
    }
    sets
}

fn selects(selector: &Selector, endpoint: &Endpoint) -> bool {
    match selector {
        Selector::Member(name) => *name == endpoint.id,
        Selector::Shard(shard) => endpoint
            .metadata
            .get("shard")
            .is_some_and(|own| **own == **shard),
        Selector::Address(place) => endpoint.address.to_string() == **place,
    }
}

fn scaled(weight: f64) -> u32 {
    let scaled = (weight * ONE).round().clamp(1.0, 1e9);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it was clamped"
    )]
    {
        scaled as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIVE: &str = r#"{"serviceEndpoint":{"host":"10.0.0.1","port":8080},"additionalEndpoints":
        {"http":{"host":"10.0.0.1","port":8081},"admin":{"host":"Web.Example","port":9990}},"status":"ALIVE","shard":3}"#;

    fn read(text: &str) -> Result<Member, String> {
        member("member_0000000012", text.as_bytes())
    }

    #[test]
    fn a_member_is_mapped() {
        let found = read(ALIVE).unwrap();
        let all: Vec<_> = found
            .endpoints
            .iter()
            .map(|(port, one)| (port.as_deref(), one.address.to_string(), one.health))
            .collect();
        assert_eq!(
            all,
            [
                (None, "10.0.0.1:8080".to_owned(), Health::Healthy),
                (
                    Some("admin"),
                    "web.example:9990".to_owned(),
                    Health::Healthy
                ),
                (Some("http"), "10.0.0.1:8081".to_owned(), Health::Healthy),
            ]
        );
        assert_eq!(found.endpoints[0].1.metadata["shard"], "3");
        assert_eq!(&*found.endpoints[0].1.id, "member_0000000012");
        for (status, health) in [
            ("\"DEAD\"", Health::Unhealthy),
            ("\"WARNING\"", Health::Unhealthy),
            ("\"STOPPING\"", Health::Draining),
            ("null", Health::Unknown),
        ] {
            let found = read(&ALIVE.replace("\"ALIVE\"", status)).unwrap();
            assert_eq!(found.endpoints[0].1.health, health, "{status}");
        }
        assert_eq!(
            read(r#"{"serviceEndpoint":{"host":"::1","port":1}}"#)
                .unwrap()
                .endpoints[0]
                .1
                .address
                .to_string(),
            "[::1]:1"
        );
    }

    #[test]
    fn what_is_none_is_told() {
        for end in 0..ALIVE.len() {
            assert!(member("m", &ALIVE.as_bytes()[..end]).is_err(), "{end}");
        }
        for text in [
            "{}",
            "[]",
            r#"{"serviceEndpoint":{"host":"a","port":0}}"#,
            r#"{"serviceEndpoint":{"host":"a","port":70000}}"#,
            r#"{"serviceEndpoint":{"host":"a b","port":1}}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        let many = format!(
            r#"{{"serviceEndpoint":{{"host":"a","port":1}},"metadata":{{"k":"{}"}}}}"#,
            "x".repeat(5_000)
        );
        assert!(read(&many).unwrap().endpoints[0].1.metadata.is_empty());
        assert!(vector(b"{}").is_err() && vector(b"\xff").is_err());
    }

    #[test]
    fn weights_multiply() {
        let of = |text: &str| Some(vector(text.as_bytes()).unwrap());
        let mut members = Members::new();
        for (name, shard) in [("member_1", 1), ("member_2", 2), ("member_3", 3)] {
            let text = format!(
                r#"{{"serviceEndpoint":{{"host":"10.0.0.1","port":{shard}}},"shard":{shard}}}"#
            );
            members.insert(
                Arc::from(name),
                Some(member(name, text.as_bytes()).unwrap()),
            );
        }
        members.insert(
            Arc::from("vector_1"),
            of(r#"{"vector":[{"select":"shard=2","weight":2.5,"priority":1},{"select":"inet=10.0.0.1:3","weight":0},{"select":"?"}]}"#),
        );
        members.insert(
            Arc::from("vector_2"),
            of(r#"{"vector":[{"select":"member=member_2","weight":2}]}"#),
        );
        let found: Vec<_> = sets(&members)[&None]
            .iter()
            .map(|one| (one.weight, one.health))
            .collect();
        assert_eq!(
            found,
            [
                (100, Health::Unknown),
                (500, Health::Unknown),
                (1, Health::Draining)
            ]
        );
    }

    #[test]
    fn broken_bytes_are_told_and_nothing_panics() {
        let mut dice = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut bytes = ALIVE.as_bytes().to_vec();
            for _ in 0..dice.usize(1..4) {
                let at = dice.usize(..bytes.len());
                bytes[at] = dice.u8(..);
            }
            let _told = (member("member_1", &bytes), vector(&bytes));
        }
    }
}
