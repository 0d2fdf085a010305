//! The part of the calling host: caller, name, capture, route, backend, endpoints, TLS.

use std::{net::SocketAddr, sync::Arc};

use mesh_model::{
    admin::Explain,
    name::ServiceId,
    service::AppProtocol,
    snapshot::{Backend, Caller, Direct, Frontend, Snapshot, decide::Source},
};

use changes::Called;

use super::{Asked, ExplainError, Far, Question, State, Steps, Told, View};

mod changes;
mod choice;
mod policy;
mod reach;

/// Backends of one target that are told in full.
const MOST_BACKENDS: usize = 8;

pub(super) fn explain(view: &View<'_>, request: &Explain) -> Result<Told, ExplainError> {
    let snapshot = &view.compiled.snapshot;
    if snapshot.mesh.is_none() {
        return Err(ExplainError::NoMesh);
    }
    let asked = Asked::read(request)?;
    let caller = caller(snapshot, &request.from)?;
    let mut story = Story {
        view,
        snapshot,
        asked,
        caller,
        steps: Steps::of(snapshot),
    };
    story.tell_caller();
    let far = match story.destination() {
        Some(Destination::Frontend(frontend)) => story.frontend(&frontend),
        Some(Destination::Direct(direct)) => story.direct(&direct),
        None => None,
    };
    Ok(story.steps.told(far))
}

fn caller(snapshot: &Snapshot, from: &str) -> Result<Arc<Caller>, ExplainError> {
    let callers = &snapshot.callers;
    if from.is_empty() {
        return callers.host.clone().ok_or(ExplainError::NoMesh);
    }
    let id = ServiceId::parse(from).map_err(ExplainError::Caller)?;
    callers
        .by_service
        .get(&id)
        .cloned()
        .ok_or_else(|| ExplainError::NotHere(id.to_string()))
}

enum Destination {
    Frontend(Arc<Frontend>),
    Direct(Direct),
}

struct Story<'a> {
    view: &'a View<'a>,
    snapshot: &'a Snapshot,
    asked: Asked<'a>,
    caller: Arc<Caller>,
    steps: Steps,
}

impl Story<'_> {
    /// Who calls, as rules see it: from this host's own address.
    fn source(&self) -> Source<'_> {
        let own = self.view.compiled.inbound.first();
        Source::local(&self.caller, own.map(SocketAddr::ip))
    }

    /// The request with who sends it.
    fn called(&self) -> Called<'_> {
        Called {
            asked: &self.asked,
            source: self.source(),
            authority: self.asked.authority.to_ascii_lowercase(),
        }
    }

    fn tell_caller(&mut self) {
        let callers = &self.snapshot.callers;
        let mut known: Vec<String> = Vec::new();
        let mut units: Vec<&str> = callers
            .by_unit
            .iter()
            .filter(|(_, caller)| **caller == self.caller)
            .map(|(unit, _)| &**unit)
            .collect();
        units.sort_unstable();
        known.extend(units.iter().map(|unit| format!("unit {unit}")));
        let mut uids: Vec<u32> = callers
            .by_uid
            .iter()
            .filter(|(_, caller)| **caller == self.caller)
            .map(|(uid, _)| *uid)
            .collect();
        uids.sort_unstable();
        known.extend(uids.iter().map(|uid| format!("user {uid}")));
        let (state, because) = match (&self.caller.service, known.is_empty()) {
            (None, _) => (
                State::Ok,
                "no service of this host, so the host itself".to_owned(),
            ),
            (Some(_), false) => (State::Ok, format!("recognised by {}", known.join(", "))),
            (Some(service), true) => (
                State::Warning,
                format!("{service} has neither unit nor user, so its processes call as the host"),
            ),
        };
        self.steps
            .add("caller", state, self.caller.principal.to_string(), because);
    }

    /// Finds what is called, and tells how the call reaches the mesh.
    fn destination(&mut self) -> Option<Destination> {
        let default = if self.asked.http { Some(80) } else { None };
        if let Some(address) = self.address() {
            return self.by_address(address);
        }
        let authority = self.asked.authority;
        let found = self.snapshot.outbound.named(authority, None).cloned();
        let Some(frontend) = found else {
            self.unknown(authority, default);
            return None;
        };
        let addresses: Vec<String> = frontend
            .virtual_addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        self.steps.add(
            "name",
            State::Ok,
            format!("{}:{}", frontend.service, frontend.port),
            if addresses.is_empty() {
                format!("{authority} is headless: its name leads to the endpoints' own addresses")
            } else {
                format!("{authority} is {}", addresses.join(" and "))
            },
        );
        self.tell_capture(if self.view.captured {
            "the virtual address is redirected to the data plane"
        } else {
            "interception is off here: the call reaches the mesh through the explicit listener only"
        });
        Some(Destination::Frontend(frontend))
    }

    fn unknown(&mut self, authority: &str, default: Option<u16>) {
        let host = authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host);
        let mut ports: Vec<u16> = self
            .snapshot
            .outbound
            .by_host
            .get(host.to_ascii_lowercase().as_str())
            .map(|ports| ports.keys().copied().collect())
            .unwrap_or_default();
        ports.sort_unstable();
        let because = if ports.is_empty() {
            "no service of the mesh has this name; see `meshctl services`".to_owned()
        } else {
            let default = default
                .map(|port| format!(" (http means {port})"))
                .unwrap_or_default();
            format!("the service has only the ports {ports:?}{default}")
        };
        self.steps.add(
            "name",
            State::Refused,
            format!("{authority} is not known: unknown-service"),
            because,
        );
    }

    fn address(&self) -> Option<SocketAddr> {
        let authority = self.asked.authority;
        let bare = authority.trim_start_matches('[').trim_end_matches(']');
        authority
            .parse()
            .ok()
            .or_else(|| Some(SocketAddr::new(bare.parse().ok()?, 80)))
    }

    fn by_address(&mut self, address: SocketAddr) -> Option<Destination> {
        let outbound = &self.snapshot.outbound;
        if let Some(frontend) = outbound.by_address.get(&address).cloned() {
            let what = format!("{}:{}", frontend.service, frontend.port);
            self.steps.add(
                "name",
                State::Ok,
                what,
                format!("{address} is its virtual address"),
            );
            self.tell_capture("the virtual address is redirected to the data plane");
            return Some(Destination::Frontend(frontend));
        }
        if let Some(direct) = outbound.direct.get(&address).cloned() {
            let what = format!(
                "{} of {}:{}",
                direct.endpoint.id, direct.backend.service, direct.backend.port
            );
            self.steps.add(
                "name",
                State::Ok,
                what,
                format!("{address} is that endpoint's own address"),
            );
            self.tell_capture(
                "known endpoints' own addresses are redirected, so that they get mTLS",
            );
            return Some(Destination::Direct(direct));
        }
        self.steps.add(
            "capture",
            State::Warning,
            format!("{address} is not captured: the call goes there unchanged"),
            "neither a virtual address nor a known endpoint of another host",
        );
        None
    }

    fn tell_capture(&mut self, because: &str) {
        let (state, what) = if self.view.captured {
            (State::Ok, "captured")
        } else {
            (State::Warning, "not captured")
        };
        self.steps.add("capture", state, what, because);
    }

    fn frontend(&mut self, frontend: &Arc<Frontend>) -> Option<Far> {
        let target = if self.asked.http && frontend.protocol != AppProtocol::Tcp {
            self.http_target(frontend)?
        } else {
            self.tcp_target(frontend)?
        };
        let mut backends = Vec::new();
        self.tell_target(&target, &mut backends);
        let mut seen = std::collections::BTreeSet::new();
        backends.retain(|backend: &Arc<Backend>| seen.insert(backend.key));
        let told: Vec<Option<Far>> = backends
            .iter()
            .take(MOST_BACKENDS)
            .map(|backend| self.backend(backend))
            .collect();
        told.into_iter().flatten().next()
    }

    fn direct(&mut self, direct: &Direct) -> Option<Far> {
        self.steps.add(
            "route",
            State::Ok,
            "none: straight to the endpoint",
            "routes act on calls to the service, not to an endpoint",
        );
        self.tls(&direct.endpoint)
    }
}
