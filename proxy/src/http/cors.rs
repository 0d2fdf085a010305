//! Cross-origin resource sharing: answers preflights, marks answers (Fetch standard, section 3.2).
//!
//! In: the policy, a request's `origin`. Out: fields of the answer. Where a policy acts, what the program
//! itself says of other origins is taken out: the policy is what counts.

use std::sync::Arc;

use mesh_model::snapshot::{
    Filter,
    decide::RequestView as _,
    rule::{Cors, OriginMatch},
};

use super::{
    fields::Fields,
    message::{Request, Response},
};

/// What a policy says of one request.
#[derive(Debug)]
pub(crate) struct Marks {
    policy: Arc<Cors>,
    /// The origin, when it may call.
    origin: Option<Box<[u8]>>,
    /// What a preflight asks for; none for any other request.
    asked: Option<Preflight>,
}

#[derive(Debug)]
struct Preflight {
    method: Box<[u8]>,
    headers: Option<Box<[u8]>>,
}

/// What the first CORS filter says of a request; none when there is no such filter.
pub(crate) fn marks(
    filters: &mut dyn Iterator<Item = &Filter>,
    request: &Request,
) -> Option<Marks> {
    let policy = policy(filters)?;
    let fields = &request.fields;
    let mut origins = fields.named(b"origin");
    let origin = match (origins.next(), origins.next()) {
        (Some(origin), None) => Some(origin),
        // Two origins are none.
        _ => None,
    };
    let wanted = fields.named(b"access-control-request-method").next();
    let asked = wanted
        .filter(|_| request.method() == "OPTIONS" && origin.is_some())
        .map(|method| Preflight {
            method: method.into(),
            headers: request
                .header("access-control-request-headers")
                .map(|headers| headers.as_ref().into()),
        });
    let fits = |origin: &&[u8]| policy.allow_origins.iter().any(|one| allows(one, origin));
    Some(Marks {
        policy: Arc::clone(policy),
        origin: origin.filter(fits).map(Into::into),
        asked,
    })
}

fn policy<'f>(filters: &mut dyn Iterator<Item = &'f Filter>) -> Option<&'f Arc<Cors>> {
    for filter in filters {
        if let Filter::Cors(policy) = filter {
            return Some(policy);
        }
    }
    None
}

fn allows(allowed: &OriginMatch, origin: &[u8]) -> bool {
    match allowed {
        OriginMatch::Any => true,
        OriginMatch::Exact(exact) => exact.as_bytes() == origin,
        OriginMatch::Value(condition) => condition.fits(Some(origin)),
    }
}

impl Marks {
    /// True for a question that the mesh answers.
    pub(crate) fn is_preflight(&self) -> bool {
        self.asked.is_some()
    }

    /// Writes the answer to a preflight: 204, without CORS fields when the origin may not call.
    pub(crate) fn preflight(&self, response: &mut Response) {
        response.clear();
        response.status = 204;
        self.mark(&mut response.fields);
        let (Some(_), Some(asked)) = (&self.origin, &self.asked) else {
            return;
        };
        let policy = &self.policy;
        let fields = &mut response.fields;
        let methods = self.listed(&policy.allow_methods, Some(&asked.method));
        if let Some(methods) = methods {
            fields.push(b"access-control-allow-methods", &methods);
        }
        let headers = self.listed(&policy.allow_headers, asked.headers.as_deref());
        if let Some(headers) = headers {
            fields.push(b"access-control-allow-headers", &headers);
        }
        if let Some(age) = policy.max_age {
            let text = age.as_secs().to_string();
            fields.push(b"access-control-max-age", text.as_bytes());
        }
        // What was asked decides the answer, so it is part of a cache's key.
        fields.push(
            b"vary",
            b"access-control-request-method, access-control-request-headers",
        );
    }

    /// Marks an answer, whoever made it.
    pub(crate) fn mark(&self, answer: &mut Fields) {
        answer.drop_where(|_, name| {
            name.len() > OWN.len()
                && name
                    .get(..OWN.len())
                    .is_some_and(|head| head.eq_ignore_ascii_case(OWN))
        });
        if let Some(origin) = &self.origin {
            let policy = &self.policy;
            let any = policy.allow_origins.contains(&OriginMatch::Any);
            let named: &[u8] = if any && !policy.allow_credentials {
                b"*"
            } else {
                origin
            };
            answer.push(b"access-control-allow-origin", named);
            if policy.allow_credentials {
                answer.push(b"access-control-allow-credentials", b"true");
            }
            if self.asked.is_none() && !policy.expose_headers.is_empty() {
                let list = policy.expose_headers.join(", ");
                answer.push(b"access-control-expose-headers", list.as_bytes());
            }
        }
        // Also without an origin: what is kept for one caller must not be given to another.
        if !varies(answer) {
            answer.push(b"vary", b"origin");
        }
    }

    /// A list for a preflight's answer. `*` is no wildcard where credentials are sent: then what was asked is named.
    fn listed(&self, list: &[Box<str>], asked: Option<&[u8]>) -> Option<Vec<u8>> {
        match list {
            [] => None,
            [one] if **one == *"*" => {
                if self.policy.allow_credentials {
                    asked.map(<[u8]>::to_vec)
                } else {
                    Some(b"*".to_vec())
                }
            }
            list => Some(list.join(", ").into_bytes()),
        }
    }
}

/// The beginning of the names that belong to the policy.
const OWN: &[u8] = b"access-control-";

/// True when the answer says already that it depends on the origin.
fn varies(answer: &Fields) -> bool {
    answer
        .named(b"vary")
        .flat_map(|line| line.split(|byte| *byte == b','))
        .any(|one| {
            let one = one.trim_ascii();
            one == b"*" || one.eq_ignore_ascii_case(b"origin")
        })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_model::snapshot::rule::{Regex, ValueCondition};

    use super::*;

    fn texts(list: &[&str]) -> Vec<Box<str>> {
        list.iter().map(|text| (*text).into()).collect()
    }

    fn policy() -> Cors {
        Cors {
            allow_origins: vec![
                OriginMatch::Exact("https://a.example".into()),
                OriginMatch::Value(ValueCondition::Regex(
                    Regex::new(r"https://[^.]+\.b\.example").unwrap(),
                )),
            ],
            allow_methods: texts(&["GET", "PUT"]),
            allow_headers: texts(&["x-a"]),
            expose_headers: texts(&["x-b", "x-c"]),
            max_age: Some(Duration::from_mins(1)),
            ..Cors::default()
        }
    }

    fn request(method: &str, lines: &[(&str, &str)]) -> Request {
        let mut request = Request::default();
        request.set_method(method.as_bytes());
        for (name, value) in lines {
            request.fields.push(name.as_bytes(), value.as_bytes());
        }
        request
    }

    fn of(policy: Cors, request: &Request) -> Marks {
        let filter = Filter::Cors(Arc::new(policy));
        marks(&mut [&filter].into_iter(), request).unwrap()
    }

    fn told(fields: &Fields) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut all: Vec<_> = fields
            .iter()
            .map(|(_, name, value)| format!("{}: {}", text(name), text(value)))
            .collect();
        all.sort();
        all
    }

    const ASKS: (&str, &str) = ("Access-Control-Request-Method", "PUT");

    #[test]
    fn preflights() {
        for (origin, allowed) in [
            ("https://a.example", true),
            ("https://x.b.example", true),
            ("https://x.y.b.example", false),
            ("https://a.example.evil", false),
            ("null", false),
        ] {
            let marks = of(policy(), &request("OPTIONS", &[("Origin", origin), ASKS]));
            assert!(marks.is_preflight());
            let mut response = Response::default();
            marks.preflight(&mut response);
            assert_eq!(response.status, 204);
            let lines = told(&response.fields);
            let wanted = if allowed {
                vec![
                    "access-control-allow-headers: x-a".to_owned(),
                    "access-control-allow-methods: GET, PUT".to_owned(),
                    format!("access-control-allow-origin: {origin}"),
                    "access-control-max-age: 60".to_owned(),
                    "vary: access-control-request-method, access-control-request-headers"
                        .to_owned(),
                    "vary: origin".to_owned(),
                ]
            } else {
                vec!["vary: origin".to_owned()]
            };
            assert_eq!(lines, wanted, "{origin}");
        }
    }

    #[test]
    fn wildcards_are_named_where_credentials_are_sent() {
        let all = Cors {
            allow_origins: vec![OriginMatch::Any],
            allow_methods: texts(&["*"]),
            allow_headers: texts(&["*"]),
            ..Cors::default()
        };
        let asks = [
            ("origin", "https://z"),
            ASKS,
            ("access-control-request-headers", "x-q, x-r"),
        ];
        for (credentials, origin, methods, headers) in [
            (false, "*", "*", "*"),
            (true, "https://z", "PUT", "x-q, x-r"),
        ] {
            let policy = Cors {
                allow_credentials: credentials,
                ..all.clone()
            };
            let mut response = Response::default();
            of(policy, &request("OPTIONS", &asks)).preflight(&mut response);
            let value = |name: &str| {
                let found = response.fields.named(name.as_bytes()).next();
                found.map(|value| std::str::from_utf8(value).unwrap())
            };
            assert_eq!(value("access-control-allow-origin"), Some(origin));
            assert_eq!(value("access-control-allow-methods"), Some(methods));
            assert_eq!(value("access-control-allow-headers"), Some(headers));
            let told = value("access-control-allow-credentials");
            assert_eq!(told, credentials.then_some("true"));
        }
    }

    #[test]
    fn answers_are_marked() {
        let lines = [
            ("Access-Control-Allow-Origin", "*"),
            ("vary", "accept, Origin"),
        ];
        let answer = || request("", &lines).fields;
        let mut fields = answer();
        of(
            policy(),
            &request("GET", &[("origin", "https://a.example")]),
        )
        .mark(&mut fields);
        assert_eq!(
            told(&fields),
            [
                "access-control-allow-origin: https://a.example",
                "access-control-expose-headers: x-b, x-c",
                "vary: accept, Origin",
            ]
        );
        for origins in [&[("origin", "https://c")][..], &[]] {
            let mut fields = answer();
            let marks = of(policy(), &request("GET", origins));
            assert!(!marks.is_preflight());
            marks.mark(&mut fields);
            assert_eq!(told(&fields), ["vary: accept, Origin"]);
        }
        let options = request("OPTIONS", &[("origin", "https://a.example")]);
        assert!(!of(policy(), &options).is_preflight(), "asks for nothing");
        assert!(marks(&mut [].into_iter(), &options).is_none());
    }
}
