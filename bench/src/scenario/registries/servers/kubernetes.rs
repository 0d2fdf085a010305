//! A real API server with its etcd; what is written there are slices of endpoints.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;
use data_encoding::BASE64;
use http::{HeaderValue, Method, header};
use mesh_model::config::{Access, SourceKind, SourceTls};
use mesh_registry::{
    contract::server::{Plan, Server, authority, free_ports},
    http::{Client, Credential, Request},
};
use serde_json::{Value, json};

use super::{Kind, Standing, etcd, found, local, named};

/// The token of the one who may do everything.
const TOKEN: &str = "bench-token";
/// Where Services are.
const SERVICES: &str = "/api/v1/namespaces/default/services";
/// Where slices are.
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// Writes slices.
pub(super) struct Writer(Box<Client>);

impl Writer {
    fn new(at: SocketAddr, folder: &Path) -> anyhow::Result<Self> {
        let access = Access {
            addresses: vec![format!("https://{at}")],
            tls: SourceTls {
                ca: Some(folder.join("ca.pem")),
                ..SourceTls::default()
            },
            ..Access::default()
        };
        let client = Client::new(&access, Credential::Authorization("Bearer "));
        Ok(Self(Box::new(client?)))
    }

    /// A new slice of a service, with one endpoint.
    pub(super) async fn write(&self, service: &str, address: SocketAddr) -> anyhow::Result<()> {
        let (host, port) = (address.ip(), address.port());
        let labels = json!({"kubernetes.io/service-name": service});
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("{service}-{port}"), "labels": labels},
            "endpoints": [{"addresses": [host.to_string()], "conditions": {"ready": true}}],
            "ports": [{"name": "", "port": port, "protocol": "TCP"}],
        });
        self.ask(Method::POST, SLICES, &slice).await
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<()> {
        let mut request = Request::get(path)
            .within(Duration::from_secs(20))
            .with(
                header::AUTHORIZATION,
                HeaderValue::try_from(format!("Bearer {TOKEN}"))?,
            )
            .with(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
        if method != Method::GET {
            request.body = body.to_string().into();
        }
        request.method = method;
        let answer = self.0.send(&request).await?;
        let text = String::from_utf8_lossy(&answer.body);
        anyhow::ensure!(
            answer.status.is_success(),
            "{path}: {} {text}",
            answer.status
        );
        Ok(())
    }
}

/// Starts both, and makes the Services.
pub(super) fn start() -> anyhow::Result<Standing> {
    let (root, below) = (found("kubernetes")?, found("etcd")?);
    let (plan, store) = etcd(&below);
    let store_server = Server::start(plan, tempfile::tempdir()?);
    let folder = tempfile::tempdir()?;
    prepare(folder.path())?;
    let [port] = free_ports();
    let at = local(port);
    let kubeconfig = folder.path().join("config");
    let writer = Writer::new(at, folder.path())?;
    let plan = plan_of(&root, folder.path().to_owned(), port, store)?;
    let server = Server::start(plan, folder);
    fs::write(&kubeconfig, login(at, &server.folder().join("ca.pem"))?)?;
    let services = Kind::Kubernetes.services();
    blocking(async {
        for at in 0..services {
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("web-{at}")},
                "spec": {"clusterIP": "None", "ports": [{"port": 80}]},
            });
            writer.ask(Method::POST, SERVICES, &service).await?;
        }
        anyhow::Ok(())
    })?;
    Ok(Standing {
        config: named(
            Kind::Kubernetes,
            SourceKind::Kubernetes {
                kubeconfig: Some(kubeconfig),
                context: None,
                namespaces: Vec::new(),
                selector: String::new(),
                pod_labels: false,
            },
        ),
        admin: at,
        writer: super::Writer::Kubernetes(Writer::new(at, server.folder())?),
        services,
        _servers: vec![server, store_server],
        _folder: None,
    })
}

/// The files that it is started with.
fn prepare(folder: &Path) -> anyhow::Result<()> {
    authority::write(folder).map_err(|error| anyhow::anyhow!("certificates: {error}"))?;
    let key = rcgen::KeyPair::generate()?;
    fs::write(folder.join("account.key"), key.serialize_pem())?;
    fs::write(folder.join("account.pub"), key.public_key_pem())?;
    let tokens = format!("{TOKEN},admin,1,\"system:masters\"\n");
    fs::write(folder.join("tokens.csv"), tokens)?;
    Ok(())
}

fn login(at: SocketAddr, ca: &Path) -> anyhow::Result<String> {
    let roots = BASE64.encode(&fs::read(ca)?);
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": format!("https://{at}"), "certificate-authority-data": roots}}],
        "users": [{"name": "lab", "user": {"token": TOKEN}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
    });
    Ok(config.to_string())
}

fn plan_of(root: &Path, folder: PathBuf, port: u16, store: SocketAddr) -> anyhow::Result<Plan> {
    let program = root.join("kube-apiserver");
    let asks = Writer::new(local(port), &folder)?;
    Ok(Plan {
        name: "kube-apiserver".into(),
        root: root.to_owned(),
        command: Box::new(move |state| {
            let file = |name: &str| folder.join(name).display().to_string();
            let mut command = Command::new(&program);
            command.args([
                "--bind-address=127.0.0.1",
                // Where there is no way out of the machine it finds no address of its own.
                "--advertise-address=127.0.0.1",
                "--endpoint-reconciler-type=none",
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--service-account-issuer=https://kubernetes.default.svc",
            ]);
            command.args([
                format!("--secure-port={port}"),
                format!("--etcd-servers=http://{store}"),
                format!("--service-account-key-file={}", file("account.pub")),
                format!("--service-account-signing-key-file={}", file("account.key")),
                format!("--token-auth-file={}", file("tokens.csv")),
                format!("--tls-cert-file={}", file("server.pem")),
                format!("--tls-private-key-file={}", file("server.key")),
                format!("--cert-dir={}", state.display()),
            ]);
            command
        }),
        // It makes the namespace itself, a moment after it is ready.
        ready: Box::new(move || {
            let there = async {
                asks.ask(Method::GET, "/readyz", &Value::Null).await?;
                asks.ask(Method::GET, "/api/v1/namespaces/default", &Value::Null)
                    .await
            };
            blocking(there).is_ok()
        }),
        within: Duration::from_secs(90),
    })
}

/// Runs it to its end, on a thread of its own: the caller is inside a runtime.
fn blocking<T: Send>(work: impl Future<Output = anyhow::Result<T>> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let run = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(work)
        };
        let done = scope.spawn(run).join();
        done.ok().context("the thread ended early")?
    })
}
