//! Picks of one worker: preference, shares, algorithms, slow start, and what a large backend costs.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use mesh_model::{
    endpoint::Locality,
    name::ServiceId,
    service::AppProtocol,
    snapshot::{
        Backend, BackendEndpoint, BackendKey, Snapshot,
        traffic::{LocalityPolicy, OutlierDetection, SlowStart, SuccessRate},
    },
};

use super::*;
use crate::upstream::{
    health::{Hold, Reason},
    shared::Shared,
};

/// A backend with everything that a worker has of it.
struct Stage {
    shared: Shared,
    us: Cell<u64>,
    lives: RefCell<BTreeMap<u64, Rc<Live>>>,
    group: RefCell<Group>,
}

fn endpoint(key: u64) -> BackendEndpoint {
    BackendEndpoint {
        key: EndpointKey(key),
        id: key.to_string().into(),
        address: "127.0.0.1:1".parse().unwrap(),
        tunnel: None,
        local: false,
        weight: 1,
        priority: 0,
        distance: 2,
        locality: None,
        preferred: true,
        host: None,
        host_name: "".into(),
        labels: Arc::new(BTreeMap::new()),
    }
}

fn backend(policy: TrafficPolicy, endpoints: Vec<BackendEndpoint>) -> Arc<Backend> {
    Arc::new(Backend {
        key: BackendKey(1),
        service: ServiceId::parse("words").unwrap(),
        port: 80,
        protocol: AppProtocol::Http,
        subset: "".into(),
        endpoints: endpoints.into_iter().map(Arc::new).collect(),
        policy: Arc::new(policy),
    })
}

fn policy(balance: Balance) -> TrafficPolicy {
    TrafficPolicy {
        balance,
        ..TrafficPolicy::default()
    }
}

impl Stage {
    fn new(backend: &Arc<Backend>) -> Self {
        let shared = Shared::default();
        let group = Self::group(&shared, backend, None, 0);
        Self {
            shared,
            us: Cell::new(0),
            lives: RefCell::default(),
            group: RefCell::new(group),
        }
    }

    fn group(shared: &Shared, backend: &Arc<Backend>, before: Option<&Group>, us: u64) -> Group {
        let state = shared.backend(backend, us);
        let roster = shared.roster(&state, backend, us);
        roster.make_tables_here();
        Group::new(roster, state, before, &shared.now(us))
    }

    fn publish(&self, backend: &Arc<Backend>) {
        let group = Self::group(
            &self.shared,
            backend,
            Some(&self.group.borrow()),
            self.us.get(),
        );
        self.group.replace(group);
    }

    fn live(&self, slot: &Slot) -> Rc<Live> {
        let mut lives = self.lives.borrow_mut();
        let live = || Rc::new(Live::new(Arc::clone(&slot.health)));
        Rc::clone(lives.entry(slot.endpoint.key.0).or_insert_with(live))
    }

    fn pick(&self, wish: &Wish<'_>) -> Option<(u64, Rc<Live>)> {
        let group = self.group.borrow();
        let now = self.shared.now(self.us.get());
        let slot = group.pick(wish, &now, |slot| self.live(slot))?;
        let one = group.roster().slot(slot)?;
        Some((one.endpoint.key.0, self.live(one)))
    }

    fn hits(&self, wish: &Wish<'_>, rounds: u32) -> BTreeMap<u64, u32> {
        let mut hits = BTreeMap::new();
        for _ in 0..rounds {
            if let Some((key, _)) = self.pick(wish) {
                *hits.entry(key).or_default() += 1;
            }
        }
        hits
    }

    fn picks(&self, tried: &[u64]) -> Vec<u64> {
        let tried: Vec<_> = tried.iter().map(|key| EndpointKey(*key)).collect();
        let wish = Wish {
            tried: &tried,
            ..Wish::default()
        };
        self.hits(&wish, 300).into_keys().collect()
    }

    fn put_out(&self, key: u64) {
        let health = self.shared.health(EndpointKey(key), 0);
        self.shared.put_out(&health, Reason::Dial);
    }

    fn put_in(&self, key: u64) {
        let health = self.shared.health(EndpointKey(key), 0);
        self.shared.release(&health, Hold::Dial, self.us.get());
    }
}

static GENERATION: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

/// A snapshot with one backend.
fn naming(backend: &Arc<Backend>) -> Snapshot {
    let mut snapshot = Snapshot {
        generation: GENERATION.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
        ..Snapshot::default()
    };
    let key = (backend.service.clone(), 80);
    snapshot.outbound.backends.insert(key, Arc::clone(backend));
    snapshot
}

/// Within five standard deviations.
fn about(hits: Option<&u32>, share: f64, rounds: u32) -> bool {
    let expected = share * f64::from(rounds);
    let deviation = (expected * (1.0 - share)).sqrt().max(1.0);
    (f64::from(hits.copied().unwrap_or(0)) - expected).abs() < 5.0 * deviation
}

#[test]
fn order_of_preference() {
    let of = |key, priority, preferred| BackendEndpoint {
        priority,
        preferred,
        ..endpoint(key)
    };
    let stage = Stage::new(&backend(
        TrafficPolicy::default(),
        vec![
            of(1, 1, true),
            of(2, 0, true),
            of(3, 0, true),
            of(5, 0, true),
            of(4, 2, false),
        ],
    ));
    assert_eq!(stage.picks(&[]), [2, 3, 5]);
    assert_eq!(stage.picks(&[2]), [3, 5]);
    assert_eq!(stage.picks(&[2, 3, 5]), [1]);
    assert_eq!(stage.picks(&[1, 2, 3, 5]), [4]);
    stage.put_out(3);
    assert_eq!(
        stage.picks(&[]),
        [1, 2, 5],
        "of three two are left: a little spills to the next level"
    );
    assert_eq!(stage.picks(&[2, 1, 5]), [4]);
    assert_eq!(
        stage.picks(&[2, 1, 4, 5]),
        [3],
        "an ejected one rather than one that was tried"
    );
    assert_eq!(
        stage.picks(&[1, 2, 3, 4, 5]),
        [2, 5],
        "all were tried: the best that are in"
    );
    for key in [1, 2, 5] {
        stage.put_out(key);
    }
    assert_eq!(
        stage.picks(&[]),
        [4],
        "of a host that is down, but nothing says that it is out"
    );
    stage.put_out(4);
    assert_eq!(
        stage.picks(&[]),
        [2, 3, 5],
        "all are out: still somebody is tried"
    );
    assert!(!stage.group.borrow().is_usable(&stage.shared.now(0)));
    stage.put_in(1);
    assert_eq!(stage.picks(&[]), [1]);
    assert!(stage.group.borrow().is_usable(&stage.shared.now(0)));
}

#[test]
fn an_empty_backend_has_nobody() {
    for balance in [Balance::default(), Balance::RoundRobin, Balance::Random] {
        let stage = Stage::new(&backend(policy(balance), Vec::new()));
        assert!(stage.pick(&Wish::default()).is_none());
        assert!(!stage.group.borrow().is_usable(&stage.shared.now(0)));
    }
}

fn all_balances() -> [Balance; 6] {
    [
        Balance::default(),
        Balance::LeastRequest { choices: 3 },
        Balance::RoundRobin,
        Balance::Random,
        Balance::RingHash {
            keys: Arc::from([]),
            minimum_ring_size: 8192,
        },
        Balance::Maglev {
            keys: Arc::from([]),
            table_size: 10_007,
        },
    ]
}

/// Idle endpoints get their shares by every algorithm.
#[test]
fn idle_endpoints_share_by_weight() {
    for balance in all_balances() {
        let endpoints = [(1, 1), (2, 2), (3, 5)].map(|(key, weight)| BackendEndpoint {
            weight,
            ..endpoint(key)
        });
        let stage = Stage::new(&backend(policy(balance.clone()), endpoints.into()));
        let mut hits = BTreeMap::new();
        for _ in 0..20_000 {
            let (key, live) = stage.pick(&Wish::default()).unwrap();
            live.latency.observe(1500.0, 0, 1_000_000);
            *hits.entry(key).or_default() += 1;
        }
        for (key, share) in [(1, 0.125), (2, 0.25), (3, 0.625)] {
            assert!(about(hits.get(&key), share, 20_000), "{balance:?} {hits:?}");
        }
    }
}

/// Every algorithm leaves out what is out, what was tried, and takes the session's endpoint.
#[test]
fn every_algorithm_obeys() {
    for balance in all_balances() {
        let stage = Stage::new(&backend(
            policy(balance.clone()),
            (1..=6).map(endpoint).collect(),
        ));
        stage.put_out(2);
        let tried = [EndpointKey(3), EndpointKey(4)];
        for hash in 0..200u64 {
            let hash = Some(mix(hash));
            let wish = Wish {
                tried: &tried,
                hash,
                held: None,
            };
            let (key, _) = stage.pick(&wish).unwrap();
            assert!([1, 5, 6].contains(&key), "{balance:?} {key}");
            let held = |key| Wish {
                tried: &tried,
                hash,
                held: Some(EndpointKey(key)),
            };
            assert_eq!(stage.pick(&held(5)).unwrap().0, 5);
            for no in [2, 3, 99] {
                let (key, _) = stage.pick(&held(no)).unwrap();
                assert!([1, 5, 6].contains(&key), "{balance:?} held {no}");
            }
        }
    }
}

#[test]
fn a_slow_endpoint_gets_little_and_a_loaded_one_less() {
    let stage = Stage::new(&backend(
        TrafficPolicy::default(),
        (1..=10).map(endpoint).collect(),
    ));
    let mut hits = [0u32; 11];
    for _ in 0..10_000 {
        stage.us.set(stage.us.get() + 1000);
        let (key, live) = stage.pick(&Wish::default()).unwrap();
        hits[usize::try_from(key).unwrap()] += 1;
        let latency = if key == 7 { 50_000.0 } else { 2000.0 };
        live.latency.observe(latency, stage.us.get(), 10_000_000);
        stage.group.borrow().usual.observe(latency);
    }
    assert!(hits[7] < 100, "{hits:?}");
    let others: Vec<_> = (1..=10)
        .filter(|key| *key != 7)
        .map(|key| hits[key])
        .collect();
    assert!(others.iter().all(|hits| *hits > 700), "{hits:?}");
    // Now 3 has much to do.
    let (_, live) = std::iter::repeat_with(|| stage.pick(&Wish::default()).unwrap())
        .find(|(key, _)| *key == 3)
        .unwrap();
    (0..50).for_each(|_| live.begin());
    let hits = stage.hits(&Wish::default(), 1000);
    assert!(hits.get(&3).is_none_or(|hits| *hits < 20), "{hits:?}");
}

/// A new endpoint is not flooded: one request is sent ahead.
#[test]
fn an_unknown_endpoint_is_asked_by_one() {
    let stage = Stage::new(&backend(
        TrafficPolicy::default(),
        (1..=2).map(endpoint).collect(),
    ));
    let known = stage.live(stage.group.borrow().roster().slot(0).unwrap());
    known.latency.observe(2000.0, 0, 10_000_000);
    stage.group.borrow().usual.observe(2000.0);
    let mut under_way = Vec::new();
    for _ in 0..20 {
        let (key, live) = stage.pick(&Wish::default()).unwrap();
        if key == 2 {
            live.begin();
            under_way.push(live);
        }
    }
    assert_eq!(under_way.len(), 1);
}

#[test]
fn distances_spill_by_healthy_capacity() {
    let endpoints = (0..20).map(|key| BackendEndpoint {
        distance: u8::from(key >= 10),
        ..endpoint(key)
    });
    let stage = Stage::new(&backend(TrafficPolicy::default(), endpoints.collect()));
    let near = |stage: &Stage| -> u32 {
        let hits = stage.hits(&Wish::default(), 10_000);
        hits.range(..10).map(|(_, hits)| hits).sum()
    };
    assert_eq!(near(&stage), 10_000);
    (0..2).for_each(|key| stage.put_out(key));
    assert_eq!(near(&stage), 10_000, "8 of 10 times 1.4 is enough");
    (2..5).for_each(|key| stage.put_out(key));
    assert!(about(Some(&near(&stage)), 0.7, 10_000), "{}", near(&stage));
    (5..10).for_each(|key| stage.put_out(key));
    assert_eq!(near(&stage), 0);
    (0..10).for_each(|key| stage.put_in(key));
    assert_eq!(near(&stage), 10_000);

    let off = TrafficPolicy {
        locality: LocalityPolicy::Off,
        ..TrafficPolicy::default()
    };
    let endpoints = (0..20).map(|key| BackendEndpoint {
        distance: u8::from(key >= 10),
        ..endpoint(key)
    });
    let stage = Stage::new(&backend(off, endpoints.collect()));
    assert!(about(Some(&near(&stage)), 0.5, 10_000));
}

fn place(region: &str, zone: Option<&str>) -> Locality {
    Locality {
        region: Some(region.into()),
        zone: zone.map(Into::into),
        sub_zone: None,
    }
}

#[test]
fn distribution_by_locality() {
    let shares = [
        (place("eu", Some("a")), 70),
        (place("eu", None), 20),
        (place("us", None), 10),
    ];
    let policy = TrafficPolicy {
        locality: LocalityPolicy::Distribute(Arc::from(shares)),
        ..TrafficPolicy::default()
    };
    let places = [
        (1, Some(place("eu", Some("a")))),
        (2, Some(place("eu", Some("a")))),
        (3, Some(place("eu", Some("b")))),
        (4, Some(place("us", Some("a")))),
        (5, Some(place("ap", None))),
        (6, None),
    ];
    let endpoints = places.map(|(key, locality)| BackendEndpoint {
        locality: locality.map(Arc::new),
        ..endpoint(key)
    });
    let stage = Stage::new(&backend(policy, endpoints.into()));
    let hits = stage.hits(&Wish::default(), 20_000);
    for (key, share) in [(1, 0.35), (2, 0.35), (3, 0.2), (4, 0.1), (5, 0.0), (6, 0.0)] {
        assert!(about(hits.get(&key), share, 20_000), "{key}: {hits:?}");
    }
    // A place without anybody gives its share to the others.
    stage.put_out(4);
    let hits = stage.hits(&Wish::default(), 20_000);
    assert!(about(hits.get(&3), 20.0 / 90.0, 20_000), "{hits:?}");
    // What nobody may use is used by nobody.
    (1..=4).for_each(|key| stage.put_out(key));
    assert_eq!(stage.picks(&[]).len(), 4);
}

#[test]
fn few_left_means_that_health_is_not_believed() {
    let policy = TrafficPolicy {
        panic_threshold: 50,
        ..TrafficPolicy::default()
    };
    let stage = Stage::new(&backend(policy, (0..10).map(endpoint).collect()));
    (0..5).for_each(|key| stage.put_out(key));
    assert_eq!(stage.picks(&[]).len(), 5, "half is enough");
    stage.put_out(5);
    assert_eq!(stage.picks(&[]).len(), 10, "less is not");
    stage.put_in(5);
    assert_eq!(stage.picks(&[]).len(), 5);

    // Another level that can take everything is better than panic.
    let policy = TrafficPolicy {
        panic_threshold: 80,
        ..TrafficPolicy::default()
    };
    let endpoints = (0..20).map(|key| BackendEndpoint {
        priority: u16::from(key >= 10),
        ..endpoint(key)
    });
    let stage = Stage::new(&backend(policy, endpoints.collect()));
    (0..10).for_each(|key| stage.put_out(key));
    assert_eq!(stage.picks(&[]), (10..20).collect::<Vec<_>>());
}

#[test]
fn slow_start_of_new_and_returning_endpoints() {
    for balance in [
        Balance::default(),
        Balance::LeastRequest { choices: 2 },
        Balance::RoundRobin,
        Balance::Random,
    ] {
        let policy = TrafficPolicy {
            slow_start: Some(SlowStart {
                window: Duration::from_mins(1),
                aggression: 1.0,
                minimum_percent: 10,
            }),
            ..policy(balance.clone())
        };
        let stage = Stage::new(&backend(policy.clone(), (0..9).map(endpoint).collect()));
        let share = |stage: &Stage, key: u64| {
            let mut hits = 0;
            for _ in 0..20_000 {
                let (picked, live) = stage.pick(&Wish::default()).unwrap();
                live.latency.observe(1500.0, stage.us.get(), 10_000_000);
                hits += u32::from(picked == key);
            }
            f64::from(hits) / 20_000.0
        };
        let all_new = share(&stage, 3);
        assert!((0.09..0.13).contains(&all_new), "{balance:?}: {all_new}");
        stage.us.set(100_000_000);
        stage.publish(&backend(policy, (0..10).map(endpoint).collect()));
        let at_first = share(&stage, 9);
        stage.us.set(130_000_000);
        let half_way = share(&stage, 9);
        stage.us.set(161_000_000);
        let at_last = share(&stage, 9);
        assert!(
            (0.004..0.025).contains(&at_first),
            "{balance:?}: {at_first}"
        );
        assert!((0.03..0.08).contains(&half_way), "{balance:?}: {half_way}");
        assert!((0.08..0.12).contains(&at_last), "{balance:?}: {at_last}");
        // Out and back: again slowly.
        stage.put_out(4);
        stage.put_in(4);
        let back = share(&stage, 4);
        assert!((0.004..0.025).contains(&back), "{balance:?}: {back}");
    }
}

#[test]
fn keys_stay_where_they_are() {
    for balance in [all_balances()[4].clone(), all_balances()[5].clone()] {
        let all = backend(policy(balance.clone()), (0..20).map(endpoint).collect());
        let stage = Stage::new(&all);
        let owner = |hash: u64| {
            let wish = Wish {
                hash: Some(mix(hash)),
                ..Wish::default()
            };
            stage.pick(&wish).unwrap().0
        };
        let before: Vec<_> = (0..4000).map(owner).collect();
        assert!((0..4000).map(owner).eq(before.iter().copied()));
        // One goes out: only its keys go elsewhere, each always to the same place; it is back: they are too.
        stage.put_out(7);
        let without: Vec<_> = (0..4000).map(owner).collect();
        for (was, is) in before.iter().zip(&without) {
            assert!(was == is || *was == 7, "{balance:?}");
        }
        assert!(!without.contains(&7));
        assert!((0..4000).map(owner).eq(without.iter().copied()));
        stage.put_in(7);
        assert!((0..4000).map(owner).eq(before.iter().copied()));
        // One is gone for good: about a twentieth moves.
        stage.publish(&backend(
            policy(balance.clone()),
            (0..20).filter(|key| *key != 7).map(endpoint).collect(),
        ));
        let moved = (0..4000)
            .zip(&before)
            .filter(|(hash, was)| owner(*hash) != **was)
            .count();
        assert!((100..400).contains(&moved), "{balance:?}: {moved} of 4000");
    }
}

/// State survives a new snapshot, and who holds an old backend uses the new one.
#[test]
fn a_new_snapshot_forgets_nothing() {
    let policy = TrafficPolicy {
        outlier: OutlierDetection {
            success_rate: Some(SuccessRate {
                minimum_hosts: 5,
                request_volume: 100,
                stdev_factor: 1.9,
            }),
            ..OutlierDetection::default()
        },
        ..TrafficPolicy::default()
    };
    let old = backend(policy.clone(), (0..10).map(endpoint).collect());
    let stage = Stage::new(&old);
    stage.put_out(3);
    stage.group.borrow().roster().tallies()[4].count(false, None);
    let before = Arc::clone(stage.group.borrow().roster());
    assert!(before.serves(&old));

    let new = backend(policy.clone(), (1..12).map(endpoint).collect());
    stage.publish(&new);
    let roster = Arc::clone(stage.group.borrow().roster());
    assert!(roster.serves(&new) && roster.serves(&old) && roster.is_of(&new));
    assert!(!stage.picks(&[]).contains(&3));
    assert_eq!(roster.tallies()[3].take().failures, 1);
    // Nothing changes: nothing is made.
    let shared = stage.shared.backend(&new, 0);
    assert!(Arc::ptr_eq(&roster, &stage.shared.roster(&shared, &new, 0)));
    assert!(Arc::ptr_eq(&roster, &stage.shared.roster(&shared, &old, 0)));
    // The old one is in force again: that is known as soon as the snapshot is.
    stage.shared.retire(&naming(&old));
    assert!(stage.shared.roster(&shared, &old, 0).is_of(&old));
    // An exchange with an older one than is remembered brings it back, for a moment.
    let others: Vec<_> = (0..6)
        .map(|_| backend(policy.clone(), vec![endpoint(1)]))
        .collect();
    for other in &others {
        assert!(stage.shared.roster(&shared, other, 0).is_of(other));
    }
    stage.shared.retire(&naming(&others[5]));
    assert!(stage.shared.roster(&shared, &old, 0).is_of(&old));
    stage.shared.settle();
    assert!(
        stage
            .shared
            .roster(&shared, &others[5], 0)
            .is_of(&others[5])
    );
}

/// What is gone is let go: health, rosters, backends.
#[test]
fn what_is_gone_is_let_go() {
    let stage = Stage::new(&backend(
        TrafficPolicy::default(),
        (0..10).map(endpoint).collect(),
    ));
    let kept = Arc::downgrade(&stage.shared.health(EndpointKey(1), 0));
    let gone = Arc::downgrade(&stage.shared.health(EndpointKey(9), 0));
    let roster = Arc::downgrade(stage.group.borrow().roster());
    let next = backend(TrafficPolicy::default(), (0..9).map(endpoint).collect());
    stage.publish(&next);
    stage.shared.retire(&naming(&next));
    assert!(roster.upgrade().is_none());
    assert!(kept.upgrade().is_some() && gone.upgrade().is_none());
}

/// Prints what a large backend costs: a swap for the first worker and for each further one, and a pick.
#[test]
fn the_cost_of_ten_thousand() {
    let large = |first: u64, balance: &Balance| {
        let endpoints = (first..first + 10_000).map(|key| BackendEndpoint {
            weight: 1 + u32::from(key % 7 == 0),
            ..endpoint(key)
        });
        backend(policy(balance.clone()), endpoints.collect())
    };
    for balance in all_balances() {
        let stage = Stage::new(&large(0, &balance));
        (0..100).for_each(|key| stage.put_out(key * 3));
        stage.hits(&Wish::default(), 1000);
        let next = large(500, &balance);
        let begun = Instant::now();
        let shared = stage.shared.backend(&next, 0);
        let roster = stage.shared.roster(&shared, &next, 0);
        let made = begun.elapsed();
        let begun = Instant::now();
        let ready = roster.make_tables_here();
        let tables = begun.elapsed();
        let begun = Instant::now();
        stage.publish(&next);
        let first = begun.elapsed();
        let begun = Instant::now();
        stage.publish(&next);
        let further = begun.elapsed();
        let begun = Instant::now();
        let rounds = 20_000;
        for hash in 0..rounds {
            let wish = Wish {
                hash: Some(mix(hash)),
                ..Wish::default()
            };
            assert!(stage.pick(&wish).is_some());
        }
        let pick = begun.elapsed() / 20_000;
        println!(
            "{balance:?}: roster {made:?}, tables {tables:?} ({ready}), first worker {first:?}, \
             each other {further:?}, a pick {pick:?}"
        );
    }
}
