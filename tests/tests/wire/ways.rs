//! The mesh under test, and the ways in which a caller's bytes reach the raw back end.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use mesh_tests::{Host, Mesh, host::Kind, need::real_root};
use nix::{
    sched::{CloneFlags, setns},
    unistd::{Uid, setfsuid},
};

use super::backend::Backend;

/// Where the raw back end listens on the first host.
const PORT: u16 = 8090;
/// The user as whom callers dial.
const CALLER: u32 = 5004;

/// What nobody may call.
const DENY: &str = "apiVersion: meshd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: nobody}
spec:
  selector: {matchLabels: {app: raw}}
  action: DENY
  rules:
    - to: [{operation: {paths: [\"/denied\", \"/denied/*\"]}}]
";

/// How bytes reach the back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From outside the mesh in plaintext, captured by the first host.
    Inbound,
    /// By the explicit listener of the back end's own host.
    Explicit,
    /// By the explicit listener of the other host: mTLS and HTTP/2 between two daemons.
    Hop,
}

/// All of them.
pub const WAYS: [Way; 3] = [Way::Inbound, Way::Explicit, Way::Hop];

impl Way {
    /// Its name in the corpus.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Explicit => "explicit",
            Self::Hop => "hop",
        }
    }
}

/// Two hosts, the first with the back end.
#[derive(Debug)]
pub struct Ways {
    /// The back end.
    pub backend: Backend,
    hosts: [Place; 2],
    own: File,
}

/// What is needed of a host.
#[derive(Debug)]
struct Place {
    v4: Ipv4Addr,
    meshd: i32,
    space: File,
}

/// The one mesh of this test program; it ends with the namespaces that hold it.
pub fn ways() -> MutexGuard<'static, Ways> {
    static WAYS: OnceLock<Mutex<Ways>> = OnceLock::new();
    WAYS.get_or_init(|| Mutex::new(Ways::new()))
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Starts the mesh on a thread that keeps it.
fn start() -> [Place; 2] {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mesh = mesh();
        let place = |host: &Host| {
            let meshd = host.meshd_pid().unwrap();
            let space = File::open(format!("/proc/{meshd}/ns/net")).unwrap();
            Place {
                v4: host.v4,
                meshd,
                space,
            }
        };
        tell.send([place(&mesh.hosts[0]), place(&mesh.hosts[1])])
            .unwrap();
        loop {
            std::thread::park();
        }
    });
    told.recv().unwrap()
}

fn mesh() -> Mesh {
    let kind = if real_root() {
        Kind::Users
    } else {
        Kind::OneUser
    };
    let mut mesh = Mesh::new(kind, 2).unwrap();
    let user = |uid: u32| {
        if kind == Kind::Users {
            format!("user = {uid}\n")
        } else {
            String::new()
        }
    };
    for host in &mut mesh.hosts {
        let text = host.default_config("[listeners]\nexplicit = \"127.0.0.1:4140\"\n");
        host.configure("meshd.toml", &text).unwrap();
        let client = if kind == Kind::Users {
            format!("[[service]]\nname = \"client\"\n{}", user(CALLER))
        } else {
            String::new()
        };
        host.configure("services.d/client.toml", &client).unwrap();
    }
    let service = format!(
        "[[service]]\nname = \"raw\"\n{}ports = [{{ port = 80, target = {PORT}, protocol = \"http\" }}]\n",
        user(5020)
    );
    mesh.host(0)
        .configure("services.d/raw.toml", &service)
        .unwrap();
    mesh.form(1, &[]).unwrap();
    let file = mesh.directory.path().join("deny.yaml");
    std::fs::write(&file, DENY).unwrap();
    let file = file.display().to_string();
    mesh.host(0)
        .ctl(&["apply", "-f", &file, "--wait", "all"])
        .unwrap();
    for host in 0..2 {
        mesh.wait_endpoints(host, "raw", 1, Duration::from_secs(20))
            .unwrap();
    }
    mesh
}

impl Ways {
    fn new() -> Self {
        let hosts = start();
        let own = File::open("/proc/thread-self/ns/net").unwrap();
        let mut ways = Self {
            backend: Backend::default(),
            hosts,
            own,
        };
        let listener = ways.within(Some(0), || {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap()
        });
        ways.backend = Backend::serve(listener);
        for way in WAYS {
            ways.wait(way);
        }
        ways
    }

    /// Runs something in the network of a host, or of the bridge; sockets keep the network they were made in.
    pub fn within<T>(&self, host: Option<usize>, run: impl FnOnce() -> T) -> T {
        let space = match host {
            Some(host) => &self.hosts[host].space,
            None => &self.own,
        };
        let own = File::open("/proc/thread-self/ns/net").unwrap();
        setns(space, CloneFlags::CLONE_NEWNET).unwrap();
        let result = run();
        setns(own, CloneFlags::CLONE_NEWNET).unwrap();
        result
    }

    /// A caller's connection.
    pub fn dial(&self, way: Way) -> TcpStream {
        let (host, address) = match way {
            Way::Inbound => (None, SocketAddr::from((self.hosts[0].v4, PORT))),
            Way::Explicit => (Some(0), SocketAddr::from((Ipv4Addr::LOCALHOST, 4140))),
            Way::Hop => (Some(1), SocketAddr::from((Ipv4Addr::LOCALHOST, 4140))),
        };
        let stream = self.within(host, || {
            let before = setfsuid(Uid::from_raw(CALLER));
            let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5));
            setfsuid(before);
            stream.unwrap()
        });
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    /// The address that the back end is told as the caller's.
    pub fn client(&self, way: Way) -> String {
        match way {
            Way::Inbound => "10.77.0.254".to_owned(),
            Way::Explicit => "127.0.0.1".to_owned(),
            Way::Hop => self.hosts[1].v4.to_string(),
        }
    }

    fn wait(&self, way: Way) {
        mesh_tests::eventually(way.name(), Duration::from_secs(20), || {
            let mut client = super::client::Client::new(self.dial(way));
            client.send(
                b"GET /first HTTP/1.1\r\nHost: raw\r\nConnection: close\r\n\r\n",
                false,
            );
            match client.answer(false, false) {
                super::client::Answer::Whole(message) if message.body == b"/first" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        self.backend.take();
    }

    /// Resident memory of a host's daemon, in KiB.
    pub fn memory(&self, host: usize) -> u64 {
        let pid = self.hosts[host].meshd;
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}
