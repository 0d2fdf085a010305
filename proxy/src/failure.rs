//! What can go wrong in the data plane: a closed list of codes, whose fault each is, and what the caller sees.
//!
//! In: the error of one operation. Out: a `Failure` with everything that follows from it.
//! Never: shows a caller more than the fixed text of the code.

use std::{borrow::Cow, time::Duration};

/// A documented error code: the word in `mesh-error`, in the access log, in metrics and in `meshctl why`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// Routes are attached to the service and none fits the request, or nothing is known of the address.
    NoRoute,
    /// The rule that acts names no valid backend.
    NoBackend,
    /// The backend has no usable endpoint.
    NoEndpoint,
    /// No endpoint could be connected to.
    ConnectFailed,
    /// The endpoint closed or reset before its answer was complete.
    UpstreamReset,
    /// One try took longer than the route allows for a try.
    UpstreamTimeout,
    /// The request took longer than the route allows for all tries together.
    RequestTimeout,
    /// A further try was due and the retry budget is spent.
    RetryBudget,
    /// A policy refuses the caller.
    Denied,
    /// Plaintext came in where only mTLS is accepted.
    PlaintextRefused,
    /// This host has no certificate for the identity that it should present.
    NoIdentity,
    /// The other side presented an identity that is not accepted there.
    PeerIdentity,
    /// The request breaks the rules of HTTP.
    BadRequest,
    /// The answer breaks the rules of HTTP.
    BadResponse,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// This daemon has reached one of its limits.
    Overloaded,
    /// This daemon is stopping.
    Draining,
    /// The service or port is not one of this host's.
    UnknownService,
    /// No service has this host name.
    UnknownHost,
    /// The request came back to the daemon that sent it.
    Loop,
    /// The daemon has no plan yet.
    NotReady,
    /// The other daemon broke the rules of the hop.
    ProtocolError,
    /// A rate limit has nothing left for the request.
    RateLimited,
    /// A fault was injected: somebody asked for this failure.
    FaultInjected,
}

/// Whose fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The caller's.
    Downstream,
    /// The endpoint's, or of the way to it.
    Upstream,
    /// The mesh's own: its configuration, its limits.
    Mesh,
}

/// Whether the same request may be sent again elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Never: it would fail again, or may have been done already.
    Never,
    /// Only if the request may be repeated: an idempotent method, or the route says so.
    IfRepeatable,
    /// Always: the request was certainly not processed.
    Safe,
}

/// What the caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// gRPC status code.
    pub grpc: u8,
    /// The fixed text of the code.
    pub text: &'static str,
}

/// One line of the documentation of error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Documented {
    /// The code.
    pub code: Code,
    /// The word.
    pub word: &'static str,
    /// What the caller gets.
    pub reply: Reply,
    /// Whose fault.
    pub blame: Blame,
    /// Whether the mesh tries again by itself.
    pub retry: Retry,
    /// What to do.
    pub remedy: &'static str,
}

/// An operation of the data plane that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What.
    pub code: Code,
    /// Status that differs from the code's usual one, such as 414 for a `bad-request`.
    pub status: Option<u16>,
    /// The cause in words, for the log and `why`; never sent to the caller.
    pub what: Cow<'static, str>,
    /// Whether it may be tried again.
    pub retry: Retry,
    /// gRPC status that differs from the code's usual one.
    pub grpc: Option<u8>,
    /// When asking again makes sense: `retry-after`, and `grpc-retry-pushback-ms`.
    pub after: Option<Duration>,
}

impl Failure {
    /// A failure with the code's usual consequences.
    pub fn new(code: Code, what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            status: None,
            what: what.into(),
            retry: code.documented().retry,
            grpc: None,
            after: None,
        }
    }
    /// The same with another HTTP status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }
    /// The same with another verdict on a further try.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }
    /// The same with another gRPC status.
    #[must_use]
    pub fn with_grpc(mut self, status: u8) -> Self {
        self.grpc = Some(status);
        self
    }
    /// The same with a time after which asking again makes sense.
    #[must_use]
    pub fn with_after(mut self, after: Duration) -> Self {
        self.after = Some(after);
        self
    }
    /// Whose fault.
    pub fn blame(&self) -> Blame {
        self.code.documented().blame
    }
    /// What the caller gets.
    pub fn reply(&self) -> Reply {
        let usual = self.code.documented().reply;
        Reply {
            status: self.status.unwrap_or(usual.status),
            grpc: self.grpc.unwrap_or(usual.grpc),
            ..usual
        }
    }
}

impl Code {
    /// The word.
    pub fn as_str(self) -> &'static str {
        self.documented().word
    }
    /// The code of a word.
    pub fn parse(word: &str) -> Option<Self> {
        DOCUMENTED
            .iter()
            .find(|entry| entry.word == word)
            .map(|entry| entry.code)
    }
    /// Everything known about the code.
    pub fn documented(self) -> &'static Documented {
        DOCUMENTED.get(self as usize).unwrap_or(&UNLISTED)
    }
}

/// The whole list, in the order of [`Code`].
pub fn documented() -> &'static [Documented] {
    &DOCUMENTED
}

const fn entry(
    code: Code,
    word: &'static str,
    (status, grpc): (u16, u8),
    blame: Blame,
    retry: Retry,
    (text, remedy): (&'static str, &'static str),
) -> Documented {
    Documented {
        code,
        word,
        reply: Reply { status, grpc, text },
        blame,
        retry,
        remedy,
    }
}

/// Stands in for a code without an entry; a test proves that there is none.
static UNLISTED: Documented = entry(
    Code::ProtocolError,
    "protocol-error",
    (502, 13),
    Blame::Mesh,
    Retry::Never,
    ("the mesh failed", "ask `meshctl why` for the id"),
);

static DOCUMENTED: [Documented; 24] = [
    entry(
        Code::NoRoute,
        "no-route",
        (404, 12),
        Blame::Mesh,
        Retry::Never,
        (
            "no route fits this request",
            "compare the request with the routes: `meshctl explain`, `meshctl get httproute`",
        ),
    ),
    entry(
        Code::NoBackend,
        "no-backend",
        (500, 14),
        Blame::Mesh,
        Retry::Never,
        (
            "the route names no valid backend",
            "correct the route's backendRefs: `meshctl status` names the fault",
        ),
    ),
    entry(
        Code::NoEndpoint,
        "no-endpoint",
        (503, 14),
        Blame::Upstream,
        Retry::Never,
        (
            "the service has no usable endpoint",
            "see `meshctl endpoints` for the service: is an instance running and healthy?",
        ),
    ),
    entry(
        Code::ConnectFailed,
        "connect-failed",
        (503, 14),
        Blame::Upstream,
        Retry::Safe,
        (
            "no endpoint could be connected to",
            "is the program listening, and its host reachable? `meshctl why` names each endpoint tried",
        ),
    ),
    entry(
        Code::UpstreamReset,
        "upstream-reset",
        (502, 14),
        Blame::Upstream,
        Retry::IfRepeatable,
        (
            "the endpoint closed the connection before its answer was complete",
            "look at the log of the program at the endpoint that `meshctl why` names",
        ),
    ),
    entry(
        Code::UpstreamTimeout,
        "upstream-timeout",
        (504, 4),
        Blame::Upstream,
        Retry::IfRepeatable,
        (
            "the endpoint did not answer in the time for one try",
            "raise the route's timeouts.backendRequest, or look at the program",
        ),
    ),
    entry(
        Code::RequestTimeout,
        "request-timeout",
        (504, 4),
        Blame::Upstream,
        Retry::Never,
        (
            "the request took longer than its route allows",
            "raise the route's timeouts.request, or look at the program",
        ),
    ),
    entry(
        Code::RetryBudget,
        "retry-budget",
        (503, 14),
        Blame::Mesh,
        Retry::Never,
        (
            "too many requests are being tried again",
            "most of the service's endpoints fail: look at them before the retries",
        ),
    ),
    entry(
        Code::Denied,
        "denied",
        (403, 7),
        Blame::Downstream,
        Retry::Never,
        (
            "a policy refuses this caller",
            "`meshctl explain` names the policy; allow the caller in an AuthorizationPolicy",
        ),
    ),
    entry(
        Code::PlaintextRefused,
        "plaintext-refused",
        (403, 7),
        Blame::Downstream,
        Retry::Never,
        (
            "only mutual TLS is accepted here",
            "call through the mesh, or make the port PERMISSIVE in a PeerAuthentication",
        ),
    ),
    entry(
        Code::NoIdentity,
        "no-identity",
        (503, 14),
        Blame::Mesh,
        Retry::Never,
        (
            "this host has no certificate for the caller",
            "`meshctl check` tells why the certificate could not be obtained",
        ),
    ),
    entry(
        Code::PeerIdentity,
        "peer-identity",
        (502, 14),
        Blame::Upstream,
        Retry::Safe,
        (
            "the endpoint's host presented an identity that is not accepted",
            "is the endpoint's address still that host's, and its grant in force? `meshctl why`",
        ),
    ),
    entry(
        Code::BadRequest,
        "bad-request",
        (400, 13),
        Blame::Downstream,
        Retry::Never,
        (
            "the request is malformed",
            "`meshctl why` names the rule of HTTP that it breaks",
        ),
    ),
    entry(
        Code::BadResponse,
        "bad-response",
        (502, 13),
        Blame::Upstream,
        Retry::IfRepeatable,
        (
            "the answer is malformed",
            "`meshctl why` names the rule of HTTP that it breaks",
        ),
    ),
    entry(
        Code::BodyTooLarge,
        "body-too-large",
        (413, 8),
        Blame::Downstream,
        Retry::Never,
        ("the body is too large", "send less, or raise the limit"),
    ),
    entry(
        Code::Overloaded,
        "overloaded",
        (503, 8),
        Blame::Mesh,
        Retry::Safe,
        (
            "the mesh is at its limit",
            "`meshctl stat` shows who sends how much",
        ),
    ),
    entry(
        Code::Draining,
        "draining",
        (503, 14),
        Blame::Mesh,
        Retry::Safe,
        (
            "this host is stopping",
            "nothing: other hosts take over; try again",
        ),
    ),
    entry(
        Code::UnknownService,
        "unknown-service",
        (503, 14),
        Blame::Mesh,
        Retry::Safe,
        (
            "the service is not on this host",
            "the caller's view is old or its endpoint wrong: `meshctl endpoints` on both hosts",
        ),
    ),
    entry(
        Code::UnknownHost,
        "unknown-host",
        (404, 12),
        Blame::Downstream,
        Retry::Never,
        (
            "no service has this host name and port",
            "`meshctl services` lists the names; the explicit listener knows services of the mesh only",
        ),
    ),
    entry(
        Code::Loop,
        "loop",
        (508, 13),
        Blame::Mesh,
        Retry::Never,
        (
            "the request came back to where it was sent from",
            "an endpoint's address must not be a listener of the mesh itself",
        ),
    ),
    entry(
        Code::NotReady,
        "not-ready",
        (503, 14),
        Blame::Mesh,
        Retry::Safe,
        (
            "the mesh has no plan yet on this host",
            "`meshctl status`: has the host joined?",
        ),
    ),
    entry(
        Code::ProtocolError,
        "protocol-error",
        (502, 13),
        Blame::Mesh,
        Retry::Never,
        (
            "the two hosts of the hop do not understand each other",
            "compare their versions: `meshctl members`",
        ),
    ),
    entry(
        Code::RateLimited,
        "rate-limited",
        (429, 8),
        Blame::Downstream,
        Retry::IfRepeatable,
        (
            "there are too many requests",
            "ask again after the time in `retry-after`; `meshctl why` names the RateLimit",
        ),
    ),
    entry(
        Code::FaultInjected,
        "fault-injected",
        (503, 14),
        Blame::Mesh,
        Retry::Never,
        (
            "this failure was asked for",
            "delete the fault when the experiment is over; `meshctl why` names it",
        ),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_closed_and_in_order() {
        for (index, entry) in DOCUMENTED.iter().enumerate() {
            assert_eq!(entry.code as usize, index, "{}", entry.word);
            assert_eq!(Code::parse(entry.word), Some(entry.code));
            assert_eq!(entry.code.as_str(), entry.word);
            assert!((400..600).contains(&entry.reply.status), "{}", entry.word);
            assert!((1..=16).contains(&entry.reply.grpc), "{}", entry.word);
            assert!(!entry.reply.text.is_empty() && !entry.remedy.is_empty());
        }
        assert_eq!(Code::FaultInjected as usize + 1, DOCUMENTED.len());
        assert_eq!(Code::parse("nothing"), None);
    }

    #[test]
    fn reply_keeps_another_status() {
        let failure = Failure::new(Code::BadRequest, "line too long").with_status(414);
        assert_eq!(failure.reply().status, 414);
        assert_eq!(failure.reply().grpc, 13);
        assert_eq!(failure.blame(), Blame::Downstream);
    }
}
