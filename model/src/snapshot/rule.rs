//! What a rule asks of a request, and what it changes.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use super::{Backend, Fault, Retry, Revision, Target, Timeouts, limit::Share};
use crate::name::{Namespace, ServiceId};

/// One match of one rule of one route, with everything that follows from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Where it comes from.
    pub route: Arc<RouteReference>,
    /// What it asks.
    pub matches: RequestMatch,
    /// What it changes.
    pub filters: Arc<[Filter]>,
    /// Where requests go.
    pub target: Target,
    /// Time-outs.
    pub timeouts: Timeouts,
    /// Retries.
    pub retry: Retry,
    /// Faults of this rule's requests.
    pub faults: Arc<[Fault]>,
    /// Whose requests stay with one endpoint (`sessionPersistence`).
    pub persistence: Option<Arc<Persistence>>,
}

/// Session persistence (GEP-1619): a token in the answer names the endpoint, which takes later requests with it
/// while it is there and usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persistence {
    /// Name of the cookie or header.
    pub name: Box<str>,
    /// True: a header; false: a cookie.
    pub header: bool,
    /// A cookie's `Max-Age`; `None`: until the caller's session ends.
    pub lifetime: Option<Duration>,
}

/// The resource that a rule comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteReference {
    /// `HTTPRoute`, `GRPCRoute`, `TCPRoute`, `TLSRoute`, `VirtualService` or `DelegationTable`.
    pub kind: &'static str,
    /// `namespace/name`: the metric label `route`.
    pub name: Arc<str>,
    /// Index of the rule in the route.
    pub rule: usize,
    /// The commit that made this revision.
    pub revision: Revision,
    /// Who committed it.
    pub author: Arc<str>,
}

/// Conditions on a request; all must hold.
#[derive(Debug, Clone, Default)]
pub struct RequestMatch {
    /// On the path.
    pub path: PathMatch,
    /// On the method.
    pub method: Option<Box<str>>,
    /// On headers; names in lower case, each once.
    pub headers: Vec<ValueMatch>,
    /// On query parameters; each name once.
    pub query: Vec<ValueMatch>,
    /// On the `Host` or `:authority`, without the port.
    pub authority: Option<ValueCondition>,
    /// On who calls.
    pub source: Option<Arc<SourceMatch>>,
}

/// A condition on who calls; all lists that are given must hold, one entry of each is enough.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceMatch {
    /// Services (a host's own calls fit none).
    pub services: Vec<ServiceId>,
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// Labels that the caller's workload carries, all of them.
    pub labels: BTreeMap<String, String>,
    /// Address ranges, network address and prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A condition on the path (without the query).
#[derive(Debug, Clone, Default)]
pub enum PathMatch {
    /// Every path.
    #[default]
    Any,
    /// Exactly this one.
    Exact(Box<str>),
    /// Whole segments of this prefix; stored without a trailing slash.
    Prefix(Box<str>),
    /// It begins so, in the middle of a segment too (`uri.prefix` of a VirtualService).
    Begins(Box<str>),
    /// As `Exact` and `Begins`, ASCII letters in any case; stored in lower case.
    AnyCase {
        /// The text.
        text: Box<str>,
        /// True: what begins so fits too.
        begins: bool,
    },
    /// The whole path fits this expression.
    Regex(Regex),
}

/// A condition on a named value.
#[derive(Debug, Clone)]
pub struct ValueMatch {
    /// The header's name in lower case, or the parameter's name.
    pub name: Box<str>,
    /// The condition.
    pub value: ValueCondition,
}

/// How a value is compared.
#[derive(Debug, Clone)]
pub enum ValueCondition {
    /// Exactly this one.
    Exact(Box<str>),
    /// It begins so.
    Prefix(Box<str>),
    /// The whole value fits this expression.
    Regex(Regex),
    /// There is one, whatever it is.
    Present,
    /// The condition does not hold, or there is no value at all.
    Not(Box<Self>),
}

/// A compiled expression that compares by its source text.
#[derive(Debug, Clone)]
pub struct Regex(regex::bytes::Regex);

impl Regex {
    /// Compiles an expression that must fit a whole value (RE2 syntax, at most 4 KiB, bounded size).
    pub fn new(pattern: &str) -> Result<Self, regex::Error> {
        let build = |text: &str| {
            regex::bytes::RegexBuilder::new(text)
                .size_limit(1 << 20)
                .build()
        };
        // By itself too: what is one only inside our parentheses could close them and leave the anchors out.
        build(pattern)?;
        build(&format!("^(?:{pattern})$")).map(Self)
    }
    /// True when it fits.
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.0.is_match(value)
    }
    /// The source text, anchors included.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl PartialEq for PathMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, Self::Any) => true,
            (Self::Exact(a), Self::Exact(b))
            | (Self::Prefix(a), Self::Prefix(b))
            | (Self::Begins(a), Self::Begins(b)) => a == b,
            (Self::AnyCase { text: a, begins: x }, Self::AnyCase { text: b, begins: y }) => {
                a == b && x == y
            }
            (Self::Regex(a), Self::Regex(b)) => a == b,
            _ => false,
        }
    }
}

impl PartialEq for ValueCondition {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a == b,
            (Self::Present, Self::Present) => true,
            (Self::Not(a), Self::Not(b)) => a == b,
            _ => false,
        }
    }
}

impl PartialEq for ValueMatch {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.value == other.value
    }
}

impl PartialEq for RequestMatch {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
            && self.method == other.method
            && self.headers == other.headers
            && self.query == other.query
            && self.authority == other.authority
            && self.source == other.source
    }
}

/// A change of the request or the answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// Change request headers.
    RequestHeaders(HeaderEdits),
    /// Change response headers.
    ResponseHeaders(HeaderEdits),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Change host and path.
    Rewrite(Rewrite),
    /// Send a copy elsewhere; its answer is thrown away.
    Mirror(Mirror),
    /// Cross-origin resource sharing: answers preflights, marks answers.
    Cors(Arc<Cors>),
    /// The mesh answers itself.
    DirectResponse(Arc<DirectResponse>),
}

/// A copy of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// Where the copy goes.
    pub backend: Arc<Backend>,
    /// How many requests are copied.
    pub share: Share,
}

/// Cross-origin resource sharing (Fetch standard, section 3.2; Gateway API `HTTPCORSFilter`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cors {
    /// Origins that may call; the whole `Origin` value. Empty: none.
    pub allow_origins: Vec<OriginMatch>,
    /// True: `access-control-allow-credentials: true`.
    pub allow_credentials: bool,
    /// Methods; `*` alone: every one.
    pub allow_methods: Vec<Box<str>>,
    /// Headers; `*` alone: every one.
    pub allow_headers: Vec<Box<str>>,
    /// Headers that scripts may read.
    pub expose_headers: Vec<Box<str>>,
    /// How long a preflight's answer counts; `None`: 5 s, the standard's.
    pub max_age: Option<Duration>,
}

/// Whether an origin may call.
#[derive(Debug, Clone, PartialEq)]
pub enum OriginMatch {
    /// Every origin (`*`).
    Any,
    /// Exactly this one.
    Exact(Box<str>),
    /// A scheme and `*.` domain, or whatever else fits the condition.
    Value(ValueCondition),
}

/// An answer that the mesh makes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectResponse {
    /// Status, 200 to 599.
    pub status: u16,
    /// The body, at most 64 KiB.
    pub body: Box<[u8]>,
    /// Headers, names in lower case.
    pub headers: Vec<(Box<str>, Box<str>)>,
}

/// Header edits, names in lower case: remove, then set, then add.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderEdits {
    /// Replace.
    pub set: Vec<(Box<str>, Box<str>)>,
    /// Append a line.
    pub add: Vec<(Box<str>, Box<str>)>,
    /// Remove.
    pub remove: Vec<Box<str>>,
}

/// A redirect; what is `None` stays the request's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Scheme.
    pub scheme: Option<Box<str>>,
    /// Host name.
    pub hostname: Option<Box<str>>,
    /// Port.
    pub port: Option<u16>,
    /// Path.
    pub path: Option<PathEdit>,
    /// Status, 302 unless set.
    pub status: u16,
}

/// A rewrite; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// Host name.
    pub hostname: Option<Box<str>>,
    /// Path.
    pub path: Option<PathEdit>,
}

/// A new path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathEdit {
    /// The whole path; the query stays.
    Full(Box<str>),
    /// What the rule's prefix matched is replaced; exactly one slash stands at the seam.
    Prefix {
        /// What the rule matched, without a trailing slash.
        matched: Box<str>,
        /// What it becomes.
        replacement: Box<str>,
    },
    /// What the path begins with is replaced, letter by letter (`rewrite.uri` of a VirtualService).
    Begin {
        /// How many bytes of the path the rule matched.
        length: usize,
        /// What they become.
        replacement: Box<str>,
    },
    /// What an expression fits is replaced, everywhere (`rewrite.uriRegexRewrite` of a VirtualService).
    Substitute(Substitution),
}

/// A compiled expression and what takes the place of what it fits; compares by the text of both.
#[derive(Debug, Clone)]
pub struct Substitution {
    expression: regex::Regex,
    replacement: Box<str>,
}

impl Substitution {
    /// Compiles it (RE2 syntax, bounded size). In the replacement `\1` is the first group, `\\` a backslash.
    pub fn new(pattern: &str, replacement: &str) -> Result<Self, regex::Error> {
        let mut text = String::with_capacity(replacement.len());
        let mut rest = replacement.chars();
        while let Some(letter) = rest.next() {
            match letter {
                '$' => text.push_str("$$"),
                '\\' => match rest.next() {
                    Some(digit @ '0'..='9') => text.extend(['$', '{', digit, '}']),
                    Some('$') => text.push_str("$$"),
                    Some(other) => text.push(other),
                    None => {}
                },
                other => text.push(other),
            }
        }
        Ok(Self {
            expression: regex::RegexBuilder::new(pattern)
                .size_limit(1 << 20)
                .build()?,
            replacement: text.into(),
        })
    }
    /// The path with everything replaced that the expression fits.
    pub fn apply(&self, path: &str) -> String {
        self.expression
            .replace_all(path, &*self.replacement)
            .into_owned()
    }
}

impl PartialEq for Substitution {
    fn eq(&self, other: &Self) -> bool {
        self.expression.as_str() == other.expression.as_str()
            && self.replacement == other.replacement
    }
}

impl Eq for Substitution {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substitutions() {
        for (pattern, replacement, path, wanted) in [
            (
                "^/service/([^/]+)(/.*)$",
                "\\2/instance/\\1",
                "/service/foo/v1/api",
                "/v1/api/instance/foo",
            ),
            ("one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"),
            ("a", "$1\\\\", "/a", "/$1\\"),
            ("x", "y", "/a", "/a"),
        ] {
            assert_eq!(
                Substitution::new(pattern, replacement).unwrap().apply(path),
                wanted
            );
        }
        assert!(Substitution::new("(", "").is_err());
    }

    #[test]
    fn expressions_fit_whole_values_whatever_they_are() {
        assert!(Regex::new("a)|(?:.*").is_err());
        let either = Regex::new("a|b").unwrap();
        assert!(either.is_match(b"b") && !either.is_match(b"bc"));
    }
}
