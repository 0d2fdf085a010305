//! The namers of Linkerd 1.x, `/#/io.l5d.…`: which service of which kind of source a path means.
//!
//! In: a namer and the segments behind it. Out: the services that it may mean, best first. Forms:
//!
//! | path behind `/#/` | source |
//! |---|---|
//! | `io.l5d.fs/<file>` | `file` |
//! | `io.l5d.consul/<datacenter>/<service>`, `…/<datacenter>/<tag>/<service>` | `consul`; `.local` is the agent's datacenter |
//! | `io.l5d.k8s/<namespace>/<port>/<service>` | `kubernetes` |
//! | `io.l5d.marathon/<app id>` | `marathon` |
//! | `io.l5d.serversets/<path>[:<endpoint>]` | `serverset` |
//! | `io.l5d.zkLeader/<path>` | `zk-leader` |
//! | `io.l5d.curator/<service>` | `curator` |
//! | `io.l5d.dnssrv/<name>` | `dns` |
//! | `io.l5d.etcd/[<namespace>/]<service>` | `etcd` |
//! | `io.l5d.eureka/<application>` | `eureka` |
//! | `io.l5d.nomad/<namespace>/<service>` | `nomad` |
//! | `<id of a source>/[<namespace>/]<service>` | that source |
//!
//! What follows the service is left aside, as Linkerd does. Names are compared as sources write them: lower case, `.`
//! and `_` as `-`.

use std::sync::Arc;

use crate::name::{Namespace, ServiceId, ServiceName};

/// Namers with the kind of source that each reads, and how its paths look.
pub const NAMERS: [(&str, &str, &str); 11] = [
    ("io.l5d.fs", "file", "/#/io.l5d.fs/<file>"),
    (
        "io.l5d.consul",
        "consul",
        "/#/io.l5d.consul/<datacenter>/<service>",
    ),
    (
        "io.l5d.k8s",
        "kubernetes",
        "/#/io.l5d.k8s/<namespace>/<port>/<service>",
    ),
    ("io.l5d.marathon", "marathon", "/#/io.l5d.marathon/<app id>"),
    (
        "io.l5d.serversets",
        "serverset",
        "/#/io.l5d.serversets/<path>",
    ),
    ("io.l5d.zkLeader", "zk-leader", "/#/io.l5d.zkLeader/<path>"),
    ("io.l5d.curator", "curator", "/#/io.l5d.curator/<service>"),
    ("io.l5d.dnssrv", "dns", "/#/io.l5d.dnssrv/<name>"),
    (
        "io.l5d.etcd",
        "etcd",
        "/#/io.l5d.etcd/<namespace>/<service>",
    ),
    ("io.l5d.eureka", "eureka", "/#/io.l5d.eureka/<application>"),
    (
        "io.l5d.nomad",
        "nomad",
        "/#/io.l5d.nomad/<namespace>/<service>",
    ),
];

/// What is known of a source to be named.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its id.
    pub id: &'a str,
    /// The word of its kind.
    pub kind: &'a str,
    /// Which part of the registry it reads: datacenter, region, path.
    pub scope: &'a str,
    /// Tags that its instances carry.
    pub tags: &'a [String],
}

/// A service that a path may mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meant {
    /// The service, by the names of the source.
    pub service: ServiceId,
    /// Which port of it.
    pub port: MeantPort,
}

/// Which port a path means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeantPort {
    /// The one that was dialled, or the only one.
    Any,
    /// This one.
    Number(u16),
    /// The one of this name.
    Name(Arc<str>),
}

/// The kind of source that a namer reads; `None`: no such namer.
pub fn kind(namer: &str) -> Option<&'static str> {
    let found = NAMERS.iter().find(|(name, ..)| *name == namer);
    found.map(|(_, kind, _)| *kind)
}

/// What the segments behind `/#/` may mean in a source, best first; empty: nothing.
pub fn meant(path: &[Arc<str>], source: Place<'_>) -> Vec<Meant> {
    if let Some(rest) = behind_id(path, source.id) {
        return spaced(rest);
    }
    let Some((namer, rest)) = path.split_first() else {
        return Vec::new();
    };
    if kind(namer) != Some(source.kind) {
        return Vec::new();
    }
    match source.kind {
        "consul" => consul(rest, source),
        "kubernetes" => kubernetes(rest),
        "serverset" | "zk-leader" => zookeeper(rest, source.scope),
        "marathon" => marathon(rest, source.scope),
        "nomad" => nomad(rest),
        "etcd" => spaced(rest),
        "dns" => rest.first().into_iter().flat_map(dns).collect(),
        _ => rest
            .first()
            .and_then(|name| plain(name))
            .into_iter()
            .collect(),
    }
}

/// The segments behind the id of a source, whose own segments stand there.
fn behind_id<'a>(path: &'a [Arc<str>], id: &str) -> Option<&'a [Arc<str>]> {
    let mut rest = path;
    for part in id.split('/') {
        let (first, behind) = rest.split_first()?;
        if **first != *part {
            return None;
        }
        rest = behind;
    }
    Some(rest)
}

/// A name as sources write it.
fn label(text: &str) -> Option<ServiceName> {
    let text: String = text
        .chars()
        .map(|c| match c {
            '.' | '_' => '-',
            c => c.to_ascii_lowercase(),
        })
        .collect();
    ServiceName::new(text.trim_matches('-')).ok()
}

fn in_space(namespace: Namespace, text: &str) -> Option<Meant> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, MeantPort::Number(port.parse().ok()?)),
        None => (text, MeantPort::Any),
    };
    Some(Meant {
        service: ServiceId::new(namespace, label(name)?),
        port,
    })
}

/// A service of the namespace `default`.
fn plain(text: &str) -> Option<Meant> {
    in_space(Namespace::default(), text)
}

/// `<namespace>/<service>`, or `<service>`.
fn spaced(rest: &[Arc<str>]) -> Vec<Meant> {
    let both = match rest {
        [space, name, ..] => Namespace::new(space)
            .ok()
            .and_then(|space| in_space(space, name)),
        _ => None,
    };
    let one = rest.first().and_then(|name| plain(name));
    both.into_iter().chain(one).collect()
}

fn consul(rest: &[Arc<str>], source: Place<'_>) -> Vec<Meant> {
    let [datacenter, behind @ ..] = rest else {
        return Vec::new();
    };
    // The agent's own datacenter has a name that only the agent knows.
    if !(source.scope.is_empty() || **datacenter == *source.scope) {
        return Vec::new();
    }
    let tagged = match (behind, source.tags) {
        ([tag, name, ..], [own]) if **tag == **own => plain(name),
        _ => None,
    };
    let one = behind.first().and_then(|name| plain(name));
    tagged.into_iter().chain(one).collect()
}

fn kubernetes(rest: &[Arc<str>]) -> Vec<Meant> {
    let [space, port, name, ..] = rest else {
        return Vec::new();
    };
    let port = match port.parse::<u16>() {
        Ok(number) => MeantPort::Number(number),
        Err(_) => MeantPort::Name(Arc::clone(port)),
    };
    let (Ok(space), Some(name)) = (Namespace::new(space), label(name)) else {
        return Vec::new();
    };
    vec![Meant {
        service: ServiceId::new(space, name),
        port,
    }]
}

fn nomad(rest: &[Arc<str>]) -> Vec<Meant> {
    let [space, name, ..] = rest else {
        return Vec::new();
    };
    let space = Namespace::new(space).ok();
    space
        .and_then(|space| in_space(space, name))
        .into_iter()
        .collect()
}

/// The longest path first: what follows a service is left aside. `zk1:2181,zk2:2181` before the path is too.
fn zookeeper(rest: &[Arc<str>], base: &str) -> Vec<Meant> {
    let rest = match rest {
        [hosts, behind @ ..] if hosts.contains(':') && !behind.is_empty() => behind,
        _ => rest,
    };
    let mut found = Vec::new();
    for length in (1..=rest.len()).rev() {
        let Some(below) = below(rest.get(..length).unwrap_or_default(), base) else {
            continue;
        };
        let (directory, endpoint) = match below.rsplit_once(':') {
            Some((directory, endpoint)) => (directory.to_owned(), Some(endpoint.to_owned())),
            None => (below, None),
        };
        let (space, name) = directory.rsplit_once('/').unwrap_or(("", &directory));
        let name = match (&endpoint, name) {
            (_, "") => base.rsplit('/').next().unwrap_or_default().to_owned(),
            (Some(endpoint), name) => format!("{name}-{endpoint}"),
            (None, name) => name.to_owned(),
        };
        found.extend(below_space(space, &name));
    }
    found
}

/// The longest path first.
fn marathon(rest: &[Arc<str>], base: &str) -> Vec<Meant> {
    let mut found = Vec::new();
    for length in (1..=rest.len()).rev() {
        let Some(below) = below(rest.get(..length).unwrap_or_default(), base) else {
            continue;
        };
        let (groups, name) = below.rsplit_once('/').unwrap_or(("", &below));
        found.extend(below_space(groups, name));
        if !groups.is_empty() {
            found.extend(plain(&below.replace('/', "-")));
        }
    }
    found
}

/// The path without the base of the source.
fn below(segments: &[Arc<str>], base: &str) -> Option<String> {
    let path = segments.join("/");
    let base = base.trim_matches('/');
    if base.is_empty() {
        return Some(path);
    }
    let rest = path.strip_prefix(base)?;
    if rest.is_empty() {
        return Some(String::new());
    }
    rest.strip_prefix('/').map(str::to_owned)
}

fn below_space(directories: &str, name: &str) -> Option<Meant> {
    let space = if directories.is_empty() {
        Namespace::default()
    } else {
        Namespace::new(&directories.replace('/', "-")).ok()?
    };
    Some(Meant {
        service: ServiceId::new(space, label(name)?),
        port: MeantPort::Any,
    })
}

/// A name of DNS by the service that its record became, or by its first label.
fn dns(name: &Arc<str>) -> Vec<Meant> {
    let whole = plain(name.trim_end_matches('.'));
    let first = name.trim_start_matches('_').split('.').next();
    let first = first.and_then(plain);
    whole.into_iter().chain(first).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtab::Path;

    fn place<'a>(id: &'a str, kind: &'a str, scope: &'a str, tags: &'a [String]) -> Place<'a> {
        Place {
            id,
            kind,
            scope,
            tags,
        }
    }

    fn shown(path: &str, source: Place<'_>) -> String {
        let path = Path::parse(path).unwrap();
        let all = meant(&path.0[1..], source);
        let one = |meant: &Meant| match &meant.port {
            MeantPort::Any => meant.service.to_string(),
            MeantPort::Number(number) => format!("{}:{number}", meant.service),
            MeantPort::Name(name) => format!("{}:{name}", meant.service),
        };
        all.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// The forms of Linkerd's own documentation of namers, and ours.
    #[test]
    fn documented_paths() {
        let prod = ["prod".to_owned()];
        let agent = place("consul/1", "consul", "", &[]);
        let dc1 = place("consul/dc1", "consul", "dc1", &[]);
        let tagged = place("consul/p", "consul", "dc1", &prod);
        let sets = place("zk/1", "serverset", "/discovery", &[]);
        for (path, source, wanted) in [
            (
                "/#/io.l5d.fs/web",
                place("file/1", "file", "", &[]),
                "default/web",
            ),
            ("/#/io.l5d.consul/dc1/web", dc1, "default/web"),
            ("/#/io.l5d.consul/dc1/web/rest", dc1, "default/web"),
            ("/#/io.l5d.consul/dc2/web", dc1, ""),
            ("/#/io.l5d.consul/.local/web", agent, "default/web"),
            ("/#/io.l5d.consul/dc1/web", agent, "default/web"),
            (
                "/#/io.l5d.consul/dc1/prod/web",
                tagged,
                "default/web default/prod",
            ),
            ("/#/io.l5d.consul/dc1/Web_API", dc1, "default/web-api"),
            ("/#/io.l5d.consul/dc1", dc1, ""),
            (
                "/#/io.l5d.k8s/prod/http/web",
                place("k", "kubernetes", "", &[]),
                "prod/web:http",
            ),
            (
                "/#/io.l5d.k8s/prod/8080/web",
                place("k", "kubernetes", "", &[]),
                "prod/web:8080",
            ),
            (
                "/#/io.l5d.marathon/appgroup/usergroup/users",
                place("m", "marathon", "", &[]),
                "appgroup-usergroup/users default/appgroup-usergroup-users appgroup/usergroup \
                 default/appgroup-usergroup default/appgroup",
            ),
            (
                "/#/io.l5d.marathon/prod/users",
                place("m", "marathon", "/prod", &[]),
                "default/users",
            ),
            (
                "/#/io.l5d.serversets/discovery/prod/web",
                sets,
                "prod/web default/prod default/discovery",
            ),
            (
                "/#/io.l5d.serversets/discovery/prod/web:http",
                sets,
                "prod/web-http default/prod default/discovery",
            ),
            ("/#/io.l5d.serversets/other/prod/web", sets, ""),
            (
                "/#/io.l5d.zkLeader/leaders/db",
                place("l", "zk-leader", "/leaders", &[]),
                "default/db default/leaders",
            ),
            (
                "/#/io.l5d.curator/web",
                place("c", "curator", "/services", &[]),
                "default/web",
            ),
            (
                "/#/io.l5d.dnssrv/web.srv.dc-2.example.org.",
                place("d", "dns", "", &[]),
                "default/web-srv-dc-2-example-org default/web",
            ),
            (
                "/#/io.l5d.etcd/shop/web",
                place("e", "etcd", "", &[]),
                "shop/web default/shop",
            ),
            (
                "/#/io.l5d.eureka/WEB",
                place("e", "eureka", "", &[]),
                "default/web",
            ),
            (
                "/#/io.l5d.nomad/ops/web",
                place("n", "nomad", "", &[]),
                "ops/web",
            ),
            ("/#/consul/dc1/shop/web", dc1, "shop/web default/shop"),
            ("/#/consul/dc1/web:81", dc1, "default/web:81"),
            ("/#/io.l5d.fs/web", dc1, ""),
            ("/#/io.l5d.other/web", dc1, ""),
        ] {
            assert_eq!(shown(path, source), wanted, "{path} in {}", source.id);
        }
    }
}
