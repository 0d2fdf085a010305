//! What would happen to this request, and because of which fact.
//!
//! Runs the very functions that the proxy runs (`model::snapshot::decide`) over the same snapshot. The
//! calling host answers its part (`outbound`) and says what the other host must be asked (`inbound`).

use std::{borrow::Cow, net::SocketAddr};

use mesh_model::{
    admin::{Explain, ExplainStep, Explanation},
    name::{HostId, NameError},
    principal::SpiffeId,
    snapshot::{EndpointKey, Snapshot, decide::RequestView},
};
use serde::{Deserialize, Serialize};

use crate::Compiled;

mod inbound;
mod outbound;

/// What an explanation is made from.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The plan in force.
    pub compiled: &'a Compiled,
    /// True when interception runs on this host.
    pub captured: bool,
    /// Endpoints that the data plane keeps out for now.
    pub ejected: &'a [EndpointKey],
}

/// The calling host's part.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Its steps.
    pub explanation: Explanation,
    /// Which host decides the rest, when the call goes to another one of the mesh.
    pub far: Option<Far>,
}

/// Whom to ask for the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Far {
    /// The host.
    pub host: HostId,
    /// Its name for people.
    pub host_name: String,
    /// What to ask it.
    pub question: Question,
}

/// What the other host is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Identity of the caller.
    pub caller: SpiffeId,
    /// Server name of the wanted service; empty for none.
    pub server_name: String,
    /// Address of the endpoint.
    pub address: SocketAddr,
    /// Method; empty for an opaque connection.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// The query without `?`.
    #[serde(default)]
    pub query: String,
    /// Headers.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

/// Why a request cannot be explained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// No URL of the forms `http://name/path`, `tcp://name:port` and `tls://name:port/server-name`.
    #[error("{0:?} is no URL like http://words/path, tcp://db:5432 or tls://db:443/server.name")]
    Url(String),
    /// No name of a service.
    #[error("the caller is no service")]
    Caller(#[source] NameError),
    /// A service that does not run here.
    #[error("{0} is no service of this host: ask the host that runs it")]
    NotHere(String),
    /// This host is in no mesh.
    #[error("this host is in no mesh")]
    NoMesh,
}

/// Explains the part that the calling host decides.
pub fn outbound(view: &View<'_>, request: &Explain) -> Result<Told, ExplainError> {
    outbound::explain(view, request)
}

/// Explains the part that the called host decides.
pub fn inbound(snapshot: &Snapshot, question: &Question) -> Explanation {
    inbound::explain(snapshot, question)
}

/// How a step turned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    Warning,
    Refused,
}

/// Steps of one host.
#[derive(Debug)]
struct Steps {
    host: String,
    steps: Vec<ExplainStep>,
}

impl Steps {
    fn of(snapshot: &Snapshot) -> Self {
        let host = snapshot
            .mesh
            .as_ref()
            .map(|mesh| mesh.host_name.to_string())
            .unwrap_or_default();
        Self {
            host,
            steps: Vec::new(),
        }
    }
    fn add(
        &mut self,
        step: &str,
        state: State,
        what: impl Into<String>,
        because: impl Into<String>,
    ) {
        let state = match state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Refused => "refused",
        };
        self.steps.push(ExplainStep {
            step: step.to_owned(),
            host: self.host.clone(),
            what: what.into(),
            because: because.into(),
            state: state.to_owned(),
        });
    }
    fn told(self, far: Option<Far>) -> Told {
        Told {
            explanation: Explanation { steps: self.steps },
            far,
        }
    }
}

/// A request as it was asked about.
#[derive(Debug)]
struct Asked<'a> {
    method: &'a str,
    /// True for `http://`: requests are seen one by one.
    http: bool,
    /// True for `tls://`: passed on unopened, with the server name as path.
    tls: bool,
    authority: &'a str,
    path: &'a str,
    query: &'a str,
    headers: &'a [(String, String)],
}

impl<'a> Asked<'a> {
    fn read(request: &'a Explain) -> Result<Self, ExplainError> {
        let bad = || ExplainError::Url(request.url.clone());
        let (scheme, rest) = request.url.split_once("://").ok_or_else(bad)?;
        let (http, tls) = match scheme {
            "http" => (true, false),
            "tcp" => (false, false),
            "tls" => (false, true),
            _ => return Err(bad()),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, behind) = rest.split_at_checked(end).ok_or_else(bad)?;
        if authority.is_empty() || authority.contains('@') {
            return Err(bad());
        }
        let (path, query) = behind.split_once('?').unwrap_or((behind, ""));
        let method = if request.method.is_empty() {
            "GET"
        } else {
            &request.method
        };
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self {
            method,
            http,
            tls,
            authority,
            path,
            query,
            headers: &request.headers,
        })
    }

    /// The server name of a TLS connection.
    fn server_name(&self) -> Option<&'a str> {
        let name = self.path.trim_matches('/');
        (self.tls && !name.is_empty()).then_some(name)
    }
}

impl RequestView for Asked<'_> {
    fn method(&self) -> &str {
        self.method
    }
    fn path(&self) -> &str {
        self.path
    }
    fn query(&self) -> &str {
        self.query
    }
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        if name == "host" {
            return Some(self.authority.as_bytes().into());
        }
        header(self.headers, name)
    }
}

/// The value of a header; several lines joined with `,`.
fn header<'h>(headers: &'h [(String, String)], name: &str) -> Option<Cow<'h, [u8]>> {
    let lines: Vec<&str> = headers
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
        .collect();
    (!lines.is_empty()).then(|| lines.join(",").into_bytes().into())
}
