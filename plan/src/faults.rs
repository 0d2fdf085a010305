//! Faults that callers of a service meet.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    document::{
        Spec,
        limit::{AbortSpec, FaultInjectionSpec},
    },
    name::ServiceId,
    snapshot::{Fault, limit::Abort},
};

use crate::{
    findings::Findings, outcome::Outcome, percent, services::Services, sources, targets,
    world::World,
};

/// All faults.
#[derive(Debug, Default)]
pub(crate) struct Faults<'a> {
    /// By service and port, oldest first.
    by_service: BTreeMap<(ServiceId, u16), Vec<Fault>>,
    pub(crate) outcomes: Vec<Outcome<'a>>,
}

pub(crate) fn gather<'a>(
    world: &World<'a>,
    services: &Services,
    findings: &Findings,
) -> Faults<'a> {
    let mut faults = Faults::default();
    for (key, resource) in world.by_age("FaultInjection") {
        let Spec::FaultInjection(spec) = &resource.document.spec else {
            continue;
        };
        let found = targets::aim(key, resource, &spec.target_refs, services, findings);
        let Some(aimed) = found else { continue };
        let fault = compiled(spec, &aimed);
        for (id, ports) in &aimed.at {
            for port in ports {
                let all = faults.by_service.entry((id.clone(), *port)).or_default();
                if !all.iter().any(|other| other.name == fault.name) {
                    all.push(fault.clone());
                }
            }
        }
        findings.note(
            "faults-injected",
            &key.to_string(),
            "requests fail or wait on purpose while this resource exists",
            "delete it when the experiment is over",
        );
        faults.outcomes.push(aimed.outcome);
    }
    faults
}

impl Faults<'_> {
    /// The faults that callers of a service's port meet.
    pub(crate) fn of(&self, id: &ServiceId, port: u16) -> Arc<[Fault]> {
        self.by_service
            .get(&(id.clone(), port))
            .map_or_else(|| Arc::from([]), |all| Arc::from(all.as_slice()))
    }
}

fn compiled(spec: &FaultInjectionSpec, aimed: &targets::Aimed<'_>) -> Fault {
    Fault {
        name: Arc::clone(&aimed.name),
        matches: sources::calls(&spec.matches, &aimed.namespace),
        delay: spec
            .delay
            .map(|delay| (percent::share(delay.percent), delay.time.0)),
        abort: spec
            .abort
            .and_then(|abort| Some((percent::share(abort.percent), kind(&abort)?))),
        bandwidth: spec
            .bandwidth
            .map(|limit| (percent::share(limit.percent), limit.rate.0)),
    }
}

fn kind(abort: &AbortSpec) -> Option<Abort> {
    let http = abort.http.map(Abort::Http);
    let grpc = abort.grpc.map(|code| Abort::Grpc(code.0));
    http.or(grpc)
        .or_else(|| abort.reset.then_some(Abort::Reset))
}
