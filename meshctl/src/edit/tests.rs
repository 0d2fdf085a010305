//! Commits as they leave this room, and what the daemon may answer.

use data_encoding::BASE64URL_NOPAD;
use mesh_identity::key::Ed25519Key;
use mesh_model::{
    grant::{OperatorGrant, Signed, domain},
    name::MeshId,
};
use prost::Message as _;
use serde_json::json;

use super::*;
use crate::{args::ChangeArgs, client::script::Script, print::Format, sign};

const MESH: &str = "00112233445566778899aabbccddeeff";

fn home() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (key, _) = sign::key_or_new(directory.path()).unwrap();
    let mesh: MeshId = MESH.parse().unwrap();
    let grant = OperatorGrant {
        mesh_id: mesh.0.to_vec(),
        key: key.public().to_vec(),
        not_after_ms: u64::MAX,
        ..OperatorGrant::default()
    };
    let authority = Ed25519Key::generate().unwrap();
    let signed = authority.sign(domain::OPERATOR, grant.encode_to_vec());
    let text = BASE64URL_NOPAD.encode(&signed.encode_to_vec());
    sign::keep_grant(directory.path(), MESH, &text).unwrap();
    directory
}

fn status() -> (u16, String) {
    let mesh = json!({"id": MESH, "name": "m", "trust_domain": "m.internal", "domain": "mesh.internal",
        "host": "00", "host_name": "a", "authority": true, "strict": false, "hosts": [1, 1],
        "services": 0, "commits": 4, "fingerprint": "ff", "converged": 1});
    let status = json!({"version": "0", "phase": "running", "started_ms": 0, "mesh": mesh,
        "generation": 1, "capture": "mesh", "findings": [], "next": []});
    (200, status.to_string())
}

fn accepted() -> (u16, String) {
    let id = CommitId([1; 32]);
    let answer = json!({"id": id, "commits": 5, "fingerprint": "aa", "findings": []});
    (200, answer.to_string())
}

fn args() -> EditArgs {
    EditArgs {
        change: ChangeArgs::default(),
        confirm_within: Some(Duration::from_mins(5)),
    }
}

fn wish(bases: Vec<CommitId>) -> Wish {
    Wish {
        key: ResourceKey {
            kind: "Service".into(),
            namespace: "default".into(),
            name: "a".into(),
        },
        op: Op::Put,
        what: "change",
        bases,
        base_ms: 0,
        document: Some(json!({"kind": "Service", "metadata": {"name": "a"}})),
    }
}

async fn run(script: &Script, home: &tempfile::TempDir) -> Result<Exit, Failure> {
    let (client, args) = (script.client(), args());
    let editor = Editor {
        client: &client,
        printer: Printer::plain(Format::Json),
        home: home.path().to_owned(),
        args: &args,
    };
    editor.commit(&[wish(vec![CommitId([9; 32])])], &[]).await
}

fn sent(line: &str) -> Commit {
    let body = line
        .split_once(" {")
        .map(|(_, rest)| format!("{{{rest}"))
        .unwrap();
    let submit: SubmitCommit = serde_json::from_str(&body).unwrap();
    let signed = BASE64URL_NOPAD.decode(submit.commit.as_bytes()).unwrap();
    let signed = Signed::decode(signed.as_slice()).unwrap();
    assert!(mesh_identity::key::verify_signed(domain::COMMIT, &signed));
    Commit::decode(signed.payload.as_slice()).unwrap()
}

#[tokio::test]
async fn the_commit_names_its_base_and_its_deadline() {
    let home = home();
    let script = Script::start(vec![status(), accepted()]);
    assert_eq!(run(&script, &home).await.unwrap(), Exit::Done);
    let commit = sent(&script.seen()[1]);
    assert_eq!(commit.mesh_id, MESH.parse::<MeshId>().unwrap().0);
    assert_eq!(commit.changes.len(), 1);
    assert_eq!(commit.changes[0].bases, [vec![9; 32]]);
    assert_eq!(commit.changes[0].op, Op::Put as i32);
    let document: Value = serde_json::from_slice(&commit.changes[0].document).unwrap();
    assert_eq!(document["metadata"]["name"], "a");
    assert_eq!(commit.edit_id.len(), 16);
    let within = commit.confirm_by_ms - commit.time_ms();
    assert!((299_000..=300_000).contains(&within), "{within}");
}

#[tokio::test]
async fn a_stale_base_is_exit_four_with_a_diff() {
    let home = home();
    let row = json!({"document": {"kind": "Service", "metadata": {"name": "a", "namespace": "default"},
        "spec": {"x": 1}}, "revision": CommitId([8; 32]), "author": "bob", "changed_ms": 5,
        "conflicts": [], "confirm_by_ms": 0});
    let refusal = json!({"code": "stale-base", "what": "it has moved on", "remedy": "get it anew"});
    let conflict = json!({"refusal": refusal, "current": [row]}).to_string();
    let script = Script::start(vec![status(), (409, conflict)]);
    let failure = run(&script, &home).await.unwrap_err();
    assert_eq!(
        (failure.exit, failure.code.as_str()),
        (Exit::Conflict, "stale-base")
    );
    assert!(failure.details.contains("by bob"), "{}", failure.details);
    assert!(failure.details.contains("-spec:"), "{}", failure.details);
}

#[tokio::test]
async fn a_lost_answer_is_looked_up_by_id() {
    let home = home();
    let row = json!({"id": CommitId([1; 32]), "author": "ann", "reason": "", "time_ms": 1,
        "state": "effective", "confirm_by_ms": 0, "changes": []});
    let script = Script::start(vec![
        status(),
        (0, String::new()),
        (200, row.to_string()),
        status(),
    ]);
    assert_eq!(run(&script, &home).await.unwrap(), Exit::Done);
    let seen = script.seen();
    assert_eq!(
        seen.iter().filter(|line| line.starts_with("POST")).count(),
        1
    );
    let id = blake3::hash(&sent(&seen[1]).encode_to_vec()).to_hex();
    assert_eq!(seen[2], format!("GET /v1/commits/{id} "));
}

#[tokio::test]
async fn what_never_arrived_is_sent_again_as_the_same_edit() {
    let home = home();
    let unknown = json!({"code": "not-found", "what": "no", "remedy": ""}).to_string();
    let script = Script::start(vec![
        status(),
        (0, String::new()),
        (404, unknown),
        accepted(),
    ]);
    assert_eq!(run(&script, &home).await.unwrap(), Exit::Done);
    let seen = script.seen();
    assert_eq!(seen[1], seen[3]);
}

#[test]
fn the_clock_is_above_every_base() {
    assert_eq!(clock(5, 0), (5 << 16) + 1);
    assert!(clock(5, 9) > (9 << 16 | 0xffff));
    assert!(clock(9, 5) > 9 << 16);
    assert!(clock(7, 7) > (7 << 16 | 0xffff));
}
