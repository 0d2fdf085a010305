//! Where endpoints are, and how far that is from this host.
//!
//! A workload is where its host is; a registry's endpoint where its labels say (`region`, `zone`, `sub-zone`, or
//! Kubernetes' `topology.kubernetes.io/region` and `/zone`). This host is where its own configuration says.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{endpoint::Locality, fact::HostInfo};

/// Farthest, or not known of both.
const FAR: u8 = 2;

fn part(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| Arc::from(text))
}

fn known(locality: Locality) -> Option<Arc<Locality>> {
    (locality != Locality::default()).then(|| Arc::new(locality))
}

/// Where a host says that it is.
pub(crate) fn of_host(info: Option<&HostInfo>) -> Option<Arc<Locality>> {
    let info = info?;
    known(Locality {
        region: part(&info.region),
        zone: part(&info.zone),
        sub_zone: part(&info.sub_zone),
    })
}

/// Where a registry says that an endpoint is.
pub(crate) fn of_labels(labels: &BTreeMap<String, String>) -> Option<Arc<Locality>> {
    let said = |keys: &[&str]| {
        let found = keys.iter().find_map(|key| labels.get(*key));
        found.and_then(|text| part(text))
    };
    known(Locality {
        region: said(&["region", "topology.kubernetes.io/region"]),
        zone: said(&["zone", "topology.kubernetes.io/zone"]),
        sub_zone: said(&["sub-zone"]),
    })
}

/// 0: same zone, 1: same region, 2: anywhere else, or unknown to either. A zone without a region counts for
/// itself, since names of zones are unique where people leave regions out.
pub(crate) fn distance(own: &Locality, other: Option<&Arc<Locality>>) -> u8 {
    let Some(other) = other else { return FAR };
    if own.region != other.region {
        return FAR;
    }
    match (&own.zone, &other.zone) {
        (Some(own), Some(other)) if own == other => 0,
        _ if own.region.is_some() => 1,
        _ => FAR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Locality {
        let mut parts = text.split('/').map(part);
        Locality {
            region: parts.next().flatten(),
            zone: parts.next().flatten(),
            sub_zone: parts.next().flatten(),
        }
    }

    #[test]
    fn distances() {
        for (own, other, wanted) in [
            ("eu/eu-1/r1", "eu/eu-1/r1", 0),
            ("eu/eu-1/r1", "eu/eu-1/r2", 0),
            ("eu/eu-1", "eu/eu-1", 0),
            ("eu/eu-1", "eu/eu-2", 1),
            ("eu/eu-1", "eu", 1),
            ("eu", "eu", 1),
            ("eu/a", "us/a", 2),
            ("/a", "/a", 0),
            ("/a", "/b", 2),
            ("", "", 2),
            ("", "eu/a", 2),
            ("eu/a", "", 2),
        ] {
            let other = known(at(other));
            assert_eq!(
                distance(&at(own), other.as_ref()),
                wanted,
                "{own} {other:?}"
            );
        }
    }

    #[test]
    fn labels_of_registries() {
        let labels = |pairs: &[(&str, &str)]| {
            let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            of_labels(&pairs.iter().map(own).collect()).map(|found| (*found).clone())
        };
        assert_eq!(labels(&[("version", "v1")]), None);
        assert_eq!(
            labels(&[("region", "eu"), ("zone", "eu-1")]),
            Some(at("eu/eu-1"))
        );
        assert_eq!(
            labels(&[("topology.kubernetes.io/zone", "z")]),
            Some(at("/z"))
        );
    }
}
