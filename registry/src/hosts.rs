//! Host names that registries give instead of addresses: resolved here, again and again.
//!
//! In: the names in all views, a way to look one up. Out: their addresses. Never: takes addresses away because a
//! look-up failed; a name that is gone keeps its last ones until the registry takes the endpoint out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

/// A name is looked up again after this: the system's resolver tells no lifetimes.
const AGAIN: Duration = Duration::from_secs(30);
/// After a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// For one look-up.
const LONGEST: Duration = Duration::from_secs(5);
/// Look-ups at the same time.
const AT_ONCE: usize = 16;

type Looking = Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>>;

/// A way to look a name up.
#[derive(Clone)]
pub struct Lookup(Arc<dyn Fn(String) -> Looking + Send + Sync>);

impl Lookup {
    /// Looks names up with this.
    pub fn new<F, L>(look: L) -> Self
    where
        L: Fn(String) -> F + Send + Sync + 'static,
        F: Future<Output = std::io::Result<Vec<IpAddr>>> + Send + 'static,
    {
        Self(Arc::new(move |name| Box::pin(look(name))))
    }
}

impl Default for Lookup {
    /// The system's resolver: `/etc/hosts`, DNS, whatever the machine is set to.
    fn default() -> Self {
        Self::new(|name| async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip().to_canonical()).collect())
        })
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup")
    }
}

/// What is known of names.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    due: BTreeMap<Arc<str>, Instant>,
}

impl Hosts {
    /// Looks up what of `wanted` is due; what was found, and how long to wait for the next.
    pub(crate) async fn look(
        &mut self,
        lookup: &Lookup,
        wanted: &BTreeSet<Arc<str>>,
    ) -> (BTreeMap<Arc<str>, Arc<[IpAddr]>>, Duration) {
        self.due.retain(|name, _| wanted.contains(name));
        let now = Instant::now();
        let mut due: Vec<Arc<str>> = wanted
            .iter()
            .filter(|name| self.due.get(*name).is_none_or(|at| *at <= now))
            .cloned()
            .collect();
        let mut found = BTreeMap::new();
        let mut running = JoinSet::new();
        while !(due.is_empty() && running.is_empty()) {
            while running.len() < AT_ONCE
                && let Some(name) = due.pop()
            {
                let looking = (lookup.0)(name.to_string());
                running.spawn(async move { (name, tokio::time::timeout(LONGEST, looking).await) });
            }
            let Some(Ok((name, result))) = running.join_next().await else {
                continue;
            };
            let wait = match result {
                Ok(Ok(addresses)) if !addresses.is_empty() => {
                    let distinct: BTreeSet<IpAddr> = addresses.into_iter().collect();
                    found.insert(Arc::clone(&name), distinct.into_iter().collect());
                    AGAIN
                }
                failed => {
                    let why = match failed {
                        Ok(Ok(_)) => "it has no address".to_owned(),
                        Ok(Err(error)) => error.to_string(),
                        Err(_late) => "no answer in time".to_owned(),
                    };
                    tracing::warn!(%name, why, "the host name of an endpoint cannot be resolved");
                    AFTER_FAILURE
                }
            };
            let wait = wait.mul_f64(0.9 + fastrand::f64() / 5.0);
            self.due.insert(name, Instant::now() + wait);
        }
        let next = self.due.values().min();
        let rest = next.map_or(AGAIN, |at| at.saturating_duration_since(Instant::now()));
        (found, rest.max(Duration::from_millis(100)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn names_are_looked_up_again_and_a_failure_finds_nothing() {
        let wanted = BTreeSet::from([Arc::from("a.test"), Arc::from("b.test")]);
        let lookup = Lookup::new(|name| async move {
            match name.as_str() {
                "a.test" => Ok(vec![
                    IpAddr::from([10, 0, 0, 2]),
                    IpAddr::from([10, 0, 0, 1]),
                    IpAddr::from([10, 0, 0, 2]),
                ]),
                _ => Err(std::io::Error::other("gone")),
            }
        });
        let mut hosts = Hosts::default();
        let (found, rest) = hosts.look(&lookup, &wanted).await;
        assert_eq!(found.len(), 1);
        assert_eq!(
            found["a.test"].as_ref(),
            [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])]
        );
        assert!(rest <= AFTER_FAILURE.mul_f64(1.1));
        let (found, _) = hosts.look(&lookup, &wanted).await;
        assert!(found.is_empty(), "nothing is due");
        tokio::time::advance(AGAIN * 2).await;
        let (found, _) = hosts.look(&lookup, &wanted).await;
        assert_eq!(found.len(), 1, "it is due again");
    }
}
