//! The admitting side: connections without a client certificate, which may join or recover and nothing else.
//!
//! In: a TLS connection of the control state's port. Out: answers; new grants made known. A token that
//! another authority gave out is passed on to it, with this connection's exporter. Never: waits for ever,
//! or does more for a stranger than compare a MAC.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use mesh_gossip::Grant;
use mesh_identity::tls::JOIN_EXPORTER;
use mesh_model::{grant::HostGrant, name::HostId};
use prost::Message as _;
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tokio_rustls::server::TlsStream;

use super::{
    Site, admit,
    identity::Identity,
    probe::{self, Probes},
    tokens::Tokens,
    wire::{
        self, ASK_LIMIT, Admitted, Answer, Ask, Greet, Greeting, Kind, Probe, Probed, Refusal,
        Relayed,
    },
};
use crate::clock;

/// The kind of call with which a request is passed on to the token's issuer.
pub(crate) const RELAY_KIND: &str = "join";
/// Joins at a time.
const CONNECTIONS: usize = 16;
/// A join takes no longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// A stranger who says nothing for so long is not waited for.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// Messages of one connection: greeting, probes, request, and one again.
const MESSAGES: usize = 6;

/// A call to another host of the mesh.
pub(crate) type Call = Arc<
    dyn Fn(HostId, &'static str, Bytes) -> BoxFuture<'static, Result<Bytes, String>> + Send + Sync,
>;

/// What the admitting side needs of the control state.
#[derive(Clone)]
pub(crate) struct Reach {
    /// Every grant known.
    pub(crate) grants: Arc<dyn Fn() -> BoxFuture<'static, Vec<Grant>> + Send + Sync>,
    /// Makes new grants known; ends when they are stored here.
    pub(crate) publish: Arc<dyn Fn(Vec<Grant>) -> BoxFuture<'static, ()> + Send + Sync>,
    /// The grant of a host that is not revoked.
    pub(crate) grant_of: Arc<dyn Fn(HostId) -> Option<HostGrant> + Send + Sync>,
    /// Asks another host.
    pub(crate) call: Call,
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reach")
    }
}

/// Answers joins. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct JoinServer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    identity: Arc<Identity>,
    tokens: Arc<Tokens>,
    probes: Probes,
    site: Site,
    reach: OnceLock<Reach>,
    places: Semaphore,
}

impl JoinServer {
    /// Ready for [`Self::connect`]; until then every join is asked to come again.
    pub(crate) fn new(
        identity: Arc<Identity>,
        tokens: Arc<Tokens>,
        probes: Probes,
        site: Site,
    ) -> Self {
        let (reach, places) = (OnceLock::new(), Semaphore::new(CONNECTIONS));
        Self(Arc::new(Shared {
            identity,
            tokens,
            probes,
            site,
            reach,
            places,
        }))
    }
    /// Gives it the control state, once.
    pub(crate) fn connect(&self, reach: Reach) {
        if self.0.reach.set(reach).is_err() {
            tracing::debug!("the admitting side has its control state already");
        }
    }
    /// The probes whose datagrams the control state's socket has to echo.
    pub(crate) fn probes(&self) -> &Probes {
        &self.0.probes
    }

    /// Serves one connection to its end, at most half a minute.
    pub(crate) async fn serve(&self, stream: TlsStream<TcpStream>, peer: SocketAddr) {
        let Ok(_place) = self.0.places.try_acquire() else {
            tracing::warn!(%peer, "too many joins at a time");
            return;
        };
        match timeout(PATIENCE, Box::pin(self.conversation(stream, peer))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a join ended early"),
            Err(_) => tracing::debug!(%peer, "a join took too long"),
        }
    }

    async fn conversation(
        &self,
        mut stream: TlsStream<TcpStream>,
        peer: SocketAddr,
    ) -> Result<(), wire::WireError> {
        let exporter = stream
            .get_ref()
            .1
            .export_keying_material([0; 32], JOIN_EXPORTER, None);
        let exporter = exporter.map_err(std::io::Error::other)?;
        for message in 0..MESSAGES {
            let patience = if message == 0 { FIRST_WORD } else { PATIENCE };
            let asked = timeout(patience, wire::receive(&mut stream, ASK_LIMIT)).await;
            let ask: Ask = match asked.unwrap_or_else(|_elapsed| Err(silent())) {
                Ok(ask) => ask,
                Err(wire::WireError::Io(error))
                    if error.kind() == std::io::ErrorKind::UnexpectedEof =>
                {
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let answer = Box::pin(self.answer(&ask, &exporter, peer)).await;
            if let Some(refusal) = &answer.refusal {
                tracing::info!(%peer, code = refusal.code, what = refusal.what, "join refused");
            }
            wire::send(&mut stream, &answer).await?;
        }
        Ok(())
    }

    async fn answer(&self, ask: &Ask, exporter: &[u8; 32], peer: SocketAddr) -> Answer {
        let kind = Kind::try_from(ask.kind).unwrap_or(Kind::Unspecified);
        let elsewhere =
            HostId::from_slice(&ask.issuer).filter(|issuer| *issuer != self.0.identity.host());
        let answered = match (kind, elsewhere) {
            (Kind::Recover, _) => self.recover(ask, exporter),
            (Kind::Probe, _) => self.probe(ask, peer).await,
            (Kind::Greet | Kind::Request, Some(issuer)) => {
                self.relay(ask, exporter, issuer, kind).await
            }
            (Kind::Greet | Kind::Request, None) => self.decide(ask, exporter, kind).await,
            (Kind::Unspecified, _) => Err(unknown()),
        };
        finish(answered)
    }

    /// Decides as the issuer of the token.
    async fn decide(&self, ask: &Ask, exporter: &[u8; 32], kind: Kind) -> Result<Vec<u8>, Refusal> {
        let now_ms = clock::now_ms();
        let shared = &self.0;
        if kind == Kind::Greet {
            admit::look(&shared.tokens, ask, kind, exporter, now_ms)?;
            return self.greeting(ask);
        }
        let reach = self.reach()?;
        let admission = admit::admit(&shared.identity, &shared.tokens, ask, exporter, now_ms)?;
        (reach.publish)(admission.made.clone()).await;
        let mut grants = (reach.grants)().await;
        grants.extend(admission.made);
        let grants = grants.iter().map(Grant::encode).collect();
        tracing::info!("a host was let in");
        Ok(Admitted {
            grants,
            ..admission.admitted
        }
        .encode_to_vec())
    }

    /// Welcomes a joiner whose token is good: registers its session for probes.
    fn greeting(&self, ask: &Ask) -> Result<Vec<u8>, Refusal> {
        let greet = Greet::decode(ask.body.as_slice()).map_err(|_form| unknown())?;
        self.0.probes.register(session(&greet.session)?);
        let site = &self.0.site;
        let greeting = Greeting {
            tunnel_port: site.tunnel.port().into(),
            host_name: site.host_name.clone(),
            udp: site.udp,
        };
        Ok(greeting.encode_to_vec())
    }

    async fn relay(
        &self,
        ask: &Ask,
        exporter: &[u8; 32],
        issuer: HostId,
        kind: Kind,
    ) -> Result<Vec<u8>, Refusal> {
        let relayed = Relayed {
            exporter: exporter.to_vec(),
            ask: ask.encode_to_vec(),
        };
        let call = &self.reach()?.call;
        let answer = call(issuer, RELAY_KIND, relayed.encode_to_vec().into()).await;
        let gone = |what: String| {
            Refusal::new(
                "issuer-unreachable",
                format!(
                    "the host that made the token, {}, does not answer: {what}",
                    issuer.short()
                ),
                "start meshd there, or make a token on another authority",
            )
        };
        let answer = answer.map_err(gone)?;
        let answer =
            Answer::decode(answer).map_err(|_form| gone("its answer is malformed".to_owned()))?;
        match answer.refusal {
            Some(refusal) => Err(refusal),
            // Ports are tried from here, so the greeting is this host's.
            None if kind == Kind::Greet => self.greeting(ask),
            None => Ok(answer.body),
        }
    }

    /// Answers a request that another host passed on: this host issued the token.
    pub(crate) async fn relayed(&self, body: Bytes) -> Result<Bytes, String> {
        let malformed = || "the request is malformed".to_owned();
        let relayed = Relayed::decode(body).map_err(|_form| malformed())?;
        let exporter: [u8; 32] = relayed
            .exporter
            .as_slice()
            .try_into()
            .map_err(|_length| malformed())?;
        let ask = Ask::decode(relayed.ask.as_slice()).map_err(|_form| malformed())?;
        let kind = Kind::try_from(ask.kind).unwrap_or(Kind::Unspecified);
        let decided = match kind {
            Kind::Greet | Kind::Request => self.decide(&ask, &exporter, kind).await,
            Kind::Unspecified | Kind::Probe | Kind::Recover => Err(unknown()),
        };
        Ok(finish(decided).encode_to_vec().into())
    }

    /// Tries the joiner's ports; only in a session that greeted with a good token.
    async fn probe(&self, ask: &Ask, peer: SocketAddr) -> Result<Vec<u8>, Refusal> {
        let wanted = Probe::decode(ask.body.as_slice()).map_err(|_form| unknown())?;
        let session = session(&wanted.session)?;
        let mut echo = vec![probe::PROBE];
        echo.extend_from_slice(&session);
        if self.0.probes.echo(&echo).is_none() {
            return Err(unknown());
        }
        let address: IpAddr = wanted.address.parse().unwrap_or_else(|_none| peer.ip());
        let at = |port: u32| {
            u16::try_from(port)
                .ok()
                .filter(|port| *port != 0)
                .map(|port| SocketAddr::new(address, port))
        };
        let tcp = async |port: u32| match at(port) {
            Some(to) => probe::tcp(to, session).await,
            None => true,
        };
        let udp = async |port: u32| match at(port) {
            Some(to) => probe::udp(None, to, session).await,
            None => true,
        };
        let (tcp, udp, tunnel) = tokio::join!(
            tcp(wanted.tcp_port),
            udp(wanted.udp_port),
            tcp(wanted.tunnel_port)
        );
        Ok(Probed {
            tcp,
            udp,
            tunnel,
            address: address.to_string(),
        }
        .encode_to_vec())
    }

    fn recover(&self, ask: &Ask, exporter: &[u8; 32]) -> Result<Vec<u8>, Refusal> {
        let reach = self.reach()?;
        let grant_of = |host| (reach.grant_of)(host);
        admit::recover(&self.0.identity, grant_of, ask, exporter, clock::now_ms())
            .map(|admitted| admitted.encode_to_vec())
    }

    fn reach(&self) -> Result<&Reach, Refusal> {
        self.0.reach.get().ok_or_else(|| {
            Refusal::new(
                "starting",
                "the host is starting",
                "try again in a few seconds",
            )
        })
    }
}

fn silent() -> wire::WireError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

fn finish(answered: Result<Vec<u8>, Refusal>) -> Answer {
    let server_time_ms = clock::now_ms();
    match answered {
        Ok(body) => Answer {
            server_time_ms,
            refusal: None,
            body,
        },
        Err(refusal) => Answer {
            server_time_ms,
            refusal: Some(refusal),
            body: Vec::new(),
        },
    }
}

fn session(bytes: &[u8]) -> Result<[u8; 16], Refusal> {
    bytes.try_into().map_err(|_length| unknown())
}

fn unknown() -> Refusal {
    Refusal::new(
        "bad-request",
        "the request is not understood",
        "use the same version of meshd on both hosts",
    )
}
