//! The source obeys the law against the scripted server; what only Nomad can do wrong.

use crate::{
    contract::{Na, Watched, World, laws, up},
    longpoll::{
        fake::{Kind, Mood},
        tests::far::Far,
    },
};

fn far() -> Far {
    Far::new(Kind::Nomad)
}

#[tokio::test]
async fn it_obeys() {
    laws(far).await;
}

#[tokio::test]
async fn it_passes_every_case() {
    Far::pass("nomad-fake", Kind::Nomad, || Na::NoTwin).await;
}

#[tokio::test]
async fn what_has_no_question_of_its_own_is_read_when_something_changed() {
    let mut far = far();
    far.max_watches = 1;
    for name in ["a", "b", "c"] {
        far.put(name, &[up(1)]);
    }
    let run = Watched::new(&far);
    for (name, port) in [("c", 2), ("b", 2), ("c", 3), ("a", 3)] {
        far.put(name, &[up(1), up(port)]);
        run.has(name, &[1, port]).await;
    }
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
