//! Which resource is meant: kinds in any spelling, `KIND/NAME`, `KIND/NAMESPACE/NAME`.

use mesh_model::{admin::ResourceRow, catalog::ResourceKey, commit::CommitId, document::Document};
use serde_json::Value;

use crate::{
    client::{Client, with_query},
    failure::{Exit, Failure},
};

/// Kinds with their spellings. Those of the mesh have no namespace.
const KINDS: &[(&str, bool, &[&str])] = &[
    ("Service", true, &["service", "services", "svc"]),
    ("HTTPRoute", true, &["httproute", "httproutes"]),
    ("GRPCRoute", true, &["grpcroute", "grpcroutes"]),
    ("TCPRoute", true, &["tcproute", "tcproutes"]),
    ("TLSRoute", true, &["tlsroute", "tlsroutes"]),
    (
        "DelegationTable",
        true,
        &["delegationtable", "delegationtables", "dtab", "dtabs"],
    ),
    (
        "PeerAuthentication",
        true,
        &["peerauthentication", "peerauthentications"],
    ),
    (
        "AuthorizationPolicy",
        true,
        &["authorizationpolicy", "authorizationpolicies"],
    ),
    ("ServiceSource", false, &["servicesource", "servicesources"]),
    ("Revocation", false, &["revocation", "revocations"]),
];

/// The kind that a spelling means, and whether it has namespaces. Unknown ones are taken as they are.
pub(crate) fn kind(text: &str) -> (String, bool) {
    let lower = text.to_ascii_lowercase();
    KINDS
        .iter()
        .find(|(_, _, spellings)| spellings.contains(&lower.as_str()))
        .map_or_else(
            || (text.to_owned(), true),
            |&(kind, scoped, _)| (kind.to_owned(), scoped),
        )
}

/// The resource that `words` name: `KIND NAME`, `KIND/NAME` or `KIND/NAMESPACE/NAME`.
pub(crate) fn key(words: &[String], namespace: Option<&str>) -> Result<ResourceKey, Failure> {
    let (kind, namespace, name) = parts(words, namespace)?;
    let Some(name) = name else {
        return Err(Failure::usage(
            kind,
            "the name is missing",
            "write KIND/NAME or KIND NAME",
        ));
    };
    Ok(ResourceKey {
        kind,
        namespace: namespace.unwrap_or_default(),
        name,
    })
}

/// Kind, namespace and name, as far as they are given. Without a name the namespace is a filter.
pub(crate) fn parts(
    words: &[String],
    wanted: Option<&str>,
) -> Result<(String, Option<String>, Option<String>), Failure> {
    let joined = words.join("/");
    let pieces: Vec<&str> = joined.split('/').collect();
    let wrong = || {
        Failure::usage(
            &joined,
            "this names no resource",
            "write KIND/NAME or KIND/NAMESPACE/NAME",
        )
    };
    if pieces.iter().any(|piece| piece.is_empty()) {
        return Err(wrong());
    }
    let (spelling, written, name) = match pieces.as_slice() {
        [one] => (one, None, None),
        [one, name] => (one, None, Some((*name).to_owned())),
        [one, namespace, name] => (one, Some((*namespace).to_owned()), Some((*name).to_owned())),
        _ => return Err(wrong()),
    };
    let (kind, scoped) = kind(spelling);
    if let (Some(written), Some(wanted)) = (&written, wanted)
        && written != wanted
    {
        return Err(Failure::usage(
            &joined,
            "two namespaces are given",
            "give one of them",
        ));
    }
    let namespace = written.or_else(|| wanted.map(str::to_owned));
    let namespace = match (scoped, &name) {
        (false, _) => Some(String::new()),
        (true, Some(_)) => Some(namespace.unwrap_or_else(|| "default".to_owned())),
        (true, None) => namespace,
    };
    Ok((kind, namespace, name))
}

/// The resource as it stands, if it exists.
pub(crate) async fn find(
    client: &Client,
    key: &ResourceKey,
) -> Result<Option<ResourceRow>, Failure> {
    let path = with_query(
        "/v1/resources",
        &[
            ("kind", &key.kind),
            ("namespace", &key.namespace),
            ("name", &key.name),
        ],
    );
    let rows: Vec<ResourceRow> = client.get(&path).await?;
    Ok(rows.into_iter().find(|row| {
        let metadata = row.document.get("metadata");
        let text = |field| metadata.and_then(|m| m.get(field)).and_then(Value::as_str);
        text("name").is_none_or(|name| name == key.name)
            && text("namespace").is_none_or(|namespace| namespace == key.namespace)
    }))
}

/// The resource, or the failure that says that there is none.
pub(crate) async fn demand(client: &Client, key: &ResourceKey) -> Result<ResourceRow, Failure> {
    find(client, key).await?.ok_or_else(|| missing(key))
}

/// There is no such resource.
pub(crate) fn missing(key: &ResourceKey) -> Failure {
    Failure::new(
        Exit::Finding,
        "not-found",
        key.to_string(),
        "there is no such resource",
        format!("see `meshctl get {}`", key.kind),
    )
}

/// The document without what the mesh itself writes into it: what is stored, and what is compared.
pub(crate) fn bare(document: &Value) -> Value {
    let mut bare = document.clone();
    if let Some(object) = bare.as_object_mut() {
        object.shift_remove("status");
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for set_by_the_mesh in [
                "resourceVersion",
                "creationTimestamp",
                "uid",
                "generation",
                "managedFields",
            ] {
                metadata.shift_remove(set_by_the_mesh);
            }
        }
    }
    bare
}

/// True when both say the same: the namespace may be written or left out.
pub(crate) fn same(one: &Value, other: &Value) -> bool {
    let explicit = |document: &Value| {
        let mut document = bare(document);
        if let Some(metadata) = document.get_mut("metadata").and_then(Value::as_object_mut)
            && metadata.get("namespace").and_then(Value::as_str) == Some("default")
        {
            metadata.shift_remove("namespace");
        }
        document
    };
    explicit(one) == explicit(other)
}

/// The revision that the document says it is based on.
pub(crate) fn base(document: &Document) -> Result<Option<CommitId>, Failure> {
    let Some(text) = document
        .metadata
        .resource_version
        .as_deref()
        .filter(|t| !t.is_empty())
    else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_not_hex| {
        Failure::usage(
            format!("{} metadata.resourceVersion", document.key()),
            format!("'{text}' is no revision"),
            "take the document anew with `meshctl get -o yaml`, or leave the field out",
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn names_in_every_form() {
        let ok = |text: &str, ns: Option<&str>, want: &str| {
            assert_eq!(key(&words(text), ns).unwrap().to_string(), want, "{text}");
        };
        ok("httproute words", None, "HTTPRoute/default/words");
        ok("HTTPRoute/words", Some("shop"), "HTTPRoute/shop/words");
        ok("dtab/shop/words", None, "DelegationTable/shop/words");
        ok("revocation/op", None, "Revocation/op");
        ok("Thing/x", None, "Thing/default/x");
        for bad in ["HTTPRoute", "a/b/c/d", "a//b", "HTTPRoute /x"] {
            assert!(key(&words(bad), None).is_err(), "{bad}");
        }
        assert!(key(&words("svc/a/b"), Some("c")).is_err());
        assert_eq!(
            parts(&words("svc"), None).unwrap(),
            ("Service".to_owned(), None, None)
        );
    }

    #[test]
    fn comparison_ignores_what_the_mesh_writes() {
        let shown = json!({"kind": "Service", "metadata": {"name": "a", "namespace": "default",
            "resourceVersion": "00", "creationTimestamp": "x"}, "spec": {"ports": []}, "status": {}});
        let written = json!({"kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": []}});
        assert!(same(&shown, &written));
        let changed = json!({"kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [1]}});
        assert!(!same(&shown, &changed));
        assert_eq!(bare(&shown).get("status"), None);
    }
}
