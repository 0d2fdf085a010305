//! What each DestinationRule says: the traffic policy and the subsets of each service's port.
//!
//! A rule acts from the namespace of its service, for callers everywhere; of two on one service the oldest. What a
//! subset or a port says replaces the same part of what the whole rule says.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use mesh_model::{
    catalog::{Resource, ResourceKey},
    document::{
        Spec,
        destination_rule::{DestinationRuleSpec, SubsetSpec},
        route::ParentReference,
    },
    endpoint::Locality,
    name::{Namespace, ServiceId},
    snapshot::TrafficPolicy,
};

use crate::{
    findings::Findings,
    hosts,
    outcome::{Outcome, ParentState, Refusal},
    services::Services,
    world::World,
};

mod part;
mod policy;

use part::Parts;

/// All rules.
#[derive(Debug, Default)]
pub(crate) struct Destinations<'a> {
    by_service: BTreeMap<ServiceId, Acting<'a>>,
    pub(crate) outcomes: Vec<Outcome<'a>>,
    /// Where this host is.
    own: Locality,
}

/// The rule that acts on a service.
#[derive(Debug)]
struct Acting<'a> {
    name: Arc<str>,
    spec: &'a DestinationRuleSpec,
}

/// A subset of a service's port.
#[derive(Debug)]
pub(crate) struct Subset<'a> {
    pub(crate) name: Arc<str>,
    pub(crate) labels: &'a BTreeMap<String, String>,
    pub(crate) policy: TrafficPolicy,
    pub(crate) failover: Option<&'a str>,
}

pub(crate) fn gather<'a>(
    world: &World<'a>,
    services: &Services,
    findings: &Findings,
) -> Destinations<'a> {
    let mut rules = Destinations {
        own: world.input.boot.locality.clone(),
        ..Destinations::default()
    };
    for (key, resource) in world.by_age("DestinationRule") {
        let Spec::DestinationRule(spec) = &resource.document.spec else {
            continue;
        };
        let Ok(own) = Namespace::new(&key.namespace) else {
            continue;
        };
        let refused = rules.add(world, key, spec, &own, services).err();
        if let Some((code, _, why)) = &refused {
            findings.warning(
                code,
                &key.to_string(),
                why.clone(),
                "write one DestinationRule for each service, in the service's namespace",
            );
        }
        if refused.is_none() {
            rules.tell_ports(key, spec, services, findings);
        }
        if !spec.export_to.is_empty() && !spec.export_to.iter().any(|one| one == "*") {
            findings.note(
                "field-without-effect",
                &key.to_string(),
                "spec.exportTo: the rule acts for callers of every namespace",
                "leave exportTo out",
            );
        }
        let refused = refused.map(|(_, reason, why)| (reason, why));
        let outcome = outcome(world, key, resource, spec, &own, refused);
        rules.outcomes.push(outcome);
    }
    rules
}

fn outcome<'a>(
    world: &World<'a>,
    key: &'a ResourceKey,
    resource: &Resource,
    spec: &DestinationRuleSpec,
    own: &Namespace,
    refused: Option<Refusal>,
) -> Outcome<'a> {
    let id = hosts::service(&spec.host, own, &world.mesh.domain);
    let (name, namespace) = match &id {
        Some(id) => (id.name.to_string(), Some(id.namespace.to_string())),
        None => (spec.host.clone(), None),
    };
    let reference = ParentReference {
        group: Some(String::new()),
        kind: Some("Service".to_owned()),
        namespace: namespace.filter(|namespace| *namespace != key.namespace),
        name,
        section_name: None,
        port: None,
    };
    Outcome {
        key,
        revision: resource.revision,
        changed_ms: resource.changed_ms,
        parents: vec![ParentState {
            reference,
            refused,
            partly: String::new(),
        }],
        unresolved: None,
    }
}

/// Code of the finding, reason, message.
type Refused = (&'static str, &'static str, String);

impl<'a> Destinations<'a> {
    fn add(
        &mut self,
        world: &World<'a>,
        key: &'a ResourceKey,
        spec: &'a DestinationRuleSpec,
        own: &Namespace,
        services: &Services,
    ) -> Result<(), Refused> {
        let unknown = || {
            let why = format!("spec.host: the service {} is not known", spec.host);
            ("policy-unknown-target", "TargetNotFound", why)
        };
        let id = hosts::service(&spec.host, own, &world.mesh.domain).ok_or_else(unknown)?;
        if !services.by_id.contains_key(&id) {
            return Err(unknown());
        }
        if id.namespace != *own {
            return Err((
                "rule-without-effect",
                "NotAllowed",
                format!(
                    "spec.host: {id} is of another namespace, whose own rules decide how it is used"
                ),
            ));
        }
        match self.by_service.entry(id) {
            Entry::Vacant(place) => {
                place.insert(Acting {
                    name: Arc::from(format!("{}/{}", key.namespace, key.name)),
                    spec,
                });
                Ok(())
            }
            Entry::Occupied(first) => Err((
                "rule-without-effect",
                "Conflicted",
                format!(
                    "spec.host: {} is of {} already, which is older",
                    first.key(),
                    first.get().name
                ),
            )),
        }
    }

    /// Tells settings of ports that the service does not have.
    fn tell_ports(
        &self,
        key: &ResourceKey,
        spec: &DestinationRuleSpec,
        services: &Services,
        findings: &Findings,
    ) {
        let mut acting = self.by_service.iter();
        let found = acting.find(|(_, acting)| std::ptr::eq(acting.spec, spec));
        let Some((id, _)) = found else { return };
        let whole = (
            "spec.trafficPolicy".to_owned(),
            spec.traffic_policy.as_ref(),
        );
        let subsets = spec.subsets.iter().enumerate().map(|(number, subset)| {
            let path = format!("spec.subsets[{number}].trafficPolicy");
            (path, subset.traffic_policy.as_ref())
        });
        for (path, policy) in std::iter::once(whole).chain(subsets) {
            let settings = policy.map(|policy| policy.port_level_settings.as_slice());
            for (number, one) in settings.unwrap_or_default().iter().enumerate() {
                let port = one.port.number;
                let service = services.by_id.get(id);
                if service.is_some_and(|service| !service.ports.contains_key(&port)) {
                    findings.warning(
                        "policy-unknown-port",
                        &key.to_string(),
                        format!("{path}.portLevelSettings[{number}].port: {id} has no port {port}"),
                        "write a port of the service",
                    );
                }
            }
        }
    }

    fn parts(&self, id: &ServiceId, port: u16) -> Option<(&Acting<'a>, Parts<'a>)> {
        let acting = self.by_service.get(id)?;
        let whole = acting.spec.traffic_policy.as_ref();
        Some((acting, Parts::of(whole, port)))
    }

    /// How the endpoints of a service's port are used.
    pub(crate) fn policy(&self, id: &ServiceId, port: u16) -> TrafficPolicy {
        self.parts(id, port)
            .map(|(acting, parts)| policy::compiled(&parts, &acting.name, &self.own))
            .unwrap_or_default()
    }

    /// The region that takes over when this host's has no usable endpoint.
    pub(crate) fn failover(&self, id: &ServiceId, port: u16) -> Option<&'a str> {
        let (_, parts) = self.parts(id, port)?;
        policy::failover(&parts, &self.own)
    }

    /// The subsets of a service's port.
    pub(crate) fn subsets(&self, id: &ServiceId, port: u16) -> Vec<Subset<'a>> {
        let Some((acting, parts)) = self.parts(id, port) else {
            return Vec::new();
        };
        let one = |subset: &'a SubsetSpec| {
            let parts = parts.under(&Parts::of(subset.traffic_policy.as_ref(), port));
            Subset {
                name: Arc::from(subset.name.as_str()),
                labels: &subset.labels,
                policy: policy::compiled(&parts, &acting.name, &self.own),
                failover: policy::failover(&parts, &self.own),
            }
        };
        acting.spec.subsets.iter().map(one).collect()
    }
}
