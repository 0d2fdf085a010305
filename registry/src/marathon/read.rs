//! Marathon's applications to services: pure, one application at a time.
//!
//! In: `/v2/apps` with tasks, deployments and readiness embedded, or one `/v2/apps/<id>`. Out: an `App` each.
//! Never: fails because one application is odd: that one is told, and what is known of it stays.

use std::{fmt, marker::PhantomData, sync::Arc};

use mesh_model::{
    endpoint::{Endpoint, Health, Locality, ServiceKey},
    name::{Namespace, ServiceId, ServiceName},
    service::AppProtocol,
};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::{
    fields::{list, text},
    ports::{Door, Ports},
};
use crate::{
    place::{address, fitting},
    sink::ServiceSet,
};

/// Most applications of one answer.
const MAX_APPS: usize = 100_000;

/// What of applications becomes services.
#[derive(Debug, Clone, Default)]
pub(super) struct Taste {
    /// The group below which they are, such as `/prod`; empty: all.
    pub(super) prefix: String,
    /// The port that is called where the application does not say.
    pub(super) port_index: u16,
}

/// What an application becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Nothing: it is not wanted, or has nothing that could be called.
    None,
    /// A service, or with others that state the same name a part of one.
    Of {
        /// The service.
        key: ServiceKey,
        /// True when the application itself states the name.
        stated: bool,
        /// Its tasks.
        set: ServiceSet,
    },
    /// It cannot be understood; the reason.
    Odd(String),
}

/// One application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct App {
    pub(super) id: Arc<str>,
    pub(super) part: Part,
    /// Some of its tasks will become ready without an event that says so.
    pub(super) waits: bool,
}

/// Reads a list of applications (`apps`) or one (`app`).
#[derive(Debug)]
pub(super) struct Reader<'t>(pub(super) &'t Taste);

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Vec<App>;
    fn deserialize<D: Deserializer<'de>>(self, document: D) -> Result<Vec<App>, D::Error> {
        document.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Vec<App>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("applications of Marathon")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<App>, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "apps" => found = Some(map.next_value_seed(Each(self.0, PhantomData))?),
                "app" => {
                    let one = app(&map.next_value()?, self.0).map_err(A::Error::custom)?;
                    found = Some(vec![one]);
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        found.ok_or_else(|| A::Error::custom("there are no applications in it"))
    }
}

/// The elements of a list, one after the other.
struct Each<'t>(&'t Taste, PhantomData<App>);

impl<'de> DeserializeSeed<'de> for Each<'_> {
    type Value = Vec<App>;
    fn deserialize<D: Deserializer<'de>>(self, list: D) -> Result<Vec<App>, D::Error> {
        list.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Each<'_> {
    type Value = Vec<App>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of applications")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<App>, A::Error> {
        let mut all = Vec::new();
        while let Some(value) = list.next_element::<Value>()? {
            if all.len() >= MAX_APPS {
                return Err(A::Error::custom("too many applications"));
            }
            all.push(app(&value, self.0).map_err(A::Error::custom)?);
        }
        Ok(all)
    }
}

/// Reads one application; it fails where the answer as a whole is not what was asked for.
fn app(value: &Value, taste: &Taste) -> Result<App, &'static str> {
    let id = text(value, "id").ok_or("an application has no id")?;
    if value.get("tasks").and_then(Value::as_array).is_none() {
        return Err("an application comes without its tasks");
    }
    let mut waits = false;
    let part = part(id, value, taste, &mut waits).unwrap_or_else(Part::Odd);
    Ok(App {
        id: Arc::from(id),
        part,
        waits,
    })
}

fn part(id: &str, value: &Value, taste: &Taste, waits: &mut bool) -> Result<Part, String> {
    let labels = value.get("labels");
    let label = |name: &str| labels.and_then(|labels| text(labels, name)).map(str::trim);
    let Some(rest) = below(id, &taste.prefix) else {
        return Ok(Part::None);
    };
    if label("mesh.enable").is_some_and(|word| matches!(word, "false" | "no" | "0")) {
        return Ok(Part::None);
    }
    let ports = Ports::of(value);
    let Some(door) = ports.pick(label("mesh.port_index"), taste.port_index)? else {
        return Ok(Part::None);
    };
    let (key, stated) = match label("mesh.name") {
        Some(name) => (stated_key(name)?, true),
        None => (derived_key(rest)?, false),
    };
    let protocol: AppProtocol = label("mesh.protocol")
        .unwrap_or_default()
        .parse()
        .map_err(|error: mesh_model::service::UnknownProtocol| error.to_string())?;
    let tasks = Tasks::of(id, value, door);
    let endpoints = list(value, "tasks").iter();
    let set = ServiceSet {
        port: door.called,
        protocol,
        endpoints: endpoints
            .filter_map(|task| tasks.endpoint(task, waits))
            .collect(),
    };
    Ok(Part::Of { key, stated, set })
}

/// What stands in an id below a group; `None` for what is elsewhere.
fn below<'i>(id: &'i str, prefix: &str) -> Option<&'i str> {
    let rest = id.strip_prefix(prefix)?.strip_prefix('/')?;
    (!rest.is_empty()).then_some(rest)
}

fn stated_key(name: &str) -> Result<ServiceKey, String> {
    let id = ServiceId::parse(name).map_err(|error| format!("mesh.name: {error}"))?;
    Ok(ServiceKey {
        namespace: Some(id.namespace),
        name: id.name,
        port_name: None,
    })
}

/// `prod/web` is `prod-web`.
fn derived_key(rest: &str) -> Result<ServiceKey, String> {
    let name = rest.replace(['/', '.'], "-");
    let name = ServiceName::new(&name).map_err(|error| format!("{error}; state mesh.name"))?;
    Ok(ServiceKey {
        namespace: Some(Namespace::default()),
        name,
        port_name: None,
    })
}

/// What the tasks of one application have in common.
struct Tasks<'v> {
    door: &'v Door,
    metadata: Arc<std::collections::BTreeMap<String, String>>,
    checks: usize,
    /// The version that is being deployed, and what is known of readiness; `None` while nothing is deployed
    /// or nothing has to become ready.
    readiness: Option<(&'v str, &'v [Value])>,
}

impl<'v> Tasks<'v> {
    fn of(id: &str, value: &'v Value, door: &'v Door) -> Self {
        let labels = value.get("labels").and_then(Value::as_object);
        // Those that are meant for this source say nothing more.
        let labels = labels.into_iter().flatten();
        let labels = labels.filter(|(key, _)| !key.starts_with("mesh."));
        let labels =
            labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        let own = [("marathon-app".to_owned(), id.to_owned())];
        let deploys =
            !list(value, "deployments").is_empty() && !list(value, "readinessChecks").is_empty();
        Self {
            door,
            metadata: Arc::new(fitting(labels.chain(own).collect())),
            checks: list(value, "healthChecks").len(),
            readiness: deploys.then(|| {
                let version = text(value, "version").unwrap_or_default();
                (version, list(value, "readinessCheckResults"))
            }),
        }
    }

    fn endpoint(&self, task: &Value, waits: &mut bool) -> Option<Endpoint> {
        let health = match text(task, "state") {
            Some("TASK_RUNNING") => self.health(task, waits),
            // Old versions do not say; what has begun runs.
            None if text(task, "startedAt").is_some() => self.health(task, waits),
            Some("TASK_KILLING") => Health::Draining,
            Some("TASK_UNREACHABLE") => Health::Unhealthy,
            _ => return None,
        };
        let (host, port) = self.door.at(task)?;
        let place = |name: &str| text(task, name).map(Arc::from);
        let (region, zone) = (place("region"), place("zone"));
        let locality = (region.is_some() || zone.is_some()).then(|| {
            Arc::new(Locality {
                region,
                zone,
                sub_zone: None,
            })
        });
        Some(Endpoint {
            id: Arc::from(text(task, "id")?),
            address: address(host, port)?,
            health,
            weight: 1,
            priority: 0,
            locality,
            metadata: Arc::clone(&self.metadata),
            host: None,
            tunnel: None,
        })
    }

    /// Every check must have said that the task is alive. None has while it has time to start.
    fn health(&self, task: &Value, waits: &mut bool) -> Health {
        if !self.is_ready(task) {
            *waits = true;
            return Health::Unhealthy;
        }
        if self.checks == 0 {
            return Health::Unknown;
        }
        let results = list(task, "healthCheckResults").iter();
        let alive: Vec<bool> = results
            .filter_map(|result| result.get("alive")?.as_bool())
            .collect();
        if alive.len() < self.checks {
            *waits = true;
        }
        if alive.len() >= self.checks && alive.iter().all(|alive| *alive) {
            Health::Healthy
        } else {
            Health::Unhealthy
        }
    }

    /// While its version is deployed, a task is ready when a result says so; tasks of older versions are.
    fn is_ready(&self, task: &Value) -> bool {
        let Some((version, results)) = self.readiness else {
            return true;
        };
        let id = text(task, "id");
        let mut own = results
            .iter()
            .filter(|one| text(one, "taskId") == id)
            .peekable();
        if own.peek().is_none() {
            return text(task, "version").is_some_and(|of| of != version);
        }
        own.all(|one| one.get("ready").and_then(Value::as_bool) == Some(true))
    }
}

#[cfg(test)]
mod tests;
