//! A real API server with its etcd, as a world of the contract.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use data_encoding::BASE64;
use http::Method;
use mesh_model::config::{SourceConfig, SourceKind};
use mesh_registry::{
    contract::{
        Hook, ID, Registered, Setup, World,
        server::{
            Server, authority,
            kubernetes::{self, ADMIN, Admin, Question, applied},
        },
        wire::{Fault, Wire},
    },
    open::open,
    source::Source,
};
use serde_json::{Value, json};

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

impl Cluster {
    pub(crate) fn start(roots: &(PathBuf, PathBuf), setup: Setup) -> Self {
        let started = kubernetes::start(&roots.0, &roots.1, Ipv4Addr::LOCALHOST.into());
        let mut cluster = Self {
            api: started.api,
            store: started.store,
            store_at: started.store_at,
            admin: started.admin,
            wire: Wire::new(started.at).unwrap(),
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
        let role = applied(
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

    fn service(&self, name: &str) -> Question {
        let path = format!("/api/v1/namespaces/{}/services", self.namespace);
        let object = json!({"metadata": {"labels": self.labels}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
        applied(&path, "v1", "Service", name, object)
    }

    pub(crate) fn slice(
        &self,
        service: &str,
        name: &str,
        family: &str,
        endpoints: &Value,
        port: u16,
    ) -> Question {
        let labels = json!({"kubernetes.io/service-name": service, "port": port.to_string()});
        let object = json!({"metadata": {"labels": labels}, "addressType": family, "endpoints": endpoints,
            "ports": [{"name": "", "port": port, "protocol": "TCP"}]});
        applied(
            &self.slices(),
            "discovery.k8s.io/v1",
            "EndpointSlice",
            name,
            object,
        )
    }

    /// The slices of a service are these, and no others.
    fn settle(&mut self, service: &str, slices: Vec<Question>) {
        let name = |one: &Question| one.2["metadata"]["name"].as_str().unwrap().to_owned();
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
