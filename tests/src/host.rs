//! A host: a network, mount and UTS namespace of its own, with a real `meshd` and plain programs in it.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;

use crate::{
    binary::built,
    process::{Child, finished, sh},
    remains,
    wait::within,
};

/// How the programs of a host are reached and recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A namespace; programs have user ids of their own.
    Users,
    /// A namespace with a single user id.
    OneUser,
    /// No namespace: addresses of the loopback range and the explicit listener.
    Loopback,
}

/// A host of the mesh under test.
#[derive(Debug)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// Its files: `etc/`, `state/`, `run/`, logs.
    pub directory: PathBuf,
    kind: Kind,
    holder: Option<Child>,
    meshd: Option<Child>,
    names: Option<Child>,
    programs: Vec<Child>,
}

impl Host {
    /// Makes the host and plugs it into `bridge` (not for [`Kind::Loopback`]).
    pub fn new(
        kind: Kind,
        name: &str,
        number: u8,
        directory: &Path,
        bridge: &str,
    ) -> anyhow::Result<Self> {
        let v4 = match kind {
            Kind::Loopback => Ipv4Addr::new(127, 77, 0, number),
            Kind::Users | Kind::OneUser => Ipv4Addr::new(10, 77, 0, number),
        };
        let v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into());
        let directory = directory.join(name);
        for folder in ["etc/services.d", "etc/conf.d", "state", "run"] {
            std::fs::create_dir_all(directory.join(folder))?;
        }
        let mut host = Self {
            name: name.to_owned(),
            v4,
            v6,
            directory,
            kind,
            holder: None,
            meshd: None,
            names: None,
            programs: Vec::new(),
        };
        std::fs::write(
            host.directory.join("machine-id"),
            format!("{number:032x}\n"),
        )?;
        std::fs::write(
            host.directory.join("resolv.conf"),
            "search mesh.internal\nnameserver 127.0.0.53\noptions timeout:2 attempts:2\n",
        )?;
        if kind != Kind::Loopback {
            host.make_namespace(bridge)?;
        }
        Ok(host)
    }

    fn make_namespace(&mut self, bridge: &str) -> anyhow::Result<()> {
        let resolv = self.directory.join("resolv.conf");
        let script = format!(
            "mount --bind {resolv} /etc/resolv.conf 2>/dev/null || true; hostname {name}; echo ready; exec sleep infinity",
            resolv = resolv.display(),
            name = self.name
        );
        let log = self.directory.join("holder.log");
        let mut command = Command::new("unshare");
        command.args([
            "--net",
            "--mount",
            "--uts",
            "--propagation",
            "private",
            "sh",
            "-c",
            &script,
        ]);
        let holder = Child::start("holder", &mut command, &log)?;
        within(Duration::from_secs(30), || {
            if holder.log().contains("ready") {
                Ok(())
            } else {
                bail!("{}", holder.log())
            }
        })?;
        let pid = holder.pid();
        self.holder = Some(holder);
        let (v4, v6) = (self.v4, self.v6);
        // The kernel takes a moment to remove the link of a host that has just gone: names are not reused.
        sh(&format!(
            "ip link add veth{pid} type veth peer name eth0 netns {pid}"
        ))?;
        sh(&format!("ip link set veth{pid} master {bridge} up"))?;
        self.sh("ip link set lo up")?;
        self.sh(&format!("ip address add {v4}/24 dev eth0"))?;
        self.sh(&format!("ip address add {v6}/64 dev eth0 nodad"))?;
        self.sh("ip link set eth0 up")?;
        Ok(())
    }

    /// A command that runs on this host as root.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let Some(holder) = &self.holder else {
            return Command::new(program);
        };
        let mut command = Command::new("nsenter");
        let pid = holder.pid().to_string();
        command
            .args(["--target", &pid, "--net", "--mount", "--uts", "--"])
            .arg(program);
        command
    }

    /// A command that runs on this host as a user, where there are several.
    pub fn command_as(&self, uid: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
        if self.kind != Kind::Users {
            return self.command(program);
        }
        let mut command = self.command("setpriv");
        let id = uid.to_string();
        command
            .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"])
            .arg(program);
        command
    }

    /// Runs a line (split at spaces) on this host as root, to its end.
    pub fn sh(&self, line: &str) -> anyhow::Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("no command")?;
        let output = self.command(program).args(words).output()?;
        finished(&format!("{}: {line}", self.name), &output)
    }

    /// Writes a file under its configuration folder.
    pub fn configure(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.directory.join("etc").join(file);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    }

    /// The main configuration file for a test host, with `more` behind it.
    pub fn default_config(&self, more: &str) -> String {
        let directory = self.directory.display();
        let (v4, v6, name) = (self.v4, self.v6, &self.name);
        let mut text =
            format!("state_dir = \"{directory}/state\"\nruntime_dir = \"{directory}/run\"\n");
        let _infallible = if self.kind == Kind::Loopback {
            write!(
                text,
                "workers = 1\n[host]\nname = \"{name}\"\naddresses = [\"{v4}\"]\n[capture]\nmode = \"off\"\n\
                 [listeners]\ntunnel = \"{v4}:15008\"\nmetrics = \"{v4}:15020\"\nexplicit = \"{v4}:4140\"\n\
                 [cluster]\nlisten = \"{v4}:7947\"\n"
            )
        } else {
            write!(
                text,
                "workers = 1\n[host]\nname = \"{name}\"\naddresses = [\"{v4}\", \"{v6}\"]\n\
                 [names]\nlisten = [\"127.0.0.1:15053\", \"127.0.0.53:53\"]\n"
            )
        };
        text.push_str(more);
        text
    }

    /// The environment of the daemon and its tools.
    fn surroundings(&self, command: &mut Command) {
        command
            .env("MESHD_CONFIG", self.directory.join("etc/meshd.toml"))
            .env("MESHD_MACHINE_ID_FILE", self.directory.join("machine-id"))
            .env("MESHD_SOCKET", self.socket())
            .env("MESHCTL_HOME", self.directory.join("operator"));
    }

    /// The admin socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("run/meshd.sock")
    }

    /// Starts the daemon and waits until it answers.
    pub fn start_meshd(&mut self) -> anyhow::Result<()> {
        self.start_meshd_with(&[])
    }

    /// The same, with more in its environment.
    pub fn start_meshd_with(&mut self, more: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut command = self.command(built("meshd"));
        self.surroundings(&mut command);
        command.envs(more.iter().copied());
        self.meshd = Some(Child::start(
            &format!("meshd on {}", self.name),
            &mut command,
            &self.directory.join("meshd.log"),
        )?);
        let ended = within(Duration::from_mins(1), || {
            if let Some(child) = &mut self.meshd
                && !child.runs()
            {
                return Ok(Some(child.log()));
            }
            self.ctl(&["-o", "json", "status"]).map(|_| None)
        })?;
        match ended {
            Some(log) => bail!("meshd on {} ended: {log}", self.name),
            None => Ok(()),
        }
    }

    /// Starts the names process.
    pub fn start_names(&mut self) -> anyhow::Result<()> {
        let mut command = self.command(built("meshd"));
        self.surroundings(&mut command);
        command.arg("names");
        self.names = Some(Child::start(
            &format!("names on {}", self.name),
            &mut command,
            &self.directory.join("names.log"),
        )?);
        Ok(())
    }

    /// Sends the daemon a signal.
    pub fn signal_meshd(&self, signal: Signal) -> anyhow::Result<()> {
        self.meshd
            .as_ref()
            .context("meshd does not run")?
            .signal(signal)
    }

    /// The daemon's process id: what `nsenter` started is the daemon itself.
    pub fn meshd_pid(&self) -> Option<i32> {
        self.meshd.as_ref().map(Child::pid)
    }

    /// Kills the daemon without a word (SIGKILL) and waits for its end.
    pub fn kill_meshd(&mut self) -> anyhow::Result<()> {
        let mut child = self.meshd.take().context("meshd does not run")?;
        child.signal(Signal::SIGKILL)?;
        child.wait(Duration::from_secs(30))?;
        Ok(())
    }

    /// Stops the daemon as systemd would and waits for its end.
    pub fn stop_meshd(&mut self) -> anyhow::Result<()> {
        let mut child = self.meshd.take().context("meshd does not run")?;
        child.signal(Signal::SIGTERM)?;
        child.wait(Duration::from_secs(45))?;
        Ok(())
    }

    /// What the daemon logged.
    pub fn meshd_log(&self) -> String {
        std::fs::read_to_string(self.directory.join("meshd.log")).unwrap_or_default()
    }

    /// `meshctl` on this host, ready to be given arguments.
    pub fn meshctl(&self) -> Command {
        let mut command = self.command(built("meshctl"));
        self.surroundings(&mut command);
        command
    }

    /// Runs `meshctl` and returns what it printed; fails when it does.
    pub fn ctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.meshctl().args(arguments).output()?;
        finished(
            &format!("{}: meshctl {}", self.name, arguments.join(" ")),
            &output,
        )
    }

    /// Runs `meshctl` and returns exit code, standard output and standard error.
    pub fn ctl_full(&self, arguments: &[&str]) -> anyhow::Result<(i32, String, String)> {
        let output = self.meshctl().args(arguments).output()?;
        Ok((
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }

    /// Runs `meshctl` with something on its standard input.
    pub fn ctl_with_input(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let path = self.directory.join(format!("input-{}", fastrand::u64(..)));
        std::fs::write(&path, input)?;
        let file = std::fs::File::open(&path)?;
        let output = self.meshctl().args(arguments).stdin(file).output();
        std::fs::remove_file(&path)?;
        finished(
            &format!("{}: meshctl {}", self.name, arguments.join(" ")),
            &output?,
        )
    }

    /// Runs `meshctl -o json` and reads its answer.
    pub fn ctl_json(&self, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        let mut all = vec!["-o", "json"];
        all.extend(arguments);
        let text = self.ctl(&all)?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// Starts the plain demonstration program in one of its roles, as a user of its own.
    pub fn start_app(&mut self, uid: u32, arguments: &[&str]) -> anyhow::Result<usize> {
        let mut command = self.command_as(uid, built("mesh-demo-app"));
        command.args(arguments);
        if self.kind == Kind::Loopback {
            command.env("http_proxy", format!("http://{}:4140", self.v4));
        }
        let name = format!("{} on {}", arguments.join(" "), self.name);
        let log = self
            .directory
            .join(format!("app-{}.log", self.programs.len()));
        self.programs.push(Child::start(&name, &mut command, &log)?);
        Ok(self.programs.len() - 1)
    }

    /// Ends every program of this host.
    pub fn end_programs(&mut self) {
        self.programs.clear();
    }

    /// A program started before.
    pub fn app(&mut self, index: usize) -> Option<&mut Child> {
        self.programs.get_mut(index)
    }

    /// Keeps a record of every request that fails on this host from now on; it is printed when the test fails.
    pub fn record_failures(&mut self) -> anyhow::Result<()> {
        let mut command = self.meshctl();
        command.args(["-o", "jsonl", "tap", "--failed"]);
        let log = self.log_path("failed");
        let name = format!("failed requests on {}", self.name);
        self.programs.push(Child::start(&name, &mut command, &log)?);
        Ok(())
    }

    /// Keeps a program until the host is dropped.
    pub fn keep(&mut self, child: Child) {
        self.programs.push(child);
    }

    /// Where a log of this host may be written.
    pub fn log_path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() && self.meshd.is_some() {
            remains::tell_of(&self.name, &|words| self.ctl(words));
        }
        // Programs first, the daemon next, the namespace last.
        self.programs.clear();
        self.meshd.take();
        self.names.take();
        self.holder.take();
    }
}
