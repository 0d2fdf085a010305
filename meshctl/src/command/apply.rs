//! `apply`: makes resources be as files say, as one commit.

use mesh_model::{admin::ResourceRow, document::Document};

use super::Session;
use crate::{
    args::ApplyArgs,
    diff,
    documents::{Documents, planned},
    edit::Wish,
    failure::{Exit, Failure},
    resource, story,
};

/// Applies.
pub(crate) async fn run(session: &Session, args: &ApplyArgs) -> Result<Exit, Failure> {
    let documents = Documents::read(&args.files)?;
    let validated = documents.plan(&session.client).await?;
    if session.printer.is_table() && !validated.findings.is_empty() {
        crate::print::note(session.printer.findings(&validated.findings).trim_end());
    }
    let (mut wishes, mut unchanged) = (Vec::new(), Vec::new());
    for document in &documents.all {
        let key = document.key();
        let exists = planned(&validated, &key).is_none_or(|planned| planned.revision.is_some());
        let current = if exists {
            resource::find(&session.client, &key).await?
        } else {
            None
        };
        match wish(session, document, current.as_ref(), args.merge).await? {
            Some(wish) => wishes.push(wish),
            None => unchanged.push(key),
        }
    }
    session
        .editor(&args.edit)?
        .commit(&wishes, &unchanged)
        .await
}

/// What is to be done for one document; `None` when it is in force already.
pub(crate) async fn wish(
    session: &Session,
    document: &Document,
    current: Option<&ResourceRow>,
    merge: bool,
) -> Result<Option<Wish>, Failure> {
    let key = document.key();
    let base = resource::base(document)?;
    let conflicts = current.map(|row| row.conflicts.clone()).unwrap_or_default();
    if let Some(row) = current {
        let stale = base.is_some_and(|base| base != row.revision);
        if conflicts.is_empty() && !stale && resource::same(&row.document, &document.json) {
            return Ok(None);
        }
        if !conflicts.is_empty() && base.is_none() && !merge {
            return Err(in_conflict(session, row).await?);
        }
    }
    let mut wish = Wish::put(key, &document.json, current);
    if let Some(base) = base {
        wish.bases = vec![base];
    }
    if merge {
        wish.bases.extend(conflicts);
    }
    Ok(Some(wish))
}

/// Two operators changed the resource at once: a person must say which content it gets.
async fn in_conflict(session: &Session, row: &ResourceRow) -> Result<Failure, Failure> {
    let key = crate::edit::row_key(row);
    let mut details = String::new();
    for &other in &row.conflicts {
        let content = story::content(&session.client, other, &key).await?;
        details.push_str(&diff::documents(
            session.printer,
            (
                &format!("{key} in force: {} by {}", row.revision.short(), row.author),
                Some(&row.document),
            ),
            (
                &format!("{key} also committed: {}", other.short()),
                content.as_ref(),
            ),
        )?);
    }
    let failure = Failure::new(
        Exit::Conflict,
        "in-conflict",
        key.to_string(),
        "it was changed twice on one base, and nobody has merged that yet",
        "write the content that it should have, and apply it with --merge",
    );
    Ok(failure.with_details(details))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use mesh_model::{
        commit::CommitId,
        document::{Metadata, Spec, spec::DelegationTableSpec},
    };
    use serde_json::json;

    use super::*;
    use crate::{args::Arguments, client::script::Script};

    fn session(script: &Script) -> Session {
        let global = Arguments::parse_from(["meshctl"]).global;
        Session {
            client: script.client(),
            ..Session::new(global)
        }
    }

    fn document(version: Option<&str>, dtab: &str) -> Document {
        let json =
            json!({"kind": "DelegationTable", "metadata": {"name": "t"}, "spec": {"dtab": dtab}});
        Document {
            api_version: "meshd.io/v1alpha1".into(),
            kind: "DelegationTable".into(),
            metadata: Metadata {
                name: "t".into(),
                namespace: "default".into(),
                resource_version: version.map(str::to_owned),
                ..Metadata::default()
            },
            spec: Spec::DelegationTable(DelegationTableSpec { dtab: dtab.into() }),
            reports: Vec::new(),
            json,
        }
    }

    fn row(dtab: &str, conflicts: Vec<CommitId>) -> ResourceRow {
        ResourceRow {
            document: document(None, dtab).json,
            revision: CommitId([1; 32]),
            author: "ann".into(),
            changed_ms: 7,
            conflicts,
            confirm_by_ms: 0,
        }
    }

    #[tokio::test]
    async fn the_base_is_the_written_one_or_the_current_one() {
        let script = Script::start(Vec::new());
        let session = session(&script);
        let current = row("/a => /b", Vec::new());
        let put = |document: Document| {
            let (session, current) = (&session, &current);
            async move {
                wish(session, &document, Some(current), false)
                    .await
                    .unwrap()
            }
        };
        assert!(put(document(None, "/a => /b")).await.is_none(), "unchanged");
        let changed = put(document(None, "/a => /c")).await.unwrap();
        assert_eq!(
            (changed.bases, changed.base_ms),
            (vec![CommitId([1; 32])], 7)
        );
        let written = CommitId([5; 32]);
        let stale = put(document(Some(&written.to_string()), "/a => /b"))
            .await
            .unwrap();
        assert_eq!(
            stale.bases,
            [written],
            "a stale base is sent as written, and refused there"
        );
        let created = wish(&session, &document(None, "x"), None, false)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((created.bases.len(), created.what), (0, "create"));
        assert!(
            wish(&session, &document(Some("zz"), "x"), None, false)
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn a_conflict_needs_a_merge() {
        let other = CommitId([2; 32]);
        let history = json!({"id": other, "author": "bob", "reason": "", "time_ms": 1, "state": "conflict",
            "confirm_by_ms": 0, "changes": [{"kind": "DelegationTable", "namespace": "default",
            "name": "t", "op": "put", "bases": [], "document": document(None, "/a => /z").json}]});
        let script = Script::start(vec![(200, history.to_string())]);
        let session = session(&script);
        let current = row("/a => /b", vec![other]);
        let wanted = document(None, "/a => /c");
        let failure = wish(&session, &wanted, Some(&current), false)
            .await
            .unwrap_err();
        assert_eq!(
            (failure.exit, failure.code.as_str()),
            (Exit::Conflict, "in-conflict")
        );
        assert!(failure.details.contains("/a => /z"), "{}", failure.details);
        let merged = wish(&session, &wanted, Some(&current), true)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(merged.bases, [current.revision, other]);
    }
}
