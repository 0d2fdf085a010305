//! What a rule asks of a request, and what it changes.

use std::sync::Arc;

use super::{Retry, Revision, Target, Timeouts};

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
}

/// The resource that a rule comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteReference {
    /// `HTTPRoute`, `GRPCRoute`, `TCPRoute`, `TLSRoute` or `DelegationTable`.
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
    /// The whole value fits this expression.
    Regex(Regex),
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
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a == b,
            _ => false,
        }
    }
}

impl PartialEq for ValueCondition {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a == b,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_fit_whole_values_whatever_they_are() {
        assert!(Regex::new("a)|(?:.*").is_err());
        let either = Regex::new("a|b").unwrap();
        assert!(either.is_match(b"b") && !either.is_match(b"bc"));
    }
}
