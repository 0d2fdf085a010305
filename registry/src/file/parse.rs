//! One file's text to services, or the line that is wrong. The whole file counts, or nothing of it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use mesh_model::{
    address::Address,
    endpoint::{Endpoint, Health, ServiceKey},
    name::{Namespace, ServiceName, is_label},
    service::AppProtocol,
};
use serde::Deserialize;

use crate::{
    breath,
    place::{self, address},
    sink::ServiceSet,
};

/// What a file says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// Its services, in written order, names unique.
    pub services: Vec<(ServiceKey, ServiceSet)>,
    /// True when the file may be without any service.
    pub allow_empty: bool,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line from 1; 0 when the fault is not of one line.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

fn fault(line: usize, what: impl Into<String>) -> Fault {
    Fault {
        line,
        what: what.into(),
    }
}

/// True for names of files that are read: `*.toml`, `*.json`, `*.yaml`, `*.yml`, and plain names that are a service's.
pub fn is_ours(name: &str) -> bool {
    if name.starts_with('.') {
        return false;
    }
    match name.rsplit_once('.') {
        Some((_, "toml" | "json" | "yaml" | "yml")) => true,
        Some(_) => false,
        None => is_label(name),
    }
}

/// Reads a file's text by the form that its name tells.
pub fn parse(name: &str, text: &str) -> Result<Parsed, Fault> {
    let written: FileText = match name.rsplit_once('.') {
        Some((_, "toml")) => toml::from_str(text).map_err(|error| toml_fault(text, &error))?,
        Some((_, "json")) => {
            serde_json::from_str(text).map_err(|error| fault(error.line(), error.to_string()))?
        }
        Some((_, "yaml" | "yml")) => yaml(text)?,
        _ => return lines(name, text),
    };
    written.check()
}

/// YAML of one document with the same keys; nothing but comments is a file without services.
fn yaml(text: &str) -> Result<FileText, Fault> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 16,
            max_documents: 1,
            max_aliases: 100,
            max_anchors: 100,
        },
        strict_booleans: true,
        with_snippet: false,
    };
    let read: Option<FileText> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let line = error
                .location()
                .map_or(0, |at| usize::try_from(at.line()).unwrap_or_default());
            let what = error.to_string();
            fault(line, what.lines().next().unwrap_or_default())
        })?;
    Ok(read.unwrap_or_default())
}

fn toml_fault(text: &str, error: &toml::de::Error) -> Fault {
    let line = error.span().map_or(0, |span| {
        text.bytes()
            .take(span.start)
            .filter(|byte| *byte == b'\n')
            .count()
            + 1
    });
    fault(line, error.message().replace('\n', " "))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    service: Vec<ServiceText>,
    #[serde(default)]
    allow_empty: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceText {
    name: ServiceName,
    #[serde(default)]
    namespace: Namespace,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    allow_empty: bool,
    #[serde(default)]
    endpoint: Vec<EndpointText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointText {
    address: String,
    id: Option<String>,
    weight: Option<u32>,
    #[serde(default)]
    priority: u16,
    #[serde(default)]
    health: Health,
    region: Option<Arc<str>>,
    zone: Option<Arc<str>>,
    sub_zone: Option<Arc<str>>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

impl FileText {
    fn check(self) -> Result<Parsed, Fault> {
        let mut parsed = Parsed {
            services: Vec::new(),
            allow_empty: self.allow_empty,
        };
        for service in self.service {
            let (key, set) = service.check()?;
            if parsed.services.iter().any(|(known, _)| *known == key) {
                return Err(fault(0, format!("service {} is written twice", key.name)));
            }
            parsed.services.push((key, set));
        }
        Ok(parsed)
    }
}

impl ServiceText {
    fn check(self) -> Result<(ServiceKey, ServiceSet), Fault> {
        let Self {
            name,
            namespace,
            port,
            protocol,
            allow_empty,
            endpoint,
        } = self;
        let wrong = |what: String| fault(0, format!("service {name}: {what}"));
        let protocol: AppProtocol = protocol
            .parse()
            .map_err(|error| wrong(format!("{error}")))?;
        if endpoint.is_empty() && !allow_empty {
            return Err(wrong(
                "it has no endpoint; write allow_empty = true if that is meant".into(),
            ));
        }
        let mut ids = BTreeMap::new();
        for written in endpoint {
            breath::take();
            let checked = written.check().map_err(&wrong)?;
            if let Some(double) = ids.insert(Arc::clone(&checked.id), checked) {
                return Err(wrong(format!("endpoint {} is written twice", double.id)));
            }
        }
        let set = ServiceSet {
            port,
            protocol,
            endpoints: ids.into_values().collect(),
        };
        Ok((
            ServiceKey {
                namespace: Some(namespace),
                name,
                port_name: None,
            },
            set,
        ))
    }
}

impl EndpointText {
    fn check(self) -> Result<Endpoint, String> {
        let address = dialled(&self.address)?;
        let weight = self.weight.unwrap_or(1);
        if !(1..=1_000_000).contains(&weight) {
            return Err(format!(
                "endpoint {address}: weight {weight} is not 1 to 1000000"
            ));
        }
        let id = self.id.unwrap_or_else(|| address.to_string());
        Ok(Endpoint {
            health: self.health,
            weight,
            priority: self.priority,
            locality: place::locality(self.region, self.zone, self.sub_zone),
            metadata: Arc::new(self.metadata),
            ..place::endpoint(id, address)
        })
    }
}

/// An address, or a host name that is resolved later.
fn dialled(text: &str) -> Result<Address, String> {
    let wrong = || format!("{text:?} is not an address: write ip:port, [ip]:port or name:port");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_not_a_port| wrong())?;
    if host.contains(':') && !host.starts_with('[') {
        return Err(wrong());
    }
    let nowhere = || format!("{text:?} cannot be dialled from another host");
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let unspecified = bare.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
    if port == 0 || unspecified || bare.contains('%') {
        return Err(nowhere());
    }
    address(host, port).ok_or_else(wrong)
}

/// The form for scripts: `host port [* weight]`, `#` comments; the file's name is the service's.
fn lines(name: &str, text: &str) -> Result<Parsed, Fault> {
    let service = ServiceName::new(name).map_err(|error| fault(0, error.to_string()))?;
    let mut ids: BTreeMap<Arc<str>, Endpoint> = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let words: Vec<&str> = line
            .split('#')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let (host, port, weight) = match words.as_slice() {
            [] => continue,
            [host, port] => (*host, *port, "1"),
            [host, port, "*", weight] => (*host, *port, *weight),
            _ => return Err(fault(at + 1, "write: host port [* weight]")),
        };
        let weight = weight
            .parse()
            .map_err(|_not_a_number| fault(at + 1, format!("{weight:?} is not a weight")))?;
        let address = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let written = EndpointText {
            address,
            id: None,
            weight: Some(weight),
            priority: 0,
            health: Health::Unknown,
            region: None,
            zone: None,
            sub_zone: None,
            metadata: BTreeMap::new(),
        };
        let endpoint = written.check().map_err(|what| fault(at + 1, what))?;
        ids.insert(Arc::clone(&endpoint.id), endpoint);
    }
    if ids.is_empty() {
        return Ok(Parsed::default());
    }
    let set = ServiceSet::from(ids.into_values().collect::<Vec<_>>());
    let key = ServiceKey {
        namespace: Some(Namespace::default()),
        name: service,
        port_name: None,
    };
    Ok(Parsed {
        services: vec![(key, set)],
        allow_empty: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = r#"
[[service]]
name = "web"
namespace = "shop"
port = 80
protocol = "http"
[[service.endpoint]]
address = "10.0.0.1:8080"
weight = 10
zone = "a"
health = "healthy"
[service.endpoint.metadata]
version = "v1"
[[service.endpoint]]
address = "[fd00::1]:8080"
id = "two"
"#;

    const YAML: &str = r#"
service:
- name: web
  namespace: shop
  port: 80
  protocol: http
  endpoint:
  - address: 10.0.0.1:8080
    weight: 10
    zone: a
    health: healthy
    metadata: {version: v1}
  - address: "[fd00::1]:8080"
    id: two
"#;

    #[test]
    fn toml_json_and_yaml_say_the_same() {
        let parsed = parse("web.toml", WEB).unwrap();
        let [(key, set)] = parsed.services.as_slice() else {
            panic!("one service")
        };
        assert_eq!(
            (key.namespace.as_ref().unwrap().as_str(), set.port),
            ("shop", 80)
        );
        assert_eq!(set.endpoints.len(), 2);
        assert_eq!(set.endpoints[0].metadata.get("version").unwrap(), "v1");
        let json = r#"{"service":[{"name":"web","namespace":"shop","port":80,"protocol":"http","endpoint":[
            {"address":"10.0.0.1:8080","weight":10,"zone":"a","health":"healthy","metadata":{"version":"v1"}},
            {"address":"[fd00::1]:8080","id":"two"}]}]}"#;
        assert_eq!(parse("web.json", json).unwrap(), parsed);
        let yaml = YAML;
        assert_eq!(parse("web.yaml", yaml).unwrap(), parsed);
        assert_eq!(parse("web.yml", json).unwrap(), parsed, "JSON is YAML");
    }

    #[test]
    fn yaml_faults_have_a_line() {
        for (text, line, what) in [
            ("service:\n- name: web\n  wieght: 1\n", 3, "wieght"),
            ("service:\n- name: Web\n", 2, "is not a name"),
            ("service: [\n", 0, ""),
            ("service:\n- name: web\n", 0, "allow_empty"),
            ("allow_empty: yes please\n", 1, ""),
            ("a: 1\n", 1, "a"),
            ("service: &x [*x]\n", 0, ""),
            ("service: []\n---\nservice: []\n", 0, ""),
        ] {
            let fault = parse("x.yaml", text).unwrap_err();
            assert!(fault.what.contains(what), "{text:?}: {}", fault.what);
            if line > 0 {
                assert_eq!(fault.line, line, "{text:?}: {}", fault.what);
            }
        }
        assert_eq!(parse("x.yaml", "# nothing\n").unwrap(), Parsed::default());
        for end in 0..YAML.len() {
            if let Some(prefix) = YAML.get(..end) {
                let _any = parse("x.yaml", prefix);
            }
        }
    }

    #[test]
    fn lines_for_scripts() {
        let text = "# two\n10.0.0.1 80\n10.0.0.2 80 * 5\nfd00::1 80 # v6\n";
        let parsed = parse("web", text).unwrap();
        let [(key, set)] = parsed.services.as_slice() else {
            panic!("one service")
        };
        assert_eq!(
            (
                key.name.as_str(),
                set.endpoints.len(),
                set.endpoints[1].weight
            ),
            ("web", 3, 5)
        );
        assert_eq!(parse("web", "10.0.0.1 80\nx y\n").unwrap_err().line, 2);
    }

    #[test]
    fn faults_have_a_line_and_a_remedy() {
        let cases = [
            (
                "[[service]]\nname = \"web\"\nwieght = 1\n",
                3,
                "unknown field",
            ),
            ("[[service]]\nname = \"Web\"\n", 2, "is not a name"),
            ("[[service]\n", 1, "unclosed"),
            ("[[service]]\nname = \"web\"\n", 0, "allow_empty"),
            (
                "[[service]]\nname=\"web\"\nendpoint=[{address=\"web:http\"}]\n",
                0,
                "is not an address",
            ),
            (
                "[[service]]\nname=\"web\"\nendpoint=[{address=\"0.0.0.0:80\"}]\n",
                0,
                "dialled",
            ),
            (
                "[[service]]\nname=\"web\"\nendpoint=[{address=\"10.0.0.1:80\",weight=0}]\n",
                0,
                "weight",
            ),
        ];
        for (text, line, what) in cases {
            let fault = parse("x.toml", text).unwrap_err();
            assert!(fault.what.contains(what), "{}", fault.what);
            assert_eq!(fault.line, line, "{}", fault.what);
        }
    }

    #[test]
    fn only_our_names_are_read() {
        for ours in ["a.toml", "b.json", "c.yaml", "d.yml", "web"] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in [
            ".a.toml.swp",
            "..data",
            "a.toml~",
            "a.tmp",
            "README.md",
            "A",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn no_prefix_of_a_file_panics() {
        for end in 0..WEB.len() {
            if let Some(prefix) = WEB.get(..end) {
                let _any = parse("web.toml", prefix);
            }
        }
    }
}
