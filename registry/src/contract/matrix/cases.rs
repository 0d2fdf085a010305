//! The cases of the matrix, each with a client of its own and `web` and `api` put away at its end.

use std::{sync::Arc, time::Duration};

use mesh_model::fact::{ViewEndpoint, WireHealth};
use tokio::time::Instant;

use super::{HOLD, Hook, Na, PATIENCE, Registered, Run, World, up};
use crate::{
    contract::run::{HOST, HOST_AT, fail, held, hold, is_synced, ports_of, seen, status, view},
    fake::{FakeRegistry, endpoint},
    published::Published,
};

/// The other source of the case with two.
const OTHER: &str = "contract/other";

/// Puts `web` and `api` and opens a client that has them.
async fn opened<W: World>(world: &mut W, ports: &[u16]) -> Run {
    let all: Vec<Registered> = ports.iter().copied().map(up).collect();
    world.put("web", &all);
    world.put("api", &[up(9)]);
    let run = Run::new(world, None);
    run.has("the first sync is complete", "web", ports).await;
    run.has("of all services", "api", &[9]).await;
    run.until("the status becomes synced", is_synced).await;
    run
}

async fn put_away<W: World>(world: &mut W, run: Run) {
    run.end().await;
    world.remove("web");
    world.remove("api");
}

/// Waits longer than a hold: everything is there still, and nothing waits for its removal.
async fn stays(run: &Run, law: &str, ports: &[u16]) {
    tokio::time::sleep(HOLD * 2).await;
    let now = run.now();
    hold(law, seen(&now, "web").as_deref() == Some(ports), &now);
    hold("of no service", seen(&now, "api") == Some(vec![9]), &now);
    hold("nothing is held", held(&now) == 0, &now);
}

/// The client follows again.
async fn follows<W: World>(world: &mut W, run: &Run, ports: &[u16]) {
    let all: Vec<Registered> = ports.iter().copied().map(up).collect();
    world.put("web", &all);
    run.has("it is followed again", "web", ports).await;
    run.until("the status is synced again", is_synced).await;
}

pub(super) async fn initial_sync<W: World>(world: &mut W) -> Hook {
    let run = opened(world, &[1, 2]).await;
    let now = run.now();
    let named = view(&now, "web").is_some_and(|view| view.source == super::super::ID);
    hold("a fact names its source", named, &now);
    put_away(world, run).await;
    Ok(())
}

pub(super) async fn add<W: World>(world: &mut W) -> Hook {
    world.put("web", &[up(1)]);
    let run = Run::new(world, None);
    run.has("the first sync is complete", "web", &[1]).await;
    world.put("web", &[up(1), up(2)]);
    run.has("an added endpoint is seen", "web", &[1, 2]).await;
    world.put("api", &[up(9)]);
    run.has("an added service is seen", "api", &[9]).await;
    put_away(world, run).await;
    Ok(())
}

pub(super) async fn remove<W: World>(world: &mut W) -> Hook {
    let run = opened(world, &[1, 2, 3, 4, 5]).await;
    world.put("web", &[up(1), up(2), up(4), up(5)]);
    let now = run
        .has("a single removal passes", "web", &[1, 2, 4, 5])
        .await;
    hold("without a hold", held(&now) == 0, &now);
    put_away(world, run).await;
    Ok(())
}

pub(super) async fn change<W: World>(world: &mut W) -> Hook {
    let run = opened(world, &[1, 2]).await;
    let before = by_port(&run.now(), 2);
    let changed = world.change("web", 2);
    if changed.is_ok() {
        run.until("a change in place is seen", |now| {
            let after = by_port(now, 2);
            after.is_some() && after != before
        })
        .await;
        run.has("nothing else went", "web", &[1, 2]).await;
    }
    put_away(world, run).await;
    changed
}

fn by_port(now: &Published, port: u16) -> Option<ViewEndpoint> {
    let all = &view(now, "web")?.endpoints;
    all.iter()
        .find(|one| ports_of(std::slice::from_ref(*one)) == [port])
        .cloned()
}

pub(super) async fn health_flip<W: World>(world: &mut W) -> Hook {
    if !world.tells_health() {
        return Err(Na::NoHealth);
    }
    let run = opened(world, &[1, 2]).await;
    let is_down = |now: &Published| {
        by_port(now, 2).is_some_and(|one| one.health == i32::from(WireHealth::Unhealthy))
    };
    let ill = Registered {
        port: 2,
        healthy: false,
    };
    world.put("web", &[up(1), ill]);
    run.until("an ill endpoint is seen", is_down).await;
    world.put("web", &[up(1), up(2)]);
    run.until("it is seen to be well again", |now| {
        by_port(now, 2).is_some() && !is_down(now)
    })
    .await;
    put_away(world, run).await;
    Ok(())
}

pub(super) async fn mass_removal<W: World>(world: &mut W) -> Hook {
    let run = opened(world, &[1, 2, 3, 4, 5]).await;
    world.put("web", &[up(1)]);
    let now = run
        .until("a mass removal is held", |now| held(now) == 4)
        .await;
    let whole = seen(&now, "web") == Some(vec![1, 2, 3, 4, 5]);
    hold("held endpoints stay", whole, &now);
    run.has("the hold ends", "web", &[1]).await;
    put_away(world, run).await;
    Ok(())
}

pub(super) async fn addresses<W: World>(world: &mut W) -> Hook {
    let wanted = world.put_addresses("web")?;
    world.put("api", &[up(9)]);
    let run = Run::new(world, None);
    let mut wanted: Vec<String> = wanted
        .iter()
        .map(|one| one.replace(HOST, &HOST_AT.to_string()))
        .collect();
    wanted.sort_unstable();
    assert!(
        wanted.iter().any(|one| one.starts_with('[')),
        "there is an IPv6 address among {wanted:?}"
    );
    run.until(&format!("the addresses are {wanted:?}"), |now| {
        let all = view(now, "web").map(|view| &*view.endpoints);
        let mut all: Vec<&str> = all
            .unwrap_or_default()
            .iter()
            .map(|one| one.address.as_str())
            .collect();
        all.sort_unstable();
        all == wanted
    })
    .await;
    put_away(world, run).await;
    Ok(())
}

pub(super) async fn cut<W: World>(world: &mut W) -> Hook {
    let run = opened(world, &[1, 2]).await;
    let done = world.cut();
    if done.is_ok() {
        run.until("a cut body is noticed", |now| !is_synced(now))
            .await;
        stays(&run, "a cut body removes nothing", &[1, 2]).await;
        world.repair();
        follows(world, &run, &[1, 2, 3]).await;
    }
    put_away(world, run).await;
    done
}

pub(super) async fn two_sources<W: World>(world: &mut W) -> Hook {
    let run = opened(world, &[1, 2]).await;
    let other = FakeRegistry::default();
    other.put("web", vec![endpoint(2), endpoint(3)]);
    let again = other.clone();
    run.registry.add(OTHER, true, move || again.source(OTHER));
    both(&run, "both are there, each with its own", &[2, 3]).await;
    world.break_off();
    run.until("a lost source is noticed", |now| !is_synced(now))
        .await;
    other.put("web", vec![endpoint(2), endpoint(3), endpoint(4)]);
    both(&run, "the other is followed meanwhile", &[2, 3, 4]).await;
    world.repair();
    run.until("it recovers from the loss", is_synced).await;
    other.remove("web");
    both(
        &run,
        "the other's removal takes nothing of ours",
        &[2, 3, 4],
    )
    .await;
    run.until("and counts after its own hold", |now| {
        theirs(now).is_none() && seen(now, "web").as_deref() == Some(&[1, 2])
    })
    .await;
    put_away(world, run).await;
    Ok(())
}

/// Waits until ours has 1 and 2, and the other source these.
async fn both(run: &Run, law: &str, other: &[u16]) {
    run.until(law, |now| {
        seen(now, "web").as_deref() == Some(&[1, 2]) && theirs(now).as_deref() == Some(other)
    })
    .await;
}

/// The ports of the other source's service.
fn theirs(now: &Published) -> Option<Vec<u16>> {
    let key = format!("view/{OTHER}/default/web");
    Some(ports_of(&now.views.get(&key)?.view.endpoints))
}

pub(super) async fn freeze<W: World>(world: &mut W) -> Hook {
    let run = opened(world, &[1, 2]).await;
    let done = world.freeze();
    if done.is_ok() {
        run.until("silence is noticed", |now| !is_synced(now)).await;
        stays(&run, "silence removes nothing", &[1, 2]).await;
        world.thaw();
        follows(world, &run, &[1, 2, 3]).await;
    }
    put_away(world, run).await;
    done
}

pub(super) async fn kill<W: World>(world: &mut W) -> Hook {
    let run = opened(world, &[1, 2]).await;
    let done = world.kill();
    if done.is_ok() {
        run.until("a killed server is noticed", |now| !is_synced(now))
            .await;
        stays(&run, "a killed server removes nothing", &[1, 2]).await;
        world.start_again(false)?;
        world.put("api", &[up(9)]);
        follows(world, &run, &[1, 2, 3]).await;
    }
    put_away(world, run).await;
    done
}

pub(super) async fn restart_kept<W: World>(world: &mut W) -> Hook {
    let run = opened(world, &[1, 2]).await;
    let killed = world.kill();
    if let Err(reason) = killed {
        put_away(world, run).await;
        return Err(reason);
    }
    run.until("a killed server is noticed", |now| !is_synced(now))
        .await;
    let kept = world.start_again(true);
    if kept.is_err() {
        world.start_again(false)?;
        world.put("web", &[up(1), up(2)]);
        world.put("api", &[up(9)]);
    } else {
        run.until("the status is synced again", is_synced).await;
        stays(&run, "a restart removes nothing", &[1, 2]).await;
        follows(world, &run, &[1, 2, 3]).await;
    }
    put_away(world, run).await;
    kept
}

pub(super) async fn restart_empty<W: World>(world: &mut W) -> Hook {
    let ports = [1, 2, 3, 4, 5];
    let run = opened(world, &ports).await;
    let killed = world.kill();
    if let Err(reason) = killed {
        put_away(world, run).await;
        return Err(reason);
    }
    run.until("a killed server is noticed", |now| !is_synced(now))
        .await;
    world.start_again(false)?;
    held_or_kept(&run, &ports).await;
    world.put("web", &[up(7)]);
    world.put("api", &[up(9)]);
    run.has("what is registered anew wins in the end", "web", &[7])
        .await;
    put_away(world, run).await;
    Ok(())
}

/// Emptiness after a restart is held as a mass removal, or not believed at all; never taken at once.
async fn held_or_kept(run: &Run, ports: &[u16]) {
    let end = Instant::now() + HOLD * 3;
    let mut views = run.registry.views();
    loop {
        let now = Arc::clone(&views.borrow_and_update());
        let whole = seen(&now, "web").as_deref() == Some(ports);
        hold("an empty restart takes nothing at once", whole, &now);
        if held(&now) >= ports.len() {
            return;
        }
        match tokio::time::timeout_at(end, views.changed()).await {
            Err(_) => return,
            Ok(Ok(())) => {}
            Ok(Err(_)) => return fail("the registry runs", &now),
        }
    }
}

pub(super) async fn token<W: World>(world: &mut W) -> Hook {
    let run = opened(world, &[1, 2]).await;
    world.revoke_token()?;
    run.until("a revoked token is told", |now| {
        status(now).is_some_and(|status| status.as_str() == "auth-failed")
    })
    .await;
    stays(&run, "a revoked token removes nothing", &[1, 2]).await;
    world.rotate_token()?;
    follows(world, &run, &[1, 2, 3]).await;
    put_away(world, run).await;
    Ok(())
}

pub(super) async fn certificate<W: World>(world: &mut W) -> Hook {
    let run = opened(world, &[1, 2]).await;
    world.rotate_certificate()?;
    follows(world, &run, &[1, 2, 3]).await;
    let now = run.now();
    hold("nothing is held", held(&now) == 0, &now);
    hold("of no service", seen(&now, "api") == Some(vec![9]), &now);
    put_away(world, run).await;
    Ok(())
}

pub(super) async fn scale<W: World>(world: &mut W) -> Hook {
    let many = if world.is_real() { 10_000 } else { 100_000 };
    world.fill(many)?;
    let began = Instant::now();
    let run = Run::patient(world, PATIENCE.max(Duration::from_mins(2)));
    run.until(&format!("all {many} endpoints are seen"), |now| {
        let ours = now.sources.iter().find(|row| row.id == super::super::ID);
        ours.is_some_and(|row| row.endpoints == many) && is_synced(now)
    })
    .await;
    let row = run.now().sources.first().cloned();
    tracing::info!(took = ?began.elapsed(), ?row, "all endpoints are seen");
    run.end().await;
    Ok(())
}
