//! More hosts than links, more commits than a listing.

use super::*;

#[test]
fn news_reaches_forty_hosts_over_eight_links_each() {
    let mut world = mesh(1, 40);
    let links: Vec<usize> = world
        .machines
        .iter()
        .map(|machine| {
            machine
                .node
                .as_ref()
                .unwrap()
                .links()
                .iter()
                .filter(|link| link.tcp)
                .count()
        })
        .collect();
    assert!(links.iter().all(|links| *links >= 8), "{links:?}");
    assert!(links.iter().sum::<usize>() < 40 * 25, "{links:?}");
    let ticket = edit(&mut world, 7, "web", "one", 1);
    let everywhere = world.run_until(secs(5), |world| {
        world.machines.iter_mut().all(|machine| {
            machine
                .node
                .as_mut()
                .unwrap()
                .catalog()
                .resources
                .contains_key(&shop("web"))
        })
    });
    assert!(world.answers[&ticket].is_ok());
    assert!(
        everywhere.is_some_and(|took| took < secs(1)),
        "{everywhere:?}"
    );
    // A third of them dies at once; the others agree about it and on everything else.
    for index in 0..13 {
        world.crash(index * 3);
    }
    let dead: Vec<HostId> = (0..13)
        .map(|index| world.machines[index * 3].host)
        .collect();
    let known = world.run_until(secs(30), |world| {
        let nodes = world
            .machines
            .iter()
            .filter_map(|machine| machine.node.as_ref());
        nodes.into_iter().all(|node| {
            dead.iter()
                .all(|host| node.liveness(*host) == Liveness::Down)
        })
    });
    assert!(known.is_some_and(|took| took < secs(20)), "{known:?}");
    edit(&mut world, 1, "web", "two", 2);
    let agreed = world.run_until(secs(20), |world| {
        world.disagreement().is_none()
            && world.machines[1]
                .node
                .as_mut()
                .unwrap()
                .catalog()
                .commit_count
                == 2
    });
    assert!(agreed.is_some_and(|took| took < secs(3)), "{agreed:?}");
}

#[test]
fn a_host_that_slept_through_many_edits_catches_up_at_once() {
    let mut world = mesh(2, 3);
    world.crash(2);
    for number in 0..700 {
        let ticket = edit(
            &mut world,
            usize::from(number % 2 == 0),
            &format!("s{number}"),
            "x",
            number,
        );
        if number % 20 == 0 {
            world.run(Duration::from_millis(100));
            assert!(world.answers[&ticket].is_ok());
        }
    }
    world.run(secs(2));
    world.boot(2);
    let agreed = world.run_until(secs(20), |world| {
        all_alive(world)
            && world.disagreement().is_none()
            && world.machines[2]
                .node
                .as_mut()
                .unwrap()
                .catalog()
                .commit_count
                == 700
    });
    assert!(
        agreed.is_some_and(|took| took < secs(2)),
        "{agreed:?}: {:?}",
        world.disagreement()
    );
}

#[test]
fn large_records_travel_as_steps() {
    let mut world = mesh(3, 3);
    let mut records: Vec<Record> = (0..200).map(|n| workload(&format!("s{n}"), "1")).collect();
    world.publish(0, records.clone());
    world.run(secs(2));
    assert_eq!(world.disagreement(), None);
    let before = world.bytes;
    records[100] = workload("s100", "2");
    world.publish(0, records);
    world.run(secs(2));
    assert_eq!(world.disagreement(), None);
    let host = world.machines[0].host;
    let facts = world.machines[2].node.as_mut().unwrap().catalog().hosts[&host].clone();
    assert_eq!(facts.workloads["workload/shop/s100"].labels["version"], "2");
    let cost = world.bytes - before;
    assert!(cost < 12_000, "one change of 200 records cost {cost} bytes");
}
