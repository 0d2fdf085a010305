//! The way to the API server: where it is, whom it must be, as whom we come; all of it read again when it changes.
//!
//! In: the pod's account, or a kubeconfig. Out: answers, and watch streams. Never: keeps a credential that was
//! refused while another one is to be had, or gives up a login that works because a file is half-written.

use std::{
    fs,
    hash::BuildHasher,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use data_encoding::BASE64;
use http::{HeaderValue, StatusCode, header};
use mesh_model::config::{Access, SourceTls};
use tokio::{sync::Mutex, time::Instant};

use super::{
    kubeconfig::{self, Login, Text, Who},
    parse,
    plugin::{self, Credential as Printed},
};
use crate::{
    http::{Answer, Client, Credential, Lines, Pem, Request},
    source::SourceError,
};

/// Where Kubernetes puts a pod's account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// A credential is replaced this long before it expires.
const AHEAD_MS: u64 = 30_000;
/// Least time between two runs of a plugin.
const PLUGIN_PAUSE: Duration = Duration::from_secs(5);

/// Where the login is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A pod's account: `https://host:port`, and the folder with token and roots.
    Pod { server: String, folder: PathBuf },
    /// A kubeconfig and a context of it; `None`: its current one.
    File {
        path: PathBuf,
        context: Option<String>,
    },
}

impl Place {
    /// The kubeconfig, or the account of the pod that this runs in, as the environment tells.
    pub(crate) fn new(
        kubeconfig: Option<&Path>,
        context: Option<&str>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SourceError> {
        if let Some(path) = kubeconfig {
            return Ok(Self::File {
                path: path.to_owned(),
                context: context.map(str::to_owned),
            });
        }
        let host = environment("KUBERNETES_SERVICE_HOST");
        let host = host.filter(|host| !host.is_empty()).ok_or_else(|| {
            SourceError::Config("this is no pod of a cluster: set kubeconfig".into())
        })?;
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host
        };
        let port = environment("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".into());
        Ok(Self::Pod {
            server: format!("https://{host}:{port}"),
            folder: PathBuf::from(ACCOUNT),
        })
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// 410: what was asked for is forgotten.
    Expired,
    /// Anything else.
    Failed(SourceError),
}

impl From<SourceError> for Refusal {
    fn from(error: SourceError) -> Self {
        Self::Failed(error)
    }
}

/// A client with the credentials of the moment.
struct Opened {
    client: Client,
    /// `Authorization`, where it comes from no file of its own.
    field: Option<HeaderValue>,
}

#[derive(Default)]
struct State {
    opened: Option<Arc<Opened>>,
    /// Of the kubeconfig's text.
    seen: u64,
    login: Login,
    printed: Option<Printed>,
    ran: Option<Instant>,
    /// The server refused what is there.
    doubted: bool,
}

/// The way to one API server.
pub(crate) struct Door {
    place: Place,
    state: Mutex<State>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Door {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            place,
            state: Mutex::default(),
        }
    }

    /// The answer to `request` when it is 2xx.
    pub(crate) async fn send(&self, request: &Request) -> Result<Answer, Refusal> {
        let mut opened = self.open().await?;
        let mut answer = opened.client.send(&signed(request, &opened)).await?;
        if answer.status == StatusCode::UNAUTHORIZED
            && let Some(other) = self.refused(&opened).await?
        {
            opened = other;
            answer = opened.client.send(&signed(request, &opened)).await?;
        }
        good(answer)
    }

    /// The lines that answer `request`.
    pub(crate) async fn stream(
        &self,
        request: &Request,
        silence: Duration,
    ) -> Result<Lines, Refusal> {
        let opened = self.open().await?;
        match opened
            .client
            .stream(&signed(request, &opened), silence)
            .await?
        {
            Ok(lines) => return Ok(lines),
            Err(answer) if answer.status != StatusCode::UNAUTHORIZED => return refuse(answer),
            Err(_) => {}
        }
        // A token in a file was forgotten by the refusal, so once more is enough for that too.
        let other = self.refused(&opened).await?.unwrap_or(opened);
        match other
            .client
            .stream(&signed(request, &other), silence)
            .await?
        {
            Ok(lines) => Ok(lines),
            Err(answer) => refuse(answer),
        }
    }

    /// Another login than the one that was refused, if there is one by now.
    async fn refused(&self, old: &Arc<Opened>) -> Result<Option<Arc<Opened>>, SourceError> {
        let is_current = |state: &State| {
            state
                .opened
                .as_ref()
                .is_some_and(|now| Arc::ptr_eq(now, old))
        };
        {
            let mut state = self.state.lock().await;
            state.doubted |= is_current(&state);
        }
        let now = self.open().await?;
        Ok((!Arc::ptr_eq(&now, old)).then_some(now))
    }

    async fn open(&self) -> Result<Arc<Opened>, SourceError> {
        let mut state = self.state.lock().await;
        match &self.place {
            Place::Pod { server, folder } => {
                if state.opened.is_none() {
                    state.login = account(server, folder);
                    state.opened = Some(Arc::new(build(&state.login, None)?));
                }
            }
            Place::File { path, context } => state.follow(path, context.as_deref()).await?,
        }
        let opened = state.opened.clone();
        opened.ok_or_else(|| SourceError::Config("there is no login".into()))
    }
}

impl State {
    /// Reads the kubeconfig, and runs its plugin when that is due.
    async fn follow(&mut self, path: &Path, context: Option<&str>) -> Result<(), SourceError> {
        match self.reread(path, context) {
            // Half-written, or away for a moment: what works goes on.
            Err(_) if self.opened.is_some() && !self.doubted => {}
            other => other?,
        }
        let Who::Plugin(program) = self.login.who.clone() else {
            self.doubted = false;
            return Ok(());
        };
        let expired = self.printed.as_ref().is_none_or(|printed| {
            printed
                .expires_ms
                .is_some_and(|at| at <= now_ms().saturating_add(AHEAD_MS))
        });
        let lately = self.ran.is_some_and(|ran| ran.elapsed() < PLUGIN_PAUSE);
        if self.opened.is_some() && (lately || !(expired || self.doubted)) {
            return Ok(());
        }
        let ran = plugin::run(&program).await;
        self.ran = Some(Instant::now());
        match ran {
            Ok(printed) => {
                self.opened = Some(Arc::new(build(&self.login, Some(&printed))?));
                self.printed = Some(printed);
                self.doubted = false;
                Ok(())
            }
            // The old credential is tried as long as nobody refuses it.
            Err(_) if self.opened.is_some() && !self.doubted => Ok(()),
            Err(what) => Err(SourceError::Auth(what)),
        }
    }

    fn reread(&mut self, path: &Path, context: Option<&str>) -> Result<(), SourceError> {
        let wrong = |what: String| SourceError::Config(format!("{}: {what}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let seen = foldhash::quality::FixedState::default().hash_one(&text);
        if self.seen == seen && self.opened.is_some() {
            return Ok(());
        }
        let folder = path.parent().unwrap_or_else(|| Path::new("/"));
        let login = kubeconfig::read(&text, folder, context).map_err(wrong)?;
        self.opened = match login.who {
            Who::Plugin(_) => None,
            _ => Some(Arc::new(build(&login, None)?)),
        };
        (self.login, self.seen, self.printed, self.ran) = (login, seen, None, None);
        Ok(())
    }
}

/// What a pod has.
fn account(server: &str, folder: &Path) -> Login {
    Login {
        server: server.to_owned(),
        ca: Some(Text::File(folder.join("ca.crt"))),
        who: Who::TokenFile(folder.join("token")),
        ..Login::default()
    }
}

fn build(login: &Login, printed: Option<&Printed>) -> Result<Opened, SourceError> {
    let mut tls = SourceTls {
        server_name: login.server_name.clone(),
        ..SourceTls::default()
    };
    let mut pem = Pem::default();
    match &login.ca {
        Some(Text::File(path)) => tls.ca = Some(path.clone()),
        Some(Text::Inline(text)) => pem.ca = Some(text.clone()),
        None => {}
    }
    match (
        &login.certificate,
        printed.and_then(|printed| printed.certificate.clone()),
    ) {
        (_, Some(own)) => pem.own = Some(own),
        (Some((Text::File(certificate), Text::File(key))), None) => {
            tls.certificate = Some(certificate.clone());
            tls.key = Some(key.clone());
        }
        (Some((certificate, key)), None) => pem.own = Some((content(certificate)?, content(key)?)),
        (None, None) => {}
    }
    let (token_file, field) = match &login.who {
        Who::Certificate => (None, None),
        Who::TokenFile(path) => (Some(path.clone()), None),
        Who::Token(token) => (None, Some(format!("Bearer {}", token.trim()))),
        Who::Basic { user, password } => {
            let pair = BASE64.encode(format!("{user}:{password}").as_bytes());
            (None, Some(format!("Basic {pair}")))
        }
        Who::Plugin(_) => {
            let token = printed.and_then(|printed| printed.token.as_deref());
            (None, token.map(|token| format!("Bearer {}", token.trim())))
        }
    };
    let access = Access {
        addresses: vec![login.server.clone()],
        token_file,
        tls,
        ..Access::default()
    };
    let field = field.map(|text| {
        let mut value = HeaderValue::from_str(&text).map_err(|_quotes| {
            SourceError::Config("a token has bytes that no field can carry".into())
        })?;
        value.set_sensitive(true);
        Ok::<_, SourceError>(value)
    });
    Ok(Opened {
        client: Client::with_pem(&access, Credential::Authorization("Bearer "), pem)?,
        field: field.transpose()?,
    })
}

fn content(text: &Text) -> Result<String, SourceError> {
    match text {
        Text::Inline(text) => Ok(text.clone()),
        Text::File(path) => fs::read_to_string(path)
            .map_err(|error| SourceError::Config(format!("{}: {error}", path.display()))),
    }
}

fn signed(request: &Request, opened: &Opened) -> Request {
    let request = request.clone();
    match &opened.field {
        Some(value) => request.with(header::AUTHORIZATION, value.clone()),
        None => request,
    }
}

fn good(answer: Answer) -> Result<Answer, Refusal> {
    if answer.status.is_success() {
        Ok(answer)
    } else {
        refuse(answer)
    }
}

/// What a status that is not 2xx means; the server's own sentence names the right that is missing.
fn refuse<T>(answer: Answer) -> Result<T, Refusal> {
    if answer.status == StatusCode::GONE {
        return Err(Refusal::Expired);
    }
    let said = parse::message(&answer.body);
    let failed = match answer.good() {
        Err(SourceError::Auth(subject)) if !said.is_empty() => {
            SourceError::Auth(format!("{subject} ({said})"))
        }
        Err(SourceError::Protocol { subject, what }) if !said.is_empty() => {
            let code = what.split(' ').next().unwrap_or_default();
            let what = format!("{code} {said}");
            SourceError::Protocol { subject, what }
        }
        Err(other) => other,
        Ok(answer) => SourceError::Protocol {
            subject: answer.subject,
            what: format!("{} is no refusal", answer.status),
        },
    };
    Err(Refusal::Failed(failed))
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
