//! A resource as people write it: `apiVersion`, `kind`, `metadata`, `spec`; unknown keys refused.
//!
//! Routes are Gateway API documents, accepted unchanged; our own kinds are `meshd.io/v1alpha1`.

use std::collections::BTreeMap;

use crate::{
    finding::{Finding, Severity},
    name::Namespace,
};

/// `DestinationRule`, as written.
pub mod destination_rule;
/// `RouteRule`s of the first Istio become `VirtualService`s and `DestinationRule`s.
pub mod import;
/// The kinds, their versions, how each body is read.
mod kind;
/// `RateLimit`, `FaultInjection`, `DirectResponse`, as written.
pub mod limit;
/// Reads documents out of YAML or JSON text, every fault with its line.
pub mod parse;
/// The route kinds of Gateway API, as written.
pub mod route;
/// Discovery sources of the whole mesh.
pub mod service_source;
/// Which requests, and from whom, as our own kinds write it.
pub mod source;
/// Small values, read when the document is.
pub mod span;
/// Our own kinds, as written.
pub mod spec;
/// Whether a document means something.
mod validate;
/// `VirtualService`, as written.
pub mod virtual_service;

pub use parse::{DocumentError, parse_documents};
pub use spec::Spec;

/// The identity of a resource. Ordered by kind, namespace, name.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct ResourceKey {
    /// The kind, such as `HTTPRoute`.
    pub kind: String,
    /// The namespace; empty for resources of the mesh.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl std::fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.kind, self.name)
        } else {
            write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// `metadata` of a document.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Unique in kind and namespace.
    pub name: String,
    /// `default` unless set; always empty for kinds of the mesh.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Notes for tools; kept, not read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Set by the mesh; accepted and ignored on input (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// Set by the mesh: revision of the resource. On input: the revision that the edit is based on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Set by Kubernetes; accepted and ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Set by Kubernetes; accepted and ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Set by Kubernetes; accepted and ignored.
    #[serde(default, skip_serializing)]
    pub managed_fields: Option<serde_json::Value>,
}

/// A part of a document that is read and not carried out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Unsupported {
    /// Where, such as `spec.http[0].delegate`.
    pub path: String,
    /// Why, and what acts instead, one sentence.
    pub why: String,
}

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}

/// A checked document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// As written, such as `gateway.networking.k8s.io/v1`.
    pub api_version: String,
    /// The kind, aliases resolved (`Sidecar` is `Scope`).
    pub kind: String,
    /// Name, namespace (filled with `default`), labels.
    pub metadata: Metadata,
    /// The typed body.
    pub spec: Spec,
    /// What is read and has no equivalent in the mesh; the same for the same document.
    pub reports: Vec<Unsupported>,
    /// The whole document as JSON, keys in written order, `status` dropped: what is stored and shown.
    pub json: serde_json::Value,
}

impl Document {
    /// The identity of the resource.
    pub fn key(&self) -> ResourceKey {
        ResourceKey {
            kind: self.kind.clone(),
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone(),
        }
    }
    /// What is read and not carried out, as findings.
    pub fn reported(&self) -> Vec<Finding> {
        let subject = self.key().to_string();
        let told = |report: &Unsupported| {
            Finding::new(
                "field-without-effect",
                Severity::Note,
                subject.as_str(),
                report.to_string(),
                "write what is meant in another way, or leave it for other meshes",
            )
        };
        self.reports.iter().map(told).collect()
    }
    /// The namespace; `default` for kinds of the mesh.
    pub fn namespace(&self) -> Namespace {
        Namespace::new(&self.metadata.namespace).unwrap_or_default()
    }
}
