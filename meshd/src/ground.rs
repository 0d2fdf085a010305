//! What every room of the control side stands on: settings, the disk, known problems, the end of it all.

use std::{collections::BTreeSet, sync::Arc};

use arc_swap::ArcSwap;
use mesh_model::{
    config::{Boot, Live, SourceConfig},
    finding::Finding,
    name::ServiceId,
};
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{admission::Site, clock, disk::Disk, intake::Host};

/// Shared by every room of the control side.
#[derive(Debug)]
pub(crate) struct Ground {
    /// Settings that need a restart.
    pub(crate) boot: Boot,
    /// Settings that a reload may change.
    pub(crate) live: watch::Sender<Arc<Live>>,
    /// What survives a restart.
    pub(crate) disk: Arc<Disk>,
    /// Name and addresses of this host.
    pub(crate) host: Host,
    /// Problems outside the plan, by subject; see [`Ground::raise`].
    pub(crate) findings: ArcSwap<Vec<Finding>>,
    /// Sources of the whole mesh that this host reads.
    pub(crate) elected: ArcSwap<Vec<SourceConfig>>,
    /// Services of this host that are offered to nobody any more, though they are still served.
    pub(crate) released: ArcSwap<BTreeSet<ServiceId>>,
    /// Told when a trial of adopted services begins.
    pub(crate) trial: Notify,
    /// Ends every task.
    pub(crate) stop: CancellationToken,
    /// Owns every task.
    pub(crate) tasks: TaskTracker,
}

impl Ground {
    /// Where this host stands, for admission.
    pub(crate) fn admission_site(&self) -> Site {
        Site::new(&self.boot, &self.host)
    }

    /// Offers these services to nobody any more, until the configuration is read again.
    pub(crate) fn release(&self, services: impl IntoIterator<Item = ServiceId>) {
        let mut all = BTreeSet::clone(&self.released.load());
        all.extend(services);
        self.released.store(Arc::new(all));
        // The same settings, looked at again.
        self.live.send_modify(|_| {});
    }

    /// Sets the problem with this code and subject, or takes it away; logs only what changed.
    pub(crate) fn raise(&self, code: &str, subject: &str, finding: Option<Finding>) {
        let mut changed = false;
        self.findings.rcu(|all| {
            let mut next: Vec<Finding> = all
                .iter()
                .filter(|known| !(known.code == code && known.subject == subject))
                .cloned()
                .collect();
            let before = all
                .iter()
                .find(|known| known.code == code && known.subject == subject);
            changed = match (&finding, before) {
                (Some(new), Some(old)) => new.what != old.what,
                (None, None) => false,
                _ => true,
            };
            if let Some(mut finding) = finding.clone() {
                finding.since_ms = before.map_or_else(clock::now_ms, |before| before.since_ms);
                next.push(finding);
            }
            next
        });
        if changed {
            if let Some(finding) = finding {
                tracing::warn!(%finding, "finding");
            } else {
                tracing::info!(code, subject, "finding solved");
            }
        }
    }
}
