//! A scripted HTTP server for the tests of sources: a play answers, and the stage misbehaves as told.
#![cfg_attr(
    not(test),
    expect(dead_code, reason = "tests do more with it than other crates")
)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a scripted server that cannot be set up fails its test"
)]

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::{broadcast, watch},
};
use tokio_util::task::TaskTracker;

/// How the server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// As it should.
    Good,
    /// No JSON.
    Garbage,
    /// Connections close.
    Broken,
    /// Bodies end early.
    Cut,
    /// Nothing is answered.
    Silent,
    /// 503.
    Ill,
}

/// A request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    pub(crate) query: String,
    /// All fields, as they came.
    pub(crate) fields: String,
    pub(crate) body: String,
}

/// What is answered.
pub(crate) enum Reply {
    /// Status, further fields, body.
    Whole(u16, &'static str, Vec<u8>),
    /// Pieces without end.
    Stream(broadcast::Receiver<String>),
}

impl Reply {
    /// A body of JSON.
    pub(crate) fn json(text: impl Into<String>) -> Self {
        Self::Whole(
            200,
            "content-type: application/json\r\n",
            text.into().into_bytes(),
        )
    }
    /// A status with a short text.
    pub(crate) fn status(status: u16, text: &str) -> Self {
        Self::Whole(status, "", text.as_bytes().to_vec())
    }
}

type Play = dyn Fn(&Asked) -> Reply + Send + Sync;

struct Shared {
    play: Box<Play>,
    mood: watch::Sender<Mood>,
    /// What `authorization` must be.
    wanted: Mutex<Option<String>>,
    /// The folder of `server.pem` and `server.key`.
    secured: Option<PathBuf>,
    asked: Mutex<Vec<String>>,
}

/// The server. It ends with its runtime.
#[derive(Clone)]
pub(crate) struct Stage {
    shared: Arc<Shared>,
    /// `host:port`.
    pub(crate) address: String,
}

impl Stage {
    /// Opens the stage on a free port; with TLS by the certificate in a folder, read for each connection.
    pub(crate) fn open(
        secured: Option<PathBuf>,
        play: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let stage = Self {
            address: listener.local_addr().unwrap().to_string(),
            shared: Arc::new(Shared {
                play: Box::new(play),
                mood: watch::channel(Mood::Good).0,
                wanted: Mutex::default(),
                secured,
                asked: Mutex::default(),
            }),
        };
        let shared = Arc::clone(&stage.shared);
        let tracker = TaskTracker::new();
        tracker.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tracker.spawn(async move {
                    let mut mood = shared.mood.subscribe();
                    let serve = async {
                        match acceptor(&shared) {
                            None => serve(&shared, stream).await,
                            Some(acceptor) => {
                                if let Ok(stream) = acceptor.accept(stream).await {
                                    serve(&shared, stream).await;
                                }
                            }
                        }
                    };
                    tokio::select! {
                        // First of all: a request that came meanwhile is not answered either.
                        biased;
                        _ = mood.wait_for(|mood| *mood == Mood::Broken) => {}
                        () = serve => {}
                    }
                });
            }
        });
        stage
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.shared.mood.send_replace(mood);
    }

    /// From now on only this authorization is good.
    pub(crate) fn want(&self, authorization: &str) {
        *lock(&self.shared.wanted) = Some(authorization.to_owned());
    }

    /// What was asked: methods, paths and queries.
    pub(crate) fn asked(&self) -> Vec<String> {
        lock(&self.shared.asked).clone()
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn acceptor(shared: &Shared) -> Option<tokio_rustls::TlsAcceptor> {
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let folder = shared.secured.as_ref()?;
    let chain = CertificateDer::pem_file_iter(folder.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    Some(Arc::new(config).into())
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(shared: &Shared, mut stream: S) {
    while let Some(asked) = request(&mut stream).await {
        let line = format!("{} {}?{}", asked.method, asked.path, asked.query);
        lock(&shared.asked).push(line);
        let mut mood = shared.mood.subscribe();
        let Ok(now) = mood
            .wait_for(|mood| *mood != Mood::Silent)
            .await
            .map(|now| *now)
        else {
            return;
        };
        if now == Mood::Broken {
            return;
        }
        let refused = lock(&shared.wanted).as_ref().is_some_and(|wanted| {
            !asked
                .fields
                .contains(&format!("authorization: {wanted}\r\n"))
        });
        let reply = match now {
            _ if refused => Reply::status(401, "who are you?"),
            Mood::Garbage => Reply::status(200, "<html>welcome</html>"),
            Mood::Ill => Reply::status(503, "no"),
            _ => (shared.play)(&asked),
        };
        match reply {
            Reply::Whole(status, fields, body) => {
                let head = format!(
                    "HTTP/1.1 {status} X\r\n{fields}content-length: {}\r\n\r\n",
                    body.len()
                );
                let is_cut = now == Mood::Cut;
                let part = if is_cut {
                    &body[..body.len() / 2]
                } else {
                    &body[..]
                };
                let written = async {
                    stream.write_all(head.as_bytes()).await?;
                    stream.write_all(part).await
                };
                if written.await.is_err() || is_cut {
                    return;
                }
            }
            Reply::Stream(pieces) => return play_stream(&mut stream, pieces, mood).await,
        }
    }
}

/// Pieces in chunks until the mood is another one.
async fn play_stream<S: AsyncWrite + Unpin>(
    stream: &mut S,
    mut pieces: broadcast::Receiver<String>,
    mut mood: watch::Receiver<Mood>,
) {
    let head =
        "HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut next = head.to_owned();
    loop {
        if stream.write_all(next.as_bytes()).await.is_err() {
            return;
        }
        let piece = tokio::select! {
            piece = pieces.recv() => piece,
            _ = mood.changed() => return,
        };
        let Ok(piece) = piece else { return };
        next = format!("{:x}\r\n{piece}\r\n", piece.len());
    }
}

async fn request<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let (line, fields) = head.split_once("\r\n")?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let length = fields.lines().find_map(|field| {
        let (name, value) = field.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some(Asked {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        fields: fields.to_owned(),
        body: String::from_utf8(body).ok()?,
    })
}
