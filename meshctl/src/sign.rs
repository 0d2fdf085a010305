//! The operator's key and grant: made here, kept here (0600), never sent anywhere.
//!
//! In: a commit. Out: its signed form and its id. Never: shows or sends the private key.

use std::path::{Path, PathBuf};

use data_encoding::{BASE64URL, BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use mesh_identity::{
    file::{make_directory, read_secret, write_secret},
    key::{Ed25519Key, KeyError},
};
use mesh_model::{
    admin::Operator,
    commit::{Commit, CommitId},
    grant::{OperatorGrant, Signed, domain},
    name::MeshId,
    time::rfc3339,
};
use prost::Message as _;

use crate::{
    client::Client,
    failure::{Exit, Failure},
    print,
    time::now_ms,
};

const KEY_FILE: &str = "operator.key";

/// The operator's directory: `MESHCTL_HOME`, or `meshctl` in the user's configuration directory.
pub(crate) fn home(wanted: Option<&Path>) -> Result<PathBuf, Failure> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = wanted {
        return Ok(path.to_owned());
    }
    if let Some(configuration) = variable("XDG_CONFIG_HOME") {
        return Ok(PathBuf::from(configuration).join("meshctl"));
    }
    variable("HOME")
        .map(|home| PathBuf::from(home).join(".config/meshctl"))
        .ok_or_else(|| {
            Failure::usage(
                "HOME",
                "there is no home directory for the operator's key",
                "set MESHCTL_HOME",
            )
        })
}

/// The operator's key, if there is one.
pub(crate) fn key(home: &Path) -> Result<Option<Ed25519Key>, Failure> {
    match Ed25519Key::load(&home.join(KEY_FILE)) {
        Ok(key) => Ok(Some(key)),
        Err(KeyError::File(error)) if error.is_absent() => Ok(None),
        Err(error) => Err(unusable(home, &error)),
    }
}

/// The operator's key; made when there is none. True when it was made now.
pub(crate) fn key_or_new(home: &Path) -> Result<(Ed25519Key, bool), Failure> {
    if let Some(key) = key(home)? {
        return Ok((key, false));
    }
    let key = Ed25519Key::generate().map_err(|error| unusable(home, &error))?;
    make_directory(home).map_err(|error| unwritable(home, &error))?;
    key.store(&home.join(KEY_FILE))
        .map_err(|error| unusable(home, &error))?;
    Ok((key, true))
}

/// A public key as people see it.
pub(crate) fn hex(public: &[u8; 32]) -> String {
    HEXLOWER.encode(public)
}

/// Reads a public key.
pub(crate) fn public_key(text: &str) -> Result<[u8; 32], String> {
    HEXLOWER_PERMISSIVE
        .decode(text.trim().as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| {
            "a public key is 64 hexadecimal digits; see `meshctl operator key`".to_owned()
        })
}

/// Keeps a grant for a mesh beside the key.
pub(crate) fn keep_grant(home: &Path, mesh: &str, grant: &str) -> Result<(), Failure> {
    let name = format!(
        "{}.grant",
        mesh.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
    );
    make_directory(home).map_err(|error| unwritable(home, &error))?;
    write_secret(&home.join(name), grant.as_bytes()).map_err(|error| unwritable(home, &error))
}

/// Who signs: the key with its grant for one mesh.
#[derive(Debug)]
pub(crate) struct Author {
    key: Ed25519Key,
    mesh: MeshId,
    grant: Vec<u8>,
}

impl Author {
    /// The operator of this home for `mesh`: the grant is the kept one, or the mesh's for this key. A kept one that
    /// has ended makes room for the mesh's.
    pub(crate) async fn find(home: &Path, client: &Client, mesh: &str) -> Result<Self, Failure> {
        let Some(key) = key(home)? else {
            return Err(Failure::new(
                Exit::NotPermitted,
                "no-operator-key",
                home.join(KEY_FILE).display().to_string(),
                "there is no operator's key",
                "run `meshctl operator key`, and let an operator run the command that it prints",
            ));
        };
        let id = mesh.parse().map_err(|_not_hex| {
            Failure::new(
                Exit::Finding,
                "bad-answer",
                "mesh id",
                mesh,
                "use a meshctl of the daemon's version",
            )
        })?;
        let kept = read_secret(&home.join(format!("{mesh}.grant"))).ok();
        let kept = kept.and_then(|text| fitting(&key, id, std::str::from_utf8(&text).ok()?));
        let now = now_ms();
        let grant = match kept {
            Some(kept) if kept.ends_ms > now => kept,
            ended => {
                let newest = known(&key, id, client, now).await?;
                if ended.is_some() {
                    // Without it the mesh is asked each time; the commit is as good.
                    let text = BASE64URL_NOPAD.encode(&newest.bytes);
                    if let Err(failure) = keep_grant(home, mesh, &text) {
                        print::note(&format!("the renewed right is not kept: {failure}"));
                    }
                }
                newest
            }
        };
        Ok(Self {
            key,
            mesh: id,
            grant: grant.bytes,
        })
    }

    /// The mesh.
    pub(crate) fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// Signs a commit: the text to submit and its id.
    pub(crate) fn sign(&self, commit: &mut Commit) -> (String, CommitId) {
        commit.author_grant.clone_from(&self.grant);
        let payload = commit.encode_to_vec();
        let id = CommitId(*blake3::hash(&payload).as_bytes());
        let signed = self.key.sign(domain::COMMIT, payload);
        (BASE64URL_NOPAD.encode(&signed.encode_to_vec()), id)
    }

    #[cfg(test)]
    pub(crate) fn made_of(key: Ed25519Key, mesh: MeshId, grant: Vec<u8>) -> Self {
        Self { key, mesh, grant }
    }
}

/// A grant for this key and mesh.
struct Fitting {
    /// As it was signed.
    bytes: Vec<u8>,
    /// Its end, milliseconds since the epoch.
    ends_ms: u64,
}

/// The grant that the mesh knows for this key.
async fn known(
    key: &Ed25519Key,
    mesh: MeshId,
    client: &Client,
    now_ms: u64,
) -> Result<Fitting, Failure> {
    let public = hex(&key.public());
    let operators: Vec<Operator> = client.get("/v1/operators").await?;
    let refuse = |what: String| {
        Failure::new(
            Exit::NotPermitted,
            "no-operator-grant",
            "operator",
            what,
            format!("let an operator's host run `meshctl operator add NAME --key {public}`"),
        )
    };
    let mine: Vec<&Operator> = operators
        .iter()
        .filter(|operator| operator.key.eq_ignore_ascii_case(&public))
        .collect();
    if !mine.is_empty() && mine.iter().all(|operator| operator.revoked) {
        return Err(refuse("your key was revoked in this mesh".to_owned()));
    }
    let newest = mine
        .iter()
        .filter(|operator| !operator.revoked)
        .max_by_key(|operator| operator.not_after_ms)
        .and_then(|operator| fitting(key, mesh, &operator.grant))
        .ok_or_else(|| refuse("your key has no right to commit in this mesh".to_owned()))?;
    if newest.ends_ms <= now_ms {
        return Err(refuse(format!(
            "your right to commit in this mesh ended at {}",
            rfc3339(newest.ends_ms)
        )));
    }
    Ok(newest)
}

/// The grant, when it is for this key and mesh.
fn fitting(key: &Ed25519Key, mesh: MeshId, text: &str) -> Option<Fitting> {
    let text = text.trim().as_bytes();
    let bytes = BASE64URL_NOPAD
        .decode(text)
        .or_else(|_padded| BASE64URL.decode(text))
        .ok()?;
    let signed = Signed::decode(bytes.as_slice()).ok()?;
    let grant = OperatorGrant::decode(signed.payload.as_slice()).ok()?;
    let ends_ms = grant.not_after_ms;
    (grant.key == key.public() && grant.mesh_id == mesh.0).then_some(Fitting { bytes, ends_ms })
}

fn unusable(home: &Path, error: &KeyError) -> Failure {
    Failure::new(
        Exit::NotPermitted,
        "operator-key",
        home.join(KEY_FILE).display().to_string(),
        error.to_string(),
        "mend it, or name another directory with MESHCTL_HOME",
    )
}

fn unwritable(home: &Path, error: &dyn std::error::Error) -> Failure {
    let cause = error
        .source()
        .map(|source| format!(": {source}"))
        .unwrap_or_default();
    Failure::new(
        Exit::Finding,
        "operator-home",
        home.display().to_string(),
        format!("{error}{cause}"),
        "make it writable for you, or name another directory with MESHCTL_HOME",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use mesh_identity::key::verify_signed;
    use serde_json::json;

    use super::*;
    use crate::client::script::Script;

    const MESH: &str = "00112233445566778899aabbccddeeff";

    fn grant(key: &Ed25519Key, mesh: MeshId, not_after_ms: u64) -> String {
        let authority = Ed25519Key::generate().unwrap();
        let grant = OperatorGrant {
            mesh_id: mesh.0.to_vec(),
            name: "ann".into(),
            key: key.public().to_vec(),
            not_after_ms,
            ..OperatorGrant::default()
        };
        BASE64URL_NOPAD.encode(
            &authority
                .sign(domain::OPERATOR, grant.encode_to_vec())
                .encode_to_vec(),
        )
    }

    fn operators(key: &Ed25519Key, revoked: bool, end: u64) -> String {
        json!([{"name": "ann", "key": hex(&key.public()), "namespaces": ["*"], "not_after_ms": end,
            "revoked": revoked, "grant": grant(key, MESH.parse().unwrap(), end)}])
        .to_string()
    }

    #[test]
    fn the_key_is_made_once_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("a/meshctl");
        assert!(key(&home).unwrap().is_none());
        let (first, made) = key_or_new(&home).unwrap();
        assert!(made);
        let (second, made) = key_or_new(&home).unwrap();
        assert!(!made);
        assert_eq!(first.public(), second.public());
        let bits = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(bits(&home.join(KEY_FILE)), 0o600);
        assert_eq!(bits(&home), 0o700);
        std::fs::set_permissions(home.join(KEY_FILE), std::fs::Permissions::from_mode(0o644))
            .unwrap();
        assert_eq!(key_or_new(&home).unwrap_err().exit, Exit::NotPermitted);
    }

    #[tokio::test]
    async fn a_commit_is_signed_and_named_by_its_hash() {
        let key = Ed25519Key::generate().unwrap();
        let author = Author::made_of(key, MESH.parse().unwrap(), b"grant".to_vec());
        let mut commit = Commit {
            reason: "why".into(),
            ..Commit::default()
        };
        let (text, id) = author.sign(&mut commit);
        let signed =
            Signed::decode(BASE64URL_NOPAD.decode(text.as_bytes()).unwrap().as_slice()).unwrap();
        assert!(verify_signed(domain::COMMIT, &signed));
        assert_eq!(id.0, *blake3::hash(&signed.payload).as_bytes());
        let back = Commit::decode(signed.payload.as_slice()).unwrap();
        assert_eq!(
            (back.reason.as_str(), back.author_grant.as_slice()),
            ("why", b"grant".as_slice())
        );
    }

    #[tokio::test]
    async fn the_grant_comes_from_the_home_or_from_the_mesh() {
        let directory = tempfile::tempdir().unwrap();
        let (key, _) = key_or_new(directory.path()).unwrap();
        let script = Script::start(vec![(200, operators(&key, false, u64::MAX))]);
        let author = Author::find(directory.path(), &script.client(), MESH)
            .await
            .unwrap();
        assert_eq!(author.mesh(), MESH.parse().unwrap());
        let text = grant(&key, MESH.parse().unwrap(), u64::MAX);
        keep_grant(directory.path(), MESH, &text).unwrap();
        let nobody = Script::start(Vec::new());
        assert!(
            Author::find(directory.path(), &nobody.client(), MESH)
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn a_grant_that_has_ended_makes_room_for_the_newest() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path();
        let (key, _) = key_or_new(home).unwrap();
        keep_grant(home, MESH, &grant(&key, MESH.parse().unwrap(), 1)).unwrap();
        let stale = Script::start(vec![(200, operators(&key, false, 2))]);
        let failure = Author::find(home, &stale.client(), MESH).await.unwrap_err();
        assert_eq!(failure.code, "no-operator-grant");
        assert!(failure.what.contains("ended at 1970-"), "{failure}");
        let again = Script::start(vec![(200, operators(&key, false, u64::MAX))]);
        let author = Author::find(home, &again.client(), MESH).await.unwrap();
        // The next one needs nobody.
        let nobody = Script::start(Vec::new());
        let kept = Author::find(home, &nobody.client(), MESH).await.unwrap();
        assert_eq!(kept.grant, author.grant);
    }

    #[tokio::test]
    async fn no_key_no_grant_no_commit() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path();
        let nobody = Script::start(Vec::new());
        let find = |client| async move { Author::find(home, &client, MESH).await.unwrap_err() };
        assert_eq!(find(nobody.client()).await.code, "no-operator-key");
        let (key, _) = key_or_new(home).unwrap();
        let empty = Script::start(vec![(200, "[]".into())]);
        assert_eq!(find(empty.client()).await.code, "no-operator-grant");
        let revoked = Script::start(vec![(200, operators(&key, true, u64::MAX))]);
        let failure = find(revoked.client()).await;
        assert_eq!(failure.exit, Exit::NotPermitted);
        assert!(failure.what.contains("revoked"), "{failure}");
    }

    #[test]
    fn public_keys() {
        assert_eq!(public_key(&"AB".repeat(32)), Ok([0xab; 32]));
        assert!(public_key("abc").is_err());
    }
}
