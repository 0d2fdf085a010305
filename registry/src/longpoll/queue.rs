//! The services that have no question of their own: which of them is read next. Pure.
//!
//! In: what may have changed. Out: groups to read, what was named before what was not, and services that changed
//! so lately that they should have a question of their own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mesh_model::endpoint::ServiceKey;

/// What to read next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    Nothing,
    /// Services of which something is known: at once.
    Named(Vec<ServiceKey>),
    /// A part of a round through all; `first` and `last` of its parts.
    Round {
        keys: Vec<ServiceKey>,
        first: bool,
        last: bool,
    },
}

/// Which services are read in turn, and when.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// All of them, with the index that each had when it was read last.
    all: BTreeMap<ServiceKey, Option<u64>>,
    named: BTreeSet<ServiceKey>,
    round: VecDeque<ServiceKey>,
    /// A round is to begin.
    due: bool,
    /// When services changed last, by a count of changes; those that are followed too.
    heat: BTreeMap<ServiceKey, u64>,
    beats: u64,
    rising: BTreeSet<ServiceKey>,
    /// The one that was looked at last without a reason.
    looked: Option<ServiceKey>,
}

impl Queue {
    /// From now on these are read in turn. Returns who is new and who is no longer among them.
    pub(super) fn set(&mut self, keys: &BTreeSet<ServiceKey>) -> [Vec<ServiceKey>; 2] {
        let left: Vec<ServiceKey> = self
            .all
            .keys()
            .filter(|key| !keys.contains(key))
            .cloned()
            .collect();
        for key in &left {
            self.all.remove(key);
            self.named.remove(key);
            self.rising.remove(key);
        }
        let new: Vec<ServiceKey> = keys
            .iter()
            .filter(|key| !self.all.contains_key(key))
            .cloned()
            .collect();
        for key in &new {
            self.all.insert(key.clone(), None);
            self.named.insert(key.clone());
        }
        [new, left]
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// True when it is read in turn.
    pub(super) fn has(&self, key: &ServiceKey) -> bool {
        self.all.contains_key(key)
    }

    /// This one changed, or failed. True when it is read in turn.
    pub(super) fn name(&mut self, key: ServiceKey) -> bool {
        let known = self.all.contains_key(&key);
        if known {
            self.named.insert(key);
        }
        known
    }

    /// All may have changed.
    pub(super) fn everything(&mut self) {
        self.due = true;
    }

    /// What to read next, at most so many.
    pub(super) fn next(&mut self, most: usize) -> Next {
        let mut first = false;
        if self.due && self.round.is_empty() {
            self.due = false;
            // What is waited for comes first, also in a round.
            let named = std::mem::take(&mut self.named);
            let heat = |key: &ServiceKey| self.heat.get(key).copied().unwrap_or(0);
            let mut keys: Vec<&ServiceKey> = self.all.keys().collect();
            keys.sort_by_key(|key| (!named.contains(*key), std::cmp::Reverse(heat(key))));
            self.round = keys.into_iter().cloned().collect();
            first = true;
        }
        let mut keys = Vec::new();
        while keys.len() < most
            && let Some(key) = self.named.pop_first()
        {
            keys.push(key);
        }
        if !keys.is_empty() {
            return Next::Named(keys);
        }
        while keys.len() < most
            && let Some(key) = self.round.pop_front()
        {
            if self.all.contains_key(&key) {
                keys.push(key);
            }
        }
        if keys.is_empty() {
            return Next::Nothing;
        }
        let last = self.round.is_empty();
        Next::Round { keys, first, last }
    }

    /// It was read and had this index. True when it should have a question of its own.
    pub(super) fn read(&mut self, key: &ServiceKey, index: u64) -> bool {
        let Some(known) = self.all.get_mut(key) else {
            return false;
        };
        let changed = known.is_some_and(|known| known != index);
        *known = Some(index);
        if changed {
            self.warm(key);
            self.rising.insert(key.clone());
        }
        changed
    }

    /// It changed.
    pub(super) fn warm(&mut self, key: &ServiceKey) {
        self.beats += 1;
        self.heat.insert(key.clone(), self.beats);
    }

    /// Names one after the other without a reason, for changes that nothing told of.
    pub(super) fn look(&mut self) {
        let after = self.looked.take();
        let next = self
            .all
            .keys()
            .find(|key| after.as_ref().is_none_or(|last| *key > last));
        let next = next.or_else(|| self.all.keys().next()).cloned();
        if let Some(key) = &next {
            self.named.insert(key.clone());
        }
        self.looked = next;
    }

    /// First the one that did not change for longest.
    pub(super) fn by_heat(&self, keys: &mut [&ServiceKey]) {
        keys.sort_by_key(|key| self.heat.get(*key).copied().unwrap_or(0));
    }

    /// Who takes whose question: at most so many that changed lately, each for the one of `watched` that did not
    /// for longest.
    pub(super) fn swaps(
        &mut self,
        watched: Vec<&ServiceKey>,
        most: usize,
    ) -> Vec<(ServiceKey, ServiceKey)> {
        if self.rising.is_empty() || most == 0 {
            return Vec::new();
        }
        let heat = |key: &ServiceKey| self.heat.get(key).copied().unwrap_or(0);
        let mut cool = watched;
        self.by_heat(&mut cool);
        let mut hot: Vec<&ServiceKey> = self.rising.iter().collect();
        hot.sort_by_key(|key| std::cmp::Reverse(heat(key)));
        let pairs = hot.into_iter().zip(cool).take(most);
        let pairs = pairs.filter(|(up, down)| heat(up) > heat(down));
        let pairs = pairs.map(|(up, down)| (up.clone(), down.clone())).collect();
        self.rising.clear();
        pairs
    }

    /// Forgets what is not wanted any more.
    pub(super) fn keep(&mut self, wanted: &BTreeSet<ServiceKey>) {
        self.heat.retain(|key, _| wanted.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use mesh_model::name::{Namespace, ServiceName};

    use super::*;

    fn key(name: &str) -> ServiceKey {
        ServiceKey {
            namespace: Some(Namespace::default()),
            name: ServiceName::new(name).unwrap(),
            port_name: None,
        }
    }
    fn keys(names: &[&str]) -> BTreeSet<ServiceKey> {
        names.iter().map(|name| key(name)).collect()
    }

    #[test]
    fn what_was_named_goes_before_a_round() {
        let mut queue = Queue::default();
        let [new, left] = queue.set(&keys(&["a", "b", "c"]));
        assert_eq!((new.len(), left.len()), (3, 0));
        queue.everything();
        let part = |names: &[&str], first, last| Next::Round {
            keys: names.iter().map(|name| key(name)).collect(),
            first,
            last,
        };
        assert_eq!(
            queue.next(2),
            part(&["a", "b"], true, false),
            "new ones are in it"
        );
        assert!(queue.name(key("a")) && !queue.name(key("z")));
        queue.everything();
        assert_eq!(queue.next(2), Next::Named(vec![key("a")]));
        assert_eq!(queue.next(2), part(&["c"], false, true));
        assert!(!queue.read(&key("c"), 4), "the first time says nothing");
        assert!(queue.read(&key("c"), 5));
        assert_eq!(
            queue.next(9),
            part(&["c", "a", "b"], true, true),
            "asked for meanwhile; what changed is first"
        );
        assert_eq!(queue.next(9), Next::Nothing);
        queue.look();
        assert_eq!(queue.next(9), Next::Named(vec![key("a")]));
        queue.look();
        assert_eq!(queue.next(9), Next::Named(vec![key("b")]));
        let [new, left] = queue.set(&keys(&["b"]));
        assert_eq!((new.len(), left), (0, vec![key("a"), key("c")]));
    }

    #[test]
    fn what_changes_takes_the_question_of_what_does_not() {
        let mut queue = Queue::default();
        queue.set(&keys(&["a", "b", "c"]));
        queue.warm(&key("x"));
        for index in [1, 2] {
            for name in ["a", "b"] {
                queue.read(&key(name), index);
            }
        }
        let watched = keys(&["x", "y"]);
        assert_eq!(
            queue.swaps(watched.iter().collect(), 9),
            [(key("b"), key("y")), (key("a"), key("x"))]
        );
        assert_eq!(queue.swaps(watched.iter().collect(), 9), [], "once");
        queue.set(&keys(&["a", "c", "y"]));
        assert_eq!(
            queue.next(9),
            Next::Named(
                keys(&["a", "b", "c", "y"])
                    .into_iter()
                    .filter(|one| *one != key("b"))
                    .collect()
            )
        );
    }
}
