//! The table against a model of etcd, and its rules one by one.

use mesh_model::{config::EtcdLayout, name::Namespace};
use proptest::prelude::*;

use super::*;

mod naive;

use naive::Naive;

fn table() -> Table {
    Table::new(Layout::new(EtcdLayout::Registrator, "/s"), None)
}

fn entry(key: &str, value: &str, revision: i64) -> Entry {
    Entry {
        key: key.as_bytes().to_vec(),
        value: value.as_bytes().to_vec(),
        revision,
    }
}

fn service(name: &str) -> ServiceKey {
    ServiceKey {
        namespace: Some(Namespace::default()),
        name: ServiceName::new(name).unwrap(),
        port_name: None,
    }
}

fn replace(table: &mut Table, entries: Vec<Entry>) -> Swept {
    let mut reading = Reading::default();
    for entry in entries {
        table.read(entry, &mut reading);
    }
    table.replace(reading)
}

fn addresses(content: &Content) -> Vec<String> {
    match content {
        Content::Set(set) => set
            .endpoints
            .iter()
            .map(|one| one.address.to_string())
            .collect(),
        Content::Unreadable | Content::Gone => Vec::new(),
    }
}

#[test]
fn a_value_that_is_nonsense_keeps_the_last_good_one() {
    let mut table = table();
    table.put(&entry("/s/web/a", "10.0.0.1:1", 1));
    let effect = table.put(&entry("/s/web/a", "nonsense", 2));
    assert!(effect.unreadable && effect.changed.is_none());
    assert_eq!(addresses(&table.content(&service("web"))), ["10.0.0.1:1"]);
    assert!(table.aged().unwrap().contains("/s/web/a"));
    let swept = replace(&mut table, vec![entry("/s/web/a", "nonsense", 2)]);
    assert_eq!(
        (swept.unreadable, swept.differs),
        (0, false),
        "it was counted before"
    );
    assert_eq!(addresses(&table.content(&service("web"))), ["10.0.0.1:1"]);
    assert!(table.aged().is_some());
    table.put(&entry("/s/web/a", "10.0.0.1:2", 3));
    assert_eq!(table.aged(), None);
    table.put(&entry("/s/web/b", "never good", 4));
    assert_eq!(table.aged(), None, "nothing is older than etcd has it");
    table.delete(b"/s/web/a", 5);
    assert_eq!(table.content(&service("web")), Content::Unreadable);
    table.delete(b"/s/web/b", 6);
    assert_eq!(table.content(&service("web")), Content::Gone);
}

#[test]
fn two_services_of_etcd_are_never_one() {
    let mut table = table();
    table.put(&entry("/s/web.api/a", "10.0.0.1:1", 1));
    let effect = table.put(&entry("/s/web-api/b", "10.0.0.2:2", 2));
    assert!(effect.unreadable);
    assert_eq!(
        addresses(&table.content(&service("web-api"))),
        ["10.0.0.1:1"]
    );
    assert!(
        !table
            .put(&entry("/s/web-api/b", "10.0.0.2:2", 2))
            .unreadable,
        "counted once"
    );
    table.delete(b"/s/web-api/b", 3);
    assert_eq!(
        addresses(&table.content(&service("web-api"))),
        ["10.0.0.1:1"]
    );
}

#[test]
fn only_named_services_count() {
    let only = BTreeSet::from([ServiceName::new("web").unwrap()]);
    let mut table = Table::new(
        Layout::new(EtcdLayout::Registrator, "/s"),
        Some(Arc::new(only)),
    );
    let all = vec![
        entry("/s/api/a", "10.0.0.1:1", 1),
        entry("/s/web/a", "10.0.0.1:2", 1),
    ];
    replace(&mut table, all);
    assert_eq!(table.services().collect::<Vec<_>>(), [&service("web")]);
    assert_eq!(
        table.put(&entry("/s/api/b", "10.0.0.1:1", 2)),
        Effect::default()
    );
}

#[derive(Debug, Clone)]
enum Act {
    Put(u8, u8, bool),
    Delete(u8, u8),
    /// A whole read of what etcd has, seen when events up to now may be told again.
    Read,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0..3_u8, 0..4_u8, prop::bool::weighted(0.8)).prop_map(|(s, i, good)| Act::Put(s, i, good)),
        3 => (0..3_u8, 0..4_u8).prop_map(|(s, i)| Act::Delete(s, i)),
        1 => Just(Act::Read),
    ];
    prop::collection::vec(act, 0..60)
}

proptest! {
    /// Events told in order, told twice, and whole reads in between lead to what etcd has, with the last
    /// value of each key that could be understood.
    #[test]
    fn it_has_what_etcd_has(acts in acts()) {
        let mut table = table();
        let mut etcd: BTreeMap<String, Entry> = BTreeMap::new();
        let mut good: BTreeMap<String, String> = BTreeMap::new();
        let mut events: Vec<(String, Option<Entry>, i64)> = Vec::new();
        for (revision, act) in (1..).zip(acts) {
            match act {
                Act::Put(s, i, is_good) => {
                    let key = format!("/s/s{s}/{i}");
                    let address = format!("10.0.{s}.{i}:{revision}");
                    let value = if is_good { address.clone() } else { "?".to_owned() };
                    let one = entry(&key, &value, revision);
                    table.put(&one);
                    if is_good {
                        good.insert(key.clone(), address);
                    }
                    etcd.insert(key.clone(), one.clone());
                    events.push((key, Some(one), revision));
                }
                Act::Delete(s, i) => {
                    let key = format!("/s/s{s}/{i}");
                    if etcd.remove(&key).is_some() {
                        table.delete(key.as_bytes(), revision);
                        good.remove(&key);
                        events.push((key, None, revision));
                    }
                }
                Act::Read => {
                    let swept = replace(&mut table, etcd.values().cloned().collect());
                    prop_assert!(!swept.differs, "the events had told everything");
                    events.clear();
                }
            }
        }
        let told: Vec<_> = events.iter().rev().take(1).cloned().collect();
        for (key, one, revision) in told {
            match one {
                Some(one) => { table.put(&one); }
                None => { table.delete(key.as_bytes(), revision); }
            }
        }
        for s in 0..3_u8 {
            let name = format!("s{s}");
            let prefix = format!("/s/{name}/");
            let wanted: Vec<String> = good.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(_, at)| at.clone()).collect();
            let content = table.content(&service(&name));
            prop_assert_eq!(addresses(&content), wanted);
            prop_assert_eq!(content == Content::Gone, !etcd.keys().any(|key| key.starts_with(&prefix)));
        }
        let aged = etcd.iter().filter(|(key, one)| one.value == b"?" && good.contains_key(*key)).count();
        prop_assert_eq!(table.aged().is_some(), aged > 0);
    }
}

/// Something that happens to a table of many layouts.
#[derive(Debug, Clone)]
enum Event {
    Put(String, String),
    Delete(String),
    /// The last events, so many of them, are told again.
    Again(usize),
    /// A whole read; before it, etcd lost its memory.
    Read {
        afresh: bool,
    },
    Look,
}

fn keys(kind: EtcdLayout) -> impl Strategy<Value = String> {
    let services = match kind {
        EtcdLayout::Meshd => vec!["default/web", "shop/web", "default/api", "x", "A/b"],
        EtcdLayout::Skydns => vec!["com/shop/web", "com/shop/web/_http", "com/api", "_tcp"],
        EtcdLayout::Registrator | EtcdLayout::GoMicro => vec!["web.api", "web-api", "web", "!"],
        EtcdLayout::Grpc => vec!["a/web", "b/web", "api", ""],
    };
    let ids = prop::sample::select(vec!["1", "2", "x/3", "10", ""]);
    let prefix = Layout::new(kind, kind.prefix()).prefix().to_owned();
    (prop::sample::select(services), ids)
        .prop_map(move |(service, id)| format!("{prefix}{service}/{id}"))
}

fn values(kind: EtcdLayout) -> impl Strategy<Value = String> {
    let good = match kind {
        EtcdLayout::Meshd => vec![
            r#"{"address":"10.0.0.1:80","weight":3,"zone":"a","metadata":{"v":"1"}}"#,
            r#"{"address":"web.test:80","port":81,"protocol":"http"}"#,
            r#"{"address":"[fd00::1]:80","health":"draining","priority":2,"protocol":"grpc"}"#,
        ],
        EtcdLayout::Skydns => vec![
            r#"{"host":"10.0.0.1","port":80}"#,
            r#"{"host":"web.test","port":80,"text":"t","weight":9}"#,
            r#"{"text":"no endpoint"}"#,
        ],
        EtcdLayout::Registrator => vec!["10.0.0.1:80", "web.test:80", "[fd00::1]:80"],
        EtcdLayout::Grpc => vec![
            r#"{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"weight":"7","rack":"r"}}"#,
            r#"{"Op":1,"Addr":"10.0.0.1:80"}"#,
        ],
        EtcdLayout::GoMicro => vec![
            r#"{"version":"1","nodes":[{"id":"n1","address":"10.0.0.1:80"},{"address":"10.0.0.2:80","metadata":{"zone":"b"}}]}"#,
            r#"{"nodes":null}"#,
        ],
    };
    let bad = vec![
        "",
        "?",
        "[]",
        r#"{"address":"0.0.0.0:80","host":"::","port":1}"#,
    ];
    prop_oneof![4 => prop::sample::select(good), 1 => prop::sample::select(bad)]
        .prop_map(str::to_owned)
}

fn events(kind: EtcdLayout) -> impl Strategy<Value = (EtcdLayout, Vec<Event>)> {
    let event = prop_oneof![
        8 => (keys(kind), values(kind)).prop_map(|(key, value)| Event::Put(key, value)),
        4 => keys(kind).prop_map(Event::Delete),
        2 => (1..6_usize).prop_map(Event::Again),
        1 => prop::bool::weighted(0.3).prop_map(|afresh| Event::Read { afresh }),
        2 => Just(Event::Look),
    ];
    (Just(kind), prop::collection::vec(event, 0..80))
}

fn any_events() -> impl Strategy<Value = (EtcdLayout, Vec<Event>)> {
    let kinds: Vec<EtcdLayout> = EtcdLayout::ALL.into_iter().map(|(_, kind)| kind).collect();
    prop::sample::select(kinds).prop_flat_map(events)
}

/// The table, what it is compared with, and the etcd of which both are told.
struct Both {
    table: Table,
    naive: Naive,
    etcd: BTreeMap<String, Entry>,
    told: Vec<(String, Option<Entry>, i64)>,
    revision: i64,
}

impl Both {
    fn new(kind: EtcdLayout) -> Self {
        let layout = Layout::new(kind, kind.prefix());
        Self {
            table: Table::new(layout.clone(), None),
            naive: Naive::new(layout, None),
            etcd: BTreeMap::new(),
            told: Vec::new(),
            revision: 0,
        }
    }

    fn tell(&mut self, (key, entry, revision): &(String, Option<Entry>, i64)) {
        let (mine, wanted) = match entry {
            Some(entry) => (self.table.put(entry), self.naive.put(entry)),
            None => (
                self.table.delete(key.as_bytes(), *revision),
                self.naive.delete(key.as_bytes(), *revision),
            ),
        };
        assert_eq!(mine, wanted, "{key} at {revision}");
    }

    fn happen(&mut self, event: Event) {
        self.revision += 1;
        match event {
            Event::Put(key, value) => {
                let one = entry(&key, &value, self.revision);
                self.etcd.insert(key.clone(), one.clone());
                self.news((key, Some(one), self.revision));
            }
            Event::Delete(key) => {
                if self.etcd.remove(&key).is_some() {
                    self.news((key, None, self.revision));
                }
            }
            Event::Again(count) => {
                let from = self.told.len().saturating_sub(count);
                for one in self.told.split_off(from) {
                    self.news(one);
                }
            }
            Event::Read { afresh } => {
                if afresh {
                    self.etcd.retain(|key, _| key.len() % 2 == 0);
                }
                let all: Vec<Entry> = self.etcd.values().cloned().collect();
                let swept = replace(&mut self.table, all.clone());
                assert_eq!(swept, self.naive.replace(all));
                self.told.clear();
                self.look();
            }
            Event::Look => {
                self.table.rest();
                self.look();
            }
        }
        assert_eq!(self.table.aged(), self.naive.aged());
    }

    fn news(&mut self, one: (String, Option<Entry>, i64)) {
        self.tell(&one);
        self.told.push(one);
    }

    fn look(&self) {
        let names: Vec<_> = self.table.services().cloned().collect();
        let layout = self.table.layout();
        let placed = self
            .etcd
            .keys()
            .filter_map(|key| layout.place(key.as_bytes()));
        let all: BTreeSet<_> = placed.map(|place| place.service).chain(names).collect();
        for service in &all {
            assert_eq!(self.table.content(service), self.naive.content(service));
            let is_there = self.table.services().any(|one| one == service);
            assert_eq!(is_there, self.table.content(service) != Content::Gone);
        }
    }
}

proptest! {
    /// With any layout, whatever is told, however often: it says what the one says that keeps all values.
    #[test]
    fn it_is_as_the_one_that_keeps_values((kind, events) in any_events()) {
        let mut both = Both::new(kind);
        for event in events {
            both.happen(event);
        }
        both.look();
    }
}
