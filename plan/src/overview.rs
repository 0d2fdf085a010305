//! Problems that are seen when everything is compiled: conflicts, tentative edits, empty services.

use mesh_model::time::rfc3339;

use crate::{findings::Findings, services::Services, world::World};

/// What is seen when everything is compiled.
pub(crate) fn tell(world: &World<'_>, services: &Services, findings: &Findings) {
    for (key, resource) in &world.input.catalog.resources {
        let subject = key.to_string();
        for told in resource.document.reported() {
            findings.add(
                &told.code,
                told.severity,
                told.subject,
                told.what,
                told.remedy,
            );
        }
        if !resource.conflicts.is_empty() {
            let others: Vec<String> = resource
                .conflicts
                .iter()
                .map(|(id, _)| id.short())
                .collect();
            findings.warning(
                "edit-conflict",
                &subject,
                format!(
                    "two edits were made at once: {} acts, {} is kept beside it",
                    resource.revision.short(),
                    others.join(", ")
                ),
                "look at both with `meshctl history`, then apply what you want",
            );
        }
        if resource.confirm_by_ms > world.input.now_ms {
            findings.note(
                "tentative-edit",
                &subject,
                format!(
                    "revision {} undoes itself at {}",
                    resource.revision.short(),
                    rfc3339(resource.confirm_by_ms)
                ),
                "keep it with `meshctl confirm`",
            );
        }
    }
    for (id, service) in &services.by_id {
        for (number, port) in &service.ports {
            if !port
                .candidates
                .iter()
                .any(|candidate| candidate.left_out.is_none())
            {
                let why = port
                    .candidates
                    .first()
                    .and_then(|first| first.left_out.as_deref());
                findings.warning(
                    "no-endpoint",
                    &format!("{id}:{number}"),
                    why.map_or_else(
                        || "the service has no endpoint".to_owned(),
                        |why| format!("no endpoint can be used; of the first: {why}"),
                    ),
                    "start an instance, or see `meshctl endpoints` for why each is left out",
                );
            }
        }
    }
}
