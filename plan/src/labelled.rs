//! What the labels of a service's registry endpoints come to, found out once for each distinct set of them.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{endpoint::Locality, name::ServiceName, snapshot::Map};

use crate::{locality, world::labels};

/// Labels as an endpoint gets them, and where they say that it is.
type Meaning = (Arc<BTreeMap<String, String>>, Option<Arc<Locality>>);

/// The distinct label sets of one service.
#[derive(Debug)]
pub(crate) struct Labelled<'a> {
    service: &'a ServiceName,
    met: Map<&'a BTreeMap<String, String>, Meaning>,
}

impl<'a> Labelled<'a> {
    /// None met yet.
    pub(crate) fn new(service: &'a ServiceName) -> Self {
        Self {
            service,
            met: Map::default(),
        }
    }

    /// The endpoint's labels, and where it is by them.
    pub(crate) fn of(&mut self, stated: &'a BTreeMap<String, String>) -> Meaning {
        let meaning = self
            .met
            .entry(stated)
            .or_insert_with(|| (labels(stated, self.service), locality::of_labels(stated)));
        meaning.clone()
    }
}
