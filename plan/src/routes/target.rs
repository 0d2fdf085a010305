//! Where rules lead: backends by reference, with their shares; what is broken takes its share as errors.

use std::sync::Arc;

use mesh_model::{
    document::{
        route::{BackendReference, MirrorBackend},
        virtual_service::Destination,
    },
    name::{Namespace, ServiceId, ServiceName},
    snapshot::{Backend, Filter, RequestMatch, Target, WeightedTarget},
};

use super::Draft;
use crate::{hosts, outcome::Refusal};

/// A reference to a backend, as written.
pub(super) struct Named<'n> {
    pub(super) group: Option<&'n str>,
    pub(super) kind: Option<&'n str>,
    pub(super) namespace: Option<&'n str>,
    pub(super) name: &'n str,
    pub(super) port: Option<u16>,
}

impl<'n> From<&'n BackendReference> for Named<'n> {
    fn from(one: &'n BackendReference) -> Self {
        Self {
            group: one.group.as_deref(),
            kind: one.kind.as_deref(),
            namespace: one.namespace.as_deref(),
            name: &one.name,
            port: one.port,
        }
    }
}

impl<'n> From<&'n MirrorBackend> for Named<'n> {
    fn from(one: &'n MirrorBackend) -> Self {
        Self {
            group: one.group.as_deref(),
            kind: one.kind.as_deref(),
            namespace: one.namespace.as_deref(),
            name: &one.name,
            port: one.port,
        }
    }
}

/// One share of a VirtualService's rule.
pub(super) struct Part<'p> {
    pub(super) destination: &'p Destination,
    pub(super) weight: Option<u32>,
    pub(super) filters: Arc<[Filter]>,
}

impl Draft<'_> {
    /// Where a rule of a Gateway API route leads: a share to each backend of weight above 0.
    pub(super) fn target(
        &mut self,
        at: &str,
        backends: &[BackendReference],
        matches: &RequestMatch,
        status: u16,
    ) -> Target {
        let mut shares = Vec::new();
        for (number, one) in backends.iter().enumerate() {
            if one.weight == Some(0) {
                continue;
            }
            let at = format!("{at}.backendRefs[{number}]");
            let found = self.named(&Named::from(one));
            let mut target = self.or_fail(&at, found, status);
            let filters = match self.filters(&at, &one.filters, matches) {
                Ok(filters) => filters,
                Err(why) => {
                    target = failure(status, &why);
                    Arc::from([])
                }
            };
            shares.push(WeightedTarget {
                weight: one.weight.unwrap_or(1),
                target,
                filters,
            });
        }
        weighted(shares, status)
    }

    /// Where a rule of a VirtualService leads. Left-out weights are 0 beside others, and 1 when none is given.
    pub(super) fn destinations(&mut self, at: &str, parts: Vec<Part<'_>>) -> Target {
        let otherwise = u32::from(parts.iter().all(|part| part.weight.is_none()));
        let mut shares = Vec::new();
        for (number, part) in parts.into_iter().enumerate() {
            let weight = part.weight.unwrap_or(otherwise);
            if weight == 0 {
                continue;
            }
            let found = self.destination(part.destination);
            shares.push(WeightedTarget {
                weight,
                target: self.or_fail(&format!("{at}.route[{number}].destination"), found, 503),
                filters: part.filters,
            });
        }
        weighted(shares, 503)
    }

    /// The target of what was found; what was not is told and takes its share as errors.
    fn or_fail(&mut self, at: &str, found: Result<Arc<Backend>, Refusal>, status: u16) -> Target {
        match found {
            Ok(backend) => Target::Backend(backend),
            Err(refusal) => {
                let target = failure(status, &refusal.1);
                self.unresolved(at, refusal);
                target
            }
        }
    }

    /// Tells a reference that leads nowhere, with the path of its field.
    pub(super) fn unresolved(&mut self, at: &str, (reason, why): Refusal) {
        let why = format!("{at}: {why}");
        let (code, remedy) = match reason {
            "InvalidKind" => (
                "route-invalid-backend",
                "correct the reference, or start the service",
            ),
            "SubsetNotFound" => (
                "route-unknown-subset",
                "name the subset in a DestinationRule of the service's namespace",
            ),
            "FilterNotFound" => (
                "route-unknown-filter",
                "write the DirectResponse in the route's namespace",
            ),
            _ => (
                "route-unknown-backend",
                "correct the backendRef, or start the service",
            ),
        };
        self.room
            .findings
            .warning(code, &self.route.subject(), why.clone(), remedy);
        self.broken.get_or_insert((reason, why));
    }

    /// The backend that a Gateway API route names.
    pub(super) fn named(&self, one: &Named<'_>) -> Result<Arc<Backend>, Refusal> {
        let kind = one.kind.unwrap_or("Service");
        if !one.group.unwrap_or_default().is_empty() || kind != "Service" {
            return Err((
                "InvalidKind",
                format!("a backend of kind {kind} is not known here"),
            ));
        }
        let namespace = one.namespace.unwrap_or(self.route.namespace.as_str());
        let (Ok(parent), Ok(name)) = (Namespace::new(namespace), ServiceName::new(one.name)) else {
            return Err(unknown(&format!("{namespace}/{}", one.name)));
        };
        let id = ServiceId::new(parent, name);
        let service = self.room.services.by_id.get(&id);
        let service = service.ok_or_else(|| unknown(&id.to_string()))?;
        let mut ports = service.ports.keys().copied();
        let only = ports.next().filter(|_| ports.next().is_none());
        let port = one.port.or(only).unwrap_or(self.room.port);
        self.backend(&id, port, None)
    }

    /// The backend that a VirtualService names: without a port that of the call, or else the only one.
    pub(super) fn destination(&self, one: &Destination) -> Result<Arc<Backend>, Refusal> {
        let domain = &self.room.world.mesh.domain;
        let id = hosts::service(&one.host, &self.route.namespace, domain);
        let id = id.ok_or_else(|| unknown(&one.host))?;
        let service = self.room.services.by_id.get(&id);
        let service = service.ok_or_else(|| unknown(&id.to_string()))?;
        let dialled = self.room.port;
        let port = match one.port {
            Some(port) => port.number,
            None if service.ports.contains_key(&dialled) => dialled,
            None if service.ports.len() == 1 => {
                service.ports.keys().copied().next().unwrap_or(dialled)
            }
            None => dialled,
        };
        self.backend(&id, port, one.subset.as_deref())
    }

    fn backend(
        &self,
        id: &ServiceId,
        port: u16,
        subset: Option<&str>,
    ) -> Result<Arc<Backend>, Refusal> {
        let backends = self.room.backends;
        let whole = backends.by_service.get(&(id.clone(), port));
        let whole = whole.ok_or_else(|| ("BackendNotFound", format!("{id} has no port {port}")))?;
        let Some(subset) = subset.filter(|subset| !subset.is_empty()) else {
            return Ok(Arc::clone(whole));
        };
        let key = (id.clone(), port, Arc::from(subset));
        backends.subsets.get(&key).map(Arc::clone).ok_or_else(|| {
            let why = format!("no DestinationRule that acts on {id} has a subset {subset}");
            ("SubsetNotFound", why)
        })
    }
}

fn unknown(name: &str) -> Refusal {
    (
        "BackendNotFound",
        format!("the service {name} is not known"),
    )
}

/// Errors instead of a backend.
pub(super) fn failure(status: u16, why: &str) -> Target {
    Target::Fail {
        status,
        code: "no-backend",
        reason: Arc::from(why),
    }
}

fn weighted(mut shares: Vec<WeightedTarget>, status: u16) -> Target {
    match shares.len() {
        0 => failure(status, "the rule names no backend with a weight"),
        1 if shares.iter().all(|share| share.filters.is_empty()) => shares.remove(0).target,
        _ => Target::Weighted(shares),
    }
}
