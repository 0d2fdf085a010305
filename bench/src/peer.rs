//! The programs under test: configured, started on CPU 0, ended by pid.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

/// A place that answers, and the process behind it.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) host: &'static str,
    process: Option<Process>,
}

/// A process that ends with its owner.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The backend and where it listens.
pub(crate) struct Backend {
    address: SocketAddr,
    _process: Process,
}

/// Starts the backend on CPU 1.
pub(crate) fn backend() -> anyhow::Result<Backend> {
    let address = free()?;
    let mut command = Command::new("taskset");
    command
        .args(["-c", "1"])
        .arg(std::env::current_exe()?)
        .args(["backend", &address.port().to_string()]);
    let process = start(&mut command, None)?;
    answers(address, "the backend")?;
    Ok(Backend {
        address,
        _process: process,
    })
}

impl Peer {
    /// No proxy at all.
    pub(crate) fn direct(backend: &Backend) -> Self {
        Self {
            name: "direct",
            address: backend.address,
            host: "echo",
            process: None,
        }
    }

    /// HAProxy with one thread, keep-alive on both sides, no log.
    pub(crate) fn haproxy(place: &Path, backend: &Backend) -> anyhow::Result<Self> {
        let address = free()?;
        let config = place.join("haproxy.cfg");
        fs::write(
            &config,
            format!(
                "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode http\n  timeout connect 5s\n  \
                 timeout client 30s\n  timeout server 30s\n  http-reuse always\n  option http-keep-alive\n\
                 frontend front\n  bind {address}\n  default_backend back\n\
                 backend back\n  server one {}\n",
                backend.address
            ),
        )?;
        let mut command = Command::new("taskset");
        command
            .args(["-c", "0", "haproxy", "-db", "-f"])
            .arg(&config);
        let process = start(&mut command, Some(&place.join("haproxy.log")))?;
        answers(address, "HAProxy")?;
        Ok(Self {
            name: "haproxy",
            address,
            host: "echo",
            process: Some(process),
        })
    }

    /// A real meshd with one worker: a mesh of one host, the backend as a local service, the explicit listener.
    pub(crate) fn meshd(place: &Path, programs: &Path, backend: &Backend) -> anyhow::Result<Self> {
        let (address, tunnel, metrics, cluster) = (free()?, free()?, free()?, free()?);
        let place = place.join("meshd");
        fs::create_dir_all(place.join("etc"))?;
        fs::write(
            place.join("machine-id"),
            "0123456789abcdef0123456789abcdef\n",
        )?;
        let folder = place.display();
        fs::write(
            place.join("etc/meshd.toml"),
            format!(
                "state_dir = \"{folder}/state\"\nruntime_dir = \"{folder}/run\"\nworkers = 1\n\
                 [host]\nname = \"bench\"\naddresses = [\"127.0.0.1\"]\n[capture]\nmode = \"off\"\n\
                 [listeners]\ntunnel = \"{tunnel}\"\nmetrics = \"{metrics}\"\nexplicit = \"{address}\"\n\
                 [cluster]\nlisten = \"{cluster}\"\n\
                 [[service]]\nname = \"echo\"\naddress = \"127.0.0.1\"\n\
                 ports = [{{ name = \"http\", port = 80, target = {}, protocol = \"http\" }}]\n",
                backend.address.port()
            ),
        )?;
        for name in ["state", "run"] {
            fs::create_dir_all(place.join(name))?;
        }
        let surround = |command: &mut Command| {
            command
                .env("MESHD_CONFIG", place.join("etc/meshd.toml"))
                .env("MESHD_MACHINE_ID_FILE", place.join("machine-id"))
                .env("MESHD_SOCKET", place.join("run/meshd.sock"))
                .env("MESHCTL_HOME", place.join("operator"));
        };
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(programs.join("meshd"));
        surround(&mut command);
        let log = place.join("meshd.log");
        let process = start(&mut command, Some(&log))?;
        let ctl = |arguments: &[&str]| -> anyhow::Result<()> {
            let mut command = Command::new(programs.join("meshctl"));
            surround(&mut command);
            let output = command
                .args(arguments)
                .output()
                .context("meshctl cannot be started")?;
            if !output.status.success() {
                bail!(
                    "meshctl {}: {}",
                    arguments.join(" "),
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            Ok(())
        };
        let told = |error: anyhow::Error| {
            error.context(format!(
                "meshd says: {}",
                fs::read_to_string(&log).unwrap_or_default()
            ))
        };
        eventually("meshd", || ctl(&["status"])).map_err(told)?;
        ctl(&["init", "--name", "bench", "--trust-domain", "bench.example"]).map_err(told)?;
        let peer = Self {
            name: "meshd",
            address,
            host: "echo.mesh.internal",
            process: Some(process),
        };
        eventually("meshd's explicit listener", || {
            crate::load::run(&peer, 1, 1).map(drop)
        })
        .map_err(told)?;
        Ok(peer)
    }

    /// The process that works for it.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.0.id())
    }
}

fn start(command: &mut Command, log: Option<&Path>) -> anyhow::Result<Process> {
    let name = command.get_program().display().to_string();
    let output = match log {
        Some(path) => Stdio::from(fs::File::create(path)?),
        None => Stdio::null(),
    };
    let errors = match log {
        Some(path) => Stdio::from(fs::File::options().append(true).open(path)?),
        None => Stdio::null(),
    };
    let child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn();
    Ok(Process(
        child.with_context(|| format!("{name} cannot be started"))?,
    ))
}

/// An address on loopback that nobody used a moment ago.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn answers(address: SocketAddr, who: &str) -> anyhow::Result<()> {
    eventually(who, || {
        TcpStream::connect(address)?;
        Ok(())
    })
}

fn eventually(who: &str, attempt: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > end => {
                return Err(error.context(format!("{who} does not answer")));
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}
