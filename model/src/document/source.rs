//! Matches of our own kinds: which requests, and from whom.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::route::{HttpMatch, PathMatchSpec, ValueMatchSpec};

/// Requests that a limit or a fault is about: the words of an HTTPRoute's match, and who calls. All given
/// conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CallMatch {
    /// Every path unless given.
    #[serde(default)]
    pub path: Option<PathMatchSpec>,
    /// Headers; of several entries of one name only the first counts.
    #[serde(default)]
    pub headers: Vec<ValueMatchSpec>,
    /// Query parameters; of several entries of one name only the first counts.
    #[serde(default)]
    pub query_params: Vec<ValueMatchSpec>,
    /// The method.
    #[serde(default)]
    pub method: Option<String>,
    /// Who calls.
    #[serde(default)]
    pub source: Option<SourceSpec>,
}

impl CallMatch {
    /// The part that an HTTPRoute could say too.
    pub fn http(&self) -> HttpMatch {
        HttpMatch {
            path: self.path.clone(),
            headers: self.headers.clone(),
            query_params: self.query_params.clone(),
            method: self.method.clone(),
        }
    }
}

/// Who calls: all given lists must hold, one entry of each is enough.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceSpec {
    /// Services, `name` (of the document's namespace) or `namespace/name`.
    #[serde(default)]
    pub services: Vec<String>,
    /// Namespaces.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Labels that the caller's workload carries, all of them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Addresses, or ranges such as `10.0.0.0/8`.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// What a policy of ours acts on: a service of its own namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetReference {
    /// `""`, or left out.
    #[serde(default)]
    pub group: Option<String>,
    /// `Service`, or left out.
    #[serde(default)]
    pub kind: Option<String>,
    /// The service's name.
    pub name: String,
    /// One port of it by name; all unless set.
    #[serde(default)]
    pub section_name: Option<String>,
    /// One port of it by number; all unless set.
    #[serde(default)]
    pub port: Option<u16>,
}
