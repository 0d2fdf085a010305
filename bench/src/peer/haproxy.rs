//! HAProxy with one thread, keep-alive on both sides, no log; HTTP/2 inside the mTLS hop.

use std::{ffi::OsString, fmt::Write as _, path::Path};

use super::{Places, port};
use crate::{
    contender::{Proxy, Way},
    stage::{backend, write},
};

/// Writes the configuration and says how to start with it.
pub(super) fn arguments(
    folder: &Path,
    places: &Places<'_>,
    near: bool,
) -> anyhow::Result<Vec<OsString>> {
    let path = write(folder, "haproxy.cfg", &text(places, near)?)?;
    Ok(vec!["-db".into(), "-f".into(), path.into()])
}

fn text(places: &Places<'_>, near: bool) -> Result<String, std::fmt::Error> {
    let mut text = "global\n  nbthread 1\n  no strict-limits\n  maxconn 19500\n  ssl-default-bind-options ssl-min-ver TLSv1.3\n  \
                    ssl-default-server-options ssl-min-ver TLSv1.3\ndefaults\n  mode http\n  timeout connect 5s\n  \
                    timeout client 600s\n  timeout server 600s\n  timeout http-keep-alive 600s\n  http-reuse always\n  option http-keep-alive\n"
        .to_owned();
    let folder = places.certificates.display();
    let own = |way| port(Proxy::Haproxy, way);
    // Frontend: way, mode, options of its port, address behind it, options of that.
    let far_port = |way| format!("{}:{}", places.far, own(way));
    let local = |port: u16| format!("127.0.0.1:{port}");
    let tls_server = format!("ssl crt {folder}/both.pem ca-file {folder}/ca.pem verify required");
    let tls_client = format!("{tls_server} sni str(bench) verifyhost bench");
    let rows = if near {
        vec![
            (
                Way::Http1,
                "http",
                String::new(),
                local(backend::HTTP1),
                String::new(),
            ),
            (
                Way::H2ToH1,
                "http",
                "proto h2".to_owned(),
                local(backend::HTTP1),
                String::new(),
            ),
            (
                Way::H2ToH2,
                "http",
                "proto h2".to_owned(),
                local(backend::HTTP2),
                "proto h2".to_owned(),
            ),
            (
                Way::Grpc,
                "http",
                "proto h2".to_owned(),
                local(backend::GRPC),
                "proto h2".to_owned(),
            ),
            (
                Way::Redirect,
                "http",
                String::new(),
                format!("{}:{}", places.back, backend::HTTP1),
                String::new(),
            ),
            (
                Way::Hop,
                "http",
                String::new(),
                far_port(Way::Hop),
                format!("{tls_client} alpn h2"),
            ),
            (
                Way::Tcp,
                "tcp",
                String::new(),
                format!("{}:{}", places.back, backend::TCP),
                String::new(),
            ),
            (
                Way::TcpMtls,
                "tcp",
                String::new(),
                far_port(Way::TcpMtls),
                tls_client,
            ),
        ]
    } else {
        vec![
            (
                Way::Hop,
                "http",
                format!("{tls_server} alpn h2"),
                local(backend::HTTP1),
                String::new(),
            ),
            (
                Way::TcpMtls,
                "tcp",
                tls_server,
                local(backend::TCP),
                String::new(),
            ),
        ]
    };
    for (number, (way, mode, bind, address, server)) in rows.into_iter().enumerate() {
        write!(
            text,
            "frontend front{number}\n  mode {mode}\n  bind 0.0.0.0:{} {bind}\n  default_backend back{number}\n\
             backend back{number}\n  mode {mode}\n  server one {address} {server}\n",
            own(way)
        )?;
    }
    Ok(text)
}
