//! Hosts whose rights were taken back, by any document that says so.

use std::collections::BTreeSet;

use mesh_model::{catalog::Catalog, document::Spec, name::HostId};

/// Hosts whose rights were taken back.
pub(crate) fn revoked(catalog: &Catalog) -> BTreeSet<HostId> {
    catalog
        .of_kind("Revocation")
        .flat_map(|(_, resource)| {
            std::iter::once(&resource.document)
                .chain(resource.conflicts.iter().map(|(_, document)| document))
        })
        .filter_map(|document| match &document.spec {
            Spec::Revocation(revocation) => revocation.host.as_ref()?.parse().ok(),
            _ => None,
        })
        .collect()
}
