//! Records become typed facts; what a host may not say is left out and reported.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    catalog::{HostFacts, Liveness},
    fact::{HostInfo, RecordKind, RegistryView, ResourceStatus, Workload},
    finding::{Finding, Severity},
    grant::{HostGrant, covers},
    name::HostId,
};
use prost::Message;

use crate::store::Entry;

/// The typed facts of a host. Unchanged parts are shared with `before`.
pub(crate) fn facts_of(
    host: HostId,
    entry: Option<&Entry>,
    grant: Option<&Arc<HostGrant>>,
    liveness: Liveness,
    before: Option<&HostFacts>,
) -> (HostFacts, Vec<Finding>) {
    let mut facts = HostFacts {
        grant: grant.cloned(),
        liveness,
        ..HostFacts::default()
    };
    let mut findings = Vec::new();
    let Some(entry) = entry else {
        return (facts, findings);
    };
    let head = &entry.head;
    facts.version = entry.version();
    facts.lease_until_ms = head.lease_until_ms;
    facts.leaving = head.leaving;
    facts.commits = head.commits.as_slice().try_into().unwrap_or_default();
    facts.commit_count = head.commit_count;
    if head.leaving && liveness != Liveness::Alive {
        facts.liveness = Liveness::Left;
    }
    let Some(grant) = grant else {
        return (facts, findings);
    };
    let mut reader = Reader {
        host,
        grant,
        before,
        findings: &mut findings,
    };
    for (key, record) in &entry.records {
        match record.kind() {
            RecordKind::Host => {
                facts.info = reader.read::<HostInfo>(key, &record.body).map(|info| {
                    let old = reader.before.and_then(|before| before.info.as_ref());
                    shared(info, old)
                });
            }
            RecordKind::Workload => reader.workload(key, &record.body, &mut facts.workloads),
            RecordKind::RegistryView => reader.view(key, &record.body, &mut facts.views),
            RecordKind::ResourceStatus => reader.status(key, &record.body, &mut facts.statuses),
            RecordKind::Unspecified => {}
        }
    }
    (facts, findings)
}

struct Reader<'a> {
    host: HostId,
    grant: &'a HostGrant,
    before: Option<&'a HostFacts>,
    findings: &'a mut Vec<Finding>,
}

fn shared<T: PartialEq>(new: T, old: Option<&Arc<T>>) -> Arc<T> {
    match old {
        Some(old) if **old == new => Arc::clone(old),
        _ => Arc::new(new),
    }
}

impl Reader<'_> {
    fn read<M: Message + Default>(&mut self, key: &str, body: &[u8]) -> Option<M> {
        let read = M::decode(body).ok();
        if read.is_none() {
            self.findings.push(Finding::new(
                "record-unreadable",
                Severity::Warning,
                format!("host {}", self.name()),
                format!("its record {key} does not decode"),
                "upgrade meshd on the hosts so that they are of one version",
            ));
        }
        read
    }

    fn allowed(&mut self, namespace: &str, service: &str) -> bool {
        let allowed = covers(&self.grant.may_register, namespace, service);
        if !allowed {
            self.findings.push(Finding::new(
                "service-not-granted",
                Severity::Warning,
                format!("host {}", self.name()),
                format!("it offers {namespace}/{service}, which its grant does not cover; ignored"),
                "join that host again with a token whose services cover it",
            ));
        }
        allowed
    }

    fn name(&self) -> String {
        if self.grant.name.is_empty() {
            self.host.short()
        } else {
            self.grant.name.clone()
        }
    }

    fn workload(&mut self, key: &str, body: &[u8], into: &mut BTreeMap<String, Arc<Workload>>) {
        let Some(workload) = self.read::<Workload>(key, body) else {
            return;
        };
        if self.allowed(&workload.namespace, &workload.service) {
            let old = self.before.and_then(|before| before.workloads.get(key));
            into.insert(key.to_owned(), shared(workload, old));
        }
    }

    fn view(&mut self, key: &str, body: &[u8], into: &mut BTreeMap<String, Arc<RegistryView>>) {
        let Some(view) = self.read::<RegistryView>(key, body) else {
            return;
        };
        if self.allowed(&view.namespace, &view.service) {
            let old = self.before.and_then(|before| before.views.get(key));
            into.insert(key.to_owned(), shared(view, old));
        }
    }

    fn status(&mut self, key: &str, body: &[u8], into: &mut BTreeMap<String, Arc<ResourceStatus>>) {
        let Some(status) = self.read::<ResourceStatus>(key, body) else {
            return;
        };
        let old = self.before.and_then(|before| before.statuses.get(key));
        into.insert(key.to_owned(), shared(status, old));
    }
}
