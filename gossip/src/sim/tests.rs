//! The laws of the replicated state, on many seeds.

use std::time::Duration;

use mesh_model::{
    catalog::Liveness,
    commit::Op,
    fact::{HostInfo, Record, RecordKind, Workload},
    name::HostId,
};
use prost::Message;

use super::{
    World,
    operator::{Draft, seen, shop},
};

mod byzantine;
mod chaos;
mod edits;
mod laws;
mod members;
mod scale;

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn workload(service: &str, version: &str) -> Record {
    let body = Workload {
        namespace: "shop".to_owned(),
        service: service.to_owned(),
        labels: [("version".to_owned(), version.to_owned())].into(),
        ..Workload::default()
    };
    Record {
        key: format!("workload/shop/{service}"),
        kind: RecordKind::Workload.into(),
        body: body.encode_to_vec(),
    }
}

pub(super) fn host_record(name: &str) -> Record {
    let body = HostInfo {
        name: name.to_owned(),
        ..HostInfo::default()
    };
    Record {
        key: "host".to_owned(),
        kind: RecordKind::Host.into(),
        body: body.encode_to_vec(),
    }
}

/// A mesh that runs and agrees.
pub(super) fn mesh(seed: u64, count: usize) -> World {
    let mut world = World::new(seed, count);
    introduce(&mut world, count);
    world.boot_all();
    for index in 0..count {
        world.publish(index, vec![host_record(&format!("m{index}"))]);
    }
    let settled = world.run_until(secs(20), |world| {
        all_alive(world) && world.disagreement().is_none()
    });
    assert!(settled.is_some(), "seed {seed}: {:?}", world.disagreement());
    world
}

/// Every machine has the authority's word on every other, as after a join: all know machine 0, which knows all.
fn introduce(world: &mut World, count: usize) {
    for index in 0..count {
        for grant in world.keys.bootstrap(index) {
            let mut key = grant.kind().to_be_bytes().to_vec();
            key.extend(grant.id());
            world.machines[0]
                .disk
                .insert((crate::table::GRANT, key), grant.encode());
        }
    }
    for grant in world.keys.bootstrap(0) {
        let mut key = grant.kind().to_be_bytes().to_vec();
        key.extend(grant.id());
        for index in 1..count {
            world.machines[index]
                .disk
                .insert((crate::table::GRANT, key.clone()), grant.encode());
        }
    }
}

pub(super) fn all_alive(world: &World) -> bool {
    let hosts: Vec<HostId> = world.machines.iter().map(|machine| machine.host).collect();
    world
        .machines
        .iter()
        .filter_map(|machine| machine.node.as_ref())
        .all(|node| {
            hosts
                .iter()
                .all(|host| node.liveness(*host) == Liveness::Alive)
        })
}

/// An edit of a service as a client of machine `at` makes it; its ticket.
pub(super) fn edit(world: &mut World, at: usize, name: &str, value: &str, id: u64) -> u64 {
    let key = shop(name);
    let catalog = world.machines[at].node.as_mut().unwrap().catalog();
    let (bases, hlc) = seen(&catalog, &key);
    let now = world.wall_ms(at);
    let draft = Draft::new(&world.keys, 0, now, id)
        .put(&key, &bases, value)
        .above(hlc);
    world.submit(at, draft.sign(&world.keys, 0))
}

pub(super) fn delete(world: &mut World, at: usize, name: &str, id: u64) -> Option<u64> {
    let key = shop(name);
    let catalog = world.machines[at].node.as_mut()?.catalog();
    let (bases, hlc) = seen(&catalog, &key);
    if bases.is_empty() {
        return None;
    }
    let now = world.wall_ms(at);
    let draft = Draft::new(&world.keys, 0, now, id)
        .change(&key, &bases, Op::Delete, "")
        .above(hlc);
    Some(world.submit(at, draft.sign(&world.keys, 0)))
}

/// The seeds to run: one by `MESH_SEED`, else `count` of them, or as many as `MESH_SEEDS` says.
#[expect(
    clippy::disallowed_methods,
    reason = "a test may be told which seeds to run"
)]
pub(super) fn seeds(count: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("MESH_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("MESH_SEEDS").unwrap_or(count)).collect(),
    }
}

/// Runs `scenario` for each seed on two threads; the seed of a failure is printed.
pub(super) fn for_seeds(count: u64, scenario: impl Fn(u64) + Sync) {
    let seeds = seeds(count);
    let halves = seeds.chunks(seeds.len().div_ceil(2).max(1));
    std::thread::scope(|scope| {
        for half in halves {
            let scenario = &scenario;
            scope.spawn(move || {
                for seed in half {
                    let run = std::panic::AssertUnwindSafe(|| scenario(*seed));
                    if let Err(cause) = std::panic::catch_unwind(run) {
                        println!("failed with seed {seed}; replay with MESH_SEED={seed}");
                        std::panic::resume_unwind(cause);
                    }
                }
            });
        }
    });
}
