//! Rules on one service become one `VirtualService`, and labels become subsets of a `DestinationRule`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    Rule,
    rule::{Condition, Cors, Fault, FaultPart, RouteRuleSpec, Service},
};
use crate::{
    document::virtual_service::TextMatch,
    finding::{Finding, Severity},
};

/// Documents, `DestinationRule`s first, and what could not be carried over.
pub(super) fn translate(rules: Vec<Rule>) -> (Vec<Value>, Vec<Finding>) {
    let mut made = Made::default();
    let mut services: BTreeMap<(String, String), Vec<Rule>> = BTreeMap::new();
    for rule in rules {
        let host = host(&rule.spec.destination, &rule.namespace);
        let place = (rule.namespace.clone(), host);
        services.entry(place).or_default().push(rule);
    }
    let mut routed = Vec::new();
    for ((namespace, host), mut rules) in services {
        // Of one precedence, those that ask something come before those that take everything.
        rules.sort_by_key(|rule| {
            (
                std::cmp::Reverse(rule.spec.precedence),
                rule.spec.condition.is_none(),
            )
        });
        routed.push(made.virtual_service(&namespace, &host, &rules));
    }
    let mut documents = made.destination_rules();
    documents.extend(routed);
    (documents, made.findings)
}

/// The name by which the mesh knows a service; without the namespace when it is the rule's own.
fn host(service: &Service, own: &str) -> String {
    if let Some(full) = &service.full {
        let mut labels = full.split('.');
        return match (labels.next(), labels.next()) {
            (Some(name), Some(namespace)) if namespace == own => name.to_owned(),
            _ => full.clone(),
        };
    }
    let name = service.name.clone().unwrap_or_default();
    match &service.namespace {
        Some(namespace) if namespace != own => format!("{name}.{namespace}"),
        _ => name,
    }
}

/// First part of a host.
fn name(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}

/// Labels of a version, and the subset's name.
type Subset = (BTreeMap<String, String>, String);

#[derive(Default)]
struct Made {
    /// Subsets by namespace of the rule and host.
    subsets: BTreeMap<(String, String), Vec<Subset>>,
    findings: Vec<Finding>,
}

impl Made {
    fn left_out(&mut self, rule: &Rule, path: &str, why: &str) {
        self.findings.push(Finding::new(
            "not-translated",
            Severity::Warning,
            format!("RouteRule/{}/{}", rule.namespace, rule.name),
            format!("{path}: {why}"),
            "look whether the documents say what is meant before you apply them",
        ));
    }

    fn virtual_service(&mut self, namespace: &str, host: &str, rules: &[Rule]) -> Value {
        let (mut http, mut tcp) = (Vec::new(), Vec::new());
        for rule in rules {
            match rule
                .spec
                .condition
                .as_ref()
                .and_then(|one| one.tcp.as_ref())
            {
                Some(_) => tcp.push(self.tcp_route(rule, host)),
                None => http.push(self.http_route(rule, host)),
            }
        }
        let mut spec = Map::new();
        spec.insert("hosts".to_owned(), json!([host]));
        put(&mut spec, "http", (!http.is_empty()).then_some(json!(http)));
        put(&mut spec, "tcp", (!tcp.is_empty()).then_some(json!(tcp)));
        // Callers by service are words of our own.
        let own = http.iter().any(|route| {
            let matches = route.get("match").and_then(Value::as_array);
            matches.is_some_and(|all| all.iter().any(|one| one.get("sourceServices").is_some()))
        });
        document(
            "VirtualService",
            own || !tcp.is_empty(),
            namespace,
            name(host),
            &Value::Object(spec),
        )
    }

    fn destination_rules(&self) -> Vec<Value> {
        let all = self.subsets.iter().map(|((namespace, host), subsets)| {
            let subsets: Vec<Value> = subsets
                .iter()
                .map(|(labels, name)| json!({"name": name, "labels": labels}))
                .collect();
            // A rule acts from the namespace of its service.
            let mut labels = host.split('.');
            let service = labels.next().unwrap_or_default();
            let namespace = labels.next().unwrap_or(namespace);
            let spec = json!({"host": service, "subsets": subsets});
            document("DestinationRule", false, namespace, service, &spec)
        });
        all.collect()
    }

    /// The name of the version with these labels.
    fn subset(&mut self, namespace: &str, host: &str, labels: &BTreeMap<String, String>) -> String {
        let place = (namespace.to_owned(), host.to_owned());
        let known = self.subsets.entry(place).or_default();
        if let Some((_, name)) = known.iter().find(|(other, _)| other == labels) {
            return name.clone();
        }
        let plain = |text: String| -> String {
            let fits = |c: char| {
                if c.is_ascii_alphanumeric() || c == '.' {
                    c
                } else {
                    '-'
                }
            };
            text.chars().map(fits).take(50).collect()
        };
        let values: Vec<&str> = labels.values().map(String::as_str).collect();
        let short = plain(values.join("-"));
        let pairs: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}-{value}"))
            .collect();
        let long = plain(pairs.join("-"));
        let taken = |name: &str| name.is_empty() || known.iter().any(|(_, other)| other == name);
        let name = if !taken(&short) {
            short
        } else if !taken(&long) {
            long
        } else {
            format!("{long}-{}", known.len() + 1)
        };
        known.push((labels.clone(), name.clone()));
        name
    }

    fn destination(
        &mut self,
        namespace: &str,
        host: &str,
        labels: &BTreeMap<String, String>,
    ) -> Value {
        if labels.is_empty() {
            return json!({"host": host});
        }
        json!({"host": host, "subset": self.subset(namespace, host, labels)})
    }

    fn shares(&mut self, rule: &Rule, own: &str) -> Value {
        let spec = &rule.spec;
        if spec.route.is_empty() {
            return json!([{"destination": {"host": own}}]);
        }
        let shares = spec.route.iter().map(|share| {
            let other = share.destination.as_ref();
            let host = other.map_or_else(|| own.to_owned(), |other| host(other, &rule.namespace));
            let labels = other
                .map(|other| &other.labels)
                .filter(|labels| !labels.is_empty());
            let labels = labels.unwrap_or(&share.labels);
            let destination = self.destination(&rule.namespace, &host, labels);
            match share.weight {
                Some(weight) => json!({"destination": destination, "weight": weight}),
                None => json!({"destination": destination}),
            }
        });
        shares.collect()
    }

    fn tcp_route(&mut self, rule: &Rule, host: &str) -> Value {
        let mut made = Map::new();
        if let Some(condition) = &rule.spec.condition {
            let mut wanted = Self::caller(rule, condition);
            if let Some(subnets) = &condition.tcp {
                let list = |given: &[String]| (!given.is_empty()).then(|| json!(given));
                put(&mut wanted, "sourceSubnets", list(&subnets.source_subnet));
                put(
                    &mut wanted,
                    "destinationSubnets",
                    list(&subnets.destination_subnet),
                );
            }
            made.insert("match".to_owned(), json!([wanted]));
        }
        made.insert("route".to_owned(), self.shares(rule, host));
        self.unknown(rule);
        Value::Object(made)
    }

    fn http_route(&mut self, rule: &Rule, host: &str) -> Value {
        let spec = &rule.spec;
        let mut made = Map::new();
        made.insert("name".to_owned(), json!(rule.name));
        if let Some(condition) = &spec.condition {
            let mut wanted = Self::caller(rule, condition);
            requested(condition, &mut wanted);
            if !wanted.is_empty() {
                made.insert("match".to_owned(), json!([wanted]));
            }
        }
        if let Some(address) = &spec.redirect {
            made.insert("redirect".to_owned(), address_of(address));
        } else {
            made.insert("route".to_owned(), self.shares(rule, host));
        }
        put(&mut made, "rewrite", spec.rewrite.as_ref().map(address_of));
        self.patience(rule, &mut made);
        put(
            &mut made,
            "fault",
            spec.http_fault
                .as_ref()
                .map(|given| self.fault(rule, given)),
        );
        if let Some(mirror) = &spec.mirror {
            let host = self::host(mirror, &rule.namespace);
            let copy = self.destination(&rule.namespace, &host, &mirror.labels);
            made.insert("mirror".to_owned(), copy);
        }
        put(&mut made, "corsPolicy", spec.cors_policy.as_ref().map(cors));
        if !spec.append_headers.is_empty() {
            let headers = json!({"request": {"add": spec.append_headers}});
            made.insert("headers".to_owned(), headers);
        }
        self.unknown(rule);
        Value::Object(made)
    }

    /// Time-outs and retries.
    fn patience(&mut self, rule: &Rule, made: &mut Map<String, Value>) {
        let RouteRuleSpec {
            http_req_timeout,
            http_req_retries,
            ..
        } = &rule.spec;
        if let Some(given) = http_req_timeout {
            let simple = given.simple_timeout.as_ref();
            put(made, "timeout", simple.map(|simple| json!(simple.timeout)));
            if simple.is_some_and(|simple| simple.override_header_name.is_some()) {
                self.left_out(
                    rule,
                    "spec.httpReqTimeout.simpleTimeout.overrideHeaderName",
                    "callers do not set time-outs by a header",
                );
            }
            if given.custom.is_some() {
                self.left_out(rule, "spec.httpReqTimeout.custom", "it has no meaning here");
            }
        }
        if let Some(given) = http_req_retries {
            if let Some(simple) = &given.simple_retry {
                let retries = match &simple.per_try_timeout {
                    Some(each) => json!({"attempts": simple.attempts, "perTryTimeout": each}),
                    None => json!({"attempts": simple.attempts}),
                };
                made.insert("retries".to_owned(), retries);
                if simple.override_header_name.is_some() {
                    self.left_out(
                        rule,
                        "spec.httpReqRetries.simpleRetry.overrideHeaderName",
                        "callers do not set retries by a header",
                    );
                }
            }
            if given.custom.is_some() {
                self.left_out(rule, "spec.httpReqRetries.custom", "it has no meaning here");
            }
        }
    }

    fn fault(&mut self, rule: &Rule, given: &Fault) -> Value {
        let mut made = Map::new();
        for (key, part) in [("delay", &given.delay), ("abort", &given.abort)] {
            let Some(part) = part else { continue };
            if part.override_header_name.is_some() {
                let path = format!("spec.httpFault.{key}.overrideHeaderName");
                self.left_out(rule, &path, "callers do not set faults by a header");
            }
            made.insert(key.to_owned(), fault_part(part));
        }
        Value::Object(made)
    }

    /// Who calls.
    fn caller(rule: &Rule, condition: &Condition) -> Map<String, Value> {
        let mut wanted = Map::new();
        let mut labels = condition.source_tags.clone();
        if let Some(caller) = condition.source.as_ref().map(|caller| &caller.0) {
            labels.extend(caller.labels.clone());
            if caller.name.is_some() || caller.full.is_some() {
                let host = host(caller, &rule.namespace);
                let mut parts = host.split('.');
                let name = parts.next().unwrap_or_default();
                let service = match parts.next() {
                    Some(namespace) => format!("{namespace}/{name}"),
                    None => name.to_owned(),
                };
                wanted.insert("sourceServices".to_owned(), json!([service]));
            } else {
                put(
                    &mut wanted,
                    "sourceNamespace",
                    caller.namespace.as_ref().map(|name| json!(name)),
                );
            }
        }
        put(
            &mut wanted,
            "sourceLabels",
            (!labels.is_empty()).then(|| json!(labels)),
        );
        wanted
    }

    /// What of a rule nothing here stands for.
    fn unknown(&mut self, rule: &Rule) {
        let spec = &rule.spec;
        if spec.l4_fault.is_some() {
            self.left_out(
                rule,
                "spec.l4Fault",
                "faults are made of requests only; see FaultInjection",
            );
        }
        if spec.condition.as_ref().is_some_and(|one| one.udp.is_some()) {
            self.left_out(
                rule,
                "spec.match.udp",
                "datagrams are not carried, and the rule acts without it",
            );
        }
        if !spec.destination.labels.is_empty() {
            self.left_out(
                rule,
                "spec.destination.labels",
                "a rule acts for the whole service",
            );
        }
        if spec.destination.domain.is_some() {
            self.left_out(
                rule,
                "spec.destination.domain",
                "services have the mesh's own domain",
            );
        }
    }
}

fn document(kind: &str, own: bool, namespace: &str, name: &str, spec: &Value) -> Value {
    let version = if own {
        "meshd.io/v1alpha1"
    } else {
        "networking.istio.io/v1"
    };
    json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value);
    }
}

fn text(given: &TextMatch) -> Value {
    let mut made = Map::new();
    for (key, value) in [
        ("exact", &given.exact),
        ("prefix", &given.prefix),
        ("regex", &given.regex),
    ] {
        put(&mut made, key, value.as_ref().map(|value| json!(value)));
    }
    Value::Object(made)
}

/// Conditions on a request; four names in the list of headers are parts of its address.
fn requested(condition: &Condition, wanted: &mut Map<String, Value>) {
    let mut headers = Map::new();
    let new = condition
        .request
        .iter()
        .flat_map(|request| &request.headers);
    for (name, given) in condition.http_headers.iter().chain(new) {
        if matches!(name.as_str(), "uri" | "scheme" | "method" | "authority") {
            wanted.insert(name.clone(), text(given));
        } else {
            headers.insert(name.clone(), text(given));
        }
    }
    put(
        wanted,
        "headers",
        (!headers.is_empty()).then_some(Value::Object(headers)),
    );
}

fn address_of(given: &super::rule::Address) -> Value {
    let mut made = Map::new();
    put(&mut made, "uri", given.uri.as_ref().map(|uri| json!(uri)));
    put(
        &mut made,
        "authority",
        given.authority.as_ref().map(|name| json!(name)),
    );
    Value::Object(made)
}

fn fault_part(part: &FaultPart) -> Value {
    let mut made = Map::new();
    put(
        &mut made,
        "percentage",
        part.percent.map(|percent| json!({"value": percent})),
    );
    for (key, value) in [
        ("fixedDelay", &part.fixed_delay),
        ("exponentialDelay", &part.exponential_delay),
        ("grpcStatus", &part.grpc_status),
        ("http2Error", &part.http2_error),
    ] {
        put(&mut made, key, value.as_ref().map(|value| json!(value)));
    }
    put(
        &mut made,
        "httpStatus",
        part.http_status.map(|status| json!(status)),
    );
    Value::Object(made)
}

fn cors(given: &Cors) -> Value {
    let mut made = Map::new();
    let origins: Vec<Value> = given
        .allow_origin
        .iter()
        .map(|origin| json!({"exact": origin}))
        .collect();
    put(
        &mut made,
        "allowOrigins",
        (!origins.is_empty()).then_some(json!(origins)),
    );
    for (key, list) in [
        ("allowMethods", &given.allow_methods),
        ("allowHeaders", &given.allow_headers),
        ("exposeHeaders", &given.expose_headers),
    ] {
        put(&mut made, key, (!list.is_empty()).then(|| json!(list)));
    }
    put(
        &mut made,
        "maxAge",
        given.max_age.as_ref().map(|age| json!(age)),
    );
    put(
        &mut made,
        "allowCredentials",
        given.allow_credentials.map(|flag| json!(flag)),
    );
    Value::Object(made)
}
