//! What may be asked of a node.

use std::sync::Arc;

use mesh_model::{
    admin::HistoryRow,
    catalog::{Catalog, Liveness},
    finding::{Finding, Severity},
    grant::{Genesis, HostGrant, OperatorGrant, Signed},
    name::HostId,
};

use super::Node;
use crate::{
    commits::{Commits, HistoryFilter},
    event::Identity,
    links::LinkState,
    rights::Grant,
    store::Hosts,
    view::Parts,
};

impl Node {
    /// All facts known, merged. Unchanged parts keep their `Arc`.
    pub fn catalog(&mut self) -> Arc<Catalog> {
        let mut view = std::mem::take(&mut self.view);
        let catalog = view.catalog(&Parts {
            mesh: self.identity.mesh_id,
            own: self.identity.host_id,
            now_ms: self.now.wall_ms,
            rights: &self.rights,
            hosts: &self.hosts,
            commits: &self.commits,
            local_views: &self.local_views,
            liveness: &|host| self.member.liveness(host),
            grant: &|host| self.valid(host).cloned(),
        });
        self.view = view;
        catalog
    }

    /// Who this node is, with the incarnation in use.
    pub fn identity(&self) -> Identity {
        self.identity
    }
    /// What the mesh is, once known.
    pub fn genesis(&self) -> Option<&Arc<Genesis>> {
        self.rights.genesis()
    }
    /// Every grant as it was signed, those first on which others rest: what a joiner needs.
    pub fn grants(&self) -> Vec<Grant> {
        self.rights.all()
    }
    /// The grant of a host, when it is in force and not revoked.
    pub fn grant_of(&self, host: HostId) -> Option<Arc<HostGrant>> {
        self.valid(host).cloned()
    }
    /// True when a host was revoked: it is not to be talked to. A host without any grant is not revoked;
    /// it may bring its grant.
    pub fn is_revoked(&self, host: HostId) -> bool {
        self.rights.host(host).is_some() && self.valid(host).is_none()
            || self.commits.revoked().host(host)
    }
    /// Operators with their signed grants, and whether they are revoked.
    pub fn operators(&self) -> Vec<(Signed, Arc<OperatorGrant>, bool)> {
        let revoked = self.commits.revoked();
        let is_revoked =
            |key: &[u8], by, begins| revoked.operator(key) || revoked.authority_at(by, begins);
        self.rights
            .operators()
            .map(|held| {
                let grant = Arc::clone(&held.grant);
                let gone = is_revoked(&grant.key, held.by, grant.not_before_ms);
                (held.signed.clone(), grant, gone)
            })
            .collect()
    }
    /// Commits as people read them, newest first.
    pub fn history(&self, filter: &HistoryFilter) -> Vec<HistoryRow> {
        self.commits.history(filter, self.now.wall_ms)
    }
    /// All commits.
    pub fn commits(&self) -> &Commits {
        &self.commits
    }
    /// All hosts' heads.
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }
    /// Whether a host answers.
    pub fn liveness(&self, host: HostId) -> Liveness {
        if host == self.identity.host_id {
            Liveness::Alive
        } else {
            self.member.liveness(host)
        }
    }
    /// The connection to each other admitted host.
    pub fn links(&self) -> Vec<LinkState> {
        let state = |host| self.links.state(host, self.now.elapsed, self.config.udp);
        self.others().into_iter().map(state).collect()
    }

    /// Problems that people should know of, worst first.
    pub fn findings(&mut self) -> Vec<Finding> {
        self.catalog();
        let mut findings: Vec<Finding> = self.view.findings().cloned().collect();
        for (host, _) in self.hosts.equivocations() {
            findings.push(Finding::new(
                "host-equivocates",
                Severity::Error,
                format!("host {host}"),
                "its key signed two different statements under one number: its state directory was copied, or its key stolen",
                "stop one of the two machines, revoke the host, and join it again with meshctl join --fresh",
            ));
        }
        if self.own.rolled_back {
            findings.push(Finding::new(
                "state-rolled-back",
                Severity::Warning,
                "this host",
                "the mesh knows a newer state of this host than its disk had: an old copy of the state directory was restored, or is used elsewhere",
                "make sure that no other machine runs with a copy of this state directory",
            ));
        }
        if self.own.over_quota > 0 {
            findings.push(Finding::new(
                "too-many-records",
                Severity::Error,
                "this host",
                format!(
                    "{} of its records are more than a host may publish; left out",
                    self.own.over_quota
                ),
                "spread the services over more hosts, or publish fewer registry views",
            ));
        }
        findings.extend(self.clock_findings());
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        findings
    }

    fn clock_findings(&self) -> Vec<Finding> {
        let tolerance = crate::config::millis(self.config.future_tolerance);
        let ahead = self.hosts.iter().filter_map(|(host, entry)| {
            let ahead = entry.head.signed_ms.saturating_sub(entry.received_ms);
            (ahead > tolerance && host != self.identity.host_id).then_some((host, ahead / 1000))
        });
        ahead
            .map(|(host, seconds)| {
                Finding::new(
                    "clock-ahead",
                    Severity::Warning,
                    format!("host {}", host.short()),
                    format!("its clock is {seconds} s ahead of this host's"),
                    "let both hosts set their clocks by NTP",
                )
            })
            .collect()
    }
}
