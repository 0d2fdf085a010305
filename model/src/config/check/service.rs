//! Programs of this host.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Sources, ip, labels, place_text, range, span};
use crate::{
    config::{
        HealthCheck, HealthKind, LocalService, Recognise,
        file::{FileHealth, FilePort, FileService, User},
    },
    name::{NameError, Namespace, ServiceAccount, ServiceName, is_label},
    service::{AppProtocol, ServicePort},
    written::At,
};

pub(super) fn services(
    given: &[FileService],
    at: &At<'_>,
    sources: &Sources,
) -> Vec<Arc<LocalService>> {
    if given.len() > 1000 {
        at.fault(
            format!("{} services are too many for one host", given.len()),
            "write at most 1000",
        );
    }
    given
        .iter()
        .enumerate()
        .filter_map(|(index, service)| one(service, &at.index(index), sources))
        .map(Arc::new)
        .collect()
}

fn one(given: &FileService, at: &At<'_>, sources: &Sources) -> Option<LocalService> {
    let Some(name) = &given.name else {
        at.key("name")
            .fault("is missing", "write the service's name");
        return None;
    };
    let name = named(name, &at.key("name"), ServiceName::new)?;
    let namespace = given
        .namespace
        .as_ref()
        .and_then(|text| named(text, &at.key("namespace"), Namespace::new))
        .unwrap_or_default();
    if namespace == Namespace::system() {
        at.key("namespace")
            .fault("is the namespace of hosts", "use another namespace");
    }
    let mut service = LocalService::named(namespace, name);
    if let Some(text) = &given.service_account
        && let Some(account) = named(text, &at.key("service_account"), ServiceAccount::new)
    {
        service.service_account = account;
    }
    if let Some(instance) = &given.instance {
        if !is_label(instance) {
            at.key("instance").fault(
                format!("{instance:?} is no name"),
                "use 1 to 63 of a-z 0-9 -",
            );
        }
        service.instance.clone_from(instance);
    }
    service.labels = service_labels(given, at);
    service.ports = ports(&given.ports, &at.key("ports"));
    service.address = given
        .address
        .as_ref()
        .and_then(|text| ip(text, &at.key("address")));
    service.recognise = recognise(given, at, sources);
    service.health = given
        .health
        .as_ref()
        .and_then(|health| health_check(health, &service.ports, &at.key("health")));
    service.weight = given
        .weight
        .map_or(1, |weight| range(weight, &at.key("weight"), 1, 1000));
    service.fail_closed = given.fail_closed.unwrap_or(false);
    service.origin = place_text(at.place(), sources);
    Some(service)
}

fn named<T>(text: &str, at: &At<'_>, make: fn(&str) -> Result<T, NameError>) -> Option<T> {
    make(text)
        .map_err(|error| at.fault(error.to_string(), "use 1 to 63 of a-z 0-9 -"))
        .ok()
}

fn service_labels(given: &FileService, at: &At<'_>) -> BTreeMap<String, String> {
    let mut all = given
        .labels
        .as_ref()
        .map(|all| labels(all, &at.key("labels")))
        .unwrap_or_default();
    if let Some(version) = &given.version {
        let at = at.key("version");
        if version.is_empty() || version.len() > 63 || version.chars().any(char::is_control) {
            at.fault(
                format!("{version:?} is too short or too long"),
                "write 1 to 63 characters",
            );
        }
        if all.get("version").is_some_and(|label| label != version) {
            at.fault("differs from the label `version`", "write one of the two");
        }
        all.insert("version".to_owned(), version.clone());
    }
    all
}

fn ports(given: &[FilePort], at: &At<'_>) -> Vec<ServicePort> {
    if given.len() > 64 {
        at.fault(
            format!("{} ports are too many", given.len()),
            "write at most 64",
        );
    }
    let mut found: Vec<ServicePort> = Vec::new();
    for (index, port) in given.iter().enumerate() {
        let at = at.index(index);
        let Some(number) = port.port else {
            at.key("port")
                .fault("is missing", "write the port that callers dial");
            continue;
        };
        range(number, &at.key("port"), 1, u16::MAX);
        if found.iter().any(|other| other.port == number) {
            at.key("port").fault(
                format!("{number} is a port of this service already"),
                "write each port once",
            );
        }
        let name = port.name.as_deref().unwrap_or_default();
        if name.is_empty() && given.len() > 1 {
            at.key("name")
                .fault("is missing", "name every port of a service with several");
        } else if !name.is_empty() && !is_label(name) {
            at.key("name")
                .fault(format!("{name:?} is no name"), "use 1 to 63 of a-z 0-9 -");
        } else if !name.is_empty() && found.iter().any(|other| &*other.name == name) {
            at.key("name").fault(
                format!("{name:?} names another port already"),
                "write each name once",
            );
        }
        found.push(ServicePort {
            name: Arc::from(name),
            port: number,
            target: port.target.map_or(number, |target| {
                range(target, &at.key("target"), 1, u16::MAX)
            }),
            protocol: protocol(port.protocol.as_deref(), &at.key("protocol")),
        });
    }
    found
}

fn protocol(given: Option<&str>, at: &At<'_>) -> AppProtocol {
    given
        .map(|text| {
            text.parse()
                .unwrap_or_else(|error: crate::service::UnknownProtocol| {
                    at.fault(error.to_string(), "write one of them");
                    AppProtocol::Detect
                })
        })
        .unwrap_or_default()
}

fn recognise(given: &FileService, at: &At<'_>, sources: &Sources) -> Recognise {
    if let Some(unit) = &given.unit {
        let kind = unit.rsplit_once('.').map(|(_, kind)| kind);
        let known = matches!(kind, Some("service" | "scope" | "slice" | "socket"));
        if !known || unit.len() > 255 || unit.contains(['/', '\0', '\n']) {
            at.key("unit").fault(
                format!("{unit:?} is no systemd unit"),
                "write its whole name, such as web.service",
            );
        }
    }
    let users = given
        .user
        .as_ref()
        .map(|users| users.0.as_slice())
        .unwrap_or_default();
    let at_user = at.key("user");
    let single = users.len() == 1 && at_user.index(0).node().is_none();
    let mut uids = Vec::new();
    for (index, user) in users.iter().enumerate() {
        let at = if single {
            at_user.clone()
        } else {
            at_user.index(index)
        };
        match user {
            User::Id(id) => match u32::try_from(*id) {
                Ok(id) if id != u32::MAX => uids.push(id),
                _ => at.fault(format!("{id} is no user id"), "write 0 to 4294967294"),
            },
            User::Name(name) => match sources.uids.get(name) {
                Some(id) => uids.push(*id),
                None => at.fault(
                    format!("this host has no user {name:?}"),
                    "make the user, or write its number",
                ),
            },
        }
    }
    uids.sort_unstable();
    uids.dedup();
    Recognise {
        unit: given.unit.clone(),
        uids,
    }
}

fn health_check(given: &FileHealth, ports: &[ServicePort], at: &At<'_>) -> Option<HealthCheck> {
    let Some(port) = given.port.or_else(|| ports.first().map(|port| port.target)) else {
        at.key("port").fault(
            "is missing",
            "write the port to ask: the service has none of its own",
        );
        return None;
    };
    range(port, &at.key("port"), 1, u16::MAX);
    let kind = match (given.kind.as_deref(), &given.path) {
        (Some("tcp"), Some(_)) => {
            at.key("path").fault(
                "has no meaning in a tcp check",
                "remove it, or write kind = \"http\"",
            );
            HealthKind::Tcp { port }
        }
        (Some("tcp") | None, None) => HealthKind::Tcp { port },
        (Some("http") | None, path) => {
            let path = path.as_deref().unwrap_or("/");
            let plain = path.bytes().all(|byte| byte.is_ascii_graphic());
            if !path.starts_with('/') || !plain || path.len() > 1024 {
                at.key("path").fault(
                    format!("{path:?} is no path"),
                    "begin it with / and leave out spaces",
                );
            }
            HealthKind::Http {
                port,
                path: path.to_owned(),
            }
        }
        (Some(other), _) => {
            at.key("kind").fault(
                format!("{other:?} is no kind of check"),
                "write tcp or http",
            );
            return None;
        }
    };
    let interval = given
        .interval
        .as_deref()
        .map_or(Duration::from_secs(2), |text| {
            span(
                text,
                &at.key("interval"),
                Duration::from_millis(100),
                Duration::from_mins(5),
            )
        });
    let timeout = given.timeout.as_deref().map_or_else(
        || interval.min(Duration::from_secs(1)),
        |text| {
            span(
                text,
                &at.key("timeout"),
                Duration::from_millis(10),
                Duration::from_mins(1),
            )
        },
    );
    if timeout > interval {
        at.key("timeout").fault(
            "is longer than the interval",
            "make it at most the interval",
        );
    }
    let count = |value: Option<u32>, default: u32, key: &str| {
        value.map_or(default, |count| range(count, &at.key(key), 1, 100))
    };
    Some(HealthCheck {
        kind,
        interval,
        timeout,
        unhealthy_after: count(given.unhealthy_after, 2, "unhealthy_after"),
        healthy_after: count(given.healthy_after, 1, "healthy_after"),
    })
}
