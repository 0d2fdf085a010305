//! A real server, as a test can move it, with services in one of the three layouts.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use mesh_model::config::{Access, SourceConfig, SourceKind};
use mesh_registry::{
    contract::{
        Hook, ID, Na, Registered, Setup, World,
        server::{
            Server,
            zookeeper::{
                self,
                client::{Change, Client, Owner},
            },
        },
        wire::{Fault, Wire},
    },
    open::open,
    source::Source,
};

/// How services lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Serverset,
    Leader,
    Curator,
}

impl Layout {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Serverset => "serverset",
            Self::Leader => "zk-leader",
            Self::Curator => "curator",
        }
    }
    pub(crate) fn base(self) -> &'static str {
        match self {
            Self::Serverset => "/lab/discovery",
            Self::Leader => "/lab/leaders",
            Self::Curator => "/lab/services",
        }
    }
}

pub(crate) struct Ensemble {
    pub(crate) server: Server,
    pub(crate) layout: Layout,
    setup: Setup,
    /// Where the tests themselves ask.
    pub(crate) admin: SocketAddr,
    wire: Wire,
    /// What was put, by path.
    known: BTreeMap<String, String>,
    broken: bool,
    password: Option<String>,
    folder: PathBuf,
}

impl Ensemble {
    pub(crate) fn start(root: &Path, layout: Layout, setup: Setup) -> Self {
        Self::of(root, layout, setup, false)
    }

    /// As [`Ensemble::start`], of the release that knows no watch of everything.
    pub(crate) fn start_old(root: &Path, layout: Layout) -> Self {
        Self::of(root, layout, Setup::Plain, true)
    }

    fn of(root: &Path, layout: Layout, setup: Setup, old: bool) -> Self {
        let started = zookeeper::start(root, Ipv4Addr::LOCALHOST.into(), setup, old);
        let folder = started.server.folder().to_owned();
        let mut ensemble = Self {
            server: started.server,
            layout,
            setup,
            admin: started.admin,
            wire: Wire::new(started.to).unwrap(),
            known: BTreeMap::new(),
            broken: false,
            password: None,
            folder,
        };
        if setup == Setup::Token {
            ensemble.password = Some("first".into());
            fs::write(ensemble.folder.join("password"), "first").unwrap();
        }
        ensemble
    }

    pub(crate) fn client(&self) -> Client {
        let mut credentials = Vec::new();
        if self.setup == Setup::Token {
            credentials.push("admin:root".to_owned());
            credentials.extend(
                self.password
                    .iter()
                    .map(|password| format!("mesh:{password}")),
            );
        }
        Client::open(self.admin, &credentials).unwrap()
    }

    fn owner(&self) -> Owner {
        if self.setup == Setup::Token {
            Owner::Us
        } else {
            Owner::World
        }
    }

    /// How the client reaches it.
    pub(crate) fn access(&self) -> Access {
        let at = self.wire.address();
        let mut access = Access {
            addresses: vec![at.to_string()],
            ..Access::default()
        };
        match self.setup {
            Setup::Tls => {
                access.addresses = vec![format!("tls://{at}")];
                access.tls.ca = Some(self.folder.join("ca.pem"));
            }
            Setup::Token => {
                access.username = Some("mesh".into());
                access.password_file = Some(self.folder.join("password"));
            }
            Setup::Plain | Setup::Large => {}
        }
        access
    }

    pub(crate) fn config(&self) -> SourceConfig {
        let (access, path) = (self.access(), self.layout.base().to_owned());
        SourceConfig {
            id: ID.to_owned(),
            publish: true,
            services: None,
            kind: match self.layout {
                Layout::Serverset => SourceKind::Serverset { access, path },
                Layout::Leader => SourceKind::Leader { access, path },
                Layout::Curator => SourceKind::Curator { access, path },
            },
        }
    }

    /// The node of an endpoint.
    fn node(&self, service: &str, port: u16) -> String {
        let base = self.layout.base();
        match self.layout {
            Layout::Serverset => format!("{base}/{service}/member_{port:010}"),
            Layout::Leader => format!("{base}/{service}/member_0000000001"),
            Layout::Curator => format!("{base}/{service}/i-{port}"),
        }
    }

    fn text(&self, host: &str, one: Registered, mark: u32) -> String {
        let (port, well) = (one.port, one.healthy);
        match self.layout {
            Layout::Serverset => format!(
                r#"{{"serviceEndpoint":{{"host":"{host}","port":{port}}},"additionalEndpoints":{{}},"status":"{}","shard":{mark}}}"#,
                if well { "ALIVE" } else { "DEAD" }
            ),
            Layout::Leader if host.contains(':') => format!("[{host}]:{port}"),
            Layout::Leader => format!("{host}:{port}"),
            Layout::Curator => format!(
                r#"{{"name":"x","id":"i-{port}","address":"{host}","port":{port},"sslPort":null,"payload":{{"@class":"java.util.TreeMap","mark":"{mark}","instance_status":"{}"}},"registrationTimeUTC":1795229900488,"serviceType":"DYNAMIC","uriSpec":null}}"#,
                if well { "UP" } else { "DOWN" }
            ),
        }
    }

    /// Sets what stands below a service's directory.
    fn write(&mut self, service: &str, wanted: BTreeMap<String, String>) {
        let mut client = self.client();
        let directory = format!("{}/{service}", self.layout.base());
        let mut changes = Vec::new();
        let mut path = String::new();
        for name in directory.split('/').skip(1) {
            path = format!("{path}/{name}");
            if client.children(&path).unwrap().is_none() {
                changes.push(Change::Create(path.clone(), Vec::new(), self.owner()));
            }
        }
        let there = client.children(&directory).unwrap().unwrap_or_default();
        for name in &there {
            let path = format!("{directory}/{name}");
            if !wanted.contains_key(&path) {
                self.known.remove(&path);
                changes.push(Change::Delete(path));
            }
        }
        for (path, text) in wanted {
            let exists = there.iter().any(|name| path.ends_with(&format!("/{name}")));
            let data = text.clone().into_bytes();
            if !exists {
                changes.push(Change::Create(path.clone(), data, self.owner()));
            } else if self.known.get(&path) != Some(&text) {
                changes.push(Change::Set(path.clone(), data));
            }
            self.known.insert(path, text);
        }
        if !changes.is_empty() {
            client.change(&changes).unwrap();
        }
    }

    fn all(&self, service: &str, endpoints: &[Registered]) -> BTreeMap<String, String> {
        let mut wanted: BTreeMap<String, String> = BTreeMap::new();
        for one in endpoints {
            let text = self.text("10.0.0.1", *one, 1);
            let known = wanted.entry(self.node(service, one.port)).or_default();
            if !known.is_empty() {
                known.push(',');
            }
            known.push_str(&text);
        }
        wanted
    }
}

impl World for Ensemble {
    fn put(&mut self, service: &str, endpoints: &[Registered]) {
        let wanted = self.all(service, endpoints);
        self.write(service, wanted);
    }
    fn remove(&mut self, service: &str) {
        let directory = format!("{}/{service}", self.layout.base());
        let mut client = self.client();
        let Some(there) = client.children(&directory).unwrap() else {
            return;
        };
        let mut changes: Vec<Change> = there
            .iter()
            .map(|name| Change::Delete(format!("{directory}/{name}")))
            .collect();
        changes.push(Change::Delete(directory.clone()));
        client.change(&changes).unwrap();
        self.known
            .retain(|path, _| !path.starts_with(&format!("{directory}/")));
    }
    fn garbage(&mut self) {
        let broken =
            |path: &String| Change::Set(path.clone(), b"{\"serviceEndpoint\":\xff".to_vec());
        let changes: Vec<Change> = self.known.keys().map(broken).collect();
        self.client().change(&changes).unwrap();
        self.broken = true;
    }
    fn break_off(&mut self) {
        self.wire.fault(Fault::Closed);
    }
    fn repair(&mut self) {
        self.wire.fault(Fault::None);
        if std::mem::take(&mut self.broken) {
            let good = |(path, text): (&String, &String)| {
                Change::Set(path.clone(), text.clone().into_bytes())
            };
            let changes: Vec<Change> = self.known.iter().map(good).collect();
            self.client().change(&changes).unwrap();
        }
    }
    fn opener(&self) -> Arc<dyn Fn() -> Box<dyn Source> + Send + Sync> {
        let config = self.config();
        Arc::new(move || open(&config))
    }
    fn tells_health(&self) -> bool {
        self.layout != Layout::Leader
    }
    fn is_real(&self) -> bool {
        true
    }
    fn change(&mut self, service: &str, port: u16) -> Hook {
        if self.layout == Layout::Leader {
            return Err(Na::OnlyAddresses);
        }
        let one = Registered {
            port,
            healthy: true,
        };
        let (path, text) = (self.node(service, port), self.text("10.0.0.1", one, 7));
        self.client()
            .change(&[Change::Set(path.clone(), text.clone().into_bytes())])
            .unwrap();
        self.known.insert(path, text);
        Ok(())
    }
    fn put_addresses(&mut self, service: &str) -> Hook<Vec<String>> {
        let six = Registered {
            port: 80,
            healthy: true,
        };
        let named = Registered { port: 5432, ..six };
        let (one, two) = (self.text("fd00::1", six, 1), self.text("Db.Test", named, 1));
        let mut wanted = BTreeMap::from([(self.node(service, 80), one.clone())]);
        if self.layout == Layout::Leader {
            wanted.insert(self.node(service, 80), format!("{one},{two}"));
        } else {
            wanted.insert(self.node(service, 5432), two);
        }
        self.write(service, wanted);
        Ok(vec!["[fd00::1]:80".into(), "db.test:5432".into()])
    }
    fn fill(&mut self, endpoints: usize) -> Hook {
        let base = self.layout.base();
        let mut client = self.client();
        let owner = self.owner();
        let mut changes: Vec<Change> = ["/lab", base]
            .map(|path| Change::Create(path.to_owned(), Vec::new(), owner))
            .to_vec();
        for service in 0..endpoints / 10 {
            let name = format!("s{service}");
            changes.push(Change::Create(format!("{base}/{name}"), Vec::new(), owner));
            let ports = 1..=10;
            let all: Vec<Registered> = ports
                .map(|port| Registered {
                    port,
                    healthy: true,
                })
                .collect();
            for (path, text) in self.all(&name, &all) {
                changes.push(Change::Create(path, text.into_bytes(), owner));
            }
            if changes.len() > 400 {
                client.change(&changes).unwrap();
                changes.clear();
            }
        }
        if !changes.is_empty() {
            client.change(&changes).unwrap();
        }
        Ok(())
    }
    fn cut(&mut self) -> Hook {
        self.wire.fault(Fault::Cut);
        Ok(())
    }
    fn kill(&mut self) -> Hook {
        self.server.kill();
        Ok(())
    }
    fn start_again(&mut self, keep: bool) -> Hook {
        if !keep {
            self.known.clear();
        }
        self.server.start_again(keep);
        Ok(())
    }
    fn freeze(&mut self) -> Hook {
        self.server.freeze();
        Ok(())
    }
    fn thaw(&mut self) {
        self.server.thaw();
    }
    fn revoke_token(&mut self) -> Hook {
        self.password = None;
        self.own_all();
        Ok(())
    }
    fn rotate_token(&mut self) -> Hook {
        self.password = Some("second".into());
        self.own_all();
        fs::write(self.folder.join("password"), "second").unwrap();
        Ok(())
    }
    fn rotate_certificate(&mut self) -> Hook {
        self.server.kill();
        zookeeper::certificate(&self.folder);
        self.server.start_again(true);
        Ok(())
    }
}

impl Ensemble {
    /// Everything belongs to the credentials of now.
    fn own_all(&self) {
        let mut client = self.client();
        let mut level = vec![self.layout.base().to_owned()];
        while let Some(path) = level.pop() {
            let names = client.children(&path).unwrap().unwrap_or_default();
            level.extend(names.into_iter().map(|name| format!("{path}/{name}")));
            client.own(&path).unwrap();
        }
    }
}
