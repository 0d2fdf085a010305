//! `rollback`: an earlier content as a new commit; history only grows.

use mesh_model::{
    admin::{HistoryRow, ResourceRow},
    catalog::ResourceKey,
};
use serde_json::Value;

use super::Session;
use crate::{
    args::RollbackArgs,
    edit::Wish,
    failure::{Exit, Failure},
    resource, story,
};

/// Rolls back.
pub(crate) async fn run(session: &Session, args: &RollbackArgs) -> Result<Exit, Failure> {
    let targets = match args.target.as_slice() {
        [revision] if story::is_revision(revision) => of_commit(session, revision).await?,
        words => {
            let key = resource::key(words, args.namespace.as_deref())?;
            vec![before_last(session, key).await?]
        }
    };
    let (mut wishes, mut unchanged) = (Vec::new(), Vec::new());
    for target in targets {
        let key = target.key.clone();
        match target.wish() {
            Some(wish) => wishes.push(wish),
            None => unchanged.push(key),
        }
    }
    session
        .editor(&args.edit)?
        .commit(&wishes, &unchanged)
        .await
}

/// A resource, what it is, and what it shall be.
struct Target {
    key: ResourceKey,
    current: Option<ResourceRow>,
    content: Option<Value>,
}

impl Target {
    fn wish(self) -> Option<Wish> {
        match (self.content, self.current) {
            (Some(content), Some(row)) if resource::same(&content, &row.document) => None,
            (Some(content), row) => Some(Wish::put(self.key, &content, row.as_ref())),
            (None, Some(row)) => Some(Wish::delete(self.key, &row)),
            (None, None) => None,
        }
    }
}

/// The content that a commit gave to each resource that it changed.
async fn of_commit(session: &Session, revision: &str) -> Result<Vec<Target>, Failure> {
    let row = story::commit(&session.client, revision).await?;
    let mut targets = Vec::new();
    for change in row.changes.iter().filter(|change| change.op != "confirm") {
        let key = story::change_key(change);
        let current = resource::find(&session.client, &key).await?;
        targets.push(Target {
            key,
            current,
            content: change.document.clone(),
        });
    }
    let in_force = |target: &Target| {
        target
            .current
            .as_ref()
            .is_some_and(|current| current.revision == row.id)
    };
    if targets.iter().all(in_force) {
        let what = if targets.is_empty() {
            "it changed no resource"
        } else {
            "it is in force now"
        };
        let name = targets
            .first()
            .map_or_else(|| "KIND/NAME".to_owned(), |t| t.key.to_string());
        return Err(Failure::usage(
            format!("commit {}", row.id.short()),
            what,
            format!("`meshctl rollback {name}` goes back to what was before it"),
        ));
    }
    Ok(targets)
}

/// The content that a resource had before its last change.
async fn before_last(session: &Session, key: ResourceKey) -> Result<Target, Failure> {
    let current = resource::find(&session.client, &key).await?;
    let last = if let Some(row) = &current {
        Some(story::commit(&session.client, &row.revision.to_string()).await?)
    } else {
        let history = story::of_resource(&session.client, &key, 20).await?;
        let deletes =
            |row: &HistoryRow| story::change(row, &key).is_some_and(|change| change.op == "delete");
        history.into_iter().find(deletes)
    };
    let change = last.as_ref().and_then(|row| story::change(row, &key));
    let Some(change) = change else {
        return Err(resource::missing(&key));
    };
    let content = story::before(&session.client, change).await?;
    Ok(Target {
        key,
        current,
        content,
    })
}

#[cfg(test)]
mod tests {
    use mesh_model::commit::CommitId;
    use serde_json::json;

    use super::*;

    fn target(current: Option<Value>, content: Option<Value>) -> Target {
        let current = current.map(|document| ResourceRow {
            document,
            revision: CommitId([1; 32]),
            author: String::new(),
            changed_ms: 3,
            conflicts: Vec::new(),
            confirm_by_ms: 0,
        });
        let key = ResourceKey {
            kind: "K".into(),
            namespace: "n".into(),
            name: "a".into(),
        };
        Target {
            key,
            current,
            content,
        }
    }

    #[test]
    fn what_a_rollback_commits() {
        let (a, b) = (json!({"spec": 1}), json!({"spec": 2}));
        let what = |target: Target| target.wish().map(|wish| (wish.what, wish.bases.len()));
        assert_eq!(
            what(target(Some(a.clone()), Some(b.clone()))),
            Some(("change", 1))
        );
        assert_eq!(what(target(Some(a.clone()), None)), Some(("delete", 1)));
        assert_eq!(what(target(None, Some(b))), Some(("create", 0)));
        assert_eq!(what(target(Some(a.clone()), Some(a))), None);
        assert_eq!(what(target(None, None)), None);
    }
}
