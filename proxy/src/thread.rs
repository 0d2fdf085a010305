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
    worker.upstream.retire(&enforced);
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
        worker.limits.retire(&snapshot);
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

/// CPU time of this process's threads whose names begin so, in microseconds; 0 where the kernel does not tell.
pub(crate) fn cpu_us(name: &str) -> u64 {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };
    let nanos = threads.flatten().filter_map(|thread| {
        let folder = thread.path();
        let own = std::fs::read_to_string(folder.join("comm")).ok()?;
        if !own.starts_with(name) {
            return None;
        }
        // Time on a CPU, time waiting for one, and turns (proc(5)).
        let told = std::fs::read_to_string(folder.join("schedstat")).ok()?;
        told.split_whitespace().next()?.parse::<u64>().ok()
    });
    nanos.sum::<u64>() / 1_000
}
