//! Deltas, hashes, and the services of applications and virtual names.

use mesh_model::{address::Address, endpoint::Health};

use super::*;

fn told(app: &str, id: &str, status: Option<Status>, names: &str) -> Told {
    Told {
        app: app.into(),
        id: id.into(),
        instance: status.map(|status| Instance {
            status,
            health: Health::Healthy,
            weight: 1,
            address: Some(Address::Socket("10.0.0.1:80".parse().unwrap())),
            locality: None,
            metadata: Arc::default(),
            virtual_names: (!names.is_empty()).then(|| names.into()),
        }),
    }
}

fn names(of: &Applications) -> Vec<(String, usize)> {
    let services = of.services(None).into_iter();
    services
        .map(|(key, content)| match content {
            Content::Set(set) => (key.name.to_string(), set.endpoints.len()),
            Content::Unreadable => (key.name.to_string(), 0),
        })
        .collect()
}

#[test]
fn the_hash_counts_statuses_by_name() {
    let mut all = Applications::default();
    assert_eq!(all.hash(), "");
    all.take(vec![
        told("web", "1", Some(Status::Up), ""),
        told("web", "2", Some(Status::Up), ""),
        told("api", "1", Some(Status::Down), ""),
        told("api", "2", Some(Status::OutOfService), ""),
        told("api", "3", Some(Status::Starting), ""),
        told("api", "4", Some(Status::Unknown), ""),
    ]);
    assert_eq!(
        all.hash(),
        "DOWN_1_OUT_OF_SERVICE_1_STARTING_1_UNKNOWN_1_UP_2_"
    );
}

#[test]
fn a_delta_adds_changes_and_removes_in_its_order() {
    let mut all = Applications::default();
    all.take(vec![
        told("web", "1", Some(Status::Up), ""),
        told("web", "2", Some(Status::Up), ""),
    ]);
    all.take(vec![
        told("web", "1", None, ""),
        told("web", "2", Some(Status::Down), ""),
        told("api", "1", Some(Status::Up), ""),
        told("gone", "1", None, ""),
        told("web", "1", Some(Status::Up), ""),
    ]);
    assert_eq!(names(&all), [("api".to_owned(), 1), ("web".to_owned(), 2)]);
    assert_eq!(all.hash(), "DOWN_1_UP_2_");
    all.take(vec![told("api", "1", None, "")]);
    assert_eq!(names(&all), [("web".to_owned(), 2)]);
}

#[test]
fn virtual_names_are_services_of_their_own_where_they_are_free() {
    let mut all = Applications::default();
    all.take(vec![
        told("web", "1", Some(Status::Up), "web,shop"),
        told("web-green", "1", Some(Status::Up), "shop, shop ,web"),
        told("My/App", "1", Some(Status::Up), "not a name"),
    ]);
    let found = names(&all);
    assert_eq!(
        found,
        [
            ("shop".to_owned(), 2),
            ("web".to_owned(), 1),
            ("web-green".to_owned(), 1)
        ]
    );
    assert_eq!(all.unnamed().len(), 1);
    // The names that a change touches: those before and those after it.
    let change = vec![told("web", "1", Some(Status::Up), "store")];
    let mut touched = all.names_of(&change);
    touched.extend(all.take(change));
    let touched: Vec<&str> = touched.iter().map(|name| &**name).collect();
    assert_eq!(touched, ["shop", "store", "web"]);
}

#[test]
fn what_a_restarted_server_lacks_is_counted() {
    let mut known = Applications::default();
    known.take(
        (0..10)
            .map(|at| told("web", &at.to_string(), Some(Status::Up), ""))
            .collect(),
    );
    let mut fresh = Applications::default();
    assert_eq!(known.lost_in(&fresh), 10);
    fresh.take(vec![
        told("web", "3", Some(Status::Down), ""),
        told("api", "1", Some(Status::Up), ""),
    ]);
    assert_eq!(known.lost_in(&fresh), 9);
    fresh.keep_from(&known);
    assert_eq!(fresh.len(), 11);
    assert_eq!(fresh.hash(), "DOWN_1_UP_10_", "the newer one counts");
}

/// `MY_APP` is `my-app`, unless an application of that very name is there; whoever comes and goes.
#[test]
fn names_are_made_fit_and_two_never_become_one() {
    let up = |app: &str, id: &str| told(app, id, Some(Status::Up), app);
    let mut all = Applications::default();
    all.take(vec![
        up("my_app", "1"),
        up("my.app", "1"),
        up("my.app", "2"),
        up("x/y", "1"),
    ]);
    let first = [("my-app".to_owned(), 2)];
    assert_eq!(
        names(&all),
        first,
        "the first by name, and its virtual name is not another one"
    );
    assert_eq!(
        all.unnamed(),
        BTreeSet::from(["my_app".into(), "x/y".into()])
    );
    // By the names of a delta alone it is the same as by all of them.
    let mut step = |told: Vec<Told>| {
        let mut changed = all.names_of(&told);
        changed.extend(all.take(told));
        let partly = all.services(Some(&changed));
        assert_eq!(partly, all.services(None));
        names(&all)
    };
    let itself = [up("my-app", "1"), up("my-app", "2"), up("my-app", "3")];
    assert_eq!(step(itself.to_vec()), [("my-app".to_owned(), 3)]);
    let gone = |id| told("my-app", id, None, "");
    assert_eq!(step(vec![gone("1"), gone("2"), gone("3")]), first);
    let gone = |id| told("my.app", id, None, "");
    assert_eq!(step(vec![gone("1"), gone("2")]), [("my-app".to_owned(), 1)]);
}
