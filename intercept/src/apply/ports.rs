//! Which registered ports may be captured.

use std::collections::BTreeSet;

use super::outcome::Skipped;
use crate::{intent::Intent, sshd};

/// The intent without ports that must not be captured.
pub(super) async fn cleared(intent: &Intent) -> (Intent, Vec<Skipped>) {
    let asked: BTreeSet<u16> = intent.skip_ports.iter().copied().collect();
    let ssh = if intent.inbound.is_empty() {
        BTreeSet::new()
    } else {
        sshd::ports().await
    };
    let mut cleared = intent.clone();
    let mut skipped = Vec::new();
    cleared.inbound.retain(|one| {
        let port = one.address.port();
        let ssh = ssh.contains(&port);
        if ssh || asked.contains(&port) {
            skipped.push(Skipped {
                address: one.address,
                ssh,
            });
        }
        !ssh && !asked.contains(&port)
    });
    (cleared, skipped)
}
