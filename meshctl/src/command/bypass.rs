//! `bypass` and `unbypass`: through the daemon, or as `meshd bypass` when it is dead.

use serde_json::{Value, json};

use super::{Session, daemon::run_daemon};
use crate::{
    args::BypassArgs,
    failure::{Exit, Failure},
    wait,
};

/// Out of the path, or in again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Traffic goes its own way.
    Out,
    /// Traffic goes through the mesh.
    In,
}

/// Bypasses, or undoes it.
pub(crate) async fn run(session: &Session, args: &BypassArgs, way: Way) -> Result<Exit, Failure> {
    let out = "meshd is out of this host's path until `meshctl unbypass`";
    let (verb, done, by_hand) = match way {
        Way::Out => ("bypass", out, out),
        Way::In => (
            "unbypass",
            "meshd is in this host's path again",
            "bypass is off: meshd is in this host's path whenever it runs",
        ),
    };
    if args.change.dry_run {
        session.printer.show(&json!({"would": verb}), |_| {
            format!("would {verb} this host\n")
        })?;
        return Ok(Exit::Done);
    }
    let path = format!("/v1/{verb}");
    let asked = session
        .client
        .change::<Value>(&path, &json!({}), &args.change.reason)
        .await;
    match asked {
        Ok(_empty) => {}
        Err(failure) if failure.exit == Exit::Unreachable => {
            crate::print::note(&format!("meshd does not answer; running `meshd {verb}`"));
            run_daemon(args.config.as_deref(), verb)?;
            return shown(session, verb, by_hand);
        }
        Err(failure) => return Err(failure),
    }
    if args.change.wait.is_some() {
        let phases: &[&str] = match way {
            Way::Out => &["bypassed"],
            Way::In => &["running", "idle"],
        };
        wait::phase(&session.client, phases, args.change.wait_timeout).await?;
    }
    shown(session, verb, done)
}

fn shown(session: &Session, verb: &str, done: &str) -> Result<Exit, Failure> {
    session.printer.show(&json!({"done": verb}), |printer| {
        format!("{} {done}\n", printer.mark("ok"))
    })?;
    Ok(Exit::Done)
}
