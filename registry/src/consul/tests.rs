//! The source obeys the law against the scripted server; what only Consul can do wrong.

use std::fs;

use crate::{
    contract::{Na, Watched, World, laws, up},
    longpoll::{
        fake::{Kind, Mood},
        tests::far::Far,
    },
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
