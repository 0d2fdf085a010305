//! Join tokens that this host has given out: made, listed, and counted before anything is signed for them.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use mesh_identity::{
    authority::root_certificate,
    file::{self, FileError},
    key::{KeyError, random},
    tls::pin_of,
    token::{MacKey, Secret, Token},
};
use mesh_model::{
    admin::{self, CreateToken},
    name::HostId,
};
use serde::{Deserialize, Serialize};

use super::{
    Site,
    identity::{self, Identity},
};
use crate::clock;

/// An hour unless said otherwise.
const TTL: u64 = 3600;
/// At most a week.
const TTL_MAX: u64 = 7 * 86_400;
/// Most hosts for one token.
const USES_MAX: u32 = 1000;
/// Most tokens kept.
const TOKENS_MAX: usize = 256;
/// Expired tokens are remembered for a day, so that their users are told that they expired.
const REMEMBERED_MS: u64 = 86_400_000;

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TokenFailure {
    /// Only authorities issue.
    #[error("this host is no authority")]
    NotHere,
    /// Only the root makes authorities.
    #[error("this host does not hold the mesh's root, so it cannot make authorities")]
    NoRoot,
    /// Out of range.
    #[error("a token lives 1 s to 7 d, not {0} s")]
    Ttl(u64),
    /// Out of range.
    #[error("a token is for 1 to {USES_MAX} hosts, not {0}")]
    Uses(u32),
    /// Not a pattern.
    #[error("{0:?} is no service: write NAME, NAMESPACE/NAME, NAMESPACE/* or *")]
    Service(String),
    /// Nobody could find this host.
    #[error("no address of this host is known, so nobody could use the token")]
    NoAddress,
    /// Too many.
    #[error("{TOKENS_MAX} tokens are in use already")]
    Many,
    /// The random source failed.
    #[error("cannot make a token")]
    Key(#[from] KeyError),
    /// Not written.
    #[error("cannot store the token")]
    File(#[from] FileError),
}

impl TokenFailure {
    /// What to do.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::NotHere => "ask an authority: meshctl members shows which hosts are",
            Self::NoRoot => {
                "make the token on the host where meshctl init ran, or where its backup was restored"
            }
            Self::Ttl(_) => "choose another --ttl",
            Self::Uses(_) => "choose another --uses",
            Self::Service(_) => "choose another --service",
            Self::NoAddress => "set addresses in /etc/meshd/meshd.toml",
            Self::Many => "wait until some have expired",
            Self::Key(_) | Self::File(_) => "see the cause; nothing was given out",
        }
    }
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenRow {
    /// Its id, hexadecimal.
    pub(crate) id: String,
    /// End of its use, milliseconds since the epoch.
    pub(crate) expires_ms: u64,
    /// Hosts that used it, and that may.
    pub(crate) uses: (u32, u32),
    /// True when it makes authorities.
    pub(crate) authority: bool,
    /// Services that joiners may register.
    pub(crate) services: Vec<String>,
}

impl std::fmt::Display for TokenRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            id,
            expires_ms,
            uses: (used, max),
            authority,
            services,
        } = self;
        let what = if *authority { "authorities" } else { "hosts" };
        let services = services.join(", ");
        write!(
            f,
            "{id}: {used} of {max} {what} came with it, until {expires_ms}, for {services}"
        )
    }
}

/// What a token allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) authority: bool,
    pub(super) services: Vec<String>,
}

/// Why a token cannot be spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// Not given out here, or its secret is another.
    Wrong,
    /// Its time is over, by so many seconds.
    Expired(u64),
    /// As many hosts as allowed have used it.
    Used(u32),
    /// The use could not be written down.
    Disk,
}

/// All tokens of this host.
#[derive(Debug)]
pub(crate) struct Tokens {
    path: PathBuf,
    identity: Arc<Identity>,
    seeds: Vec<String>,
    stored: Mutex<Vec<Stored>>,
}

/// A token as it is kept: the MAC key instead of the secret.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    id: String,
    mac_key: String,
    expires_ms: u64,
    max_uses: u32,
    authority: bool,
    services: Vec<String>,
    /// Hosts that were let in with it: a joiner that tries again with its keys is not counted twice.
    hosts: Vec<HostId>,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Stored({}, {} of {})",
            self.id,
            self.hosts.len(),
            self.max_uses
        )
    }
}

impl Tokens {
    /// Reads the tokens of an identity.
    pub(crate) fn open(identity: Arc<Identity>, site: &Site) -> Result<Self, FileError> {
        let path = identity.directory().join(identity::TOKENS);
        let stored = match file::read_secret(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(%error, "the list of join tokens is damaged: all are void");
                Vec::new()
            }),
            Err(error) if error.is_absent() => Vec::new(),
            Err(error) => return Err(error),
        };
        let seeds = site.seeds();
        let tokens = Self {
            path,
            identity,
            seeds,
            stored: Mutex::new(stored),
        };
        for token in tokens.list(clock::now_ms()) {
            tracing::info!(%token, "a join token can still be used");
        }
        Ok(tokens)
    }

    /// Makes a token; its secret is in the answer and nowhere else.
    pub(crate) fn create(&self, request: &CreateToken) -> Result<admin::Token, TokenFailure> {
        self.create_at(request, clock::now_ms())
    }

    pub(super) fn create_at(
        &self,
        request: &CreateToken,
        now_ms: u64,
    ) -> Result<admin::Token, TokenFailure> {
        let (ttl, uses) = self.check(request)?;
        let every = ["*".to_owned()];
        let services = if request.services.is_empty() {
            &every
        } else {
            &request.services[..]
        };
        let secret = Secret::generate()?;
        let mesh = self.identity.mesh();
        let token = Token {
            mesh_id: mesh.id,
            root_sha256: pin_of(&root_certificate(mesh)).unwrap_or_default(),
            seeds: self.seeds.clone(),
            token_id: random()?,
            issuer: self.identity.host(),
            secret,
            expires_ms: now_ms + ttl * 1000,
            max_uses: uses,
            authority: request.authority,
            services: services.to_vec(),
        };
        let stored = Stored {
            id: HEXLOWER.encode(&token.token_id),
            mac_key: BASE64URL_NOPAD.encode(&token.secret.mac_key().to_bytes()[..]),
            expires_ms: token.expires_ms,
            max_uses: uses,
            authority: request.authority,
            services: services.to_vec(),
            hosts: Vec::new(),
        };
        self.add(stored, now_ms)?;
        Ok(admin::Token {
            token: token.to_text().to_string(),
            expires_ms: token.expires_ms,
        })
    }

    /// The tokens that may still be used.
    pub(crate) fn list(&self, now_ms: u64) -> Vec<TokenRow> {
        let usable = |token: &&Stored| token.expires_ms > now_ms && token.used() < token.max_uses;
        let row = |token: &Stored| TokenRow {
            id: token.id.clone(),
            expires_ms: token.expires_ms,
            uses: (token.used(), token.max_uses),
            authority: token.authority,
            services: token.services.clone(),
        };
        self.lock().iter().filter(usable).map(row).collect()
    }

    /// Checks the MAC and whether a token can be used now; counts nothing.
    pub(super) fn look(
        &self,
        token_id: &[u8],
        right: impl Fn(&MacKey) -> bool,
        now_ms: u64,
    ) -> Result<Allowed, Refused> {
        look(&self.lock(), token_id, right, None, now_ms).map(|token| Allowed {
            authority: token.authority,
            services: token.services.clone(),
        })
    }

    /// As [`Self::look`], and writes the use down, flushed to disk, before it says yes.
    ///
    /// A host that comes again with its keys is not counted again.
    pub(super) fn spend(
        &self,
        token_id: &[u8],
        right: impl Fn(&MacKey) -> bool,
        host: HostId,
        now_ms: u64,
    ) -> Result<Allowed, Refused> {
        let mut stored = self.lock();
        let token = look(&stored, token_id, right, Some(host), now_ms)?;
        let allowed = Allowed {
            authority: token.authority,
            services: token.services.clone(),
        };
        if token.hosts.contains(&host) {
            return Ok(allowed);
        }
        let id = token.id.clone();
        let mut next = stored.clone();
        if let Some(token) = next.iter_mut().find(|token| token.id == id) {
            token.hosts.push(host);
        }
        self.write(&next).map_err(|_disk| Refused::Disk)?;
        *stored = next;
        Ok(allowed)
    }

    fn check(&self, request: &CreateToken) -> Result<(u64, u32), TokenFailure> {
        if !self.identity.is_authority() {
            return Err(TokenFailure::NotHere);
        }
        if request.authority && !self.identity.is_root() {
            return Err(TokenFailure::NoRoot);
        }
        if self.seeds.is_empty() {
            return Err(TokenFailure::NoAddress);
        }
        let ttl = if request.ttl_secs == 0 {
            TTL
        } else {
            request.ttl_secs
        };
        let uses = if request.uses == 0 { 1 } else { request.uses };
        if ttl > TTL_MAX {
            return Err(TokenFailure::Ttl(ttl));
        }
        if uses > USES_MAX {
            return Err(TokenFailure::Uses(uses));
        }
        match request.services.iter().find(|service| !is_pattern(service)) {
            Some(bad) => Err(TokenFailure::Service(bad.chars().take(100).collect())),
            None => Ok((ttl, uses)),
        }
    }

    /// What is kept, with expired tokens dropped, a new one added; on disk first.
    fn add(&self, token: Stored, now_ms: u64) -> Result<(), TokenFailure> {
        let mut stored = self.lock();
        let mut next = stored.clone();
        next.retain(|token| token.expires_ms + REMEMBERED_MS > now_ms);
        if next.len() >= TOKENS_MAX {
            return Err(TokenFailure::Many);
        }
        next.push(token);
        self.write(&next)?;
        *stored = next;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Stored>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, tokens: &[Stored]) -> Result<(), FileError> {
        let bytes = zeroize::Zeroizing::new(serde_json::to_vec(tokens).unwrap_or_default());
        file::write_secret(&self.path, &bytes)
    }
}

impl Stored {
    fn used(&self) -> u32 {
        u32::try_from(self.hosts.len()).unwrap_or(u32::MAX)
    }
}

fn look<'a>(
    all: &'a [Stored],
    token_id: &[u8],
    right: impl Fn(&MacKey) -> bool,
    host: Option<HostId>,
    now_ms: u64,
) -> Result<&'a Stored, Refused> {
    let id = HEXLOWER.encode(token_id);
    let token = all
        .iter()
        .find(|token| token.id == id)
        .ok_or(Refused::Wrong)?;
    let key = BASE64URL_NOPAD.decode(token.mac_key.as_bytes()).ok();
    let key: Option<[u8; 32]> = key.and_then(|key| key.try_into().ok());
    if !key.is_some_and(|key| right(&MacKey::from_bytes(key))) {
        return Err(Refused::Wrong);
    }
    if now_ms >= token.expires_ms {
        return Err(Refused::Expired((now_ms - token.expires_ms) / 1000));
    }
    let again = host.is_some_and(|host| token.hosts.contains(&host));
    if token.used() >= token.max_uses && !again {
        return Err(Refused::Used(token.max_uses));
    }
    Ok(token)
}

/// `*`, `name`, `namespace/name`, `namespace/*`.
fn is_pattern(text: &str) -> bool {
    let part = |part: &str| part == "*" || mesh_model::name::is_label(part);
    match text.split_once('/') {
        None => part(text),
        Some((namespace, name)) => part(namespace) && part(name),
    }
}
