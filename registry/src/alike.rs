//! Labels of facts: those that many endpoints have alike are kept once.
//!
//! In: what endpoints carry, and where they are. Out: the labels of their facts. Never: remembers more than a
//! bounded number of different ones.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    endpoint::{Endpoint, Locality},
    labels::Labels,
    snapshot::Map,
};

/// Most different ones that are remembered.
const MOST: usize = 4_096;

/// What labels are made from.
type Parts = (Arc<BTreeMap<String, String>>, Option<Arc<Locality>>);

/// The labels of one source's facts.
#[derive(Debug, Default)]
pub(crate) struct Alike {
    known: Map<Parts, Labels>,
    /// Those of the last endpoint: neighbours often have the same.
    last: Option<(Parts, Labels)>,
    /// Labels that found no room since it was made.
    missed: usize,
}

impl Alike {
    /// The labels of an endpoint's fact: its metadata, and where it is.
    pub(crate) fn of(&mut self, endpoint: &Endpoint) -> Labels {
        if let Some(((metadata, locality), labels)) = &self.last
            && Arc::ptr_eq(metadata, &endpoint.metadata)
            && same(locality.as_ref(), endpoint.locality.as_ref())
        {
            return labels.clone();
        }
        let parts = (Arc::clone(&endpoint.metadata), endpoint.locality.clone());
        let labels = self.met(&parts);
        self.last = Some((parts, labels.clone()));
        labels
    }

    fn met(&mut self, parts: &Parts) -> Labels {
        if let Some(labels) = self.known.get(parts) {
            return labels.clone();
        }
        let labels = made(parts);
        if self.known.len() >= MOST {
            self.missed += 1;
            if self.missed >= MOST {
                // Those that no fact has any longer make room.
                self.known
                    .retain(|(metadata, _), labels| is_used(metadata, labels));
                self.missed = 0;
            }
        }
        if self.known.len() < MOST {
            self.known.insert(parts.clone(), labels.clone());
        }
        labels
    }
}

/// True when a fact has these labels. They may be the metadata themselves, which stand in the key too.
fn is_used(metadata: &Arc<BTreeMap<String, String>>, labels: &Labels) -> bool {
    let is_metadata = std::ptr::eq(&raw const **labels, Arc::as_ptr(metadata));
    if is_metadata {
        Arc::strong_count(metadata) > 2
    } else {
        labels.is_shared()
    }
}

fn same(one: Option<&Arc<Locality>>, other: Option<&Arc<Locality>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

fn made((metadata, locality): &Parts) -> Labels {
    let Some(locality) = locality else {
        return Arc::clone(metadata).into();
    };
    let mut labels = (**metadata).clone();
    let places = [
        ("region", &locality.region),
        ("zone", &locality.zone),
        ("sub-zone", &locality.sub_zone),
    ];
    for (label, place) in places {
        if let Some(place) = place {
            labels
                .entry(label.to_owned())
                .or_insert_with(|| place.to_string());
        }
    }
    labels.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::endpoint;

    fn labelled(number: usize, zone: Option<&str>) -> Endpoint {
        let locality = zone.map(|zone| {
            Arc::new(Locality {
                zone: Some(Arc::from(zone)),
                ..Locality::default()
            })
        });
        let metadata = BTreeMap::from([("number".to_owned(), number.to_string())]);
        Endpoint {
            metadata: Arc::new(metadata),
            locality,
            ..endpoint(1)
        }
    }

    #[test]
    fn equal_ones_are_one() {
        let mut alike = Alike::default();
        for zone in [None, Some("a")] {
            let one = alike.of(&labelled(1, zone));
            let _between = alike.of(&labelled(2, zone));
            let other = alike.of(&labelled(1, zone));
            assert!(std::ptr::eq(&raw const *one, &raw const *other));
            assert_eq!(one.get("zone").map(String::as_str), zone);
            assert_eq!(one.get("number").map(String::as_str), Some("1"));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_makes_room() {
        for zone in [None, Some("a")] {
            let mut alike = Alike::default();
            let kept: Vec<Labels> = (0..3).map(|one| alike.of(&labelled(one, zone))).collect();
            for number in 0..3 * MOST {
                alike.of(&labelled(number, zone));
                assert!(alike.known.len() <= MOST, "{number}");
            }
            for (number, old) in kept.iter().enumerate() {
                let again = alike.of(&labelled(number, zone));
                assert!(
                    std::ptr::eq(&raw const **old, &raw const *again),
                    "{number}"
                );
            }
        }
    }
}
