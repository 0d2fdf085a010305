//! An HTTP/1.1 client as a plain program has one: keep-alive connections by host, `http_proxy` honoured.

use std::{cell::RefCell, collections::HashMap, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{HeaderMap, Request, StatusCode, Uri, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Keeps idle connections by authority.
#[derive(Debug, Default)]
pub(crate) struct Client {
    idle: RefCell<HashMap<String, Vec<SendRequest<Empty<Bytes>>>>>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    /// One GET; at most 30 s.
    pub(crate) async fn get(&self, url: &str, headers: &HeaderMap) -> anyhow::Result<Answer> {
        tokio::time::timeout(Duration::from_secs(30), self.exchange(url, headers))
            .await
            .context("no answer within 30 s")?
    }

    async fn exchange(&self, url: &str, headers: &HeaderMap) -> anyhow::Result<Answer> {
        let uri: Uri = url.parse()?;
        let host = uri
            .authority()
            .context("the URL names no host")?
            .to_string();
        let proxy = std::env::var("http_proxy")
            .ok()
            .filter(|proxy| !proxy.is_empty());
        let place = match &proxy {
            Some(proxy) => proxy
                .trim_start_matches("http://")
                .trim_end_matches('/')
                .to_owned(),
            None => host.clone(),
        };
        let place = if place.contains(':') {
            place
        } else {
            format!("{place}:80")
        };
        let target = if proxy.is_some() {
            uri.clone()
        } else {
            uri.path_and_query()
                .map_or("/", |path| path.as_str())
                .parse()?
        };
        let mut sender = self.connection(&place).await?;
        let mut request = Request::get(target)
            .header("host", host)
            .body(Empty::new())?;
        request.headers_mut().extend(headers.clone());
        let answer = sender.send_request(request).await?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        if !sender.is_closed() {
            self.idle
                .borrow_mut()
                .entry(place)
                .or_default()
                .push(sender);
        }
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    async fn connection(&self, place: &str) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
        loop {
            let idle = self.idle.borrow_mut().get_mut(place).and_then(Vec::pop);
            let Some(mut sender) = idle else { break };
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let stream = TcpStream::connect(place)
            .await
            .with_context(|| format!("cannot connect to {place}"))?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(async move {
            drop(connection.await);
        });
        if sender.ready().await.is_err() {
            bail!("{place} closed the connection");
        }
        Ok(sender)
    }
}
