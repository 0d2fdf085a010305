//! Reads documents out of YAML or JSON text, every fault with its line.
//!
//! In: text of at most 1 MiB with at most 1,000 documents. Out: checked documents, or all faults.
//! Never: keeps `status` or what servers write into `metadata`.

use std::collections::BTreeSet;

use super::{
    Document, Metadata, Unsupported,
    kind::{self, Kind},
    validate,
};
use crate::{
    name::{Namespace, is_label},
    written::{At, Fault, Faults, Node, Note, Value, decode::decode, suggestion, yaml},
};

/// A fault in a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}:{line}: {subject}: {what}; {remedy}")]
pub struct DocumentError {
    /// File name, or `<stdin>`.
    pub origin: String,
    /// Line from 1; 0 when unknown.
    pub line: usize,
    /// Kind, name and field path as far as known, such as `HTTPRoute/default/words spec.rules[0].retry`.
    pub subject: String,
    /// What is wrong.
    pub what: String,
    /// What would be right, with the nearest name for an unknown key.
    pub remedy: String,
}

pub(super) const MAX_TEXT: usize = 1 << 20;
const MAX_FAULTS: usize = 1000;

/// Reads every document of `text` (YAML with `---`, or JSON). All faults are reported, not only the first.
pub fn parse_documents(text: &str, origin: &str) -> Result<Vec<Document>, Vec<DocumentError>> {
    if text.len() > MAX_TEXT {
        return Err(vec![whole(
            origin,
            format!("{} bytes are too many", text.len()),
            "split it: 1 MiB at most",
        )]);
    }
    let syntax = Faults::default();
    let nodes = yaml::parse(text, &syntax);
    let mut errors = told(syntax, "document", origin);
    let mut documents: Vec<Document> = Vec::new();
    let mut seen = BTreeSet::new();
    for node in &nodes {
        match read(node, origin) {
            Ok(document) if seen.insert(document.key()) => documents.push(document),
            Ok(document) => errors.push(DocumentError {
                origin: origin.to_owned(),
                line: node.place.line,
                subject: document.key().to_string(),
                what: "is written twice in one text".to_owned(),
                remedy: "leave one of them".to_owned(),
            }),
            Err(faults) => errors.extend(faults),
        }
        errors.truncate(MAX_FAULTS);
    }
    if errors.is_empty() {
        Ok(documents)
    } else {
        Err(errors)
    }
}

impl Document {
    /// A document that is stored as JSON, as in a commit.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, Vec<DocumentError>> {
        read(&yaml::from_json(value), "<stored>")
    }
}

pub(super) fn whole(origin: &str, what: String, remedy: &str) -> DocumentError {
    DocumentError {
        origin: origin.to_owned(),
        line: 0,
        subject: "text".to_owned(),
        what,
        remedy: remedy.to_owned(),
    }
}

pub(super) fn told(faults: Faults, subject: &str, origin: &str) -> Vec<DocumentError> {
    let tell = |fault: Fault| DocumentError {
        origin: origin.to_owned(),
        line: fault.place.line,
        subject: format!("{subject} {}", fault.path).trim_end().to_owned(),
        what: fault.what,
        remedy: fault.remedy,
    };
    faults.into_sorted().into_iter().map(tell).collect()
}

pub(super) fn read(node: &Node, origin: &str) -> Result<Document, Vec<DocumentError>> {
    let faults = Faults::default();
    let document = assemble(node, &faults);
    match document {
        Some(mut document) if faults.is_empty() => {
            let told = |note: Note| Unsupported {
                path: note.path,
                why: note.why,
            };
            document.reports = faults.notes().into_iter().map(told).collect();
            Ok(document)
        }
        _ => Err(told(faults, &subject(node), origin)),
    }
}

/// What a document is called before it is known to be right.
fn subject(node: &Node) -> String {
    let kind = node.get("kind").and_then(Node::text).unwrap_or("document");
    let metadata = node.get("metadata");
    let text = |key: &str| metadata.and_then(|node| node.get(key)).and_then(Node::text);
    match (text("namespace").unwrap_or("default"), text("name")) {
        (namespace, Some(name)) => format!("{kind}/{namespace}/{name}"),
        _ => kind.to_owned(),
    }
}

const KEYS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

fn assemble(node: &Node, faults: &Faults) -> Option<Document> {
    let at = At::root(node, "", faults);
    let Value::Table(entries) = &node.value else {
        at.fault(
            format!("is {}, not a document", node.what()),
            "write apiVersion, kind, metadata and spec",
        );
        return None;
    };
    for (key, _) in entries
        .iter()
        .filter(|(key, _)| !KEYS.contains(&key.text.as_str()))
    {
        faults.add(
            key.place,
            key.text.as_str(),
            "is no known key",
            suggestion(&key.text, &KEYS),
        );
    }
    let kind = kind::find(&at)?;
    let metadata = metadata(&at.key("metadata"), kind, faults)?;
    let mut spec_node = node.get("spec").cloned();
    if spec_node.is_none() && !kind.spec_optional {
        at.key("spec").fault("is missing", "write `spec`");
        return None;
    }
    let spec_node = spec_node.get_or_insert_with(Node::empty);
    kind::drop_ignored(kind, &at, spec_node);
    let spec = (kind.decode)(spec_node, faults)?;
    let at_spec = At::root(spec_node, "spec", faults);
    validate::spec(&spec, &at_spec, &metadata);
    let api_version = node
        .get("apiVersion")
        .and_then(Node::text)
        .unwrap_or_default()
        .to_owned();
    let json = stored(node, kind, &metadata);
    Some(Document {
        api_version,
        kind: kind.name.to_owned(),
        metadata,
        spec,
        reports: Vec::new(),
        json,
    })
}

fn metadata(at: &At<'_>, kind: &Kind, faults: &Faults) -> Option<Metadata> {
    let Some(node) = at.node() else {
        at.fault("is missing", "write `metadata` with a `name`");
        return None;
    };
    let mut metadata: Metadata = decode(node, at.path(), faults)?;
    let name = metadata.name.as_str();
    let subdomain = name.len() <= 253 && name.split('.').all(is_label);
    let fits = if kind.name == "Service" {
        is_label(name)
    } else {
        subdomain
    };
    if !fits {
        at.key("name").fault(
            format!("{name:?} is no name of a {}", kind.name),
            "use 1 to 63 of a-z 0-9 - with a letter or digit at both ends",
        );
    }
    match (kind.namespaced, metadata.namespace.is_empty()) {
        (true, true) => Namespace::default()
            .as_str()
            .clone_into(&mut metadata.namespace),
        (true, false) if !is_label(&metadata.namespace) => at.key("namespace").fault(
            format!("{:?} is no namespace", metadata.namespace),
            "use 1 to 63 of a-z 0-9 -",
        ),
        (false, false) => {
            at.key("namespace").fault(
                format!("a {} is of the whole mesh", kind.name),
                "remove `namespace`",
            );
        }
        _ => {}
    }
    Some(metadata)
}

/// What is kept: the document as written, without what servers write, and with its namespace.
fn stored(node: &Node, kind: &Kind, metadata: &Metadata) -> serde_json::Value {
    let mut json = node.to_json();
    let Some(object) = json.as_object_mut() else {
        return json;
    };
    object.shift_remove("status");
    if let Some(word) = object.get_mut("kind") {
        *word = kind.name.into();
    }
    if let Some(inner) = object
        .get_mut("metadata")
        .and_then(serde_json::Value::as_object_mut)
    {
        for key in [
            "creationTimestamp",
            "resourceVersion",
            "uid",
            "generation",
            "managedFields",
        ] {
            inner.shift_remove(key);
        }
        if !metadata.namespace.is_empty() {
            inner.insert("namespace".to_owned(), metadata.namespace.clone().into());
        }
    }
    json
}

#[cfg(test)]
mod tests;
