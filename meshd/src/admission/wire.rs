//! What goes over a join's connection: length-prefixed messages, bounded, each answered by one.
//!
//! Every message carries a MAC by the token over the connection's TLS exporter and its own bytes, so it
//! cannot be used on another connection or with other keys.

use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest message; an answer holds every grant of the mesh.
pub(super) const LIMIT: usize = 16 << 20;
/// Longest message of a joiner, who is not trusted yet.
pub(super) const ASK_LIMIT: usize = 64 << 10;
/// Domain of the joiner's signature with its host key, and with its authority key.
pub(super) const PROOF: &[u8] = b"meshd/1 join proof\0";

/// A message to the admitting side.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Ask {
    /// Names the token at its issuer; 8 bytes; empty for [`Kind::Recover`].
    #[prost(bytes = "vec", tag = "1")]
    pub(super) token_id: Vec<u8>,
    /// The host that issued the token, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) issuer: Vec<u8>,
    #[prost(enumeration = "Kind", tag = "3")]
    pub(super) kind: i32,
    /// An encoded [`Greet`], [`Probe`], [`Request`] or [`Renewal`].
    #[prost(bytes = "vec", tag = "4")]
    pub(super) body: Vec<u8>,
    /// MAC of the token over exporter, kind and body.
    #[prost(bytes = "vec", tag = "5")]
    pub(super) mac: Vec<u8>,
    /// Signature of the host key over exporter and body.
    #[prost(bytes = "vec", tag = "6")]
    pub(super) proof: Vec<u8>,
    /// Signature of the authority key over exporter and body.
    #[prost(bytes = "vec", tag = "7")]
    pub(super) authority_proof: Vec<u8>,
}

/// What an [`Ask`] asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Kind {
    /// Not set.
    Unspecified = 0,
    /// Is the token good, what time is it, where is your tunnel?
    Greet = 1,
    /// Please try my ports.
    Probe = 2,
    /// Let me in.
    Request = 3,
    /// My certificate has ended; here is my proof.
    Recover = 4,
}

/// The first message.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Greet {
    /// 16 random bytes: names this join in probes.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) session: Vec<u8>,
}

/// The answer to [`Greet`].
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Greeting {
    /// Port of the tunnel here.
    #[prost(uint32, tag = "1")]
    pub(super) tunnel_port: u32,
    /// Name of this host for people.
    #[prost(string, tag = "2")]
    pub(super) host_name: String,
    /// True when UDP is used here.
    #[prost(bool, tag = "3")]
    pub(super) udp: bool,
}

/// Asks for probes of the joiner's ports.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Probe {
    /// As in [`Greet`].
    #[prost(bytes = "vec", tag = "1")]
    pub(super) session: Vec<u8>,
    /// Where others will dial it; the address of the connection when empty.
    #[prost(string, tag = "2")]
    pub(super) address: String,
    /// 0: do not try.
    #[prost(uint32, tag = "3")]
    pub(super) tcp_port: u32,
    /// 0: do not try.
    #[prost(uint32, tag = "4")]
    pub(super) udp_port: u32,
    /// 0: do not try.
    #[prost(uint32, tag = "5")]
    pub(super) tunnel_port: u32,
}

/// What the probes found; a port that was not to be tried counts as found.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Probed {
    #[prost(bool, tag = "1")]
    pub(super) tcp: bool,
    #[prost(bool, tag = "2")]
    pub(super) udp: bool,
    #[prost(bool, tag = "3")]
    pub(super) tunnel: bool,
    /// The address that was tried.
    #[prost(string, tag = "4")]
    pub(super) address: String,
}

/// Asks to be let in.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Request {
    /// Name for people.
    #[prost(string, tag = "1")]
    pub(super) host_name: String,
    /// The host's Ed25519 public key.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) ed25519: Vec<u8>,
    /// The host's X25519 public key.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) x25519: Vec<u8>,
    /// PKCS#10 request of the host's certificate.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) csr: Vec<u8>,
    /// When the token makes authorities: the Ed25519 public key of the new one.
    #[prost(bytes = "vec", tag = "5")]
    pub(super) authority_key: Vec<u8>,
    /// When the token makes authorities: PKCS#10 request of the intermediate.
    #[prost(bytes = "vec", tag = "6")]
    pub(super) authority_csr: Vec<u8>,
}

/// What the joiner gets.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Admitted {
    /// The signed genesis.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) genesis: Vec<u8>,
    /// The host's signed grant.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) host_grant: Vec<u8>,
    /// The signed grant of the new authority; empty when the token makes none.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) authority_grant: Vec<u8>,
    /// The host's certificate: leaf, then intermediates.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub(super) chain: Vec<Vec<u8>>,
    /// Every grant that the issuer knows, encoded with its kind.
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub(super) grants: Vec<Vec<u8>>,
}

/// A host of the mesh whose certificate has ended asks for a new one.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Renewal {
    /// The host, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) host: Vec<u8>,
    /// PKCS#10 request of its own certificate.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) csr: Vec<u8>,
}

/// The answer to every [`Ask`].
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Answer {
    /// The answering host's clock, milliseconds since the epoch.
    #[prost(uint64, tag = "1")]
    pub(super) server_time_ms: u64,
    /// Set when refused; `body` is empty then.
    #[prost(message, optional, tag = "2")]
    pub(super) refusal: Option<Refusal>,
    /// An encoded [`Greeting`], [`Probed`] or [`Admitted`].
    #[prost(bytes = "vec", tag = "3")]
    pub(super) body: Vec<u8>,
}

/// Why not.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Refusal {
    /// Stable word for machines.
    #[prost(string, tag = "1")]
    pub(super) code: String,
    /// What, for people.
    #[prost(string, tag = "2")]
    pub(super) what: String,
    /// What to do.
    #[prost(string, tag = "3")]
    pub(super) remedy: String,
}

impl Refusal {
    pub(super) fn new(code: &str, what: impl Into<String>, remedy: &str) -> Self {
        Self {
            code: code.to_owned(),
            what: what.into(),
            remedy: remedy.to_owned(),
        }
    }
}

/// An [`Ask`] on its way to the token's issuer, with the exporter of the connection on which it came.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Relayed {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) exporter: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) ask: Vec<u8>,
}

/// The bytes that a MAC goes over, beside the exporter.
pub(super) fn mac_input(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut input = vec![u8::try_from(i32::from(kind)).unwrap_or(0)];
    input.extend_from_slice(body);
    input
}

/// The bytes that a proof signs.
pub(super) fn proof_input(exporter: &[u8; 32], body: &[u8]) -> Vec<u8> {
    [&exporter[..], body].concat()
}

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum WireError {
    /// The connection ended or failed.
    #[error("the connection broke")]
    Io(#[from] std::io::Error),
    /// Longer than allowed.
    #[error("a message of {0} bytes is too long")]
    Long(usize),
    /// Not what was expected.
    #[error("a message is malformed")]
    Form(#[from] prost::DecodeError),
}

/// Writes one message.
pub(super) async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Message,
) -> Result<(), WireError> {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).map_err(|_size| WireError::Long(body.len()))?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&body).await?;
    Ok(stream.flush().await?)
}

/// Reads one message of at most `limit` bytes.
pub(super) async fn receive<M: Message + Default>(
    stream: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> Result<M, WireError> {
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > limit {
        return Err(WireError::Long(length));
    }
    // Grown as bytes come, so that a length alone costs nothing.
    let mut body = Vec::new();
    let wanted = u64::try_from(length).unwrap_or(u64::MAX);
    stream.take(wanted).read_to_end(&mut body).await?;
    if body.len() < length {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    Ok(M::decode(body.as_slice())?)
}
