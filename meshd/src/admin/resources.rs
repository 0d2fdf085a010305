//! Operators' resources: listing, history, validation, signed commits, convergence.

use std::{sync::Arc, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use hyper::StatusCode;
use mesh_gossip::HistoryFilter;
use mesh_model::{
    admin::{
        CommitAccepted, Conflict, Converged, HistoryRow, PlannedChange, Refusal, ResourceRow,
        SubmitCommit, Validate, Validated,
    },
    catalog::{Catalog, Resource},
    cause,
    commit::{Commit, CommitId, Op},
    document::{Document, ResourceKey, parse_documents},
    finding::{Finding, Severity},
    grant::Signed,
    time::rfc3339,
};
use prost::Message as _;

use super::{
    answer::{Outcome, Refused, refuse},
    request::Query,
    state::{host_name, is_alive, joined},
};
use crate::{
    clock,
    cluster::{Stale, SubmitError},
    daemon::Daemon,
};

const SUBMIT_DEADLINE: Duration = Duration::from_secs(10);

/// `GET /v1/resources`.
pub(super) fn list(daemon: &Daemon, query: &Query) -> Outcome<Vec<ResourceRow>> {
    let running = joined(daemon)?;
    let catalog = running.cluster.catalog();
    let wanted = |key: &ResourceKey| {
        let fits = |name: &str, value: &str| {
            query
                .get(name)
                .is_none_or(|wanted| wanted.is_empty() || wanted.eq_ignore_ascii_case(value))
        };
        fits("kind", &key.kind) && fits("namespace", &key.namespace) && fits("name", &key.name)
    };
    Ok(catalog
        .resources
        .iter()
        .filter(|(key, _)| wanted(key))
        .map(|(key, resource)| row(&catalog, key, resource))
        .collect())
}

fn row(catalog: &Catalog, key: &ResourceKey, resource: &Resource) -> ResourceRow {
    let mut document = resource.document.json.clone();
    if let Some(metadata) = document.get_mut("metadata").and_then(|m| m.as_object_mut()) {
        metadata.insert(
            "creationTimestamp".to_owned(),
            rfc3339(resource.created_ms).into(),
        );
        metadata.insert(
            "resourceVersion".to_owned(),
            resource.revision.to_string().into(),
        );
    }
    if let (Some(status), Some(object)) = (status(catalog, key, resource), document.as_object_mut())
    {
        object.insert("status".to_owned(), status);
    }
    ResourceRow {
        document,
        revision: resource.revision,
        author: resource.author.to_string(),
        changed_ms: resource.changed_ms,
        conflicts: resource
            .conflicts
            .iter()
            .map(|(revision, _)| *revision)
            .collect(),
        confirm_by_ms: resource.confirm_by_ms,
    }
}

/// The status that this host or, failing that, any other has stated for this revision.
fn status(catalog: &Catalog, key: &ResourceKey, resource: &Resource) -> Option<serde_json::Value> {
    let own = catalog.mesh.as_ref().map(|mesh| mesh.host);
    let record = format!("status/{}/{}/{}", key.kind, key.namespace, key.name);
    let mut hosts: Vec<_> = catalog.hosts.iter().collect();
    hosts.sort_by_key(|(id, _)| Some(**id) != own);
    hosts
        .into_iter()
        .filter_map(|(_, host)| host.statuses.get(&record))
        .find(|status| status.revision == resource.revision.0)
        .and_then(|status| serde_json::from_slice(&status.status).ok())
}

/// `GET /v1/history`.
pub(super) async fn history(daemon: &Daemon, query: &Query) -> Outcome<Vec<HistoryRow>> {
    let running = joined(daemon)?;
    let limit = query
        .get("limit")
        .and_then(|limit| limit.parse().ok())
        .unwrap_or(50)
        .clamp(1, 10_000);
    let wanted = |name: &str| query.get(name).filter(|wanted| !wanted.is_empty());
    let filter = HistoryFilter {
        kind: wanted("kind").cloned(),
        namespace: wanted("namespace").cloned(),
        name: wanted("name").cloned(),
        id_prefix: None,
        limit,
    };
    Ok(running.cluster.history(filter).await)
}

/// `GET /v1/commits/{id or prefix}`.
pub(super) async fn commit(daemon: &Daemon, id: &str) -> Outcome<HistoryRow> {
    let running = joined(daemon)?;
    let filter = HistoryFilter {
        id_prefix: Some(id.to_owned()),
        limit: 2,
        ..HistoryFilter::default()
    };
    let mut found = if id.len() >= 4 {
        running.cluster.history(filter).await
    } else {
        Vec::new()
    };
    match (found.pop(), found.is_empty()) {
        (Some(row), true) => Ok(row),
        (None, _) => Err(refuse(
            404,
            "unknown-revision",
            format!("no revision {id} is known here"),
            "see `meshctl history`",
        )),
        (Some(_), false) => Err(refuse(
            409,
            "ambiguous-revision",
            format!("several revisions begin with {id}"),
            "write more of its digits",
        )),
    }
}

/// `POST /v1/validate`.
pub(super) fn validate(daemon: &Daemon, request: &Validate) -> Validated {
    let documents = match parse_documents(&request.text, &request.origin) {
        Ok(documents) => documents,
        Err(faults) => {
            let findings = faults
                .iter()
                .map(|fault| {
                    Finding::new(
                        "bad-document",
                        Severity::Error,
                        format!("{}:{}: {}", fault.origin, fault.line, fault.subject),
                        fault.what.clone(),
                        fault.remedy.clone(),
                    )
                })
                .collect();
            return Validated {
                findings,
                plan: Vec::new(),
            };
        }
    };
    let Some(running) = daemon.running.load_full() else {
        return Validated {
            findings: Vec::new(),
            plan: Vec::new(),
        };
    };
    let catalog = running.cluster.catalog();
    let findings = check(daemon, &catalog, &documents, &[]);
    let plan = documents
        .iter()
        .map(|document| planned(&catalog, document))
        .collect();
    Validated { findings, plan }
}

fn planned(catalog: &Catalog, document: &Document) -> PlannedChange {
    let key = document.key();
    let current = catalog.resources.get(&key);
    let same = current.is_some_and(|resource| resource.document.json == document.json);
    PlannedChange {
        what: match (current, same) {
            (None, _) => "create",
            (Some(_), true) => "unchanged",
            (Some(_), false) => "change",
        }
        .to_owned(),
        kind: key.kind,
        namespace: key.namespace,
        name: key.name,
        revision: current.map(|resource| resource.revision),
        current: current.map(|resource| resource.document.json.clone()),
        new: document.json.clone(),
    }
}

/// Compiles the catalog with the documents in it, with the real planner.
fn check(
    daemon: &Daemon,
    catalog: &Arc<Catalog>,
    documents: &[Document],
    deleted: &[ResourceKey],
) -> Vec<Finding> {
    let live = Arc::clone(&daemon.ground.live.borrow());
    mesh_plan::validate(&mesh_plan::Proposal {
        catalog,
        boot: &daemon.ground.boot,
        live: &live,
        host_addresses: &daemon.ground.host.addresses,
        documents,
        deleted,
        now_ms: clock::now_ms(),
    })
}

/// `POST /v1/commits?dry_run=`.
pub(super) async fn submit(
    daemon: &Daemon,
    query: &Query,
    request: &SubmitCommit,
) -> Outcome<CommitAccepted> {
    let running = joined(daemon)?;
    let catalog = running.cluster.catalog();
    let signed = decode(&request.commit)?;
    let commit = Commit::decode(signed.payload.as_slice()).map_err(|error| {
        refuse(
            400,
            "bad-commit",
            format!("the commit cannot be read: {error}"),
            "use a meshctl of the daemon's version",
        )
    })?;
    let (documents, deleted) = proposed(&commit)?;
    let findings = check(daemon, &catalog, &documents, &deleted);
    if findings
        .iter()
        .any(|finding| finding.severity == Severity::Error)
    {
        return Err(Refused {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            body: serde_json::to_value(&findings).unwrap_or_default(),
        });
    }
    let dry = query
        .get("dry_run")
        .is_some_and(|value| value != "false" && value != "0");
    if dry {
        return dry_run(&catalog, &commit, &signed, findings);
    }
    let answer = tokio::time::timeout(SUBMIT_DEADLINE, running.cluster.submit(signed))
        .await
        .map_err(|_late| {
            refuse(
                504,
                "not-stored",
                "the commit was not stored in time",
                "send the same commit again: it is one edit",
            )
        })?;
    match answer {
        Ok(accepted) => Ok(CommitAccepted {
            findings,
            ..accepted
        }),
        Err(error) => Err(refused(&catalog, &error)),
    }
}

/// What a submit would answer, as far as the resources' revisions tell.
fn dry_run(
    catalog: &Catalog,
    commit: &Commit,
    signed: &Signed,
    findings: Vec<Finding>,
) -> Outcome<CommitAccepted> {
    let stale: Vec<Stale> = commit
        .changes
        .iter()
        .filter(|change| Op::try_from(change.op) != Ok(Op::Confirm))
        .filter_map(|change| {
            let key = ResourceKey {
                kind: change.kind.clone(),
                namespace: change.namespace.clone(),
                name: change.name.clone(),
            };
            let revisions: Vec<CommitId> = catalog
                .resources
                .get(&key)
                .map(|known| {
                    std::iter::once(known.revision)
                        .chain(known.conflicts.iter().map(|(id, _)| *id))
                        .collect()
                })
                .unwrap_or_default();
            let named: Vec<CommitId> = change
                .bases
                .iter()
                .filter_map(|base| CommitId::from_slice(base))
                .collect();
            let fits = match revisions.first() {
                None => named.is_empty(),
                Some(current) => named.contains(current),
            };
            (!fits).then_some(Stale {
                key,
                named,
                revisions,
            })
        })
        .collect();
    if !stale.is_empty() {
        return Err(refused(catalog, &SubmitError::Stale(stale)));
    }
    Ok(CommitAccepted {
        id: CommitId(*blake3::hash(&signed.payload).as_bytes()),
        commits: catalog.commit_count,
        fingerprint: super::state::hex(&catalog.commits),
        findings,
    })
}

fn decode(text: &str) -> Outcome<Signed> {
    let bad = |what: String| {
        refuse(
            400,
            "bad-commit",
            what,
            "use a meshctl of the daemon's version",
        )
    };
    let bytes = BASE64URL_NOPAD
        .decode(text.as_bytes())
        .map_err(|error| bad(format!("the commit is not base64url: {error}")))?;
    Signed::decode(bytes.as_slice())
        .map_err(|error| bad(format!("the envelope cannot be read: {error}")))
}

fn proposed(commit: &Commit) -> Outcome<(Vec<Document>, Vec<ResourceKey>)> {
    let mut documents = Vec::new();
    let mut deleted = Vec::new();
    for change in &commit.changes {
        match Op::try_from(change.op) {
            Ok(Op::Put) => {
                let text = String::from_utf8_lossy(&change.document);
                let origin = format!("{}/{}/{}", change.kind, change.namespace, change.name);
                let mut parsed = parse_documents(&text, &origin).map_err(|faults| {
                    let first = faults.first().map(ToString::to_string).unwrap_or_default();
                    refuse(422, "bad-document", first, "correct the document")
                })?;
                documents.append(&mut parsed);
            }
            Ok(Op::Delete) => deleted.push(ResourceKey {
                kind: change.kind.clone(),
                namespace: change.namespace.clone(),
                name: change.name.clone(),
            }),
            Ok(Op::Confirm) => {}
            Ok(Op::Unspecified) | Err(_) => {
                return Err(refuse(
                    400,
                    "bad-commit",
                    "a change says neither put, delete nor confirm",
                    "use a meshctl of the daemon's version",
                ));
            }
        }
    }
    Ok((documents, deleted))
}

fn refused(catalog: &Catalog, error: &SubmitError) -> Refused {
    let (what, code) = (cause::chain(error), error.code());
    let SubmitError::Stale(stale) = error else {
        let status = if code == "not-permitted" { 403 } else { 422 };
        return refuse(status, code, what, error.remedy());
    };
    let current = stale
        .iter()
        .filter_map(|stale| Some(row(catalog, &stale.key, catalog.resources.get(&stale.key)?)))
        .collect();
    let refusal = Refusal {
        code: code.to_owned(),
        what,
        remedy: error.remedy().to_owned(),
    };
    Refused {
        status: StatusCode::CONFLICT,
        body: serde_json::to_value(Conflict { refusal, current }).unwrap_or_default(),
    }
}

/// `GET /v1/converged?fingerprint=&commits=`: hosts whose proxies obey at least what this host knew then.
pub(super) fn converged(daemon: &Daemon, query: &Query) -> Outcome<Converged> {
    let running = joined(daemon)?;
    let catalog = running.cluster.catalog();
    let fingerprint = query.get("fingerprint").cloned().unwrap_or_default();
    let commits: u64 = query
        .get("commits")
        .and_then(|text| text.parse().ok())
        .unwrap_or_default();
    let mut hosts = 0;
    let mut have = 0;
    let mut lagging = Vec::new();
    for (id, host) in catalog.hosts.iter().filter(|(_, host)| is_alive(host)) {
        hosts += 1;
        let info = host.info.as_deref();
        let obeys = info.map(|info| info.applied.as_slice()).unwrap_or_default();
        let same = super::state::hex(obeys) == fingerprint;
        // Sets only grow: a host that obeys what we know now, and more commits than asked, obeys them too.
        let beyond =
            obeys == catalog.commits && info.is_some_and(|info| info.applied_count >= commits);
        if same || beyond {
            have += 1;
        } else {
            lagging.push(host_name(host, *id));
        }
    }
    Ok(Converged {
        hosts,
        have,
        lagging,
    })
}
