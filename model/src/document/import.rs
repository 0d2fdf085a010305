//! Istio's first rules, `RouteRule` (config.istio.io/v1alpha2, and the older `type: route-rule`), become a
//! `VirtualService` for each service and a `DestinationRule` for its versions.
//!
//! In: texts; other documents in them pass unchanged. Out: checked documents, and what could not be carried
//! over. Never: stores or applies anything.

use super::{
    Document, DocumentError, ResourceKey,
    parse::{self, told, whole},
};
use crate::{
    finding::Finding,
    name::{Namespace, is_label},
    written::{At, Faults, Node, decode::decode, yaml},
};

/// The rule as written.
mod rule;
/// Rules become documents.
mod translate;

use rule::{RouteRuleSpec, RuleMetadata};

/// What became of texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// Documents that were none of these rules, as written; then those that the rules became.
    pub documents: Vec<Document>,
    /// What could not be carried over, with the rule and the path.
    pub findings: Vec<Finding>,
}

/// A rule with its name.
#[derive(Debug)]
struct Rule {
    name: String,
    namespace: String,
    spec: RouteRuleSpec,
}

/// Reads texts, each with the name of its file. Rules of all of them on one service become one document.
pub fn import(texts: &[(String, String)]) -> Result<Imported, Vec<DocumentError>> {
    let (mut documents, mut rules, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for (origin, text) in texts {
        if text.len() > parse::MAX_TEXT {
            errors.push(whole(
                origin,
                format!("{} bytes are too many", text.len()),
                "split it: 1 MiB at most",
            ));
            continue;
        }
        let syntax = Faults::default();
        let nodes = yaml::parse(text, &syntax);
        errors.extend(told(syntax, "document", origin));
        for node in &nodes {
            if is_rule(node) {
                match read(node, origin) {
                    Ok(rule) => rules.push(rule),
                    Err(faults) => errors.extend(faults),
                }
            } else {
                match parse::read(node, origin) {
                    Ok(document) => documents.push(document),
                    Err(faults) => errors.extend(faults),
                }
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let (made, findings) = translate::translate(rules);
    for json in made {
        match parse::read(&yaml::from_json(&json), "<translated>") {
            Ok(document) => documents.push(document),
            Err(faults) => errors.extend(faults),
        }
    }
    errors.extend(twice(&documents));
    if errors.is_empty() {
        Ok(Imported {
            documents,
            findings,
        })
    } else {
        Err(errors)
    }
}

/// Resources that stand there twice.
fn twice(documents: &[Document]) -> Vec<DocumentError> {
    let mut seen = std::collections::BTreeSet::<ResourceKey>::new();
    let again = documents
        .iter()
        .map(Document::key)
        .filter(|key| !seen.insert(key.clone()));
    again
        .map(|key| DocumentError {
            origin: "<translated>".to_owned(),
            line: 0,
            subject: key.to_string(),
            what: "is written, and made of rules too".to_owned(),
            remedy: "import the rules alone, and join the two by hand".to_owned(),
        })
        .collect()
}

/// True for the kinds that are translated here.
fn is_rule(node: &Node) -> bool {
    let text = |key| node.get(key).and_then(Node::text);
    text("kind") == Some("RouteRule") || text("type") == Some("route-rule")
}

fn read(node: &Node, origin: &str) -> Result<Rule, Vec<DocumentError>> {
    let faults = Faults::default();
    let at = At::root(node, "", &faults);
    let old = node.get("type").is_some();
    let version = node.get("apiVersion").and_then(Node::text);
    if !old && version != Some("config.istio.io/v1alpha2") {
        at.key("apiVersion").fault(
            format!(
                "{:?} is no version of RouteRule",
                version.unwrap_or_default()
            ),
            "write config.istio.io/v1alpha2",
        );
    }
    // The oldest form has no `metadata`: name and namespace stand beside `spec`.
    let names = if old {
        node
    } else {
        node.get("metadata").unwrap_or(node)
    };
    let metadata = RuleMetadata {
        name: names
            .get("name")
            .and_then(Node::text)
            .unwrap_or_default()
            .to_owned(),
        namespace: names
            .get("namespace")
            .and_then(Node::text)
            .map(str::to_owned),
    };
    if metadata.name.is_empty() {
        at.key("metadata").fault("has no name", "write `name`");
    }
    let namespace = metadata
        .namespace
        .unwrap_or_else(|| Namespace::default().as_str().to_owned());
    if !is_label(&namespace) {
        at.key("metadata").fault(
            format!("{namespace:?} is no namespace"),
            "use 1 to 63 of a-z 0-9 -",
        );
    }
    let subject = format!("RouteRule/{namespace}/{}", metadata.name);
    let spec = node.get("spec");
    if spec.is_none() {
        at.key("spec").fault("is missing", "write `spec`");
    }
    let spec = spec.and_then(|spec| decode::<RouteRuleSpec>(spec, "spec", &faults));
    match spec {
        Some(spec) if faults.is_empty() => Ok(Rule {
            name: metadata.name,
            namespace,
            spec,
        }),
        _ => Err(told(faults, &subject, origin)),
    }
}

#[cfg(test)]
mod tests;
