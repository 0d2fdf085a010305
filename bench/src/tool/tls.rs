//! Idle mTLS connections: each is opened, does one HTTP/2 request, and is kept until this program is ended.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use serde_json::json;
use tokio::{net::TcpStream, task::LocalSet};
use tokio_rustls::TlsConnector;

use super::{Words, print};

/// Connections that are opened at a time.
const AT_ONCE: usize = 4;

/// `address`, `name` (SNI), `alpn`, `pem` (key and chain), `host` and `target` of the request, `count`.
pub(crate) fn run(words: &Words) -> anyhow::Result<()> {
    let address: SocketAddr = words.text("address")?.parse()?;
    let name = ServerName::try_from(words.text("name")?.to_owned())?;
    let connector = TlsConnector::from(Arc::new(config(words)?));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let count: u32 = words.number("count")?;
        let mut kept = Vec::new();
        while kept.len() < usize::try_from(count)? {
            let missing = usize::try_from(count)?
                .saturating_sub(kept.len())
                .min(AT_ONCE);
            let several = (0..missing).map(|_| open(&connector, address, name.clone(), words));
            let opened = futures_util::future::try_join_all(several.map(Box::pin));
            let opened = tokio::time::timeout(Duration::from_secs(20), opened).await?;
            kept.extend(opened.with_context(|| format!("after {} connections", kept.len()))?);
        }
        print(&json!({ "held": kept.len() }))?;
        std::future::pending().await
    })
}

async fn open(
    connector: &TlsConnector,
    address: SocketAddr,
    name: ServerName<'static>,
    words: &Words,
) -> anyhow::Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = connector.connect(name, stream).await?;
    let (mut sender, connection) = h2::client::handshake(stream).await?;
    tokio::task::spawn_local(async move {
        drop(connection.await);
    });
    let request = Request::get(format!("http://{}/", words.text("host")?))
        .header("mesh-target", words.text("target")?)
        .header("mesh-http", "1")
        .body(())?;
    let (answer, _) = sender.send_request(request, true)?;
    let answer = answer.await?;
    ensure!(answer.status() == 200, "{answer:?}");
    let mut body = answer.into_body();
    while let Some(piece) = body.data().await {
        body.flow_control().release_capacity(piece?.len())?;
    }
    Ok(sender)
}

fn config(words: &Words) -> anyhow::Result<ClientConfig> {
    let pem = std::fs::read(words.text("pem")?)?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&pem)?)?;
    config.alpn_protocols = vec![words.text("alpn")?.as_bytes().to_vec()];
    Ok(config)
}

/// Believes every server: only its memory is looked at.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
