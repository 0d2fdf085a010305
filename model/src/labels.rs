//! Labels of which many endpoints have the same: kept once, read and written as a map.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    ops::{Deref, DerefMut},
    sync::Arc,
};

/// Labels; a copy shares them until either is changed. None take no memory.
#[derive(Debug, Clone, Default)]
pub struct Labels(Option<Arc<BTreeMap<String, String>>>);

/// No labels.
static NONE: BTreeMap<String, String> = BTreeMap::new();

impl Labels {
    /// True when another owner has the very same ones.
    pub fn is_shared(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|labels| Arc::strong_count(labels) > 1)
    }
}

impl Deref for Labels {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for Labels {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

impl From<Arc<BTreeMap<String, String>>> for Labels {
    fn from(labels: Arc<BTreeMap<String, String>>) -> Self {
        Self((!labels.is_empty()).then_some(labels))
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(labels: BTreeMap<String, String>) -> Self {
        Self((!labels.is_empty()).then(|| Arc::new(labels)))
    }
}

impl From<Labels> for Arc<BTreeMap<String, String>> {
    fn from(labels: Labels) -> Self {
        labels.0.unwrap_or_default()
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        same || **self == **other
    }
}

impl Eq for Labels {}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_until_one_is_changed() {
        let one = Labels::from(BTreeMap::from([("zone".to_owned(), "a".to_owned())]));
        let mut other = one.clone();
        assert!(one.is_shared());
        assert_eq!(one, other);
        other.insert("rack".to_owned(), "r1".to_owned());
        assert!(!one.is_shared());
        assert_ne!(one, other);
        assert_eq!((one.len(), other.len()), (1, 2));
    }

    #[test]
    fn none_are_none_however_they_came_to_be() {
        let mut emptied = Labels::from(BTreeMap::from([("zone".to_owned(), "a".to_owned())]));
        emptied.clear();
        assert_eq!(emptied, Labels::default());
        let of = |labels: &Labels| {
            let mut hash = std::hash::DefaultHasher::new();
            labels.hash(&mut hash);
            hash.finish()
        };
        assert_eq!(of(&emptied), of(&Labels::default()));
    }
}
