//! Certificates in files, read again when they change.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use mesh_model::config::SourceTls;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{HttpError, secret::Stamp};

/// Where systems keep the roots that they trust.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Certificates that are in no file, as PEM.
#[derive(Clone, Default)]
pub struct Pem {
    /// Roots that the registry's certificate must lead to.
    pub ca: Option<String>,
    /// Own certificate chain and key.
    pub own: Option<(String, String)>,
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pem").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Loaded {
    stamps: Vec<Stamp>,
    config: Arc<ClientConfig>,
    generation: u64,
}

/// The certificates for one registry.
#[derive(Debug)]
pub(crate) struct Tls {
    files: SourceTls,
    /// What is offered inside TLS (ALPN); none: nothing is.
    protocols: Vec<Vec<u8>>,
    pem: Pem,
    loaded: Mutex<Option<Loaded>>,
}

fn wrong(path: &Path, what: &dyn std::fmt::Display) -> HttpError {
    HttpError::File {
        path: path.display().to_string(),
        what: what.to_string(),
    }
}

impl Tls {
    pub(crate) fn new(files: &SourceTls, pem: Pem) -> Self {
        Self {
            files: files.clone(),
            protocols: Vec::new(),
            pem,
            loaded: Mutex::default(),
        }
    }

    /// Offers these protocols inside TLS, such as `h2`.
    pub(crate) fn speaking(mut self, protocols: &[&str]) -> Self {
        self.protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        self
    }

    /// A number that is another one once the certificates are.
    pub(crate) fn generation(&self) -> Result<u64, HttpError> {
        Ok(self.current()?.1)
    }

    /// A stream secured with what the files hold now.
    pub(crate) async fn secure(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, HttpError> {
        let (config, _) = self.current()?;
        let name = self.files.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_cause| HttpError::Request(name.to_owned()))?;
        TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(HttpError::Connect)
    }

    fn current(&self) -> Result<(Arc<ClientConfig>, u64), HttpError> {
        let roots = self.roots()?;
        let mut stamps = Vec::new();
        let own = [&self.files.certificate, &self.files.key];
        for path in roots.iter().chain(own.into_iter().flatten()) {
            stamps.push(Stamp::of(path)?);
        }
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = loaded.as_ref().filter(|known| known.stamps == stamps) {
            return Ok((Arc::clone(&known.config), known.generation));
        }
        let generation = loaded.as_ref().map_or(1, |known| known.generation + 1);
        let config = match self.load(roots.as_deref()) {
            Ok(mut config) => {
                config.alpn_protocols.clone_from(&self.protocols);
                Arc::new(config)
            }
            // Certificate and key are seldom written at one moment: until they fit, the old ones serve.
            Err(error) => {
                let Some(known) = loaded.as_ref() else {
                    return Err(error);
                };
                return Ok((Arc::clone(&known.config), known.generation));
            }
        };
        *loaded = Some(Loaded {
            stamps,
            config: Arc::clone(&config),
            generation,
        });
        Ok((config, generation))
    }

    /// The file with the roots; none when they are in memory.
    fn roots(&self) -> Result<Option<PathBuf>, HttpError> {
        if self.pem.ca.is_some() {
            return Ok(None);
        }
        if let Some(ca) = &self.files.ca {
            return Ok(Some(ca.clone()));
        }
        let found = SYSTEM.iter().map(PathBuf::from).find(|path| path.exists());
        let missing = || wrong(Path::new(SYSTEM[0]), &"the system has no roots; set ca");
        Ok(Some(found.ok_or_else(missing)?))
    }

    fn load(&self, roots: Option<&Path>) -> Result<ClientConfig, HttpError> {
        let mut store = RootCertStore::empty();
        let place = roots.unwrap_or_else(|| Path::new("the given roots"));
        let certificates: Vec<_> = match (roots, &self.pem.ca) {
            (None, Some(pem)) => CertificateDer::pem_slice_iter(pem.as_bytes())
                .filter_map(Result::ok)
                .collect(),
            _ => CertificateDer::pem_file_iter(place)
                .map_err(|error| wrong(place, &error))?
                .filter_map(Result::ok)
                .collect(),
        };
        store.add_parsable_certificates(certificates);
        if store.is_empty() {
            return Err(wrong(place, &"no certificate in it"));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(place, &error))?
            .with_root_certificates(store);
        if let Some((certificate, key)) = &self.pem.own {
            let place = Path::new("the given certificate");
            let chain: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
            let chain = chain.map_err(|error| wrong(place, &error))?;
            let secret = PrivateKeyDer::from_pem_slice(key.as_bytes())
                .map_err(|_cause| wrong(Path::new("the given key"), &"no private key in it"))?;
            return builder
                .with_client_auth_cert(chain, secret)
                .map_err(|error| wrong(place, &error));
        }
        match (&self.files.certificate, &self.files.key) {
            (Some(certificate), Some(key)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate)
                    .map_err(|error| wrong(certificate, &error))?
                    .collect();
                let chain = chain.map_err(|error| wrong(certificate, &error))?;
                // The parser's error could quote the file; a key is never quoted.
                let secret = PrivateKeyDer::from_pem_file(key)
                    .map_err(|_cause| wrong(key, &"no private key in it"))?;
                builder
                    .with_client_auth_cert(chain, secret)
                    .map_err(|error| wrong(key, &error))
            }
            _ => Ok(builder.with_no_client_auth()),
        }
    }
}
