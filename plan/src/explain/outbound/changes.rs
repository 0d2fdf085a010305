//! What becomes of a request on the way: filters, faults, persistence.

use mesh_model::{
    duration,
    snapshot::{
        Fault, Filter, Frontend, Rule,
        decide::RequestView,
        limit::{Abort, Share},
        rule::{HeaderEdits, PathEdit, Persistence, Redirect, Rewrite},
    },
};

use super::{
    State, Story,
    choice::{kind_and_name, name},
};

impl Story<'_> {
    /// Tells what a rule changes; false when the mesh answers itself.
    pub(super) fn tell_changes(&mut self, rule: &Rule) -> bool {
        let because = kind_and_name(&rule.route);
        if let Some(persistence) = &rule.persistence {
            let what = told_persistence(persistence);
            self.steps
                .add("persistence", State::Ok, what, because.clone());
        }
        for filter in rule.filters.iter() {
            let (step, what) = told_filter(filter);
            self.steps.add(step, State::Ok, what, because.clone());
            if matches!(filter, Filter::Redirect(_) | Filter::DirectResponse(_)) {
                return false;
            }
        }
        true
    }

    /// Tells the faults that a request may meet: of the service, and of the rule.
    pub(super) fn tell_faults(&mut self, frontend: &Frontend, rule: Option<&Rule>) {
        let view = self.called();
        let hits = |fault: &&Fault| {
            fault.matches.is_empty() || fault.matches.iter().any(|one| one.fits(&view))
        };
        let of_service = frontend.faults.iter().filter(hits);
        let mut told: Vec<(String, String)> = of_service
            .map(|fault| (told_fault(fault), format!("FaultInjection {}", fault.name)))
            .collect();
        if let Some(rule) = rule {
            let of_rule = rule.faults.iter().filter(hits);
            told.extend(of_rule.map(|fault| (told_fault(fault), kind_and_name(&rule.route))));
        }
        for (what, because) in told {
            self.steps.add("fault", State::Warning, what, because);
        }
    }
}

/// `12.5 %`
fn percent(share: Share) -> String {
    let text = format!("{:.4}", f64::from(share.0) / 10_000.0);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} %")
}

fn told_fault(fault: &Fault) -> String {
    let mut parts = Vec::new();
    if let Some((share, span)) = fault.delay {
        let span = duration::print(span);
        parts.push(format!("{} wait {span}", percent(share)));
    }
    if let Some((share, abort)) = fault.abort {
        let how = match abort {
            Abort::Http(status) => format!("are answered with {status}"),
            Abort::Grpc(code) => format!("are answered with gRPC status {code}"),
            Abort::Reset => "are reset".to_owned(),
        };
        parts.push(format!("{} {how}", percent(share)));
    }
    if let Some((share, rate)) = fault.bandwidth {
        let share = percent(share);
        parts.push(format!("{share} are slowed to {rate} bytes a second"));
    }
    format!("on purpose: {}", parts.join(", "))
}

fn told_persistence(persistence: &Persistence) -> String {
    let kind = if persistence.header {
        "header"
    } else {
        "cookie"
    };
    let name = &persistence.name;
    match persistence.lifetime {
        Some(span) => {
            let span = duration::print(span);
            format!("requests with one {kind} {name} stay with one endpoint for {span}")
        }
        None => format!("requests with one {kind} {name} stay with one endpoint"),
    }
}

fn told_filter(filter: &Filter) -> (&'static str, String) {
    match filter {
        Filter::RequestHeaders(edits) => ("filter", format!("request headers: {}", edited(edits))),
        Filter::ResponseHeaders(edits) => ("filter", format!("answer headers: {}", edited(edits))),
        Filter::Redirect(redirect) => ("filter", redirected(redirect)),
        Filter::Rewrite(rewrite) => ("filter", rewritten(rewrite)),
        Filter::Mirror(mirror) => {
            let share = percent(mirror.share);
            (
                "mirror",
                format!("{share} copied to {}", name(&mirror.backend)),
            )
        }
        Filter::Cors(_) => (
            "filter",
            "CORS: preflights are answered here, answers are marked".to_owned(),
        ),
        Filter::DirectResponse(answer) => (
            "filter",
            format!("the mesh answers itself: {}", answer.status),
        ),
    }
}

fn edited(edits: &HeaderEdits) -> String {
    let pair = |word: &'static str| {
        move |(name, value): &(Box<str>, Box<str>)| format!("{word} {name}: {value}")
    };
    let removed = edits.remove.iter().map(|name| format!("remove {name}"));
    let all: Vec<String> = removed
        .chain(edits.set.iter().map(pair("set")))
        .chain(edits.add.iter().map(pair("add")))
        .collect();
    all.join(", ")
}

fn redirected(redirect: &Redirect) -> String {
    let mut text = format!("redirect {}", redirect.status);
    let mut part = |word: &str, value: Option<String>| {
        if let Some(value) = value {
            text.extend([", ", word, " ", &value]);
        }
    };
    part("scheme", redirect.scheme.as_deref().map(str::to_owned));
    part("host", redirect.hostname.as_deref().map(str::to_owned));
    part("port", redirect.port.map(|port| port.to_string()));
    part("path", redirect.path.as_ref().map(new_path));
    text
}

fn rewritten(rewrite: &Rewrite) -> String {
    let host = rewrite.hostname.as_ref().map(|host| format!("host {host}"));
    let path = rewrite
        .path
        .as_ref()
        .map(|path| format!("path {}", new_path(path)));
    let parts: Vec<String> = host.into_iter().chain(path).collect();
    format!("rewrite {}", parts.join(", "))
}

fn new_path(edit: &PathEdit) -> String {
    match edit {
        PathEdit::Full(path) => path.to_string(),
        PathEdit::Prefix {
            matched,
            replacement,
        } => format!("{replacement} for {matched}/"),
        PathEdit::Begin {
            length,
            replacement,
        } => format!("{replacement} for its first {length} letters"),
        PathEdit::Substitute(_) => "by expression".to_owned(),
    }
}

/// The request with who sends it.
#[derive(Debug)]
pub(super) struct Called<'c> {
    pub(super) asked: &'c super::Asked<'c>,
    pub(super) source: mesh_model::snapshot::decide::Source<'c>,
    pub(super) authority: String,
}

impl RequestView for Called<'_> {
    fn method(&self) -> &str {
        self.asked.method()
    }
    fn path(&self) -> &str {
        self.asked.path()
    }
    fn query(&self) -> &str {
        self.asked.query()
    }
    fn header(&self, name: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
        self.asked.header(name)
    }
    fn authority(&self) -> Option<&str> {
        Some(&self.authority)
    }
    fn source(&self) -> mesh_model::snapshot::decide::Source<'_> {
        self.source
    }
}
