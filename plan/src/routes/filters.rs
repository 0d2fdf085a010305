//! The filters of Gateway API, compiled.

use std::{sync::Arc, time::Duration};

use mesh_model::{
    catalog::ResourceKey,
    document::{
        Spec,
        route::{
            CorsSpec, ExtensionReference, HeaderModifier, HttpFilter, MirrorSpec, PathModifier,
            RedirectSpec,
        },
    },
    snapshot::{
        Filter, RequestMatch,
        limit::Share,
        rule::{
            Cors, DirectResponse, HeaderEdits, Mirror, OriginMatch, PathEdit, PathMatch, Redirect,
            Regex, Rewrite, ValueCondition,
        },
    },
};

use super::{Draft, target::Named};
use crate::percent;

impl Draft<'_> {
    /// Filters for requests that came by `matches`, whose prefix a rewrite may replace; an error when one of them
    /// cannot be made and must not be skipped.
    pub(super) fn filters(
        &mut self,
        at: &str,
        given: &[HttpFilter],
        matches: &RequestMatch,
    ) -> Result<Arc<[Filter]>, String> {
        let mut all = Vec::with_capacity(given.len());
        for (number, one) in given.iter().enumerate() {
            let at = format!("{at}.filters[{number}]");
            all.extend(self.filter(&at, one, &matches.path)?);
        }
        Ok(Arc::from(all))
    }

    fn filter(
        &mut self,
        at: &str,
        one: &HttpFilter,
        path: &PathMatch,
    ) -> Result<Option<Filter>, String> {
        if let Some(edits) = &one.request_header_modifier {
            return Ok(Some(Filter::RequestHeaders(headers(edits))));
        }
        if let Some(edits) = &one.response_header_modifier {
            return Ok(Some(Filter::ResponseHeaders(headers(edits))));
        }
        if let Some(given) = &one.request_redirect {
            return Ok(Some(redirect(given, path)));
        }
        if let Some(mirror) = &one.request_mirror {
            return Ok(self.mirror(at, mirror));
        }
        if let Some(given) = &one.cors {
            return Ok(Some(Filter::Cors(Arc::new(cors(given)))));
        }
        if let Some(reference) = &one.extension_ref {
            return self.direct_response(at, reference).map(Some);
        }
        Ok(one.url_rewrite.as_ref().map(|rewrite| {
            Filter::Rewrite(Rewrite {
                hostname: rewrite.hostname.as_deref().map(Into::into),
                path: rewrite.path.as_ref().and_then(|edit| path_edit(edit, path)),
            })
        }))
    }

    /// Copies that cannot be sent anywhere are not sent; the requests themselves are not touched by it.
    fn mirror(&mut self, at: &str, given: &MirrorSpec) -> Option<Filter> {
        let share = match (given.percent, given.fraction) {
            (Some(percent), _) => percent::fraction(percent, 100),
            (None, Some(part)) => {
                percent::fraction(part.numerator, part.denominator.unwrap_or(100))
            }
            (None, None) => Share::ALL,
        };
        match self.named(&Named::from(&given.backend_ref)) {
            Ok(backend) => Some(Filter::Mirror(Mirror { backend, share })),
            Err(refusal) => {
                self.unresolved(&format!("{at}.requestMirror.backendRef"), refusal);
                None
            }
        }
    }

    fn direct_response(
        &mut self,
        at: &str,
        reference: &ExtensionReference,
    ) -> Result<Filter, String> {
        let key = ResourceKey {
            kind: "DirectResponse".to_owned(),
            namespace: self.route.namespace.to_string(),
            name: reference.name.clone(),
        };
        let found = self.room.world.input.catalog.resources.get(&key);
        let spec = found.and_then(|found| match &found.document.spec {
            Spec::DirectResponse(spec) if reference.kind == key.kind => Some(spec),
            _ => None,
        });
        let Some(spec) = spec else {
            let why = format!(
                "the filter {} {}/{} is not known",
                reference.kind, key.namespace, key.name
            );
            let at = format!("{at}.extensionRef");
            self.unresolved(&at, ("FilterNotFound", why.clone()));
            return Err(why);
        };
        let lower = |name: &str| name.to_ascii_lowercase().into_boxed_str();
        let headers = spec.headers.iter();
        Ok(Filter::DirectResponse(Arc::new(DirectResponse {
            status: spec.status,
            body: spec.body.as_bytes().into(),
            headers: headers
                .map(|one| (lower(&one.name), one.value.as_str().into()))
                .collect(),
        })))
    }
}

fn redirect(given: &RedirectSpec, path: &PathMatch) -> Filter {
    Filter::Redirect(Redirect {
        scheme: given.scheme.as_deref().map(Into::into),
        hostname: given.hostname.as_deref().map(Into::into),
        port: given.port,
        path: given.path.as_ref().and_then(|edit| path_edit(edit, path)),
        status: given.status_code.unwrap_or(302),
    })
}

fn cors(given: &CorsSpec) -> Cors {
    let boxed = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
    Cors {
        allow_origins: given
            .allow_origins
            .iter()
            .filter_map(|text| origin(text))
            .collect(),
        allow_credentials: given.allow_credentials == Some(true),
        allow_methods: boxed(&given.allow_methods),
        allow_headers: boxed(&given.allow_headers),
        expose_headers: boxed(&given.expose_headers),
        max_age: given
            .max_age
            .map(|seconds| Duration::from_secs(seconds.into())),
    }
}

/// `*`, `scheme://host[:port]`, or the same with a `*` in the host, which stands for any number of labels.
fn origin(text: &str) -> Option<OriginMatch> {
    if text == "*" {
        return Some(OriginMatch::Any);
    }
    if !text.contains('*') {
        return Some(OriginMatch::Exact(text.to_ascii_lowercase().into()));
    }
    let mut pattern = String::from("(?i)");
    for letter in text.chars() {
        match letter {
            '*' => pattern.push_str("[^/:]+"),
            letter if letter.is_ascii_alphanumeric() => pattern.push(letter),
            letter => pattern.extend(['\\', letter]),
        }
    }
    let regex = Regex::new(&pattern).ok()?;
    Some(OriginMatch::Value(ValueCondition::Regex(regex)))
}

fn headers(edits: &HeaderModifier) -> HeaderEdits {
    let lower = |name: &str| name.to_ascii_lowercase().into_boxed_str();
    let pairs = |list: &[mesh_model::document::route::HeaderValueSpec]| {
        list.iter()
            .map(|one| (lower(&one.name), one.value.as_str().into()))
            .collect()
    };
    HeaderEdits {
        set: pairs(&edits.set),
        add: pairs(&edits.add),
        remove: edits.remove.iter().map(|name| lower(name)).collect(),
    }
}

fn path_edit(edit: &PathModifier, path: &PathMatch) -> Option<PathEdit> {
    if let Some(full) = &edit.replace_full_path {
        return Some(PathEdit::Full(full.as_str().into()));
    }
    let matched: &str = match path {
        PathMatch::Prefix(prefix) => prefix,
        _ => "",
    };
    let replacement = edit.replace_prefix_match.as_deref()?;
    Some(PathEdit::Prefix {
        matched: matched.into(),
        replacement: replacement.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        let fits = |pattern: &str, value: &str| match origin(pattern).unwrap() {
            OriginMatch::Any => true,
            OriginMatch::Exact(exact) => *exact == *value,
            OriginMatch::Value(condition) => condition.fits(Some(value.as_bytes())),
        };
        for (pattern, value, wanted) in [
            ("*", "null", true),
            ("https://Example.com", "https://example.com", true),
            ("https://example.com", "https://example.com:8443", false),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            (
                "https://*.example.com",
                "https://evil.com/.example.com",
                false,
            ),
            ("https://*.example.com", "https://a.exampleXcom", false),
            (
                "http://*.example.com:8080",
                "http://a.example.com:8080",
                true,
            ),
        ] {
            assert_eq!(fits(pattern, value), wanted, "{pattern} {value}");
        }
    }
}
