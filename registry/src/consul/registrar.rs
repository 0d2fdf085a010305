//! Announces instances to Consul's local agent: a service with a TTL check that this daemon keeps.
//!
//! In: instances and their health. Out: writes to the agent. Never: leaves a check that does not run out: what is
//! not renewed becomes critical after the life, and the agent removes it a minute later at the earliest.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, Method, StatusCode};
use mesh_model::{
    config::{RegistrationConfig, SourceKind},
    endpoint::Health,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    http::{Answer, Client, Credential, Request},
    place::escaped,
    registrar::{Lease, Registrar, Registration, Renewal},
    source::SourceError,
};

/// Consul removes a critical instance after this at the earliest; less is not taken.
const LEAST_CRITICAL: Duration = Duration::from_mins(1);
/// For one write to the agent.
const DEADLINE: Duration = Duration::from_secs(5);

/// Announces to one agent.
#[derive(Debug)]
pub struct ConsulRegistrar {
    client: Client,
    /// `ns` and `partition`, as a query begins.
    scope: Vec<String>,
    life: Duration,
    tags: Vec<String>,
}

impl ConsulRegistrar {
    /// Nothing is written yet.
    pub fn new(config: &RegistrationConfig) -> Result<Self, SourceError> {
        let SourceKind::Consul {
            access,
            namespace,
            partition,
            ..
        } = &config.source.kind
        else {
            return Err(SourceError::Config("it is not Consul".into()));
        };
        let credential = Credential::Field(HeaderName::from_static("x-consul-token"));
        let parts = [("ns", namespace), ("partition", partition)];
        Ok(Self {
            client: Client::new(access, credential)?,
            scope: parts
                .iter()
                .filter_map(|(name, value)| Some(format!("{name}={}", escaped(value.as_ref()?))))
                .collect(),
            life: config.ttl,
            tags: config.tags.clone(),
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        more: &[&str],
        body: Option<&Value>,
    ) -> Result<Answer, SourceError> {
        let mut query: Vec<&str> = self.scope.iter().map(String::as_str).collect();
        query.extend(more);
        let mark = if query.is_empty() { "" } else { "?" };
        let mut request = Request::get(format!("{path}{mark}{}", query.join("&"))).within(DEADLINE);
        request.method = method;
        request.body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        self.client.send(&request).await
    }

    async fn put(
        &self,
        path: &str,
        more: &[&str],
        body: Option<&Value>,
    ) -> Result<(), SourceError> {
        self.ask(Method::PUT, path, more, body).await?.good()?;
        Ok(())
    }

    fn body(&self, of: &Registration, health: Health) -> Value {
        let critical = LEAST_CRITICAL.max(self.life);
        json!({
            "ID": of.id,
            "Name": of.service.name.as_str(),
            "Address": of.address.ip().to_string(),
            "Port": of.address.port(),
            "Tags": self.tags,
            "Meta": meta(of),
            "Weights": {"Passing": of.weight, "Warning": 1},
            "Check": {
                "CheckID": check(&of.id),
                "Name": "meshd",
                "TTL": format!("{}ms", self.life.as_millis()),
                "Status": status(health),
                "DeregisterCriticalServiceAfter": format!("{}s", critical.as_secs()),
            },
        })
    }
}

/// Labels as Consul takes them, with the words that our own source reads.
fn meta(of: &Registration) -> serde_json::Map<String, Value> {
    let plain = |key: &str| {
        !key.is_empty()
            && key.len() <= 128
            && key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let labels = of
        .labels
        .iter()
        .filter(|(key, value)| plain(key) && value.len() <= 512)
        .take(60)
        .map(|(key, value)| (key.clone(), Value::from(value.as_str())));
    let place = [("region", &of.locality.region), ("zone", &of.locality.zone)];
    let place = place
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), Value::from(&**value.as_ref()?))));
    let own = [("protocol".to_owned(), Value::from(of.protocol.as_str()))];
    labels.chain(place).chain(own).collect()
}

fn check(id: &str) -> String {
    format!("{id}-meshd")
}

fn status(health: Health) -> &'static str {
    match health {
        Health::Unknown | Health::Healthy => "passing",
        Health::Degraded => "warning",
        Health::Draining | Health::Unhealthy => "critical",
    }
}

/// What the agent has.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Known {
    #[serde(default)]
    service: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    meta: Option<serde_json::Map<String, Value>>,
}

#[async_trait]
impl Registrar for ConsulRegistrar {
    fn life(&self) -> Duration {
        self.life
    }

    async fn register(&self, of: &Arc<Registration>, health: Health) -> Result<Lease, SourceError> {
        let body = self.body(of, health);
        self.put(
            "/v1/agent/service/register",
            &["replace-existing-checks=true"],
            Some(&body),
        )
        .await?;
        // A drained instance may have been left so by a daemon before this one.
        let path = format!("/v1/agent/service/maintenance/{}", escaped(&of.id));
        self.put(&path, &["enable=false"], None).await?;
        let lease = Lease {
            of: Arc::clone(of),
            mark: String::new(),
        };
        // A check that was there keeps its status when it is registered again.
        self.renew(&lease, health).await?;
        Ok(lease)
    }

    async fn replace(
        &self,
        _old: Lease,
        of: &Arc<Registration>,
        health: Health,
    ) -> Result<Lease, SourceError> {
        self.register(of, health).await
    }

    async fn renew(&self, lease: &Lease, health: Health) -> Result<Renewal, SourceError> {
        let path = format!("/v1/agent/check/update/{}", escaped(&check(&lease.of.id)));
        let body = json!({"Status": status(health)});
        let answer = self.ask(Method::PUT, &path, &[], Some(&body)).await?;
        if is_unknown(&answer) {
            return Ok(Renewal::Lost);
        }
        answer.good()?;
        let path = format!("/v1/agent/service/{}", escaped(&lease.of.id));
        let answer = self.ask(Method::GET, &path, &[], None).await?;
        if is_unknown(&answer) {
            return Ok(Renewal::Lost);
        }
        let answer = answer.good()?;
        let known: Known =
            serde_json::from_slice(&answer.body).map_err(|error| SourceError::Protocol {
                subject: answer.subject.clone(),
                what: error.to_string(),
            })?;
        let same = known.service == lease.of.service.name.as_str()
            && known.address == lease.of.address.ip().to_string()
            && known.port == lease.of.address.port()
            && known.tags.unwrap_or_default() == self.tags
            && known.meta.unwrap_or_default() == meta(&lease.of);
        Ok(if same { Renewal::Kept } else { Renewal::Lost })
    }

    async fn drain(&self, lease: &Lease) -> Result<(), SourceError> {
        let path = format!("/v1/agent/service/maintenance/{}", escaped(&lease.of.id));
        self.put(&path, &["enable=true", "reason=meshd%20drains"], None)
            .await
    }

    async fn deregister(&self, lease: Lease) -> Result<(), SourceError> {
        let path = format!("/v1/agent/service/deregister/{}", escaped(&lease.of.id));
        let answer = self.ask(Method::PUT, &path, &[], None).await?;
        if !is_unknown(&answer) {
            answer.good()?;
        }
        Ok(())
    }
}

/// The agent does not know it: 404, or 500 with a sentence before 1.11.
fn is_unknown(answer: &Answer) -> bool {
    let text = String::from_utf8_lossy(&answer.body);
    answer.status == StatusCode::NOT_FOUND
        || (answer.status == StatusCode::INTERNAL_SERVER_ERROR
            && [
                "does not have associated TTL",
                "Unknown service",
                "Unknown check",
            ]
            .iter()
            .any(|words| text.contains(words)))
}
