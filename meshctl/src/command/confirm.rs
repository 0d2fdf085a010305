//! `confirm`: keeps a change that would otherwise undo itself.
//!
//! Without a revision it keeps what `adopt --try` tries, and where nothing is tried the one commit of this operator
//! that waits. Of several none is guessed, and nobody else's is kept unless it is named.

use mesh_model::{
    admin::{HistoryRow, Operator, adopt::Adoption},
    commit::Op,
    time::rfc3339,
};

use super::Session;
use crate::{
    args::{ConfirmArgs, EditArgs},
    client::with_query,
    edit::Wish,
    failure::{Exit, Failure},
    sign, story,
};

/// How many commits are looked through for those that wait.
const LOOKED_AT: u32 = 200;

/// Confirms.
pub(crate) async fn run(session: &Session, args: &ConfirmArgs) -> Result<Exit, Failure> {
    if let Some(revision) = &args.revision {
        let row = story::commit(&session.client, revision).await?;
        return keep(session, args, &row).await;
    }
    let adoption: Adoption = session.client.get("/v1/adopt").await?;
    let waiting = waiting(session).await?;
    if !adoption.tried.is_empty() {
        for row in &waiting {
            crate::print::note(&format!("to keep {} too: {}", what(row), command(row)));
        }
        return super::adopt::confirm(session, &adoption, &args.change.reason).await;
    }
    match waiting.as_slice() {
        [] => Err(Failure::new(
            Exit::Finding,
            "nothing-to-confirm",
            "confirm",
            "nothing of yours waits to be confirmed, and nothing is tried",
            "see `meshctl history`; another operator's change: `meshctl confirm REVISION`",
        )),
        [one] => keep(session, args, one).await,
        several => Err(which(several)),
    }
}

/// What waits of this operator's own, newest first.
async fn waiting(session: &Session) -> Result<Vec<HistoryRow>, Failure> {
    let Some(key) = sign::key(&session.home()?)? else {
        return Ok(Vec::new());
    };
    let public = sign::hex(&key.public());
    let operators: Vec<Operator> = session.client.get("/v1/operators").await?;
    let me = operators.into_iter().find(|one| one.key == public);
    let path = with_query("/v1/history", &[("limit", &LOOKED_AT.to_string())]);
    let mut rows: Vec<HistoryRow> = session.client.get(&path).await?;
    rows.retain(|row| {
        row.state == "tentative" && me.as_ref().is_some_and(|me| me.name == row.author)
    });
    Ok(rows)
}

async fn keep(session: &Session, args: &ConfirmArgs, row: &HistoryRow) -> Result<Exit, Failure> {
    let edit = EditArgs {
        change: args.change.clone(),
        confirm_within: None,
    };
    let editor = session.editor(&edit)?;
    let changed = row.changes.iter().filter(|change| change.op != "confirm");
    match row.state.as_str() {
        "reverted" => Err(Failure::new(
            Exit::Finding,
            "too-late",
            format!("commit {}", row.id.short()),
            "it has undone itself already",
            format!("make it again: `meshctl rollback {}`", row.id.short()),
        )),
        "tentative" => {
            let wishes: Vec<Wish> = changed
                .map(|change| Wish {
                    key: story::change_key(change),
                    op: Op::Confirm,
                    what: "confirm",
                    bases: vec![row.id],
                    base_ms: row.time_ms,
                    document: None,
                })
                .collect();
            editor.commit(&wishes, &[]).await
        }
        _ => {
            let keys: Vec<_> = changed.map(story::change_key).collect();
            editor.commit(&[], &keys).await
        }
    }
}

fn what(row: &HistoryRow) -> String {
    let mut keys: Vec<String> = row
        .changes
        .iter()
        .map(|change| story::change_key(change).to_string())
        .collect();
    keys.dedup();
    keys.join(", ")
}

fn command(row: &HistoryRow) -> String {
    format!("`meshctl confirm {}`", row.id.short())
}

/// Several wait: each is shown with the command that keeps it.
fn which(rows: &[HistoryRow]) -> Failure {
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let by = rfc3339(row.confirm_by_ms);
            format!("{} until {by}: {}", command(row), what(row))
        })
        .collect();
    Failure::usage(
        "confirm",
        format!("{} changes of yours wait to be confirmed", rows.len()),
        "say which",
    )
    .with_details(lines.join("\n"))
}
