//! A mesh of hosts on one bridge, from `init` and `join` to programs that call each other.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::{
    host::{Host, Kind},
    process::{Child, sh},
    wait::within,
};

const BRIDGE: &str = "mesh-bridge";
/// One mesh at a time: bridge and addresses are the same for all.
static ALONE: Mutex<()> = Mutex::new(());

/// Hosts on one bridge.
#[derive(Debug)]
pub struct Mesh {
    /// The hosts.
    pub hosts: Vec<Host>,
    /// Their files; removed with the mesh unless a test fails.
    pub directory: tempfile::TempDir,
    kind: Kind,
    _alone: MutexGuard<'static, ()>,
}

impl Mesh {
    /// Makes `count` hosts named `h1`, `h2`, …; nothing runs on them yet.
    pub fn new(kind: Kind, count: u8) -> anyhow::Result<Self> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::Builder::new().prefix("mesh-").tempdir()?;
        // Programs of other users must be able to reach the configuration of their own host.
        std::fs::set_permissions(
            directory.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        if kind != Kind::Loopback {
            sh("ip link set lo up")?;
            drop(sh(&format!("ip link delete {BRIDGE}")));
            sh(&format!("ip link add {BRIDGE} type bridge"))?;
            sh(&format!("ip link set {BRIDGE} up"))?;
            sh(&format!("ip address add 10.77.0.254/24 dev {BRIDGE}"))?;
            sh(&format!("ip address add fd77::fe/64 dev {BRIDGE} nodad"))?;
        }
        let hosts = (1..=count)
            .map(|number| {
                Host::new(
                    kind,
                    &format!("h{number}"),
                    number,
                    directory.path(),
                    BRIDGE,
                )
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self {
            hosts,
            directory,
            kind,
            _alone: alone,
        })
    }

    /// What kind of hosts these are.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A host by its place.
    #[expect(
        clippy::panic,
        reason = "a test that names a host that it did not make is wrong"
    )]
    pub fn host(&mut self, index: usize) -> &mut Host {
        let count = self.hosts.len();
        self.hosts
            .get_mut(index)
            .unwrap_or_else(|| panic!("there are {count} hosts"))
    }

    /// Starts the daemons, makes the mesh on the first host and joins the others; the first `authorities`
    /// hosts become authorities.
    pub fn form(&mut self, authorities: usize, init: &[&str]) -> anyhow::Result<()> {
        for host in &mut self.hosts {
            if !host.directory.join("etc/meshd.toml").exists() {
                let text = host.default_config("");
                host.configure("meshd.toml", &text)?;
            }
            if self.kind != Kind::Loopback {
                host.start_names()?;
            }
            host.start_meshd()?;
        }
        let mut arguments = vec!["init", "--name", "demo", "--trust-domain", "demo.example"];
        arguments.extend(init);
        self.first()?.ctl(&arguments)?;
        for index in 1..self.hosts.len() {
            let mut create = vec!["token", "create", "--ttl", "10m", "--uses", "1"];
            if index < authorities {
                create.push("--authority");
            }
            let token = self.first()?.ctl(&create)?;
            self.hosts
                .get(index)
                .context("no such host")?
                .ctl_with_input(&["join", "--token-file", "-"], token.trim())?;
        }
        self.wait_members(Duration::from_secs(40))
    }

    fn first(&self) -> anyhow::Result<&Host> {
        self.hosts.first().context("the mesh has no host")
    }

    /// Waits until every host sees every host alive.
    pub fn wait_members(&self, deadline: Duration) -> anyhow::Result<()> {
        let count = self.hosts.len();
        within(deadline, || {
            for host in &self.hosts {
                let members = host.ctl_json(&["members"])?;
                let alive = members
                    .as_array()
                    .context("members is no list")?
                    .iter()
                    .filter(|member| member["own"] == true || member["liveness"] == "alive")
                    .count();
                if alive != count {
                    bail!("{} sees {alive} of {count}: {members}", host.name);
                }
            }
            Ok(())
        })
    }

    /// Waits until `host` sees `count` usable endpoints of a service.
    pub fn wait_endpoints(
        &self,
        host: usize,
        service: &str,
        count: usize,
        deadline: Duration,
    ) -> anyhow::Result<()> {
        let host = self.hosts.get(host).context("no such host")?;
        within(deadline, || {
            let rows = host.ctl_json(&["endpoints", service])?;
            let usable = rows
                .as_array()
                .context("no list")?
                .iter()
                .filter(|row| row["usable"] == true)
                .count();
            if usable == count {
                Ok(())
            } else {
                bail!(
                    "{}: {usable} of {count} endpoints of {service}: {rows}",
                    host.name
                )
            }
        })
    }

    /// Waits until `host` does not use the instances of a service that run on the host named `gone`.
    pub fn wait_unused(
        &self,
        host: usize,
        service: &str,
        gone: &str,
        deadline: Duration,
    ) -> anyhow::Result<()> {
        let host = self.hosts.get(host).context("no such host")?;
        within(deadline, || {
            let rows = host.ctl_json(&["endpoints", service])?;
            let used = rows
                .as_array()
                .context("no list")?
                .iter()
                .any(|row| row["host"] == gone && row["usable"] == true);
            if used {
                bail!("{} still uses {gone} for {service}: {rows}", host.name)
            }
            Ok(())
        })
    }

    /// Records what crosses the bridge into a file, until the capture is dropped.
    pub fn capture(&self, file: &Path) -> anyhow::Result<Child> {
        let mut command = std::process::Command::new("tcpdump");
        command
            .args(["-i", BRIDGE, "-U", "-s", "0", "-Z", "root", "-w"])
            .arg(file);
        let log = self
            .directory
            .path()
            .join(format!("tcpdump-{}.log", fastrand::u32(..)));
        let child = Child::start("tcpdump", &mut command, &log)?;
        within(Duration::from_secs(30), || {
            if child.log().contains("listening on") {
                Ok(())
            } else {
                bail!("{}", child.log())
            }
        })?;
        Ok(child)
    }
}
