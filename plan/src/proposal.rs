//! What a proposed edit would bring: the plan with it, compared with the plan without it.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use mesh_model::{
    catalog::{Catalog, Resource, ResourceKey},
    commit::CommitId,
    config::{Boot, Live},
    document::Document,
    finding::{Finding, Severity},
};

use crate::{Allocations, Breath, Input, compile};

/// Documents to be put and resources to be deleted, and the state that they are laid over.
#[derive(Debug, Clone, Copy)]
pub struct Proposal<'a> {
    /// All facts.
    pub catalog: &'a Catalog,
    /// Settings of this host.
    pub boot: &'a Boot,
    /// Settings of this host.
    pub live: &'a Live,
    /// Addresses of this host.
    pub host_addresses: &'a [IpAddr],
    /// Checked documents.
    pub documents: &'a [Document],
    /// Resources to be deleted.
    pub deleted: &'a [ResourceKey],
    /// Milliseconds since the epoch.
    pub now_ms: u64,
}

/// Codes that are errors in what is proposed: a route must name what exists. A caller that wants the edit
/// all the same (because the service comes later) ignores findings of these codes.
pub const UNKNOWN_REFERENCES: [&str; 7] = [
    "route-unknown-parent",
    "route-unknown-backend",
    "route-unknown-subset",
    "route-unknown-filter",
    "route-invalid-backend",
    "policy-unknown-target",
    "policy-unknown-port",
];

/// Codes of what contradicts something that stands already: refused too.
pub const CONTRADICTIONS: [&str; 1] = ["rule-without-effect"];

/// Problems that the edit would bring, worst first; those that exist without it are left out.
///
/// A reference to an unknown service in a proposed document is an error; in other documents (whose service
/// is deleted) it is a warning.
pub fn validate(proposal: &Proposal<'_>) -> Vec<Finding> {
    let mut overlaid = proposal.catalog.clone();
    for key in proposal.deleted {
        overlaid.resources.remove(key);
    }
    for document in proposal.documents {
        put(&mut overlaid, document, proposal.now_ms);
    }
    let before: BTreeSet<Finding> = findings(proposal, proposal.catalog).into_iter().collect();
    let proposed: BTreeSet<String> = proposal
        .documents
        .iter()
        .map(|document| document.key().to_string())
        .collect();
    let mut found: Vec<Finding> = findings(proposal, &overlaid)
        .into_iter()
        .map(|mut finding| {
            let mine = proposed.contains(&finding.subject);
            let code = finding.code.as_str();
            if mine && (UNKNOWN_REFERENCES.contains(&code) || CONTRADICTIONS.contains(&code)) {
                finding.severity = Severity::Error;
            }
            (mine, finding)
        })
        .filter(|(mine, finding)| *mine || !before.contains(finding))
        .map(|(_, finding)| finding)
        .collect();
    found.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.cmp(b)));
    found
}

fn put(catalog: &mut Catalog, document: &Document, now_ms: u64) {
    let key = document.key();
    let created_ms = catalog
        .resources
        .get(&key)
        .map_or(now_ms, |resource| resource.created_ms);
    let resource = Resource {
        document: Arc::new(document.clone()),
        revision: CommitId([0; 32]),
        created_ms,
        changed_ms: now_ms,
        author: Arc::from(""),
        conflicts: Vec::new(),
        confirm_by_ms: 0,
    };
    catalog.resources.insert(key, Arc::new(resource));
}

fn findings(proposal: &Proposal<'_>, catalog: &Catalog) -> Vec<Finding> {
    let input = Input {
        catalog,
        boot: proposal.boot,
        live: proposal.live,
        host_addresses: proposal.host_addresses,
        previous: None,
        allocations: &Allocations::default(),
        now_ms: proposal.now_ms,
        transparent: false,
        breath: Breath::NONE,
    };
    match compile(&input) {
        Ok(compiled) => compiled.findings,
        Err(error) => vec![Finding::new(
            "plan-failed",
            Severity::Error,
            "plan",
            error.to_string(),
            "the edit would leave the last plan in force; change it",
        )],
    }
}
