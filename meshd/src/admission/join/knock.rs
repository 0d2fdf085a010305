//! A seed is found and spoken to: TCP, TLS authenticated by the token's pin, questions with MACs.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use mesh_identity::{
    key::Ed25519Key,
    tls::{JOIN_EXPORTER, join_client, pinned},
    token::{MacKey, Token},
    verify::PeerError,
};
use mesh_model::name::HostId;
use prost::Message;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{JoinError, Keys, broken};
use crate::{
    admission::wire::{
        self, Admitted, Answer, Ask, Kind, LIMIT, PROOF, Request, mac_input, proof_input,
    },
    clock,
};

/// How long a place gets to answer a dial.
const DIAL: Duration = Duration::from_secs(3);
/// How long an answer may take; probes of ports are among what it waits for.
const ANSWER: Duration = Duration::from_secs(20);

/// A host of the mesh that listens to us.
pub(super) struct Door {
    /// Where it is.
    pub(super) at: SocketAddr,
    /// Its clock less ours, milliseconds, as of the last answer.
    pub(super) offset_ms: Option<i64>,
    stream: TlsStream<TcpStream>,
    exporter: [u8; 32],
    key: MacKey,
    token_id: [u8; 8],
    issuer: HostId,
    pin: [u8; 32],
    server_time_ms: u64,
}

/// Dials the places of a token one after the other until one answers.
pub(super) async fn knock(token: &Token) -> Result<Door, JoinError> {
    let mut tried = Vec::new();
    for seed in &token.seeds {
        let addresses = match timeout(DIAL, tokio::net::lookup_host(seed.as_str())).await {
            Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
            Ok(Err(error)) => {
                tried.push(format!("{seed} ({error})"));
                continue;
            }
            Err(_) => {
                tried.push(format!("{seed} (its name cannot be resolved in time)"));
                continue;
            }
        };
        for at in addresses {
            match timeout(DIAL, TcpStream::connect(at)).await {
                Ok(Ok(stream)) => return Door::open(token, at, stream).await,
                Ok(Err(error)) => tried.push(format!("{at} ({error})")),
                Err(_) => tried.push(format!("{at} (no answer in {} s)", DIAL.as_secs())),
            }
        }
    }
    Err(JoinError::NoSeed(tried.join(", ")))
}

impl Door {
    async fn open(token: &Token, at: SocketAddr, stream: TcpStream) -> Result<Self, JoinError> {
        let tls = |source| JoinError::Tls { at, source };
        let connector = TlsConnector::from(join_client(token.root_sha256));
        let connected = timeout(ANSWER, connector.connect(ServerName::from(at.ip()), stream)).await;
        let connected = connected.map_err(|_elapsed| tls(std::io::ErrorKind::TimedOut.into()))?;
        let stream = connected.map_err(|error| match stranger(&error) {
            Some(source) => JoinError::Stranger {
                at,
                source: Box::new(source),
            },
            None => tls(error),
        })?;
        let exporter = stream
            .get_ref()
            .1
            .export_keying_material([0; 32], JOIN_EXPORTER, None);
        let exporter = exporter.map_err(|error| tls(std::io::Error::other(error)))?;
        Ok(Self {
            at,
            offset_ms: None,
            stream,
            exporter,
            key: token.secret.mac_key(),
            token_id: token.token_id,
            issuer: token.issuer,
            pin: token.root_sha256,
            server_time_ms: 0,
        })
    }

    /// Checks the server's certificate by this host's own clock, which is known to be about right by now.
    pub(super) fn confirm(&self) -> Result<(), JoinError> {
        let chain: Vec<CertificateDer<'_>> = self
            .stream
            .get_ref()
            .1
            .peer_certificates()
            .unwrap_or_default()
            .to_vec();
        let at = |now_ms| pinned(&chain, self.pin, now_ms);
        at(clock::now_ms())
            .or_else(|_outdated| at(self.server_time_ms))
            .map(|_peer| ())
            .map_err(|source| JoinError::Stranger {
                at: self.at,
                source: Box::new(source),
            })
    }

    /// Asks with the token's MAC.
    pub(super) async fn ask<A: Message + Default>(
        &mut self,
        kind: Kind,
        body: &impl Message,
    ) -> Result<A, JoinError> {
        let ask = self.message(kind, body.encode_to_vec());
        self.exchange(&ask).await
    }

    /// Asks to be let in, with the proofs of the new keys.
    pub(super) async fn ask_proven(
        &mut self,
        request: &Request,
        keys: &Keys,
    ) -> Result<Admitted, JoinError> {
        let body = request.encode_to_vec();
        let proof = |key: &Ed25519Key| {
            key.sign(PROOF, proof_input(&self.exporter, &body))
                .signature
        };
        let host = proof(&keys.host);
        let authority = keys
            .authority
            .as_ref()
            .map(|keys| proof(&keys.ed25519))
            .unwrap_or_default();
        let ask = self.message(Kind::Request, body);
        self.exchange(&Ask {
            proof: host,
            authority_proof: authority,
            ..ask
        })
        .await
    }

    fn message(&self, kind: Kind, body: Vec<u8>) -> Ask {
        Ask {
            token_id: self.token_id.to_vec(),
            issuer: self.issuer.0.to_vec(),
            kind: kind.into(),
            mac: self
                .key
                .mac(&self.exporter, &mac_input(kind, &body))
                .to_vec(),
            body,
            proof: Vec::new(),
            authority_proof: Vec::new(),
        }
    }

    async fn exchange<A: Message + Default>(&mut self, ask: &Ask) -> Result<A, JoinError> {
        let (begun, begun_ms) = (Instant::now(), clock::now_ms());
        let exchanged = async {
            wire::send(&mut self.stream, ask).await?;
            wire::receive::<Answer>(&mut self.stream, LIMIT).await
        };
        let answer = timeout(ANSWER, exchanged)
            .await
            .unwrap_or_else(|_elapsed| {
                Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())
            })
            .map_err(broken(self.at))?;
        let half = u64::try_from(begun.elapsed().as_millis() / 2).unwrap_or(0);
        self.server_time_ms = answer.server_time_ms;
        self.offset_ms = Some(offset(answer.server_time_ms, begun_ms + half));
        if let Some(refusal) = answer.refusal {
            return Err(refusal.into());
        }
        A::decode(answer.body.as_slice())
            .map_err(wire::WireError::from)
            .map_err(broken(self.at))
    }
}

fn offset(theirs_ms: u64, ours_ms: u64) -> i64 {
    let difference = i128::from(theirs_ms) - i128::from(ours_ms);
    i64::try_from(difference).unwrap_or(if difference > 0 { i64::MAX } else { i64::MIN })
}

/// The verdict on a peer inside the error of a handshake.
fn stranger(error: &std::io::Error) -> Option<PeerError> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    PeerError::in_handshake(inner).cloned()
}
