//! The servers of the table: nginx instances on three hosts and beside them, and what they do on each path.

use std::{fmt::Write as _, process::Command, time::Duration};

use anyhow::{Context as _, bail};
use mesh_tests::{Child, Host, Mesh, process::run, wait::within};

/// The usual caller, of the namespace `default`, on the third host.
pub const CLIENT: u32 = 5004;
/// Another one of the same namespace.
pub const OTHER: u32 = 5005;
/// A caller of the namespace `guests`.
pub const GUEST: u32 = 5006;

/// A server: an instance of a service on a host.
#[derive(Clone, Copy)]
pub struct Server {
    host: usize,
    pub service: &'static str,
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

pub const SERVERS: [Server; 23] = [
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

pub const LOCALITIES: [&str; 3] = [
    "region = \"us\"\nzone = \"us-1\"",
    "region = \"asia\"\nzone = \"asia-1\"",
    "region = \"eu\"\nzone = \"eu-1\"",
];

pub fn certificates(files: &std::path::Path) -> anyhow::Result<()> {
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

pub fn callers() -> String {
    format!(
        "[[service]]\nname = \"client\"\nuser = {CLIENT}\n\
         [[service]]\nname = \"other\"\nuser = {OTHER}\nlabels = {{ tier = \"back\" }}\n\
         [[service]]\nname = \"guest\"\nnamespace = \"guests\"\nuser = {GUEST}\n"
    )
}

pub fn services(host: usize) -> String {
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

pub fn versions() -> String {
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
         location /new/read/ {{ echo_read_request_body; echo_duplicate 1 \"{said}\"; echo_request_body; }}\n\
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

/// A server beside the mesh, which the callers' host knows of a file.
pub fn outside(mesh: &mut Mesh, files: &std::path::Path) -> anyhow::Result<()> {
    let folder = files.join("registry");
    std::fs::create_dir_all(&folder)?;
    let known = "[[service]]\nname = \"outside\"\nport = 80\nprotocol = \"http\"\nendpoint = [{ address = \"10.77.0.254:8160\" }]\n";
    std::fs::write(folder.join("outside.toml"), known)?;
    std::fs::write(folder.join("beside.toml"), crate::beside::KNOWN)?;
    let source = format!(
        "[[source]]\nid = \"file/outside\"\nkind = \"file\"\ndirectory = \"{}\"\npublish = true\n",
        folder.display()
    );
    mesh.host(2).configure("conf.d/outside.toml", &source)?;
    let mut command = nginx(
        files,
        &[
            server("outside", "outside", "v1", 8160),
            server("ranked", "ranked-1", "v1", 8161),
            server("ranked", "ranked-2", "v1", 8162),
            Server {
                protocol: "http2",
                ..server("newer", "newer", "v1", 8163)
            },
        ],
        "outside",
        Command::new("nginx"),
    )?;
    let child = Child::start(
        "nginx outside",
        &mut command,
        &files.join("nginx-outside.txt"),
    )?;
    mesh.host(2).keep(child);
    Ok(())
}

/// nginx with these servers, ready to be started.
fn nginx(
    files: &std::path::Path,
    servers: &[Server],
    index: &str,
    mut command: Command,
) -> anyhow::Result<Command> {
    let mut text = format!(
        "load_module /usr/lib/nginx/modules/ngx_http_echo_module.so;\nuser root;\ndaemon off;\nworker_processes 1;\n\
         pid {files}/nginx-{index}.pid;\nerror_log stderr;\nevents {{ worker_connections 1024; }}\n\
         http {{ default_type text/plain; keepalive_requests 100000;\n\
         log_format row '$request_method $request_uri $status $http_host x-a=$http_x_a connection=$connection time=$msec';\n\
         client_body_temp_path {files}/body-{index}; proxy_temp_path {files}/proxy-{index};\n\
         fastcgi_temp_path {files}/fast-{index}; uwsgi_temp_path {files}/uwsgi-{index}; scgi_temp_path {files}/scgi-{index};\n",
        files = files.display()
    );
    for one in servers {
        text.push_str(&server_block(one, files));
    }
    text.push_str("}\n");
    let path = files.join(format!("nginx-{index}.conf"));
    std::fs::write(&path, text)?;
    command.arg("-c").arg(&path);
    Ok(command)
}

pub fn start_nginx(host: &mut Host, index: usize, files: &std::path::Path) -> anyhow::Result<()> {
    let own = |one: &&Server| one.host == index && one.protocol != "grpc";
    let servers: Vec<Server> = SERVERS.iter().filter(own).copied().collect();
    let port = servers.first().context("no server")?.target;
    let mut command = nginx(files, &servers, &index.to_string(), host.command("nginx"))?;
    let mut child = Child::start("nginx", &mut command, &host.log_path("nginx"))?;
    within(Duration::from_secs(30), || {
        if !child.runs() {
            bail!("nginx ended: {}", child.log());
        }
        host.sh(&format!("curl -s -o /dev/null http://127.0.0.1:{port}/"))
    })?;
    host.keep(child);
    Ok(())
}
