//! Good files, and every fault with its place.

use super::*;
use crate::config::{
    AccessLogDestination, Capture, HealthKind, effective, file::SECTIONS, reference,
};

fn sources(files: &[(&str, &str)]) -> Sources {
    Sources {
        files: files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect(),
        uids: BTreeMap::from([("words".to_owned(), 990), ("simon".to_owned(), 991)]),
    }
}

const FULL: &str = r#"
state_dir = "/srv/meshd"
runtime_dir = "/run/m"
workers = 3
drain_timeout = "1m"

[host]
name = "h1"
addresses = ["192.0.2.7", "2001:db8::7"]
locality = { region = "eu", zone = "eu-1", sub_zone = "r7" }
labels = { rack = "7" }

[listeners]
outbound_port = 25001
inbound_port = 25006
tunnel = "192.0.2.7:25008"
explicit = "127.0.0.1:4140"
metrics = "127.0.0.1:25020"

[capture]
mode = "off"
virtual_v4 = "198.18.0.0/20"
virtual_v6 = "fd00:1::/96"
mark = 0x20
mask = 0x70

[cluster]
listen = "192.0.2.7:7000"
udp = false
seeds = ["192.0.2.8:7947", "h2.example:7947"]

[names]
listen = ["127.0.0.1:1053", "[::1]:1053"]
upstream = ["192.0.2.53:53"]

[access_log]
destination = "/var/log/meshd/access.log"
failures_only = true

[[service]]
name = "words"
namespace = "shop"
service_account = "words-sa"
instance = "words-a"
version = "v1"
labels = { tier = "front" }
address = "127.0.0.1"
unit = "words.service"
user = ["words", 1234]
weight = 10
fail_closed = true
ports = [{ name = "web", port = 80, target = 8080, protocol = "http" }, { name = "raw", port = 81 }]
health = { kind = "http", port = 8080, path = "/health", interval = "1s", timeout = "500ms", unhealthy_after = 3, healthy_after = 2 }

[[source]]
id = "file/etc"
kind = "file"
directory = "/etc/meshd/discovery"
publish = false
precedence = 10
weight = 90

[[source]]
kind = "consul"
services = ["web", "api"]
addresses = ["unix:///run/consul.sock", "https://consul:8501"]
token_file = "/etc/meshd/consul.token"
datacenter = "dc1"
namespace = "team"
partition = "east"
tags = ["v2"]
passing = true
max_watches = 2000
tls = { ca = "/etc/ca.pem", certificate = "/etc/cert.pem", key = "/etc/key.pem", server_name = "server.dc1.consul" }

[[source]]
kind = "etcd"
addresses = ["http://127.0.0.1:2379"]
username = "meshd"
password_file = "/etc/meshd/etcd.password"
layout = "registrator"
prefix = "/apps"

[[source]]
kind = "eureka"
addresses = ["http://eureka:8761/eureka"]
zone = "z1"
poll = "10s"
secure_port = true

[[source]]
kind = "nomad"
addresses = ["http://127.0.0.1:4646"]
region = "eu"

[[source]]
kind = "marathon"
addresses = ["http://marathon:8080"]
prefix = "/prod"
port_index = 1

[[source]]
kind = "curator"
addresses = ["zk1:2181", "zk2:2181"]
path = "/discovery"

[[source]]
kind = "dns"
servers = ["10.0.0.53", "[fd00::1]:5353"]
udp = true
[[source.record]]
service = "web"
name = "_web._tcp.example.net"
[[source.record]]
service = "db"
name = "db.example.net"
port = 5432

[[source]]
kind = "kubernetes"
kubeconfig = "/etc/meshd/kubeconfig"
context = "prod"
namespaces = ["shop"]
selector = "mesh=on"
pod_labels = true

[[merge]]
service = "shop/words"
policy = "failover"
sources = ["consul/2", "file/etc"]
weights = { "consul/2" = 0 }

[[merge]]
policy = "first"

[[registration]]
source = "consul/2"
services = ["words"]
ttl = "20s"
address = "192.0.2.7"
tags = ["mesh"]
"#;

#[test]
fn everything() {
    let (boot, live) = read(&sources(&[("/etc/meshd/meshd.toml", FULL)])).unwrap();
    assert_eq!(boot.workers, Some(3));
    assert_eq!(boot.capture, Capture::Off);
    assert_eq!(boot.virtual_v4, ("198.18.0.0".parse().unwrap(), 20));
    assert_eq!(boot.mark.inbound(), 0x30);
    assert_eq!(boot.names.listen.len(), 2);
    assert_eq!(live.drain_timeout, Duration::from_mins(1));
    let path = "/var/log/meshd/access.log".into();
    assert_eq!(
        live.access_log.destination,
        Some(AccessLogDestination::File(path))
    );
    let words = &live.services[0];
    assert_eq!(words.service.to_string(), "shop/words");
    assert_eq!(words.labels["version"], "v1");
    assert_eq!(words.recognise.uids, [990, 1234]);
    assert_eq!(words.ports[1].target, 81);
    let health = words.health.as_ref().unwrap();
    assert!(matches!(&health.kind, HealthKind::Http { port: 8080, path } if path == "/health"));
    assert_eq!(words.origin, "/etc/meshd/meshd.toml:40");
    assert!(!live.sources[0].publish);
    let term = live.merge.terms["file/etc"];
    assert_eq!((term.precedence, term.weight), (Some(10), Some(90)));
    let rule = live.merge.rule(&words.service).unwrap();
    assert_eq!(
        (rule.policy.word(), rule.weights["consul/2"]),
        ("failover", 0)
    );
    assert_eq!(live.merge.default_rule().unwrap().policy.word(), "first");
    let announced = &live.registrations[0];
    assert_eq!(announced.source, live.sources[1]);
    assert_eq!(announced.ttl, Duration::from_secs(20));
}

#[test]
fn defaults() {
    let (boot, live) = read(&sources(&[])).unwrap();
    assert_eq!(boot.state_dir.to_str(), Some("/var/lib/meshd"));
    assert_eq!(boot.listeners.tunnel.to_string(), "[::]:15008");
    assert_eq!(boot.listeners.explicit, None);
    assert_eq!(boot.cluster.listen.port(), 7947);
    assert_eq!(boot.virtual_v6.1, 64);
    assert_eq!(boot.capture, Capture::Mesh);
    assert_eq!(live.drain_timeout, Duration::from_secs(30));
    assert!(live.services.is_empty());
}

#[test]
fn effective_reads_back() {
    for files in [&[("/etc/meshd/meshd.toml", FULL)][..], &[]] {
        let (boot, live) = read(&sources(files)).unwrap();
        let text = effective(&boot, &live);
        let (boot_again, live_again) = read(&sources(&[("/e.toml", &text)]))
            .unwrap_or_else(|faults| panic!("{faults:?}\n{text}"));
        assert_eq!(boot, boot_again);
        let without_origin = |live: &Live| {
            let mut live = live.clone();
            for service in &mut live.services {
                std::sync::Arc::make_mut(service).origin.clear();
            }
            live
        };
        assert_eq!(without_origin(&live), without_origin(&live_again));
    }
}

#[test]
fn files_join() {
    let files = [
        (
            "/etc/meshd/meshd.toml",
            "workers = 2\n[listeners]\noutbound_port = 1\ninbound_port = 2\n",
        ),
        (
            "/etc/meshd/conf.d/a.toml",
            "workers = 4\n[listeners]\noutbound_port = 3\n",
        ),
        (
            "/etc/meshd/services.d/words.toml",
            "name = \"words\"\nports = [{port = 80}]\n",
        ),
        (
            "/etc/meshd/services.d/two.toml",
            "[[service]]\nname = \"a\"\n[[service]]\nname = \"b\"\n",
        ),
    ];
    let (boot, live) = read(&sources(&files)).unwrap();
    assert_eq!(
        (
            boot.workers,
            boot.listeners.outbound_port,
            boot.listeners.inbound_port
        ),
        (Some(4), 3, 2)
    );
    let names: Vec<_> = live
        .services
        .iter()
        .map(|service| service.instance.as_str())
        .collect();
    assert_eq!(names, ["words", "a", "b"]);
    assert_eq!(live.services[2].origin, "/etc/meshd/services.d/two.toml:3");
}

/// Text of one file, and the faults expected: line, key, part of the message.
type Expected = &'static [(usize, &'static str, &'static str)];

const FAULTS: &[(&str, Expected)] = &[
    (
        "[[merge]]\npolicy = \"firts\"\nweights = { a = 2000 }\n[[merge]]\nservice = \"*\"\n[[merge]]\nservice = \"A b\"",
        &[
            (2, "merge[0].policy", "did you mean `first`?"),
            (3, "merge[0].weights.a", "0 to 1000"),
            (5, "merge[1].service", "has a rule already"),
            (7, "merge[2].service", "namespace/name"),
        ],
    ),
    (
        "[[source]]\nkind = \"file\"\ndirectory = \"/d\"\nprecedence = 2000\nweight = 1001",
        &[
            (4, "source[0].precedence", "0 to 1000"),
            (5, "source[0].weight", "0 to 1000"),
        ],
    ),
    ("workes = 2", &[(1, "workes", "did you mean `workers`?")]),
    ("workers = \"2\"", &[(1, "workers", "without quotes")]),
    (
        "workers = 0\n[listeners]\noutbound_port = 99999",
        &[
            (1, "workers", "1 to 256"),
            (3, "listeners.outbound_port", "0 to 65535"),
        ],
    ),
    (
        "[listeners]\ninbound_port = 15008",
        &[(
            2,
            "listeners.inbound_port",
            "port 15008 is that of listeners.tunnel",
        )],
    ),
    (
        "[listeners]\nexplicit = \"127.0.0.1:15001\"",
        &[(2, "listeners.explicit", "outbound_port")],
    ),
    (
        "[listeners]\nmetrics = \"127.0.0.1\"",
        &[(2, "listeners.metrics", "no address and port")],
    ),
    (
        "[capture]\nmode = \"all\"",
        &[(2, "capture.mode", "mesh or off")],
    ),
    (
        "[capture]\nmark = 0x4010\nmask = 0x4070",
        &[(3, "capture.mask", "kube-proxy")],
    ),
    (
        "[capture]\nmark = 0x2",
        &[(2, "capture.mark", "not inside the mask")],
    ),
    (
        "[capture]\nvirtual_v4 = \"10.0.0.1/16\"",
        &[(2, "capture.virtual_v4", "write 10.0.0.0/16")],
    ),
    (
        "[capture]\nvirtual_v4 = \"10.0.0.0/30\"",
        &[(2, "capture.virtual_v4", "8 to 24")],
    ),
    (
        "[capture]\nvirtual_v6 = \"fd00::\"",
        &[(2, "capture.virtual_v6", "no prefix")],
    ),
    (
        "[cluster]\nseeds = [\"x:1\", \"x\"]",
        &[(2, "cluster.seeds[1]", "no host:port")],
    ),
    (
        "drain_timeout = \"2h\"",
        &[(1, "drain_timeout", "0s to 1h")],
    ),
    ("state_dir = \"meshd\"", &[(1, "state_dir", "absolute")]),
    ("[service]\nname = \"x\"", &[(1, "service", "[[")]),
    (
        "[[service]]\nports = [{port = 1}]",
        &[(1, "service[0].name", "is missing")],
    ),
    (
        "[[service]]\nname = \"Words\"",
        &[(2, "service[0].name", "not a name")],
    ),
    (
        "[[service]]\nname = \"a\"\nport = 80",
        &[(3, "service[0].port", "did you mean `ports`?")],
    ),
    (
        "[[service]]\nname = \"a\"\nports = [{port = 80}, {port = 80}]",
        &[
            (3, "service[0].ports[0].name", "name every port"),
            (3, "service[0].ports[1].port", "already"),
            (3, "service[0].ports[1].name", "name every port"),
        ],
    ),
    (
        "[[service]]\nname = \"a\"\nports = [{port = 80, protocol = \"smtp\"}]",
        &[(3, "service[0].ports[0].protocol", "not a protocol")],
    ),
    (
        "[[service]]\nname = \"a\"\nports = [{port = 80, target = 15008}]",
        &[(
            3,
            "service[0].ports[0].target",
            "meshd's own port (listeners.tunnel)",
        )],
    ),
    (
        "[[service]]\nname = \"a\"\nports = [{port = 1}]\n[[service]]\nname = \"b\"\nports = [{port = 2, target = 1}]",
        &[(6, "service[1].ports[0].target", "where a (")],
    ),
    (
        "[[service]]\nname = \"a\"\n[[service]]\nname = \"a\"",
        &[(4, "service[1].name", "different `instance`")],
    ),
    (
        "[[service]]\nname = \"a\"\nuser = \"words\"\n[[service]]\nname = \"b\"\nuser = [1, 990]",
        &[(6, "service[1].user", "user 990 belongs to default/a")],
    ),
    (
        "[[service]]\nname = \"a\"\nunit = \"a.service\"\n[[service]]\nname = \"b\"\nunit = \"a.service\"",
        &[(6, "service[1].unit", "a.service belongs to default/a")],
    ),
    (
        "[[service]]\nname = \"a\"\nuser = \"nobody-here\"",
        &[(3, "service[0].user", "no user \"nobody-here\"")],
    ),
    (
        "[[service]]\nname = \"a\"\nuser = [1, true]",
        &[(3, "service[0].user[1]", "name or number of a user")],
    ),
    (
        "[[service]]\nname = \"a\"\nunit = \"web\"",
        &[(3, "service[0].unit", "whole name")],
    ),
    (
        "[[service]]\nname = \"a\"\nhealth = {}",
        &[(3, "service[0].health.port", "is missing")],
    ),
    (
        "[[service]]\nname = \"a\"\n[service.health]\nport = 1\ninterval = \"1ms\"\ntimeout = \"x\"",
        &[
            (5, "service[0].health.interval", "100ms to 5m"),
            (6, "service[0].health.timeout", "span of time"),
        ],
    ),
    (
        "[[service]]\nname = \"a\"\nweight = 0\naddress = \"x\"",
        &[
            (3, "service[0].weight", "1 to 1000"),
            (4, "service[0].address", "no IP address"),
        ],
    ),
    (
        "[[service]]\nname = \"a\"\nversion = \"v1\"\nlabels = {version = \"v2\"}",
        &[(3, "service[0].version", "differs")],
    ),
    (
        "[[source]]\nkind = \"consol\"\n[[source]]\nkind = \"file\"",
        &[
            (2, "source[0].kind", "did you mean `consul`?"),
            (3, "source[1].directory", "is missing"),
        ],
    ),
    (
        "[[source]]\nkind = \"consul\"\ntags = [\"a\"]\n[[source]]\nkind = \"etcd\"\naddresses = [\"127.0.0.1:2379\"]\ntags = [\"a\"]\nlayout = \"skydnss\"\nusername = \"u\"",
        &[
            (1, "source[0].addresses", "write where consul is"),
            (6, "source[1].addresses[0]", "http://127.0.0.1:2379"),
            (7, "source[1].tags", "use addresses, token_file, username"),
            (8, "source[1].layout", "did you mean `skydns`?"),
            (9, "source[1].username", "belong together"),
        ],
    ),
    (
        "[[source]]\nkind = \"dns\"\nservers = [\"ns1\"]\n[[source.record]]\nservice = \"web\"\n[[source.record]]\nservice = \"W_b\"\nname = \"x\"",
        &[
            (3, "source[0].servers[0]", "write an IP address"),
            (4, "source[0].record[0].name", "the name to ask for"),
            (
                7,
                "source[0].record[1].service",
                "the service that it becomes",
            ),
        ],
    ),
    (
        "[[source]]\nkind = \"curator\"\naddresses = [\"http://zk:2181\"]\npath = \"services\"\n[source.tls]\nkey = \"/k\"",
        &[
            (3, "source[0].addresses[0]", "zk1:2181"),
            (4, "source[0].path", "write \"/services\""),
            (5, "source[0].tls", "write both"),
        ],
    ),
    (
        "[[source]]\nkind='dns'\nid='d'\n[[source.record]]\nservice='a'\nname='a.b'\n[[source]]\nkind='eureka'\nid='e'\naddresses=['http://e']\n\
         [[registration]]\nsource='d'\n[[registration]]\nsource='e'\nttl='1s'\ntags=['a']\naddress='127.0.0.1'\n\
         [[registration]]\nsource='e'\n[[registration]]\nsource='f'\n[[registration]]\nttl='9s'",
        &[
            (12, "registration[0].source", "takes no registrations"),
            (15, "registration[1].ttl", "out of range"),
            (16, "registration[1].tags", "only Consul"),
            (17, "registration[1].address", "leads nowhere"),
            (19, "registration[2].source", "already"),
            (21, "registration[3].source", "no source"),
            (22, "registration[4].source", "is missing"),
        ],
    ),
    ("workers = 2\n[host", &[(2, "", "TOML")]),
];

#[test]
fn faults_have_line_and_key() {
    for (text, wanted) in FAULTS {
        let found = read(&sources(&[("m.toml", text)])).expect_err(text);
        let told: Vec<_> = found.iter().map(|f| (f.line, f.key.as_str())).collect();
        let expected: Vec<_> = wanted.iter().map(|(line, key, _)| (*line, *key)).collect();
        assert_eq!(told, expected, "{text}\n{found:#?}");
        for (fault, (_, _, part)) in found.iter().zip(*wanted) {
            assert!(fault.to_string().contains(part), "{fault} lacks {part:?}");
        }
    }
}

#[test]
fn faults_name_their_file() {
    let files = [
        ("a.toml", "workers = 2"),
        ("conf.d/b.toml", "\nworkers = 999\n[[service]]\nname='a'"),
        (
            "services.d/c.toml",
            "[[service]]\nname = 'a'\ninstance = 'a'",
        ),
    ];
    let found = read(&sources(&files)).unwrap_err();
    let told: Vec<_> = found
        .iter()
        .map(|f| (f.file.as_str(), f.line, f.key.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("conf.d/b.toml", 2, "workers"),
            ("services.d/c.toml", 3, "service[0].instance")
        ]
    );
}

#[test]
fn same_identity_may_share_a_user() {
    let text = "[[service]]\nname='a'\nuser=7\ninstance='a1'\n[[service]]\nname='a'\nuser=7\ninstance='a2'\n";
    assert!(read(&sources(&[("m.toml", text)])).is_ok());
}

#[test]
fn the_reference_has_every_key() {
    let text = reference();
    for section in &SECTIONS {
        assert!(text.contains(section.header), "{}", section.header);
        for field in section.fields {
            assert!(
                text.contains(&format!("\n| `{}` |", field.key)),
                "{}",
                field.key
            );
            assert!(!field.meaning.trim().is_empty(), "{}", field.key);
            let nested = field.default.is_empty() && field.range.is_empty();
            let header = |s: &&crate::config::file::Section| {
                s.header.trim_matches(['[', ']']).ends_with(field.key)
            };
            assert!(
                !nested || SECTIONS.iter().any(|s| header(&s)),
                "{} has no section",
                field.key
            );
        }
    }
    // The full example uses every key, so each is read as well as described.
    for section in &SECTIONS {
        for field in section.fields {
            let known = FULL.contains(field.key) || FULL.contains(&format!("[{}", field.key));
            assert!(known, "the example lacks {}", field.key);
        }
    }
}

#[test]
fn a_token_of_a_file_is_for_what_takes_one() {
    for (kind, takes) in [
        ("consul", true),
        ("etcd", true),
        ("nomad", true),
        ("marathon", true),
        ("eureka", false),
    ] {
        let text = format!(
            "[[source]]\nkind = \"{kind}\"\naddresses = [\"http://r:1/x\"]\ntoken_file = \"/etc/t\"\n"
        );
        let read = read(&sources(&[("meshd.toml", &text)]));
        assert_eq!(read.is_ok(), takes, "{kind}: {read:?}");
    }
}
