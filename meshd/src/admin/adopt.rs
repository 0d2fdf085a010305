//! Adoption: what registries know of this host already, trials of it, and the way back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use mesh_model::admin::adopt::{Adoption, Proposal, Release, Try};

use super::{
    answer::{Answer, Outcome, from_outcome, refuse, unknown},
    request::{parse, parse_service},
    state::joined,
};
use crate::{
    adopt::{self, Known, listening, trial},
    clock,
    daemon::{Daemon, Request},
};

/// Longest trial.
const LONGEST: Duration = Duration::from_hours(24 * 7);

/// `GET /v1/adopt`.
pub(super) async fn list(daemon: &Daemon) -> Outcome<Adoption> {
    let state_dir = &daemon.ground.boot.state_dir;
    let folder = daemon.config_path.parent();
    let directory = folder.map(|folder| folder.join("services.d"));
    Ok(Adoption {
        proposals: proposals(daemon).await?,
        directory: directory.unwrap_or_default().display().to_string(),
        try_until_ms: trial::until_ms(state_dir),
        tried: trial::files(state_dir),
    })
}

async fn proposals(daemon: &Daemon) -> Outcome<Vec<Proposal>> {
    // Before the rest, so that nothing is held meanwhile.
    let listeners = listening::listeners().await;
    let running = joined(daemon)?;
    let views = running.registry.views().borrow().clone();
    let live = daemon.ground.live.borrow().clone();
    let snapshot = running.reader.load();
    let trials = daemon.ground.boot.state_dir.join("trial");
    let mut dialled = BTreeMap::new();
    for ((service, port), backend) in &snapshot.outbound.backends {
        for one in &backend.endpoints {
            dialled.insert((service.clone(), one.address), *port);
        }
    }
    Ok(adopt::proposals(&Known {
        views: views
            .views
            .values()
            .map(|one| Arc::clone(&one.view))
            .collect(),
        addresses: &daemon.ground.host.addresses,
        listeners,
        services: &live.services,
        dialled,
        trials: &trials.display().to_string(),
    }))
}

/// Answers the requests that change something.
pub(super) async fn write(daemon: &Arc<Daemon>, what: &str, body: &Bytes) -> Answer {
    match what {
        "try" => from_outcome(begin(daemon, body).await),
        "confirm" => from_outcome(confirm(daemon).await),
        "release" => from_outcome(release(daemon, body).await),
        _ => unknown(what),
    }
}

fn disk(error: &std::io::Error) -> super::answer::Refused {
    refuse(
        500,
        "state-directory",
        format!("what is tried cannot be kept: {error}"),
        "make room in the state directory",
    )
}

async fn begin(daemon: &Arc<Daemon>, body: &Bytes) -> Outcome<serde_json::Value> {
    joined(daemon)?;
    let asked: Try = parse(body)?;
    let longest = u64::try_from(LONGEST.as_millis()).unwrap_or(u64::MAX);
    if asked.for_ms == 0 || asked.for_ms > longest {
        return Err(refuse(
            400,
            "bad-request",
            "a trial lasts up to 7 days",
            "write such as --try 10m",
        ));
    }
    let until = clock::now_ms().saturating_add(asked.for_ms);
    let state_dir = &daemon.ground.boot.state_dir;
    trial::begin(state_dir, &asked.files, until).map_err(|error| disk(&error))?;
    daemon.ground.trial.notify_one();
    reload(daemon).await?;
    let live = daemon.ground.live.borrow().clone();
    let place = trial::directory(state_dir).display().to_string();
    let taken = |file: &mesh_model::admin::adopt::AdoptedFile| {
        let path = format!("{place}/{}:", file.name);
        live.services
            .iter()
            .any(|one| one.origin.starts_with(&path))
    };
    if !asked.files.iter().all(taken) {
        trial::end(state_dir).map_err(|error| disk(&error))?;
        reload(daemon).await?;
        return Err(refuse(
            422,
            "does-not-fit",
            "what would be tried does not fit the configuration",
            "see the daemon's log: `journalctl -u meshd`",
        ));
    }
    Ok(serde_json::json!({}))
}

async fn confirm(daemon: &Arc<Daemon>) -> Outcome<serde_json::Value> {
    let state_dir = &daemon.ground.boot.state_dir;
    if trial::until_ms(state_dir) == 0 {
        return Err(refuse(
            404,
            "nothing-tried",
            "nothing is tried",
            "`meshctl adopt --try 10m SERVICE`",
        ));
    }
    trial::end(state_dir).map_err(|error| disk(&error))?;
    reload(daemon).await?;
    Ok(serde_json::json!({}))
}

/// Other hosts learn that the service is not offered here any more; what still comes is served meanwhile.
async fn release(daemon: &Arc<Daemon>, body: &Bytes) -> Outcome<serde_json::Value> {
    let asked: Release = parse(body)?;
    let service = parse_service(&asked.service)?;
    daemon.ground.release([service.clone()]);
    tokio::time::sleep(adopt::KNOWN_BY_ALL).await;
    let state_dir = &daemon.ground.boot.state_dir;
    for name in adopt::tried(state_dir, &service) {
        trial::take(state_dir, &name).map_err(|error| disk(&error))?;
    }
    Ok(serde_json::json!({}))
}

/// `POST /v1/reload`: the configuration is read again; what is wrong with it is told.
pub(super) async fn reload(daemon: &Arc<Daemon>) -> Outcome<serde_json::Value> {
    match daemon.ask(Request::Reload).await {
        Ok(()) => Ok(serde_json::json!({})),
        Err(what) => Err(refuse(
            422,
            "bad-configuration",
            what,
            "the last good configuration stays; correct the files",
        )),
    }
}
