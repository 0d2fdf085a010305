//! The demonstration's three hosts with their programs: configured, started, joined, and asked.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use crate::{
    Mesh,
    binary::{built, workspace},
    host::{Host, Kind},
    process::{finished, tail},
    wait::within,
};
use anyhow::{Context as _, bail};

/// User id of words.
pub const WORDS: u32 = 5001;
/// User id of simon.
pub const SIMON: u32 = 5002;
/// User id of the capitalizer.
pub const CAPITALIZER: u32 = 5003;
/// User id of the client.
pub const CLIENT: u32 = 5004;

/// The mesh with its programs.
#[derive(Debug)]
pub struct Stage {
    /// The hosts: h1 words v1 and capitalizer, h2 words v1 and simon, h3 words v2 and the client.
    pub mesh: Mesh,
    kind: Kind,
    fail_file: PathBuf,
}

impl Stage {
    /// Starts everything and waits until it is whole.
    pub fn set(kind: Kind, say: fn(&str)) -> anyhow::Result<Self> {
        Self::set_with(kind, say, &[], &|_, text| text)
    }

    /// The same, with more arguments for `init`, and with each service file changed by `edit`.
    pub fn set_with(
        kind: Kind,
        say: fn(&str),
        init: &[&str],
        edit: &dyn Fn(&str, String) -> String,
    ) -> anyhow::Result<Self> {
        let mut mesh = Mesh::new(kind, 3)?;
        let fail_file = mesh.directory.path().join("fail-share");
        std::fs::write(&fail_file, "0")?;
        for host in &mut mesh.hosts {
            configure(host, kind, edit)?;
            start_programs(host, kind, &fail_file.display().to_string())?;
        }
        say(
            "· starting three daemons; h1 makes the mesh, h2 joins as a second authority, h3 joins",
        );
        mesh.form(2, init)?;
        say("· three hosts see each other; waiting for three healthy instances of words");
        let stage = Self {
            mesh,
            kind,
            fail_file,
        };
        stage.apply("services.yaml")?;
        for host in 0..3 {
            stage
                .mesh
                .wait_endpoints(host, "words", 3, Duration::from_secs(30))?;
            stage
                .mesh
                .wait_endpoints(host, "capitalizer", 1, Duration::from_secs(30))?;
            stage
                .mesh
                .wait_endpoints(host, "simon", 1, Duration::from_secs(30))?;
        }
        stage.first_call(say)?;
        Ok(stage)
    }

    /// A host by its place.
    pub fn host(&self, index: usize) -> anyhow::Result<&Host> {
        self.mesh.hosts.get(index).context("no such host")
    }

    fn first_call(&self, say: fn(&str)) -> anyhow::Result<()> {
        let answer = within(Duration::from_mins(1), || {
            let text = self.client(&["get", "http://capitalizer/simon"])?;
            if text.starts_with("200") {
                Ok(text)
            } else {
                bail!("the first call: {text}")
            }
        })?;
        say(&format!(
            "· first call: client → capitalizer → simon → words: {}",
            answer.lines().last().unwrap_or_default()
        ));
        Ok(())
    }

    /// Applies a file of `tests/demo` and waits until every host has it.
    pub fn apply(&self, file: &str) -> anyhow::Result<()> {
        let path = workspace().join("tests/demo").join(file);
        self.host(0)?.ctl(&[
            "apply",
            "-f",
            &path.display().to_string(),
            "--wait",
            "all",
            "--reason",
            "demonstration",
        ])?;
        Ok(())
    }

    /// Removes a resource everywhere.
    pub fn delete(&self, kind: &str, name: &str) -> anyhow::Result<()> {
        self.host(0)?
            .ctl(&["delete", kind, name, "--wait", "all"])?;
        Ok(())
    }

    /// The plain program on the client's host as the client, ready to be started.
    pub fn client_command(&self, arguments: &[&str]) -> anyhow::Result<std::process::Command> {
        let host = self.host(2)?;
        let mut command = host.command_as(CLIENT, built("mesh-demo-app"));
        if self.kind == Kind::Loopback {
            command.env("http_proxy", format!("http://{}:4140", host.v4));
        }
        command.args(arguments);
        Ok(command)
    }

    /// Runs the plain program on the client's host, as the client.
    pub fn client(&self, arguments: &[&str]) -> anyhow::Result<String> {
        finished("mesh-demo-app", &self.client_command(arguments)?.output()?)
    }

    /// Makes v2 fail this share of its calls.
    pub fn fail_share(&self, share: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(&self.fail_file, share)?)
    }

    /// How many calls v2 has failed, by its own count.
    pub fn failures_of_v2(&self) -> anyhow::Result<u64> {
        self.count_of_v2("failed")
    }

    /// How many calls have reached v2, by its own count.
    pub fn calls_of_v2(&self) -> anyhow::Result<u64> {
        self.count_of_v2("answered")
    }

    fn count_of_v2(&self, what: &str) -> anyhow::Result<u64> {
        let host = self.host(2)?;
        let url = format!("http://{}:8080/-/counts", host.v4);
        let mut command = host.command(built("mesh-demo-app"));
        let text = finished("counts", &command.args(["get", &url]).output()?)?;
        let line = text.lines().nth(1).unwrap_or_default();
        let counts: serde_json::Value = serde_json::from_str(line).with_context(|| text.clone())?;
        let count = counts.get(what).and_then(serde_json::Value::as_u64);
        count.with_context(|| format!("no count {what}: {text}"))
    }

    /// What `meshctl` says at the end.
    pub fn summary(&self) -> anyhow::Result<String> {
        let members = self.host(0)?.ctl(&["members"])?;
        let stat = self.host(0)?.ctl(&["stat"])?;
        Ok(format!(
            "$ meshctl members\n{members}\n$ meshctl stat\n{stat}"
        ))
    }

    /// The ends of the daemons' logs.
    pub fn troubles(&self) -> String {
        self.mesh
            .hosts
            .iter()
            .map(|host| format!("--- {} ---\n{}\n", host.name, tail(&host.meshd_log(), 20)))
            .collect::<Vec<_>>()
            .concat()
    }

    /// Prints what to try, and waits until the program is told to end.
    pub fn explore(&mut self, say: fn(&str)) -> anyhow::Result<()> {
        let file = workspace().join("target/demo.env");
        let mut text = String::new();
        for host in &self.mesh.hosts {
            let shell = host.meshctl();
            let words: Vec<String> = std::iter::once(shell.get_program())
                .chain(shell.get_args())
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            let env: Vec<String> = shell
                .get_envs()
                .filter_map(|(key, value)| {
                    Some(format!(
                        "{}={}",
                        key.to_string_lossy(),
                        value?.to_string_lossy()
                    ))
                })
                .collect();
            writeln!(
                text,
                "{}: env {} {}",
                host.name,
                env.join(" "),
                words.join(" ")
            )?;
        }
        std::fs::write(&file, &text)?;
        say("the mesh is up; `make demo-down` ends it. Try, with scripts/demo-ctl.sh HOST …:");
        for line in [
            "scripts/demo-ctl.sh h1",
            "scripts/demo-ctl.sh h1 members",
            "scripts/demo-ctl.sh h3 endpoints words",
            "scripts/demo-ctl.sh h1 route split words v1=90 v2=10 --confirm-within 5m",
            "scripts/demo-ctl.sh h1 explain --from capitalizer GET http://words/",
            "scripts/demo-ctl.sh h1 curl --as capitalizer http://words/",
            "scripts/demo-ctl.sh h1 history",
        ] {
            say(&format!("  {line}"));
        }
        loop {
            std::thread::park();
        }
    }
}

/// The user ids of a host's one recognised caller.
fn caller_uid(kind: Kind, own: u32) -> u32 {
    match kind {
        Kind::Users => own,
        Kind::OneUser | Kind::Loopback => nix::unistd::geteuid().as_raw(),
    }
}

fn configure(host: &Host, kind: Kind, edit: &dyn Fn(&str, String) -> String) -> anyhow::Result<()> {
    let write = |file: &str, text: String| host.configure(file, &edit(&host.name, text));
    host.configure("meshd.toml", &host.default_config(""))?;
    let words = |version: &str| {
        let user = if kind == Kind::Users {
            format!("user = {WORDS}\n")
        } else {
            String::new()
        };
        format!(
            "[[service]]\nname = \"words\"\nversion = \"{version}\"\nlabels = {{ app = \"words\" }}\n{user}\
             ports = [{{ name = \"http\", port = 80, target = 8080, protocol = \"http\" }}]\n\
             health = {{ kind = \"http\", port = 8080, path = \"/health\", interval = \"1s\" }}\n"
        )
    };
    let service = |name: &str, target: u16, uid: u32| {
        format!(
            "[[service]]\nname = \"{name}\"\nuser = {uid}\n\
             ports = [{{ name = \"http\", port = 80, target = {target}, protocol = \"http\" }}]\n\
             health = {{ kind = \"tcp\", port = {target}, interval = \"1s\" }}\n"
        )
    };
    match host.name.as_str() {
        "h1" => {
            write("services.d/words.toml", words("v1"))?;
            write(
                "services.d/capitalizer.toml",
                service("capitalizer", 8082, caller_uid(kind, CAPITALIZER)),
            )
        }
        "h2" => {
            write("services.d/words.toml", words("v1"))?;
            write(
                "services.d/simon.toml",
                service("simon", 8081, caller_uid(kind, SIMON)),
            )
        }
        _ => {
            write("services.d/words.toml", words("v2"))?;
            let uid = caller_uid(kind, CLIENT);
            write(
                "services.d/client.toml",
                format!("[[service]]\nname = \"client\"\nuser = {uid}\n"),
            )
        }
    }
}

fn start_programs(host: &mut Host, kind: Kind, fail_file: &str) -> anyhow::Result<()> {
    let address = if kind == Kind::Loopback {
        host.v4.to_string()
    } else {
        "0.0.0.0".to_owned()
    };
    let at = |port: u16| format!("{address}:{port}");
    match host.name.as_str() {
        "h1" => {
            host.start_app(WORDS, &["words", "--version", "v1", "--listen", &at(8080)])?;
            host.start_app(CAPITALIZER, &["capitalizer", "--listen", &at(8082)])?;
        }
        "h2" => {
            host.start_app(WORDS, &["words", "--version", "v1", "--listen", &at(8080)])?;
            host.start_app(SIMON, &["simon", "--listen", &at(8081)])?;
        }
        _ => {
            host.start_app(
                WORDS,
                &[
                    "words",
                    "--version",
                    "v2",
                    "--listen",
                    &at(8080),
                    "--fail-file",
                    fail_file,
                ],
            )?;
        }
    }
    Ok(())
}
