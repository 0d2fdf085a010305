//! A Kubernetes API server with its etcd, and its administrator.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{HeaderValue, Method, header};
use mesh_model::config::{Access, SourceTls};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use serde_json::{Value, json};

use super::{Plan, Server, Started, authority, etcd, free_ports, sure};
use crate::{
    contract::Setup,
    http::{Client, Credential, Request},
};

/// The administrator's token.
pub const ADMIN: &str = "admin-token";

/// A question: method, path, body; `Null` is none.
pub type Question = (Method, String, Value);

/// Asks the API server as its administrator, blocking.
#[derive(Debug, Clone)]
pub struct Admin {
    at: SocketAddr,
    ca: PathBuf,
}

impl Admin {
    /// Each question's answer; anything but a 2xx fails the test, unless it may.
    pub fn ask(&self, all: &[Question], may_fail: bool) -> Vec<Value> {
        let work = async {
            let client = self.client();
            // A few at a time, the answers in the order of the questions.
            let mut answers = vec![Value::Null; all.len()];
            let mut asked = all.iter().enumerate();
            let mut running = FuturesUnordered::new();
            loop {
                while running.len() < 8
                    && let Some((at, (method, path, body))) = asked.next()
                {
                    let one = self.one(&client, method, path, body, may_fail);
                    running.push(async move { (at, one.await) });
                }
                let Some((at, answer)) = running.next().await else {
                    return answers;
                };
                if let Some(place) = answers.get_mut(at) {
                    *place = answer;
                }
            }
        };
        // The caller is inside a runtime, where nothing may block on another one.
        std::thread::scope(|scope| {
            let run = || {
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                sure(runtime.enable_all().build()).block_on(work)
            };
            match scope.spawn(run).join() {
                Ok(answers) => answers,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// A client that trusts the server.
    pub fn client(&self) -> Client {
        let access = Access {
            addresses: vec![format!("https://{}", self.at)],
            tls: SourceTls {
                ca: Some(self.ca.clone()),
                server_name: Some("localhost".into()),
                ..SourceTls::default()
            },
            ..Access::default()
        };
        sure(Client::new(&access, Credential::Authorization("Bearer ")))
    }

    /// One answer; changes (`PATCH`) are applied as a whole.
    #[expect(clippy::panic, reason = "a server that refuses its test fails it")]
    pub async fn one(
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
                sure(HeaderValue::try_from(format!("Bearer {ADMIN}"))),
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

/// An object as it is to be, whether it is there or not.
pub fn applied(path: &str, version: &str, kind: &str, name: &str, mut object: Value) -> Question {
    let own = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
    merge(&mut object, own);
    let path = format!("{path}/{name}?fieldManager=test&force=true");
    (Method::PATCH, path, object)
}

/// Puts the members of one object into another, and so on within them.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A server that was started, and what it keeps its objects in.
#[derive(Debug)]
pub struct Cluster {
    /// The API server; it has the files of its clients in its folder: `ca.pem`, `me.crt`, `me.key`.
    pub api: Server,
    /// Its etcd.
    pub store: Server,
    /// Where that one is asked.
    pub store_at: SocketAddr,
    /// Where the API server listens.
    pub at: SocketAddr,
    /// Its administrator.
    pub admin: Admin,
}

/// Starts both; the API server listens at `ip`, with a certificate for `localhost` and 127.0.0.1.
pub fn start(root: &Path, etcd_root: &Path, ip: IpAddr) -> Cluster {
    let store = etcd::start(etcd_root, IpAddr::from([127, 0, 0, 1]), Setup::Plain);
    over(root, store, ip)
}

/// As [`start`], over an etcd that runs.
pub fn over(root: &Path, store: Started, ip: IpAddr) -> Cluster {
    let folder = super::folder();
    let home = folder.path().to_owned();
    sure(authority::write(&home));
    accounts(&home);
    let [port] = free_ports();
    let at = SocketAddr::new(ip, port);
    let admin = Admin {
        at,
        ca: home.join("ca.pem"),
    };
    let (program, store_at, asks) = (root.join("kube-apiserver"), store.admin, admin.clone());
    let plan = Plan {
        name: "kube-apiserver".into(),
        root: root.to_owned(),
        command: Box::new(move |state| {
            let file = |name: &str| home.join(name).display().to_string();
            let mut command = Command::new(&program);
            command.args([
                "--endpoint-reconciler-type=none",
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--service-account-issuer=https://kubernetes.default.svc",
                // Nobody here makes the accounts that pods must have.
                "--disable-admission-plugins=ServiceAccount",
            ]);
            for (key, value) in [
                ("bind-address", ip.to_string()),
                // Where there is no way out of the machine it finds no address of its own.
                ("advertise-address", ip.to_string()),
                ("secure-port", port.to_string()),
                ("etcd-servers", format!("http://{store_at}")),
                ("service-account-key-file", file("account.pub")),
                ("service-account-signing-key-file", file("account.key")),
                ("token-auth-file", file("tokens.csv")),
                ("tls-cert-file", file("server.pem")),
                ("tls-private-key-file", file("server.key")),
                ("client-ca-file", file("clients.pem")),
                ("cert-dir", state.display().to_string()),
            ] {
                command.arg(format!("--{key}={value}"));
            }
            command
        }),
        ready: Box::new(move || {
            // The namespace is made by the server itself, a moment after it is ready.
            let path = |path: &str| (Method::GET, path.to_owned(), Value::Null);
            let questions = [path("/readyz"), path("/api/v1/namespaces/default")];
            TcpStream::connect(at).is_ok()
                && matches!(asks.ask(&questions, true).as_slice(), [ready, space]
                    if *ready == json!("ok") && space.pointer("/metadata/uid").is_some())
        }),
        within: Duration::from_secs(90),
    };
    Cluster {
        api: Server::start(plan, folder),
        store: store.server,
        store_at,
        at,
        admin,
    }
}

/// The server's key for accounts, its administrator's token, certificate and key.
fn accounts(folder: &Path) {
    let write = |name: &str, text: String| sure(fs::write(folder.join(name), text));
    let key = sure(KeyPair::generate());
    write("account.key", key.serialize_pem());
    write("account.pub", key.public_key_pem());
    write(
        "tokens.csv",
        format!("{ADMIN},admin,1,\"system:masters\"\n"),
    );
    let mut authority = sure(CertificateParams::new(Vec::new()));
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = sure(CertifiedIssuer::self_signed(
        authority,
        sure(KeyPair::generate()),
    ));
    let mut person = sure(CertificateParams::new(Vec::new()));
    let name = &mut person.distinguished_name;
    name.push(DnType::OrganizationName, "system:masters");
    name.push(DnType::CommonName, "me");
    person
        .extended_key_usages
        .push(ExtendedKeyUsagePurpose::ClientAuth);
    let key = sure(KeyPair::generate());
    let person = sure(person.signed_by(&key, &authority));
    write("clients.pem", authority.pem());
    write("me.crt", person.pem());
    write("me.key", key.serialize_pem());
}
