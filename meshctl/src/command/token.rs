//! `token create`: prints a token, and nothing else, on standard output.

use mesh_model::{
    admin::{CreateToken, Token},
    time::rfc3339,
};

use super::Session;
use crate::{
    args::TokenCreate,
    failure::{Exit, Failure},
};

/// Makes a token.
pub(crate) async fn run(session: &Session, args: &TokenCreate) -> Result<Exit, Failure> {
    let ttl_secs = args.ttl.as_secs();
    if ttl_secs == 0 || ttl_secs > 7 * 86_400 {
        return Err(Failure::usage("--ttl", "out of range", "give 1s to 7d"));
    }
    let wish = CreateToken {
        ttl_secs,
        uses: args.uses,
        authority: args.authority,
        services: args.services.clone(),
    };
    if args.change.dry_run {
        session.printer.show(&wish, |_| {
            let role = if wish.authority {
                "an authority"
            } else {
                "a host"
            };
            format!(
                "would make a token for {} use(s), {role}, services {}\n",
                wish.uses,
                wish.services.join(", ")
            )
        })?;
        return Ok(Exit::Done);
    }
    let made: Token = session
        .client
        .change("/v1/token", &wish, &args.change.reason)
        .await?;
    session
        .printer
        .show(&made, |_| format!("{}\n", made.token))?;
    if session.printer.is_table() {
        crate::print::note(&format!(
            "a secret, until {}; on the new host: meshctl join --token-file FILE",
            rfc3339(made.expires_ms)
        ));
    }
    Ok(Exit::Done)
}
