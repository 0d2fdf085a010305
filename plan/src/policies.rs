//! Policies become decisions of one port: whether plaintext is refused, and who may call.
//!
//! Of documents that were committed at the same time all count, and the most restrictive wins.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    catalog::{Catalog, Resource, ResourceKey},
    document::{
        Document, Spec,
        spec::{
            AuthorizationPolicySpec, LabelSelector, MtlsMode, PeerAuthenticationSpec, PolicyAction,
        },
    },
    name::Namespace,
    snapshot::{Authorization, AuthorizationRule},
};

use crate::world::selects;

/// All policies.
#[derive(Debug)]
pub(crate) struct Policies<'a> {
    peer: Vec<(&'a str, &'a PeerAuthenticationSpec)>,
    authorization: Vec<(&'a ResourceKey, Vec<&'a AuthorizationPolicySpec>)>,
    /// True when the mesh was made strict: plaintext is refused, calls are denied unless allowed.
    strict: bool,
}

impl<'a> Policies<'a> {
    pub(crate) fn gather(catalog: &'a Catalog, strict: bool) -> Self {
        let peer = catalog
            .of_kind("PeerAuthentication")
            .flat_map(|(key, resource)| variants(resource).map(move |document| (key, document)))
            .filter_map(|(key, document)| match &document.spec {
                Spec::PeerAuthentication(spec) => Some((key.namespace.as_str(), spec)),
                _ => None,
            })
            .collect();
        let authorization = catalog
            .of_kind("AuthorizationPolicy")
            .map(|(key, resource)| {
                let specs = variants(resource)
                    .filter_map(|document| match &document.spec {
                        Spec::AuthorizationPolicy(spec) => Some(spec),
                        _ => None,
                    })
                    .collect();
                (key, specs)
            })
            .collect();
        Self {
            peer,
            authorization,
            strict,
        }
    }

    /// Whether plaintext is refused: by the policy of the workload, else the namespace, else the mesh.
    pub(crate) fn refuses_plaintext(
        &self,
        namespace: &Namespace,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        let system = Namespace::system();
        let mode = |level: &dyn Fn(&str, Option<&LabelSelector>) -> bool| {
            let said = self
                .peer
                .iter()
                .filter(|(ns, spec)| level(ns, spec.selector.as_ref()));
            let modes: Vec<MtlsMode> = said.map(|(_, spec)| spec.mtls.mode).collect();
            if modes.contains(&MtlsMode::Strict) {
                Some(true)
            } else {
                modes.contains(&MtlsMode::Permissive).then_some(false)
            }
        };
        let empty = |selector: Option<&LabelSelector>| {
            selector.is_none_or(|selector| selector.match_labels.is_empty())
        };
        let workload = mode(&|ns, selector| {
            (ns == namespace.as_str() || ns == system.as_str())
                && !empty(selector)
                && selector.is_some_and(|selector| selects(&selector.match_labels, labels))
        });
        workload
            .or_else(|| mode(&|ns, selector| ns == namespace.as_str() && empty(selector)))
            .or_else(|| mode(&|ns, selector| ns == system.as_str() && empty(selector)))
            .unwrap_or(self.strict)
    }

    /// Who may call a workload.
    pub(crate) fn authorization(
        &self,
        namespace: &Namespace,
        labels: &BTreeMap<String, String>,
    ) -> Authorization {
        let system = Namespace::system();
        let mut found = Authorization {
            allow_only: self.strict,
            ..Authorization::default()
        };
        for (key, specs) in &self.authorization {
            if key.namespace != namespace.as_str() && key.namespace != system.as_str() {
                continue;
            }
            let name: Arc<str> = Arc::from(format!("{}/{}", key.namespace, key.name));
            let selected = |spec: &&&AuthorizationPolicySpec| {
                spec.selector
                    .as_ref()
                    .is_none_or(|selector| selects(&selector.match_labels, labels))
            };
            let of = |action: PolicyAction| -> Vec<Vec<AuthorizationRule>> {
                let specs = specs
                    .iter()
                    .filter(selected)
                    .filter(|spec| spec.action == action);
                specs.map(|spec| rules(spec, &name)).collect()
            };
            found
                .deny
                .extend(of(PolicyAction::Deny).into_iter().flatten());
            let mut allows = of(PolicyAction::Allow).into_iter();
            if let Some(first) = allows.next() {
                found.allow_only = true;
                let others: Vec<_> = allows.collect();
                let everywhere =
                    |rule: &AuthorizationRule| others.iter().all(|rules| rules.contains(rule));
                found.allow.extend(first.into_iter().filter(everywhere));
            }
        }
        found.deny.dedup();
        found
    }
}

fn variants(resource: &Arc<Resource>) -> impl Iterator<Item = &Document> {
    std::iter::once(&*resource.document)
        .chain(resource.conflicts.iter().map(|(_, document)| &**document))
}

/// Every pair of `from` and `to`, since within one of them all lists must match.
fn rules(spec: &AuthorizationPolicySpec, policy: &Arc<str>) -> Vec<AuthorizationRule> {
    let boxed = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
    let mut found = Vec::new();
    for rule in &spec.rules {
        let mut callers = vec![AuthorizationRule {
            policy: Arc::clone(policy),
            ..AuthorizationRule::default()
        }];
        if !rule.from.is_empty() {
            callers = rule
                .from
                .iter()
                .map(|from| AuthorizationRule {
                    policy: Arc::clone(policy),
                    principals: boxed(&from.source.principals),
                    namespaces: from
                        .source
                        .namespaces
                        .iter()
                        .filter_map(|name| Namespace::new(name).ok())
                        .collect(),
                    ..AuthorizationRule::default()
                })
                .collect();
        }
        for caller in callers {
            if rule.to.is_empty() {
                found.push(caller);
                continue;
            }
            found.extend(rule.to.iter().map(|to| {
                AuthorizationRule {
                    methods: boxed(&to.operation.methods),
                    paths: boxed(&to.operation.paths),
                    ports: to
                        .operation
                        .ports
                        .iter()
                        .filter_map(|port| port.parse().ok())
                        .collect(),
                    ..caller.clone()
                }
            }));
        }
    }
    found
}
