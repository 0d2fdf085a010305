//! What is different between the registries that answer when an index has grown.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::endpoint::ServiceKey;

use super::cursor::Ask;
use crate::sink::ServiceSet;

/// The list of services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Those that a mesh can name.
    pub(crate) keys: BTreeSet<ServiceKey>,
    /// Those that it cannot.
    pub(crate) skipped: BTreeSet<String>,
}

/// The instances of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Instances {
    /// Those that count.
    pub(crate) set: ServiceSet,
    /// How many the answer had, of any kind.
    pub(crate) listed: usize,
    /// How many could not be understood.
    pub(crate) skipped: usize,
}

/// What a check is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A service; `None`: one that no mesh can name.
    Service(Option<ServiceKey>),
    /// A host with all that runs there.
    Node,
}

/// Checks that do not pass: by node and check, what they are about and how they stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unwell(pub(crate) BTreeMap<(String, String), (Subject, String)>);

impl Unwell {
    /// What is not as it was in `before`: services, and whether a node is among it.
    pub(crate) fn since(&self, before: &Self) -> (BTreeSet<ServiceKey>, bool) {
        let (mut services, mut nodes) = (BTreeSet::new(), false);
        let news = self
            .0
            .iter()
            .filter(|(at, one)| before.0.get(at) != Some(one));
        let ends = before.0.iter().filter(|(at, _)| !self.0.contains_key(at));
        for (_, (subject, _)) in news.chain(ends) {
            match subject {
                Subject::Service(key) => services.extend(key.clone()),
                Subject::Node => nodes = true,
            }
        }
        (services, nodes)
    }
}

/// What is different between the registries.
pub(crate) trait Dialect: Send + Sync + 'static {
    /// What its fields begin with, such as `x-consul-`.
    fn fields(&self) -> &'static str;
    /// Path and query of the list of services.
    fn names(&self, ask: Ask) -> String;
    /// Path and query of one service.
    fn service(&self, key: &ServiceKey, ask: Ask) -> String;
    /// Path of the stream of events, where there is one.
    fn events(&self) -> Option<String> {
        None
    }
    /// Path and query of all checks that do not pass, where one question asks for them.
    fn unwell(&self, _ask: Ask) -> Option<String> {
        None
    }
    /// The services that an event names.
    fn changed(&self, _line: &[u8]) -> Vec<ServiceKey> {
        Vec::new()
    }
    /// Reads the checks that do not pass.
    fn read_unwell(&self, _body: &[u8]) -> Result<Unwell, String> {
        Ok(Unwell::default())
    }
    /// Reads the list.
    fn read_names(&self, body: &[u8]) -> Result<Names, String>;
    /// Reads one service.
    fn read_service(&self, key: &ServiceKey, body: &[u8]) -> Result<Instances, String>;
    /// True when a list without any service can be true.
    fn may_be_empty(&self, index: u64) -> bool;
    /// True when the service can be there at all.
    fn owns(&self, key: &ServiceKey) -> bool;
}
