//! The joining side: from a token to an identity on disk, telling each step; all of it or nothing.
//!
//! The clock is compared and the ports are tried before anything is asked for, and nothing is written before
//! everything that came back has been checked against the token.

use std::net::SocketAddr;

use mesh_identity::{
    archive::{self, ArchiveError},
    authority::{AuthorityError, AuthorityKeys},
    credentials::CredentialError,
    grants::GrantError,
    key::{Ed25519Key, KeyError, X25519Key, host_id, random},
    leaf::LeafRequest,
    token::{Token, TokenError},
    verify::PeerError,
};
use mesh_model::{
    admin::{Join, JoinStep},
    name::{HostId, MeshId},
    principal::SpiffeId,
};
use tokio::sync::mpsc;

use super::{
    Site, exists,
    identity::{self, Identity, IdentityError},
    machine::Machine,
    probe::PortError,
    wire::{Greet, Greeting, Kind, Refusal, Request, WireError},
};
use crate::clock;

/// The answer is checked and becomes files.
mod accept;
/// A seed is found and spoken to.
mod knock;
/// Ports are tried both ways.
mod ports;

use accept::Keys;
use knock::Door;

/// Clocks may be apart by this much.
const CLOCK_ERROR_MS: u64 = 5 * 60 * 1000;
/// Above this, certificates of other hosts look as if they were not valid yet.
const CLOCK_WARNING_MS: u64 = 60 * 1000;

/// Why a host did not join; nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum JoinError {
    /// The token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The host is in a mesh.
    #[error("this host holds the identity of a mesh already")]
    Present,
    /// The state directory is a copy.
    #[error(transparent)]
    Copied(IdentityError),
    /// Nobody answers.
    #[error("none of the token's places answers on TCP: {0}")]
    NoSeed(String),
    /// Somebody answers who is not of the mesh.
    #[error("the host at {at} is not of the token's mesh")]
    Stranger {
        /// Where.
        at: SocketAddr,
        /// Why it is not believed.
        #[source]
        source: Box<PeerError>,
    },
    /// The handshake failed.
    #[error("no TLS connection to {at}")]
    Tls {
        /// Where.
        at: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the conversation with {at} broke off")]
    Broken {
        /// Where.
        at: SocketAddr,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The clocks are apart.
    #[error("this host's clock is {offset} {direction} the mesh's: more than 5 min")]
    Clock {
        /// How far, for people.
        offset: String,
        /// `behind` or `ahead of`.
        direction: &'static str,
    },
    /// A port of this host is taken.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The other side says no.
    #[error("{what}")]
    Refused {
        /// Stable word.
        code: String,
        /// What it says.
        what: String,
        /// What it advises.
        remedy: String,
    },
    /// The answer is not what the token promises.
    #[error("the answer does not fit the token: {0}")]
    Answer(&'static str),
    /// A grant in the answer is wrong.
    #[error("the answer holds a wrong grant")]
    Grant(#[from] GrantError),
    /// The certificate in the answer is wrong.
    #[error("the answer holds a wrong certificate")]
    Certificate(#[from] CredentialError),
    /// Keys could not be made.
    #[error("cannot make keys")]
    Key(#[from] KeyError),
    /// Requests could not be made.
    #[error("cannot make a certificate request")]
    Authority(#[from] AuthorityError),
    /// The identity could not be written.
    #[error("cannot write the identity")]
    Archive(#[from] ArchiveError),
}

impl JoinError {
    /// Stable word for machines.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Token(TokenError::Expired(_)) => "token-expired",
            Self::Token(TokenError::OtherMesh { .. }) => "other-mesh",
            Self::Token(_) => "token-wrong",
            Self::Present => "already-joined",
            Self::Copied(_) => "copied-state",
            Self::NoSeed(_) => "seeds-unreachable",
            Self::Stranger { .. } => "wrong-mesh",
            Self::Tls { .. } | Self::Broken { .. } => "connection-failed",
            Self::Clock { .. } => "clock-offset",
            Self::Port(_) => "port-in-use",
            Self::Refused { code, .. } => code,
            Self::Answer(_) | Self::Grant(_) | Self::Certificate(_) => "bad-answer",
            Self::Key(_) | Self::Authority(_) => "no-keys",
            Self::Archive(_) => "state-not-written",
        }
    }
    /// What to do.
    pub(crate) fn remedy(&self) -> &str {
        match self {
            Self::Token(_) => "make a new token with meshctl token create on an authority",
            Self::Present => {
                "meshctl leave first; or --fresh, if the directory came from another machine"
            }
            Self::Copied(_) => "say --fresh to throw the copied identity away",
            Self::NoSeed(_) => {
                "open TCP 7947 from this host to the places named, and see that meshd runs there"
            }
            Self::Stranger { .. } => {
                "see that the token is for this mesh, and that its address was not taken over"
            }
            Self::Tls { .. } => "see that meshd, and nothing else, listens there",
            Self::Broken { .. } => "try again; see the log of meshd there",
            Self::Clock { .. } => "set this host's clock (timedatectl set-ntp true) and try again",
            Self::Port(_) => {
                "end the program that has the port, or choose another in /etc/meshd/meshd.toml"
            }
            Self::Refused { remedy, .. } => remedy,
            Self::Answer(_) | Self::Grant(_) | Self::Certificate(_) => {
                "use the same version of meshd on both hosts"
            }
            Self::Key(_) | Self::Authority(_) | Self::Archive(_) => {
                "see the cause; nothing was changed"
            }
        }
    }
}

impl From<Refusal> for JoinError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused {
            code: refusal.code,
            what: refusal.what,
            remedy: refusal.remedy,
        }
    }
}

/// A host that is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    /// The mesh.
    pub(crate) mesh: MeshId,
    /// This host.
    pub(crate) host: HostId,
    /// True when an identity of another machine was thrown away: stored state of it is void too.
    pub(crate) replaced: bool,
}

/// Tells steps to whoever asked; nobody has to listen.
#[derive(Debug, Clone)]
pub(super) struct Told(mpsc::Sender<JoinStep>);

impl Told {
    pub(super) fn to(steps: mpsc::Sender<JoinStep>) -> Self {
        Self(steps)
    }
    async fn ok(&self, what: impl Into<String>) {
        self.step(what.into(), "ok", "").await;
    }
    async fn warn(&self, what: impl Into<String>, remedy: impl Into<String>) {
        self.step(what.into(), "warning", remedy).await;
    }
    async fn step(&self, what: String, state: &str, remedy: impl Into<String>) {
        let step = JoinStep {
            what,
            state: state.to_owned(),
            remedy: remedy.into(),
            done: false,
            error: String::new(),
        };
        drop(self.0.send(step).await);
    }
}

/// Joins the mesh of a token and writes this host's identity; the daemon's ports must be free.
pub(crate) async fn join(
    site: Site,
    request: &Join,
    steps: &mpsc::Sender<JoinStep>,
) -> Result<Joined, JoinError> {
    let told = Told::to(steps.clone());
    let joined = Box::pin(join_at(&site, request, &Machine::current(), &told)).await?;
    tracing::info!(mesh = %joined.mesh, host = %joined.host, fresh = joined.replaced, "joined");
    Ok(joined)
}

pub(super) async fn join_at(
    site: &Site,
    request: &Join,
    machine: &Machine,
    told: &Told,
) -> Result<Joined, JoinError> {
    let present = exists(&site.state_dir);
    if present && !request.fresh {
        return Err(
            match Identity::open(&identity::directory(&site.state_dir), machine) {
                Err(copied @ IdentityError::Copied(_)) => JoinError::Copied(copied),
                Ok(_) | Err(_) => JoinError::Present,
            },
        );
    }
    let token = Token::parse(&request.token)?;
    told.ok(format!(
        "the token is for mesh {} and was made by host {}",
        token.mesh_id,
        token.issuer.short()
    ))
    .await;
    let mut door = knock::knock(&token).await?;
    let session = random()?;
    let greeting: Greeting = greet(&mut door, session, told).await?;
    ports::try_all(site, &mut door, &greeting, session, told).await?;

    let keys = Keys {
        host: Ed25519Key::generate()?,
        datagram: X25519Key::generate()?,
        authority: None,
    };
    let keys = if token.authority {
        Keys {
            authority: Some(AuthorityKeys::generate()?),
            ..keys
        }
    } else {
        keys
    };
    let host = host_id(&keys.host.public());
    // The trust domain is not known yet; issuers ignore the names in requests.
    let leaf = LeafRequest::unnamed()?;
    let asked = asked(site, &keys, &leaf)?;
    let admitted = door.ask_proven(&asked, &keys).await?;
    let accepted = accept::accept(&token, &admitted, keys, leaf, clock::now_ms())?;
    told.ok(format!(
        "admitted to mesh {} as host {}",
        accepted.mesh_name,
        host.short()
    ))
    .await;

    let seeds = seeds(&token, door.at);
    let files = accepted.files(&seeds, machine)?;
    put(site, &files)?;
    told.ok(format!(
        "identity written to {}",
        identity::directory(&site.state_dir).display()
    ))
    .await;
    Ok(Joined {
        mesh: token.mesh_id,
        host,
        replaced: present,
    })
}

/// Sends the token's proof, compares the clocks, and only then takes a refusal at its word.
async fn greet(door: &mut Door, session: [u8; 16], told: &Told) -> Result<Greeting, JoinError> {
    let greet = Greet {
        session: session.to_vec(),
    };
    let greeted = door.ask::<Greeting>(Kind::Greet, &greet).await;
    let clock = clock(door.offset_ms.unwrap_or(0))?;
    let greeting = greeted?;
    door.confirm()?;
    told.ok(format!(
        "{} at {} is of that mesh and takes the token",
        greeting.host_name, door.at
    ))
    .await;
    match clock {
        Clock::Agrees(said) => told.ok(said).await,
        Clock::Differs(said) => {
            told.warn(said, "set the clock, such as with timedatectl set-ntp true")
                .await;
        }
    }
    Ok(greeting)
}

/// What is said of a clock that is not so wrong that the join ends.
#[derive(Debug, PartialEq, Eq)]
enum Clock {
    Agrees(String),
    Differs(String),
}

/// Judges the mesh's clock less this host's, milliseconds.
fn clock(offset_ms: i64) -> Result<Clock, JoinError> {
    let (size, offset) = (offset_ms.unsigned_abs(), duration(offset_ms.unsigned_abs()));
    let direction = if offset_ms > 0 { "behind" } else { "ahead of" };
    if size > CLOCK_ERROR_MS {
        return Err(JoinError::Clock { offset, direction });
    }
    if size > CLOCK_WARNING_MS {
        return Ok(Clock::Differs(format!(
            "this host's clock is {offset} {direction} the mesh's"
        )));
    }
    Ok(Clock::Agrees(format!("the clocks agree ({offset} apart)")))
}

fn asked(site: &Site, keys: &Keys, leaf: &LeafRequest) -> Result<Request, JoinError> {
    let authority = keys
        .authority
        .as_ref()
        .map(AuthorityKeys::request)
        .transpose()?;
    Ok(Request {
        host_name: site.host_name.clone(),
        ed25519: keys.host.public().to_vec(),
        x25519: keys.datagram.public().to_vec(),
        csr: leaf.csr().to_vec(),
        authority_key: authority
            .as_ref()
            .map(|request| request.key.to_vec())
            .unwrap_or_default(),
        authority_csr: authority.map(|request| request.csr).unwrap_or_default(),
    })
}

/// The place that answered first, then the token's others.
fn seeds(token: &Token, answered: SocketAddr) -> Vec<String> {
    let mut seeds = vec![answered.to_string()];
    seeds.extend(
        token
            .seeds
            .iter()
            .filter(|seed| **seed != answered.to_string())
            .cloned(),
    );
    seeds
}

/// Puts the identity in place; a copied one goes only when the new one is whole.
fn put(site: &Site, files: &archive::Files) -> Result<(), ArchiveError> {
    let place = identity::directory(&site.state_dir);
    if !place.exists() {
        return archive::install(&place, files);
    }
    let aside = site.state_dir.join("identity.old");
    archive::clear(&aside)?;
    let moved = |from: &std::path::Path, to: &std::path::Path| {
        std::fs::rename(from, to).map_err(|source| {
            ArchiveError::File(mesh_identity::file::FileError::Io {
                verb: "write",
                path: to.to_owned(),
                source,
            })
        })
    };
    moved(&place, &aside)?;
    if let Err(error) = archive::install(&place, files) {
        moved(&aside, &place)?;
        return Err(error);
    }
    Ok(archive::clear(&aside)?)
}

/// `12 ms`, `40 s`, `6 min`, `1 d 2 h`.
fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// The id of a host in a trust domain.
fn own_id(trust_domain: &mesh_model::principal::TrustDomain, host: HostId) -> SpiffeId {
    SpiffeId::host(trust_domain.clone(), host)
}

/// A message that could not be sent or read.
fn broken(at: SocketAddr) -> impl FnOnce(WireError) -> JoinError {
    move |source| JoinError::Broken {
        at,
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks() {
        assert!(matches!(clock(0), Ok(Clock::Agrees(_))));
        assert!(matches!(clock(-59_000), Ok(Clock::Agrees(_))));
        assert!(matches!(clock(90_000), Ok(Clock::Differs(_))));
        let said = |offset| clock(offset).unwrap_err().to_string();
        assert!(
            said(86_400_000).contains("1 d 0 h behind"),
            "{}",
            said(86_400_000)
        );
        assert!(
            said(-301_000).contains("5 min ahead of"),
            "{}",
            said(-301_000)
        );
        assert_eq!(clock(i64::MIN).unwrap_err().code(), "clock-offset");
    }

    #[test]
    fn durations() {
        for (milliseconds, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (40_000, "40 s"),
            (360_000, "6 min"),
            (93_600_000, "1 d 2 h"),
        ] {
            assert_eq!(duration(milliseconds), text);
        }
    }
}
