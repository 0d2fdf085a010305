//! Three hosts with nginx servers, the programs that call them, and what a row asks of them.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use mesh_tests::{
    Host, Mesh,
    host::Kind,
    process::finished,
    wait::{Running, within},
};

pub use crate::servers::{CLIENT, GUEST, OTHER};
use crate::servers::{
    LOCALITIES, SERVERS, callers, certificates, outside, services, start_nginx, versions,
};

/// A row: its name and what it checks; it returns what it measured.
pub type Row = (&'static str, fn(&mut Stage) -> anyhow::Result<String>);

/// Rows under the same documents.
pub struct Group {
    pub documents: &'static str,
    pub rows: &'static [Row],
}

/// The mesh with its servers.
pub struct Stage {
    pub mesh: Mesh,
    files: PathBuf,
}

/// What curl got.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub version: String,
    pub status: u16,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub took: Duration,
    /// How long the machine stood still meanwhile.
    pub stood: Duration,
}

impl Answer {
    /// How long it took of the time in which the machine ran.
    pub fn ran(&self) -> Duration {
        self.took.saturating_sub(self.stood)
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// What the server said about a part of the request: `from`, `method`, `uri`, `host`, or a header.
    pub fn said(&self, key: &str) -> &str {
        let mut pairs = self.body.lines().filter_map(|line| line.split_once('='));
        let found = pairs.find(|(known, _)| *known == key);
        found.map_or("", |(_, value)| value)
    }

    /// The server that answered.
    pub fn from(&self) -> &str {
        self.said("from")
    }
}

impl Stage {
    /// Starts everything and waits until the caller sees every server.
    pub fn set() -> anyhow::Result<Self> {
        let mut mesh = Mesh::new(Kind::Users, 3)?;
        let files = mesh.directory.path().join("files");
        std::fs::create_dir_all(&files)?;
        certificates(&files)?;
        for (index, locality) in LOCALITIES.iter().enumerate() {
            let host = mesh.host(index);
            let more = format!("[host.locality]\n{locality}\n");
            host.configure("conf.d/locality.toml", &more)?;
            if index == 2 {
                let explicit = "[listeners]\nexplicit = \"127.0.0.1:4140\"\n";
                host.configure("conf.d/explicit.toml", explicit)?;
                host.configure("services.d/callers.toml", &callers())?;
            }
            host.configure("meshd.toml", &host.default_config(""))?;
            host.configure("services.d/servers.toml", &services(index))?;
            start_nginx(host, index, &files)?;
        }
        outside(&mut mesh, &files)?;
        mesh.form(1, &[])?;
        let stage = Self { mesh, files };
        stage.apply(&versions())?;
        let mut counted: Vec<&str> = SERVERS.iter().map(|server| server.service).collect();
        counted.dedup();
        for service in counted {
            let count = SERVERS.iter().filter(|one| one.service == service).count();
            let deadline = Duration::from_secs(30);
            stage.mesh.wait_endpoints(2, service, count, deadline)?;
        }
        let deadline = Duration::from_secs(30);
        stage.mesh.wait_endpoints(2, "outside", 1, deadline)?;
        within(Duration::from_secs(30), || {
            let answer = stage.get("http://shop/")?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })?;
        Ok(stage)
    }

    /// The host of the callers.
    pub fn caller(&self) -> &Host {
        &self.mesh.hosts[2]
    }

    /// The host of most servers.
    pub fn server(&self) -> &Host {
        &self.mesh.hosts[0]
    }

    /// A file in the folder of the servers.
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.join(name)
    }

    /// Puts documents in force on every host.
    pub fn apply(&self, documents: &str) -> anyhow::Result<()> {
        if documents.is_empty() {
            return Ok(());
        }
        let arguments = ["apply", "-f", "-", "--wait=all"];
        self.server().ctl_with_input(&arguments, documents)?;
        Ok(())
    }

    /// Takes them back.
    pub fn take_back(&self, documents: &str) -> anyhow::Result<()> {
        if documents.is_empty() {
            return Ok(());
        }
        let arguments = ["delete", "-f", "-", "--wait=all"];
        self.server().ctl_with_input(&arguments, documents)?;
        Ok(())
    }

    /// curl as a program of the third host.
    pub fn curl(&self, uid: u32, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.caller().command_as(uid, "curl");
        command
            .args(["-sS", "--max-time", "20", "--noproxy", "*"])
            .args(arguments);
        let output = command.output()?;
        finished(&format!("curl {}", arguments.join(" ")), &output)
    }

    /// One request of a caller, with more arguments for curl before the address.
    pub fn ask(&self, uid: u32, arguments: &[&str], url: &str) -> anyhow::Result<Answer> {
        let mut all = vec!["-i", "-w", "\ntook=%{time_total}"];
        all.extend(arguments);
        all.push(url);
        let clock = Running::now();
        let text = self.curl(uid, &all)?;
        let mut answer = parse(&text).with_context(|| format!("{all:?}: {text}"))?;
        answer.stood = clock.stood();
        Ok(answer)
    }

    /// One GET.
    pub fn get(&self, url: &str) -> anyhow::Result<Answer> {
        self.ask(CLIENT, &[], url)
    }

    /// One request with more arguments for curl.
    pub fn call(&self, arguments: &[&str], url: &str) -> anyhow::Result<Answer> {
        self.ask(CLIENT, arguments, url)
    }

    /// Many requests by one curl: `url` has a range like `[1-100]`. A status and a server for each.
    pub fn many(&self, arguments: &[&str], url: &str) -> anyhow::Result<Counts> {
        let mut all = vec!["-w", "\ncode=%{http_code}\n"];
        all.extend(arguments);
        all.push(url);
        Ok(Counts(self.curl(CLIENT, &all)?))
    }

    /// Lines of a server's access log that contain a text.
    pub fn logged(&self, server: &str, part: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.file(&format!("{server}.log")));
        let text = text.unwrap_or_default();
        let lines = text.lines().filter(|line| line.contains(part));
        lines.map(str::to_owned).collect()
    }

    /// Waits until as many lines with a text are in a server's log.
    pub fn wait_logged(&self, server: &str, part: &str, count: usize) -> anyhow::Result<()> {
        within(Duration::from_secs(30), || {
            let found = self.logged(server, part).len();
            ensure!(
                found == count,
                "{found} of {count} lines with {part} at {server}"
            );
            Ok(())
        })
    }
}

/// What many requests got.
pub struct Counts(pub String);

impl Counts {
    /// Requests that one server answered.
    pub fn from(&self, server: &str) -> usize {
        self.lines(&format!("from={server}"))
    }

    /// Requests with a status.
    pub fn status(&self, status: u16) -> usize {
        self.lines(&format!("code={status}"))
    }

    fn lines(&self, line: &str) -> usize {
        self.0.lines().filter(|one| *one == line).count()
    }
}

/// Fails unless a share of `total` is within 5 standard deviations.
pub fn share(what: &str, count: usize, total: usize, share: f64) -> anyhow::Result<String> {
    let total = total as f64;
    let (expected, sigma) = (total * share, (total * share * (1.0 - share)).sqrt());
    let off = (count as f64 - expected).abs();
    ensure!(
        off <= 5.0 * sigma,
        "{what}: {count} of {total}, expected {expected:.0} ± {:.0}",
        5.0 * sigma
    );
    Ok(format!("{what} {count}/{total}"))
}

/// Fails unless the server is the expected one.
pub fn by(answer: &Answer, server: &str) -> anyhow::Result<()> {
    ensure!(
        answer.status == 200 && answer.from() == server,
        "expected {server}: {answer:?}"
    );
    Ok(())
}

fn parse(text: &str) -> anyhow::Result<Answer> {
    let (text, took) = text.rsplit_once("\ntook=").context("no time")?;
    let mut answer = Answer {
        took: Duration::from_secs_f64(took.trim().parse()?),
        ..Answer::default()
    };
    let mut rest = text;
    // Answers of 100 and of redirects that were followed come first.
    while rest.starts_with("HTTP/") {
        let (head, body) = rest.split_once("\r\n\r\n").context("no end of the head")?;
        let mut lines = head.lines();
        let mut words = lines.next().unwrap_or_default().split(' ');
        words
            .next()
            .unwrap_or_default()
            .clone_into(&mut answer.version);
        answer.status = words.next().context("no status")?.parse()?;
        answer.headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        rest = body;
    }
    rest.clone_into(&mut answer.body);
    Ok(answer)
}
