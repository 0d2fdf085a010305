//! What every source must do, whatever its registry can be made to do.

use mesh_model::fact::WireHealth;

use super::{
    Registered, World,
    run::{HOLD, ID, Run, held, hold, is_synced, seen, status, view},
    up,
};

/// Every law, one after the other, each in a fresh world.
pub async fn laws<W: World>(world: impl Fn() -> W) {
    content(&mut world()).await;
    removals(&mut world()).await;
    errors(&mut world()).await;
    restart(&mut world()).await;
}

/// What is registered is seen, whole, in order, with its health.
async fn content<W: World>(world: &mut W) {
    world.put("web", &[up(1), up(2)]);
    let run = Run::new(world, None);
    let first = run.has("the first sync is complete", "web", &[1, 2]).await;
    hold(
        "a fact names its source",
        view(&first, "web").is_some_and(|v| v.source == ID),
        &first,
    );
    run.until("the status becomes synced", is_synced).await;
    world.put("web", &[up(1), up(2), up(3)]);
    run.has("an added endpoint is seen", "web", &[1, 2, 3])
        .await;
    world.put("api", &[up(9)]);
    run.has("an added service is seen", "api", &[9]).await;
    if !world.tells_health() {
        run.end().await;
        return;
    }
    world.put(
        "web",
        &[
            up(1),
            Registered {
                port: 2,
                healthy: false,
            },
            up(3),
        ],
    );
    run.until("a change of health is seen", |now| {
        view(now, "web").is_some_and(|view| {
            view.endpoints
                .iter()
                .any(|one| one.health == i32::from(WireHealth::Unhealthy))
        })
    })
    .await;
    run.end().await;
}

/// One endpoint goes at once; most of them, or a whole service, after the hold.
async fn removals<W: World>(world: &mut W) {
    world.put("web", &[up(1), up(2), up(3), up(4), up(5)]);
    world.put("api", &[up(9)]);
    let run = Run::new(world, None);
    run.has("the first sync is complete", "web", &[1, 2, 3, 4, 5])
        .await;
    world.put("web", &[up(1), up(2), up(3), up(4)]);
    run.has("a single removal passes", "web", &[1, 2, 3, 4])
        .await;
    world.put("web", &[up(1)]);
    let held = run
        .until("a mass removal is held", |now| {
            now.sources.iter().any(|row| row.held == 3)
        })
        .await;
    hold(
        "held endpoints stay",
        seen(&held, "web") == Some(vec![1, 2, 3, 4]),
        &held,
    );
    run.has("the hold ends", "web", &[1]).await;
    world.remove("api");
    run.until("a removed service is held", |now| {
        now.sources.iter().any(|row| row.held == 1)
    })
    .await;
    run.until("and then it is gone", |now| view(now, "api").is_none())
        .await;
    world.put("api", &[up(9)]);
    run.has("it can come back", "api", &[9]).await;
    run.end().await;
}

/// Nothing that goes wrong removes anything, for longer than the hold; afterwards all is as it should be.
async fn errors<W: World>(world: &mut W) {
    world.put("web", &[up(1), up(2)]);
    world.put("api", &[up(9)]);
    let run = Run::new(world, None);
    run.has("the first sync is complete", "web", &[1, 2]).await;
    world.garbage();
    let doubtful = run.until("garbage is noticed", |now| !is_synced(now)).await;
    hold(
        "the error has a text",
        status(&doubtful).is_some_and(|s| s.error().is_some()),
        &doubtful,
    );
    unharmed(&run, "garbage removes nothing").await;
    world.repair();
    run.until("it recovers from garbage", is_synced).await;
    world.break_off();
    run.until("a lost source is noticed", |now| !is_synced(now))
        .await;
    unharmed(&run, "a lost source removes nothing").await;
    world.repair();
    run.until("it recovers from the loss", is_synced).await;
    world.put("web", &[up(1), up(2), up(3)]);
    run.has("and is followed again", "web", &[1, 2, 3]).await;
    run.end().await;
}

/// Longer than a hold later everything is there, and nothing waits for its removal.
async fn unharmed(run: &Run, law: &str) {
    tokio::time::sleep(HOLD * 2).await;
    let now = run.now();
    hold(law, seen(&now, "web") == Some(vec![1, 2]), &now);
    hold("of no service", seen(&now, "api") == Some(vec![9]), &now);
    hold("nothing is held", held(&now) == 0, &now);
}

/// A restart while the registry is away serves what was saved; later the registry wins.
async fn restart<W: World>(world: &mut W) {
    world.put("web", &[up(1), up(2)]);
    let run = Run::new(world, None);
    run.has("the first sync is complete", "web", &[1, 2]).await;
    let saved = run.registry.saving()();
    run.end().await;
    world.break_off();
    let again = Run::new(world, Some(&saved));
    again
        .has("what was saved is used at once", "web", &[1, 2])
        .await;
    world.repair();
    world.put("web", &[up(1), up(2), up(3)]);
    again
        .has("the registry wins when it is back", "web", &[1, 2, 3])
        .await;
    again.end().await;
}
