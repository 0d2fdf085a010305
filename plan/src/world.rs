//! Many facts about one thing become one truth: hosts with their standing, workloads with their rights.
//!
//! In: the catalog and this host's configuration. Out: instances and registry views that may be used, or
//! why not. Never: trusts a record that its host has no right to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use mesh_model::{
    address::is_loopback,
    catalog::{Catalog, HostFacts, Liveness, MeshFacts, Resource, ResourceKey},
    config::LocalService,
    endpoint::{Health, Locality},
    fact::{RegistryView, WireHealth, Workload},
    grant::{HostGrant, covers},
    name::{HostId, Namespace, ServiceAccount, ServiceId, ServiceName},
    service::ServicePort,
};

use crate::{Input, findings::Findings, locality, readers, revocations};

/// Everything known, as one truth.
#[derive(Debug)]
pub(crate) struct World<'a> {
    pub(crate) input: &'a Input<'a>,
    pub(crate) mesh: &'a MeshFacts,
    /// Programs of this host as configured, by service and name.
    pub(crate) locals: Vec<&'a LocalService>,
    /// Programs of all hosts, by service, host and name.
    pub(crate) instances: Vec<Instance>,
    /// Registry views that may be used: this host's own first.
    pub(crate) views: Vec<View<'a>>,
    /// Hosts whose rights were taken back.
    pub(crate) revoked: BTreeSet<HostId>,
    /// Names of hosts for people, unique.
    host_names: BTreeMap<HostId, Arc<str>>,
    /// The name of no host.
    no_name: Arc<str>,
}

/// A registry's view of a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    said: &'a RegistryView,
    /// True when this host made it, so that its loopback addresses are this host's.
    pub(crate) own: bool,
    /// The host that told of it; `None`: this one keeps it to itself.
    pub(crate) host: Option<HostId>,
    /// The port's name, where the registry names ports; else empty.
    pub(crate) port_name: &'a str,
}

impl<'a> View<'a> {
    /// Of a record: its key ends with the port's name, where the registry names ports.
    fn new(key: &'a str, view: &'a RegistryView, own: bool, host: Option<HostId>) -> Self {
        let head = "view///".len() + view.source.len() + view.namespace.len() + view.service.len();
        let rest = key.get(head..).unwrap_or_default();
        Self {
            said: view,
            own,
            host,
            port_name: rest.strip_prefix('/').unwrap_or_default(),
        }
    }
}

impl std::ops::Deref for View<'_> {
    type Target = RegistryView;

    fn deref(&self) -> &RegistryView {
        self.said
    }
}

/// A program on a host.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, as stated by the host"
)]
pub(crate) struct Instance {
    pub(crate) host: HostId,
    pub(crate) host_name: Arc<str>,
    /// True when it runs on this host.
    pub(crate) own: bool,
    pub(crate) service: ServiceId,
    pub(crate) account: ServiceAccount,
    pub(crate) labels: Arc<BTreeMap<String, String>>,
    pub(crate) ports: Vec<ServicePort>,
    /// Where it listens as this host would dial it; the host's own address when only its host can reach it.
    pub(crate) address: IpAddr,
    /// True when this host can reach it in plaintext.
    pub(crate) open: bool,
    /// The tunnel of its host; `None`: it has none, or is this host.
    pub(crate) tunnel: Option<SocketAddr>,
    pub(crate) health: Health,
    pub(crate) weight: u32,
    /// Where its host is.
    pub(crate) locality: Option<Arc<Locality>>,
    pub(crate) strict: bool,
    pub(crate) fail_closed: bool,
    /// Name of the instance on its host.
    pub(crate) name: String,
    /// Why it may not be used at all.
    pub(crate) refused: Option<String>,
    /// Why it is only used when nothing better is left.
    pub(crate) reluctant: Option<&'static str>,
}

impl<'a> World<'a> {
    pub(crate) fn build(input: &'a Input<'a>, mesh: &'a MeshFacts, findings: &Findings) -> Self {
        let revoked = revocations::revoked(input.catalog);
        let mut world = Self {
            input,
            mesh,
            locals: locals(input),
            instances: Vec::new(),
            views: Vec::new(),
            revoked,
            host_names: host_names(input.catalog),
            no_name: Arc::from(""),
        };
        let mut instances = Vec::new();
        for (id, host) in &input.catalog.hosts {
            for (key, workload) in &host.workloads {
                match world.instance(*id, host, workload) {
                    Some(instance) => instances.push(instance),
                    None if *id == mesh.host => {}
                    None => findings.warning(
                        "bad-record",
                        &format!("{} {key}", world.host_name(*id)),
                        "the host states a workload that cannot be read",
                        "upgrade meshd on that host",
                    ),
                }
            }
        }
        instances.sort_by(|a, b| (&a.service, a.host, &a.name).cmp(&(&b.service, b.host, &b.name)));
        for instance in &instances {
            if let Some(refused) = &instance.refused {
                findings.warning(
                    "not-granted",
                    &format!("{} on {}", instance.service, instance.host_name),
                    refused.clone(),
                    "let the host join again with a token for this service (`meshctl token create`)",
                );
            }
        }
        world.instances = instances;
        world.views = world.usable_views(findings);
        world
    }

    /// This host's name for people.
    pub(crate) fn own_name(&self) -> Arc<str> {
        let configured = self.input.boot.host_name.as_deref().map(Arc::from);
        configured.unwrap_or_else(|| self.host_name(self.mesh.host))
    }

    /// Where this host is by its own configuration.
    pub(crate) fn own_locality(&self) -> Option<Arc<Locality>> {
        let own = &self.input.boot.locality;
        (*own != Locality::default()).then(|| Arc::new(own.clone()))
    }

    /// How far an endpoint is from this host.
    pub(crate) fn distance(&self, locality: Option<&Arc<Locality>>) -> u8 {
        locality::distance(&self.input.boot.locality, locality)
    }

    pub(crate) fn host_name(&self, host: HostId) -> Arc<str> {
        self.host_names
            .get(&host)
            .map_or_else(|| Arc::from(host.short()), Arc::clone)
    }

    /// The host name of what runs on no host of the mesh.
    pub(crate) fn no_name(&self) -> Arc<str> {
        Arc::clone(&self.no_name)
    }

    /// The addresses of this host, or loopback when it has none.
    pub(crate) fn own_addresses(&self) -> Vec<IpAddr> {
        if self.input.host_addresses.is_empty() {
            vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]
        } else {
            self.input.host_addresses.to_vec()
        }
    }

    /// Resources of a kind, oldest first, then by name.
    pub(crate) fn by_age(&self, kind: &str) -> Vec<(&'a ResourceKey, &'a Arc<Resource>)> {
        let resources = self.input.catalog.resources.iter();
        let mut found: Vec<_> = resources.filter(|(key, _)| key.kind == kind).collect();
        found.sort_by(|a, b| (a.1.created_ms, a.0).cmp(&(b.1.created_ms, b.0)));
        found
    }

    fn instance(&self, id: HostId, host: &HostFacts, workload: &Workload) -> Option<Instance> {
        let service = ServiceId::new(
            Namespace::new(&workload.namespace).ok()?,
            ServiceName::new(&workload.service).ok()?,
        );
        let own = id == self.mesh.host;
        let local = if own {
            Some(self.local(&service, &workload.instance)?)
        } else {
            None
        };
        let first = first_address(host, self.input.host_addresses);
        let stated: Option<IpAddr> = workload
            .address
            .parse()
            .ok()
            .map(|ip: IpAddr| ip.to_canonical());
        let address = match local {
            Some(local) => self.own_target(local),
            None => stated.or(first)?,
        };
        let account = ServiceAccount::new(&workload.service_account).ok()?;
        Some(Instance {
            host: id,
            host_name: self.host_name(id),
            own,
            refused: self.refusal(id, host, &service, &account, !workload.ports.is_empty()),
            reluctant: if own {
                None
            } else {
                reluctance(host, self.input.now_ms)
            },
            labels: labels(&workload.labels, &service.name),
            service,
            account,
            ports: workload.ports.iter().filter_map(port).collect(),
            address,
            open: if own {
                !is_loopback(address)
            } else {
                stated.is_some()
            },
            tunnel: if own { None } else { tunnel(host, first) },
            health: health(workload.health),
            weight: workload.weight.clamp(1, 1000),
            locality: if own {
                self.own_locality()
            } else {
                locality::of_host(host.info.as_deref())
            },
            strict: workload.strict,
            fail_closed: workload.fail_closed,
            name: workload.instance.clone(),
        })
    }

    fn local(&self, service: &ServiceId, instance: &str) -> Option<&LocalService> {
        self.locals
            .iter()
            .find(|local| local.service == *service && local.instance == instance)
            .copied()
    }

    /// Where this host dials one of its own programs.
    pub(crate) fn own_target(&self, local: &LocalService) -> IpAddr {
        let own = self.input.host_addresses.first().copied();
        match local.address {
            Some(address) if !address.is_unspecified() => address,
            _ => own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        }
    }

    /// Why the host may not offer this service: no grant, an ended one, or one that does not cover it.
    fn refusal(
        &self,
        id: HostId,
        host: &HostFacts,
        service: &ServiceId,
        account: &ServiceAccount,
        offers: bool,
    ) -> Option<String> {
        let grant = match self.right(id, host) {
            Ok(grant) => grant,
            Err(why) => return Some(why),
        };
        let namespace = service.namespace.as_str();
        let covered = |name: &str| covers(&grant.may_register, namespace, name);
        if offers && !covered(service.name.as_str()) {
            return Some(format!("the host has no right to offer {service}"));
        }
        if offers && !covered(account.as_str()) {
            return Some(format!(
                "the host has no right to present the account {namespace}/{account}"
            ));
        }
        None
    }

    /// The host's grant in force.
    pub(crate) fn right<'h>(
        &self,
        id: HostId,
        host: &'h HostFacts,
    ) -> Result<&'h HostGrant, String> {
        if self.revoked.contains(&id) {
            return Err("the host's rights were taken back".to_owned());
        }
        match &host.grant {
            None => Err("the host's grant has not arrived".to_owned()),
            Some(grant) if grant.not_after_ms != 0 && grant.not_after_ms <= self.input.now_ms => {
                Err("the host's grant has ended".to_owned())
            }
            Some(grant) => Ok(grant),
        }
    }

    fn usable_views(&self, findings: &Findings) -> Vec<View<'a>> {
        let mut views: Vec<View<'a>> = self
            .input
            .catalog
            .local_views
            .iter()
            .map(|(key, view)| View::new(key, view, true, None))
            .collect();
        for (id, host) in &self.input.catalog.hosts {
            for (key, view) in &host.views {
                let refused = match self.right(*id, host) {
                    Err(why) => Some(why),
                    Ok(grant) => (!covers(&grant.may_register, &view.namespace, &view.service))
                        .then(|| {
                            format!(
                                "the host has no right to tell of {}/{}",
                                view.namespace, view.service
                            )
                        }),
                };
                match refused {
                    None => views.push(View::new(key, view, *id == self.mesh.host, Some(*id))),
                    Some(why) => findings.warning(
                        "not-granted",
                        &format!("{} of {}", view.source, self.host_name(*id)),
                        why,
                        "let the host join again with a token for this service (`meshctl token create`)",
                    ),
                }
            }
        }
        views.sort_by_key(|view| !view.own);
        self.of_mesh(views, findings)
    }

    /// Of the views of the mesh's own sources those of the reader that counts.
    fn of_mesh(&self, views: Vec<View<'a>>, findings: &Findings) -> Vec<View<'a>> {
        let elected = readers::readers(self.input.catalog, self.input.now_ms);
        for one in elected.iter().filter(|one| one.readers.is_empty()) {
            let name = one.source.id.trim_start_matches("mesh/");
            findings.warning(
                "source-unread",
                &format!("ServiceSource/{name}"),
                "no host may read it: none lives, carries its labels and may tell of every service",
                "correct spec.hosts, or let a host join with a token for all services (`*`)",
            );
        }
        let believed = readers::believed(&elected);
        let counts = |view: &View<'_>| {
            let reader = believed.get(view.source.as_str());
            reader.is_none_or(|reader| view.host == Some(*reader))
        };
        views.into_iter().filter(counts).collect()
    }
}

/// In an order that does not depend on that of the files.
fn locals<'a>(input: &Input<'a>) -> Vec<&'a LocalService> {
    let mut all: Vec<&LocalService> = input
        .live
        .services
        .iter()
        .map(|service| &**service)
        .collect();
    all.sort_by(|a, b| (&a.service, &a.instance).cmp(&(&b.service, &b.instance)));
    all
}

/// Names for people; of two hosts with one name both get their id behind it.
fn host_names(catalog: &Catalog) -> BTreeMap<HostId, Arc<str>> {
    let said = |host: &HostFacts| -> Option<String> {
        let info = host
            .info
            .as_ref()
            .map(|info| info.name.clone())
            .filter(|name| !name.is_empty());
        info.or_else(|| host.grant.as_ref().map(|grant| grant.name.clone()))
            .filter(|name| !name.is_empty())
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in catalog.hosts.values().filter_map(|host| said(host)) {
        *counts.entry(name).or_default() += 1;
    }
    let name_of = |id: &HostId, host: &HostFacts| match said(host) {
        Some(name) if counts.get(&name) == Some(&1) => name,
        Some(name) => format!("{name}-{}", id.short()),
        None => id.short(),
    };
    catalog
        .hosts
        .iter()
        .map(|(id, host)| (*id, Arc::from(name_of(id, host))))
        .collect()
}

/// The address at which we reach a host: the first of a family that we have too.
fn first_address(host: &HostFacts, own: &[IpAddr]) -> Option<IpAddr> {
    let all: Vec<IpAddr> = host
        .info
        .iter()
        .flat_map(|info| &info.addresses)
        .filter_map(|text| text.parse::<IpAddr>().ok())
        .map(|ip| ip.to_canonical())
        .collect();
    let same = |ip: &&IpAddr| own.iter().any(|own| own.is_ipv4() == ip.is_ipv4());
    all.iter().find(same).or_else(|| all.first()).copied()
}

fn tunnel(host: &HostFacts, address: Option<IpAddr>) -> Option<SocketAddr> {
    let port = u16::try_from(host.info.as_ref()?.tunnel_port)
        .ok()
        .filter(|port| *port != 0)?;
    Some(SocketAddr::new(address?, port))
}

fn reluctance(host: &HostFacts, now_ms: u64) -> Option<&'static str> {
    match host.liveness {
        Liveness::Down => Some("its host does not answer"),
        Liveness::Left => Some("its host has left"),
        _ if host.leaving => Some("its host is leaving"),
        _ if host.lease_until_ms != 0 && host.lease_until_ms <= now_ms => {
            Some("its host has not been heard of for too long")
        }
        Liveness::Unknown | Liveness::Alive | Liveness::Suspect => None,
    }
}

/// The workload's labels with what goes without saying: `app` is the service's name.
pub(crate) fn labels(
    stated: &BTreeMap<String, String>,
    service: &ServiceName,
) -> Arc<BTreeMap<String, String>> {
    let mut all = stated.clone();
    for key in ["app", "app.kubernetes.io/name"] {
        all.entry(key.to_owned())
            .or_insert_with(|| service.as_str().to_owned());
    }
    Arc::new(all)
}

/// True when every label of the selector is there.
pub(crate) fn selects(
    selector: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

pub(crate) fn health(wire: i32) -> Health {
    WireHealth::try_from(wire).map_or(Health::Unknown, Health::from)
}

fn port(stated: &mesh_model::fact::WorkloadPort) -> Option<ServicePort> {
    let number = |number: u32| u16::try_from(number).ok().filter(|number| *number != 0);
    Some(ServicePort {
        name: Arc::from(stated.name.as_str()),
        port: number(stated.port)?,
        target: number(stated.target)?,
        protocol: stated.protocol.parse().unwrap_or_default(),
    })
}
