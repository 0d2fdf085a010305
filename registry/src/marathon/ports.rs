//! Where the tasks of an application listen: on their host, behind a bridge, or at an address of their own.

use serde_json::Value;

use super::fields::{list, text};

/// How tasks reach the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Ports of the host.
    Host,
    /// Ports of the host, mapped to those of the container.
    Bridge,
    /// An address of each task.
    Container,
    /// As before there were networks: an address, and the ports that `discovery` names.
    Discovery,
}

impl Mode {
    fn of(app: &Value) -> Self {
        if let Some(network) = list(app, "networks").first() {
            return match text(network, "mode") {
                Some("host") => Self::Host,
                Some("container/bridge") => Self::Bridge,
                _ => Self::Container,
            };
        }
        let docker = app.get("container").and_then(|all| all.get("docker"));
        match docker.and_then(|docker| text(docker, "network")) {
            Some("BRIDGE") => Self::Bridge,
            Some("USER") => Self::Container,
            None if app.get("ipAddress").is_some_and(Value::is_object) => Self::Discovery,
            _ => Self::Host,
        }
    }
}

/// Where a port of a task is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The n-th port of the host.
    OfHost(usize),
    /// This port at the task's own address.
    OfTask(u16),
    /// The n-th port of the host, at the task's own address.
    SameOfTask(usize),
}

/// One port of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Door {
    name: Option<String>,
    way: Way,
    /// The port that callers dial; 0: those of the tasks.
    pub(super) called: u16,
    /// False for what only takes datagrams.
    streams: bool,
}

impl Door {
    /// Host and port of a task; `None` while it has none.
    pub(super) fn at<'t>(&self, task: &'t Value) -> Option<(&'t str, u16)> {
        let host_port = |index: usize| {
            let port = list(task, "ports").get(index)?.as_u64()?;
            u16::try_from(port).ok()
        };
        let own = || {
            let mut all = list(task, "ipAddresses").iter();
            all.find_map(|one| text(one, "ipAddress"))
        };
        match self.way {
            Way::OfHost(index) => Some((text(task, "host")?, host_port(index)?)),
            Way::OfTask(port) => Some((own()?, port)),
            Way::SameOfTask(index) => Some((own()?, host_port(index)?)),
        }
    }
}

/// The ports of an application, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ports(Vec<Door>);

fn number(value: &Value, name: &str) -> u16 {
    let number = value.get(name).and_then(Value::as_u64).unwrap_or(0);
    u16::try_from(number).unwrap_or(0)
}

/// What a port states of itself; `service_port` is the name of that field.
fn door(stated: &Value, way: Way, service_port: &str) -> Door {
    // DC/OS: `VIP_0: /web:80`.
    let labels = stated.get("labels").and_then(Value::as_object);
    let balanced = labels.into_iter().flatten().find_map(|(key, value)| {
        key.starts_with("VIP_").then_some(())?;
        value.as_str()?.rsplit_once(':')?.1.parse().ok()
    });
    Door {
        name: text(stated, "name").map(str::to_owned),
        way,
        called: balanced.unwrap_or_else(|| number(stated, service_port)),
        streams: text(stated, "protocol").is_none_or(|word| word != "udp"),
    }
}

impl Ports {
    /// Reads them.
    pub(super) fn of(app: &Value) -> Self {
        let container = app.get("container").unwrap_or(&Value::Null);
        let docker = container.get("docker").unwrap_or(&Value::Null);
        let mappings = match list(container, "portMappings") {
            [] => list(docker, "portMappings"),
            some => some,
        };
        Self(match Mode::of(app) {
            Mode::Host => Self::of_host(app),
            Mode::Bridge => mapped(mappings, |_, at| Way::OfHost(at)),
            Mode::Container => mapped(mappings, |mapping, at| {
                match number(mapping, "containerPort") {
                    0 => Way::SameOfTask(at),
                    port => Way::OfTask(port),
                }
            }),
            Mode::Discovery => {
                let discovery = app.get("ipAddress").and_then(|all| all.get("discovery"));
                let all = discovery.map_or(&[][..], |discovery| list(discovery, "ports"));
                let one = |port| door(port, Way::OfTask(number(port, "number")), "number");
                all.iter().map(one).collect()
            }
        })
    }

    fn of_host(app: &Value) -> Vec<Door> {
        let defined = list(app, "portDefinitions").iter().enumerate();
        let defined: Vec<Door> = defined
            .map(|(at, port)| door(port, Way::OfHost(at), "port"))
            .collect();
        if !defined.is_empty() {
            return defined;
        }
        let bare = list(app, "ports").iter().enumerate();
        bare.map(|(at, port)| Door {
            name: None,
            way: Way::OfHost(at),
            called: u16::try_from(port.as_u64().unwrap_or(0)).unwrap_or(0),
            streams: true,
        })
        .collect()
    }

    /// The port that is called: the one that the application states by index or name, or the usual one.
    /// `None` where there is nothing to call.
    pub(super) fn pick(&self, stated: Option<&str>, usual: u16) -> Result<Option<&Door>, String> {
        if !self.0.iter().any(|door| door.streams) {
            return Ok(None);
        }
        let found = match stated {
            None => self.0.get(usize::from(usual)),
            Some(word) => match word.parse::<usize>() {
                Ok(index) => self.0.get(index),
                Err(_) => self
                    .0
                    .iter()
                    .find(|door| door.name.as_deref() == Some(word)),
            },
        };
        let which = || stated.map_or_else(|| usual.to_string(), str::to_owned);
        let found = found.ok_or_else(|| {
            format!(
                "there is no port {which:.40?} among {}; state mesh.port_index",
                self.0.len(),
                which = which()
            )
        })?;
        if !found.streams {
            return Err(format!(
                "port {} takes datagrams only; state mesh.port_index",
                which()
            ));
        }
        Ok(Some(found))
    }
}

/// Ports of containers. Those with a port of the host are counted as Marathon counts them.
fn mapped(mappings: &[Value], way: impl Fn(&Value, usize) -> Way) -> Vec<Door> {
    let mut hosts = 0;
    let mut doors = Vec::new();
    for mapping in mappings {
        doors.push(door(mapping, way(mapping, hosts), "servicePort"));
        // Behind a bridge each one has such a port, stated or not; elsewhere those that state one.
        let stated = mapping.get("hostPort").is_some_and(|port| !port.is_null());
        hosts += usize::from(
            stated
                || matches!(
                    doors.last(),
                    Some(Door {
                        way: Way::OfHost(_),
                        ..
                    })
                ),
        );
    }
    doors
}
