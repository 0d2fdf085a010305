//! `diff`: what applying a file would change, what a commit changed, or what lies between two.

use serde_json::Value;

use super::Session;
use crate::{
    args::DiffArgs,
    diff,
    documents::{Documents, planned},
    failure::{Exit, Failure},
    story,
};

/// Shows differences. Exit 1 when there are any.
pub(crate) async fn run(session: &Session, args: &DiffArgs) -> Result<Exit, Failure> {
    let text = match args.revisions.as_slice() {
        [] => of_files(session, args).await?,
        [one] => of_commit(session, one).await?,
        [one, other, ..] => between(session, one, other).await?,
    };
    crate::print::text(&text)?;
    Ok(if text.is_empty() {
        Exit::Done
    } else {
        Exit::Finding
    })
}

async fn of_files(session: &Session, args: &DiffArgs) -> Result<String, Failure> {
    let documents = Documents::read(&args.files)?;
    let validated = documents.plan(&session.client).await?;
    let mut out = String::new();
    for document in &documents.all {
        let key = document.key();
        let current = planned(&validated, &key).and_then(|planned| planned.current.as_ref());
        if current.is_some_and(|current| crate::resource::same(current, &document.json)) {
            continue;
        }
        let old = format!("{key} in force");
        let new = format!("{key} {}", documents.origin);
        out.push_str(&two(
            session,
            (&old, current),
            (&new, Some(&document.json)),
        )?);
    }
    Ok(out)
}

async fn of_commit(session: &Session, revision: &str) -> Result<String, Failure> {
    let row = story::commit(&session.client, revision).await?;
    let mut out = String::new();
    for change in row.changes.iter().filter(|change| change.op != "confirm") {
        let before = story::before(&session.client, change).await?;
        let key = story::change_key(change);
        let old = format!("{key} before {}", row.id.short());
        let new = format!("{key} {} by {}", row.id.short(), row.author);
        out.push_str(&two(
            session,
            (&old, before.as_ref()),
            (&new, change.document.as_ref()),
        )?);
    }
    Ok(out)
}

async fn between(session: &Session, one: &str, other: &str) -> Result<String, Failure> {
    let (old, new) = (
        story::commit(&session.client, one).await?,
        story::commit(&session.client, other).await?,
    );
    let mut out = String::new();
    let mut shared = false;
    for change in &new.changes {
        let key = story::change_key(change);
        let Some(earlier) = story::change(&old, &key) else {
            continue;
        };
        shared = true;
        let (left, right) = (
            format!("{key} {}", old.id.short()),
            format!("{key} {}", new.id.short()),
        );
        out.push_str(&two(
            session,
            (&left, earlier.document.as_ref()),
            (&right, change.document.as_ref()),
        )?);
    }
    if shared {
        return Ok(out);
    }
    Err(Failure::usage(
        format!("{one} {other}"),
        "the two commits have no resource in common",
        "give one revision to see what it changed",
    ))
}

fn two(
    session: &Session,
    old: (&str, Option<&Value>),
    new: (&str, Option<&Value>),
) -> Result<String, Failure> {
    diff::documents(session.printer, old, new)
}
