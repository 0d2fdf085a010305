//! The catalog, rebuilt only where something changed, and the problems that people should know of.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_model::{
    catalog::{Catalog, HostFacts, Liveness, MeshFacts, Resource, ResourceKey},
    commit::CommitId,
    document::Document,
    finding::{Finding, Severity},
    grant::{Genesis, HostGrant},
    name::{HostId, MeshId},
    principal::TrustDomain,
};

use crate::{
    commits::{
        Commits,
        graph::{Value, evaluate},
    },
    facts::facts_of,
    rights::Rights,
    store::Hosts,
};

/// What the catalog is made of, and which parts are out of date.
#[derive(Debug, Default)]
pub(crate) struct View {
    hosts: BTreeMap<HostId, Arc<HostFacts>>,
    host_findings: BTreeMap<HostId, Vec<Finding>>,
    resources: BTreeMap<ResourceKey, Arc<Resource>>,
    resource_findings: BTreeMap<ResourceKey, Finding>,
    dirty_hosts: BTreeSet<HostId>,
    dirty_resources: BTreeSet<ResourceKey>,
    dirty: bool,
    announced: bool,
    catalog: Arc<Catalog>,
}

/// Where the parts come from.
pub(crate) struct Parts<'a> {
    pub(crate) mesh: MeshId,
    pub(crate) own: HostId,
    pub(crate) now_ms: u64,
    pub(crate) rights: &'a Rights,
    pub(crate) hosts: &'a Hosts,
    pub(crate) commits: &'a Commits,
    pub(crate) local_views: &'a BTreeMap<String, Arc<mesh_model::fact::RegistryView>>,
    pub(crate) liveness: &'a dyn Fn(HostId) -> Liveness,
    pub(crate) grant: &'a dyn Fn(HostId) -> Option<Arc<HostGrant>>,
}

impl View {
    pub(crate) fn host(&mut self, host: HostId) {
        self.dirty_hosts.insert(host);
        self.dirty = true;
    }
    pub(crate) fn hosts(&mut self, hosts: impl IntoIterator<Item = HostId>) {
        self.dirty_hosts.extend(hosts);
        self.dirty = true;
    }
    pub(crate) fn resources(&mut self, keys: impl IntoIterator<Item = ResourceKey>) {
        self.dirty_resources.extend(keys);
        self.dirty = true;
    }
    pub(crate) fn touch(&mut self) {
        self.dirty = true;
    }
    /// True once after something changed.
    pub(crate) fn announce(&mut self) -> bool {
        let news = self.dirty && !self.announced;
        self.announced |= self.dirty;
        news
    }

    /// The catalog now.
    pub(crate) fn catalog(&mut self, parts: &Parts<'_>) -> Arc<Catalog> {
        if self.dirty {
            self.refresh(parts);
        }
        self.dirty = false;
        self.announced = false;
        Arc::clone(&self.catalog)
    }

    fn refresh(&mut self, parts: &Parts<'_>) {
        for host in std::mem::take(&mut self.dirty_hosts) {
            self.refresh_host(host, parts);
        }
        for key in std::mem::take(&mut self.dirty_resources) {
            self.refresh_resource(&key, parts);
        }
        let revoked = parts.commits.revoked();
        let in_force = |from, to| Rights::in_force(from, to, parts.now_ms);
        let mut catalog = Catalog {
            version: self.catalog.version,
            mesh: parts
                .rights
                .genesis()
                .and_then(|genesis| mesh_facts(genesis, parts)),
            hosts: self.hosts.clone(),
            resources: self.resources.clone(),
            authorities: parts
                .rights
                .authorities()
                .filter(|held| !revoked.host(held.by))
                .filter(|held| in_force(held.grant.not_before_ms, held.grant.not_after_ms))
                .map(|held| Arc::clone(&held.grant))
                .collect(),
            operators: parts
                .rights
                .operators()
                .filter(|held| !revoked.operator(&held.grant.key))
                .filter(|held| !revoked.authority_at(held.by, held.grant.not_before_ms))
                .map(|held| Arc::clone(&held.grant))
                .collect(),
            commits: parts.commits.fingerprint(),
            commit_count: parts.commits.count(),
            local_views: parts.local_views.clone(),
        };
        if catalog != *self.catalog {
            catalog.version += 1;
            self.catalog = Arc::new(catalog);
        }
    }

    fn refresh_host(&mut self, host: HostId, parts: &Parts<'_>) {
        let entry = parts.hosts.get(host);
        let grant = (parts.grant)(host);
        if entry.is_none() && parts.rights.host(host).is_none() {
            self.hosts.remove(&host);
            self.host_findings.remove(&host);
            return;
        }
        let liveness = if host == parts.own {
            Liveness::Alive
        } else {
            (parts.liveness)(host)
        };
        let before = self.hosts.get(&host).map(|facts| &**facts);
        let (facts, findings) = facts_of(host, entry, grant.as_ref(), liveness, before);
        self.hosts.insert(host, Arc::new(facts));
        if findings.is_empty() {
            self.host_findings.remove(&host);
        } else {
            self.host_findings.insert(host, findings);
        }
    }

    fn refresh_resource(&mut self, key: &ResourceKey, parts: &Parts<'_>) {
        let value = evaluate(parts.commits, key, parts.now_ms);
        let resource = resource_of(key, &value, parts.commits);
        match (&value.winner, &resource) {
            (Some((id, _)), None) => {
                self.resource_findings
                    .insert(key.clone(), unreadable(key, *id));
            }
            (Some(_), Some(_)) if value.in_conflict() => {
                self.resource_findings
                    .insert(key.clone(), conflict(key, &value));
            }
            _ => {
                self.resource_findings.remove(key);
            }
        }
        match resource {
            Some(resource) => self.resources.insert(key.clone(), Arc::new(resource)),
            None => self.resources.remove(key),
        };
    }

    /// Problems of the facts.
    pub(crate) fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.resource_findings
            .values()
            .chain(self.host_findings.values().flatten())
    }
}

fn mesh_facts(genesis: &Genesis, parts: &Parts<'_>) -> Option<MeshFacts> {
    Some(MeshFacts {
        id: parts.mesh,
        name: Arc::from(genesis.mesh_name.as_str()),
        trust_domain: TrustDomain::new(&genesis.trust_domain).ok()?,
        domain: Arc::from(genesis.domain.as_str()),
        host: parts.own,
        strict: genesis.strict,
        roots: vec![Arc::from(genesis.x509_root.as_slice())],
    })
}

fn resource_of(key: &ResourceKey, value: &Value, commits: &Commits) -> Option<Resource> {
    let (revision, index) = value.winner?;
    let entry = commits.get(&revision)?;
    let document = commits.document(&revision, index)?;
    let others = value.heads.iter().skip(1).filter_map(|id| {
        let (index, _) = commits.get(id)?.step(key)?;
        // A deletion that competes has no document of its own: the one that stands stands for it, so that
        // a merge can name the revision.
        let document: Arc<Document> = commits
            .document(id, index)
            .unwrap_or_else(|| Arc::clone(&document));
        Some((*id, document))
    });
    Some(Resource {
        conflicts: others.collect(),
        document: Arc::clone(&document),
        revision,
        created_ms: value.created_ms,
        changed_ms: entry.time_ms(),
        author: Arc::from(entry.author.grant.name.as_str()),
        confirm_by_ms: value.confirm_by_ms,
    })
}

fn unreadable(key: &ResourceKey, id: CommitId) -> Finding {
    Finding::new(
        "document-unreadable",
        Severity::Error,
        key.to_string(),
        format!(
            "its document in revision {} cannot be read by this version of meshd",
            id.short()
        ),
        "upgrade meshd on this host",
    )
}

/// The finding of a resource whose revisions compete.
pub(crate) fn conflict(key: &ResourceKey, value: &Value) -> Finding {
    let revisions: Vec<String> = value.heads.iter().map(CommitId::short).collect();
    Finding::new(
        "resource-conflict",
        Severity::Warning,
        key.to_string(),
        format!(
            "edited in two places at once: revisions {}; the first is in force",
            revisions.join(", ")
        ),
        "apply the document that you want: meshctl apply names all of these revisions and so merges them",
    )
}
