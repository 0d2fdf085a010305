//! Announces instances as nodes that live with a session: a crash ends it, and with it they go.
//!
//! In: instances, their health. Out: nodes, made again when the session had to be begun anew. Never: leaves a
//! second node of an instance behind: one of a process before this one is taken over or removed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use mesh_model::{config::Access as Ensemble, endpoint::Health};
use tokio::{
    sync::{Notify, OnceCell, mpsc, watch},
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    message::{Access, Ask, code},
    session::{Event, Fault, Session, Zk, session},
};
use crate::{
    registrar::{Lease, Registrar, Registration, Renewal},
    source::SourceError,
};

/// For one call, the wait for a connection included.
const DEADLINE: Duration = Duration::from_secs(8);
/// Members that are read at the same time in the search for one of ours.
const AT_ONCE: usize = 64;

/// What is said of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It takes requests.
    Well,
    /// It is not well.
    Ill,
    /// It finishes what it has.
    Leaving,
}

impl From<Health> for State {
    fn from(health: Health) -> Self {
        match health {
            Health::Unknown | Health::Healthy | Health::Degraded => Self::Well,
            Health::Draining => Self::Leaving,
            Health::Unhealthy => Self::Ill,
        }
    }
}

/// How a layout writes instances.
pub(crate) trait Writing: Send + Sync + 'static {
    /// The directory of the instance's service, below the path.
    fn directory(&self, of: &Registration) -> String;
    /// The node's name; with `true` the server appends a number.
    fn name(&self, of: &Registration) -> (String, bool);
    /// Its data.
    fn data(&self, of: &Registration, state: State) -> Vec<u8>;
    /// Whether the data are of the instance with this id, where its name does not tell.
    fn is_of(&self, data: &[u8], id: &str) -> bool;
}

/// An instance that stands, or should.
#[derive(Debug, Clone)]
struct Standing {
    of: Arc<Registration>,
    state: State,
    /// Whether its node certainly says so.
    told: bool,
    /// The session that its node lives with, and the node's path.
    node: Option<(i64, String)>,
}

struct Shared {
    writing: Arc<dyn Writing>,
    base: String,
    access: Access,
    zk: Zk,
    /// The session; 0: no connection.
    up: watch::Sender<i64>,
    standing: Mutex<BTreeMap<String, Standing>>,
    /// One at a time makes or removes nodes.
    turn: tokio::sync::Mutex<()>,
    trouble: Mutex<Option<String>>,
    again: Notify,
}

struct Running {
    shared: Arc<Shared>,
    _ends: DropGuard,
}

/// Announces to one ensemble.
pub(crate) struct ZookeeperRegistrar {
    ensemble: Ensemble,
    path: String,
    life: Duration,
    writing: Arc<dyn Writing>,
    running: OnceCell<Running>,
}

impl std::fmt::Debug for ZookeeperRegistrar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZookeeperRegistrar")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl ZookeeperRegistrar {
    /// Nothing is written, and no session begun, before the first call.
    pub(crate) fn new(
        ensemble: &Ensemble,
        path: &str,
        life: Duration,
        writing: Arc<dyn Writing>,
    ) -> Self {
        Self {
            ensemble: ensemble.clone(),
            path: path.trim_end_matches('/').to_owned(),
            life,
            writing,
            running: OnceCell::new(),
        }
    }

    async fn shared(&self) -> Result<&Shared, SourceError> {
        let running = self
            .running
            .get_or_try_init(|| async { self.start() })
            .await?;
        Ok(&running.shared)
    }

    fn start(&self) -> Result<Running, SourceError> {
        let Session {
            zk,
            events,
            driver,
            chroot,
        } = session(&self.ensemble, self.life)?;
        let owned = self.ensemble.username.is_some();
        let shared = Arc::new(Shared {
            writing: Arc::clone(&self.writing),
            base: format!("{chroot}{}", self.path),
            access: if owned {
                Access::Creators
            } else {
                Access::Open
            },
            zk,
            up: watch::channel(0).0,
            standing: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            trouble: Mutex::default(),
            again: Notify::new(),
        });
        let stop = CancellationToken::new();
        let tracker = TaskTracker::new();
        tracker.spawn(stop.clone().run_until_cancelled_owned(driver.run()));
        let listening = Arc::clone(&shared).listen(events);
        tracker.spawn(stop.clone().run_until_cancelled_owned(listening));
        let mending = Arc::clone(&shared).mend();
        tracker.spawn(stop.clone().run_until_cancelled_owned(mending));
        Ok(Running {
            shared,
            _ends: stop.drop_guard(),
        })
    }
}

impl Shared {
    fn standing(&self) -> MutexGuard<'_, BTreeMap<String, Standing>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps up with the session.
    async fn listen(self: Arc<Self>, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::Up(session) => {
                    self.up.send_replace(session);
                    self.again.notify_one();
                }
                Event::Down(error) => {
                    self.up.send_replace(0);
                    let text = mesh_model::cause::chain(&error);
                    *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                }
                Event::Changed(..) | Event::Credential | Event::Overflow => {}
            }
        }
    }

    /// Makes the nodes again that went with another session.
    async fn mend(self: Arc<Self>) {
        loop {
            self.again.notified().await;
            let session = *self.up.borrow();
            let lost: Vec<String> = self
                .standing()
                .iter()
                .filter(|(_, one)| one.node.as_ref().is_some_and(|(of, _)| *of != session))
                .map(|(id, _)| id.clone())
                .collect();
            for id in lost {
                // What fails here is made by the next renewal.
                drop(timeout(DEADLINE, self.ensure(&id)).await);
            }
        }
    }

    /// The session, once there is a connection.
    async fn session(&self) -> Result<i64, SourceError> {
        let mut up = self.up.subscribe();
        let session = timeout(DEADLINE / 2, up.wait_for(|session| *session != 0)).await;
        if let Ok(Ok(session)) = session {
            return Ok(*session);
        }
        let trouble = self
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Err(SourceError::Protocol {
            subject: "ZooKeeper".into(),
            what: trouble.unwrap_or_else(|| "there is no connection".into()),
        })
    }

    fn path(&self, relative: &str) -> String {
        format!("{}/{relative}", self.base)
    }

    fn about(path: &str, fault: Fault) -> SourceError {
        match fault {
            Fault::Code(code::NO_AUTH) => SourceError::Auth(path.to_owned()),
            other => SourceError::Protocol {
                subject: path.to_owned(),
                what: other.to_string(),
            },
        }
    }

    /// The instance's node is there, with what should be in it; or it is not wanted any more.
    async fn ensure(&self, id: &str) -> Result<(), SourceError> {
        let _turn = self.turn.lock().await;
        let session = self.session().await?;
        let Some(one) = self.standing().get(id).cloned() else {
            return Ok(());
        };
        let data = self.writing.data(&one.of, one.state);
        let directory = self.path(&self.writing.directory(&one.of));
        if let Some(path) = self.found(&directory, &one.of, session).await? {
            self.ask(&path, Ask::set(&path, &data)).await?;
            self.stands(id, session, path);
            return Ok(());
        }
        let (name, numbered) = self.writing.name(&one.of);
        let path = format!("{directory}/{name}");
        let flags = if numbered { 3 } else { 1 };
        let create = || Ask::create(&path, &data, self.access, flags);
        let made = match self.zk.tell(create()).await {
            Err(Fault::Code(code::NO_NODE)) => {
                self.above(&directory).await?;
                self.zk.tell(create()).await
            }
            other => other,
        };
        let made = made.map_err(|fault| Self::about(&path, fault))?;
        self.stands(id, session, made);
        Ok(())
    }

    fn stands(&self, id: &str, session: i64, path: String) {
        if let Some(one) = self.standing().get_mut(id) {
            one.node = Some((session, path));
            one.told = true;
        }
    }

    /// Our node of an instance that lives with this session. One of another session is removed: it is of a
    /// process before this one.
    async fn found(
        &self,
        directory: &str,
        of: &Registration,
        session: i64,
    ) -> Result<Option<String>, SourceError> {
        let (name, numbered) = self.writing.name(of);
        let names = match self.zk.children(directory, false).await {
            Ok(names) => names,
            Err(Fault::Code(code::NO_NODE)) => return Ok(None),
            Err(fault) => return Err(Self::about(directory, fault)),
        };
        let likely = |one: &String| {
            if numbered {
                one.starts_with(&name)
            } else {
                *one == name
            }
        };
        let paths: Vec<String> = names
            .into_iter()
            .filter(likely)
            .map(|one| format!("{directory}/{one}"))
            .collect();
        let asked: Vec<_> = paths
            .into_iter()
            .map(|path| {
                let zk = self.zk.clone();
                async move {
                    let answer = zk.data(&path, false).await;
                    (path, answer)
                }
            })
            .collect();
        let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
        let mut ours = None;
        while let Some((path, answer)) = answers.next().await {
            let (data, stat) = match answer {
                Ok(found) => found,
                Err(Fault::Code(_)) => continue,
                Err(fault) => return Err(Self::about(&path, fault)),
            };
            if numbered && !self.writing.is_of(&data, &of.id) {
                continue;
            }
            if stat.owner == session && ours.is_none() {
                ours = Some(path);
            } else {
                self.remove(&path).await?;
            }
        }
        Ok(ours)
    }

    /// Makes what is above a node.
    async fn above(&self, directory: &str) -> Result<(), SourceError> {
        let mut path = String::new();
        for name in directory.split('/').filter(|name| !name.is_empty()) {
            path = format!("{path}/{name}");
            let there = self.zk.exists(&path, false).await;
            if there.map_err(|fault| Self::about(&path, fault))?.is_some() {
                continue;
            }
            // Others put their nodes there too.
            match self.zk.tell(Ask::create(&path, b"", Access::Open, 0)).await {
                Ok(_) | Err(Fault::Code(code::NODE_EXISTS)) => {}
                Err(fault) => return Err(Self::about(&path, fault)),
            }
        }
        Ok(())
    }

    async fn ask(&self, path: &str, ask: Ask) -> Result<(), SourceError> {
        let told = self.zk.tell(ask).await;
        told.map(drop).map_err(|fault| Self::about(path, fault))
    }

    async fn remove(&self, path: &str) -> Result<(), SourceError> {
        match self.zk.tell(Ask::delete(path)).await {
            Ok(_) | Err(Fault::Code(code::NO_NODE)) => Ok(()),
            Err(fault) => Err(Self::about(path, fault)),
        }
    }

    /// Says another state of an instance; `Lost` when its node is not there or not ours any more.
    async fn say(&self, id: &str, state: State) -> Result<Renewal, SourceError> {
        let session = self.session().await?;
        let (one, changed) = {
            let mut standing = self.standing();
            let Some(one) = standing.get_mut(id) else {
                return Ok(Renewal::Lost);
            };
            let changed = one.state != state || !one.told;
            one.state = state;
            one.told = !changed;
            (one.clone(), changed)
        };
        let Some((of, path)) = one.node else {
            return Ok(Renewal::Lost);
        };
        if of != session {
            self.ensure(id).await?;
            return Ok(Renewal::Kept);
        }
        if changed {
            let data = self.writing.data(&one.of, state);
            return match self.zk.tell(Ask::set(&path, &data)).await {
                Ok(_) => {
                    self.stands(id, session, path);
                    Ok(Renewal::Kept)
                }
                Err(Fault::Code(code::NO_NODE)) => Ok(Renewal::Lost),
                Err(fault) => Err(Self::about(&path, fault)),
            };
        }
        let there = self.zk.exists(&path, false).await;
        let there = there.map_err(|fault| Self::about(&path, fault))?;
        Ok(match there {
            Some(stat) if stat.owner == session => Renewal::Kept,
            _ => Renewal::Lost,
        })
    }
}

#[async_trait]
impl Registrar for ZookeeperRegistrar {
    fn life(&self) -> Duration {
        self.life
    }

    async fn register(&self, of: &Arc<Registration>, health: Health) -> Result<Lease, SourceError> {
        let shared = self.shared().await?;
        let one = Standing {
            of: Arc::clone(of),
            state: health.into(),
            told: false,
            node: None,
        };
        shared.standing().insert(of.id.clone(), one);
        shared.ensure(&of.id).await?;
        let node = shared
            .standing()
            .get(&of.id)
            .and_then(|one| one.node.clone());
        Ok(Lease {
            of: Arc::clone(of),
            mark: node.map(|(_, path)| path).unwrap_or_default(),
        })
    }

    async fn replace(
        &self,
        old: Lease,
        of: &Arc<Registration>,
        health: Health,
    ) -> Result<Lease, SourceError> {
        let shared = self.shared().await?;
        let directory = |of: &Registration| shared.writing.directory(of);
        if directory(&old.of) != directory(of) || old.of.id != of.id {
            self.deregister(old).await?;
        }
        self.register(of, health).await
    }

    async fn renew(&self, lease: &Lease, health: Health) -> Result<Renewal, SourceError> {
        self.shared().await?.say(&lease.of.id, health.into()).await
    }

    async fn drain(&self, lease: &Lease) -> Result<(), SourceError> {
        let shared = self.shared().await?;
        shared.say(&lease.of.id, State::Leaving).await?;
        Ok(())
    }

    async fn deregister(&self, lease: Lease) -> Result<(), SourceError> {
        let shared = self.shared().await?;
        let _turn = shared.turn.lock().await;
        let session = shared.session().await?;
        let node = shared
            .standing()
            .get(&lease.of.id)
            .and_then(|one| one.node.clone());
        let path = match node {
            Some((of, path)) if of == session => Some(path),
            // After a break it is not known which node stands.
            _ => {
                let directory = shared.path(&shared.writing.directory(&lease.of));
                shared.found(&directory, &lease.of, session).await?
            }
        };
        if let Some(path) = path {
            shared.remove(&path).await?;
        }
        shared.standing().remove(&lease.of.id);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
