//! Requests that change this host: make a mesh, join, leave, certify, enrol, step aside, back up.

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{Response, body::Frame};
use mesh_gossip::Grant;
use mesh_model::{
    admin::{
        AddOperator, Backup, CreateToken, Enrol, Init, InitAnswer, Join, JoinStep, Leave, Operator,
        Token,
    },
    cause,
    grant::{OperatorGrant, Signed},
    name::{HostId, ServiceName},
    principal::TrustDomain,
};
use prost::Message as _;
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    answer::{Answer, Outcome, Refused, from_outcome, refuse, unknown},
    request::parse,
    state::{hex, joined},
};
use crate::{
    admission, clock,
    daemon::{Daemon, Request},
    running,
};

/// Answers the requests that only the owner of this host may make.
pub(super) async fn write(daemon: &Arc<Daemon>, parts: &[&str], body: &Bytes) -> Answer {
    match parts {
        ["v1", "init"] => from_outcome(init(daemon, body).await),
        ["v1", "join"] => join(daemon, body).await,
        ["v1", "token"] => from_outcome(token(daemon, body)),
        ["v1", "leave"] => from_outcome(leave(daemon, body).await),
        // A path of its own: a daemon that does not know it does not leave.
        ["v1", "leave", "dry-run"] => from_outcome(may_leave(daemon, body).map(|()| json!({}))),
        ["v1", "operator"] => from_outcome(operator(daemon, body).await),
        ["v1", "bypass"] => from_outcome(bypass(daemon, true).await),
        ["v1", "unbypass"] => from_outcome(bypass(daemon, false).await),
        ["v1", "enrol"] => from_outcome(enrol(daemon, body)),
        ["v1", "backup"] => from_outcome(backup(daemon)),
        _ => unknown(&parts.join("/")),
    }
}

fn already_joined(daemon: &Daemon) -> Outcome<()> {
    if daemon.running.load().is_some() {
        return Err(refuse(
            409,
            "already-joined",
            "this host is in a mesh",
            "`meshctl leave` first",
        ));
    }
    Ok(())
}

/// Without the right to capture the host would be in the mesh, and its daemon could not start.
async fn may_capture(daemon: &Daemon) -> Outcome<()> {
    let lacking = mesh_intercept::observe::environment(&daemon.ground.boot).await;
    match lacking
        .iter()
        .find(|one| one.code == "intercept-capability")
    {
        Some(one) => Err(refuse(409, &one.code, one.what.as_str(), &one.remedy)),
        None => Ok(()),
    }
}

/// With a taken port the host would be in the mesh, and its daemon could not start; a token would be spent.
fn may_listen(daemon: &Daemon) -> Outcome<()> {
    running::try_listeners(&daemon.ground).map_err(|error| {
        refuse(
            409,
            "port-in-use",
            format!("{error:#}"),
            "end the program that has the port, or choose another in /etc/meshd/meshd.toml and restart meshd",
        )
    })
}

async fn init(daemon: &Arc<Daemon>, body: &Bytes) -> Outcome<InitAnswer> {
    already_joined(daemon)?;
    let request: Init = parse(body)?;
    check_init(&request)?;
    may_capture(daemon).await?;
    may_listen(daemon)?;
    let made = admission::init(daemon.ground.admission_site(), &request).map_err(|error| {
        refuse(
            409,
            "init-failed",
            cause::chain(&error),
            "nothing was changed; correct it and try again",
        )
    })?;
    if let Err(error) = daemon.ask(Request::Activate).await {
        return Err(undone(daemon, error));
    }
    let running = joined(daemon)?;
    running
        .cluster
        .add_grants(vec![Grant::Operator(made.operator_grant)])
        .await;
    Ok(made.answer)
}

/// A mesh that does not start was never made: nobody has its operator's grant, and nobody could leave it.
fn undone(daemon: &Daemon, error: String) -> Refused {
    let remedy = match admission::forget(&daemon.ground.boot.state_dir) {
        Ok(()) => {
            daemon.ground.disk.clear();
            "nothing was kept; correct it and try again"
        }
        Err(error) => {
            tracing::error!(
                error = cause::chain(&error),
                "the identity of a mesh that did not start is still there"
            );
            "remove `identity` in the state directory, correct it and try again"
        }
    };
    refuse(500, "start-failed", error, remedy)
}

fn check_init(request: &Init) -> Outcome<()> {
    let bad = |what: String, remedy: &str| refuse(400, "bad-init", what, remedy);
    TrustDomain::new(&request.trust_domain)
        .map_err(|error| bad(error.to_string(), "choose one with --trust-domain"))?;
    if request.trust_domain == "cluster.local" {
        return Err(bad(
            "the trust domain cluster.local belongs to Kubernetes clusters".to_owned(),
            "choose another one with --trust-domain",
        ));
    }
    if request
        .domain
        .split('.')
        .any(|label| ServiceName::new(label).is_err())
    {
        return Err(bad(
            format!("{:?} is not a DNS domain", request.domain),
            "choose one with --domain, such as mesh.internal",
        ));
    }
    if request.leaf_ttl_secs != 0 && request.leaf_ttl_secs < 60 {
        return Err(bad(
            "a leaf's lifetime must be at least 60 s".to_owned(),
            "choose one with --leaf-ttl",
        ));
    }
    Ok(())
}

async fn join(daemon: &Arc<Daemon>, body: &Bytes) -> Answer {
    let asked = already_joined(daemon).and_then(|()| parse::<Join>(body));
    let able = match may_capture(daemon).await {
        Ok(()) if asked.is_ok() => may_listen(daemon),
        other => other,
    };
    let request = match (asked, able) {
        (Ok(request), Ok(())) => request,
        (Err(refused), _) | (_, Err(refused)) => return from_outcome::<()>(Err(refused)),
    };
    let (steps, told) = mpsc::channel::<JoinStep>(32);
    let daemon_of_task = Arc::clone(daemon);
    daemon.ground.tasks.spawn(async move {
        joining(&daemon_of_task, &request, steps).await;
    });
    let lines = stream::unfold(told, |mut told| async move {
        let step = told.recv().await?;
        let mut line = serde_json::to_vec(&step).unwrap_or_default();
        line.push(b'\n');
        Some((Ok(Frame::data(Bytes::from(line))), told))
    });
    let mut answer = Response::new(StreamBody::new(lines).boxed());
    answer.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/jsonl"),
    );
    answer
}

async fn joining(daemon: &Arc<Daemon>, request: &Join, steps: mpsc::Sender<JoinStep>) {
    let tell = |step: JoinStep| {
        let steps = steps.clone();
        async move {
            drop(steps.send(step).await);
        }
    };
    match admission::join(daemon.ground.admission_site(), request, &steps).await {
        // What was stored belongs to the host whose identity was thrown away.
        Ok(joined) if joined.replaced => daemon.ground.disk.clear(),
        Ok(_) => {}
        Err(error) => {
            tell(JoinStep {
                what: cause::chain(&error),
                state: "error".to_owned(),
                remedy: error.remedy().to_owned(),
                done: false,
                error: error.code().to_owned(),
            })
            .await;
            return;
        }
    }
    daemon.ground.raise("identity-unusable", "identity", None);
    let last = match daemon.ask(Request::Activate).await {
        Ok(()) => JoinStep {
            what: "this host is in the mesh".to_owned(),
            state: "ok".to_owned(),
            done: true,
            ..JoinStep::default()
        },
        Err(error) => JoinStep {
            what: error,
            state: "error".to_owned(),
            remedy: "the identity is kept: correct it, then `systemctl restart meshd`".to_owned(),
            done: false,
            error: "start-failed".to_owned(),
        },
    };
    tell(last).await;
}

fn token(daemon: &Daemon, body: &Bytes) -> Outcome<Token> {
    let running = joined(daemon)?;
    let request: CreateToken = parse(body)?;
    running
        .tokens
        .create(&request)
        .map_err(|error| refuse(409, "token-failed", cause::chain(&error), error.remedy()))
}

async fn leave(daemon: &Daemon, body: &Bytes) -> Outcome<serde_json::Value> {
    may_leave(daemon, body)?;
    daemon
        .ask(Request::Leave)
        .await
        .map_err(|error| refuse(500, "leave-failed", error, "see the daemon's log"))?;
    Ok(json!({}))
}

/// Refuses where the mesh would lose what it cannot make anew, unless the caller means it.
fn may_leave(daemon: &Daemon, body: &Bytes) -> Outcome<()> {
    let running = joined(daemon)?;
    let request: Leave = parse(body)?;
    let catalog = running.cluster.catalog();
    let own = catalog.mesh.as_ref().map(|mesh| mesh.host);
    let others = catalog
        .authorities
        .iter()
        .filter_map(|grant| HostId::from_slice(&grant.host_id))
        .any(|id| {
            let host = catalog.hosts.get(&id);
            Some(id) != own && host.is_some_and(|host| host.is_living())
        });
    let identity = &running.identity;
    match lost(identity.is_root(), identity.is_authority() && !others) {
        Some(refused) if !request.force => Err(refused),
        _ => Ok(()),
    }
}

/// What the mesh would lose for good with a host that holds its root, or is its last authority.
fn lost(root: bool, last_authority: bool) -> Option<Refused> {
    if root {
        return Some(refuse(
            409,
            "last-root",
            "this host alone holds the mesh's root: without it no authority can be made or renewed",
            "`meshctl backup --file FILE` first and keep it safe, then say --force",
        ));
    }
    last_authority.then(|| {
        refuse(
            409,
            "last-authority",
            "this host is the last living authority: without it nobody can join or renew",
            "start another one, or let one join with `meshctl token create --authority` on the host where `meshctl init` ran; or say --force",
        )
    })
}

async fn operator(daemon: &Daemon, body: &Bytes) -> Outcome<Operator> {
    let running = joined(daemon)?;
    let request: AddOperator = parse(body)?;
    let signed = running
        .identity
        .certify_operator(&request, clock::now_ms())
        .map_err(|error| {
            refuse(
                409,
                "operator-failed",
                cause::chain(&error),
                "ask a host that is an authority: `meshctl members` shows which are",
            )
        })?;
    running
        .cluster
        .add_grants(vec![Grant::Operator(signed.clone())])
        .await;
    row(&signed, false).ok_or_else(|| {
        refuse(
            500,
            "operator-failed",
            "the grant that was just made cannot be read",
            "this is a bug",
        )
    })
}

fn row(signed: &Signed, revoked: bool) -> Option<Operator> {
    let grant = OperatorGrant::decode(signed.payload.as_slice()).ok()?;
    Some(Operator {
        name: grant.name,
        key: hex(&grant.key),
        namespaces: grant.namespaces,
        not_after_ms: grant.not_after_ms,
        revoked,
        grant: BASE64URL_NOPAD.encode(&signed.encode_to_vec()),
    })
}

/// `GET /v1/operators`.
pub(super) async fn operators(daemon: &Daemon) -> Outcome<Vec<Operator>> {
    let running = joined(daemon)?;
    let operators = running.cluster.operators().await;
    Ok(operators
        .iter()
        .filter_map(|(signed, _, revoked)| row(signed, *revoked))
        .collect())
}

async fn bypass(daemon: &Daemon, enter: bool) -> Outcome<serde_json::Value> {
    let state_dir = &daemon.ground.boot.state_dir;
    let done = if enter {
        mesh_intercept::bypass::enter(state_dir).await.map(drop)
    } else {
        mesh_intercept::bypass::leave(state_dir)
    };
    done.map_err(|error| refuse(500, "bypass-failed", cause::chain(&error), "run it as root"))?;
    daemon
        .ask(Request::Capture)
        .await
        .map_err(|error| refuse(500, "bypass-failed", error, "see the daemon's log"))?;
    Ok(json!({}))
}

fn enrol(daemon: &Daemon, body: &Bytes) -> Outcome<serde_json::Value> {
    let running = joined(daemon)?;
    let request: Enrol = parse(body)?;
    running.enrol(&request).map_err(|error| {
        refuse(
            409,
            "enrol-failed",
            error,
            "name a unit that is running or about to start",
        )
    })?;
    Ok(json!({}))
}

fn backup(daemon: &Daemon) -> Outcome<Backup> {
    let running = joined(daemon)?;
    running.identity.backup().map_err(|error| {
        refuse(
            409,
            "backup-failed",
            cause::chain(&error),
            "back up a host that is an authority",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_mesh_would_lose() {
        let code = |root, last| lost(root, last).map(|refused| refused.body["code"].clone());
        assert_eq!(code(true, false), Some("last-root".into()));
        assert_eq!(code(true, true), Some("last-root".into()));
        assert_eq!(code(false, true), Some("last-authority".into()));
        assert_eq!(code(false, false), None);
    }
}
