//! `confirm`: keeps a change that would otherwise undo itself.

use mesh_model::commit::Op;

use super::Session;
use crate::{
    args::{ConfirmArgs, EditArgs},
    edit::Wish,
    failure::{Exit, Failure},
    story,
};

/// Confirms.
pub(crate) async fn run(session: &Session, args: &ConfirmArgs) -> Result<Exit, Failure> {
    let Some(revision) = &args.revision else {
        return super::adopt::confirm(session, &args.change.reason).await;
    };
    let row = story::commit(&session.client, revision).await?;
    let edit = EditArgs {
        change: args.change.clone(),
        confirm_within: None,
    };
    let editor = session.editor(&edit)?;
    let changed = row.changes.iter().filter(|change| change.op != "confirm");
    match (row.state.as_str(), row.confirm_by_ms) {
        ("reverted", _) => Err(Failure::new(
            Exit::Finding,
            "too-late",
            format!("commit {}", row.id.short()),
            "it has undone itself already",
            format!("make it again: `meshctl rollback {}`", row.id.short()),
        )),
        ("tentative", _) => {
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
