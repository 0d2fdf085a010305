//! The life of a worker's thread: accepts, keeps tidy, enforces rights, finishes.

use std::{rc::Rc, time::Duration};

use mesh_model::snapshot::{Snapshot, Trust};

use crate::{accept, listen::Bound, worker::Worker};

/// How often a new snapshot's rights are enforced and log lines handed on.
const TICK: Duration = Duration::from_millis(250);
/// Ticks from one tidying of the pools to the next.
const TIDY: u32 = 8;

/// Accepts until draining begins, then finishes what runs, until forced.
pub(crate) async fn run(worker: Rc<Worker>, bound: Vec<Bound>) {
    for listener in bound {
        worker.spawn(accept::accept(Rc::clone(&worker), listener));
    }
    tokio::select! {
        () = keep_tidy(&worker) => {}
        () = worker.drain.draining() => {}
    }
    worker.tasks.close();
    tokio::select! {
        () = worker.tasks.wait() => {}
        () = worker.drain.forced() => {}
        () = keep_tidy(&worker) => {}
    }
    worker.observe.flush();
}

async fn keep_tidy(worker: &Worker) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut enforced = worker.snapshot();
    for ticks in 1u32.. {
        tick.tick().await;
        worker.observe.flush();
        if ticks.is_multiple_of(TIDY) {
            worker.upstream.tidy();
        }
        let snapshot = worker.snapshot();
        if snapshot.generation == enforced.generation {
            continue;
        }
        worker.upstream.retire(&snapshot);
        if !same_trust(&enforced, &snapshot) {
            worker.peers.enforce(&snapshot);
            worker.upstream.enforce(&snapshot);
        }
        enforced = snapshot;
    }
}

fn same_trust(a: &Snapshot, b: &Snapshot) -> bool {
    let Trust { bundles, grants } = &a.trust;
    *bundles == b.trust.bundles && *grants == b.trust.grants && a.mesh == b.mesh
}
