//! The rules of a view, each with the time given.

use mesh_model::name::ServiceName;

use super::*;
use crate::{fake::endpoint, sink::Sink};

const HOLD: u64 = 30_000;

fn key(name: &str) -> ServiceKey {
    ServiceKey {
        namespace: Some(Namespace::default()),
        name: ServiceName::new(name).unwrap(),
        port_name: None,
    }
}

fn set(ports: &[u16]) -> ServiceSet {
    ports
        .iter()
        .map(|port| endpoint(*port))
        .collect::<Vec<_>>()
        .into()
}

struct World {
    view: View,
    sink: Sink,
    outlet: crate::sink::Outlet,
}

impl World {
    fn new() -> Self {
        let (sink, outlet) = Sink::new();
        let mut world = Self {
            view: View::new("file/x", HOLD, 0),
            sink,
            outlet,
        };
        world.sink.status(SourceStatus::Synced);
        world.look(0);
        world
    }
    fn look(&mut self, now: u64) -> (bool, bool) {
        self.outlet
            .take()
            .map_or((false, false), |batch| self.view.apply(batch, now))
    }
    fn say(&mut self, name: &str, ports: &[u16], now: u64) -> (bool, bool) {
        self.sink.replace(key(name), set(ports), Version::Hash(0));
        self.look(now)
    }
    fn seen(&self, name: &str) -> Option<Vec<(String, i32)>> {
        self.view.services.get(&key(name)).map(|entry| {
            entry
                .fact
                .endpoints
                .iter()
                .map(|one| (one.address.clone(), one.health))
                .collect()
        })
    }
    fn count(&self, name: &str) -> usize {
        self.seen(name).map_or(0, |all| all.len())
    }
}

#[test]
fn the_same_set_is_no_change() {
    let mut world = World::new();
    assert_eq!(world.say("web", &[1, 2], 1), (true, false));
    assert_eq!(world.say("web", &[2, 1], 2), (false, false));
    assert_eq!(world.say("web", &[1, 2, 3], 3), (true, false));
}

#[test]
fn a_single_removal_passes_at_once() {
    let mut world = World::new();
    world.say("web", &[1, 2, 3], 1);
    assert_eq!(world.say("web", &[1, 2], 2), (true, false));
    assert_eq!(world.count("web"), 2);
}

#[test]
fn a_mass_removal_is_held_as_degraded_and_then_counts() {
    let mut world = World::new();
    world.say("web", &[1, 2, 3, 4, 5], 1);
    assert_eq!(world.say("web", &[1], 1_000), (true, true));
    let degraded = i32::from(WireHealth::Degraded);
    let seen = world.seen("web").unwrap();
    assert_eq!(
        seen.iter()
            .filter(|(_, health)| *health == degraded)
            .count(),
        4
    );
    assert_eq!(world.view.deadline_ms(), Some(1_000 + HOLD));
    assert!(!world.view.expire(HOLD));
    assert!(world.view.expire(1_000 + HOLD));
    assert_eq!(world.count("web"), 1);
}

#[test]
fn what_comes_back_is_no_longer_held() {
    let mut world = World::new();
    world.say("web", &[1, 2, 3, 4], 1);
    world.say("web", &[], 1_000);
    assert_eq!(world.view.held_count(), 4);
    world.say("web", &[1, 2, 3, 4], 2_000);
    assert_eq!(world.view.held_count(), 0);
    assert!(
        world
            .seen("web")
            .unwrap()
            .iter()
            .all(|(_, health)| *health == 0)
    );
}

#[test]
fn an_absent_service_stays_until_the_hold_ends() {
    let mut world = World::new();
    world.say("web", &[1], 1);
    world.sink.absent(&key("web"), Version::Hash(0));
    assert_eq!(world.look(1_000), (true, true));
    assert_eq!(world.count("web"), 1);
    world.view.expire(1_000 + HOLD);
    assert_eq!(world.seen("web"), None);
}

#[test]
fn a_source_that_fails_after_a_removal_is_not_believed() {
    let mut world = World::new();
    world.say("web", &[1], 1);
    world.sink.begin_sync().commit();
    world.sink.status(SourceStatus::Degraded {
        error: "connection reset".into(),
    });
    world.look(1_000);
    assert_eq!(world.view.deadline_ms(), None);
    assert!(
        !world.view.expire(10 * HOLD),
        "nothing is removed while the source is in doubt"
    );
    assert_eq!(world.count("web"), 1);
    world.sink.status(SourceStatus::Synced);
    world.look(10 * HOLD);
    assert!(world.view.expire(10 * HOLD));
    assert_eq!(world.seen("web"), None);
}

#[test]
fn errors_age_and_never_delete() {
    let mut world = World::new();
    world.say("web", &[1, 2], 1);
    world.sink.status(SourceStatus::Degraded {
        error: "503".into(),
    });
    assert_eq!(world.look(5_000), (false, false));
    world.sink.status(SourceStatus::Degraded {
        error: "504".into(),
    });
    world.look(6_000);
    assert_eq!(world.view.status().1, 5_000, "since the first error");
    assert_eq!(world.count("web"), 2);
}

#[test]
fn an_older_read_never_replaces_a_newer_one() {
    let mut world = World::new();
    world
        .sink
        .replace(key("web"), set(&[1, 2]), Version::Index(9));
    world.look(1);
    world.sink.replace(key("web"), set(&[1]), Version::Index(8));
    assert_eq!(world.look(2), (false, false));
    assert_eq!((world.count("web"), world.view.counters().outdated), (2, 1));
}

#[test]
fn a_set_beyond_the_limits_is_refused_whole() {
    let mut world = World::new();
    world.say("web", &[1], 1);
    let many: Vec<Endpoint> = (0..=crate::sink::MAX_ENDPOINTS)
        .map(|n| Endpoint {
            id: Arc::from(format!("{n}")),
            ..endpoint(1)
        })
        .collect();
    world.sink.replace(key("web"), many, Version::Hash(1));
    assert_eq!(world.look(2), (false, false));
    assert_eq!(world.count("web"), 1);
    assert!(world.view.refusal().unwrap().contains("10001 endpoints"));
}

#[test]
fn the_sum_of_endpoints_is_right() {
    let mut world = World::new();
    world.say("web", &[1, 2, 3, 4], 1);
    world.say("api", &[9], 2);
    world.say("web", &[1, 2], 3);
    world.sink.absent(&key("api"), Version::Hash(0));
    world.look(4);
    world.view.expire(4 + HOLD);
    let sum: usize = world
        .view
        .services
        .values()
        .map(|entry| entry.set().endpoints.len())
        .sum();
    assert_eq!((world.view.endpoints, sum), (2, 2));
}

#[test]
fn what_is_as_many_as_before_needs_no_wait() {
    let mut world = World::new();
    world.say("web", &[1, 2], 0);
    let no_smaller = |ports: &[u16]| world.view.is_no_smaller(&key("web"), &set(ports));
    assert!(no_smaller(&[1, 2, 3]), "one came");
    assert!(no_smaller(&[1, 3]), "another one is in its place");
    assert!(!no_smaller(&[1]), "one went");
    assert!(!no_smaller(&[]), "all went");
    assert!(
        world.view.is_no_smaller(&key("new"), &set(&[])),
        "nothing to lose"
    );
}

#[test]
fn what_is_held_does_not_count_as_named() {
    let mut world = World::new();
    world.say("web", &[1, 2, 3, 4], 0);
    world.say("web", &[1], 1);
    assert_eq!(world.view.held_count(), 3);
    assert!(world.view.is_no_smaller(&key("web"), &set(&[2])));
}

#[test]
fn what_is_held_and_what_is_named_are_told_apart() {
    let mut world = World::new();
    let all = |range: std::ops::RangeInclusive<u16>, step| range.step_by(step).collect::<Vec<_>>();
    world.say("web", &all(1..=8, 1), 1);
    world.say("web", &all(9..=16, 1), 2);
    assert_eq!(world.view.held_count(), 8);
    // Every second one, of those that are held and of those that are named.
    world.say("web", &all(2..=16, 2), 3);
    let degraded = i32::from(WireHealth::Degraded);
    let seen = world.seen("web").unwrap();
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(seen.len(), 16);
    for (address, health) in seen {
        let port: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
        assert_eq!(health == degraded, port % 2 == 1, "{address}");
    }
    let ports: Vec<_> = world.view.services[&key("web")].set().endpoints;
    let ports = ports.iter().map(|one| one.address.port() % 2).sum::<u16>();
    assert_eq!(ports, 0, "what the source named");
    assert_eq!(world.view.held_count(), 8);
}
