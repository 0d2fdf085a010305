//! The source obeys the law against the scripted server; what only Consul can do wrong.

use std::{fs, time::Duration};

use mesh_model::{
    endpoint::ServiceKey,
    name::{Namespace, ServiceName},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    contract::{ID, Na, Watched, World, laws, up},
    longpoll::{
        fake::{Kind, Mood},
        tests::far::Far,
    },
    status::SourceStatus,
};

fn far() -> Far {
    Far::new(Kind::Consul)
}

#[tokio::test]
async fn it_obeys() {
    laws(far).await;
}

#[tokio::test]
async fn it_passes_every_case() {
    Far::pass("consul-fake", Kind::Consul, || Na::Twin).await;
}

#[tokio::test]
async fn what_has_no_question_of_its_own_is_read_when_something_changed() {
    let mut far = far();
    far.max_watches = 1;
    for name in ["a", "b", "c", "d"] {
        far.put(name, &[up(1)]);
    }
    let run = Watched::new(&far);
    for name in ["a", "b", "c", "d"] {
        run.has(name, &[1]).await;
    }
    run.is("synced").await;
    // What changes takes the question of what does not, so each is changed twice.
    for (name, port) in [("d", 2), ("c", 2), ("b", 2), ("d", 3), ("a", 3)] {
        far.put(name, &[up(1), up(port)]);
        run.has(name, &[1, port]).await;
    }
    far.fake.put("c", &[(1, true), (2, false)]);
    run.routes("c", &[1]).await;
    far.fake.put("c", &[(1, true), (2, true)]);
    run.routes("c", &[1, 2]).await;
    far.remove("b");
    run.routes("b", &[]).await;
    run.is("synced").await;
    run.end().await;
}

fn key(name: &str) -> ServiceKey {
    ServiceKey {
        namespace: Some(Namespace::default()),
        name: ServiceName::new(name).unwrap(),
        port_name: None,
    }
}

/// What this host calls is read at that moment and has a question of its own from then on, before any change of it.
#[tokio::test]
async fn what_this_host_calls_is_followed_first() {
    const PATIENCE: Duration = Duration::from_secs(20);
    let mut far = far();
    far.max_watches = 4;
    let names: Vec<String> = (0..40).map(|at| format!("s{at:02}")).collect();
    for name in &names {
        far.put(name, &[up(1)]);
    }
    let stop = CancellationToken::new();
    let registry = crate::start(&[], stop.clone());
    let open = far.opener();
    registry.add(ID, true, move || open());
    let mut views = registry.views();
    let synced = views.wait_for(|now| {
        let rows = &now.sources;
        rows.iter()
            .all(|row| row.status == SourceStatus::Synced && row.services >= names.len())
    });
    let read = tokio::time::timeout(PATIENCE, synced).await;
    assert!(read.is_ok(), "{:?}", registry.reading(ID));
    // Questions about a service, and those of them that wait for a change.
    let asked = |name: &str| {
        let path = format!("/v1/health/service/{name}?");
        let mut all = far.fake.asked();
        all.retain(|line| line.contains(&path));
        let waits = all.iter().filter(|line| line.contains("index="));
        (all.len(), waits.count())
    };
    let until = async |what: &str, holds: &dyn Fn() -> bool| {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < end, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let last = "s39";
    let before = asked(last);
    assert_eq!(before.1, 0, "it is read in turn");
    registry.calls([key(last)]);
    until("a question of its own", &|| asked(last).1 > 0).await;
    assert_eq!(registry.reading(ID).watched, 4);
    // So soon after one swap there is no other; those that must wait are read all the same.
    let more = ["s30", "s31", "s32", "s33"];
    let counts = more.map(|name| asked(name).0);
    registry.calls(more.map(key));
    until("all are read", &|| {
        more.iter()
            .zip(counts)
            .all(|(name, count)| asked(name).0 > count)
    })
    .await;
    let count = asked(last).1;
    far.fake.put(last, &[(1, true), (9, true)]);
    until("its own question is asked again", &|| asked(last).1 > count).await;
    stop.cancel();
    registry.ended().await;
}

#[tokio::test]
async fn no_misbehaviour_removes_anything() {
    let mut far = far();
    far.put("web", &[up(1), up(2)]);
    let run = Watched::new(&far);
    run.has("web", &[1, 2]).await;
    run.is("synced").await;
    for (mood, word) in [
        (Mood::Blind, "auth-failed"),
        (Mood::Nodeless, "auth-failed"),
        (Mood::Filtered, "auth-failed"),
        (Mood::Leaderless, "degraded"),
        (Mood::Cut, "degraded"),
        (Mood::Garbage, "degraded"),
    ] {
        far.fake.mood(mood);
        run.is(word).await;
        run.stays("web", &[1, 2]).await;
        far.fake.mood(Mood::Good);
        run.is("synced").await;
    }
    run.end().await;
}

#[tokio::test]
async fn an_index_that_begins_anew_is_followed() {
    let mut far = far();
    for round in 1..=20 {
        far.put("web", &[up(round), up(1)]);
    }
    let run = Watched::new(&far);
    run.has("web", &[1, 20]).await;
    far.put("web", &[up(1), up(2)]);
    run.has("web", &[1, 2]).await;
    far.fake.mood(Mood::Broken);
    run.is("degraded").await;
    far.fake.rebuild();
    far.put("web", &[up(1), up(2), up(3)]);
    far.fake.mood(Mood::Good);
    run.has("web", &[1, 2, 3]).await;
    assert!(
        far.fake
            .asked()
            .iter()
            .any(|line| line.contains("/v1/health/service/web ")),
        "the leader was asked"
    );
    far.put("web", &[up(2), up(3), up(1), up(4)]);
    run.has("web", &[1, 2, 3, 4]).await;
    run.end().await;
}

#[tokio::test]
async fn a_black_hole_is_noticed_and_left() {
    let mut far = far();
    far.put("web", &[up(1)]);
    let run = Watched::new(&far);
    run.has("web", &[1]).await;
    run.is("synced").await;
    far.fake.mood(Mood::Silent);
    run.is("degraded").await;
    far.fake.mood(Mood::Good);
    far.put("web", &[up(1), up(2)]);
    run.has("web", &[1, 2]).await;
    run.is("synced").await;
    run.end().await;
}

#[tokio::test]
async fn a_revoked_token_keeps_everything_until_the_new_one_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, "first").unwrap();
    let mut far = far();
    far.token = Some(file.clone());
    far.fake.token("first");
    far.put("web", &[up(1)]);
    let run = Watched::new(&far);
    run.has("web", &[1]).await;
    far.fake.token("second");
    far.put("web", &[up(1), up(2)]);
    run.is("auth-failed").await;
    run.stays("web", &[1]).await;
    fs::write(&file, "second").unwrap();
    run.has("web", &[1, 2]).await;
    run.is("synced").await;
    run.end().await;
}
