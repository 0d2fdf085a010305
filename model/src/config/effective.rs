//! Prints the configuration as meant, as TOML that reads back to the same.

use std::fmt::Write as _;

use super::{AccessLogDestination, Boot, Capture, HealthKind, Live, LocalService};
use crate::duration;

/// Discovery sources.
mod source;

/// The whole configuration as TOML; each service names the file and line that it was read from.
pub fn effective(boot: &Boot, live: &Live) -> String {
    let mut out = Out(String::new());
    root(&mut out, boot, live);
    host(&mut out, boot);
    sockets(&mut out, boot);
    access_log(&mut out, live);
    for service in &live.services {
        write_service(&mut out, service);
    }
    for one in &live.sources {
        source::write(&mut out, one, live.merge.terms.get(&one.id));
    }
    for rule in &live.merge.rules {
        source::write_rule(&mut out, rule);
    }
    for one in &live.registrations {
        source::write_registration(&mut out, one);
    }
    out.0
}

/// TOML text that grows.
struct Out(String);

impl Out {
    fn section(&mut self, header: &str) {
        self.line(&format!("\n{header}"));
    }
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }
    fn raw(&mut self, key: &str, value: impl std::fmt::Display) {
        self.line(&format!("{key} = {value}"));
    }
    fn text(&mut self, key: &str, value: &str) {
        self.line(&format!("{key} = {}", quoted(value)));
    }
    fn list<T: ToString>(&mut self, key: &str, values: &[T]) {
        let all: Vec<String> = values
            .iter()
            .map(|value| quoted(&value.to_string()))
            .collect();
        self.line(&format!("{key} = [{}]", all.join(", ")));
    }
    fn labels(&mut self, labels: &std::collections::BTreeMap<String, String>) {
        if !labels.is_empty() {
            let all: Vec<String> = labels
                .iter()
                .map(|(key, value)| format!("{} = {}", quoted(key), quoted(value)))
                .collect();
            self.line(&format!("labels = {{ {} }}", all.join(", ")));
        }
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _infallible = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn root(out: &mut Out, boot: &Boot, live: &Live) {
    out.text("state_dir", &boot.state_dir.to_string_lossy());
    out.text("runtime_dir", &boot.runtime_dir.to_string_lossy());
    if let Some(workers) = boot.workers {
        out.raw("workers", workers);
    }
    out.text("drain_timeout", &duration::print(live.drain_timeout));
}

fn host(out: &mut Out, boot: &Boot) {
    out.section("[host]");
    if let Some(name) = &boot.host_name {
        out.text("name", name);
    }
    if !boot.addresses.is_empty() {
        out.list("addresses", &boot.addresses);
    }
    out.labels(&boot.labels);
    let parts = [
        ("region", &boot.locality.region),
        ("zone", &boot.locality.zone),
        ("sub_zone", &boot.locality.sub_zone),
    ];
    if parts.iter().any(|(_, part)| part.is_some()) {
        out.section("[host.locality]");
        for (key, part) in parts {
            if let Some(part) = part {
                out.text(key, part);
            }
        }
    }
}

fn sockets(out: &mut Out, boot: &Boot) {
    let listeners = &boot.listeners;
    out.section("[listeners]");
    out.raw("outbound_port", listeners.outbound_port);
    out.raw("inbound_port", listeners.inbound_port);
    out.text("tunnel", &listeners.tunnel.to_string());
    if let Some(explicit) = listeners.explicit {
        out.text("explicit", &explicit.to_string());
    }
    out.text("metrics", &listeners.metrics.to_string());
    out.section("[capture]");
    out.text(
        "mode",
        match boot.capture {
            Capture::Mesh => "mesh",
            Capture::Off => "off",
        },
    );
    out.text(
        "virtual_v4",
        &format!("{}/{}", boot.virtual_v4.0, boot.virtual_v4.1),
    );
    out.text(
        "virtual_v6",
        &format!("{}/{}", boot.virtual_v6.0, boot.virtual_v6.1),
    );
    out.raw("mark", format!("{:#x}", boot.mark.value));
    out.raw("mask", format!("{:#x}", boot.mark.mask));
    out.section("[cluster]");
    out.text("listen", &boot.cluster.listen.to_string());
    out.raw("udp", boot.cluster.udp);
    out.list("seeds", &boot.cluster.seeds);
    out.section("[names]");
    out.list("listen", &boot.names.listen);
    out.list("upstream", &boot.names.upstream);
}

fn access_log(out: &mut Out, live: &Live) {
    out.section("[access_log]");
    match &live.access_log.destination {
        None => out.text("destination", "off"),
        Some(AccessLogDestination::Stdout) => out.text("destination", "stdout"),
        Some(AccessLogDestination::File(path)) => out.text("destination", &path.to_string_lossy()),
    }
    out.raw("failures_only", live.access_log.failures_only);
}

fn write_service(out: &mut Out, service: &LocalService) {
    out.section(&format!("# {}\n[[service]]", service.origin));
    out.text("name", service.service.name.as_str());
    out.text("namespace", service.service.namespace.as_str());
    out.text("service_account", service.service_account.as_str());
    out.text("instance", &service.instance);
    out.labels(&service.labels);
    if let Some(address) = service.address {
        out.text("address", &address.to_string());
    }
    if let Some(unit) = &service.recognise.unit {
        out.text("unit", unit);
    }
    if !service.recognise.uids.is_empty() {
        out.raw("user", format!("{:?}", service.recognise.uids));
    }
    out.raw("weight", service.weight);
    out.raw("fail_closed", service.fail_closed);
    for port in &service.ports {
        out.section("[[service.ports]]");
        if !port.name.is_empty() {
            out.text("name", &port.name);
        }
        out.raw("port", port.port);
        out.raw("target", port.target);
        out.text("protocol", port.protocol.as_str());
    }
    if let Some(health) = &service.health {
        out.section("[service.health]");
        match &health.kind {
            HealthKind::Tcp { port } => {
                out.text("kind", "tcp");
                out.raw("port", port);
            }
            HealthKind::Http { port, path } => {
                out.text("kind", "http");
                out.raw("port", port);
                out.text("path", path);
            }
        }
        out.text("interval", &duration::print(health.interval));
        out.text("timeout", &duration::print(health.timeout));
        out.raw("unhealthy_after", health.unhealthy_after);
        out.raw("healthy_after", health.healthy_after);
    }
}
