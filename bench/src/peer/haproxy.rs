//! HAProxy with one thread, keep-alive on both sides, no log; HTTP/2 inside the mTLS hop.

use std::{ffi::OsString, fmt::Write as _, path::Path};

use super::{Places, port};
use crate::{
    contender::{Proxy, Way},
    place::{backend, write},
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

/// Ways of one proxy: mode, options of the listening port, address behind it, options of that.
type Rows = Vec<(Way, &'static str, String, String, String)>;

const HEAD: &str = "global
  nbthread 1
  no strict-limits
  maxconn 19500
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
  http-reuse always
  option http-keep-alive
";

fn text(places: &Places<'_>, near: bool) -> Result<String, std::fmt::Error> {
    let folder = places.certificates.display();
    let tls = format!("ssl crt {folder}/both.pem ca-file {folder}/ca.pem verify required");
    let rows = if near {
        client(places, &tls)
    } else {
        server(&tls)
    };
    let mut text = HEAD.to_owned();
    for (number, (way, mode, bind, address, server)) in rows.into_iter().enumerate() {
        write!(
            text,
            "frontend front{number}\n  mode {mode}\n  bind 0.0.0.0:{} {bind}\n  default_backend back{number}\n\
             backend back{number}\n  mode {mode}\n  server one {address} {server}\n",
            port(Proxy::Haproxy, way)
        )?;
    }
    Ok(text)
}

fn client(places: &Places<'_>, tls: &str) -> Rows {
    let far = |way| format!("{}:{}", places.far, port(Proxy::Haproxy, way));
    let back = |port: u16| format!("{}:{port}", places.back);
    let tls = |more: &str| format!("{tls} sni str(bench) verifyhost bench{more}");
    let (none, h2) = (String::new, || "proto h2".to_owned());
    let (http1, http2, grpc) = (
        local(backend::HTTP1),
        local(backend::HTTP2),
        local(backend::GRPC),
    );
    vec![
        (Way::Http1, "http", none(), http1.clone(), none()),
        (Way::H2ToH1, "http", h2(), http1, none()),
        (Way::H2ToH2, "http", h2(), http2, h2()),
        (Way::Grpc, "http", h2(), grpc, h2()),
        (Way::Redirect, "http", none(), back(backend::HTTP1), none()),
        (Way::Hop, "http", none(), far(Way::Hop), tls(" alpn h2")),
        (Way::Tcp, "tcp", none(), back(backend::TCP), none()),
        (Way::TcpMtls, "tcp", none(), far(Way::TcpMtls), tls("")),
    ]
}

fn server(tls: &str) -> Rows {
    let (hop, bytes) = (local(backend::HTTP1), local(backend::TCP));
    vec![
        (
            Way::Hop,
            "http",
            format!("{tls} alpn h2"),
            hop,
            String::new(),
        ),
        (Way::TcpMtls, "tcp", tls.to_owned(), bytes, String::new()),
    ]
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
