//! How sources meet: precedences, shares, and rules by service.

use std::collections::BTreeMap;

use super::range;
use crate::{
    config::{
        Merge, MergePolicy, MergeRule, SourceConfig, SourceTerm,
        file::{FileMerge, FileSource},
        merge::MOST_WEIGHT,
    },
    name::ServiceId,
    written::{At, suggestion},
};

pub(super) fn merge(
    given: &[FileMerge],
    sources: &[FileSource],
    ids: &[SourceConfig],
    at: &At<'_>,
    at_sources: &At<'_>,
) -> Merge {
    Merge {
        terms: terms(sources, ids, at_sources),
        rules: rules(given, at),
    }
}

fn terms(
    sources: &[FileSource],
    ids: &[SourceConfig],
    at: &At<'_>,
) -> BTreeMap<String, SourceTerm> {
    let mut terms = BTreeMap::new();
    for (index, source) in sources.iter().enumerate() {
        let at = at.index(index);
        let term = term(source, &at);
        if term == SourceTerm::default() {
            continue;
        }
        // Ids that were not given are made from the kind and the place.
        let kind = source.kind.as_deref().unwrap_or_default();
        let made = format!("{kind}/{}", index + 1);
        let id = source.id.as_ref().unwrap_or(&made);
        if ids.iter().any(|known| known.id == *id) {
            terms.insert(id.clone(), term);
        }
    }
    terms
}

/// What a source is worth beside others.
pub(super) fn term(source: &FileSource, at: &At<'_>) -> SourceTerm {
    let precedence = source.precedence;
    let weight = source.weight;
    SourceTerm {
        precedence: precedence.map(|number| range(number, &at.key("precedence"), 0, 1000)),
        weight: weight.map(|number| range(number, &at.key("weight"), 0, MOST_WEIGHT)),
    }
}

fn rules(given: &[FileMerge], at: &At<'_>) -> Vec<MergeRule> {
    let mut rules: Vec<MergeRule> = Vec::new();
    for (index, one) in given.iter().enumerate() {
        let at = at.index(index);
        let Some(rule) = rule(one, &at) else { continue };
        if rules.iter().any(|other| other.service == rule.service) {
            at.key("service").fault(
                "has a rule already",
                "write one [[merge]] for each service, and one for \"*\"",
            );
        }
        rules.push(rule);
    }
    rules
}

fn rule(given: &FileMerge, at: &At<'_>) -> Option<MergeRule> {
    let service = match given.service.as_deref() {
        None | Some("*") => None,
        Some(name) => match ServiceId::parse(name) {
            Ok(id) => Some(id),
            Err(error) => {
                at.key("service")
                    .fault(error.to_string(), "write `name`, `namespace/name` or \"*\"");
                return None;
            }
        },
    };
    let policy = match given.policy.as_deref().map(str::parse::<MergePolicy>) {
        None => MergePolicy::default(),
        Some(Ok(policy)) => policy,
        Some(Err(error)) => {
            let words: Vec<&str> = MergePolicy::ALL.iter().map(|(word, _)| *word).collect();
            at.key("policy")
                .fault(error.to_string(), suggestion(&error.0, &words));
            MergePolicy::default()
        }
    };
    let sources = given.sources.clone().unwrap_or_default();
    for (index, source) in sources.iter().enumerate() {
        if sources.iter().take(index).any(|before| before == source) {
            at.key("sources")
                .index(index)
                .fault(format!("{source:?} is written twice"), "write it once");
        }
    }
    let weights = given.weights.clone().unwrap_or_default();
    for (source, weight) in &weights {
        range(*weight, &at.key("weights").key(source), 0, MOST_WEIGHT);
    }
    Some(MergeRule {
        service,
        policy,
        sources,
        weights,
    })
}
