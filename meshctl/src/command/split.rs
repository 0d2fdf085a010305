//! `route split`: an `HTTPRoute` that divides a service's requests by weight among other services.

use std::collections::BTreeSet;

use mesh_model::admin::{EndpointRow, ServiceRow};
use serde_json::{Value, json};

use super::{Session, services};
use crate::{
    args::SplitArgs,
    client::with_query,
    documents::Documents,
    edit::Wish,
    failure::{Exit, Failure},
    print::yaml,
    resource,
};

/// Splits: one commit of the route, and of a Service for each version that has none yet.
pub(crate) async fn run(session: &Session, args: &SplitArgs) -> Result<Exit, Failure> {
    let services: Vec<ServiceRow> = session.client.get("/v1/services").await?;
    let ports = ports(args, &services)?;
    let port = match (args.port, ports.as_slice()) {
        (Some(port), _) => port,
        (None, [only]) => only.number,
        (None, several) => return Err(which_port(args, several)),
    };
    let mut documents = missing_versions(args, &services, &ports);
    if !documents.is_empty() && !args.edit.change.dry_run {
        let service = format!("{}/{}", args.namespace, args.service);
        let path = with_query("/v1/endpoints", &[("service", &service)]);
        let endpoints: Vec<EndpointRow> = session.client.get(&path).await?;
        versions_run(args, &services, &endpoints)?;
    }
    documents.push(route(args, port)?);
    let texts: Vec<String> = documents.iter().map(yaml).collect::<Result<_, _>>()?;
    let text = texts.join("---\n");
    let read = Documents::parse(&[("route split".to_owned(), text.clone())])
        .map_err(|findings| Failure::findings("route split", &findings))?;
    let validated = read.plan(&session.client).await?;
    if session.printer.is_table() {
        crate::print::text(&(text + "---\n"))?;
        if !validated.findings.is_empty() {
            crate::print::note(session.printer.findings(&validated.findings).trim_end());
        }
    }
    let (mut wishes, mut unchanged) = (Vec::new(), Vec::new());
    for document in &read.all {
        let key = document.key();
        match resource::find(&session.client, &key).await? {
            Some(row) if resource::same(&row.document, &document.json) => unchanged.push(key),
            row => wishes.push(Wish::put(key, &document.json, row.as_ref())),
        }
    }
    session
        .editor(&args.edit)?
        .commit(&wishes, &unchanged)
        .await
}

/// A port of a service, as `services` shows it: `name:port/protocol`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    name: String,
    number: u16,
    protocol: String,
}

impl Port {
    fn read(text: &str) -> Option<Self> {
        let (name, rest) = text.rsplit_once(':').unwrap_or(("", text));
        let (number, protocol) = rest.split_once('/').unwrap_or((rest, "detect"));
        Some(Self {
            name: name.to_owned(),
            number: number.parse().ok()?,
            protocol: protocol.to_owned(),
        })
    }

    fn document(&self) -> Value {
        let mut port = serde_json::Map::new();
        if !self.name.is_empty() {
            port.insert("name".to_owned(), json!(self.name));
        }
        port.insert("port".to_owned(), json!(self.number));
        if self.protocol != "detect" {
            port.insert("appProtocol".to_owned(), json!(self.protocol));
        }
        Value::Object(port)
    }
}

/// The ports of the service; the given one when the mesh does not know the service yet.
fn ports(args: &SplitArgs, services: &[ServiceRow]) -> Result<Vec<Port>, Failure> {
    let wanted = format!("{}/{}", args.namespace, args.service);
    match (services.iter().find(|row| row.service == wanted), args.port) {
        (Some(row), _) => Ok(row
            .ports
            .iter()
            .filter_map(|port| Port::read(port))
            .collect()),
        (None, Some(number)) => Ok(vec![Port {
            name: String::new(),
            number,
            protocol: "detect".to_owned(),
        }]),
        (None, None) => Err(services::unknown(&wanted)),
    }
}

fn which_port(args: &SplitArgs, ports: &[Port]) -> Failure {
    let numbers: Vec<String> = ports.iter().map(|port| port.number.to_string()).collect();
    Failure::usage(
        format!("{}/{}", args.namespace, args.service),
        format!("it has {} ports: {}", ports.len(), numbers.join(", ")),
        "say which with --port",
    )
}

/// A version that nothing runs would only answer 503: refused, unless it gets no share, or the service runs nowhere yet.
fn versions_run(
    args: &SplitArgs,
    services: &[ServiceRow],
    endpoints: &[EndpointRow],
) -> Result<(), Failure> {
    let running: BTreeSet<&str> = endpoints
        .iter()
        .filter_map(|row| row.labels.get("version").map(String::as_str))
        .collect();
    let idle = args.shares.iter().find(|(version, weight)| {
        let full = format!(
            "{}/{}",
            args.namespace,
            backend_name(&args.service, version)
        );
        *weight > 0
            && is_version(version)
            && !running.contains(version.as_str())
            && !services.iter().any(|row| row.service == full)
    });
    let Some((version, _)) = idle.filter(|_| !endpoints.is_empty()) else {
        return Ok(());
    };
    let known = match running.len() {
        0 => "none has one".to_owned(),
        _ => format!("those are {}", Vec::from_iter(running).join(", ")),
    };
    Err(Failure::new(
        Exit::Finding,
        "no-such-version",
        format!("{}/{}", args.namespace, args.service),
        format!("no instance has the version {version} ({known}); its share would be answered 503"),
        format!(
            "write `version = \"{version}\"` in the instance's file in services.d and reload its host"
        ),
    ))
}

/// A Service for each version in use that is none yet: the workloads of the service with that label.
fn missing_versions(args: &SplitArgs, services: &[ServiceRow], ports: &[Port]) -> Vec<Value> {
    let mut documents = Vec::new();
    for (version, _) in args
        .shares
        .iter()
        .filter(|(backend, _)| is_version(backend))
    {
        let name = format!("{}-{version}", args.service);
        let full = format!("{}/{name}", args.namespace);
        if services.iter().any(|row| row.service == full) {
            continue;
        }
        let ports: Vec<Value> = ports.iter().map(Port::document).collect();
        documents.push(json!({
            "apiVersion": "meshd.io/v1alpha1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": args.namespace},
            "spec": {"selector": {"app": args.service, "version": version}, "ports": ports},
        }));
    }
    documents
}

fn route(args: &SplitArgs, port: u16) -> Result<Value, Failure> {
    if args.shares.iter().all(|(_, weight)| *weight == 0) {
        return Err(Failure::usage(
            "weights",
            "their sum is 0",
            "give at least one a weight",
        ));
    }
    let mut backends: Vec<Value> = Vec::new();
    for (backend, weight) in &args.shares {
        let name = backend_name(&args.service, backend);
        if backends
            .iter()
            .any(|known| known.get("name") == Some(&json!(name)))
        {
            return Err(Failure::usage(
                name,
                "it is given twice",
                "give each backend once",
            ));
        }
        backends.push(json!({"name": name, "port": port, "weight": weight}));
    }
    let mut parent = json!({"group": "", "kind": "Service", "name": args.service});
    if let (Some(port), Some(parent)) = (args.port, parent.as_object_mut()) {
        parent.insert("port".to_owned(), json!(port));
    }
    Ok(json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": format!("{}-split", args.service), "namespace": args.namespace},
        "spec": {"parentRefs": [parent], "rules": [{"backendRefs": backends}]},
    }))
}

/// `v1` is the service's version, anything else a service of its own.
fn backend_name(service: &str, backend: &str) -> String {
    if is_version(backend) {
        format!("{service}-{backend}")
    } else {
        backend.to_owned()
    }
}

/// True for `v` and digits.
fn is_version(backend: &str) -> bool {
    backend
        .strip_prefix('v')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use mesh_model::document::{Spec, parse_documents};

    use super::*;
    use crate::args::{Arguments, Command, RouteCommand};

    fn args(line: &str) -> SplitArgs {
        match Arguments::parse_from(line.split(' ')).command {
            Some(Command::Route(RouteCommand::Split(args))) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_route_is_a_gateway_api_document() {
        let wish = args("meshctl route split words v1=90 v2=10");
        let document = route(&wish, 80).unwrap();
        let parsed = parse_documents(&yaml(&document).unwrap(), "split").unwrap();
        let Spec::HttpRoute(spec) = &parsed[0].spec else {
            panic!("{parsed:?}")
        };
        assert_eq!(parsed[0].key().to_string(), "HTTPRoute/default/words-split");
        let parent = &spec.parent_refs[0];
        assert_eq!(
            (
                parent.group.as_deref(),
                parent.kind.as_deref(),
                parent.name.as_str(),
                parent.port
            ),
            (Some(""), Some("Service"), "words", None)
        );
        let backends: Vec<_> = spec.rules[0]
            .backend_refs
            .iter()
            .map(|backend| (backend.name.as_str(), backend.port, backend.weight))
            .collect();
        assert_eq!(
            backends,
            [
                ("words-v1", Some(80), Some(90)),
                ("words-v2", Some(80), Some(10))
            ]
        );
    }

    #[test]
    fn versions_names_ports_and_nonsense() {
        let full = route(
            &args("meshctl route split words v1=0 words-canary=1 --port 8080"),
            8080,
        )
        .unwrap();
        assert_eq!(full["spec"]["parentRefs"][0]["port"], 8080);
        let backends = &full["spec"]["rules"][0]["backendRefs"];
        assert_eq!(
            (&backends[0]["name"], &backends[1]["name"]),
            (&json!("words-v1"), &json!("words-canary"))
        );
        assert!(route(&args("meshctl route split words v1=0 v2=0"), 80).is_err());
        assert!(route(&args("meshctl route split words v1=1 words-v1=2"), 80).is_err());
        assert_eq!(backend_name("words", "vault"), "vault");
        for bad in ["v1", "v1=x", "=1", "v1=1000001", "v1=-1"] {
            let line = ["meshctl", "route", "split", "words", bad];
            assert!(Arguments::try_parse_from(line).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_as_they_are_shown() {
        let port = |name: &str, number, protocol: &str| {
            Some(Port {
                name: name.into(),
                number,
                protocol: protocol.into(),
            })
        };
        assert_eq!(Port::read("http:80/http"), port("http", 80, "http"));
        assert_eq!(Port::read("8080/tcp"), port("", 8080, "tcp"));
        assert_eq!(Port::read(":90/detect"), port("", 90, "detect"));
        assert_eq!(Port::read("x"), None);
    }

    #[test]
    fn a_version_that_nothing_runs_gets_no_share() {
        let row = |version: &str| EndpointRow {
            service: "default/words".into(),
            port: 80,
            id: "a".into(),
            address: "10.0.0.1:80".into(),
            security: "mtls".into(),
            health: mesh_model::endpoint::Health::Unhealthy,
            usable: false,
            reason: String::new(),
            host: String::new(),
            labels: [("version".to_owned(), version.to_owned())].into(),
        };
        let rows = [row("v1"), row("v3")];
        let judge = |line: &str| versions_run(&args(line), &[], &rows);
        let refused = judge("meshctl route split words v1=9 v2=1").unwrap_err();
        assert_eq!(refused.code, "no-such-version");
        assert!(refused.what.contains("v2 (those are v1, v3)"), "{refused}");
        judge("meshctl route split words v1=9 v3=1").unwrap();
        judge("meshctl route split words v1=9 v2=0 canary=1").unwrap();
        let nothing_yet = args("meshctl route split words v1=9 v2=1");
        versions_run(&nothing_yet, &[], &[]).unwrap();
    }

    #[test]
    fn versions_without_a_service_get_one() {
        let row = |service: &str, ports: &[&str]| ServiceRow {
            service: service.into(),
            ports: ports.iter().map(|&port| port.to_owned()).collect(),
            virtual_addresses: Vec::new(),
            endpoints: (0, 0),
            routes: Vec::new(),
            origins: Vec::new(),
            local: false,
        };
        let services = [
            row("default/words", &["http:80/http"]),
            row("default/words-v1", &["80/http"]),
        ];
        let wish = args("meshctl route split words v1=1 v2=1 canary=1");
        let ports = ports(&wish, &services).unwrap();
        let made = missing_versions(&wish, &services, &ports);
        assert_eq!(made.len(), 1, "{made:?}");
        let parsed = parse_documents(&yaml(&made[0]).unwrap(), "split").unwrap();
        assert_eq!(parsed[0].key().to_string(), "Service/default/words-v2");
        let Spec::Service(spec) = &parsed[0].spec else {
            panic!("{parsed:?}")
        };
        assert_eq!(spec.selector["app"], "words");
        assert_eq!(spec.selector["version"], "v2");
        assert_eq!(
            (spec.ports[0].name.as_str(), spec.ports[0].port),
            ("http", 80)
        );
        assert_eq!(spec.ports[0].app_protocol.as_deref(), Some("http"));
        let several = [row("default/words", &["a:80/http", "b:81/http"])];
        assert_eq!(super::ports(&wish, &several).unwrap().len(), 2);
        assert_eq!(
            super::ports(&wish, &[]).unwrap_err().code,
            "unknown-service"
        );
    }
}
