//! All facts known, merged: the value that gossip yields and `plan` reads.
//!
//! Everything in it has been verified. It is immutable and shared by `Arc`; equal inputs give equal
//! catalogs on every host.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    commit::CommitId,
    document::Document,
    fact::{HostInfo, RegistryView, ResourceStatus, Workload},
    grant::{AuthorityGrant, HostGrant, OperatorGrant},
    name::{HostId, MeshId, Namespace},
};

pub use crate::document::ResourceKey;

/// Whether a host answers, by the membership. A hint: it ejects endpoints and deletes nothing.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// Not heard of since this daemon started; treated as alive until probed.
    #[default]
    Unknown,
    /// Answers.
    Alive,
    /// Did not answer a probe; still used.
    Suspect,
    /// Confirmed down.
    Down,
    /// Said goodbye.
    Left,
}

/// What is known of one host.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostFacts {
    /// Its rights; `None` while its grant has not arrived (then its facts are not used).
    pub grant: Option<Arc<HostGrant>>,
    /// Whether it answers.
    pub liveness: Liveness,
    /// Incarnation and sequence of its newest head.
    pub version: (u32, u64),
    /// Its lease, milliseconds since the epoch.
    pub lease_until_ms: u64,
    /// True after its goodbye.
    pub leaving: bool,
    /// Fingerprint of the commits that it has.
    pub commits: [u8; 16],
    /// Number of commits that it has.
    pub commit_count: u64,
    /// What it says of itself.
    pub info: Option<Arc<HostInfo>>,
    /// Its programs, by record key.
    pub workloads: BTreeMap<String, Arc<Workload>>,
    /// Its registry views, by record key.
    pub views: BTreeMap<String, Arc<RegistryView>>,
    /// Its view of resources, by record key.
    pub statuses: BTreeMap<String, Arc<ResourceStatus>>,
}

impl HostFacts {
    /// True while it is expected to answer: it has not said goodbye, and nobody found it down.
    pub fn is_living(&self) -> bool {
        !self.leaving && !matches!(self.liveness, Liveness::Down | Liveness::Left)
    }
}

/// A resource as it stands now.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// The document in force: of several concurrent ones the deterministic winner.
    pub document: Arc<Document>,
    /// The commit that made it.
    pub revision: CommitId,
    /// Time of the resource's first commit, milliseconds since the epoch.
    pub created_ms: u64,
    /// Time of `revision`, milliseconds since the epoch.
    pub changed_ms: u64,
    /// Who made `revision`.
    pub author: Arc<str>,
    /// Other documents that were committed on the same base and not merged yet, with their revisions.
    pub conflicts: Vec<(CommitId, Arc<Document>)>,
    /// When not 0, it undoes itself then unless confirmed (milliseconds since the epoch).
    pub confirm_by_ms: u64,
}

/// All facts known. See the module's text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalog {
    /// Grows with each change seen by this host; not comparable between hosts.
    pub version: u64,
    /// The mesh, once joined.
    pub mesh: Option<MeshFacts>,
    /// Hosts by id.
    pub hosts: BTreeMap<HostId, Arc<HostFacts>>,
    /// Operators' resources.
    pub resources: BTreeMap<ResourceKey, Arc<Resource>>,
    /// Living authorities.
    pub authorities: Vec<Arc<AuthorityGrant>>,
    /// Operators, the revoked ones left out.
    pub operators: Vec<Arc<OperatorGrant>>,
    /// Fingerprint of all commits known here.
    pub commits: [u8; 16],
    /// Number of commits known here.
    pub commit_count: u64,
    /// This host's own view of its registries, by source and service: never published.
    pub local_views: BTreeMap<String, Arc<RegistryView>>,
}

/// What the genesis says, as types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshFacts {
    /// The mesh.
    pub id: MeshId,
    /// Name for people.
    pub name: Arc<str>,
    /// Trust domain of its identities.
    pub trust_domain: crate::principal::TrustDomain,
    /// DNS domain of service names.
    pub domain: Arc<str>,
    /// This host.
    pub host: HostId,
    /// True when plaintext is refused and calls are denied unless allowed.
    pub strict: bool,
    /// X.509 roots (DER) of the own trust domain.
    pub roots: Vec<Arc<[u8]>>,
}

impl Catalog {
    /// Resources of one kind, in order.
    pub fn of_kind<'a>(
        &'a self,
        kind: &'a str,
    ) -> impl Iterator<Item = (&'a ResourceKey, &'a Arc<Resource>)> {
        self.resources
            .iter()
            .filter(move |(key, _)| key.kind == kind)
    }
    /// The namespaces that exist because something is in them.
    pub fn namespaces(&self) -> Vec<Namespace> {
        let mut all: Vec<Namespace> = self
            .hosts
            .values()
            .flat_map(|host| host.workloads.values())
            .filter_map(|workload| Namespace::new(&workload.namespace).ok())
            .collect();
        all.sort();
        all.dedup();
        all
    }
}
