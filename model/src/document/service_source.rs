//! `ServiceSource`: a discovery source of the whole mesh, read by a few hosts for all.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Spec;
use crate::{
    config::{self, SourceConfig, SourceTerm, file::FileSource},
    written::{At, Faults, Node, decode::decode},
};

/// How many hosts read a source unless it says so.
const READERS: u16 = 2;
/// Most hosts that read a source.
const MOST_READERS: u16 = 16;

/// A discovery source of the whole mesh. Its id is `mesh/` and the document's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSourceSpec {
    /// What is read, with an empty id. Files that it names lie on the hosts that read.
    pub source: SourceConfig,
    /// What it is worth beside others.
    pub term: SourceTerm,
    /// Hosts that read it, 1 to 16.
    pub readers: u16,
    /// Labels that a host must carry to read it.
    pub hosts: BTreeMap<String, String>,
}

impl ServiceSourceSpec {
    /// The source under its id.
    pub fn named(&self, name: &str) -> SourceConfig {
        SourceConfig {
            id: id(name),
            ..self.source.clone()
        }
    }
}

/// The id of the source that a document of this name makes.
pub fn id(name: &str) -> String {
    format!("mesh/{name}")
}

/// As written: `source` has the keys of a `[[source]]` of the settings.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    source: FileSource,
    #[serde(default)]
    readers: Option<u16>,
    #[serde(default)]
    hosts: BTreeMap<String, String>,
}

/// Reads and checks the body.
pub(super) fn read(node: &Node, faults: &Faults) -> Option<Spec> {
    let written: Written = decode(node, "spec", faults)?;
    let at = At::root(node, "spec", faults);
    let of_source = at.key("source");
    for (key, given) in [
        ("id", written.source.id.is_some()),
        ("publish", written.source.publish.is_some()),
    ] {
        if given {
            of_source.key(key).fault(
                "is not said here",
                "leave it out: the document's name is its id",
            );
        }
    }
    if written.source.kind.as_deref() == Some("file") {
        of_source.key("kind").fault(
            "files are a host's own",
            "write a [[source]] in the settings of the host that has them",
        );
    }
    let readers = written.readers.unwrap_or(READERS);
    if !(1..=MOST_READERS).contains(&readers) {
        at.key("readers").fault(
            format!("{readers} is out of range"),
            format!("write 1 to {MOST_READERS}"),
        );
    }
    let (source, term) = config::check::one_source(&written.source, &of_source)?;
    Some(Spec::ServiceSource(Box::new(ServiceSourceSpec {
        source,
        term,
        readers,
        hosts: written.hosts,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::parse_documents;

    fn document(spec: &str) -> String {
        format!(
            "apiVersion: meshd.io/v1alpha1\nkind: ServiceSource\nmetadata: {{name: dc1}}\nspec: {spec}\n"
        )
    }

    #[test]
    fn a_source_with_its_terms() {
        let text = document(
            "{readers: 3, hosts: {rack: '7'}, source: {kind: consul, addresses: ['http://c:8500'], precedence: 5, weight: 10}}",
        );
        let documents = parse_documents(&text, "test").unwrap();
        let Spec::ServiceSource(spec) = &documents[0].spec else {
            panic!("{documents:?}");
        };
        assert_eq!((spec.readers, spec.term.weight), (3, Some(10)));
        let source = spec.named("dc1");
        assert_eq!(
            (source.id.as_str(), source.kind.word()),
            ("mesh/dc1", "consul")
        );
        assert!(source.publish);
    }

    #[test]
    fn faults_have_their_place() {
        for (spec, wanted) in [
            ("{source: {kind: consul}}", "spec.source.addresses"),
            ("{source: {kind: file, directory: /d}}", "spec.source.kind"),
            ("{source: {kind: dns, record: []}}", "spec.source.record"),
            (
                "{source: {id: a, kind: consul, addresses: ['http://c:8500']}}",
                "spec.source.id",
            ),
            (
                "{source: {kind: consul, addresses: ['http://c:8500'], path: /x}}",
                "spec.source.path",
            ),
            (
                "{readers: 17, source: {kind: consul, addresses: ['http://c:8500']}}",
                "spec.readers",
            ),
            ("{sauce: {}}", "spec.sauce"),
        ] {
            let faults = parse_documents(&document(spec), "test").unwrap_err();
            let told = format!("{faults:?}");
            assert!(told.contains(wanted), "{spec}: {told}");
        }
    }
}
