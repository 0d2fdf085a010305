//! The table against a model of etcd, and its rules one by one.

use mesh_model::{config::EtcdLayout, name::Namespace};
use proptest::prelude::*;

use super::*;

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
    let swept = table.replace(vec![entry("/s/web/a", "nonsense", 2)]);
    assert_eq!(
        (swept.unreadable, swept.differs),
        (0, false),
        "it was counted before"
    );
    assert_eq!(addresses(&swept.services[0].1), ["10.0.0.1:1"]);
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
    let swept = table.replace(vec![
        entry("/s/api/a", "10.0.0.1:1", 1),
        entry("/s/web/a", "10.0.0.1:2", 1),
    ]);
    assert_eq!(swept.services.len(), 1);
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
                    let swept = table.replace(etcd.values().cloned().collect());
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
