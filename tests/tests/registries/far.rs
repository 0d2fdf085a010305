//! The real servers beside the mesh, each with the services of one row of the table.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use data_encoding::BASE64;
use mesh_registry::contract::{
    Setup,
    server::{
        Server, Started, consul, dnsmasq, etcd, eureka, kubernetes, needed, told,
        zookeeper::{
            self,
            client::{Change, Client, Owner},
        },
    },
};
use mesh_tests::wait::within;
use serde_json::{Value, json};

use super::PORT;

/// Where the registries are: this end of the bridge.
const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 254));
/// How often Eureka is asked for what changed.
pub(super) const EUREKA_POLL: Duration = Duration::from_secs(5);
/// Longest time in which a server that is back takes a change.
const TAKEN: Duration = Duration::from_mins(2);
/// The folders of `ZooKeeper`'s services, by kind.
const FOLDERS: [(&str, &str); 3] = [
    ("serverset", "/discovery"),
    ("zk-leader", "/leaders"),
    ("curator", "/services"),
];

/// A registry that runs beside the mesh.
pub(super) trait Far {
    /// The services that stand in it, each of a source of its own.
    fn services(&self) -> Vec<String>;
    /// Its `[[source]]`s.
    fn sources(&self) -> String;
    /// Each of its services is these addresses from now on.
    fn set(&mut self, addresses: &[String]);
    /// Its process.
    fn server(&mut self) -> &mut Server;
}

/// The kinds of servers, those first that take long to start.
pub(super) const KINDS: [&str; 6] = ["eureka", "kubernetes", "zookeeper", "consul", "etcd", "dns"];

/// True when this machine has what the kind needs; what it lacks is said.
pub(super) fn is_there(kind: &str) -> bool {
    let test = format!("registries::{kind}");
    let needs: &[&str] = match kind {
        "kubernetes" => &["kubernetes", "etcd"],
        "dns" => &["dnsmasq"],
        _ => &[kind],
    };
    needs.iter().all(|name| needed(name, &test).is_some())
}

fn root(name: &str) -> PathBuf {
    needed(name, "registries").unwrap()
}

/// Starts a server of a kind; `mark` ends the names of its services.
pub(super) fn start(kind: &str, mark: &str) -> Box<dyn Far> {
    let service = format!("{kind}-{mark}");
    match kind {
        "eureka" => Box::new(Eureka(
            eureka::start(&root("eureka"), NEAR, Setup::Plain),
            service,
        )),
        "kubernetes" => Box::new(Kubernetes(
            kubernetes::start(&root("kubernetes"), &root("etcd"), NEAR),
            service,
        )),
        "zookeeper" => Box::new(ZooKeeper(
            zookeeper::start(&root("zookeeper"), NEAR, Setup::Plain, false),
            mark.to_owned(),
        )),
        "consul" => Box::new(Consul::start(&service)),
        "etcd" => Box::new(Etcd(
            etcd::start(&root("etcd"), NEAR, Setup::Plain),
            service,
        )),
        _ => Box::new(Dns(dnsmasq::start(&root("dnsmasq"), NEAR), service)),
    }
}

/// A source that is named by its service.
fn source(kind: &str, service: &str, keys: &str) -> String {
    format!("[[source]]\nid = \"{kind}/{service}\"\nkind = \"{kind}\"\n{keys}\n")
}

pub(super) struct Consul(Started, String);

impl Consul {
    /// An agent whose service, and so its source, has this name.
    pub(super) fn start(service: &str) -> Self {
        Self(
            consul::start(&root("consul"), NEAR, Setup::Plain),
            service.to_owned(),
        )
    }
    /// Where tests ask it.
    pub(super) fn admin(&self) -> SocketAddr {
        self.0.admin
    }
}

impl Far for Consul {
    fn services(&self) -> Vec<String> {
        vec![self.1.clone()]
    }
    fn sources(&self) -> String {
        let keys = format!("addresses = [\"http://{}\"]", self.0.to);
        source("consul", &self.1, &keys)
    }
    fn set(&mut self, addresses: &[String]) {
        for address in addresses {
            let body = json!({"ID": address, "Name": self.1, "Address": address, "Port": PORT,
                "Meta": {"protocol": "http"}});
            let path = "/v1/agent/service/register";
            told(self.0.admin, "PUT", path, &[], &body.to_string());
        }
    }
    fn server(&mut self) -> &mut Server {
        &mut self.0.server
    }
}

struct Etcd(Started, String);

impl Far for Etcd {
    fn services(&self) -> Vec<String> {
        vec![self.1.clone()]
    }
    fn sources(&self) -> String {
        let keys = format!("addresses = [\"http://{}\"]", self.0.to);
        source("etcd", &self.1, &keys)
    }
    fn set(&mut self, addresses: &[String]) {
        for address in addresses {
            let key = format!("/meshd/v1/services/default/{}/{address}", self.1);
            let value = json!({"address": format!("{address}:{PORT}"), "protocol": "http"});
            let body = json!({
                "key": BASE64.encode(key.as_bytes()),
                "value": BASE64.encode(value.to_string().as_bytes()),
            });
            told(self.0.admin, "POST", "/v3/kv/put", &[], &body.to_string());
        }
    }
    fn server(&mut self) -> &mut Server {
        &mut self.0.server
    }
}

struct Eureka(Started, String);

impl Far for Eureka {
    fn services(&self) -> Vec<String> {
        vec![self.1.clone()]
    }
    fn sources(&self) -> String {
        let keys = format!(
            "addresses = [\"http://{}/eureka\"]\npoll = \"{}s\"",
            self.0.to,
            EUREKA_POLL.as_secs()
        );
        source("eureka", &self.1, &keys)
    }
    fn set(&mut self, addresses: &[String]) {
        for address in addresses {
            let body = eureka::instance(address, &self.1, (address, PORT), true, "a").to_string();
            let path = format!("/eureka/apps/{}", self.1.to_uppercase());
            let fields = [("Content-Type", "application/json")];
            told(self.0.admin, "POST", &path, &fields, &body);
        }
    }
    fn server(&mut self) -> &mut Server {
        &mut self.0.server
    }
}

struct Dns(Started, String);

impl Far for Dns {
    fn services(&self) -> Vec<String> {
        vec![self.1.clone()]
    }
    fn sources(&self) -> String {
        let keys = format!(
            "servers = [\"{}\"]\n[[source.record]]\nservice = \"{1}\"\nname = \"_{1}._tcp.mesh.test\"",
            self.0.to, self.1
        );
        source("dns", &self.1, &keys)
    }
    fn set(&mut self, addresses: &[String]) {
        let mut lines = String::new();
        for (number, address) in addresses.iter().enumerate() {
            writeln!(
                lines,
                "host-record=h{number}.mesh.test,{address},1\nsrv-host=_{}._tcp.mesh.test,h{number}.mesh.test,{PORT},0,1",
                self.1
            )
            .unwrap();
        }
        dnsmasq::write(&self.0.server, &lines);
        self.0.server.start_again(true);
    }
    fn server(&mut self) -> &mut Server {
        &mut self.0.server
    }
}

/// Serversets, leaders and Curator in one server.
struct ZooKeeper(Started, String);

impl Far for ZooKeeper {
    fn services(&self) -> Vec<String> {
        let name = |(kind, _): &(&str, &str)| format!("{kind}-{}", self.1);
        FOLDERS.iter().map(name).collect()
    }
    fn sources(&self) -> String {
        let keys = format!("addresses = [\"{}\"]", self.0.to);
        let kinds = FOLDERS.iter().zip(self.services());
        kinds
            .map(|((kind, _), service)| source(kind, &service, &keys))
            .collect()
    }
    fn set(&mut self, addresses: &[String]) {
        let mut client = Client::open(self.0.admin, &[]).unwrap();
        for ((kind, folder), service) in FOLDERS.iter().zip(self.services()) {
            let place = format!("{folder}/{service}");
            for (name, text) in nodes(kind, addresses) {
                put(&mut client, &place, &name, &text);
            }
        }
    }
    fn server(&mut self) -> &mut Server {
        &mut self.0.server
    }
}

/// Names and data of the nodes below a service.
fn nodes(kind: &str, addresses: &[String]) -> Vec<(String, String)> {
    if kind == "zk-leader" {
        // One leader, who is at several addresses.
        let all: Vec<String> = addresses
            .iter()
            .map(|one| format!("{one}:{PORT}"))
            .collect();
        return vec![("member_0000000001".to_owned(), all.join(","))];
    }
    let text = |(at, address): (usize, &String)| match kind {
        "serverset" => (
            format!("member_{at:010}"),
            json!({"serviceEndpoint": {"host": address, "port": PORT}, "additionalEndpoints": {},
                "status": "ALIVE", "shard": at}),
        ),
        _ => (
            format!("i-{at}"),
            json!({"name": "x", "id": format!("i-{at}"), "address": address, "port": PORT,
                "sslPort": Value::Null, "payload": Value::Null, "registrationTimeUTC": 1_795_229_900_488_u64,
                "serviceType": "DYNAMIC", "uriSpec": Value::Null}),
        ),
    };
    let all = addresses.iter().enumerate().map(text);
    all.map(|(name, text)| (name, text.to_string())).collect()
}

/// Writes a node that stays, and those above it.
fn put(client: &mut Client, place: &str, name: &str, text: &str) {
    let mut path = String::new();
    for part in place.split('/').skip(1) {
        path = format!("{path}/{part}");
        if client.children(&path).unwrap().is_none() {
            let made = Change::Create(path.clone(), Vec::new(), Owner::World);
            client.change(&[made]).unwrap();
        }
    }
    let there = client.children(&path).unwrap().unwrap_or_default();
    let (path, text) = (format!("{path}/{name}"), text.as_bytes().to_vec());
    let change = if there.iter().any(|one| one == name) {
        Change::Set(path, text)
    } else {
        Change::Create(path, text, Owner::World)
    };
    client.change(&[change]).unwrap();
}

struct Kubernetes(kubernetes::Cluster, String);

impl Far for Kubernetes {
    fn services(&self) -> Vec<String> {
        vec![self.1.clone()]
    }
    fn sources(&self) -> String {
        let folder = self.0.api.folder();
        let cluster = json!({"server": format!("https://{}", self.0.at), "certificate-authority": "ca.pem",
            "tls-server-name": "localhost"});
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": "lab", "user": {"token": kubernetes::ADMIN}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        });
        let file = folder.join("config");
        fs::write(&file, config.to_string()).unwrap();
        let keys = format!(
            "namespaces = [\"default\"]\nkubeconfig = \"{}\"",
            file.display()
        );
        source("kubernetes", &self.1, &keys)
    }
    fn set(&mut self, addresses: &[String]) {
        let service = json!({"spec": {"clusterIP": "None", "ports": [{"port": PORT, "appProtocol": "http"}]}});
        let endpoint = |address| json!({"addresses": [address]});
        let endpoints: Vec<Value> = addresses.iter().map(endpoint).collect();
        let slice = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": self.1}},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "", "port": PORT, "protocol": "TCP", "appProtocol": "http"}],
        });
        let questions = [
            kubernetes::applied(
                "/api/v1/namespaces/default/services",
                "v1",
                "Service",
                &self.1,
                service,
            ),
            kubernetes::applied(
                "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
                "discovery.k8s.io/v1",
                "EndpointSlice",
                &self.1,
                slice,
            ),
        ];
        // One that stood still takes its first connections late.
        within(TAKEN, || {
            let answers = self.0.admin.ask(&questions, true);
            let kinds = answers.iter().map(|answer| answer["kind"].as_str());
            let taken = kinds.eq([Some("Service"), Some("EndpointSlice")]);
            anyhow::ensure!(taken, "{answers:?}");
            Ok(())
        })
        .unwrap();
    }
    fn server(&mut self) -> &mut Server {
        &mut self.0.api
    }
}
