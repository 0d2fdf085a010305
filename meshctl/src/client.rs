//! The unix socket: one HTTP/1.1 exchange per question, bounded in size and time.
//!
//! In: a path and a JSON body. Out: the typed answer, or a [`Failure`] that says why not.
//! Never: retries by itself; a caller that must know whether its edit arrived asks for [`CallError`].

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use mesh_model::{admin::Refusal, finding::Finding};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, task::JoinSet};

use crate::{
    failure::{Exit, Failure},
    print::Put as _,
};

const MAX_ANSWER: usize = 64 << 20;
const MAX_LINE: usize = 1 << 20;

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// The whole body.
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nobody listens there: nothing was sent.
    #[error("no daemon at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The request may have been carried out: the answer did not arrive.
    #[error("no answer: {0}")]
    Unanswered(String),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Connect { path, source } => unreachable_daemon(&path, &source),
            CallError::Unanswered(why) => Self::new(
                Exit::Unreachable,
                "daemon-no-answer",
                "meshd",
                format!("the daemon took the request and did not answer: {why}"),
                "see `journalctl -u meshd` and `meshctl status`; the request may have been carried out",
            ),
        }
    }
}

/// A way to the local daemon.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// For the daemon at `socket`; every exchange takes at most `timeout`.
    pub(crate) fn new(socket: &Path, timeout: Duration) -> Self {
        Self {
            socket: socket.to_owned(),
            timeout,
        }
    }

    /// The same daemon with another time limit.
    pub(crate) fn within(&self, timeout: Duration) -> Self {
        Self {
            socket: self.socket.clone(),
            timeout,
        }
    }

    /// Asks.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let reply = self.exchange(Method::GET, path, Bytes::new(), "").await?;
        understand(path, &reply)
    }

    /// Asks with a body.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, Failure> {
        self.change(path, body, "").await
    }

    /// Asks for a change of this host; `reason` goes to the daemon's log.
    pub(crate) async fn change<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
        reason: &str,
    ) -> Result<T, Failure> {
        let body = json(body)?;
        let reply = self.exchange(Method::POST, path, body, reason).await?;
        understand(path, &reply)
    }

    /// One exchange, with the difference between "not sent" and "not answered".
    pub(crate) async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        reason: &str,
    ) -> Result<Reply, CallError> {
        let all = async {
            let (response, _connection) = self.send(method, path, body, reason).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| CallError::Unanswered(error.to_string()))?
                .to_bytes();
            Ok(Reply { status, body })
        };
        match tokio::time::timeout(self.timeout, all).await {
            Ok(done) => done,
            Err(_elapsed) => Err(CallError::Unanswered(format!(
                "nothing within {:?}",
                self.timeout
            ))),
        }
    }

    /// A stream of JSON lines; `each` sees them as they come. Time counts from line to line.
    pub(crate) async fn lines<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
        reason: &str,
        mut each: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let silent = |_elapsed| CallError::Unanswered(format!("nothing within {:?}", self.timeout));
        let sent = self.send(Method::POST, path, json(body)?, reason);
        let (response, _connection) = tokio::time::timeout(self.timeout, sent)
            .await
            .map_err(silent)??;
        if !response.status().is_success() {
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_LINE).collect().await;
            let body = body
                .map_err(|error| CallError::Unanswered(error.to_string()))?
                .to_bytes();
            return Err(refused(path, &Reply { status, body }));
        }
        let mut body = response.into_body();
        let mut buffer = Vec::new();
        loop {
            let frame = tokio::time::timeout(self.timeout, body.frame())
                .await
                .map_err(silent)?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| CallError::Unanswered(error.to_string()))?;
            buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
            if buffer.len() > MAX_LINE {
                return Err(nonsense(path, "a line of more than 1 MiB"));
            }
            while let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                deliver(path, &line, &mut each)?;
            }
        }
        deliver(path, &buffer, &mut each)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        reason: &str,
    ) -> Result<(Response<Incoming>, JoinSet<()>), CallError> {
        let connect = |source| CallError::Connect {
            path: self.socket.clone(),
            source,
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(connect)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| connect(std::io::Error::other(error)))?;
        let mut driver = JoinSet::new();
        // A failed connection also fails the exchange below, which reports it.
        driver.spawn(async move { drop(connection.await) });
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "meshd")
            .header("content-type", "application/json");
        if !reason.is_empty() {
            request = request.header("mesh-reason", escape(reason));
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| connect(std::io::Error::other(error)))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| CallError::Unanswered(error.to_string()))?;
        Ok((response, driver))
    }
}

fn deliver<T: DeserializeOwned>(
    path: &str,
    line: &[u8],
    each: &mut impl FnMut(T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if line.trim_ascii().is_empty() {
        return Ok(());
    }
    each(serde_json::from_slice(line).map_err(|error| nonsense(path, &error.to_string()))?)
}

/// The typed answer of a reply, or its refusal.
pub(crate) fn understand<T: DeserializeOwned>(path: &str, reply: &Reply) -> Result<T, Failure> {
    if !reply.status.is_success() {
        return Err(refused(path, reply));
    }
    serde_json::from_slice(&reply.body).map_err(|error| nonsense(path, &error.to_string()))
}

/// What a reply that is no success says.
pub(crate) fn refused(path: &str, reply: &Reply) -> Failure {
    let status = reply.status.as_u16();
    if let Ok(refusal) = serde_json::from_slice::<Refusal>(&reply.body) {
        return Failure::refused(status, "meshd", refusal);
    }
    if let Ok(findings) = serde_json::from_slice::<Vec<Finding>>(&reply.body)
        && !findings.is_empty()
    {
        return Failure::findings("meshd", &findings);
    }
    nonsense(path, &format!("status {status} without a reason"))
}

/// Text for a query: everything but letters, digits, `-`, `_`, `.` and `~` as `%XX`.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            other => {
                out.push('%');
                write!(out, "{other:02X}");
            }
        }
    }
    out
}

/// A path with a query; pairs with an empty value are left out.
pub(crate) fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let query: Vec<String> = pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| format!("{key}={}", escape(value)))
        .collect();
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", query.join("&"))
    }
}

/// A value as a JSON body.
pub(crate) fn json(value: &impl Serialize) -> Result<Bytes, Failure> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| nonsense("request", &error.to_string()))
}

fn nonsense(path: &str, what: &str) -> Failure {
    Failure::new(
        Exit::Finding,
        "bad-answer",
        path,
        format!("the daemon's answer cannot be read: {what}"),
        "use a meshctl of the daemon's version: `meshctl version`",
    )
}

fn unreachable_daemon(path: &Path, source: &std::io::Error) -> Failure {
    let place = path.display().to_string();
    match source.kind() {
        ErrorKind::PermissionDenied => Failure::new(
            Exit::NotPermitted,
            "not-permitted",
            place,
            "you may not open the daemon's socket",
            "run it with sudo, or join the group: `sudo usermod -aG meshd $USER`",
        ),
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Failure::new(
            Exit::Unreachable,
            "daemon-unreachable",
            place,
            "meshd does not run",
            "`systemctl start meshd`, then `journalctl -u meshd` if it does not stay; or give --socket",
        ),
        _ => Failure::new(
            Exit::Unreachable,
            "daemon-unreachable",
            place,
            source.to_string(),
            "see `systemctl status meshd`",
        ),
    }
}

#[cfg(test)]
pub(crate) mod script;

#[cfg(test)]
mod tests {
    use mesh_model::admin::{JoinStep, Member};
    use serde_json::json;

    use super::{script::Script, *};

    #[tokio::test]
    async fn an_answer_is_typed() {
        let script = Script::start(vec![(200, json!([]).to_string())]);
        let members: Vec<Member> = script.client().get("/v1/members").await.unwrap();
        assert!(members.is_empty());
        assert_eq!(script.seen(), ["GET /v1/members "]);
    }

    #[tokio::test]
    async fn refusals_keep_code_and_exit() {
        let refusal = json!({"code": "not-permitted", "what": "no", "remedy": "sudo"}).to_string();
        let script = Script::start(vec![(403, refusal), (502, "<html>".to_owned())]);
        let failure = script
            .client()
            .get::<Vec<Member>>("/v1/members")
            .await
            .unwrap_err();
        assert_eq!(
            (failure.exit, failure.code.as_str()),
            (Exit::NotPermitted, "not-permitted")
        );
        let failure = script
            .client()
            .get::<Vec<Member>>("/v1/members")
            .await
            .unwrap_err();
        assert_eq!(
            (failure.exit, failure.code.as_str()),
            (Exit::Finding, "bad-answer")
        );
    }

    #[tokio::test]
    async fn findings_are_told() {
        let findings = json!([
            {"code": "a", "severity": "error", "subject": "s", "what": "w", "remedy": "r"},
            {"code": "b", "severity": "error", "subject": "s2", "what": "w2", "remedy": "r2"},
        ]);
        let script = Script::start(vec![(422, findings.to_string())]);
        let failure = script
            .client()
            .post::<()>("/v1/commits", &json!({}))
            .await
            .unwrap_err();
        assert_eq!(failure.exit, Exit::Finding);
        assert!(failure.details.contains("s2: w2; r2 (b)"), "{failure:?}");
    }

    #[tokio::test]
    async fn nobody_there_is_exit_three() {
        let directory = tempfile::tempdir().unwrap();
        let client = Client::new(&directory.path().join("none.sock"), Duration::from_secs(5));
        let failure = client.get::<Vec<Member>>("/v1/members").await.unwrap_err();
        assert_eq!(
            (failure.exit, failure.code.as_str()),
            (Exit::Unreachable, "daemon-unreachable")
        );
    }

    #[tokio::test]
    async fn silence_is_not_the_same_as_nobody() {
        let script = Script::start(vec![(0, String::new())]);
        let error = script
            .client()
            .exchange(Method::POST, "/v1/commits", Bytes::new(), "")
            .await
            .unwrap_err();
        assert!(matches!(error, CallError::Unanswered(_)), "{error:?}");
        let slow = Script::start(vec![(1, String::new())]);
        let client = slow.client().within(Duration::from_millis(50));
        let error = client
            .exchange(Method::GET, "/v1/status", Bytes::new(), "")
            .await
            .unwrap_err();
        assert!(matches!(error, CallError::Unanswered(_)), "{error:?}");
    }

    #[tokio::test]
    async fn steps_arrive_line_by_line() {
        let lines = "{\"what\":\"a\",\"state\":\"ok\",\"remedy\":\"\",\"done\":false,\"error\":\"\"}\n\n\
                     {\"what\":\"b\",\"state\":\"ok\",\"remedy\":\"\",\"done\":true,\"error\":\"\"}";
        let script = Script::start(vec![(200, lines.to_owned())]);
        let mut seen = Vec::new();
        script
            .client()
            .lines(
                "/v1/join",
                &json!({"token": "t"}),
                "new host",
                |step: JoinStep| {
                    seen.push((step.what, step.done));
                    Ok(())
                },
            )
            .await
            .unwrap();
        assert_eq!(seen, [("a".to_owned(), false), ("b".to_owned(), true)]);
    }

    #[test]
    fn queries_are_escaped() {
        let path = with_query("/v1/x", &[("kind", "A&B"), ("name", ""), ("ns", "a/é")]);
        assert_eq!(path, "/v1/x?kind=A%26B&ns=a%2F%C3%A9");
        assert_eq!(with_query("/v1/x", &[("a", "")]), "/v1/x");
    }
}
