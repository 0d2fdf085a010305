//! A real API server with its etcd; what is written there are slices of endpoints.

use std::{fs, net::SocketAddr, path::Path};

use data_encoding::BASE64;
use http::Method;
use mesh_model::config::SourceKind;
use mesh_registry::{
    contract::server::kubernetes::{self, ADMIN, Admin, Question},
    http::Client,
};
use serde_json::json;

use super::{HERE, Kind, Standing, found, named, store};

/// Where Services are.
const SERVICES: &str = "/api/v1/namespaces/default/services";
/// Where slices are.
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// Writes slices.
pub(super) struct Writer {
    admin: Admin,
    client: Client,
}

impl Writer {
    /// A new slice of a service, with one endpoint.
    pub(super) async fn write(&self, service: &str, address: SocketAddr) {
        let (host, port) = (address.ip(), address.port());
        let labels = json!({"kubernetes.io/service-name": service});
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("{service}-{port}"), "labels": labels},
            "endpoints": [{"addresses": [host.to_string()], "conditions": {"ready": true}}],
            "ports": [{"name": "", "port": port, "protocol": "TCP"}],
        });
        let asked = self
            .admin
            .one(&self.client, &Method::POST, SLICES, &slice, false);
        asked.await;
    }
}

/// Starts both, and makes the Services.
pub(super) fn start() -> anyhow::Result<Standing> {
    let cluster = kubernetes::over(&found("kubernetes")?, store()?, HERE);
    let kubeconfig = cluster.api.folder().join("config");
    let ca = cluster.api.folder().join("ca.pem");
    fs::write(&kubeconfig, login(cluster.at, &ca)?)?;
    let services = Kind::Kubernetes.services();
    let service = |at: u16| -> Question {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("web-{at}")},
            "spec": {"clusterIP": "None", "ports": [{"port": 80}]},
        });
        (Method::POST, SERVICES.to_owned(), service)
    };
    let all: Vec<Question> = (0..services).map(service).collect();
    cluster.admin.ask(&all, false);
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
        admin: cluster.at,
        writer: super::Writer::Kubernetes(Box::new(Writer {
            client: cluster.admin.client(),
            admin: cluster.admin,
        })),
        services,
        _servers: vec![cluster.api, cluster.store],
        _folder: None,
    })
}

fn login(at: SocketAddr, ca: &Path) -> anyhow::Result<String> {
    let roots = BASE64.encode(&fs::read(ca)?);
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": format!("https://{at}"), "certificate-authority-data": roots}}],
        "users": [{"name": "lab", "user": {"token": ADMIN}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
    });
    Ok(config.to_string())
}
