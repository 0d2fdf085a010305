//! Who answers: joining, dying, coming back, with and without datagrams.

use mesh_model::catalog::Liveness;

use super::*;

#[test]
fn three_machines_form_a_mesh_from_one_introduction() {
    for_seeds(16, |seed| {
        let mut world = mesh(seed, 3);
        let catalog = world.machines[1].node.as_mut().unwrap().catalog();
        assert_eq!(catalog.hosts.len(), 3);
        assert!(
            catalog
                .hosts
                .values()
                .all(|facts| facts.info.is_some() && facts.grant.is_some())
        );
        assert_eq!(catalog.mesh.as_ref().unwrap().name.as_ref(), "sim");
    });
}

/// The time until every other machine holds machine `dead` for down.
fn time_to_down(world: &mut World, dead: usize) -> Duration {
    let host = world.machines[dead].host;
    let down = world.run_until(secs(30), |world| {
        let nodes = world
            .machines
            .iter()
            .filter_map(|machine| machine.node.as_ref());
        nodes
            .into_iter()
            .all(|node| node.liveness(host) == Liveness::Down)
    });
    down.expect("never found out")
}

#[test]
fn a_dead_host_is_down_everywhere_within_five_seconds() {
    for_seeds(48, |seed| {
        let mut world = mesh(seed, 3);
        world.net.loss = 2;
        let wait = u64::try_from(world.draw(2000)).unwrap();
        world.run(Duration::from_millis(wait));
        world.crash(2);
        let took = time_to_down(&mut world, 2);
        assert!(took < secs(5), "took {took:?}");
        world.boot(2);
        let back = world
            .run_until(secs(5), |world| all_alive(world))
            .expect("not back");
        assert!(back < secs(5));
        // A hint: nothing was deleted meanwhile.
        assert_eq!(
            world.machines[0]
                .node
                .as_mut()
                .unwrap()
                .catalog()
                .hosts
                .len(),
            3
        );
    });
}

#[test]
fn nobody_is_down_for_a_minute_of_loss() {
    for_seeds(8, |seed| {
        let mut world = mesh(seed, 4);
        world.net = super::super::Net {
            loss: 10,
            duplicates: 5,
            delay: (1, 60),
        };
        for _tick in 0..600 {
            world.run(Duration::from_millis(100));
            for machine in &world.machines {
                let node = machine.node.as_ref().unwrap();
                for other in &world.machines {
                    assert_ne!(node.liveness(other.host), Liveness::Down);
                }
            }
        }
    });
}

#[test]
fn membership_goes_on_over_frames_where_datagrams_are_blocked() {
    for_seeds(8, |seed| {
        let mut world = mesh(seed, 3);
        // One way only, the nastier case; then both.
        world.block_udp(0, 1);
        for phase in 0..2 {
            for _tick in 0..200 {
                world.run(Duration::from_millis(100));
                for machine in &world.machines {
                    let node = machine.node.as_ref().unwrap();
                    for other in &world.machines {
                        assert_ne!(node.liveness(other.host), Liveness::Down, "phase {phase}");
                    }
                }
            }
            for (a, b) in [(1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
                world.block_udp(a, b);
            }
        }
        world.run(secs(25));
        let links = world.machines[0].node.as_ref().unwrap().links();
        assert!(
            links.iter().all(|link| link.tcp && link.udp == Some(false)),
            "{links:?}"
        );
        world.crash(1);
        assert!(time_to_down(&mut world, 1) < secs(5));
    });
}

#[test]
fn both_sides_of_a_partition_find_each_other_again() {
    for_seeds(16, |seed| {
        let mut world = mesh(seed, 4);
        world.partition(&[0, 1]);
        world.run(secs(60));
        let (near, far) = (world.machines[1].host, world.machines[2].host);
        let node = world.machines[0].node.as_ref().unwrap();
        assert_eq!(
            (node.liveness(near), node.liveness(far)),
            (Liveness::Alive, Liveness::Down)
        );
        world.heal();
        let healed = world.run_until(secs(40), |world| {
            all_alive(world) && world.disagreement().is_none()
        });
        assert!(healed.is_some_and(|took| took < secs(20)), "{healed:?}");
    });
}

#[test]
fn a_goodbye_is_known_at_once_and_ends_with_the_next_start() {
    for_seeds(8, |seed| {
        let mut world = mesh(seed, 3);
        let host = world.machines[2].host;
        world.input(2, crate::Input::Leave);
        world.run(Duration::from_millis(800));
        let facts = world.machines[0].node.as_mut().unwrap().catalog().hosts[&host].clone();
        assert!(facts.leaving);
        assert_eq!(facts.liveness, Liveness::Left);
        world.crash(2);
        world.run(secs(3));
        world.boot(2);
        let back = world.run_until(secs(10), |world| {
            let catalog = world.machines[0].node.as_mut().unwrap().catalog();
            all_alive(world) && !catalog.hosts[&host].leaving
        });
        assert!(back.is_some());
    });
}

#[test]
fn a_host_that_stood_still_blames_nobody_else() {
    for_seeds(32, |seed| {
        let mut world = mesh(seed, 4);
        world.net.loss = 10;
        for round in 0..6 {
            // Short stops are not noticed; long ones cost the host that stopped its place, for a moment.
            let long = round % 2 == 1;
            let millis = if long { 8000 } else { 500 + world.draw(1200) };
            let millis = u64::try_from(millis).unwrap();
            let stopped = world.draw(4);
            let host = world.machines[stopped].host;
            world.stall(stopped, Duration::from_millis(millis));
            for _tick in 0..(millis / 100 + 40) {
                world.run(Duration::from_millis(100));
                for (of, machine) in world.machines.iter().enumerate() {
                    let node = machine.node.as_ref().unwrap();
                    for other in world.machines.iter().filter(|other| other.host != host) {
                        let liveness = node.liveness(other.host);
                        assert_ne!(liveness, Liveness::Down, "{of} blames a host that ran");
                    }
                    assert!(
                        long || node.liveness(host) != Liveness::Down,
                        "stopped {millis} ms"
                    );
                }
            }
            assert!(
                world
                    .run_until(secs(10), |world| all_alive(world))
                    .is_some()
            );
        }
    });
}

#[test]
fn a_suspicion_does_not_ripen_while_its_host_stands_still() {
    for_seeds(32, |seed| {
        let mut world = mesh(seed, 3);
        let other = world.machines[1].host;
        world.partition(&[0]);
        let suspected = world.run_until(secs(3), |world| {
            world.machines[0].node.as_ref().unwrap().liveness(other) == Liveness::Suspect
        });
        assert!(suspected.is_some());
        world.stall(0, secs(6));
        world.heal();
        for _tick in 0..200 {
            world.run(Duration::from_millis(50));
            let liveness = world.machines[0].node.as_ref().unwrap().liveness(other);
            assert_ne!(liveness, Liveness::Down);
        }
    });
}
