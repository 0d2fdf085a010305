//! nginx with one process: the backend of every measurement, and a proxy without mTLS.

use std::{ffi::OsString, path::Path, process::Command};

use super::{Places, port};
use crate::{
    contender::{Proxy, Way},
    place::{backend, write},
};

/// 65 bytes.
const BODY: &str = "a body of sixty-five bytes, which is what every backend answers.\\n";
/// What a slow reader asks for.
const BIG: usize = 256 << 10;

/// Writes a backend's files and completes the command that starts it.
pub(crate) fn backend(folder: &Path, command: &mut Command) -> anyhow::Result<()> {
    write(folder, "big", &"x".repeat(BIG))?;
    let http = format!(
        "  server {{\n    listen 0.0.0.0:{};\n    listen 0.0.0.0:{} http2;\n    http2_max_concurrent_streams 1024;\n    \
         location / {{ default_type text/plain; return 200 \"{BODY}\"; }}\n    location /big {{ root {}; }}\n  }}\n",
        backend::HTTP1,
        backend::HTTP2,
        folder.display(),
    );
    let path = write(folder, "nginx.conf", &around(folder, &http, ""))?;
    command.args(words(folder, &path));
    Ok(())
}

/// Writes the proxy's configuration and says how to start with it.
pub(super) fn arguments(folder: &Path, places: &Places<'_>) -> anyhow::Result<Vec<OsString>> {
    let own = |way| port(Proxy::Nginx, way);
    let http = format!(
        "  upstream one {{ server 127.0.0.1:{h1}; keepalive 256; keepalive_requests 100000000; }}\n  \
         upstream other {{ server {back}:{h1}; keepalive 256; keepalive_requests 100000000; }}\n  \
         upstream calls {{ server 127.0.0.1:{grpc}; keepalive 256; keepalive_requests 100000000; }}\n  \
         proxy_http_version 1.1;\n  proxy_set_header Connection \"\";\n  \
         server {{ listen 0.0.0.0:{}; location / {{ proxy_pass http://one; }} }}\n  \
         server {{ listen 0.0.0.0:{} http2; location / {{ proxy_pass http://one; }} }}\n  \
         server {{ listen 0.0.0.0:{} http2; location / {{ grpc_pass grpc://calls; }} }}\n  \
         server {{ listen 0.0.0.0:{}; location / {{ proxy_pass http://other; }} }}\n",
        own(Way::Http1),
        own(Way::H2ToH1),
        own(Way::Grpc),
        own(Way::Redirect),
        h1 = backend::HTTP1,
        grpc = backend::GRPC,
        back = places.back,
    );
    let stream = format!(
        "stream {{\n  server {{ listen 0.0.0.0:{}; proxy_half_close on; proxy_pass {}:{}; }}\n}}\n",
        own(Way::Tcp),
        places.back,
        backend::TCP
    );
    let path = write(folder, "nginx.conf", &around(folder, &http, &stream))?;
    Ok(words(folder, &path))
}

fn words(folder: &Path, config: &Path) -> Vec<OsString> {
    let error_log = folder.join("error.log");
    [("-p", folder), ("-e", &error_log), ("-c", config)]
        .into_iter()
        .flat_map(|(flag, path)| [OsString::from(flag), path.into()])
        .collect()
}

/// The parts that both configurations share; the stream module is loaded where it is needed. It runs as the
/// namespace's root and changes to nobody else: there may be nobody else.
fn around(folder: &Path, http: &str, stream: &str) -> String {
    let place = folder.display();
    let module = std::env::var("NGINX_STREAM")
        .unwrap_or_else(|_| "/usr/lib/nginx/modules/ngx_stream_module.so".to_owned());
    let load = if stream.is_empty() {
        String::new()
    } else {
        format!("load_module {module};\n")
    };
    format!(
        "{load}user root root;\ndaemon off;\nmaster_process off;\nworker_processes 1;\nworker_rlimit_nofile 19990;\npid {place}/pid;\n\
         error_log {place}/error.log;\nevents {{ worker_connections 19500; }}\nhttp {{\n  access_log off;\n  \
         keepalive_timeout 600s;\n  keepalive_requests 100000000;\n  client_header_timeout 600s;\n  send_timeout 600s;\n  \
         tcp_nodelay on;\n  client_body_temp_path {place}/body;\n  proxy_temp_path {place}/proxy;\n  \
         fastcgi_temp_path {place}/fastcgi;\n  uwsgi_temp_path {place}/uwsgi;\n  scgi_temp_path {place}/scgi;\n\
         {http}}}\n{stream}"
    )
}
