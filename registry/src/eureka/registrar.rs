//! Announces instances to Eureka: registered with a lease, kept by heartbeats, registered again when forgotten.
//!
//! In: instances and their health. Out: writes to `/apps`. Never: leaves an instance whose lease does not run out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use mesh_model::{
    config::{RegistrationConfig, SourceKind},
    endpoint::Health,
};
use serde_json::{Map, Value, json};

use super::nearest_first;
use crate::{
    http::{Answer, Client, Credential, Request},
    place::{escaped, fitting},
    registrar::{Lease, Registrar, Registration, Renewal},
    source::SourceError,
};

/// For one write.
const DEADLINE: Duration = Duration::from_secs(5);

/// What the registry was told of an instance last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    status: &'static str,
    /// `lastDirtyTimestamp`: a server takes nothing that is older than what it has.
    dirty_ms: u64,
}

/// Announces to one Eureka.
#[derive(Debug)]
pub struct EurekaRegistrar {
    client: Client,
    life: Duration,
    told: Mutex<BTreeMap<String, Told>>,
}

impl EurekaRegistrar {
    /// Nothing is written yet.
    pub fn new(config: &RegistrationConfig) -> Result<Self, SourceError> {
        let SourceKind::Eureka { access, zone, .. } = &config.source.kind else {
            return Err(SourceError::Config("it is not Eureka".into()));
        };
        let access = nearest_first(access, zone.as_deref());
        Ok(Self {
            client: Client::new(&access, Credential::Authorization("Bearer "))?,
            life: config.ttl,
            told: Mutex::default(),
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: String,
        body: Option<&Value>,
    ) -> Result<Answer, SourceError> {
        let json = HeaderValue::from_static("application/json");
        let mut request = Request::get(path)
            .within(DEADLINE)
            .with(header::CONTENT_TYPE, json);
        request.method = method;
        request.body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        self.client.send(&request).await
    }

    /// A write to one instance; false when the registry does not know it.
    async fn known(&self, method: Method, path: String) -> Result<bool, SourceError> {
        let answer = self.ask(method, path, None).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        answer.good()?;
        Ok(true)
    }

    /// Registers the instance with this status, in the place of whatever has its id.
    async fn write(&self, of: &Registration, status: &'static str) -> Result<(), SourceError> {
        let dirty_ms = self.dirty_after(&of.id);
        let body = self.body(of, status, dirty_ms);
        let path = format!("/apps/{}", app(of));
        self.ask(Method::POST, path, Some(&body)).await?.good()?;
        self.known_as(&of.id, Some(Told { status, dirty_ms }));
        Ok(())
    }

    fn body(&self, of: &Registration, status: &str, dirty_ms: u64) -> Value {
        // A server lets a lease run for twice its duration after the last heartbeat.
        let half = self.life.as_millis().div_ceil(2_000).max(1);
        let third = (self.life.as_secs() / 3).max(1);
        let address = of.address.ip().to_string();
        json!({"instance": {
            "instanceId": of.id,
            "app": app(of),
            "hostName": address,
            "ipAddr": address,
            "vipAddress": of.service.name.as_str(),
            "status": status,
            "overriddenstatus": "UNKNOWN",
            "port": {"$": of.address.port(), "@enabled": "true"},
            "securePort": {"$": 443, "@enabled": "false"},
            "countryId": 1,
            "dataCenterInfo": {
                "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo",
                "name": "MyOwn",
            },
            "leaseInfo": {
                "renewalIntervalInSecs": third,
                "durationInSecs": u64::try_from(half).unwrap_or(u64::MAX),
            },
            "metadata": metadata(of),
            "isCoordinatingDiscoveryServer": "false",
            "lastUpdatedTimestamp": dirty_ms.to_string(),
            "lastDirtyTimestamp": dirty_ms.to_string(),
        }})
    }

    /// Now, but later than what the registry was told last.
    fn dirty_after(&self, id: &str) -> u64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.told(id).map_or(now, |told| now.max(told.dirty_ms + 1))
    }

    fn told(&self, id: &str) -> Option<Told> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(id).copied()
    }

    fn known_as(&self, id: &str, known: Option<Told>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(known) => told.insert(id.to_owned(), known),
            None => told.remove(id),
        };
    }
}

/// As Eureka writes the names of applications.
fn app(of: &Registration) -> String {
    of.service.name.as_str().to_ascii_uppercase()
}

fn at(of: &Registration) -> String {
    format!("/apps/{}/{}", app(of), escaped(&of.id))
}

fn status(health: Health) -> &'static str {
    match health {
        Health::Unknown | Health::Healthy | Health::Degraded => "UP",
        Health::Draining => "OUT_OF_SERVICE",
        Health::Unhealthy => "DOWN",
    }
}

/// Labels whose keys can be names in XML, which other clients ask for, with the words that our own source
/// reads.
fn metadata(of: &Registration) -> Map<String, Value> {
    let named = |key: &str| {
        key.starts_with(|c: char| c.is_ascii_alphabetic())
            && key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let labels = of.labels.clone().into_iter();
    let labels = fitting(labels.filter(|(key, _)| named(key)).collect());
    let place = [("region", &of.locality.region), ("zone", &of.locality.zone)];
    let place = place
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value.as_deref()?.to_owned())));
    let own = [
        ("protocol".to_owned(), of.protocol.as_str().to_owned()),
        ("weight".to_owned(), of.weight.to_string()),
    ];
    let all = labels.into_iter().chain(place).chain(own);
    all.map(|(key, value)| (key, Value::from(value))).collect()
}

#[async_trait]
impl Registrar for EurekaRegistrar {
    fn life(&self) -> Duration {
        self.life
    }

    async fn register(&self, of: &Arc<Registration>, health: Health) -> Result<Lease, SourceError> {
        let status = status(health);
        self.write(of, status).await?;
        // One that was drained by a daemon before this one is out of service until that is taken back.
        let path = format!("{}/status?value={status}", at(of));
        self.known(Method::DELETE, path).await?;
        Ok(Lease {
            of: Arc::clone(of),
            mark: app(of),
        })
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
        let status = status(health);
        let Some(told) = self.told(&lease.of.id) else {
            return Ok(Renewal::Lost);
        };
        // A heartbeat changes no status: Eureka's own clients register again too.
        if told.status != status {
            self.write(&lease.of, status).await?;
            return Ok(Renewal::Kept);
        }
        let path = format!(
            "{}?status={status}&lastDirtyTimestamp={}",
            at(&lease.of),
            told.dirty_ms
        );
        if self.known(Method::PUT, path).await? {
            return Ok(Renewal::Kept);
        }
        Ok(Renewal::Lost)
    }

    async fn drain(&self, lease: &Lease) -> Result<(), SourceError> {
        let path = format!("{}/status?value=OUT_OF_SERVICE", at(&lease.of));
        // One that is not there gets no requests either.
        self.known(Method::PUT, path).await?;
        Ok(())
    }

    async fn deregister(&self, lease: Lease) -> Result<(), SourceError> {
        self.known(Method::DELETE, at(&lease.of)).await?;
        self.known_as(&lease.of.id, None);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
