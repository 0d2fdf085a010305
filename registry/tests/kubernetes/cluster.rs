//! A real API server with its etcd, as a world of the contract.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use data_encoding::BASE64;
use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{HeaderValue, Method, header};
use mesh_model::config::{Access, SourceConfig, SourceKind, SourceTls};
use mesh_registry::{
    contract::{
        Hook, ID, Registered, Setup, World,
        server::{Plan, Server, authority, free_ports, http as plain},
        wire::{Fault, Wire},
    },
    http::{Client, Credential, Request},
    open::open,
    source::Source,
};
use serde_json::{Value, json};

/// The administrator's token.
pub(crate) const ADMIN: &str = "admin-token";

/// Asks the API server as its administrator, blocking.
pub(crate) struct Admin {
    at: SocketAddr,
    ca: PathBuf,
}

impl Admin {
    /// Each path's answer; anything but a 2xx fails, 404 and 409 where they may be.
    pub(crate) fn ask(&self, all: &[(Method, String, Value)], may_fail: bool) -> Vec<Value> {
        let work = async {
            let client = self.client();
            // A few at a time, the answers in the order of the questions.
            let mut answers = vec![Value::Null; all.len()];
            let mut asked = all.iter().enumerate().collect::<Vec<_>>().into_iter();
            let mut running = FuturesUnordered::new();
            loop {
                while running.len() < 8
                    && let Some((at, (method, path, body))) = asked.next()
                {
                    let one = self.one(&client, method, path, body, may_fail);
                    running.push(async move { (at, one.await) });
                }
                match running.next().await {
                    Some((at, answer)) => answers[at] = answer,
                    None => return answers,
                }
            }
        };
        // The caller is inside a runtime, where nothing may block on another one.
        std::thread::scope(|scope| {
            let run = || {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap()
                    .block_on(work)
            };
            scope.spawn(run).join().unwrap()
        })
    }

    pub(crate) fn client(&self) -> Client {
        let access = Access {
            addresses: vec![format!("https://{}", self.at)],
            tls: SourceTls {
                ca: Some(self.ca.clone()),
                ..SourceTls::default()
            },
            ..Access::default()
        };
        Client::new(&access, Credential::Authorization("Bearer ")).unwrap()
    }

    pub(crate) async fn one(
        &self,
        client: &Client,
        method: &Method,
        path: &str,
        body: &Value,
        may_fail: bool,
    ) -> Value {
        let kind = if *method == Method::PATCH {
            "application/apply-patch+yaml"
        } else {
            "application/json"
        };
        let mut request = Request::get(path)
            .within(Duration::from_secs(20))
            .with(
                header::AUTHORIZATION,
                HeaderValue::try_from(format!("Bearer {ADMIN}")).unwrap(),
            )
            .with(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        request.method = method.clone();
        if !body.is_null() {
            request.body = body.to_string().into();
        }
        let answer = match client.send(&request).await {
            Ok(answer) => answer,
            Err(error) if may_fail => return json!({ "failed": error.to_string() }),
            Err(error) => panic!("{method} {path}: {error:?}"),
        };
        let text = String::from_utf8_lossy(&answer.body);
        assert!(
            may_fail || answer.status.is_success(),
            "{method} {path}: {} {text}",
            answer.status
        );
        serde_json::from_str(&text).unwrap_or_else(|_| json!(text))
    }
}

/// A real API server with its etcd, and the way to it that can be broken.
pub(crate) struct Cluster {
    pub(crate) api: Server,
    store: Server,
    pub(crate) store_at: SocketAddr,
    pub(crate) admin: Admin,
    wire: Wire,
    setup: Setup,
    pub(crate) namespace: &'static str,
    /// The slices of a service by name.
    known: BTreeMap<String, BTreeSet<String>>,
    /// The secret that the client's token is bound to.
    bound: String,
    /// The client's user, where it is another one than its setup says.
    pub(crate) user: Option<Value>,
    /// The client's namespaces and selector.
    pub(crate) only: Vec<String>,
    pub(crate) selector: String,
    /// Whether it reads labels of pods.
    pub(crate) pods: bool,
    /// What Services are labelled with.
    pub(crate) labels: Value,
}

fn etcd(root: &Path) -> (Server, SocketAddr) {
    let [clients, peers] = free_ports();
    let program = root.join("usr/bin/etcd");
    let at = SocketAddr::from(([127, 0, 0, 1], clients));
    let plan = Plan {
        name: "etcd".into(),
        root: root.to_owned(),
        command: Box::new(move |state| {
            let url = |port: u16| format!("http://127.0.0.1:{port}");
            let mut command = Command::new(&program);
            command
                .args([
                    "--name",
                    "lab",
                    "--log-level",
                    "error",
                    "--unsafe-no-fsync",
                    "--data-dir",
                ])
                .arg(state);
            command.args([
                "--listen-client-urls",
                &url(clients),
                "--advertise-client-urls",
                &url(clients),
            ]);
            command.args([
                "--listen-peer-urls",
                &url(peers),
                "--initial-advertise-peer-urls",
                &url(peers),
            ]);
            command.args(["--initial-cluster", &format!("lab={}", url(peers))]);
            command
        }),
        ready: Box::new(move || {
            plain(at, "GET", "/health", &[], "").is_ok_and(|(status, _)| status == 200)
        }),
        within: Duration::from_secs(20),
    };
    (Server::start(plan, tempfile::tempdir().unwrap()), at)
}

/// Writes an authority of clients, and an administrator's certificate and key.
fn client_certificate(folder: &Path) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertifiedIssuer::self_signed(authority, key).unwrap();
    let mut person = rcgen::CertificateParams::new(Vec::new()).unwrap();
    person
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "system:masters");
    person
        .distinguished_name
        .push(rcgen::DnType::CommonName, "me");
    person
        .extended_key_usages
        .push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    let key = rcgen::KeyPair::generate().unwrap();
    let person = person.signed_by(&key, &authority).unwrap();
    fs::write(folder.join("clients.pem"), authority.pem()).unwrap();
    fs::write(folder.join("me.crt"), person.pem()).unwrap();
    fs::write(folder.join("me.key"), key.serialize_pem()).unwrap();
}

impl Cluster {
    pub(crate) fn start(roots: &(PathBuf, PathBuf), setup: Setup) -> Self {
        let (store, store_at) = etcd(&roots.1);
        let folder = tempfile::tempdir().unwrap();
        authority::write(folder.path()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(folder.path().join("account.key"), key.serialize_pem()).unwrap();
        fs::write(folder.path().join("account.pub"), key.public_key_pem()).unwrap();
        fs::write(
            folder.path().join("tokens.csv"),
            format!("{ADMIN},admin,1,\"system:masters\"\n"),
        )
        .unwrap();
        client_certificate(folder.path());
        let [port] = free_ports();
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let (program, files) = (roots.0.join("kube-apiserver"), folder.path().to_owned());
        let admin = || Admin {
            at,
            ca: files.join("ca.pem"),
        };
        let asks = admin();
        let home = files.clone();
        let plan = Plan {
            name: "kube-apiserver".into(),
            root: roots.0.clone(),
            command: Box::new(move |state| {
                let file = |name: &str| files.join(name).display().to_string();
                let mut command = Command::new(&program);
                command.args([
                    "--bind-address=127.0.0.1",
                    "--endpoint-reconciler-type=none",
                    "--authorization-mode=RBAC",
                ]);
                command.args([
                    "--service-cluster-ip-range=10.96.0.0/16",
                    "--service-account-issuer=https://kubernetes.default.svc",
                ]);
                command
                    .arg(format!("--secure-port={port}"))
                    .arg(format!("--etcd-servers=http://{store_at}"));
                command.arg(format!(
                    "--service-account-key-file={}",
                    file("account.pub")
                ));
                command.arg(format!(
                    "--service-account-signing-key-file={}",
                    file("account.key")
                ));
                command.arg(format!("--token-auth-file={}", file("tokens.csv")));
                command.arg(format!("--tls-cert-file={}", file("server.pem")));
                command.arg(format!("--tls-private-key-file={}", file("server.key")));
                // Nobody here makes the accounts that pods must have.
                command.arg("--disable-admission-plugins=ServiceAccount");
                command.arg(format!("--client-ca-file={}", file("clients.pem")));
                command.arg(format!("--cert-dir={}", state.display()));
                command
            }),
            ready: Box::new(move || {
                // The namespace is made by the server itself, a moment after it is ready.
                TcpStream::connect(at).is_ok() && {
                    let path = |path: &str| (Method::GET, path.to_owned(), Value::Null);
                    let said =
                        asks.ask(&[path("/readyz"), path("/api/v1/namespaces/default")], true);
                    said[0] == json!("ok") && said[1]["metadata"]["uid"].is_string()
                }
            }),
            within: Duration::from_secs(90),
        };
        let admin = Admin {
            at,
            ca: home.join("ca.pem"),
        };
        let mut cluster = Self {
            api: Server::start(plan, folder),
            store,
            store_at,
            admin,
            wire: Wire::new(at).unwrap(),
            setup,
            namespace: if setup == Setup::Large {
                "many"
            } else {
                "default"
            },
            known: BTreeMap::new(),
            bound: String::new(),
            user: None,
            only: Vec::new(),
            selector: String::new(),
            pods: false,
            labels: json!({}),
        };
        cluster.prepare();
        cluster
    }

    fn prepare(&mut self) {
        match self.setup {
            Setup::Large => {
                self.create("/api/v1/namespaces", json!({"metadata": {"name": "many"}}));
                self.only = vec!["many".into()];
            }
            Setup::Token => {
                let rbac = "/apis/rbac.authorization.k8s.io/v1";
                let account =
                    json!({"kind": "ServiceAccount", "name": "reader", "namespace": "default"});
                self.create(
                    "/api/v1/namespaces/default/serviceaccounts",
                    json!({"metadata": {"name": "reader"}}),
                );
                self.create(&format!("{rbac}/clusterroles"), json!({"metadata": {"name": "reader"}, "rules": [
                    {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]},
                    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}]}));
                self.create(&format!("{rbac}/clusterrolebindings"), json!({"metadata": {"name": "reader"}, "subjects": [account],
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"}}));
                self.new_token();
            }
            Setup::Plain | Setup::Tls => {}
        }
        self.login();
    }

    fn create(&self, path: &str, body: Value) {
        self.admin
            .ask(&[(Method::POST, path.to_owned(), body)], false);
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.api.folder().join(name)
    }

    /// The reader may read pods too.
    pub(crate) fn allow_pods(&self) {
        let rbac = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
        let rules = json!({"metadata": {}, "rules": [
            {"apiGroups": ["", "discovery.k8s.io"], "resources": ["services", "endpointslices", "pods"], "verbs": ["list", "watch"]}]});
        let role = Self::applied(
            rbac,
            "rbac.authorization.k8s.io/v1",
            "ClusterRole",
            "reader",
            rules,
        );
        self.admin.ask(&[role], false);
    }

    /// An account in `default` that may list and watch in `shop` alone, and a token of it.
    pub(crate) fn narrow_token(&self) -> String {
        let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop";
        let accounts = "/api/v1/namespaces/default/serviceaccounts";
        self.create("/api/v1/namespaces", json!({"metadata": {"name": "shop"}}));
        self.create(accounts, json!({"metadata": {"name": "narrow"}}));
        self.create(&format!("{rbac}/roles"), json!({"metadata": {"name": "narrow"}, "rules": [
            {"apiGroups": ["", "discovery.k8s.io"], "resources": ["services", "endpointslices"], "verbs": ["list", "watch"]}]}));
        let account = json!({"kind": "ServiceAccount", "name": "narrow", "namespace": "default"});
        self.create(&format!("{rbac}/rolebindings"), json!({"metadata": {"name": "narrow"}, "subjects": [account],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "narrow"}}));
        let asked =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let made = self.admin.ask(
            &[(Method::POST, format!("{accounts}/narrow/token"), asked)],
            false,
        );
        made[0]["status"]["token"].as_str().unwrap().to_owned()
    }

    /// A token of the account, bound to a secret: when that is deleted the token is worth nothing.
    fn new_token(&mut self) {
        self.bound = format!("bound-{}", fastrand::u32(..));
        let secrets = "/api/v1/namespaces/default/secrets".to_owned();
        let secret = json!({"metadata": {"name": self.bound}});
        let made = self.admin.ask(&[(Method::POST, secrets, secret)], false);
        let uid = &made[0]["metadata"]["uid"];
        let bound = json!({"apiVersion": "v1", "kind": "Secret", "name": self.bound, "uid": uid});
        let asked = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600, "boundObjectRef": bound}});
        let path = "/api/v1/namespaces/default/serviceaccounts/reader/token".to_owned();
        let made = self.admin.ask(&[(Method::POST, path, asked)], false);
        fs::write(
            self.file("token.new"),
            made[0]["status"]["token"].as_str().unwrap(),
        )
        .unwrap();
        fs::rename(self.file("token.new"), self.file("token")).unwrap();
    }

    /// The client's kubeconfig: roots in a file of their own where they change, else inline.
    pub(crate) fn login(&self) {
        let mut cluster = json!({"server": format!("https://{}", self.wire.address())});
        if self.setup == Setup::Tls {
            cluster["certificate-authority"] = json!("ca.pem");
        } else {
            let roots = fs::read(self.file("ca.pem")).unwrap();
            cluster["certificate-authority-data"] = json!(BASE64.encode(&roots));
        }
        let user = match (&self.user, self.setup) {
            (Some(user), _) => user.clone(),
            (None, Setup::Token) => json!({"tokenFile": "token"}),
            _ => json!({"token": ADMIN}),
        };
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": "lab", "user": user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        });
        fs::write(self.file("config"), config.to_string()).unwrap();
    }

    pub(crate) fn config(&self, id: &str) -> SourceConfig {
        SourceConfig {
            id: id.to_owned(),
            publish: true,
            services: None,
            kind: SourceKind::Kubernetes {
                kubeconfig: Some(self.file("config")),
                context: None,
                namespaces: self.only.clone(),
                selector: self.selector.clone(),
                pod_labels: self.pods,
            },
        }
    }

    fn slices(&self) -> String {
        format!(
            "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
            self.namespace
        )
    }

    /// An object as it is to be, whether it is there or not.
    pub(crate) fn applied(
        path: &str,
        version: &str,
        kind: &str,
        name: &str,
        mut object: Value,
    ) -> (Method, String, Value) {
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        object["metadata"]["name"] = json!(name);
        (
            Method::PATCH,
            format!("{path}/{name}?fieldManager=test&force=true"),
            object,
        )
    }

    fn service(&self, name: &str) -> (Method, String, Value) {
        let path = format!("/api/v1/namespaces/{}/services", self.namespace);
        let object = json!({"metadata": {"labels": self.labels}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
        Self::applied(&path, "v1", "Service", name, object)
    }

    pub(crate) fn slice(
        &self,
        service: &str,
        name: &str,
        family: &str,
        endpoints: &Value,
        port: u16,
    ) -> (Method, String, Value) {
        let labels = json!({"kubernetes.io/service-name": service, "port": port.to_string()});
        let object = json!({"metadata": {"labels": labels}, "addressType": family, "endpoints": endpoints,
            "ports": [{"name": "", "port": port, "protocol": "TCP"}]});
        Self::applied(
            &self.slices(),
            "discovery.k8s.io/v1",
            "EndpointSlice",
            name,
            object,
        )
    }

    /// The slices of a service are these, and no others.
    fn settle(&mut self, service: &str, slices: Vec<(Method, String, Value)>) {
        let name =
            |one: &(Method, String, Value)| one.2["metadata"]["name"].as_str().unwrap().to_owned();
        let names: BTreeSet<String> = slices.iter().map(name).collect();
        let old = self
            .known
            .insert(service.to_owned(), names.clone())
            .unwrap_or_default();
        let over: Vec<&str> = old
            .difference(&names)
            .filter_map(|name| name.rsplit_once('-'))
            .map(|(_, port)| port)
            .collect();
        let mut all = vec![self.service(service)];
        all.extend(slices);
        self.admin.ask(&all, false);
        if !over.is_empty() {
            // One request, so that the server removes them in one go.
            let path = format!(
                "{}?labelSelector=kubernetes.io%2Fservice-name%3D{service},port%20in%20({})",
                self.slices(),
                over.join(",")
            );
            self.admin
                .ask(&[(Method::DELETE, path, Value::Null)], false);
        }
    }
}

impl World for Cluster {
    fn put(&mut self, service: &str, endpoints: &[Registered]) {
        let slice = |one: &Registered| {
            let endpoint =
                json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": one.healthy}}]);
            self.slice(
                service,
                &format!("{service}-{}", one.port),
                "IPv4",
                &endpoint,
                one.port,
            )
        };
        let slices = endpoints.iter().map(slice).collect();
        self.settle(service, slices);
    }
    fn remove(&mut self, service: &str) {
        self.settle(service, Vec::new());
        let path = format!("/api/v1/namespaces/{}/services/{service}", self.namespace);
        self.admin
            .ask(&[(Method::DELETE, path, Value::Null)], false);
    }
    fn garbage(&mut self) {
        self.wire.fault(Fault::Garbage);
    }
    fn break_off(&mut self) {
        self.wire.fault(Fault::Closed);
    }
    fn repair(&mut self) {
        self.wire.fault(Fault::None);
    }
    fn opener(&self) -> Arc<dyn Fn() -> Box<dyn Source> + Send + Sync> {
        let config = self.config(ID);
        Arc::new(move || open(&config))
    }
    fn is_real(&self) -> bool {
        true
    }
    fn patience(&self) -> Duration {
        // The server itself believes a token for ten seconds after it was revoked.
        Duration::from_secs(40)
    }
    fn change(&mut self, service: &str, port: u16) -> Hook {
        let endpoint =
            json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "zone": "b"}]);
        let slice = self.slice(
            service,
            &format!("{service}-{port}"),
            "IPv4",
            &endpoint,
            port,
        );
        self.admin.ask(&[slice], false);
        Ok(())
    }
    fn put_addresses(&mut self, service: &str) -> Hook<Vec<String>> {
        let six = self.slice(
            service,
            &format!("{service}-80"),
            "IPv6",
            &json!([{"addresses": ["fd00::1"]}]),
            80,
        );
        let name = self.slice(
            service,
            &format!("{service}-5432"),
            "FQDN",
            &json!([{"addresses": ["db.test"]}]),
            5432,
        );
        self.settle(service, vec![six, name]);
        Ok(vec!["[fd00::1]:80".into(), "db.test:5432".into()])
    }
    fn fill(&mut self, endpoints: usize) -> Hook {
        let mut all = Vec::new();
        for at in 0..endpoints / 10 {
            let name = format!("s{at}");
            let ten: Vec<Value> = (1..=10)
                .map(|one| json!({"addresses": [format!("10.1.{}.{}", at % 250, one)], "zone": "a", "nodeName": "n1"}))
                .collect();
            all.push(self.service(&name));
            all.push(self.slice(&name, &format!("{name}-x"), "IPv4", &json!(ten), 8080));
        }
        self.admin.ask(&all, false);
        Ok(())
    }
    fn cut(&mut self) -> Hook {
        self.wire.fault(Fault::Cut);
        Ok(())
    }
    fn kill(&mut self) -> Hook {
        self.api.kill();
        Ok(())
    }
    fn start_again(&mut self, keep: bool) -> Hook {
        if !keep {
            self.known.clear();
            self.store.start_again(false);
        }
        self.api.start_again(keep);
        Ok(())
    }
    fn freeze(&mut self) -> Hook {
        self.api.freeze();
        Ok(())
    }
    fn thaw(&mut self) {
        self.api.thaw();
    }
    fn revoke_token(&mut self) -> Hook {
        let path = format!("/api/v1/namespaces/default/secrets/{}", self.bound);
        self.admin
            .ask(&[(Method::DELETE, path, Value::Null)], false);
        Ok(())
    }
    fn rotate_token(&mut self) -> Hook {
        self.new_token();
        Ok(())
    }
    fn rotate_certificate(&mut self) -> Hook {
        self.api.kill();
        authority::write(self.api.folder()).unwrap();
        self.api.start_again(true);
        Ok(())
    }
}
