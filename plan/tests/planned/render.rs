//! A plan as text, for golden files.

use std::fmt::Write as _;

use mesh_model::{
    admin::{Explain, ExplainStep},
    snapshot::{
        AuthorizationRule, Backend, BackendEndpoint, ConnectionTerms, Fault, Filter, Frontend,
        RequestMatch, Rule, RuleTable, SourceMatch, Target, TrafficPolicy,
        limit::LimitFields,
        rule::{PathMatch, ValueCondition, ValueMatch},
    },
};
use mesh_plan::{
    Compiled,
    explain::{self, View},
};

pub(crate) fn render(compiled: &Compiled, questions: &[String]) -> String {
    let mut out = String::new();
    frontends(&mut out, compiled);
    kernel(&mut out, compiled);
    inbound(&mut out, compiled);
    statuses(&mut out, compiled);
    section(&mut out, "findings");
    for finding in &compiled.findings {
        let severity = format!("{:?}", finding.severity).to_lowercase();
        writeln!(
            out,
            "{severity} {} {}: {}",
            finding.code, finding.subject, finding.what
        )
        .unwrap();
    }
    for question in questions {
        answer(&mut out, compiled, question);
    }
    out
}

fn section(out: &mut String, name: &str) {
    let gap = if out.is_empty() { "" } else { "\n" };
    writeln!(out, "{gap}## {name}").unwrap();
}

fn frontends(out: &mut String, compiled: &Compiled) {
    section(out, "frontends");
    for frontend in &compiled.snapshot.outbound.frontends {
        let name = format!("{}:{}", frontend.service, frontend.port);
        let closed = if frontend.fail_closed {
            " fail-closed"
        } else {
            ""
        };
        writeln!(
            out,
            "{name} {:?} {}{closed}",
            &*frontend.port_name, frontend.protocol
        )
        .unwrap();
        for endpoint in &frontend.backend.endpoints {
            writeln!(out, "  endpoint {}", endpoint_text(endpoint)).unwrap();
        }
        let key_of = (frontend.service.clone(), frontend.port);
        for one in compiled.candidates[&key_of]
            .iter()
            .filter(|one| one.left_out.is_some())
        {
            writeln!(
                out,
                "  left out {}: {}",
                one.id,
                one.left_out.as_deref().unwrap_or_default()
            )
            .unwrap();
        }
        if !frontend.backend.policy.name.is_empty() {
            writeln!(out, "  policy {}", policy(&frontend.backend)).unwrap();
        }
        let subsets = &compiled.snapshot.outbound.subsets;
        for (_, subset) in subsets
            .iter()
            .filter(|(key, _)| (&key.0, key.1) == (&key_of.0, key_of.1))
        {
            let ids: Vec<&str> = subset.endpoints.iter().map(|one| &*one.id).collect();
            writeln!(out, "  subset {} {ids:?} {}", subset.subset, policy(subset)).unwrap();
        }
        for fault in frontend.faults.iter() {
            writeln!(out, "  {}", fault_text(fault)).unwrap();
        }
        tables(out, frontend);
    }
}

fn policy(backend: &Backend) -> String {
    let all = &*backend.policy;
    let default = TrafficPolicy::default();
    let mut text = format!("[{}] {:?}", all.name, all.balance);
    let mut part = |name: &str, differs: bool, value: &dyn std::fmt::Debug| {
        if differs {
            write!(text, " {name}={value:?}").unwrap();
        }
    };
    part("locality", all.locality != default.locality, &all.locality);
    part(
        "slow_start",
        all.slow_start != default.slow_start,
        &all.slow_start,
    );
    part("panic", all.panic_threshold != 0, &all.panic_threshold);
    part("limits", all.limits != default.limits, &all.limits);
    part("outlier", all.outlier != default.outlier, &all.outlier);
    part("check", all.health_check.is_some(), &all.health_check);
    part(
        "budget",
        all.retry_budget != default.retry_budget,
        &all.retry_budget,
    );
    part(
        "connect",
        all.connect_timeout.is_some(),
        &all.connect_timeout,
    );
    part("idle", all.idle_timeout.is_some(), &all.idle_timeout);
    part(
        "requests",
        all.max_requests_per_connection != 0,
        &all.max_requests_per_connection,
    );
    part("upgrade", all.upgrade_to_http2, &all.upgrade_to_http2);
    text
}

fn fault_text(fault: &Fault) -> String {
    let mut text = format!("fault [{}]", fault.name);
    for one in &fault.matches {
        write!(text, " on({})", match_text(one)).unwrap();
    }
    write!(
        text,
        " delay={:?} abort={:?} bandwidth={:?}",
        fault.delay, fault.abort, fault.bandwidth
    )
    .unwrap();
    text
}

fn tables(out: &mut String, frontend: &Frontend) {
    table(out, "rule", &frontend.rules);
    table(out, "tcp-rule", &frontend.tcp_rules);
    for (namespace, rules) in &frontend.consumer_rules {
        table(out, &format!("rule for {namespace}"), rules);
    }
    for rule in &frontend.tls_rules {
        let route = &rule.route;
        let name = rule.server_name.as_deref().unwrap_or("any");
        let from = rule
            .source
            .as_ref()
            .map(|one| format!(" from{}", source_text(one)));
        writeln!(
            out,
            "  tls-rule [{} {} #{}] {name}{} -> {}",
            route.kind,
            route.name,
            route.rule,
            from.unwrap_or_default(),
            target(&rule.target)
        )
        .unwrap();
    }
}

fn table(out: &mut String, kind: &str, table: &RuleTable) {
    if table.attached && table.rules.is_empty() {
        writeln!(out, "  {kind} none: every request gets 404").unwrap();
    }
    for rule in &table.rules {
        writeln!(out, "  {kind} {}", rule_text(rule)).unwrap();
    }
}

fn endpoint_text(one: &BackendEndpoint) -> String {
    let mut text = format!("{} {}", one.id, one.address);
    match &one.tunnel {
        Some(tunnel) => {
            let sans: Vec<String> = tunnel.sans.iter().map(ToString::to_string).collect();
            write!(
                text,
                " mtls {} {} {}",
                tunnel.address,
                tunnel.server_name.as_deref().unwrap_or("-"),
                sans.join(",")
            )
            .unwrap();
        }
        None if one.local => text.push_str(" local"),
        None => text.push_str(" plain"),
    }
    if one.weight != 1 {
        write!(text, " weight={}", one.weight).unwrap();
    }
    if one.priority != 0 {
        write!(text, " priority={}", one.priority).unwrap();
    }
    if let Some(at) = &one.locality {
        let part = |part: &Option<std::sync::Arc<str>>| part.as_deref().unwrap_or("-").to_owned();
        let parts = [part(&at.region), part(&at.zone), part(&at.sub_zone)];
        write!(text, " at={} distance={}", parts.join("/"), one.distance).unwrap();
    }
    if !one.preferred {
        text.push_str(" reluctant");
    }
    text
}

fn rule_text(rule: &Rule) -> String {
    let route = &rule.route;
    let mut text = format!(
        "[{} {} #{}] {} -> {}",
        route.kind,
        route.name,
        route.rule,
        match_text(&rule.matches),
        target(&rule.target)
    );
    if !rule.filters.is_empty() {
        write!(text, " filters={}", filters(&rule.filters)).unwrap();
    }
    if rule.timeouts != mesh_model::snapshot::Timeouts::default() {
        write!(
            text,
            " timeouts={:?}/{:?}",
            rule.timeouts.request, rule.timeouts.backend_request
        )
        .unwrap();
    }
    let (retry, default) = (&rule.retry, mesh_model::snapshot::Retry::default());
    if *retry != default {
        write!(text, " retry={}x{:?}", retry.attempts, retry.codes).unwrap();
        if !retry.grpc_codes.is_empty() {
            write!(text, " grpc={:?}", retry.grpc_codes).unwrap();
        }
        if retry.on != default.on {
            write!(text, " on={:?}", retry.on).unwrap();
        }
        if retry.backoff != default.backoff {
            write!(text, " backoff={:?}", retry.backoff).unwrap();
        }
    }
    for fault in rule.faults.iter() {
        write!(text, " {}", fault_text(fault)).unwrap();
    }
    if let Some(persistence) = &rule.persistence {
        write!(text, " {persistence:?}").unwrap();
    }
    text
}

fn match_text(matches: &RequestMatch) -> String {
    let mut text = match &matches.path {
        PathMatch::Any => "any".to_owned(),
        PathMatch::Exact(path) => format!("={path}"),
        PathMatch::Prefix(path) => format!("{path}/*"),
        PathMatch::Begins(path) => format!("{path}*"),
        PathMatch::AnyCase { text, begins } => {
            format!("any-case:{text}{}", if *begins { "*" } else { "" })
        }
        PathMatch::Regex(regex) => format!("~{}", regex.as_str()),
    };
    if let Some(method) = &matches.method {
        write!(text, " {method}").unwrap();
    }
    let value = |one: &ValueMatch| format!("{}{}", one.name, condition(&one.value));
    matches
        .headers
        .iter()
        .for_each(|one| write!(text, " header:{}", value(one)).unwrap());
    matches
        .query
        .iter()
        .for_each(|one| write!(text, " query:{}", value(one)).unwrap());
    if let Some(authority) = &matches.authority {
        write!(text, " authority{}", condition(authority)).unwrap();
    }
    if let Some(source) = &matches.source {
        write!(text, " from{}", source_text(source)).unwrap();
    }
    text
}

fn condition(one: &ValueCondition) -> String {
    match one {
        ValueCondition::Exact(value) => format!("={value}"),
        ValueCondition::Prefix(value) => format!("={value}*"),
        ValueCondition::Regex(regex) => format!("~{}", regex.as_str()),
        ValueCondition::Present => "?".to_owned(),
        ValueCondition::Not(other) => format!("!{}", condition(other)),
    }
}

fn source_text(source: &SourceMatch) -> String {
    let mut text = String::new();
    let joined = |all: Vec<String>| all.join("|");
    if !source.services.is_empty() {
        let all = source.services.iter().map(ToString::to_string).collect();
        write!(text, " services={}", joined(all)).unwrap();
    }
    if !source.namespaces.is_empty() {
        let all = source.namespaces.iter().map(ToString::to_string).collect();
        write!(text, " namespaces={}", joined(all)).unwrap();
    }
    for (key, value) in &source.labels {
        write!(text, " {key}={value}").unwrap();
    }
    if !source.addresses.is_empty() {
        let range = |(address, length): &(std::net::IpAddr, u8)| format!("{address}/{length}");
        let all = source.addresses.iter().map(range).collect();
        write!(text, " addresses={}", joined(all)).unwrap();
    }
    text
}

fn filters(all: &[Filter]) -> String {
    let one = |filter: &Filter| match filter {
        Filter::Mirror(mirror) => {
            format!("Mirror({} to {})", mirror.share.0, backend(&mirror.backend))
        }
        other => format!("{other:?}"),
    };
    let all: Vec<String> = all.iter().map(one).collect();
    format!("[{}]", all.join(", "))
}

fn backend(one: &Backend) -> String {
    let subset = if one.subset.is_empty() { "" } else { "/" };
    format!("{}:{}{subset}{}", one.service, one.port, one.subset)
}

fn target(one: &Target) -> String {
    match one {
        Target::Backend(one) => backend(one),
        Target::Weighted(shares) => {
            let all: Vec<String> = shares
                .iter()
                .map(|share| {
                    let edits = if share.filters.is_empty() {
                        String::new()
                    } else {
                        filters(&share.filters)
                    };
                    format!("{}*{}{edits}", share.weight, target(&share.target))
                })
                .collect();
            format!("({})", all.join(" & "))
        }
        Target::Failover(targets) => {
            let all: Vec<String> = targets.iter().map(target).collect();
            format!("({})", all.join(" | "))
        }
        Target::Fail {
            status,
            code,
            reason,
        } => format!("{status} {code} ({reason})"),
    }
}

fn kernel(out: &mut String, compiled: &Compiled) {
    section(out, "kernel");
    for one in &compiled.virtuals {
        let closed = if one.fail_closed { " closed" } else { "" };
        writeln!(
            out,
            "virtual {}:{}{closed} fallback {:?}",
            one.address, one.port, one.fallback
        )
        .unwrap();
    }
    writeln!(out, "direct {:?}", compiled.direct).unwrap();
    writeln!(out, "inbound {:?}", compiled.inbound).unwrap();
    for (name, addresses) in &compiled.names {
        writeln!(out, "name {name} {addresses:?}").unwrap();
    }
    let mut hosts: Vec<_> = compiled.snapshot.outbound.by_host.iter().collect();
    hosts.sort_by_key(|(name, _)| (*name).clone());
    let hosts: Vec<String> = hosts
        .iter()
        .map(|(name, ports)| format!("{name}{:?}", ports.keys().collect::<Vec<_>>()))
        .collect();
    writeln!(out, "hosts {}", hosts.join(" ")).unwrap();
}

fn inbound(out: &mut String, compiled: &Compiled) {
    section(out, "inbound");
    let snapshot = &compiled.snapshot;
    let mut ports: Vec<_> = snapshot.inbound.by_address.iter().collect();
    ports.sort_by_key(|(address, _)| **address);
    for (address, port) in ports {
        let strict = if port.strict { " strict" } else { "" };
        writeln!(
            out,
            "{address} -> {} {} as {}{strict}",
            port.target, port.protocol, port.principal
        )
        .unwrap();
        let rule = |one: &AuthorizationRule| {
            format!(
                "{} principals={:?} namespaces={:?} methods={:?} paths={:?} ports={:?}",
                one.policy, one.principals, one.namespaces, one.methods, one.paths, one.ports
            )
        };
        port.authorization
            .deny
            .iter()
            .for_each(|one| writeln!(out, "  deny {}", rule(one)).unwrap());
        port.authorization
            .allow
            .iter()
            .for_each(|one| writeln!(out, "  allow {}", rule(one)).unwrap());
        if port.authorization.allow_only {
            writeln!(out, "  deny the rest").unwrap();
        }
        if port.connections != ConnectionTerms::default() {
            writeln!(
                out,
                "  connections of {} requests, idle {:?}",
                port.connections.max_requests, port.connections.idle_timeout
            )
            .unwrap();
        }
        for limit in port.limits.iter() {
            let on: Vec<String> = limit.matches.iter().map(match_text).collect();
            writeln!(
                out,
                "  limit {} {} in {:?} burst {} {:?} by {:?} on {on:?}",
                limit.name, limit.requests, limit.per, limit.burst, limit.scope, limit.by
            )
            .unwrap();
            if limit.fields != LimitFields::None {
                writeln!(out, "    tells {:?}", limit.fields).unwrap();
            }
        }
    }
    let mut names: Vec<_> = snapshot.inbound.by_server_name.iter().collect();
    names.sort_by_key(|(name, _)| (*name).clone());
    for (name, ports) in names {
        for (number, port) in ports {
            writeln!(out, "{name}:{number} -> {}", port.target).unwrap();
        }
    }
    for (id, caller) in &snapshot.callers.by_service {
        writeln!(out, "caller {id} {}", caller.principal).unwrap();
    }
}

fn statuses(out: &mut String, compiled: &Compiled) {
    section(out, "statuses");
    for status in &compiled.statuses {
        let json: serde_json::Value = serde_json::from_slice(&status.status).unwrap();
        for parent in json["parents"].as_array().unwrap() {
            let conditions: Vec<String> = parent["conditions"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| {
                    let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
                    format!("{}={}/{}", text("type"), text("status"), text("reason"))
                })
                .collect();
            writeln!(
                out,
                "{}/{}/{} {}: {}",
                status.kind,
                status.namespace,
                status.name,
                parent["parentRef"],
                conditions.join(" ")
            )
            .unwrap();
        }
    }
}

fn answer(out: &mut String, compiled: &Compiled, question: &str) {
    section(out, question);
    if let Some(told) = question.strip_prefix("tell ") {
        tell(out, compiled, told);
        return;
    }
    let words: Vec<&str> = question.splitn(5, ' ').collect();
    let header = words.get(4).and_then(|text| text.split_once(": "));
    let request = Explain {
        from: words[1].trim_start_matches("host").to_owned(),
        method: words[2].to_owned(),
        url: words[3].to_owned(),
        headers: header
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    };
    let view = View {
        compiled,
        captured: true,
        ejected: &[],
    };
    match explain::outbound(&view, &request) {
        Ok(told) => {
            told.explanation.steps.iter().for_each(|one| step(out, one));
            if let Some(far) = told.far {
                writeln!(out, "ask {} {:?}", far.host_name, far.question).unwrap();
            }
        }
        Err(error) => writeln!(out, "error: {error}").unwrap(),
    }
}

fn tell(out: &mut String, compiled: &Compiled, question: &str) {
    let words: Vec<&str> = question.split(' ').collect();
    let word = |index: usize| words[index].trim_start_matches('-').to_owned();
    let question = explain::Question {
        caller: format!("spiffe://{}", words[2]).parse().unwrap(),
        server_name: word(3),
        address: words[4].parse().unwrap(),
        method: word(0),
        path: word(1),
        query: String::new(),
        headers: Vec::new(),
    };
    explain::inbound(&compiled.snapshot, &question)
        .steps
        .iter()
        .for_each(|one| step(out, one));
}

fn step(out: &mut String, one: &ExplainStep) {
    writeln!(
        out,
        "{} [{}] {} ({})",
        one.state, one.step, one.what, one.because
    )
    .unwrap();
}
