//! Services that a registry knows on this host already: what each would become here, and trials of it.
//!
//! In: views of sources, listening sockets, what is configured. Out: proposals with the text of their files.
//! Never: writes below `/etc`; what is tried lies in the state directory until it is confirmed or taken back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use mesh_model::{
    address::{canonical, is_loopback},
    admin::adopt::{AdoptedFile, MARK, Proposal},
    config::LocalService,
    fact::RegistryView,
    name::ServiceId,
    service::AppProtocol,
};

use crate::{
    clock,
    daemon::{Daemon, Request},
};
use listening::Listener;

/// Who listens on this host.
pub(crate) mod listening;
/// Files that are tried.
pub(crate) mod trial;

/// Time after which every host of the mesh is taken to know what this one states.
pub(crate) const KNOWN_BY_ALL: Duration = Duration::from_secs(3);

/// Files of the trial that are of this service.
pub(crate) fn tried(state_dir: &Path, service: &ServiceId) -> Vec<String> {
    let files = trial::files(state_dir).into_iter();
    files
        .filter(|file| services_of(file).contains(service))
        .map(|file| file.name)
        .collect()
}

fn services_of(file: &AdoptedFile) -> Vec<ServiceId> {
    let sources = mesh_model::config::Sources {
        files: vec![(format!("services.d/{}", file.name), file.text.clone())],
        ..mesh_model::config::Sources::default()
    };
    let read = mesh_model::config::read(&sources);
    let services = read.map(|(_, live)| live.services).unwrap_or_default();
    services.iter().map(|one| one.service.clone()).collect()
}

/// Takes back what is tried when its time is over, until the daemon stops.
pub(crate) async fn watch(daemon: Arc<Daemon>) {
    let ground = &daemon.ground;
    let state_dir = &ground.boot.state_dir;
    loop {
        let until = trial::until_ms(state_dir);
        let left = Duration::from_millis(until.saturating_sub(clock::now_ms()));
        let over = async {
            match until {
                0 => std::future::pending().await,
                _ => tokio::time::sleep(left).await,
            }
        };
        tokio::select! {
            () = ground.stop.cancelled() => return,
            () = ground.trial.notified() => continue,
            () = over => {}
        }
        if trial::until_ms(state_dir) != until {
            continue;
        }
        let tried = trial::files(state_dir);
        tracing::info!(files = tried.len(), "a trial of adopted services ends");
        ground.release(tried.iter().flat_map(services_of));
        tokio::select! {
            () = ground.stop.cancelled() => return,
            () = tokio::time::sleep(KNOWN_BY_ALL) => {}
        }
        if trial::until_ms(state_dir) == until {
            if let Err(error) = trial::end(state_dir) {
                tracing::warn!(%error, "a trial cannot be ended");
                tokio::time::sleep(KNOWN_BY_ALL).await;
            }
            drop(daemon.ask(Request::Reload).await);
        }
    }
}

/// Services that registries register of themselves: their own protocols, which secure themselves.
const THEIR_OWN: [&str; 3] = ["consul", "nomad", "nomad-client"];

/// What proposals are made from.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    /// What sources of this host say.
    pub(crate) views: Vec<Arc<RegistryView>>,
    /// Addresses of this host.
    pub(crate) addresses: &'a [IpAddr],
    /// Who listens.
    pub(crate) listeners: Vec<Listener>,
    /// What is configured.
    pub(crate) services: &'a [Arc<LocalService>],
    /// The port that callers of a service dial, by the address of an endpoint.
    pub(crate) dialled: BTreeMap<(ServiceId, SocketAddr), u16>,
    /// Directory of trials.
    pub(crate) trials: &'a str,
}

/// A service of a registry at an address of this host.
struct Found<'a> {
    service: ServiceId,
    view: &'a RegistryView,
    id: &'a str,
    address: SocketAddr,
}

/// One for each instance that a registry has at an address of this host, by service.
pub(crate) fn proposals(known: &Known<'_>) -> Vec<Proposal> {
    let mut found = found(known);
    found.sort_by(|a, b| {
        (&a.service, a.address, &a.view.source).cmp(&(&b.service, b.address, &b.view.source))
    });
    found.dedup_by(|a, b| a.service == b.service && a.address.port() == b.address.port());
    let mut taken = Taken::of(known.services);
    found
        .iter()
        .map(|one| proposal(known, one, &mut taken))
        .collect()
}

fn found<'a>(known: &'a Known<'_>) -> Vec<Found<'a>> {
    let own = |ip: IpAddr| known.addresses.contains(&ip) || is_loopback(ip);
    let mut found = Vec::new();
    for view in &known.views {
        let Ok(service) = ServiceId::parse(&format!("{}/{}", view.namespace, view.service)) else {
            continue;
        };
        if THEIR_OWN.contains(&service.name.as_str()) {
            continue;
        }
        for one in &view.endpoints {
            let address: Option<SocketAddr> = one.address.parse().ok().map(canonical);
            if let Some(address) = address.filter(|address| own(address.ip())) {
                found.push(Found {
                    service: service.clone(),
                    view,
                    id: &one.id,
                    address,
                });
            }
        }
    }
    found
}

/// Units, users and instances that belong to services already.
struct Taken {
    units: BTreeMap<String, ServiceId>,
    users: BTreeMap<u32, ServiceId>,
    instances: BTreeSet<String>,
}

impl Taken {
    fn of(services: &[Arc<LocalService>]) -> Self {
        let mut taken = Self {
            units: BTreeMap::new(),
            users: BTreeMap::new(),
            instances: BTreeSet::new(),
        };
        for one in services {
            taken.instances.insert(one.instance.clone());
            if let Some(unit) = &one.recognise.unit {
                taken.units.insert(unit.clone(), one.service.clone());
            }
            for uid in &one.recognise.uids {
                taken.users.insert(*uid, one.service.clone());
            }
        }
        taken
    }

    /// The instance's name, unique on this host.
    fn instance(&mut self, service: &ServiceId, port: u16) -> String {
        let plain = service.name.to_string();
        let name = if self.instances.contains(&plain) {
            let mut name = plain;
            name.truncate(57);
            format!("{name}-{port}")
        } else {
            plain
        };
        self.instances.insert(name.clone());
        name
    }
}

/// How the program is recognised as a caller.
enum By {
    Unit(String),
    User(u32),
    Nothing(String),
}

impl Taken {
    fn recognise(&mut self, service: &ServiceId, listener: &Listener) -> By {
        if let Some(unit) = &listener.unit {
            let owner = self
                .units
                .entry(unit.clone())
                .or_insert_with(|| service.clone());
            if owner == service {
                return By::Unit(unit.clone());
            }
            return By::Nothing(format!("its unit {unit} is {owner} already"));
        }
        if listener.uid == 0 {
            return By::Nothing("it runs as root without a unit".to_owned());
        }
        let owner = self
            .users
            .entry(listener.uid)
            .or_insert_with(|| service.clone());
        if owner == service {
            return By::User(listener.uid);
        }
        By::Nothing(format!(
            "its user {} is {owner} already",
            user_name(listener.uid)
        ))
    }
}

fn proposal(known: &Known<'_>, found: &Found<'_>, taken: &mut Taken) -> Proposal {
    let port = found.address.port();
    let key = (found.service.clone(), found.address);
    let stated = u16::try_from(found.view.port)
        .ok()
        .filter(|port| *port != 0);
    let dialled = known.dialled.get(&key).copied().or(stated).unwrap_or(port);
    let mut proposal = Proposal {
        service: found.service.to_string(),
        source: found.view.source.clone(),
        registered: found.address.to_string(),
        port: dialled,
        ..Proposal::default()
    };
    let listeners: Vec<&Listener> = known
        .listeners
        .iter()
        .filter(|one| one.port == port && reached(one.address, found.address.ip()))
        .collect();
    if let Some(listener) = listeners.first() {
        proposal.unit = listener.unit.clone().unwrap_or_default();
        if listener.uid != 0 {
            proposal.user = user_name(listener.uid);
        }
    }
    if let Some(there) = configured(known, &found.service, port) {
        state_of(known, there).clone_into(&mut proposal.state);
        proposal.captured = captured(
            found,
            there.recognise.unit.as_deref(),
            &there.recognise.uids,
        );
        proposal.remark.clone_from(&there.origin);
        return proposal;
    }
    let Some(listener) = listeners.first() else {
        "missing".clone_into(&mut proposal.state);
        proposal.remark = format!("nothing listens on {}", found.address);
        return proposal;
    };
    let by = taken.recognise(&found.service, listener);
    let (unit, users) = match &by {
        By::Unit(unit) => (Some(unit.as_str()), Vec::new()),
        By::User(uid) => (None, vec![*uid]),
        By::Nothing(why) => {
            proposal.remark = format!("its own calls stay the host's: {why}");
            (None, Vec::new())
        }
    };
    "ready".clone_into(&mut proposal.state);
    proposal.captured = captured(found, unit, &users);
    let instance = taken.instance(&found.service, port);
    proposal.file = Some(AdoptedFile {
        name: format!("adopted-{}-{instance}.toml", found.service.namespace),
        text: text(found, &instance, (dialled, port), listener, &by),
    });
    proposal
}

/// True when a socket bound to `bound` gets what is sent to `address`.
fn reached(bound: IpAddr, address: IpAddr) -> bool {
    bound == address || bound.is_unspecified() && (bound.is_ipv6() || address.is_ipv4())
}

fn configured<'a>(
    known: &'a Known<'_>,
    service: &ServiceId,
    port: u16,
) -> Option<&'a Arc<LocalService>> {
    known.services.iter().find(|one| {
        one.ports.iter().any(|own| own.target == port)
            && (one.service == *service || one.address.is_none())
    })
}

fn state_of(known: &Known<'_>, there: &LocalService) -> &'static str {
    let file = there
        .origin
        .rsplit_once(':')
        .map_or(&*there.origin, |(file, _)| file);
    if file.starts_with(known.trials) {
        return "tried";
    }
    let ours = std::fs::read_to_string(file).is_ok_and(|text| text.starts_with(MARK));
    if ours { "adopted" } else { "configured" }
}

fn captured(found: &Found<'_>, unit: Option<&str>, users: &[u32]) -> String {
    let calls = match (unit, users) {
        (Some(unit), _) => format!("; calls of {unit}"),
        (None, [uid, ..]) => format!("; calls of user {}", user_name(*uid)),
        (None, []) => String::new(),
    };
    format!("calls to {}{calls}", found.address)
}

pub(crate) fn user_name(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

// Writing into a `String` cannot fail.
fn text(
    found: &Found<'_>,
    instance: &str,
    (dialled, target): (u16, u16),
    listener: &Listener,
    by: &By,
) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let plain = |text: &str| text.replace(char::is_control, " ");
    let mut out = format!(
        "{MARK} from what {} says: instance {} of {} at {}.\n# To undo: `meshctl adopt --undo {}`\n",
        plain(&found.view.source),
        plain(found.id),
        found.service,
        found.address,
        found.service,
    );
    let _infallible = writeln!(out, "name = {}", quoted(found.service.name.as_str()));
    let _infallible = writeln!(
        out,
        "namespace = {}",
        quoted(found.service.namespace.as_str())
    );
    let _infallible = writeln!(out, "instance = {}", quoted(instance));
    let protocol = found.view.protocol.parse().unwrap_or(AppProtocol::Detect);
    let _infallible = writeln!(
        out,
        "ports = [{{ port = {dialled}, target = {target}, protocol = {} }}]",
        quoted(protocol.as_str())
    );
    if !listener.address.is_unspecified() {
        let _infallible = writeln!(out, "address = {}", quoted(&listener.address.to_string()));
    }
    match by {
        By::Unit(unit) => {
            let _infallible = writeln!(out, "unit = {}", quoted(unit));
        }
        By::User(uid) => {
            let _infallible = writeln!(out, "user = {uid}");
        }
        By::Nothing(_) => {}
    }
    out
}

#[cfg(test)]
mod tests;
