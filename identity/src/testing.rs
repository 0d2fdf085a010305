//! A small mesh for the tests of this crate: root, authority, hosts, snapshot.

use std::sync::Arc;

use mesh_model::{
    grant::HostGrant,
    name::{HostId, Namespace, ServiceAccount},
    principal::{SpiffeId, TrustDomain},
    snapshot::{
        HostRights, MeshView, Snapshot,
        cell::{self, Publisher, Reader},
    },
};
use rustls_pki_types::CertificateDer;

use crate::{
    authority::{
        Authority, AuthorityError, AuthorityKeys, MeshSettings, ROOT_LIFETIME_MS, Root,
        root_certificate,
    },
    credentials::Credentials,
    leaf::LeafRequest,
};

/// The host of most tests; its authority is there too.
pub(crate) const HOST: HostId = HostId([1; 16]);
/// A day in November 2026.
pub(crate) const NOW: u64 = 1_795_000_000_000;

pub(crate) fn settings() -> MeshSettings {
    MeshSettings {
        name: "test".into(),
        trust_domain: "m.internal".into(),
        domain: "mesh.internal".into(),
        strict: false,
        leaf_ttl_secs: 86_400,
    }
}

pub(crate) struct World {
    pub(crate) root: Root,
    pub(crate) authority: Authority,
    pub(crate) now: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of("m.internal", NOW)
    }
    /// A mesh of a trust domain, made at a time.
    pub(crate) fn of(trust_domain: &str, now: u64) -> Self {
        let settings = MeshSettings {
            trust_domain: trust_domain.into(),
            ..settings()
        };
        let root = Root::create(&settings, now).unwrap();
        let keys = AuthorityKeys::generate().unwrap();
        let signed = root
            .certify(HOST, &keys.request().unwrap(), 1, now)
            .unwrap();
        let authority = Authority::new(keys, root.mesh().clone(), signed).unwrap();
        Self {
            root,
            authority,
            now,
        }
    }
    pub(crate) fn trust_domain(&self) -> TrustDomain {
        self.root.mesh().trust_domain.clone()
    }
    pub(crate) fn id(&self, namespace: &str, account: &str) -> SpiffeId {
        SpiffeId::workload(
            self.trust_domain(),
            Namespace::new(namespace).unwrap(),
            ServiceAccount::new(account).unwrap(),
        )
    }
    pub(crate) fn host_id(&self, host: HostId) -> SpiffeId {
        SpiffeId::host(self.trust_domain(), host)
    }
    pub(crate) fn grant(&self, host: HostId, may_register: &[&str]) -> HostGrant {
        HostGrant {
            mesh_id: self.root.mesh().id.0.to_vec(),
            host_id: host.0.to_vec(),
            may_register: may_register.iter().map(|p| (*p).to_owned()).collect(),
            not_before_ms: self.now,
            not_after_ms: self.now + ROOT_LIFETIME_MS,
            ..HostGrant::default()
        }
    }
    pub(crate) fn issue(
        &self,
        id: &SpiffeId,
        host: HostId,
        may_register: &[&str],
    ) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        let request = LeafRequest::new(id)?;
        self.authority
            .issue(request.csr(), id, &self.grant(host, may_register), self.now)
    }
    /// Puts a fresh certificate for `id` on `host` into a set, whatever the grants say.
    pub(crate) fn hold(&self, credentials: &Credentials, id: &SpiffeId, host: HostId) {
        let request = LeafRequest::new(id).unwrap();
        let ttl = std::time::Duration::from_hours(1);
        let chain = self
            .authority
            .issue_leaf(request.csr(), id, host, ttl, self.now)
            .unwrap();
        credentials.insert(id.clone(), request.finish(chain, host).unwrap());
    }
    /// A snapshot of `host` that trusts this mesh and grants these rights.
    pub(crate) fn snapshot(&self, host: HostId, rights: &[(HostId, &[&str])]) -> Snapshot {
        let mut snapshot = Snapshot {
            mesh: Some(MeshView {
                trust_domain: self.trust_domain(),
                domain: "mesh.internal".into(),
                host,
                host_name: "test".into(),
            }),
            ..Snapshot::default()
        };
        let root: Arc<[u8]> = Arc::from(root_certificate(self.root.mesh()).as_ref());
        snapshot
            .trust
            .bundles
            .insert(self.trust_domain(), vec![root]);
        // The authority's own host is in the mesh, with no right to any service.
        let authority: (HostId, &[&str]) = (HOST, &[]);
        for (host, patterns) in std::iter::once(&authority).chain(rights) {
            let rights = HostRights {
                may_register: patterns.iter().map(|p| (*p).to_owned()).collect(),
                not_after_ms: self.now + ROOT_LIFETIME_MS,
            };
            snapshot.trust.grants.insert(*host, Arc::new(rights));
        }
        snapshot
    }
}

/// Publishes one snapshot.
pub(crate) fn published(snapshot: Snapshot) -> (Publisher, Reader) {
    let (mut publisher, reader) = cell::cell();
    publisher.publish(snapshot);
    (publisher, reader)
}
