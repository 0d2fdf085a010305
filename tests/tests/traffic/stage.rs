//! Three hosts with nginx servers, the programs that call them, and what a row asks of them.

use std::{fmt::Write as _, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, bail, ensure};
use mesh_tests::{
    Child, Host, Mesh,
    host::Kind,
    process::{finished, run},
    wait::within,
};

/// The usual caller, of the namespace `default`, on the third host.
pub const CLIENT: u32 = 5004;
/// Another one of the same namespace.
pub const OTHER: u32 = 5005;
/// A caller of the namespace `guests`.
pub const GUEST: u32 = 5006;

/// A row: its name and what it checks; it returns what it measured.
pub type Row = (&'static str, fn(&mut Stage) -> anyhow::Result<String>);

/// Rows under the same documents.
pub struct Group {
    pub documents: &'static str,
    pub rows: &'static [Row],
}

/// A server: an instance of a service on a host.
struct Server {
    host: usize,
    service: &'static str,
    name: &'static str,
    version: &'static str,
    port: u16,
    target: u16,
    protocol: &'static str,
    weight: u32,
}

const fn server(
    service: &'static str,
    name: &'static str,
    version: &'static str,
    target: u16,
) -> Server {
    Server {
        host: 0,
        service,
        name,
        version,
        port: 80,
        target,
        protocol: "http",
        weight: 1,
    }
}

const fn opaque(
    service: &'static str,
    name: &'static str,
    version: &'static str,
    port: u16,
    target: u16,
) -> Server {
    Server {
        port,
        protocol: "tcp",
        ..server(service, name, version, target)
    }
}

const fn grpc(name: &'static str, version: &'static str, target: u16) -> Server {
    Server {
        port: 9000,
        protocol: "grpc",
        ..server("talk", name, version, target)
    }
}

const fn on(host: usize, server: Server) -> Server {
    Server { host, ..server }
}

const SERVERS: [Server; 23] = [
    server("shop", "shop-1", "v1", 8101),
    server("shop", "shop-2", "v2", 8102),
    server("pool", "pool-1", "v1", 8111),
    server("pool", "pool-2", "v1", 8112),
    server("pool", "pool-3", "v2", 8113),
    server("pool", "pool-4", "v2", 8114),
    server("weak", "weak-good", "good", 8121),
    server("weak", "weak-bad", "bad", 8122),
    server("shadow", "shadow", "v1", 8131),
    server("lone", "lone", "v1", 8132),
    Server {
        weight: 3,
        ..server("heavy", "heavy-3", "v1", 8133)
    },
    server("heavy", "heavy-1", "v1", 8134),
    Server {
        protocol: "http2",
        ..server("modern", "modern", "v1", 8135)
    },
    Server {
        protocol: "detect",
        ..server("seen", "seen", "v1", 8136)
    },
    opaque("login", "login-a", "a", 443, 8443),
    opaque("login", "login-b", "b", 443, 8444),
    opaque("db", "db-a", "a", 5432, 8141),
    opaque("db", "db-b", "b", 5432, 8142),
    // Served by grpcio.
    grpc("talk-1", "v1", 9001),
    grpc("talk-2", "v2", 9002),
    on(2, server("near", "near-own", "v1", 8151)),
    on(0, server("near", "near-far", "v1", 8152)),
    on(1, server("near", "near-other", "v1", 8153)),
];

/// `Service` documents of versions: the names are those of the service and the version.
const VERSIONS: [(&str, &str, u16); 6] = [
    ("shop", "v1", 80),
    ("shop", "v2", 80),
    ("login", "a", 443),
    ("login", "b", 443),
    ("db", "a", 5432),
    ("db", "b", 5432),
];

const LOCALITIES: [&str; 3] = [
    "region = \"us\"\nzone = \"us-1\"",
    "region = \"asia\"\nzone = \"asia-1\"",
    "region = \"eu\"\nzone = \"eu-1\"",
];

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
}

impl Answer {
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
        within(Duration::from_secs(20), || {
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
        let text = self.curl(uid, &all)?;
        parse(&text).with_context(|| format!("{all:?}: {text}"))
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
        within(Duration::from_secs(5), || {
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
        answer.version = words.next().unwrap_or_default().to_owned();
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

fn certificates(files: &std::path::Path) -> anyhow::Result<()> {
    for name in ["login-a", "login-b"] {
        let (key, certificate) = (
            files.join(format!("{name}.key")),
            files.join(format!("{name}.pem")),
        );
        run(&[
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
            &key.display().to_string(),
            "-out",
            &certificate.display().to_string(),
        ])?;
    }
    Ok(())
}

fn callers() -> String {
    format!(
        "[[service]]\nname = \"client\"\nuser = {CLIENT}\n\
         [[service]]\nname = \"other\"\nuser = {OTHER}\nlabels = {{ tier = \"back\" }}\n\
         [[service]]\nname = \"guest\"\nnamespace = \"guests\"\nuser = {GUEST}\n"
    )
}

fn services(host: usize) -> String {
    let mut text = String::new();
    for one in SERVERS.iter().filter(|one| one.host == host) {
        let _infallible = writeln!(
            text,
            "[[service]]\nname = \"{}\"\ninstance = \"{}\"\nversion = \"{}\"\nweight = {}\n\
             ports = [{{ port = {}, target = {}, protocol = \"{}\" }}]",
            one.service, one.name, one.version, one.weight, one.port, one.target, one.protocol
        );
    }
    text
}

fn versions() -> String {
    let mut text = String::new();
    for (service, version, port) in VERSIONS {
        let _infallible = writeln!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {service}-{version}}}\n\
             spec: {{selector: {{app: {service}, version: {version}}}, ports: [{{port: {port}}}]}}"
        );
    }
    text
}

/// What every server does; `weak-bad` and `pool-4` are different on some paths.
fn server_block(one: &Server, files: &std::path::Path) -> String {
    let Server {
        name,
        target,
        protocol,
        ..
    } = one;
    let files = files.display();
    let listen = match *protocol {
        "http2" => format!("{target} http2"),
        _ if name.starts_with("login") => format!(
            "{target} ssl; ssl_certificate {files}/{name}.pem; ssl_certificate_key {files}/{name}.key"
        ),
        _ => format!("{target}"),
    };
    let said = format!(
        "from={name}\\nmethod=$request_method\\nuri=$request_uri\\nhost=$http_host\\nx-a=$http_x_a\\nx-b=$http_x_b\\n\
         x-c=$http_x_c\\nversion=$server_protocol\\n"
    );
    let bad = ["weak-bad", "near-own"].contains(name);
    let fails = |status: u16| if bad { status } else { 200 };
    let pause = |slow: bool, time: &str| {
        if slow {
            format!("echo_sleep {time}; ")
        } else {
            String::new()
        }
    };
    format!(
        "server {{ listen {listen}; server_name _; access_log {files}/{name}.log row;\n\
         location / {{ return 200 \"{said}\"; }}\n\
         location = /request {{ echo_duplicate 1 \"{said}\"; echo $echo_client_request_headers; }}\n\
         location /slow {{ echo_sleep 1; echo from={name}; }}\n\
         location /race {{ {race}echo from={name}; }}\n\
         location /stuck {{ {stuck}echo from={name}; }}\n\
         location /big {{ echo_duplicate 32768 x; }}\n\
         location /fails {{ return 503 \"{said}\"; }}\n\
         location /missing {{ return 404 \"{said}\"; }}\n\
         location /weak {{ return {weak} \"{said}\"; }}\n\
         location /broken {{ return {broken} \"{said}\"; }}\n\
         location /healthz {{ return {weak} \"{said}\"; }}\n\
         location /later {{ {later}return {weak} \"{said}\"; }}\n}}\n",
        race = pause(*name == "pool-4", "0.2"),
        stuck = pause(bad, "3"),
        weak = fails(503),
        broken = fails(500),
        later = if bad {
            "add_header retry-after 1 always; "
        } else {
            ""
        },
    )
}

fn start_nginx(host: &mut Host, index: usize, files: &std::path::Path) -> anyhow::Result<()> {
    let mut text = format!(
        "load_module /usr/lib/nginx/modules/ngx_http_echo_module.so;\nuser root;\ndaemon off;\nworker_processes 1;\n\
         pid {files}/nginx-{index}.pid;\nerror_log stderr;\nevents {{ worker_connections 1024; }}\n\
         http {{ default_type text/plain; keepalive_requests 100000;\n\
         log_format row '$request_method $request_uri $status $http_host x-a=$http_x_a connection=$connection time=$msec';\n\
         client_body_temp_path {files}/body-{index}; proxy_temp_path {files}/proxy-{index};\n\
         fastcgi_temp_path {files}/fast-{index}; uwsgi_temp_path {files}/uwsgi-{index}; scgi_temp_path {files}/scgi-{index};\n",
        files = files.display()
    );
    let own = |one: &&Server| one.host == index && one.protocol != "grpc";
    for one in SERVERS.iter().filter(own) {
        text.push_str(&server_block(one, files));
    }
    text.push_str("}\n");
    let path = files.join(format!("nginx-{index}.conf"));
    std::fs::write(&path, text)?;
    let mut command: Command = host.command("nginx");
    command.arg("-c").arg(&path);
    let mut child = Child::start("nginx", &mut command, &host.log_path("nginx"))?;
    let port = SERVERS.iter().find(|one| one.host == index);
    let port = port.context("no server")?.target;
    within(Duration::from_secs(10), || {
        if !child.runs() {
            bail!("nginx ended: {}", child.log());
        }
        host.sh(&format!("curl -s -o /dev/null http://127.0.0.1:{port}/"))
    })?;
    host.keep(child);
    Ok(())
}
