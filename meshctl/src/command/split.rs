//! `route split`: an `HTTPRoute` that divides a service's requests by weight among other services.

use mesh_model::{admin::ServiceRow, catalog::ResourceKey};
use serde_json::{Value, json};

use super::{Session, services};
use crate::{
    args::SplitArgs,
    documents::Documents,
    edit::Wish,
    failure::{Exit, Failure},
    print::yaml,
    resource,
};

/// Splits.
pub(crate) async fn run(session: &Session, args: &SplitArgs) -> Result<Exit, Failure> {
    let port = match args.port {
        Some(port) => port,
        None => only_port(session, args).await?,
    };
    let document = document(args, port)?;
    let text = yaml(&document)?;
    let read = Documents::parse(&[("route split".to_owned(), text.clone())])
        .map_err(|findings| Failure::findings("route split", &findings))?;
    let validated = read.plan(&session.client).await?;
    if session.printer.is_table() {
        crate::print::text(&(text + "---\n"))?;
        if !validated.findings.is_empty() {
            crate::print::note(session.printer.findings(&validated.findings).trim_end());
        }
    }
    let key = ResourceKey {
        kind: "HTTPRoute".to_owned(),
        namespace: args.namespace.clone(),
        name: format!("{}-split", args.service),
    };
    let current = resource::find(&session.client, &key).await?;
    let editor = session.editor(&args.edit)?;
    match current {
        Some(row) if resource::same(&row.document, &document) => editor.commit(&[], &[key]).await,
        row => {
            editor
                .commit(&[Wish::put(key, &document, row.as_ref())], &[])
                .await
        }
    }
}

/// The port of a service that has one.
async fn only_port(session: &Session, args: &SplitArgs) -> Result<u16, Failure> {
    let rows: Vec<ServiceRow> = session.client.get("/v1/services").await?;
    let wanted = format!("{}/{}", args.namespace, args.service);
    let row = rows
        .iter()
        .find(|row| row.service == wanted)
        .ok_or_else(|| services::unknown(&wanted))?;
    let ports: Vec<u16> = row.ports.iter().filter_map(|port| number(port)).collect();
    match ports.as_slice() {
        [port] => Ok(*port),
        _ => Err(Failure::usage(
            wanted,
            format!("it has {} ports: {}", row.ports.len(), row.ports.join(", ")),
            "say which with --port",
        )),
    }
}

/// The number in `name:port/protocol`.
fn number(port: &str) -> Option<u16> {
    let number = port.rsplit_once(':').map_or(port, |(_, rest)| rest);
    number.split('/').next()?.parse().ok()
}

fn document(args: &SplitArgs, port: u16) -> Result<Value, Failure> {
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
    let version = backend
        .strip_prefix('v')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    if version {
        format!("{service}-{backend}")
    } else {
        backend.to_owned()
    }
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
        let document = document(&wish, 80).unwrap();
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
        let full = document(
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
        assert!(document(&args("meshctl route split words v1=0 v2=0"), 80).is_err());
        assert!(document(&args("meshctl route split words v1=1 words-v1=2"), 80).is_err());
        assert_eq!(number("http:80/http"), Some(80));
        assert_eq!(number("8080/tcp"), Some(8080));
        assert_eq!(number(":90/detect"), Some(90));
        assert_eq!(backend_name("words", "vault"), "vault");
        for bad in ["v1", "v1=x", "=1", "v1=1000001", "v1=-1"] {
            let line = ["meshctl", "route", "split", "words", bad];
            assert!(Arguments::try_parse_from(line).is_err(), "{bad}");
        }
    }
}
