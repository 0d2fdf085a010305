//! A mesh described by a few lines of text, followed by `===` and YAML documents.
//!
//! ```text
//! mesh m.internal mesh.internal [strict]
//! host h1 10.0.0.1 own                      | down | left | leaving | stale | no-tunnel | no-grant | grant=ns/*,x | at=eu/eu-1/r7
//! work h1 words http:80>8080/http version=v1 | health=… strict loopback closed account=x instance=x weight=n user=n unit=x
//! view local file/etc legacy port=80 10.0.0.9:8080 10.0.0.10:8080!unhealthy version=v1 priority=1
//! source file/etc precedence=1 weight=9     of this host, in this order | terms h2 file/etc 1 9: what h2 says
//! merge words failover file/b file/etc=9     | merge * first
//! ask simon GET http://words/ [header: value]
//! tell GET /path caller server-name address
//! ```

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use mesh_model::{
    catalog::{Catalog, HostFacts, Liveness, MeshFacts, Resource},
    commit::CommitId,
    config::{
        Access, Boot, Live, LocalService, MergeRule, SourceConfig, SourceKind, SourceTerm, Sources,
    },
    document::parse_documents,
    fact::{HostInfo, RegistryView, ViewEndpoint, WireHealth, Workload, WorkloadPort},
    grant::HostGrant,
    name::{HostId, MeshId, ServiceId},
    principal::TrustDomain,
};
use mesh_plan::{Allocations, Breath, Input};

pub(crate) const NOW: u64 = 1_000_000_000;

/// Everything that a plan is made from, owned.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) catalog: Catalog,
    pub(crate) boot: Boot,
    pub(crate) live: Live,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) allocations: Allocations,
    pub(crate) questions: Vec<String>,
}

impl World {
    pub(crate) fn parse(text: &str) -> Self {
        let (lines, documents) = text.split_once("\n===\n").unwrap_or((text, ""));
        let (boot, live) = mesh_model::config::read(&Sources::default()).unwrap();
        let mut world = Self {
            catalog: Catalog::default(),
            boot,
            live,
            addresses: Vec::new(),
            allocations: Allocations::default(),
            questions: Vec::new(),
        };
        for line in lines
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        {
            world.line(line);
        }
        world.documents(documents);
        world
    }

    pub(crate) fn input(&self) -> Input<'_> {
        Input {
            catalog: &self.catalog,
            boot: &self.boot,
            live: &self.live,
            host_addresses: &self.addresses,
            previous: None,
            allocations: &self.allocations,
            now_ms: NOW,
            transparent: true,
            breath: Breath::NONE,
        }
    }

    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["mesh", trust, domain, rest @ ..] => {
                self.mesh(trust, domain, rest.contains(&"strict"));
            }
            ["host", name, address, rest @ ..] => self.host(name, address, rest),
            ["work", host, service, rest @ ..] => self.work(host, service, rest),
            ["view", host, source, service, rest @ ..] => self.view(host, source, service, rest),
            ["source", id, rest @ ..] => self.source(id, rest),
            ["terms", host, id, precedence, weight] => {
                let terms = mesh_model::fact::SourceTerms {
                    id: (*id).to_owned(),
                    kind: "file".to_owned(),
                    scope: String::new(),
                    precedence: precedence.parse().unwrap(),
                    weight: weight.parse::<u32>().unwrap() + 1,
                    tags: Vec::new(),
                    synced: true,
                };
                self.edit_host(Self::host_id(host), |facts| {
                    let mut info = facts.info.as_deref().cloned().unwrap();
                    info.sources.push(terms);
                    facts.info = Some(Arc::new(info));
                });
            }
            ["merge", service, policy, rest @ ..] => {
                let mut rule = MergeRule {
                    service: (*service != "*").then(|| ServiceId::parse(service).unwrap()),
                    policy: policy.parse().unwrap(),
                    ..MergeRule::default()
                };
                for word in rest {
                    match word.split_once('=') {
                        Some((source, weight)) => {
                            let weight = weight.parse().unwrap();
                            rule.weights.insert(source.to_owned(), weight);
                        }
                        None => rule.sources.push((*word).to_owned()),
                    }
                }
                self.live.merge.rules.push(rule);
            }
            ["ask" | "tell", ..] => self.questions.push(line.to_owned()),
            _ => panic!("not understood: {line}"),
        }
    }

    fn source(&mut self, id: &str, rest: &[&str]) {
        let mut term = SourceTerm::default();
        let mut kind = SourceKind::File {
            directory: "/none".into(),
        };
        for word in rest {
            match word.split_once('=').unwrap() {
                ("precedence", number) => term.precedence = Some(number.parse().unwrap()),
                ("weight", number) => term.weight = Some(number.parse().unwrap()),
                (key, value) => kind = kind_of(key, value),
            }
        }
        self.live.merge.terms.insert(id.to_owned(), term);
        self.live.sources.push(SourceConfig {
            id: id.to_owned(),
            publish: true,
            services: None,
            kind,
        });
    }

    fn mesh(&mut self, trust: &str, domain: &str, strict: bool) {
        self.catalog.mesh = Some(MeshFacts {
            id: MeshId([7; 16]),
            name: Arc::from("test"),
            trust_domain: TrustDomain::new(trust).unwrap(),
            domain: Arc::from(domain),
            host: HostId([0; 16]),
            strict,
            roots: vec![Arc::from(&b"root"[..])],
        });
    }

    fn host_id(name: &str) -> HostId {
        let mut id = [0; 16];
        for (slot, byte) in id.iter_mut().zip(name.bytes()) {
            *slot = byte;
        }
        HostId(id)
    }

    fn host(&mut self, name: &str, address: &str, rest: &[&str]) {
        let has = |word: &str| rest.contains(&word);
        let id = Self::host_id(name);
        let at = rest.iter().find_map(|word| word.strip_prefix("at="));
        let mut at = at.unwrap_or_default().split('/').map(str::to_owned);
        let mut part = || at.next().unwrap_or_default();
        let (region, zone, sub_zone) = (part(), part(), part());
        if has("own") {
            let known = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
            self.boot.locality = mesh_model::endpoint::Locality {
                region: known(&region),
                zone: known(&zone),
                sub_zone: known(&sub_zone),
            };
            self.catalog.mesh.as_mut().unwrap().host = id;
            self.addresses = address.split(',').map(|ip| ip.parse().unwrap()).collect();
        }
        let grants = rest
            .iter()
            .find_map(|word| word.strip_prefix("grant="))
            .unwrap_or("*");
        let grant = HostGrant {
            name: name.to_owned(),
            may_register: grants.split(',').map(str::to_owned).collect(),
            ..HostGrant::default()
        };
        let info = HostInfo {
            name: name.to_owned(),
            addresses: address.split(',').map(str::to_owned).collect(),
            tunnel_port: if has("no-tunnel") { 0 } else { 15008 },
            region,
            zone,
            sub_zone,
            ..HostInfo::default()
        };
        let facts = HostFacts {
            grant: (!has("no-grant")).then(|| Arc::new(grant)),
            liveness: match () {
                () if has("down") => Liveness::Down,
                () if has("left") => Liveness::Left,
                () => Liveness::Alive,
            },
            lease_until_ms: if has("stale") { NOW - 1 } else { NOW + 60_000 },
            leaving: has("leaving"),
            info: Some(Arc::new(info)),
            ..HostFacts::default()
        };
        self.catalog.hosts.insert(id, Arc::new(facts));
    }

    fn work(&mut self, host: &str, service: &str, rest: &[&str]) {
        let id = Self::host_id(host);
        let service = ServiceId::parse(service).unwrap();
        let mut local = LocalService::named(service.namespace.clone(), service.name.clone());
        let mut workload = Workload {
            namespace: service.namespace.to_string(),
            service: service.name.to_string(),
            health: WireHealth::Healthy.into(),
            weight: 1,
            address: self.catalog.hosts[&id].info.as_ref().unwrap().addresses[0].clone(),
            ..Workload::default()
        };
        for word in rest {
            match (*word, word.split_once('=')) {
                ("strict", _) => workload.strict = true,
                ("closed", _) => {
                    workload.fail_closed = true;
                    local.fail_closed = true;
                }
                ("loopback", _) => {
                    workload.address.clear();
                    local.address = Some("127.0.0.1".parse().unwrap());
                }
                (_, Some(("health", health))) => workload.health = wire(health).into(),
                (_, Some(("account", account))) => local.service_account = account.parse().unwrap(),
                (_, Some(("instance", name))) => name.clone_into(&mut local.instance),
                (_, Some(("weight", weight))) => workload.weight = weight.parse().unwrap(),
                (_, Some(("user", uid))) => local.recognise.uids.push(uid.parse().unwrap()),
                (_, Some(("unit", unit))) => local.recognise.unit = Some(unit.to_owned()),
                (_, Some((key, value))) => {
                    local.labels.insert(key.to_owned(), value.to_owned());
                }
                (port, None) => workload.ports.push(parse_port(port)),
            }
        }
        local.ports = workload
            .ports
            .iter()
            .map(|port| mesh_model::service::ServicePort {
                name: Arc::from(port.name.as_str()),
                port: port.port.try_into().unwrap(),
                target: port.target.try_into().unwrap(),
                protocol: port.protocol.parse().unwrap(),
            })
            .collect();
        workload.labels.clone_from(&local.labels);
        workload.instance.clone_from(&local.instance);
        workload.service_account = local.service_account.to_string();
        let key = format!("workload/{service}/{}", workload.instance);
        self.edit_host(id, |facts| {
            facts.workloads.insert(key, Arc::new(workload));
        });
        if self
            .catalog
            .mesh
            .as_ref()
            .is_some_and(|mesh| mesh.host == id)
        {
            self.live.services.push(Arc::new(local));
        }
    }

    fn view(&mut self, host: &str, source: &str, service: &str, rest: &[&str]) {
        let service = ServiceId::parse(service).unwrap();
        let mut view = RegistryView {
            source: source.to_owned(),
            namespace: service.namespace.to_string(),
            service: service.name.to_string(),
            ..RegistryView::default()
        };
        let mut labels = BTreeMap::new();
        let mut priority = 0;
        for word in rest {
            match word.split_once('=') {
                Some(("priority", number)) => priority = number.parse().unwrap(),
                Some(("port", port)) => view.port = port.parse().unwrap(),
                Some((key, value)) => {
                    labels.insert(key.to_owned(), value.to_owned());
                }
                None => {
                    let (address, health) = word.split_once('!').unwrap_or((word, "healthy"));
                    view.endpoints.push(ViewEndpoint {
                        id: format!("e{}", view.endpoints.len()),
                        address: address.to_owned(),
                        health: wire(health).into(),
                        weight: 1,
                        priority,
                        labels: labels.clone().into(),
                    });
                }
            }
        }
        let key = format!("view/{source}/{service}");
        if host == "local" {
            self.catalog.local_views.insert(key, Arc::new(view));
        } else {
            self.edit_host(Self::host_id(host), |facts| {
                facts.views.insert(key, Arc::new(view));
            });
        }
    }

    pub(crate) fn edit_host(&mut self, id: HostId, edit: impl FnOnce(&mut HostFacts)) {
        let facts = self.catalog.hosts.get_mut(&id).unwrap();
        edit(Arc::make_mut(facts));
    }

    /// Each document is a commit of its own, a second after the one before; a document with the annotation
    /// `test/conflict` stands beside the one of its name that came before it.
    fn documents(&mut self, text: &str) {
        let mut texts: Vec<&str> = text.split("\n---\n").collect();
        texts.retain(|text| !text.trim().is_empty());
        for (number, text) in texts.iter().enumerate() {
            let documents =
                parse_documents(text, "golden").unwrap_or_else(|faults| panic!("{faults:#?}"));
            for document in documents {
                let byte = u8::try_from(number + 1).unwrap();
                let revision = CommitId([byte; 32]);
                let conflict = document.metadata.annotations.contains_key("test/conflict");
                let tentative = document.metadata.annotations.contains_key("test/tentative");
                let key = document.key();
                if conflict {
                    let before = self.catalog.resources.get_mut(&key).unwrap();
                    Arc::make_mut(before)
                        .conflicts
                        .push((revision, Arc::new(document)));
                    continue;
                }
                let at = 1000 * u64::from(byte);
                let resource = Resource {
                    document: Arc::new(document),
                    revision,
                    created_ms: at,
                    changed_ms: at,
                    author: Arc::from("alice"),
                    conflicts: Vec::new(),
                    confirm_by_ms: if tentative { NOW + 60_000 } else { 0 },
                };
                self.catalog.resources.insert(key, Arc::new(resource));
            }
        }
    }
}

fn wire(word: &str) -> WireHealth {
    match word {
        "healthy" => WireHealth::Healthy,
        "unknown" => WireHealth::Unknown,
        "degraded" => WireHealth::Degraded,
        "draining" => WireHealth::Draining,
        "unhealthy" => WireHealth::Unhealthy,
        other => panic!("no health: {other}"),
    }
}

/// `[name:]port[>target][/protocol]`
fn parse_port(text: &str) -> WorkloadPort {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "detect"));
    let (name, rest) = rest.split_once(':').unwrap_or(("", rest));
    let (port, target) = rest.split_once('>').unwrap_or((rest, rest));
    WorkloadPort {
        name: name.to_owned(),
        port: port.parse().unwrap(),
        target: target.parse().unwrap(),
        protocol: protocol.to_owned(),
    }
}

/// A registry by its kind, with the part of it that is read.
fn kind_of(kind: &str, part: &str) -> SourceKind {
    let access = Access::default();
    let path = part.to_owned();
    match kind {
        "consul" => SourceKind::Consul {
            access,
            datacenter: Some(path),
            namespace: None,
            partition: None,
            tags: Vec::new(),
            passing: false,
            max_watches: SourceKind::CONSUL_WATCHES,
        },
        "serverset" => SourceKind::Serverset { access, path },
        "zk-leader" => SourceKind::Leader { access, path },
        "curator" => SourceKind::Curator { access, path },
        "marathon" => SourceKind::Marathon {
            access,
            prefix: path,
            port_index: 0,
        },
        other => panic!("no kind {other}"),
    }
}
