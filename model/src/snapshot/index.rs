//! An index over a long table of rules by path, so that a request looks at few of them.
//!
//! In: the rules in order. Out: the first that fits a request, the same that looking at all would find. Exact paths
//! and prefixes of whole segments are looked up; rules with other paths are looked at one by one.

use std::{fmt, sync::Arc};

use super::{Map, Rule, decide::RequestView, rule::PathMatch};

/// Tables up to this length are read from the beginning.
const SHORT: usize = 16;

/// The index; nothing for a short table.
#[derive(Clone, Default)]
pub struct PathIndex(Option<Arc<Places>>);

#[derive(Default)]
struct Places {
    exact: Map<Box<str>, Vec<usize>>,
    prefix: Map<Box<str>, Vec<usize>>,
    /// Slashes in the deepest prefix: no more parts of a path are looked up.
    depth: usize,
    /// Places of all other rules.
    others: Vec<usize>,
}

impl PathIndex {
    /// The index of a table.
    pub fn of(rules: &[Arc<Rule>]) -> Self {
        if rules.len() <= SHORT {
            return Self(None);
        }
        let mut places = Places::default();
        for (place, rule) in rules.iter().enumerate() {
            let list = match &rule.matches.path {
                PathMatch::Exact(path) => places.exact.entry(path.clone()).or_default(),
                PathMatch::Prefix(path) => {
                    let slashes = path.bytes().filter(|byte| *byte == b'/').count();
                    places.depth = places.depth.max(slashes);
                    places.prefix.entry(path.clone()).or_default()
                }
                PathMatch::Any
                | PathMatch::Begins(_)
                | PathMatch::AnyCase { .. }
                | PathMatch::Regex(_) => &mut places.others,
            };
            list.push(place);
        }
        Self(Some(Arc::new(places)))
    }

    /// The first of the rules that fits.
    pub(super) fn find<'r>(
        &self,
        rules: &'r [Arc<Rule>],
        request: &impl RequestView,
    ) -> Option<&'r Arc<Rule>> {
        let Some(places) = &self.0 else {
            return rules.iter().find(|rule| rule.matches.fits(request));
        };
        let path = request.path();
        let mut best = Best {
            rules,
            request,
            found: usize::MAX,
        };
        best.try_list(places.exact.get(path));
        if !places.prefix.is_empty() {
            let slashes = path.match_indices('/').map(|(at, _)| at);
            // A prefix ends before a slash or with the path, so one with n slashes ends before the n+1st.
            for end in slashes.chain([path.len()]).take(places.depth + 1) {
                best.try_list(path.get(..end).and_then(|head| places.prefix.get(head)));
            }
        }
        best.try_list(Some(&places.others));
        rules.get(best.found)
    }
}

struct Best<'r, 'v, V> {
    rules: &'r [Arc<Rule>],
    request: &'v V,
    found: usize,
}

impl<V: RequestView> Best<'_, '_, V> {
    /// Looks at the places before what was found already.
    fn try_list(&mut self, places: Option<&Vec<usize>>) {
        let mut before = places.into_iter().flatten().copied();
        let fits = |place: &usize| {
            let rule = self.rules.get(*place);
            rule.is_some_and(|rule| rule.matches.fits(self.request))
        };
        let found = before
            .by_ref()
            .take_while(|place| *place < self.found)
            .find(fits);
        if let Some(place) = found {
            self.found = place;
        }
    }
}

impl PartialEq for PathIndex {
    /// It follows from the rules, which are compared themselves.
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl fmt::Debug for PathIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "by path" } else { "none" })
    }
}
