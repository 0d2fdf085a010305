//! Kubernetes Services and `EndpointSlices` as a source.
//!
//! In: the API server's lists and watches. Out: one set per Service and port, the union of its slices.
//! Never: sweeps before every list is complete, or believes a server that lost its memory to be the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream::FuturesUnordered};
use mesh_model::{
    config::{SourceConfig, SourceKind},
    name::{Namespace, ServiceName},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    demand::Demand,
    sink::Sink,
    source::{Capabilities, Reach, Source, SourceError},
    status::SourceStatus,
    version::Version,
};

/// What a cluster has.
mod cluster;
/// The way to the API server.
mod door;
#[cfg(test)]
mod fake;
/// Logins as kubectl writes them.
mod kubeconfig;
/// What a cluster has, one by one.
mod object;
/// Answers to objects.
mod parse;
/// Programs that print credentials.
mod plugin;
#[cfg(test)]
mod tests;
/// A list that is kept.
mod watch;

use cluster::{Cluster, News};
use door::{Door, Place};
use object::{Content, Key, Kind, Object};
use watch::{Scope, Signals, Told, Watcher};

/// Least time between two lists that a doubted removal asks for.
const RECHECK: Duration = Duration::from_secs(10);
/// The order of reading is the order of truth here.
const VERSION: Version = Version::Hash(0);

/// Kubernetes.
#[derive(Debug)]
pub struct KubernetesSource {
    id: String,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    namespaces: Vec<String>,
    selector: String,
    pods: bool,
    only: Option<Arc<BTreeSet<ServiceName>>>,
}

impl KubernetesSource {
    /// Nothing is read yet; `None` when the settings are of another kind.
    pub fn new(config: &SourceConfig) -> Option<Self> {
        let SourceKind::Kubernetes {
            kubeconfig,
            context,
            namespaces,
            selector,
            pod_labels,
        } = &config.kind
        else {
            return None;
        };
        Some(Self {
            id: config.id.clone(),
            kubeconfig: kubeconfig.clone(),
            context: context.clone(),
            namespaces: namespaces.clone(),
            selector: selector.clone(),
            pods: *pod_labels,
            only: config.services.clone().map(Arc::new),
        })
    }

    /// Services, slices and, where they are wanted, pods of each namespace, or of all at once.
    fn scopes(&self) -> Result<Vec<Scope>, SourceError> {
        let mut namespaces = Vec::new();
        for name in &self.namespaces {
            let read = Namespace::new(name);
            namespaces.push(Some(
                read.map_err(|error| SourceError::Config(error.to_string()))?,
            ));
        }
        namespaces.sort();
        namespaces.dedup();
        if namespaces.is_empty() {
            namespaces.push(None);
        }
        let each = |namespace: Option<Namespace>| {
            let scope = |kind, selector: &str| Scope {
                kind,
                namespace: namespace.clone(),
                selector: selector.to_owned(),
            };
            let pods = self.pods.then(|| scope(Kind::Pods, ""));
            [
                scope(Kind::Services, &self.selector),
                scope(Kind::Slices, "kubernetes.io/service-name"),
            ]
            .into_iter()
            .chain(pods)
        };
        Ok(namespaces.into_iter().flat_map(each).collect())
    }
}

#[async_trait]
impl Source for KubernetesSource {
    fn id(&self) -> &str {
        &self.id
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            reach: Reach::All,
            pushes: true,
            health: true,
            weights: false,
            latency: Duration::from_millis(10),
        }
    }
    async fn run(
        &mut self,
        out: Sink,
        _demand: Demand,
        _stop: CancellationToken,
    ) -> Result<Infallible, SourceError> {
        let environment = |name: &str| std::env::var(name).ok();
        let place = Place::new(
            self.kubeconfig.as_deref(),
            self.context.as_deref(),
            environment,
        )?;
        let scopes = self.scopes()?;
        let (tell, told) = mpsc::channel(256);
        let (door, signals) = (Arc::new(Door::new(place)), Signals::default());
        let count = scopes.len();
        let watchers: FuturesUnordered<_> = scopes
            .iter()
            .enumerate()
            .map(|(at, scope)| {
                let watcher = Watcher::new(
                    (at, count),
                    scope.clone(),
                    Arc::clone(&door),
                    tell.clone(),
                    &signals,
                );
                watcher.run()
            })
            .collect();
        let desk = Desk::new(self.only.clone(), self.pods, scopes, out);
        desk.run(watchers, told, &signals).await
    }
}

/// How a watcher is doing.
#[derive(Debug, Default)]
struct Line {
    listed: bool,
    status: Option<SourceStatus>,
}

impl Line {
    /// Whether services can be told of. Without the labels of pods they can: those come when they come.
    fn is_read(&self, scope: &Scope) -> bool {
        let failed = self
            .status
            .as_ref()
            .is_some_and(|status| *status != SourceStatus::Synced);
        self.listed || (scope.kind == Kind::Pods && failed)
    }
}

/// Where the watchers' words become sets.
struct Desk {
    cluster: Cluster,
    scopes: Vec<Scope>,
    lines: BTreeMap<usize, Line>,
    out: Sink,
    /// Everything was listed once, so that what is not there is gone.
    whole: bool,
    /// Something is to be said of the status.
    stirred: bool,
    /// Part of the cluster cannot be understood.
    complained: bool,
}

impl Desk {
    fn new(
        only: Option<Arc<BTreeSet<ServiceName>>>,
        pods: bool,
        scopes: Vec<Scope>,
        out: Sink,
    ) -> Self {
        Self {
            cluster: Cluster::new(only, pods),
            lines: (0..scopes.len()).map(|at| (at, Line::default())).collect(),
            scopes,
            out,
            whole: false,
            stirred: false,
            complained: false,
        }
    }

    async fn run<W: Future<Output = ()>>(
        mut self,
        mut watchers: FuturesUnordered<W>,
        mut told: mpsc::Receiver<(usize, Told)>,
        signals: &Signals,
    ) -> Result<Infallible, SourceError> {
        let mut doubt: Option<Instant> = None;
        let mut rested = Instant::now();
        loop {
            tokio::select! {
                Some((at, word)) = told.recv() => {
                    self.take(at, word);
                    while let Ok((at, word)) = told.try_recv() {
                        self.take(at, word);
                    }
                    self.publish();
                }
                () = self.out.recheck() => doubt = Some(rested.max(Instant::now())),
                () = until(doubt) => {
                    doubt = None;
                    rested = Instant::now() + RECHECK;
                    signals.again.send_modify(|count| *count += 1);
                }
                Some(()) = watchers.next() => {
                    let what = "a watcher ended".into();
                    return Err(SourceError::Protocol { subject: "source".into(), what });
                }
            }
        }
    }

    fn take(&mut self, at: usize, word: Told) {
        let Some((scope, line)) = self.scopes.get(at).zip(self.lines.get_mut(&at)) else {
            return;
        };
        match word {
            Told::Listed {
                objects,
                drift,
                nameless,
            } => {
                line.listed = true;
                let seen: BTreeSet<Key> = objects.iter().map(|object| object.key.clone()).collect();
                self.cluster
                    .sweep(scope.kind, scope.namespace.as_ref(), &seen);
                (0..drift).for_each(|_| self.out.drifted());
                (0..nameless).for_each(|_| self.out.unreadable());
                let kind = scope.kind;
                for object in objects {
                    self.put(kind, object);
                }
            }
            Told::There(object) => {
                let kind = scope.kind;
                self.put(kind, object);
            }
            Told::Gone(key) => self.cluster.gone(scope.kind, &key),
            Told::Well => {
                line.status = Some(SourceStatus::Synced);
                self.stirred = true;
            }
            Told::Trouble(error) => {
                tracing::debug!(source = at, %error, "a list of Kubernetes cannot be kept");
                line.status = Some(SourceStatus::from(&error));
                self.stirred = true;
            }
        }
    }

    fn put(&mut self, kind: Kind, object: Object) {
        let skipped = matches!(&object.content, Content::Slice(slice) if slice.skipped > 0);
        if !self.cluster.put(kind, object) || skipped {
            self.out.unreadable();
        }
    }

    fn publish(&mut self) {
        let mut pairs = self.scopes.iter().zip(self.lines.values());
        if !self.whole && pairs.all(|(scope, line)| line.is_read(scope)) {
            self.whole = true;
            let mut sync = self.out.begin_sync();
            for (key, set) in self.cluster.all() {
                sync.replace(key, set, VERSION);
            }
            sync.commit();
        }
        let (scopes, lines, whole) = (&self.scopes, &self.lines, self.whole);
        // Until everything is listed, only namespaces of which both lists are there are told of.
        let complete = |namespace: &Namespace| {
            let own = |scope: &Scope| scope.namespace.as_ref().is_none_or(|one| one == namespace);
            let mut all = scopes
                .iter()
                .zip(lines.values())
                .filter(|(scope, _)| own(scope));
            whole || all.all(|(scope, line)| line.is_read(scope))
        };
        for news in self.cluster.news(complete) {
            match news {
                News::Set(key, set) => self.out.replace(key, set, VERSION),
                News::Absent(key) => self.out.absent(&key, VERSION),
            }
        }
        let complains = self.cluster.complaint().is_some();
        self.stirred |= std::mem::replace(&mut self.complained, complains) != complains;
        if std::mem::take(&mut self.stirred)
            && let Some(status) = self.status()
        {
            self.out.status(status);
        }
    }

    /// The worst of all lists; `None` while one of them has not been read yet.
    fn status(&self) -> Option<SourceStatus> {
        let all = || self.lines.values().filter_map(|line| line.status.as_ref());
        let refused = all().find(|status| matches!(status, SourceStatus::AuthFailed { .. }));
        let failed = refused.or_else(|| all().find(|status| **status != SourceStatus::Synced));
        if let Some(failed) = failed {
            return Some(failed.clone());
        }
        if let Some(error) = self.cluster.complaint() {
            return Some(SourceStatus::Degraded { error });
        }
        (self.whole && all().count() == self.lines.len()).then_some(SourceStatus::Synced)
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}
