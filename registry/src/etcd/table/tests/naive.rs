//! The table as one would write it who has memory for all values: the model.

use super::*;

#[derive(Debug)]
struct Known {
    revision: i64,
    good: Option<Box<[u8]>>,
    faulty: bool,
}

#[derive(Debug, Default)]
struct Group {
    written: Box<str>,
    keys: BTreeMap<Box<str>, Known>,
}

/// The keys of one prefix.
#[derive(Debug)]
pub(super) struct Naive {
    layout: Layout,
    only: Option<Arc<BTreeSet<ServiceName>>>,
    services: BTreeMap<ServiceKey, Group>,
    foreign: BTreeMap<Box<[u8]>, i64>,
    aged: usize,
    complaint: Option<String>,
}

impl Naive {
    pub(super) fn new(layout: Layout, only: Option<Arc<BTreeSet<ServiceName>>>) -> Self {
        Self {
            layout,
            only,
            services: BTreeMap::new(),
            foreign: BTreeMap::new(),
            aged: 0,
            complaint: None,
        }
    }

    pub(super) fn aged(&self) -> Option<String> {
        let example = self.complaint.as_deref().unwrap_or_default();
        (self.aged > 0).then(|| {
            format!(
                "{} values cannot be understood, such as {example}",
                self.aged
            )
        })
    }

    pub(super) fn put(&mut self, entry: &Entry) -> Effect {
        let Some(place) = self.layout.place(&entry.key) else {
            return self.strange(entry);
        };
        if !self.counts(&place) {
            return Effect::default();
        }
        let group = self.services.entry(place.service.clone()).or_default();
        if group.keys.is_empty() {
            group.written.clone_from(&place.written);
        } else if group.written != place.written {
            return self.strange(entry);
        }
        let (layout, old) = (&self.layout, group.keys.get(&place.id));
        if old.is_some_and(|known| known.revision >= entry.revision) {
            return Effect::default();
        }
        let was_aged = old.is_some_and(Known::is_aged);
        let fault = layout.read(&place.id, &entry.value).err();
        let good = match fault {
            None => Some(Box::from(&*entry.value)),
            Some(_) => group.keys.remove(&place.id).and_then(|known| known.good),
        };
        let known = Known {
            revision: entry.revision,
            good,
            faulty: fault.is_some(),
        };
        let is_aged = known.is_aged();
        group.keys.insert(place.id, known);
        self.aged = self.aged + usize::from(is_aged) - usize::from(was_aged);
        let unreadable = fault.is_some();
        if let Some(fault) = fault {
            self.complain(&entry.key, &fault);
        }
        Effect {
            changed: (!unreadable).then_some(place.service),
            unreadable,
        }
    }

    pub(super) fn delete(&mut self, key: &[u8], revision: i64) -> Effect {
        let Some(place) = self.layout.place(key) else {
            self.foreign.remove(key);
            return Effect::default();
        };
        let Some(group) = self.services.get_mut(&place.service) else {
            return Effect::default();
        };
        let known = group.keys.get(&place.id);
        if group.written != place.written || known.is_none_or(|known| known.revision >= revision) {
            return Effect::default();
        }
        if group
            .keys
            .remove(&place.id)
            .is_some_and(|known| known.is_aged())
        {
            self.aged -= 1;
        }
        if group.keys.is_empty() {
            self.services.remove(&place.service);
        }
        Effect {
            changed: Some(place.service),
            unreadable: false,
        }
    }

    pub(super) fn content(&self, service: &ServiceKey) -> Content {
        let Some(group) = self.services.get(service) else {
            return Content::Gone;
        };
        let mut set = None;
        for (id, known) in &group.keys {
            let read = known
                .good
                .as_deref()
                .and_then(|value| self.layout.read(id, value).ok());
            if let Some(read) = read {
                groups::join(set.get_or_insert_default(), read);
            }
        }
        set.map_or(Content::Unreadable, Content::Set)
    }

    pub(super) fn replace(&mut self, entries: Vec<Entry>) -> Swept {
        let mut old = std::mem::take(&mut self.services);
        let old_foreign = std::mem::take(&mut self.foreign);
        (self.aged, self.complaint) = (0, None);
        let mut swept = Swept::default();
        for entry in entries {
            let place = self.layout.place(&entry.key).filter(|place| {
                let group = self.services.get(&place.service);
                group.is_none_or(|group| group.written == place.written)
            });
            let Some(place) = place else {
                let news = old_foreign.get(&*entry.key) != Some(&entry.revision);
                swept.unreadable += usize::from(news);
                self.remember(entry.key, entry.revision);
                continue;
            };
            if !self.counts(&place) {
                continue;
            }
            let before = old
                .get_mut(&place.service)
                .and_then(|group| group.keys.remove(&place.id));
            let news = before
                .as_ref()
                .is_none_or(|known| known.revision != entry.revision);
            swept.differs |= news;
            let (good, faulty) = match self.layout.read(&place.id, &entry.value) {
                Ok(_) => (Some(entry.value.into_boxed_slice()), false),
                Err(fault) => {
                    swept.unreadable += usize::from(news);
                    let good = before.and_then(|known| known.good);
                    self.aged += usize::from(good.is_some());
                    self.complain(&entry.key, &fault);
                    (good, true)
                }
            };
            let known = Known {
                revision: entry.revision,
                good,
                faulty,
            };
            let group = self.services.entry(place.service).or_default();
            group.written = place.written;
            group.keys.insert(place.id, known);
        }
        swept.differs |= old.values().any(|group| !group.keys.is_empty());
        swept
    }

    fn counts(&self, place: &Place) -> bool {
        self.only
            .as_deref()
            .is_none_or(|only| only.contains(&place.service.name))
    }

    fn strange(&mut self, entry: &Entry) -> Effect {
        let news = self.foreign.get(&*entry.key) != Some(&entry.revision);
        self.remember(entry.key.clone(), entry.revision);
        Effect {
            changed: None,
            unreadable: news,
        }
    }

    fn remember(&mut self, key: Vec<u8>, revision: i64) {
        if self.foreign.len() < MAX_FOREIGN || self.foreign.contains_key(&*key) {
            self.foreign.insert(key.into_boxed_slice(), revision);
        }
    }

    fn complain(&mut self, key: &[u8], fault: &Fault) {
        let name: String = String::from_utf8_lossy(key).chars().take(120).collect();
        self.complaint = Some(format!("{name}: {fault}"));
    }
}

impl Known {
    fn is_aged(&self) -> bool {
        self.faulty && self.good.is_some()
    }
}
