//! `version`: of meshctl, and of the daemon when it answers.

use std::time::Duration;

use mesh_model::admin::Status;
use serde_json::json;

use super::Session;
use crate::failure::{Exit, Failure};

/// Shows the versions.
pub(crate) async fn run(session: &Session) -> Result<Exit, Failure> {
    let own = env!("CARGO_PKG_VERSION");
    let status = session
        .client
        .within(Duration::from_secs(2))
        .get::<Status>("/v1/status")
        .await;
    let daemon = status.map(|status| status.version).ok();
    session
        .printer
        .show(&json!({"meshctl": own, "meshd": daemon}), |_| {
            format!(
                "meshctl {own}\nmeshd   {}\n",
                daemon.as_deref().unwrap_or("does not answer")
            )
        })?;
    Ok(Exit::Done)
}
