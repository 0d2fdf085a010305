//! Commits as history tells them: by id, by prefix, and what a resource was at each.

use mesh_model::{
    admin::{HistoryChange, HistoryRow},
    catalog::ResourceKey,
    commit::CommitId,
};
use serde_json::Value;

use crate::{
    client::{Client, with_query},
    failure::{Exit, Failure},
};

/// True when the word can only be a revision: at least six hexadecimal digits.
pub(crate) fn is_revision(word: &str) -> bool {
    word.len() >= 6 && word.len() <= 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The commit with this id or prefix.
pub(crate) async fn commit(client: &Client, revision: &str) -> Result<HistoryRow, Failure> {
    if !is_revision(revision) {
        return Err(Failure::usage(
            revision,
            "this is no revision: those are hexadecimal, at least six digits",
            "see `meshctl history`",
        ));
    }
    client
        .get(&format!("/v1/commits/{}", revision.to_ascii_lowercase()))
        .await
}

/// The newest commits of a resource.
pub(crate) async fn of_resource(
    client: &Client,
    key: &ResourceKey,
    limit: u32,
) -> Result<Vec<HistoryRow>, Failure> {
    let path = with_query(
        "/v1/history",
        &[
            ("kind", &key.kind),
            ("namespace", &key.namespace),
            ("name", &key.name),
            ("limit", &limit.to_string()),
        ],
    );
    client.get(&path).await
}

/// What a commit did to a resource.
pub(crate) fn change<'a>(row: &'a HistoryRow, key: &ResourceKey) -> Option<&'a HistoryChange> {
    row.changes
        .iter()
        .find(|change| change_key(change) == *key && change.op != "confirm")
}

/// The resource of a change.
pub(crate) fn change_key(change: &HistoryChange) -> ResourceKey {
    ResourceKey {
        kind: change.kind.clone(),
        namespace: change.namespace.clone(),
        name: change.name.clone(),
    }
}

/// The content that a commit gave to a resource; `None` when it deleted it.
pub(crate) async fn content(
    client: &Client,
    revision: CommitId,
    key: &ResourceKey,
) -> Result<Option<Value>, Failure> {
    let row = commit(client, &revision.to_string()).await?;
    match change(&row, key) {
        Some(change) => Ok(change.document.clone()),
        None => Err(Failure::new(
            Exit::Finding,
            "not-found",
            format!("commit {}", revision.short()),
            format!("it did not change {key}"),
            "see `meshctl history`",
        )),
    }
}

/// The content of a resource before a change: that of its first base; `None` when it was created.
pub(crate) async fn before(
    client: &Client,
    change: &HistoryChange,
) -> Result<Option<Value>, Failure> {
    match change.bases.first() {
        Some(&base) => content(client, base, &change_key(change)).await,
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_and_names_are_told_apart() {
        for revision in ["abcdef", "0123456789ab", &"f".repeat(64)] {
            assert!(is_revision(revision), "{revision}");
        }
        for other in [
            "abc",
            "words!",
            "HTTPRoute",
            "svc/abcdef",
            "",
            &"f".repeat(65),
        ] {
            assert!(!is_revision(other), "{other}");
        }
    }
}
