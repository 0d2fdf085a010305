//! How the facts of several sources about one service meet: who comes first, and what becomes of the others.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::name::ServiceId;

/// Precedence of a source that states none.
pub const PRECEDENCE: u16 = 100;
/// Highest weight of a source.
pub const MOST_WEIGHT: u32 = 1000;
/// Share of a source without a weight, where another source of the service has one.
pub const WEIGHT: u32 = 100;

/// What becomes of a service that several sources know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum MergePolicy {
    /// All of them; an address that several name is taken once, as the first one says.
    #[default]
    Union,
    /// The first that knows the service; the next only when that one never knew it or says that it is gone.
    First,
    /// All of them; what the second says is used when too little of the first is left, and so on.
    Failover,
}

impl MergePolicy {
    /// Every policy with its word.
    pub const ALL: [(&'static str, Self); 3] = [
        ("union", Self::Union),
        ("first", Self::First),
        ("failover", Self::Failover),
    ];

    /// The word of `policy`.
    pub fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, policy)| *policy == self)
            .map_or("union", |(word, _)| word)
    }
}

impl fmt::Display for MergePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for MergePolicy {
    type Err = UnknownPolicy;
    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, policy)| *policy)
            .ok_or_else(|| UnknownPolicy(text.chars().take(80).collect()))
    }
}

/// A policy's word that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no policy")]
pub struct UnknownPolicy(pub String);

/// What a source is worth beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceTerm {
    /// Lower comes first; equal ones in the order of the files. `None`: [`PRECEDENCE`].
    pub precedence: Option<u16>,
    /// Its share of the requests, at most [`MOST_WEIGHT`]; 0: it gets none.
    pub weight: Option<u32>,
}

/// How the sources of a service, or of every service, meet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MergeRule {
    /// The service; `None`: every service without a rule of its own.
    pub service: Option<ServiceId>,
    /// What becomes of them.
    pub policy: MergePolicy,
    /// Sources that come first, in this order; the others follow by their precedence.
    pub sources: Vec<String>,
    /// Shares, by source; they replace the sources' own.
    pub weights: BTreeMap<String, u32>,
}

/// How sources meet on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Merge {
    /// By source id; what is not here has nothing stated.
    pub terms: BTreeMap<String, SourceTerm>,
    /// Each service at most once.
    pub rules: Vec<MergeRule>,
}

impl Merge {
    /// The rule of exactly this service.
    pub fn rule(&self, service: &ServiceId) -> Option<&MergeRule> {
        let mut rules = self.rules.iter();
        rules.find(|rule| rule.service.as_ref() == Some(service))
    }

    /// The rule of services without one of their own.
    pub fn default_rule(&self) -> Option<&MergeRule> {
        self.rules.iter().find(|rule| rule.service.is_none())
    }
}
