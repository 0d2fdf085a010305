//! The HTTP services: words, simon, capitalizer.

use std::{cell::Cell, convert::Infallible, path::PathBuf, rc::Rc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request, Response, StatusCode, body::Incoming, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::LocalSet};

use crate::client::Client;

const FIRST: [&str; 6] = ["apple", "anchor", "amber", "arrow", "autumn", "acorn"];
const SECOND: [&str; 6] = ["zebra", "zephyr", "zigzag", "zenith", "zinc", "zucchini"];

/// What a service does.
#[derive(Debug)]
pub(crate) struct Role {
    kind: Kind,
    client: Client,
    answered: Cell<u64>,
    failed: Cell<u64>,
}

#[derive(Debug)]
enum Kind {
    Words {
        second: bool,
        fail_file: Option<PathBuf>,
    },
    Simon {
        words: String,
    },
    Capitalizer {
        words: String,
        simon: String,
    },
}

impl Role {
    pub(crate) fn words(version: &str, fail_file: Option<PathBuf>) -> Self {
        Self::of(Kind::Words {
            second: version == "v2",
            fail_file,
        })
    }
    pub(crate) fn simon(words: String) -> Self {
        Self::of(Kind::Simon { words })
    }
    pub(crate) fn capitalizer(words: String, simon: String) -> Self {
        Self::of(Kind::Capitalizer { words, simon })
    }
    fn of(kind: Kind) -> Self {
        Self {
            kind,
            client: Client::default(),
            answered: Cell::new(0),
            failed: Cell::new(0),
        }
    }

    async fn answer(&self, path: &str, headers: &HeaderMap) -> (StatusCode, String) {
        if path == "/-/counts" {
            let counts = format!(
                "{{\"answered\":{},\"failed\":{}}}\n",
                self.answered.get(),
                self.failed.get()
            );
            return (StatusCode::OK, counts);
        }
        if path == "/health" {
            return (StatusCode::OK, "ok\n".to_owned());
        }
        self.answered.set(self.answered.get() + 1);
        let answer = match &self.kind {
            Kind::Words { second, fail_file } => words(*second, fail_file.as_ref()),
            Kind::Simon { words } => self
                .ask(words, headers)
                .await
                .map(|word| format!("Simon says: {word}")),
            Kind::Capitalizer { words, simon } => {
                let url = if path.starts_with("/simon") {
                    simon
                } else {
                    words
                };
                self.ask(url, headers).await.map(|text| text.to_uppercase())
            }
        };
        answer.map_or_else(
            |error| {
                self.failed.set(self.failed.get() + 1);
                error
            },
            |text| (StatusCode::OK, text),
        )
    }

    async fn ask(&self, url: &str, headers: &HeaderMap) -> Result<String, (StatusCode, String)> {
        let bad = |text: String| (StatusCode::BAD_GATEWAY, text);
        let answer = self
            .client
            .get(url, &passed_on(headers))
            .await
            .map_err(|error| bad(format!("{error:#}\n")))?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        if answer.status == StatusCode::OK {
            Ok(text)
        } else {
            Err((answer.status, text))
        }
    }
}

fn words(second: bool, fail_file: Option<&PathBuf>) -> Result<String, (StatusCode, String)> {
    let share = fail_file
        .and_then(|file| std::fs::read_to_string(file).ok())
        .and_then(|text| text.trim().parse::<f64>().ok())
        .unwrap_or_default();
    if fastrand::f64() < share {
        return Err((
            StatusCode::SERVICE_UNAVAILABLE,
            "no word today\n".to_owned(),
        ));
    }
    let list = if second { SECOND } else { FIRST };
    Ok(fastrand::choice(list).unwrap_or("a").to_owned())
}

/// What a program that keeps a request's context hands on.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| {
            let name = name.as_str();
            name.starts_with("l5d-") || name.starts_with("x-") || name == "traceparent"
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Serves until killed.
pub(crate) async fn run(listen: &str, role: Role) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let role = Rc::new(role);
    LocalSet::new()
        .run_until(async move {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let role = Rc::clone(&role);
                tokio::task::spawn_local(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let role = Rc::clone(&role);
                        async move {
                            let path = request.uri().path().to_owned();
                            let headers = request.headers().clone();
                            drop(request.into_body().collect().await);
                            let (status, text) = role.answer(&path, &headers).await;
                            let mut answer = Response::new(Full::new(Bytes::from(text)));
                            *answer.status_mut() = status;
                            Ok::<_, Infallible>(answer)
                        }
                    });
                    drop(
                        http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        })
        .await
}
