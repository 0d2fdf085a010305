//! How what several sources say of one service meets: their order, the policy, their shares.
//!
//! In: the sources as this host and the others have configured them, the rule of a service. Out: the views that
//! count, best first; priorities and weights of endpoints. Workloads of the mesh are no source: they always count.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_model::{
    config::{
        MergePolicy, MergeRule,
        merge::{PRECEDENCE, WEIGHT},
    },
    document::{Spec, service_source, spec::ServiceSpec},
    name::ServiceId,
};

use crate::{
    endpoints::Considered,
    world::{View, World},
};

/// Endpoint weights of a source add up to its share times this, before they are made small again.
const SCALE: u64 = 10_000;

/// Place of a source that says none.
const LAST: (u32, usize) = (100, usize::MAX);

/// What is known of the sources of the mesh.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    world: &'a World<'a>,
    known: BTreeMap<&'a str, Known<'a>>,
}

/// What is known of a source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    /// Precedence, then place in the files.
    place: (u32, usize),
    weight: Option<u32>,
    /// The word of its kind.
    pub(crate) kind: &'a str,
    /// Which part of the registry it reads.
    pub(crate) scope: &'a str,
    /// Tags that its instances carry.
    pub(crate) tags: &'a [String],
}

/// The views of one service that count, best first.
#[derive(Debug)]
pub(crate) struct Merged<'v, 'a> {
    /// Each with the number of its source in `sources`.
    pub(crate) views: Vec<(usize, &'v View<'a>)>,
    policy: MergePolicy,
    /// Share of each source, by number; empty when none is stated.
    shares: Vec<u32>,
}

impl<'a> Sources<'a> {
    /// This host's own settings count; of sources that it does not have, the others' lowest.
    pub(crate) fn gather(world: &'a World<'a>) -> Self {
        let mut known = BTreeMap::new();
        let live = world.input.live;
        for (number, source) in live.sources.iter().enumerate() {
            let term = live.merge.terms.get(&source.id).copied();
            let term = term.unwrap_or_default();
            let one = Known {
                place: (term.precedence.unwrap_or(PRECEDENCE).into(), number),
                weight: term.weight,
                kind: source.kind.word(),
                scope: source.kind.scope(),
                tags: source.kind.tags(),
            };
            known.insert(source.id.as_str(), one);
        }
        let own: BTreeSet<&str> = known.keys().copied().collect();
        for (id, host) in &world.input.catalog.hosts {
            if world.right(*id, host).is_err() {
                continue;
            }
            let stated = host.info.iter().flat_map(|info| &info.sources);
            for (number, terms) in stated.enumerate() {
                if own.contains(terms.id.as_str()) {
                    continue;
                }
                let one = Known {
                    place: (terms.precedence, number),
                    weight: terms.weight.checked_sub(1),
                    kind: &terms.kind,
                    scope: &terms.scope,
                    tags: &terms.tags,
                };
                let best = known.entry(&terms.id).or_insert(one);
                if one.place < best.place {
                    *best = one;
                }
            }
        }
        for (key, resource) in world.input.catalog.of_kind("ServiceSource") {
            let Spec::ServiceSource(spec) = &resource.document.spec else {
                continue;
            };
            let id = known
                .keys()
                .copied()
                .find(|id| *id == service_source::id(&key.name));
            let place = (
                spec.term.precedence.unwrap_or(PRECEDENCE).into(),
                usize::MAX,
            );
            let one = Known {
                place,
                weight: spec.term.weight,
                kind: spec.source.kind.word(),
                scope: spec.source.kind.scope(),
                tags: spec.source.kind.tags(),
            };
            // Known once a host reads it; what its document says counts then.
            if let Some(id) = id.filter(|id| !own.contains(id)) {
                known.insert(id, one);
            }
        }
        Self { world, known }
    }

    /// All of them, best first.
    pub(crate) fn in_order(&self) -> Vec<(&'a str, Known<'a>)> {
        let mut all: Vec<_> = self.known.iter().map(|(id, one)| (*id, *one)).collect();
        all.sort_by_key(|(id, one)| (one.place, *id));
        all
    }

    /// The rule of a service: this host's own, its document's, this host's for all.
    fn rule(&self, id: &ServiceId, spec: Option<&ServiceSpec>) -> Cow<'a, MergeRule> {
        let merge = &self.world.input.live.merge;
        if let Some(rule) = merge.rule(id) {
            return Cow::Borrowed(rule);
        }
        if let Some(spec) = spec.and_then(|spec| spec.merge.as_ref()) {
            return Cow::Owned(spec.rule());
        }
        merge
            .default_rule()
            .map_or_else(|| Cow::Owned(MergeRule::default()), Cow::Borrowed)
    }

    /// The views of a service that count, best first.
    pub(crate) fn merge<'v>(
        &self,
        id: &ServiceId,
        spec: Option<&ServiceSpec>,
        views: impl Iterator<Item = &'v View<'a>>,
    ) -> Merged<'v, 'a>
    where
        'a: 'v,
    {
        let rule = self.rule(id, spec);
        let place = |view: &View<'_>| {
            let source = view.source.as_str();
            let named = rule.sources.iter().position(|one| one == source);
            let known = self.known.get(source).map(|known| known.place);
            (named.unwrap_or(usize::MAX), known.unwrap_or(LAST))
        };
        let mut views: Vec<&'v View<'a>> = views.collect();
        views.sort_by(|a, b| (place(a), &a.source).cmp(&(place(b), &b.source)));
        if rule.policy == MergePolicy::First
            && let Some(first) = views.first().map(|view| view.source.as_str())
        {
            views.retain(|view| view.source == first);
        }
        let mut sources: Vec<&'v str> = Vec::new();
        let numbered = views
            .into_iter()
            .map(|view| {
                if sources.last() != Some(&view.source.as_str()) {
                    sources.push(&view.source);
                }
                (sources.len().saturating_sub(1), view)
            })
            .collect();
        Merged {
            views: numbered,
            policy: rule.policy,
            shares: self.shares(&rule, &sources),
        }
    }

    fn shares(&self, rule: &MergeRule, sources: &[&str]) -> Vec<u32> {
        let stated = |source: &&str| {
            let of_rule = rule.weights.get(*source).copied();
            of_rule.or_else(|| self.known.get(source)?.weight)
        };
        if sources.iter().all(|source| stated(source).is_none()) {
            return Vec::new();
        }
        let all = sources.iter();
        all.map(|source| stated(source).unwrap_or(WEIGHT)).collect()
    }
}

impl<'v, 'a> Merged<'v, 'a> {
    /// The views of one source, as they are.
    pub(crate) fn alone(views: impl Iterator<Item = &'v View<'a>>) -> Self {
        Self {
            views: views.map(|view| (0, view)).collect(),
            policy: MergePolicy::Union,
            shares: Vec::new(),
        }
    }
}

impl Merged<'_, '_> {
    /// True when a weight is stated.
    pub(crate) fn has_shares(&self) -> bool {
        !self.shares.is_empty()
    }

    /// Gives the endpoints of one port the priorities and weights that the rule asks for. Each address stands
    /// there once.
    pub(crate) fn settle(&self, candidates: &mut [Considered]) {
        if self.policy == MergePolicy::Failover {
            fail_over(candidates);
        }
        if !self.shares.is_empty() {
            self.weigh(candidates);
        }
    }

    fn share(&self, source: Option<usize>) -> u32 {
        source
            .and_then(|number| self.shares.get(number).copied())
            .unwrap_or(WEIGHT)
    }

    /// Weights that give each source its share of the requests, however many endpoints it has. What may not be
    /// used does not count, so that a share is one of what is left.
    fn weigh(&self, candidates: &mut [Considered]) {
        for one in candidates.iter_mut() {
            if self.share(one.source) == 0 && one.left_out.is_none() {
                one.left_out = Some("its source has weight 0".into());
                one.fallback = false;
            }
        }
        let mut sums: BTreeMap<Option<usize>, u64> = BTreeMap::new();
        for one in candidates.iter().filter(|one| one.left_out.is_none()) {
            *sums.entry(one.source).or_default() += u64::from(one.endpoint.weight);
        }
        let scaled = |one: &Considered| {
            let sum = sums.get(&one.source).copied().unwrap_or(1).max(1);
            let share = u64::from(self.share(one.source)) * SCALE;
            (share * u64::from(one.endpoint.weight) / sum).max(1)
        };
        let usable = candidates.iter().filter(|one| one.left_out.is_none());
        let common = usable.map(scaled).reduce(divisor).unwrap_or(1).max(1);
        for one in candidates.iter_mut().filter(|one| one.left_out.is_none()) {
            let weight = u32::try_from(scaled(one) / common).unwrap_or(u32::MAX);
            Arc::make_mut(&mut one.endpoint).weight = weight;
        }
    }
}

/// Source by source, and within a source as it says: numbered without gaps.
fn fail_over(candidates: &mut [Considered]) {
    let place = |one: &Considered| (one.source.unwrap_or(0), one.endpoint.priority);
    let places: BTreeSet<(usize, u16)> = candidates.iter().map(place).collect();
    let numbers: BTreeMap<(usize, u16), u16> = places.into_iter().zip(0..=u16::MAX).collect();
    for one in candidates {
        let priority = numbers.get(&place(one)).copied().unwrap_or(u16::MAX);
        Arc::make_mut(&mut one.endpoint).priority = priority;
    }
}

fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}
