//! Who local callers are, and whom we believe.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    name::Namespace,
    principal::SpiffeId,
    snapshot::{Caller, Callers, HostRights, Trust},
};

use crate::world::{World, labels};

/// Local callers: programs of this host by unit, user and service; everybody else as the host.
pub(crate) fn callers(world: &World<'_>) -> Callers {
    let trust_domain = &world.mesh.trust_domain;
    let mut callers = Callers {
        host: Some(Arc::new(Caller {
            service: None,
            principal: SpiffeId::host(trust_domain.clone(), world.mesh.host),
            namespace: Namespace::default(),
            label: Arc::from("host"),
            // A local program may dial every backend that its table could name, so nothing is gained by it.
            trusted: true,
            labels: Arc::default(),
        })),
        ..Callers::default()
    };
    for service in &world.locals {
        let id = &service.service;
        let caller = callers.by_service.entry(id.clone()).or_insert_with(|| {
            Arc::new(Caller {
                service: Some(id.clone()),
                principal: SpiffeId::workload(
                    trust_domain.clone(),
                    id.namespace.clone(),
                    service.service_account.clone(),
                ),
                namespace: id.namespace.clone(),
                label: Arc::from(id.to_string()),
                trusted: true,
                labels: labels(&service.labels, &id.name),
            })
        });
        for uid in &service.recognise.uids {
            callers.by_uid.insert(*uid, Arc::clone(caller));
        }
        if let Some(unit) = &service.recognise.unit {
            callers
                .by_unit
                .insert(unit.as_str().into(), Arc::clone(caller));
        }
    }
    callers
}

/// Roots of the own trust domain, and the rights of its admitted hosts.
pub(crate) fn trust(world: &World<'_>) -> Trust {
    let grants = world
        .input
        .catalog
        .hosts
        .iter()
        .filter(|(id, _)| !world.revoked.contains(id))
        .filter_map(|(id, host)| {
            let grant = host.grant.as_ref()?;
            let rights = HostRights {
                may_register: grant.may_register.clone(),
                not_after_ms: grant.not_after_ms,
            };
            Some((*id, Arc::new(rights)))
        })
        .collect();
    let roots = (world.mesh.trust_domain.clone(), world.mesh.roots.clone());
    Trust {
        bundles: BTreeMap::from([roots]),
        grants,
    }
}
