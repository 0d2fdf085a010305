//! Whether this host's calls are captured: what the kernel has, not what it was asked for.

use mesh_model::{
    admin::CheckRow,
    cause,
    config::{Boot, Capture},
};

use super::{ok, row};
use crate::running::Running;

const SECTION: &str = "capture";

/// The line of a host that is in a mesh, in this phase.
pub(super) async fn line(boot: &Boot, phase: &str, running: &Running) -> CheckRow {
    match (phase, boot.capture) {
        ("bypassed", _) => row(
            SECTION,
            "warning",
            "bypassed: programs of this host go around the mesh",
            "`meshctl unbypass`",
        ),
        (_, Capture::Off) => ok(SECTION, "off: programs use the explicit listener"),
        (_, Capture::Mesh) => {
            // What was planned a moment ago is on its way.
            running.settled().await;
            match mesh_intercept::observe::missing_tables(boot).await {
                Ok(missing) => captured(&missing),
                Err(error) => row(
                    SECTION,
                    "warning",
                    format!("nobody knows what the kernel has: {}", cause::chain(&error)),
                    "see what `nft list tables` says as root",
                ),
            }
        }
    }
}

fn captured(missing: &[&str]) -> CheckRow {
    if missing.is_empty() {
        return ok(
            SECTION,
            "calls to mesh addresses and to registered ports are captured",
        );
    }
    let tables: Vec<String> = missing
        .iter()
        .map(|name| format!("table inet {name}"))
        .collect();
    row(
        SECTION,
        "error",
        format!("not in the kernel: {}", tables.join(", ")),
        "it is put back within 10 s; if not, see the findings and the daemon's log",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_gone_is_an_error_by_name() {
        assert_eq!(captured(&[]).state, "ok");
        let line = captured(&["meshd_fallback"]);
        assert_eq!(line.state, "error");
        assert_eq!(line.what, "not in the kernel: table inet meshd_fallback");
        assert!(!line.remedy.is_empty());
    }
}
