//! A place for a test: this host, and `far`, another one on the same wire.
//!
//! The test runs itself again inside `unshare`, so that nothing is left whatever ends it. Where that is not
//! allowed the test says so and is counted as skipped; with `CI=true` it fails.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use mesh_intercept::{Intent, Interceptor, Settings};
use mesh_model::config::Mark;
use nix::sched::{CloneFlags, setns};

pub(crate) const MARK: Mark = Mark {
    value: 0x004d_0000,
    mask: 0x00ff_0000,
};
pub(crate) const OUTBOUND: u16 = 15001;
pub(crate) const INBOUND: u16 = 15006;

/// Runs `body` in namespaces of its own: this host is 10.9.0.1 and `fd00:9::1`, the far one ends in 2.
pub(crate) fn inside(name: &str, body: impl FnOnce(&Place)) {
    if std::env::var("MESH_PLACE").as_deref() == Ok(name) {
        body(&Place::make());
        return;
    }
    let mut unshare = unshare();
    if !unshare
        .args(["true"])
        .output()
        .is_ok_and(|output| output.status.success())
    {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "{name} needs namespaces"
        );
        println!("SKIPPED {name}: namespaces are not allowed here");
        return;
    }
    let status = self::unshare()
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("MESH_PLACE", name)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{name}: {status}");
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    command
}

/// Two hosts on a wire, and a directory.
pub(crate) struct Place {
    pub(crate) directory: tempfile::TempDir,
    far: File,
}

impl Place {
    fn make() -> Self {
        for line in [
            "mount -t tmpfs tmpfs /run",
            "ip link set lo up",
            "ip netns add far",
            "ip link add near type veth peer name far netns far",
            "ip address add 10.9.0.1/24 dev near",
            "ip address add fd00:9::1/64 dev near nodad",
            "ip link set near up",
            "ip -n far link set lo up",
            "ip -n far address add 10.9.0.2/24 dev far",
            "ip -n far address add fd00:9::2/64 dev far nodad",
            "ip -n far link set far up",
        ] {
            sh(line);
        }
        let far = File::open("/run/netns/far").unwrap();
        Self {
            directory: tempfile::tempdir().unwrap(),
            far,
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings::new(self.directory.path(), self.directory.path())
    }

    pub(crate) fn interceptor(&self) -> Interceptor {
        Interceptor::start(self.settings()).unwrap()
    }

    /// Runs something on the far host.
    pub(crate) fn far<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(self.far.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                    body()
                })
                .join()
                .unwrap()
        })
    }

    /// A server on the far host that greets with `word` and the client's address.
    pub(crate) fn far_server(&self, address: &str, word: &'static str) {
        self.far(|| serve(address, word));
    }
}

/// An intent with this place's addresses.
pub(crate) fn intent() -> Intent {
    Intent {
        host_v4: Some("10.9.0.1".parse().unwrap()),
        host_v6: Some("fd00:9::1".parse().unwrap()),
        ..Intent::empty(OUTBOUND, INBOUND, MARK)
    }
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Runs a line to its end; its output.
pub(crate) fn sh(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{line}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Listens on this thread's host until the process ends; greets with `word` and the client's address.
pub(crate) fn serve(address: &str, word: &'static str) {
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            drop(write!(stream, "{word} {}", peer.ip().to_canonical()));
        }
    });
}

/// What a dial ends with: the greeting, or `refused`, or `timed out`, or another error.
pub(crate) fn dial(address: &str) -> String {
    let address: SocketAddr = address.parse().unwrap();
    match TcpStream::connect_timeout(&address, Duration::from_secs(3)) {
        Ok(stream) => greeting(stream),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => "refused".to_owned(),
        Err(error) => error.to_string(),
    }
}

pub(crate) fn greeting(mut stream: TcpStream) -> String {
    stream
        .set_read_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    let mut text = String::new();
    match stream.read_to_string(&mut text) {
        Ok(_) => text,
        Err(error) => error.to_string(),
    }
}

/// Waits for a condition, never for a time.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let (begin, limit) = (Instant::now(), Duration::from_secs(10));
    while !condition() {
        assert!(begin.elapsed() < limit, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(1));
    }
    begin.elapsed()
}

pub(crate) fn has_table(name: &str) -> bool {
    sh("nft list tables")
        .lines()
        .any(|line| line == format!("table inet {name}"))
}

/// This test program again, in the same place, in another role: `MESH_ROLE`.
pub(crate) fn again(name: &str, role: &str, directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("MESH_ROLE", role)
        .env("MESH_DIRECTORY", directory)
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

pub(crate) fn role(wanted: &str) -> Option<std::path::PathBuf> {
    (std::env::var("MESH_ROLE").as_deref() == Ok(wanted))
        .then(|| std::env::var_os("MESH_DIRECTORY").unwrap().into())
}

/// Kills the child of this very process that has the name.
pub(crate) fn kill_child(name: &str) {
    let children: Vec<i32> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|task| task.unwrap().path().join("children"))
        .flat_map(|file| {
            std::fs::read_to_string(file)
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .map(|pid| pid.parse().unwrap())
        .filter(|pid: &i32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|comm| comm.trim() == name)
        })
        .collect();
    assert_eq!(children.len(), 1, "children named {name}");
    for pid in children {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
