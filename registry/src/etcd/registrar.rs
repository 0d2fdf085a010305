//! Announces instances to etcd: one key each, under a lease of its own that this daemon keeps.
//!
//! In: instances and their health. Out: keys below the prefix, in the layout of the source. Never: writes a
//! key without a lease, or touches a key that is under somebody else's.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use etcd_client::{Client, Error, GetOptions, PutOptions};
use mesh_model::{
    config::{RegistrationConfig, SourceKind},
    endpoint::Health,
};
use tokio::{sync::Mutex, time::timeout};

use super::{
    failure::{failed, is_leaseless},
    layout::Layout,
    link::{ANSWER, Dialer, Link},
};
use crate::{
    registrar::{Lease, Registrar, Registration, Renewal},
    source::SourceError,
};

/// The shortest life of a lease: less would be lost in the election of a leader.
const LEAST_LIFE: Duration = Duration::from_secs(10);

/// Announces to one cluster.
pub struct EtcdRegistrar {
    layout: Layout,
    life: Duration,
    /// Made anew after every failure, so that the next call finds a member that lives.
    shared: Mutex<Shared>,
}

struct Shared {
    dialer: Dialer,
    link: Option<Arc<Link>>,
}

impl std::fmt::Debug for EtcdRegistrar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdRegistrar")
            .field("layout", &self.layout)
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

impl EtcdRegistrar {
    /// Nothing is written yet.
    pub fn new(config: &RegistrationConfig) -> Result<Self, SourceError> {
        let SourceKind::Etcd {
            access,
            layout,
            prefix,
        } = &config.source.kind
        else {
            return Err(SourceError::Config("it is not etcd".into()));
        };
        Ok(Self {
            layout: Layout::new(*layout, prefix),
            life: config.ttl.max(LEAST_LIFE),
            shared: Mutex::new(Shared {
                dialer: Dialer::new(access)?,
                link: None,
            }),
        })
    }

    async fn way(&self) -> Result<Arc<Link>, SourceError> {
        let mut shared = self.shared.lock().await;
        if let Some(link) = &shared.link {
            return Ok(Arc::clone(link));
        }
        let link = Arc::new(Box::pin(shared.dialer.connect()).await?);
        shared.link = Some(Arc::clone(&link));
        Ok(link)
    }

    /// One question; after a failure the next one goes to another connection.
    async fn ask<T, F>(
        &self,
        question: impl FnOnce(Client) -> F,
    ) -> Result<Result<T, Error>, SourceError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let way = Box::pin(self.way()).await?;
        let answer = timeout(ANSWER, Box::pin(question(way.client.clone())))
            .await
            .unwrap_or_else(|_late| Err(Error::IoError(std::io::ErrorKind::TimedOut.into())));
        match answer {
            Err(error) if !is_leaseless(&error) => {
                let mut shared = self.shared.lock().await;
                if shared
                    .link
                    .as_ref()
                    .is_some_and(|known| Arc::ptr_eq(known, &way))
                {
                    shared.link = None;
                    shared.dialer.leave();
                }
                Err(failed(&way.subject, error))
            }
            other => Ok(other),
        }
    }

    /// Writes the key under a lease, or takes it away where it must not be used. False: the lease is gone.
    async fn write(
        &self,
        of: &Registration,
        health: Health,
        lease: i64,
    ) -> Result<bool, SourceError> {
        let key = self.layout.key(of);
        let written = match self.layout.value(of, health) {
            Some(value) => {
                let options = PutOptions::new().with_lease(lease);
                self.ask(|mut client| async move { client.put(key, value, Some(options)).await })
                    .await?
                    .is_ok()
            }
            None => self
                .ask(|mut client| async move { client.delete(key, None).await })
                .await?
                .is_ok(),
        };
        Ok(written)
    }

    async fn revoke(&self, lease: i64) -> Result<(), SourceError> {
        // One that is not there any more is as good.
        let _gone = self
            .ask(|mut client| async move { client.lease_revoke(lease).await })
            .await?;
        Ok(())
    }
}

fn number(lease: &Lease) -> Result<i64, SourceError> {
    let wrong = |_not_a_number| SourceError::Protocol {
        subject: lease.of.id.clone(),
        what: "its lease has no number".into(),
    };
    lease.mark.parse().map_err(wrong)
}

#[async_trait]
impl Registrar for EtcdRegistrar {
    fn life(&self) -> Duration {
        self.life
    }

    async fn register(&self, of: &Arc<Registration>, health: Health) -> Result<Lease, SourceError> {
        let seconds = i64::try_from(self.life.as_secs()).unwrap_or(i64::MAX);
        let granted = self
            .ask(|mut client| async move { client.lease_grant(seconds, None).await })
            .await?;
        let gone = || SourceError::Protocol {
            subject: of.id.clone(),
            what: "its lease was gone at once".into(),
        };
        let id = granted.map_err(|_leaseless| gone())?.id();
        if !self.write(of, health, id).await? {
            return Err(gone());
        }
        Ok(Lease {
            of: Arc::clone(of),
            mark: id.to_string(),
        })
    }

    async fn replace(
        &self,
        old: Lease,
        of: &Arc<Registration>,
        health: Health,
    ) -> Result<Lease, SourceError> {
        let id = number(&old)?;
        if self.layout.key(&old.of) != self.layout.key(of) {
            // The new one first: there is no moment without either.
            let lease = self.register(of, health).await?;
            self.revoke(id).await?;
            return Ok(lease);
        }
        if self.write(of, health, id).await? {
            return Ok(Lease {
                of: Arc::clone(of),
                ..old
            });
        }
        self.register(of, health).await
    }

    async fn renew(&self, lease: &Lease, health: Health) -> Result<Renewal, SourceError> {
        let id = number(lease)?;
        // Answers once the lease has been renewed, or was not found.
        let kept = self
            .ask(|mut client| async move { client.lease_keep_alive(id).await.map(drop) })
            .await?;
        if kept.is_err() {
            return Ok(Renewal::Lost);
        }
        let (key, value) = (
            self.layout.key(&lease.of),
            self.layout.value(&lease.of, health),
        );
        let found = self
            .ask(|mut client| async move { client.get(key, Some(GetOptions::new())).await })
            .await?;
        let Ok(found) = found else {
            return Ok(Renewal::Lost);
        };
        let kept = match (found.kvs().first(), value) {
            // Somebody else's, or taken away by somebody.
            (Some(kv), _) if kv.lease() != id => false,
            (Some(kv), Some(value)) if kv.value() == value.as_bytes() => true,
            (None, Some(_)) if self.layout.value(&lease.of, Health::Draining).is_some() => false,
            (None, None) => true,
            (_, _) => self.write(&lease.of, health, id).await?,
        };
        Ok(if kept { Renewal::Kept } else { Renewal::Lost })
    }

    async fn drain(&self, lease: &Lease) -> Result<(), SourceError> {
        self.write(&lease.of, Health::Draining, number(lease)?)
            .await
            .map(drop)
    }

    async fn deregister(&self, lease: Lease) -> Result<(), SourceError> {
        self.revoke(number(&lease)?).await
    }
}
