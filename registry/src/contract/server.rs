//! Real servers as child processes of a test: on free ports, with a deadline, with their log when they fail.
//!
//! In: a `Plan`: which program, how it is known to be ready. Out: a `Server` that can be killed, stopped
//! and started again. Never: ends a process that it did not start; every end is by pid, on drop at the latest.
//! `scripts/registries.sh` fetches the programs; `installed` finds them.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// Certificates of test authorities.
pub mod authority;
/// Consul.
pub mod consul;
/// Dnsmasq.
pub mod dnsmasq;
/// Etcd.
pub mod etcd;
/// Eureka.
pub mod eureka;
/// Kubernetes.
pub mod kubernetes;
/// What members of every registry have.
pub mod member;
/// `ZooKeeper`.
pub mod zookeeper;

/// Where `scripts/registries.sh` puts a server: `~/.cache/meshd-peers/registries/NAME`; none when it is not there.
pub fn installed(name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
        PathBuf::from,
    );
    let folder = cache.join("meshd-peers/registries").join(name);
    folder.join(".done").exists().then_some(folder)
}

/// As [`installed`]; without it the test is skipped, which is said and counted, and fails with `CI=true`.
#[expect(
    clippy::print_stderr,
    reason = "a skip in CI is a failure, and must be seen"
)]
pub fn needed(name: &str, test: &str) -> Option<PathBuf> {
    let found = installed(name);
    if found.is_none() {
        let why = format!("{name} is not there: scripts/registries.sh {name}");
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{test}: {why}"
        );
        eprintln!("SKIPPED {test}: {why}");
    }
    found
}

/// Ports that are free for TCP and UDP now, below the range from which the system itself takes some.
#[expect(clippy::panic, reason = "without a port there is no test")]
pub fn free_ports<const N: usize>() -> [u16; N] {
    let mut kept = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let found = (0..1_000).find_map(|_| {
            let port = fastrand::u16(10_000..32_000);
            let tcp = TcpListener::bind(("127.0.0.1", port)).ok()?;
            let udp = UdpSocket::bind(("127.0.0.1", port)).ok()?;
            kept.push((tcp, udp));
            Some(port)
        });
        *port = found.unwrap_or_else(|| panic!("no port is free"));
    }
    ports
}

/// A server of one kind that was started.
#[derive(Debug)]
pub struct Started {
    /// The server.
    pub server: Server,
    /// Where tests themselves ask it, in the clear.
    pub admin: SocketAddr,
    /// Where clients reach it.
    pub to: SocketAddr,
}

/// A server on a machine with other work comes up within this.
const PATIENCE: Duration = Duration::from_mins(1);

/// A fresh folder.
fn folder() -> TempDir {
    sure(tempfile::tempdir())
}

/// What cannot be set up fails the test.
#[expect(clippy::panic, reason = "without it there is no test")]
#[track_caller]
fn sure<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error:?}"))
}

/// What is started.
pub struct Plan {
    /// For messages.
    pub name: String,
    /// Its folder of [`installed`], whose libraries it needs.
    pub root: PathBuf,
    /// The program and its arguments, from the folder for its state.
    pub command: Box<dyn Fn(&Path) -> Command + Send>,
    /// True once it answers.
    pub ready: Box<dyn Fn() -> bool + Send>,
    /// It must answer within this.
    pub within: Duration,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A server that runs, or was killed and can be started again.
#[derive(Debug)]
pub struct Server {
    plan: Plan,
    folder: TempDir,
    child: Option<Child>,
}

impl Server {
    /// Starts it and waits until it is ready. `folder` is its own: its state lives below `state`, and its
    /// output in `log`.
    pub fn start(plan: Plan, folder: TempDir) -> Self {
        let mut server = Self::begin(plan, folder);
        server.wait();
        server
    }

    /// As [`Server::start`], side by side: for members that answer when most of them run.
    pub fn start_all(plans: Vec<(Plan, TempDir)>) -> Vec<Self> {
        let began = plans.into_iter();
        let mut all: Vec<Self> = began
            .map(|(plan, folder)| Self::begin(plan, folder))
            .collect();
        all.iter_mut().for_each(Self::wait);
        all
    }

    fn begin(plan: Plan, folder: TempDir) -> Self {
        let mut server = Self {
            plan,
            folder,
            child: None,
        };
        server.run(true);
        server
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process; none while it is dead.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }

    /// Stops it with SIGSTOP.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Asks it to read its settings again, with SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::SIGHUP);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid {
            let _gone = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Starts it after [`Server::kill`], with its state or without any, and waits until it is ready.
    pub fn start_again(&mut self, keep: bool) {
        self.kill();
        self.run(keep);
        self.wait();
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn run(&mut self, keep: bool) {
        let state = self.state();
        if !keep {
            let _absent = std::fs::remove_dir_all(&state);
        }
        sure(std::fs::create_dir_all(&state));
        self.child = Some(sure(self.spawned(&state)));
    }

    /// Until it is ready.
    #[expect(
        clippy::panic,
        reason = "a server that does not start fails the test, with its log"
    )]
    fn wait(&mut self) {
        let state = self.state();
        let end = Instant::now() + self.plan.within;
        while !(self.plan.ready)() {
            let ended = self
                .child
                .as_mut()
                .is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))));
            if Instant::now() > end {
                let log = self.log();
                let tail: Vec<&str> = log.lines().rev().take(30).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                panic!("{} did not come up:\n{}", self.plan.name, tail.join("\n"));
            }
            // A port may be held for a moment by what the killed one left behind.
            if ended {
                std::thread::sleep(Duration::from_millis(100));
                self.child = self.spawned(&state).ok();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn spawned(&self, state: &Path) -> std::io::Result<Child> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))?;
        let plain = (self.plan.command)(state);
        // It ends with the thread of the test, whatever ends that one.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(plain.get_program())
            .args(plain.get_args())
            .env("LD_LIBRARY_PATH", libraries(&self.plan.root));
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
            .current_dir(plain.get_current_dir().unwrap_or(state))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where unpacked Debian packages have their libraries.
fn libraries(root: &Path) -> std::ffi::OsString {
    let machine = std::env::consts::ARCH;
    let known = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let own = [
        format!("usr/lib/{machine}-linux-gnu"),
        format!("lib/{machine}-linux-gnu"),
    ];
    let all = own
        .iter()
        .map(|part| root.join(part))
        .chain(std::env::split_paths(&known));
    std::env::join_paths(all).unwrap_or(known)
}

/// One plain HTTP/1.1 question, blocking: its status and body.
pub fn http(
    at: SocketAddr,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {at}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in fields {
        let _infallible = write!(head, "{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let wrong = || std::io::Error::other(format!("no status in {head:?}"));
    Ok((status.ok_or_else(wrong)?, body.to_owned()))
}

/// As [`http()`]; anything but a 2xx fails the test.
#[expect(clippy::panic, reason = "a server that refuses its test fails it")]
pub fn told(
    at: SocketAddr,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> String {
    match http(at, method, path, fields, body) {
        Ok((200..=299, body)) => body,
        other => panic!("{method} {path}: {other:?}"),
    }
}
