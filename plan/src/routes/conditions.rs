//! What a VirtualService asks of a request or a connection, compiled.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    document::virtual_service::{
        HttpCondition, TcpCondition, TextCondition, TextMatch, TlsCondition,
    },
    name::Namespace,
    snapshot::{
        RequestMatch, SourceMatch,
        rule::{PathMatch, Regex, ValueCondition, ValueMatch},
    },
};

use crate::sources::Asked;

/// Methods that an expression or a prefix is tried on: those of RFC 9110 section 9 and PATCH.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// A condition that can never hold here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Never;

/// Where a condition is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Here<'h> {
    /// Namespace of the document.
    pub(super) own: &'h Namespace,
    /// The port that was dialled.
    pub(super) port: u16,
}

impl Here<'_> {
    /// True when a condition on port and gateways can hold inside the mesh.
    fn fits(self, port: Option<u16>, gateways: &[String]) -> bool {
        port.is_none_or(|port| port == self.port)
            && (gateways.is_empty() || gateways.iter().any(|name| name == "mesh"))
    }

    /// The matches that a condition on requests stands for, none when it can never hold here.
    pub(super) fn http(self, one: &HttpCondition) -> Vec<RequestMatch> {
        let scheme = one.scheme.as_ref().and_then(value);
        let plain = scheme.is_none_or(|scheme| scheme.fits(Some(b"http")));
        if !plain || !self.fits(one.port, &one.gateways) {
            return Vec::new();
        }
        let Some(path) = path(one) else {
            return Vec::new();
        };
        let mut headers = values(&one.headers, true);
        headers.extend(
            values(&one.without_headers, true)
                .into_iter()
                .map(|one| ValueMatch {
                    value: ValueCondition::Not(Box::new(one.value)),
                    ..one
                }),
        );
        let base = RequestMatch {
            path,
            method: None,
            headers,
            query: values(&one.query_params, false),
            authority: one.authority.as_ref().and_then(authority),
            source: asked(
                &one.source_services,
                one.source_namespace.as_ref(),
                &one.source_labels,
                &one.source_subnets,
            )
            .compile(self.own),
        };
        methods(one.method.as_ref())
            .into_iter()
            .map(|method| RequestMatch {
                method,
                ..base.clone()
            })
            .collect()
    }

    /// The condition on the caller of a connection.
    pub(super) fn tcp(self, one: &TcpCondition) -> Result<Option<Arc<SourceMatch>>, Never> {
        if !self.fits(one.port, &one.gateways) {
            return Err(Never);
        }
        let mut subnets = one.source_subnets.clone();
        subnets.extend(one.source_subnet.clone());
        let asked = asked(
            &one.source_services,
            one.source_namespace.as_ref(),
            &one.source_labels,
            &subnets,
        );
        Ok(asked.compile(self.own))
    }

    /// As [`Self::tcp`], of a TLS connection.
    pub(super) fn tls(self, one: &TlsCondition) -> Result<Option<Arc<SourceMatch>>, Never> {
        if !self.fits(one.port, &one.gateways) {
            return Err(Never);
        }
        let asked = asked(
            &one.source_services,
            one.source_namespace.as_ref(),
            &one.source_labels,
            &one.source_subnets,
        );
        Ok(asked.compile(self.own))
    }
}

fn asked<'a>(
    services: &'a [String],
    namespace: Option<&'a String>,
    labels: &'a BTreeMap<String, String>,
    addresses: &'a [String],
) -> Asked<'a> {
    Asked {
        services,
        namespaces: namespace.map_or(&[], std::slice::from_ref),
        labels,
        addresses,
    }
}

fn path(one: &HttpCondition) -> Option<PathMatch> {
    let any_case = one.ignore_uri_case;
    let text = |text: &str, begins: bool| {
        if any_case {
            PathMatch::AnyCase {
                text: text.to_ascii_lowercase().into(),
                begins,
            }
        } else if begins {
            PathMatch::Begins(text.into())
        } else {
            PathMatch::Exact(text.into())
        }
    };
    Some(match one.uri.as_ref().map(TextMatch::condition) {
        None | Some(TextCondition::Present | TextCondition::Prefix("" | "/")) => PathMatch::Any,
        Some(TextCondition::Exact(exact)) => text(exact, false),
        Some(TextCondition::Prefix(prefix)) => text(prefix, true),
        Some(TextCondition::Regex(regex)) => PathMatch::Regex(Regex::new(regex).ok()?),
    })
}

fn value(given: &TextMatch) -> Option<ValueCondition> {
    Some(match given.condition() {
        TextCondition::Exact(text) => ValueCondition::Exact(text.into()),
        TextCondition::Prefix(text) => ValueCondition::Prefix(text.into()),
        TextCondition::Regex(text) => ValueCondition::Regex(Regex::new(text).ok()?),
        TextCondition::Present => ValueCondition::Present,
    })
}

/// Hosts are compared in lower case and without a port.
fn authority(given: &TextMatch) -> Option<ValueCondition> {
    Some(match value(given)? {
        ValueCondition::Exact(text) => {
            let text = text.to_ascii_lowercase();
            let host = match text.rsplit_once(':') {
                Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
                _ => &text,
            };
            ValueCondition::Exact(host.into())
        }
        ValueCondition::Prefix(text) => ValueCondition::Prefix(text.to_ascii_lowercase().into()),
        other => other,
    })
}

fn values(given: &BTreeMap<String, TextMatch>, headers: bool) -> Vec<ValueMatch> {
    let name = |name: &str| {
        if headers {
            name.to_ascii_lowercase().into()
        } else {
            name.into()
        }
    };
    given
        .iter()
        .filter_map(|(key, text)| {
            Some(ValueMatch {
                name: name(key),
                value: value(text)?,
            })
        })
        .collect()
}

/// The methods that fit; one entry of `None` for all.
fn methods(given: Option<&TextMatch>) -> Vec<Option<Box<str>>> {
    let condition = given.and_then(value);
    match condition {
        None | Some(ValueCondition::Present) => vec![None],
        Some(ValueCondition::Exact(method)) => vec![Some(method)],
        Some(condition) => METHODS
            .into_iter()
            .filter(|method| condition.fits(Some(method.as_bytes())))
            .map(|method| Some(method.into()))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(regex: &str) -> TextMatch {
        TextMatch {
            regex: Some(regex.to_owned()),
            ..TextMatch::default()
        }
    }

    #[test]
    fn an_expression_stands_for_the_methods_that_fit() {
        let found = |regex| -> Vec<String> {
            let all = methods(Some(&text(regex))).into_iter();
            all.flatten().map(String::from).collect()
        };
        assert_eq!(found("GET|HEAD"), ["GET", "HEAD"]);
        assert_eq!(found("P.*"), ["POST", "PUT", "PATCH"]);
        assert_eq!(found("get"), Vec::<String>::new());
        assert_eq!(methods(None), [None]);
    }

    #[test]
    fn conditions_that_never_hold_here() {
        let own = Namespace::default();
        let here = Here {
            own: &own,
            port: 80,
        };
        let never = [
            HttpCondition {
                port: Some(81),
                ..HttpCondition::default()
            },
            HttpCondition {
                gateways: vec!["edge".to_owned()],
                ..HttpCondition::default()
            },
            HttpCondition {
                scheme: Some(text("https")),
                ..HttpCondition::default()
            },
        ];
        assert!(never.iter().all(|one| here.http(one).is_empty()));
        let always = HttpCondition {
            port: Some(80),
            gateways: vec!["edge".to_owned(), "mesh".to_owned()],
            scheme: Some(text("https?")),
            ..HttpCondition::default()
        };
        assert_eq!(here.http(&always), [RequestMatch::default()]);
    }
}
