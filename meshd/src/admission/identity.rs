//! What a host is, as it stands in `<state_dir>/identity`: keys, grants, mesh; and an authority if it is one.
//!
//! | file | what |
//! |---|---|
//! | `genesis` | the signed genesis |
//! | `host.key`, `box.key` | Ed25519 and X25519 keys of the host (PKCS#8 PEM) |
//! | `host.grant` | the host's signed grant |
//! | `grants` | every grant known when it joined: what a daemon without stored state starts from |
//! | `seeds` | where members were found, one `host:port` a line |
//! | `machine` | hash of the machine's id |
//! | `authority.key`, `authority-x509.key`, `authority.grant` | of an authority |
//! | `root.key`, `root-x509.key` | of the host that made the mesh |
//! | `tokens` | join tokens given out, with their uses |
//! | `<namespace>.<account>.pem` | certificates with their keys, renewed all the time |

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use data_encoding::HEXLOWER_PERMISSIVE;
use mesh_gossip::Grant;
use mesh_identity::{
    Credential,
    archive::{self, ArchiveError},
    authority::{Authority, AuthorityError, AuthorityKeys, Root},
    credentials::CredentialError,
    file::{self, FileError},
    grants::{GrantError, Mesh},
    key::{Ed25519Key, KeyError, P256Key, X25519Key, host_id},
};
use mesh_model::{
    admin::{AddOperator, Backup},
    grant::{HostGrant, Signed},
    name::HostId,
    principal::SpiffeId,
};
use prost::Message as _;
use zeroize::Zeroizing;

use super::machine::{self, Machine};

pub(super) const GENESIS: &str = "genesis";
pub(super) const HOST_KEY: &str = "host.key";
pub(super) const BOX_KEY: &str = "box.key";
pub(super) const HOST_GRANT: &str = "host.grant";
pub(super) const GRANTS: &str = "grants";
pub(super) const SEEDS: &str = "seeds";
pub(super) const AUTHORITY_KEY: &str = "authority.key";
pub(super) const AUTHORITY_X509: &str = "authority-x509.key";
pub(super) const AUTHORITY_GRANT: &str = "authority.grant";
pub(super) const ROOT_KEY: &str = "root.key";
pub(super) const ROOT_X509: &str = "root-x509.key";
pub(super) const TOKENS: &str = "tokens";

/// What a backup of an authority holds: everything but certificates, which are made anew, and the machine.
pub(super) const BACKED_UP: [&str; 12] = [
    GENESIS,
    HOST_KEY,
    BOX_KEY,
    HOST_GRANT,
    GRANTS,
    SEEDS,
    AUTHORITY_KEY,
    AUTHORITY_X509,
    AUTHORITY_GRANT,
    ROOT_KEY,
    ROOT_X509,
    TOKENS,
];

/// Most grants that are read from the file.
const MAX_GRANTS: usize = 100_000;
/// An operator's right lasts a year unless said otherwise.
pub(super) const OPERATOR_TTL: Duration = Duration::from_hours(365 * 24);

/// Why a state directory holds no usable identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum IdentityError {
    /// It was copied from another machine.
    #[error(
        "{} was copied from another machine: two hosts must not share an identity; join anew with meshctl join --fresh --token-file FILE",
        .0.display()
    )]
    Copied(PathBuf),
    /// A file is missing or unreadable.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key cannot be read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file does not decode.
    #[error("{0} is damaged")]
    Damaged(&'static str),
    /// A grant is wrong.
    #[error("the identity's grants are wrong")]
    Grant(#[from] GrantError),
    /// The authority's parts do not fit.
    #[error("the identity's authority is wrong")]
    Authority(#[from] AuthorityError),
    /// The grant is for another key.
    #[error("the identity's keys and its grant do not belong together")]
    Mismatch,
}

/// Why the owner's request cannot be carried out here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AuthorityFailure {
    /// Not an authority.
    #[error("this host is no authority")]
    NotHere,
    /// The key is none.
    #[error("{0:?} is no Ed25519 public key: 64 hexadecimal digits")]
    OperatorKey(String),
    /// The name is none.
    #[error("an operator needs a name of 1 to 63 characters")]
    OperatorName,
    /// It could not be signed.
    #[error("cannot sign")]
    Sign(#[from] AuthorityError),
    /// Files could not be read.
    #[error("cannot read the identity's files")]
    Archive(#[from] ArchiveError),
}

/// What a host is.
#[derive(Debug)]
pub(crate) struct Identity {
    directory: PathBuf,
    mesh: Mesh,
    key: Ed25519Key,
    signed_grant: Signed,
    grant: HostGrant,
    grants: Vec<Grant>,
    seeds: Vec<String>,
    authority: ArcSwapOption<Authority>,
    root: Option<Root>,
}

/// The directory inside a state directory.
pub(super) fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("identity")
}

impl Identity {
    /// Reads what `init` or `join` wrote; refuses a directory that was copied from another machine.
    pub(crate) fn load(state_dir: &Path) -> Result<Self, IdentityError> {
        Self::open(&directory(state_dir), &Machine::current())
    }

    pub(super) fn open(directory: &Path, machine: &Machine) -> Result<Self, IdentityError> {
        let read = |name: &str| file::read_secret(&directory.join(name));
        if !machine.fits(&read(machine::FILE)?) {
            return Err(IdentityError::Copied(directory.to_owned()));
        }
        let mesh = Mesh::open(&signed(&read(GENESIS)?, GENESIS)?)?;
        let key = Ed25519Key::load(&directory.join(HOST_KEY))?;
        let grants = decode_grants(&read(GRANTS)?)?;
        let authorities = authorities(&mesh, &grants);
        let signed_grant = signed(&read(HOST_GRANT)?, HOST_GRANT)?;
        let grant = mesh.host(&signed_grant, &authorities)?;
        let box_key = X25519Key::load(&directory.join(BOX_KEY))?;
        if grant.ed25519 != key.public() || grant.x25519 != box_key.public() {
            return Err(IdentityError::Mismatch);
        }
        let host = host_id(&key.public());
        let seeds = String::from_utf8_lossy(&read(SEEDS)?)
            .lines()
            .map(str::to_owned)
            .collect();
        let authority = authority(directory, &mesh, host)?.map(Arc::new);
        let root = root(directory, &mesh)?;
        Ok(Self {
            directory: directory.to_owned(),
            mesh,
            key,
            signed_grant,
            grant,
            grants,
            seeds,
            authority: ArcSwapOption::new(authority),
            root,
        })
    }

    /// The mesh: id, trust domain, genesis.
    pub(crate) fn mesh(&self) -> &Mesh {
        &self.mesh
    }
    /// This host.
    pub(crate) fn host(&self) -> HostId {
        host_id(&self.key.public())
    }
    /// This host's SPIFFE id.
    pub(crate) fn spiffe_id(&self) -> SpiffeId {
        SpiffeId::host(self.mesh.trust_domain.clone(), self.host())
    }
    /// The signing key: heads of this host.
    pub(crate) fn key(&self) -> &Ed25519Key {
        &self.key
    }
    /// The datagram key, read anew: the box takes it over.
    pub(crate) fn box_key(&self) -> Result<X25519Key, KeyError> {
        X25519Key::load(&self.directory.join(BOX_KEY))
    }
    /// This host's rights, as they were when it was admitted.
    pub(crate) fn grant(&self) -> &HostGrant {
        &self.grant
    }
    /// Genesis and every grant known when the host came in: what gossip starts from.
    pub(crate) fn grants(&self) -> Vec<Grant> {
        let mut all = vec![Grant::Genesis(self.mesh.signed.clone())];
        all.extend(self.grants.iter().cloned());
        if let Some(authority) = self.authority() {
            all.push(Grant::Authority(authority.signed().clone()));
        }
        all.push(Grant::Host(self.signed_grant.clone()));
        all
    }
    /// Where members were found when the host came in: `host:port`.
    pub(crate) fn seeds(&self) -> &[String] {
        &self.seeds
    }
    /// The directory of keys and certificates.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
    /// True when it holds an authority.
    pub(crate) fn is_authority(&self) -> bool {
        self.authority.load().is_some()
    }
    /// True when it holds the root, and so can make authorities.
    pub(crate) fn is_root(&self) -> bool {
        self.root.is_some()
    }
    /// The authority, if it holds one.
    pub(crate) fn authority(&self) -> Option<Arc<Authority>> {
        self.authority.load_full()
    }
    /// The root, if it holds it.
    pub(crate) fn root(&self) -> Option<&Root> {
        self.root.as_ref()
    }

    /// Takes a renewed right of the own authority: stored first, then used.
    pub(crate) fn renew_authority(&self, renewed: Signed) -> Result<(), IdentityError> {
        let path = self.directory.join(AUTHORITY_GRANT);
        let keys = authority_keys(&self.directory)?;
        let bytes = renewed.encode_to_vec();
        let authority = Authority::new(keys, self.mesh.clone(), renewed)?;
        if authority.host() != self.host() {
            return Err(IdentityError::Mismatch);
        }
        file::write_secret(&path, &bytes)?;
        self.authority.store(Some(Arc::new(authority)));
        Ok(())
    }

    /// Certifies an operator's key; a year and every namespace unless said otherwise.
    pub(crate) fn certify_operator(
        &self,
        request: &AddOperator,
        now_ms: u64,
    ) -> Result<Signed, AuthorityFailure> {
        let authority = self.authority().ok_or(AuthorityFailure::NotHere)?;
        let ttl = match request.ttl_secs {
            0 => OPERATOR_TTL,
            seconds => Duration::from_secs(seconds),
        };
        operator(
            &authority,
            &request.name,
            &request.key,
            &request.namespaces,
            ttl,
            now_ms,
        )
    }

    /// Everything that an authority needs to be restored elsewhere: a secret.
    pub(crate) fn backup(&self) -> Result<Backup, AuthorityFailure> {
        if !self.is_authority() {
            return Err(AuthorityFailure::NotHere);
        }
        Ok(archive::to_backup(&archive::collect(
            &self.directory,
            &BACKED_UP,
        )?))
    }

    /// Reads the certificates that are on disk; unreadable ones are left out, with a line in the log.
    pub(crate) fn stored_credentials(&self) -> Vec<Credential> {
        let Ok(entries) = std::fs::read_dir(&self.directory) else {
            return Vec::new();
        };
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        let certificates =
            paths.filter(|path| path.extension().is_some_and(|extension| extension == "pem"));
        certificates
            .filter_map(|path| match Credential::load(&path) {
                Ok(credential) => Some(credential),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "certificate left out");
                    None
                }
            })
            .filter(|credential| credential.host() == Some(self.host()))
            .collect()
    }
    /// Writes a certificate with its key.
    pub(crate) fn store_credential(&self, credential: &Credential) -> Result<(), CredentialError> {
        credential.store(&self.directory)
    }
    /// Removes the certificate of an identity that is not wanted any more.
    pub(crate) fn remove_credential(&self, id: &SpiffeId) {
        drop(std::fs::remove_file(
            self.directory.join(Credential::file_name(id)),
        ));
    }
}

/// Certifies an operator's key given in hexadecimal.
pub(super) fn operator(
    authority: &Authority,
    name: &str,
    key: &str,
    namespaces: &[String],
    ttl: Duration,
    now_ms: u64,
) -> Result<Signed, AuthorityFailure> {
    if name.is_empty() || name.chars().count() > 63 || name.chars().any(char::is_control) {
        return Err(AuthorityFailure::OperatorName);
    }
    let bad = || AuthorityFailure::OperatorKey(key.chars().take(80).collect());
    let bytes = HEXLOWER_PERMISSIVE
        .decode(key.as_bytes())
        .map_err(|_form| bad())?;
    let public: [u8; 32] = bytes.try_into().map_err(|_length| bad())?;
    let every = ["*".to_owned()];
    let namespaces = if namespaces.is_empty() {
        &every
    } else {
        namespaces
    };
    Ok(authority.certify_operator(name, public, namespaces, ttl, now_ms)?)
}

/// The authority grants among `grants` that are of the mesh.
pub(super) fn authorities(mesh: &Mesh, grants: &[Grant]) -> Vec<mesh_model::grant::AuthorityGrant> {
    let of_authorities = grants.iter().filter_map(|grant| match grant {
        Grant::Authority(signed) => Some(signed),
        Grant::Genesis(_) | Grant::Host(_) | Grant::Operator(_) => None,
    });
    of_authorities
        .filter_map(|signed| mesh.authority(signed).ok())
        .collect()
}

fn authority_keys(directory: &Path) -> Result<AuthorityKeys, KeyError> {
    Ok(AuthorityKeys {
        ed25519: Ed25519Key::load(&directory.join(AUTHORITY_KEY))?,
        x509: P256Key::load(&directory.join(AUTHORITY_X509))?,
    })
}

fn authority(
    directory: &Path,
    mesh: &Mesh,
    host: HostId,
) -> Result<Option<Authority>, IdentityError> {
    let Some(grant) = present(directory, AUTHORITY_GRANT)? else {
        return Ok(None);
    };
    let keys = authority_keys(directory)?;
    let authority = Authority::new(keys, mesh.clone(), signed(&grant, AUTHORITY_GRANT)?)?;
    if authority.host() == host {
        Ok(Some(authority))
    } else {
        Err(IdentityError::Mismatch)
    }
}

fn root(directory: &Path, mesh: &Mesh) -> Result<Option<Root>, IdentityError> {
    let Some(_) = present(directory, ROOT_KEY)? else {
        return Ok(None);
    };
    let key = Ed25519Key::load(&directory.join(ROOT_KEY))?;
    let x509 = P256Key::load(&directory.join(ROOT_X509))?;
    Ok(Some(Root::from_parts(key, x509, mesh.clone())?))
}

fn present(directory: &Path, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    match file::read_secret(&directory.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

fn signed(bytes: &[u8], name: &'static str) -> Result<Signed, IdentityError> {
    Signed::decode(bytes).map_err(|_form| IdentityError::Damaged(name))
}

/// Grants, each behind its length.
pub(super) fn encode_grants(grants: &[Grant]) -> Vec<u8> {
    let mut out = Vec::new();
    for grant in grants {
        let bytes = grant.encode();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&bytes);
    }
    out
}

fn decode_grants(mut bytes: &[u8]) -> Result<Vec<Grant>, IdentityError> {
    let bad = || IdentityError::Damaged(GRANTS);
    let mut grants = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(bad)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_size| bad())?;
        let (grant, rest) = rest.split_at_checked(length).ok_or_else(bad)?;
        grants.push(Grant::decode(grant).ok_or_else(bad)?);
        bytes = rest;
        if grants.len() > MAX_GRANTS {
            return Err(bad());
        }
    }
    Ok(grants)
}
