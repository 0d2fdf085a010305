//! `leave`: says goodbye to the mesh.

use mesh_model::admin::Leave;
use serde_json::{Value, json};

use super::Session;
use crate::{
    args::LeaveArgs,
    edit::mesh_of,
    failure::{Exit, Failure},
    wait,
};

/// Leaves.
pub(crate) async fn run(session: &Session, args: &LeaveArgs) -> Result<Exit, Failure> {
    let mesh = mesh_of(&session.client).await?;
    let wish = Leave { force: args.force };
    if args.change.dry_run {
        let _empty: Value = session
            .client
            .change("/v1/leave/dry-run", &wish, &args.change.reason)
            .await?;
    } else {
        let _empty: Value = session
            .client
            .change("/v1/leave", &wish, &args.change.reason)
            .await?;
        if args.change.wait.is_some() {
            wait::phase(&session.client, &["idle"], args.change.wait_timeout).await?;
        }
    }
    let dry_run = args.change.dry_run;
    session.printer.show(
        &json!({"mesh_id": mesh, "left": !dry_run, "dry_run": dry_run}),
        |printer| {
            if dry_run {
                format!("would leave the mesh {mesh}\n")
            } else {
                format!("{} left the mesh; meshd runs idle\n", printer.mark("ok"))
            }
        },
    )?;
    Ok(Exit::Done)
}
