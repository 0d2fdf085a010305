//! Many requests at a time, against a server that answers when it is told to.

use std::{
    convert::Infallible,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use hyper::{
    server::conn::{http1 as serve_one, http2 as serve_many},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use mesh_model::config::Access;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;
use crate::{
    contract::server::authority,
    http::{Client, Credential, Request as Question, dial::Workers},
};

/// A server, what it may do, and what it saw.
struct Server {
    address: String,
    connections: Arc<AtomicUsize>,
    waiting: Arc<watch::Sender<usize>>,
    go: Arc<watch::Sender<bool>>,
}

impl Server {
    /// Speaks what it is told inside TLS.
    async fn start(folder: &Path, protocol: &str) -> Self {
        let chain = CertificateDer::pem_file_iter(folder.join("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: format!("https://{}", listener.local_addr().unwrap()),
            connections: Arc::default(),
            waiting: Arc::new(watch::channel(0).0),
            go: Arc::new(watch::channel(false).0),
        };
        let (connections, waiting, go) = (
            Arc::clone(&server.connections),
            Arc::clone(&server.waiting),
            Arc::clone(&server.go),
        );
        let workers = Workers {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let many = protocol == "h2";
        workers.clone().tracker.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (acceptor, waiting, go) =
                    (acceptor.clone(), Arc::clone(&waiting), Arc::clone(&go));
                let own = workers.clone();
                workers.tracker.spawn(async move {
                    let stream = TokioIo::new(acceptor.accept(stream).await.unwrap());
                    let service = service_fn(move |_request| {
                        let mut go = go.subscribe();
                        waiting.send_modify(|now| *now += 1);
                        async move {
                            drop(go.wait_for(|go| *go).await);
                            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("yes"))))
                        }
                    });
                    if many {
                        let made = serve_many::Builder::new(own);
                        drop(made.serve_connection(stream, service).await);
                    } else {
                        let made = serve_one::Builder::new();
                        drop(made.serve_connection(stream, service).await);
                    }
                });
            }
        });
        server
    }

    async fn waits_for(&self, requests: usize) {
        let mut waiting = self.waiting.subscribe();
        let all = waiting.wait_for(|now| *now >= requests);
        let came = tokio::time::timeout(Duration::from_secs(20), all).await;
        assert!(
            came.is_ok(),
            "{} of {requests} came",
            *self.waiting.borrow()
        );
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn pair(protocol: &str) -> (Server, Arc<Client>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    authority::write(folder.path()).unwrap();
    let server = Server::start(folder.path(), protocol).await;
    let mut access = Access {
        addresses: vec![server.address.clone()],
        ..Access::default()
    };
    access.tls.ca = Some(folder.path().join("ca.pem"));
    let client = Client::new(&access, Credential::Authorization("Bearer "))
        .unwrap()
        .sharing();
    (server, Arc::new(client), folder)
}

fn ask(client: &Arc<Client>, requests: usize) -> JoinSet<Bytes> {
    let mut all = JoinSet::new();
    for _ in 0..requests {
        let client = Arc::clone(client);
        all.spawn(async move {
            let question = Question::get("/x?y=1").within(Duration::from_mins(1));
            client.send(&question).await.unwrap().body
        });
    }
    all
}

#[tokio::test]
async fn a_hundred_requests_share_a_connection() {
    let (server, client, _folder) = pair("h2").await;
    let asked = ask(&client, 2 * MAX_STREAMS + 50);
    server.waits_for(2 * MAX_STREAMS + 50).await;
    assert_eq!(server.connections(), 3);
    drop(asked);
    // Those that were given up make room; whether the server heard of it yet is its own affair.
    let all = ask(&client, 3 * MAX_STREAMS);
    server.waits_for(5 * MAX_STREAMS + 50).await;
    assert_eq!(server.connections(), 3);
    server.go.send_replace(true);
    assert!(all.join_all().await.iter().all(|body| body == "yes"));
    client.redial();
    ask(&client, 1).join_all().await;
    assert_eq!(server.connections(), 4);
}

#[tokio::test]
async fn a_server_of_one_at_a_time_gets_a_connection_each() {
    let (server, client, _folder) = pair("http/1.1").await;
    let asked = ask(&client, 5);
    server.waits_for(5).await;
    assert_eq!(server.connections(), 5);
    server.go.send_replace(true);
    assert_eq!(asked.join_all().await.len(), 5);
    ask(&client, 2).join_all().await;
    assert_eq!(server.connections(), 5, "they are used again");
}
