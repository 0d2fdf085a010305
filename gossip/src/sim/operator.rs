//! Operators who make edits, and the simple documents that they write.
//!
//! A document is one line: `service NAMESPACE NAME VALUE`, `revoke-operator NAME KEY` or `revoke-host NAME ID`.

use mesh_model::{
    catalog::{Catalog, ResourceKey},
    commit::{Change, Commit, CommitId, Op},
    document::{
        Document, Metadata, Spec,
        spec::{RevocationSpec, ServiceSpec},
    },
    grant::{Signed, domain},
};
use prost::Message;

use super::keys::Keys;

/// Reads one of the simple documents.
pub fn parse(text: &str) -> Option<Document> {
    let words: Vec<&str> = text.split(' ').collect();
    let revocation = |name: &str, spec| (String::new(), name.to_owned(), "Revocation", "", spec);
    let (namespace, name, kind, value, spec) = match words.as_slice() {
        ["service", namespace, name, value] => (
            (*namespace).to_owned(),
            (*name).to_owned(),
            "Service",
            *value,
            Spec::Service(ServiceSpec::default()),
        ),
        ["revoke-operator", name, key] => {
            let spec = RevocationSpec {
                operator_key: Some((*key).to_owned()),
                host: None,
            };
            revocation(name, Spec::Revocation(spec))
        }
        ["revoke-host", name, id] => {
            let spec = RevocationSpec {
                operator_key: None,
                host: Some((*id).to_owned()),
            };
            revocation(name, Spec::Revocation(spec))
        }
        _ => return None,
    };
    let labels = [("value".to_owned(), value.to_owned())].into();
    Some(Document {
        api_version: "meshd.io/v1alpha1".to_owned(),
        kind: kind.to_owned(),
        metadata: Metadata {
            name,
            namespace,
            labels,
            ..Metadata::default()
        },
        spec,
        reports: Vec::new(),
        json: <_>::default(),
    })
}

/// The value that a service document carries.
pub fn value_of(document: &Document) -> &str {
    document
        .metadata
        .labels
        .get("value")
        .map_or("", String::as_str)
}

/// An edit in the making.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The commit.
    pub commit: Commit,
}

/// A service in the namespace `shop`.
pub fn shop(name: &str) -> ResourceKey {
    ResourceKey {
        kind: "Service".to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

impl Draft {
    /// An edit at `time_ms` with a client's id.
    pub fn new(keys: &Keys, operator: usize, time_ms: u64, edit: u64) -> Self {
        let mut edit_id = edit.to_le_bytes().to_vec();
        edit_id.resize(16, 0);
        Self {
            commit: Commit {
                mesh_id: keys.mesh.0.to_vec(),
                author_grant: keys.operator_grant(operator).encode_to_vec(),
                hlc: time_ms << 16,
                edit_id,
                ..Commit::default()
            },
        }
    }
    /// Adds a change.
    #[must_use]
    pub fn change(mut self, key: &ResourceKey, bases: &[CommitId], op: Op, document: &str) -> Self {
        self.commit.changes.push(Change {
            kind: key.kind.clone(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            bases: bases.iter().map(|base| base.0.to_vec()).collect(),
            op: op.into(),
            document: document.as_bytes().to_vec(),
        });
        self
    }
    /// Creates or replaces a service.
    #[must_use]
    pub fn put(self, key: &ResourceKey, bases: &[CommitId], value: &str) -> Self {
        let document = format!("service {} {} {value}", key.namespace, key.name);
        self.change(key, bases, Op::Put, &document)
    }
    /// Makes it undo itself.
    #[must_use]
    pub fn confirm_by(mut self, time_ms: u64) -> Self {
        self.commit.confirm_by_ms = time_ms;
        self
    }
    /// Puts the clock above the commits that it is based on.
    #[must_use]
    pub fn above(mut self, hlc: u64) -> Self {
        self.commit.hlc = self.commit.hlc.max(hlc + 1);
        self
    }
    /// Signs it.
    pub fn sign(&self, keys: &Keys, operator: usize) -> Signed {
        keys.operators[operator].sign(domain::COMMIT, self.commit.encode_to_vec())
    }
}

/// The revisions of a resource that a client sees, and the highest clock among them.
pub fn seen(catalog: &Catalog, key: &ResourceKey) -> (Vec<CommitId>, u64) {
    let Some(resource) = catalog.resources.get(key) else {
        return (Vec::new(), 0);
    };
    let mut bases = vec![resource.revision];
    bases.extend(resource.conflicts.iter().map(|(id, _)| *id));
    (bases, resource.changed_ms << 16 | 0xffff)
}
