//! The whole set of one service, as a source says it, within its bounds. Pure.

use mesh_model::{endpoint::Endpoint, service::AppProtocol};

/// Most endpoints of one service; a larger set is refused and the last good one stays.
pub const MAX_ENDPOINTS: usize = 10_000;
/// Most bytes of metadata of one endpoint.
pub const MAX_METADATA: usize = 4_096;

/// The whole set of one service, from one authoritative read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceSet {
    /// The port that callers dial; 0: the endpoints' common port.
    pub port: u16,
    /// What is spoken there.
    pub protocol: AppProtocol,
    /// The endpoints; any order, ids unique (of equal ids the last one counts).
    pub endpoints: Vec<Endpoint>,
}

impl From<Vec<Endpoint>> for ServiceSet {
    fn from(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints,
            ..Self::default()
        }
    }
}

impl ServiceSet {
    /// Sorted by id without doubles, so that equal sets compare equal; or why it is refused.
    pub(crate) fn normalised(mut self) -> Result<Self, String> {
        self.endpoints.sort_by(|one, other| one.id.cmp(&other.id));
        self.endpoints.dedup_by(|later, kept| {
            let same = later.id == kept.id;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        if self.endpoints.len() > MAX_ENDPOINTS {
            return Err(format!(
                "{} endpoints, at most {MAX_ENDPOINTS} are taken",
                self.endpoints.len()
            ));
        }
        for endpoint in &self.endpoints {
            let size: usize = endpoint
                .metadata
                .iter()
                .map(|(key, value)| key.len() + value.len())
                .sum();
            if size > MAX_METADATA {
                return Err(format!(
                    "endpoint {} has {size} bytes of metadata, at most {MAX_METADATA} are taken",
                    endpoint.id
                ));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn of_equal_ids_the_last_counts() {
        let of = |port: u16, id: &str| Endpoint {
            id: Arc::from(id),
            ..crate::fake::endpoint(port)
        };
        let said = vec![of(1, "b"), of(2, "a"), of(3, "b"), of(4, "b"), of(5, "c")];
        let set = ServiceSet::from(said).normalised().unwrap();
        let wanted = [of(2, "a"), of(4, "b"), of(5, "c")];
        assert_eq!(set.endpoints, wanted);
    }
}
