//! Discovery sources: which keys each kind takes.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use super::{absolute, span};
use crate::{
    config::{
        Access, DnsRecord, EtcdLayout, SourceConfig, SourceKind, SourceTls,
        file::{FileDnsRecord, FileSource},
    },
    name::{ServiceName, is_label},
    written::{At, suggestion},
};

/// Kinds, with the keys that each takes beside `id`, `kind`, `publish` and `services`.
const KINDS: [(&str, &[&str]); 11] = [
    ("file", &["directory"]),
    (
        "consul",
        &[
            "addresses",
            "token_file",
            "tls",
            "datacenter",
            "namespace",
            "partition",
            "tags",
            "passing",
            "max_watches",
        ],
    ),
    (
        "etcd",
        &[
            "addresses",
            "token_file",
            "username",
            "password_file",
            "tls",
            "layout",
            "prefix",
        ],
    ),
    (
        "eureka",
        &[
            "addresses",
            "username",
            "password_file",
            "tls",
            "zone",
            "poll",
            "secure_port",
        ],
    ),
    (
        "nomad",
        &[
            "addresses",
            "token_file",
            "tls",
            "region",
            "namespace",
            "max_watches",
        ],
    ),
    (
        "marathon",
        &[
            "addresses",
            "token_file",
            "username",
            "password_file",
            "tls",
            "prefix",
            "port_index",
        ],
    ),
    (
        "serverset",
        &["addresses", "username", "password_file", "tls", "path"],
    ),
    (
        "zk-leader",
        &["addresses", "username", "password_file", "tls", "path"],
    ),
    (
        "curator",
        &["addresses", "username", "password_file", "tls", "path"],
    ),
    ("dns", &["servers", "record", "udp"]),
    (
        "kubernetes",
        &[
            "kubeconfig",
            "context",
            "namespaces",
            "selector",
            "pod_labels",
        ],
    ),
];

pub(super) fn sources(given: &[FileSource], at: &At<'_>) -> Vec<SourceConfig> {
    let mut found: Vec<SourceConfig> = Vec::new();
    for (index, source) in given.iter().enumerate() {
        let at = at.index(index);
        let Some(kind) = kind(source, &at) else {
            continue;
        };
        let id = source
            .id
            .clone()
            .unwrap_or_else(|| format!("{}/{}", kind.word(), index + 1));
        if id.len() > 63 || !id.split('/').all(is_label) {
            at.key("id")
                .fault(format!("{id:?} is no id"), "use 1 to 63 of a-z 0-9 - and /");
        }
        if found.iter().any(|other| other.id == id) {
            at.key("id").fault(
                format!("{id:?} is the id of another source"),
                "give each source its own id",
            );
        }
        found.push(SourceConfig {
            id,
            publish: source.publish.unwrap_or(true),
            services: names(source, &at.key("services")),
            kind,
        });
    }
    found
}

/// A source that has no id yet, shared with the mesh.
pub(super) fn unnamed(source: &FileSource, at: &At<'_>) -> Option<SourceConfig> {
    Some(SourceConfig {
        id: String::new(),
        publish: true,
        kind: kind(source, at)?,
        services: names(source, &at.key("services")),
    })
}

fn names(source: &FileSource, at: &At<'_>) -> Option<BTreeSet<ServiceName>> {
    Some(service_names(source.services.as_ref()?, at))
}

/// A list of services.
pub(super) fn service_names(given: &[String], at: &At<'_>) -> BTreeSet<ServiceName> {
    let mut names = BTreeSet::new();
    for (index, name) in given.iter().enumerate() {
        match ServiceName::new(name) {
            Ok(name) => {
                names.insert(name);
            }
            Err(error) => at
                .index(index)
                .fault(error.to_string(), "write the name of a service"),
        }
    }
    names
}

fn kind(source: &FileSource, at: &At<'_>) -> Option<SourceKind> {
    let words: Vec<&str> = KINDS.iter().map(|(word, _)| *word).collect();
    let Some(word) = source.kind.as_deref() else {
        at.key("kind")
            .fault("is missing", format!("use one of {}", words.join(", ")));
        return None;
    };
    let Some((word, keys)) = KINDS.iter().find(|(known, _)| *known == word) else {
        at.key("kind").fault(
            format!("{word:?} is no kind of source"),
            suggestion(word, &words),
        );
        return None;
    };
    foreign(word, keys, at);
    match *word {
        "file" => {
            let Some(directory) = &source.directory else {
                at.key("directory")
                    .fault("is missing", "write the directory to watch");
                return None;
            };
            let directory = absolute(directory, &at.key("directory"));
            Some(SourceKind::File { directory })
        }
        "dns" => dns(source, at),
        "kubernetes" => Some(SourceKind::Kubernetes {
            kubeconfig: file(source.kubeconfig.as_deref(), &at.key("kubeconfig")),
            context: source.context.clone(),
            namespaces: namespaces(source, &at.key("namespaces")),
            selector: source.selector.clone().unwrap_or_default(),
            pod_labels: source.pod_labels.unwrap_or(false),
        }),
        _ => remote(word, source, at),
    }
}

fn namespaces(source: &FileSource, at: &At<'_>) -> Vec<String> {
    let given = source.namespaces.clone().unwrap_or_default();
    for (index, name) in given.iter().enumerate() {
        if !is_label(name) {
            at.index(index).fault(
                format!("{name:?} is no namespace"),
                "use 1 to 63 of a-z 0-9 and -",
            );
        }
    }
    given
}

/// Keys of other kinds do nothing here, so they are faults.
fn foreign(word: &str, keys: &[&str], at: &At<'_>) {
    for (_, others) in KINDS {
        for key in others.iter().filter(|key| !keys.contains(key)) {
            let at = at.key(key);
            if at.node().is_some() {
                at.fault(
                    format!("a source of kind {word} has no such key"),
                    format!("use {}", keys.join(", ")),
                );
            }
        }
    }
}

/// Registries with servers.
fn remote(word: &str, source: &FileSource, at: &At<'_>) -> Option<SourceKind> {
    let access = access(word, source, at)?;
    let text =
        |value: &Option<String>, default: &str| value.clone().unwrap_or_else(|| default.to_owned());
    let path = |value: &Option<String>, default: &str, key: &str| {
        let path = text(value, default);
        if !path.is_empty() && !path.starts_with('/') {
            at.key(key).fault(
                format!("{path:?} does not begin with /"),
                format!("write \"/{path}\""),
            );
        }
        path.trim_end_matches('/').to_owned()
    };
    Some(match word {
        "consul" => SourceKind::Consul {
            access,
            datacenter: source.datacenter.clone(),
            namespace: source.namespace.clone(),
            partition: source.partition.clone(),
            tags: source.tags.clone().unwrap_or_default(),
            passing: source.passing.unwrap_or(false),
            max_watches: watches(source, SourceKind::CONSUL_WATCHES, at),
        },
        "etcd" => {
            let layout = layout(source, at);
            SourceKind::Etcd {
                access,
                layout,
                prefix: text(&source.prefix, layout.prefix()),
            }
        }
        "eureka" => SourceKind::Eureka {
            access,
            zone: source.zone.clone(),
            poll: span(
                source.poll.as_deref().unwrap_or("30s"),
                &at.key("poll"),
                Duration::from_secs(5),
                Duration::from_mins(5),
            ),
            secure_port: source.secure_port.unwrap_or(false),
        },
        "nomad" => SourceKind::Nomad {
            access,
            region: source.region.clone(),
            namespace: text(&source.namespace, "*"),
            max_watches: watches(source, SourceKind::NOMAD_WATCHES, at),
        },
        "marathon" => SourceKind::Marathon {
            access,
            prefix: path(&source.prefix, "", "prefix"),
            port_index: source.port_index.unwrap_or(0),
        },
        "serverset" => SourceKind::Serverset {
            access,
            path: path(&source.path, "/discovery", "path"),
        },
        "zk-leader" => SourceKind::Leader {
            access,
            path: path(&source.path, "/leaders", "path"),
        },
        _ => SourceKind::Curator {
            access,
            path: path(&source.path, "/services", "path"),
        },
    })
}

fn watches(source: &FileSource, unset: u16, at: &At<'_>) -> u16 {
    let given = source.max_watches.unwrap_or(unset);
    if !(1..=10_000).contains(&given) {
        at.key("max_watches")
            .fault(format!("{given} is out of range"), "use 1 to 10000");
    }
    given.clamp(1, 10_000)
}

fn layout(source: &FileSource, at: &At<'_>) -> EtcdLayout {
    let Some(word) = source.layout.as_deref() else {
        return EtcdLayout::default();
    };
    let words: Vec<&str> = EtcdLayout::ALL.iter().map(|(word, _)| *word).collect();
    let found = EtcdLayout::ALL.iter().find(|(known, _)| *known == word);
    found.map_or_else(
        || {
            at.key("layout")
                .fault(format!("{word:?} is no layout"), suggestion(word, &words));
            EtcdLayout::default()
        },
        |(_, layout)| *layout,
    )
}

fn access(word: &str, source: &FileSource, at: &At<'_>) -> Option<Access> {
    let addresses = source.addresses.clone().unwrap_or_default();
    if addresses.is_empty() {
        at.key("addresses").fault(
            "is missing",
            format!("write where {word} is, such as {}", example(word)),
        );
        return None;
    }
    for (index, address) in addresses.iter().enumerate() {
        if !reachable(word, address) {
            at.key("addresses").index(index).fault(
                format!("{address:?} is no address of {word}"),
                format!("write such as {}", example(word)),
            );
        }
    }
    let tls = source.tls.as_ref();
    let key = at.key("tls");
    let part = |value: Option<&String>, name: &str| file(value.map(String::as_str), &key.key(name));
    let given = SourceTls {
        ca: part(tls.and_then(|tls| tls.ca.as_ref()), "ca"),
        certificate: part(tls.and_then(|tls| tls.certificate.as_ref()), "certificate"),
        key: part(tls.and_then(|tls| tls.key.as_ref()), "key"),
        server_name: tls.and_then(|tls| tls.server_name.clone()),
    };
    if given.certificate.is_some() != given.key.is_some() {
        key.fault(
            "certificate and key belong together",
            "write both, or neither",
        );
    }
    if source.username.is_some() != source.password_file.is_some() {
        at.key("username").fault(
            "username and password_file belong together",
            "write both, or neither",
        );
    }
    Some(Access {
        addresses,
        token_file: file(source.token_file.as_deref(), &at.key("token_file")),
        username: source.username.clone(),
        password_file: file(source.password_file.as_deref(), &at.key("password_file")),
        tls: given,
    })
}

fn is_zookeeper(word: &str) -> bool {
    matches!(word, "serverset" | "zk-leader" | "curator")
}

fn example(word: &str) -> &'static str {
    match word {
        "consul" => "\"http://127.0.0.1:8500\" or \"unix:///run/consul.sock\"",
        "etcd" => "\"http://127.0.0.1:2379\"",
        "eureka" => "\"http://eureka:8761/eureka\"",
        "nomad" => "\"http://127.0.0.1:4646\"",
        "marathon" => "\"http://marathon:8080\"",
        _ => "\"zk1:2181\"",
    }
}

fn reachable(word: &str, address: &str) -> bool {
    if is_zookeeper(word) {
        let place = address.strip_prefix("tls://").unwrap_or(address);
        // The path at the end of an address is below which all is.
        let place = place.split('/').next().unwrap_or_default();
        let port = place
            .rsplit_once(':')
            .map(|(host, port)| (host, port.parse::<u16>()));
        return matches!(port, Some((host, Ok(1..))) if !host.is_empty() && !host.contains('/'));
    }
    let after = |scheme: &str| address.strip_prefix(scheme);
    let web = after("http://").or_else(|| after("https://"));
    match after("unix://") {
        Some(path) => word == "consul" && path.starts_with('/'),
        None => web
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains('@')),
    }
}

fn file(text: Option<&str>, at: &At<'_>) -> Option<PathBuf> {
    text.map(|text| absolute(text, at))
}

fn dns(source: &FileSource, at: &At<'_>) -> Option<SourceKind> {
    let mut servers = Vec::new();
    for (index, text) in source.servers.iter().flatten().enumerate() {
        let parsed = text
            .parse()
            .or_else(|_| text.parse().map(|ip| std::net::SocketAddr::new(ip, 53)));
        match parsed {
            Ok(address) => servers.push(address),
            Err(_) => at.key("servers").index(index).fault(
                format!("{text:?} is no IP address"),
                "write an IP address, with :port when it is not 53",
            ),
        }
    }
    if source.record.is_empty() {
        at.key("record").fault(
            "is missing",
            "write [[source.record]] with service and name",
        );
        return None;
    }
    let records = source.record.iter().enumerate();
    Some(SourceKind::Dns {
        servers,
        records: records
            .filter_map(|(index, one)| record(one, &at.key("record").index(index)))
            .collect(),
        udp: source.udp.unwrap_or(false),
    })
}

fn record(given: &FileDnsRecord, at: &At<'_>) -> Option<DnsRecord> {
    let text = given.service.as_deref().unwrap_or_default();
    let service = ServiceName::new(text)
        .map_err(|error| {
            at.key("service")
                .fault(error.to_string(), "write the service that it becomes");
        })
        .ok();
    let name = given.name.clone().unwrap_or_default();
    if name.is_empty() || name.len() > 253 || name.contains(char::is_whitespace) {
        at.key("name").fault(
            format!("{name:?} is no DNS name"),
            "write the name to ask for",
        );
        return None;
    }
    if given.port == Some(0) {
        at.key("port").fault("0 is no port", "write 1 to 65535");
    }
    Some(DnsRecord {
        service: service?,
        name,
        port: given.port,
    })
}
