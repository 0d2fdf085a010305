//! From wished changes to a stored commit: bases, clock, signature, submission, waiting.
//!
//! The daemon compares the named bases with what is in force and refuses a stale one (409); an answer
//! that got lost is looked up by the commit's id, so that no edit is made twice or forgotten.

use std::{path::PathBuf, time::Duration};

use hyper::{Method, StatusCode};
use mesh_identity::key::random;
use mesh_model::{
    admin::{CommitAccepted, Conflict, HistoryRow, ResourceRow, Status, SubmitCommit},
    catalog::ResourceKey,
    commit::{Change, Commit, CommitId, Op},
    time::rfc3339,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    args::EditArgs,
    client::{CallError, Client, Reply, json, refused, understand},
    diff,
    failure::{Exit, Failure},
    print::{Paint, Printer, Put as _},
    resource::bare,
    sign::Author,
    time, wait,
};

/// A wished change of one resource.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// Which resource.
    pub(crate) key: ResourceKey,
    /// Put, delete or confirm.
    pub(crate) op: Op,
    /// What it does, for people: `create`, `change`, `delete`, `confirm`.
    pub(crate) what: &'static str,
    /// Revisions that it is based on.
    pub(crate) bases: Vec<CommitId>,
    /// Time of the newest base in milliseconds since the epoch; 0 without one.
    pub(crate) base_ms: u64,
    /// The document, for a put.
    pub(crate) document: Option<Value>,
}

impl Wish {
    /// A put of `document` over what is in force now.
    pub(crate) fn put(key: ResourceKey, document: &Value, current: Option<&ResourceRow>) -> Self {
        Self {
            key,
            op: Op::Put,
            what: if current.is_some() {
                "change"
            } else {
                "create"
            },
            bases: current.map(|row| row.revision).into_iter().collect(),
            base_ms: current.map_or(0, |row| row.changed_ms),
            document: Some(bare(document)),
        }
    }

    /// A deletion of what is in force now.
    pub(crate) fn delete(key: ResourceKey, current: &ResourceRow) -> Self {
        Self {
            key,
            op: Op::Delete,
            what: "delete",
            bases: vec![current.revision],
            base_ms: current.changed_ms,
            document: None,
        }
    }

    fn change(&self) -> Result<Change, Failure> {
        let document = match &self.document {
            Some(document) => json(document)?.to_vec(),
            None => Vec::new(),
        };
        Ok(Change {
            kind: self.key.kind.clone(),
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            bases: self.bases.iter().map(|id| id.0.to_vec()).collect(),
            op: self.op as i32,
            document,
        })
    }
}

/// What a command says of the change that it made.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    /// Id of the commit, absent when nothing was to be done.
    pub(crate) id: Option<CommitId>,
    /// True when nothing was stored because of `--dry-run`.
    pub(crate) dry_run: bool,
    /// Each resource, with what happened to it.
    pub(crate) changes: Vec<DoneChange>,
    /// Warnings.
    pub(crate) findings: Vec<mesh_model::finding::Finding>,
    /// When it undoes itself unless confirmed; 0: never.
    pub(crate) confirm_by_ms: u64,
    /// How far it has spread, when that was waited for.
    pub(crate) converged: Option<mesh_model::admin::Converged>,
}

/// What happened to one resource.
#[derive(Debug, Serialize)]
pub(crate) struct DoneChange {
    /// Kind.
    pub(crate) kind: String,
    /// Namespace.
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
    /// `create`, `change`, `delete`, `confirm`, `unchanged`.
    pub(crate) what: String,
}

impl DoneChange {
    /// A line of the result.
    pub(crate) fn new(key: &ResourceKey, what: &str) -> Self {
        Self {
            kind: key.kind.clone(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            what: what.to_owned(),
        }
    }
}

/// Makes commits.
#[derive(Debug)]
pub(crate) struct Editor<'a> {
    /// The daemon.
    pub(crate) client: &'a Client,
    /// Where results go.
    pub(crate) printer: Printer,
    /// The operator's directory.
    pub(crate) home: PathBuf,
    /// Reason, dry run, waiting, confirmation.
    pub(crate) args: &'a EditArgs,
}

impl Editor<'_> {
    /// Commits `wishes` and shows what was done; `unchanged` resources are only shown.
    pub(crate) async fn commit(
        &self,
        wishes: &[Wish],
        unchanged: &[ResourceKey],
    ) -> Result<Exit, Failure> {
        let mut done = Done {
            id: None,
            dry_run: self.args.change.dry_run,
            changes: wishes
                .iter()
                .map(|wish| DoneChange::new(&wish.key, wish.what))
                .chain(
                    unchanged
                        .iter()
                        .map(|key| DoneChange::new(key, "unchanged")),
                )
                .collect(),
            findings: Vec::new(),
            confirm_by_ms: 0,
            converged: None,
        };
        if wishes.is_empty() {
            self.show(&done)?;
            return Ok(Exit::Done);
        }
        let found = Author::find(&self.home, self.client, &mesh_of(self.client).await?).await;
        let author = match found {
            Err(failure) if done.dry_run && failure.exit == Exit::NotPermitted => {
                // Who may only read may still ask what would happen.
                crate::print::note(&format!("you may not commit it: {failure}"));
                self.show(&done)?;
                return Ok(Exit::Done);
            }
            found => found?,
        };
        let mut commit = self.build(&author, wishes, time::now_ms())?;
        let (text, id) = author.sign(&mut commit);
        let accepted = self.submit(&text, id, wishes).await?;
        done.confirm_by_ms = commit.confirm_by_ms;
        done.findings.clone_from(&accepted.findings);
        if self.args.change.dry_run {
            self.show(&done)?;
            return Ok(Exit::Done);
        }
        done.id = Some(id);
        let waited = match self.args.change.wait {
            Some(share) => {
                wait::converged(self.client, &accepted, share, self.args.change.wait_timeout)
                    .await
                    .map(Some)
            }
            None => Ok(None),
        };
        let late = match waited {
            Ok(converged) => {
                done.converged = converged;
                None
            }
            Err(failure) => Some(failure),
        };
        self.show(&done)?;
        late.map_or(Ok(Exit::Done), Err)
    }

    fn build(&self, author: &Author, wishes: &[Wish], now_ms: u64) -> Result<Commit, Failure> {
        let newest_base = wishes
            .iter()
            .map(|wish| wish.base_ms)
            .max()
            .unwrap_or_default();
        let edit_id: [u8; 16] = random().map_err(|error| {
            Failure::new(
                Exit::Finding,
                "no-randomness",
                "meshctl",
                error.to_string(),
                "try again",
            )
        })?;
        Ok(Commit {
            mesh_id: author.mesh().0.to_vec(),
            changes: wishes.iter().map(Wish::change).collect::<Result<_, _>>()?,
            author_grant: Vec::new(),
            reason: reason(&self.args.change.reason)?,
            hlc: clock(now_ms, newest_base),
            edit_id: edit_id.to_vec(),
            feature_level: 1,
            confirm_by_ms: self.args.confirm_within.map_or(0, |within| {
                now_ms.saturating_add(u64::try_from(within.as_millis()).unwrap_or(u64::MAX))
            }),
        })
    }

    async fn submit(
        &self,
        text: &str,
        id: CommitId,
        wishes: &[Wish],
    ) -> Result<CommitAccepted, Failure> {
        let body = json(&SubmitCommit {
            commit: text.to_owned(),
        })?;
        let dry_run = self.args.change.dry_run;
        let path = if dry_run {
            "/v1/commits?dry_run=true"
        } else {
            "/v1/commits"
        };
        for attempt in 0..3_u32 {
            match self
                .client
                .exchange(Method::POST, path, body.clone(), "")
                .await
            {
                Ok(reply) => return self.answer(path, &reply, wishes),
                Err(CallError::Unanswered(why)) if !dry_run && attempt < 2 => {
                    crate::print::note(&format!("no answer ({why}); looking the commit up"));
                    if let Some(accepted) = self.look_up(id).await? {
                        return Ok(accepted);
                    }
                }
                Err(error @ CallError::Unanswered(_)) if !dry_run => {
                    let failure = Failure::from(error);
                    return Err(failure.with_details(format!(
                        "whether the commit was stored is not known: `meshctl history {}` tells",
                        id.short()
                    )));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(CallError::Unanswered("three times".to_owned()).into())
    }

    /// Whether the daemon has the commit; it answers again after a crash, so the connection is tried for a while.
    async fn look_up(&self, id: CommitId) -> Result<Option<CommitAccepted>, Failure> {
        let path = format!("/v1/commits/{id}");
        let mut last = None;
        for _ in 0..20_u32 {
            match self
                .client
                .exchange(Method::GET, &path, bytes::Bytes::new(), "")
                .await
            {
                Ok(reply) if reply.status == StatusCode::NOT_FOUND => return Ok(None),
                Ok(reply) => {
                    let _known: HistoryRow = understand(&path, &reply)?;
                    let status: Status = self.client.get("/v1/status").await?;
                    let mesh = status.mesh.ok_or_else(not_joined)?;
                    return Ok(Some(CommitAccepted {
                        id,
                        commits: mesh.commits,
                        fingerprint: mesh.fingerprint,
                        findings: Vec::new(),
                    }));
                }
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Err(last
            .map_or_else(not_joined, Failure::from)
            .with_details(format!(
                "whether the commit was stored is not known: `meshctl history {}` tells",
                id.short()
            )))
    }

    fn answer(
        &self,
        path: &str,
        reply: &Reply,
        wishes: &[Wish],
    ) -> Result<CommitAccepted, Failure> {
        if reply.status == StatusCode::CONFLICT
            && let Ok(conflict) = serde_json::from_slice::<Conflict>(&reply.body)
        {
            return Err(self.conflict(conflict, wishes)?);
        }
        if reply.status.is_success() {
            understand(path, reply)
        } else {
            Err(refused(path, reply))
        }
    }

    /// The refusal of a stale edit, with what is in force against what was wished.
    fn conflict(&self, conflict: Conflict, wishes: &[Wish]) -> Result<Failure, Failure> {
        let mut details = String::new();
        for row in &conflict.current {
            let key = row_key(row);
            let mine = wishes.iter().find(|wish| wish.key == key);
            let theirs = format!("{key} in force: {} by {}", row.revision.short(), row.author);
            let mine = mine.and_then(|wish| wish.document.as_ref());
            details.push_str(&diff::documents(
                self.printer,
                (&theirs, Some(&row.document)),
                (&format!("{key} yours"), mine),
            )?);
        }
        let refused = Failure::refused(409, "meshd", conflict.refusal);
        Ok(Failure {
            exit: Exit::Conflict,
            ..refused
        }
        .with_details(details))
    }

    fn show(&self, done: &Done) -> Result<(), Failure> {
        self.printer.show(done, |printer| {
            let mut text = String::new();
            for change in &done.changes {
                let key = ResourceKey {
                    kind: change.kind.clone(),
                    namespace: change.namespace.clone(),
                    name: change.name.clone(),
                };
                writeln!(text, "{key}  {}", change.what);
            }
            text.push_str(&printer.findings(&done.findings));
            text.push_str(&summary(printer, done));
            text
        })
    }
}

fn summary(printer: Printer, done: &Done) -> String {
    if done.dry_run {
        return printer.paint(Paint::Faint, "dry run: nothing was changed") + "\n";
    }
    let Some(id) = done.id else {
        return "nothing to do\n".to_owned();
    };
    let mut text = format!("commit {}", printer.paint(Paint::Strong, &id.short()));
    if let Some(converged) = &done.converged {
        write!(text, ", on {} of {} hosts", converged.have, converged.hosts);
    }
    text.push('\n');
    if done.confirm_by_ms > 0 {
        writeln!(
            text,
            "it undoes itself at {} unless you run: meshctl confirm {}",
            rfc3339(done.confirm_by_ms),
            id.short()
        );
    }
    text
}

/// The author's clock: above every base's, and not before now.
pub(crate) fn clock(now_ms: u64, newest_base_ms: u64) -> u64 {
    // A base's counter is not shown, so its whole millisecond is taken as used.
    let base = (newest_base_ms << 16) | 0xffff;
    let base = if newest_base_ms == 0 { 0 } else { base };
    (now_ms << 16).max(base).saturating_add(1)
}

/// The id of the mesh, or the failure that says that there is none.
pub(crate) async fn mesh_of(client: &Client) -> Result<String, Failure> {
    let status: Status = client.get("/v1/status").await?;
    status.mesh.map(|mesh| mesh.id).ok_or_else(not_joined)
}

/// The key of a shown resource.
pub(crate) fn row_key(row: &ResourceRow) -> ResourceKey {
    let text = |pointer| {
        row.document
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let kind = text("/kind");
    let scoped = crate::resource::kind(&kind).1;
    let namespace = match text("/metadata/namespace") {
        empty if empty.is_empty() && scoped => "default".to_owned(),
        written => written,
    };
    ResourceKey {
        kind,
        namespace,
        name: text("/metadata/name"),
    }
}

fn not_joined() -> Failure {
    Failure::new(
        Exit::Finding,
        "not-joined",
        "meshd",
        "this host is in no mesh",
        "`meshctl init` makes one, `meshctl join --token-file FILE` joins one",
    )
}

fn reason(text: &str) -> Result<String, Failure> {
    if text.len() > 1024 {
        return Err(Failure::usage(
            "--reason",
            "longer than 1 KiB",
            "write a shorter one",
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
