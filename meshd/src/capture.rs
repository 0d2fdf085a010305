//! Keeps the kernel and the names process in step with the plan.
//!
//! In: compiled plans. Out: an applied intent, put back when something disturbs it, and a names file; or
//! findings. Never: keeps a rule that the plan no longer asks for, or makes the planner wait for nft.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use mesh_intercept::{Intent, Interceptor, Removal, Settings};
use mesh_model::{
    cause,
    config::Capture,
    finding::{Finding, Severity},
};
use mesh_plan::Compiled;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{fallback, ground::Ground, names};

/// What the keeper of the kernel is asked to do, beside following intents.
#[derive(Debug)]
enum Asked {
    /// Look again: the bypass marker changed.
    Again(oneshot::Sender<Result<(), String>>),
    /// Leave new connections alone; what is held goes on.
    Release(oneshot::Sender<()>),
    /// Take this much away and end.
    Remove(Removal, oneshot::Sender<()>),
}

/// The handle of the interception, whether this host captures or not.
#[derive(Debug, Clone)]
pub(crate) struct CaptureRoom {
    intents: Option<watch::Sender<Option<Intent>>>,
    asked: Option<mpsc::Sender<Asked>>,
}

impl CaptureRoom {
    /// Opens the kernel's sockets and starts the keeper; without capture nothing is opened.
    pub(crate) fn open(ground: &Arc<Ground>, stop: CancellationToken) -> anyhow::Result<Self> {
        if ground.boot.capture != Capture::Mesh {
            return Ok(Self {
                intents: None,
                asked: None,
            });
        }
        let interceptor = Interceptor::start(Settings::from_boot(&ground.boot))?;
        let (intents, followed) = watch::channel(None);
        let (asked, requests) = mpsc::channel(4);
        let keeper = Keeper {
            ground: Arc::clone(ground),
            interceptor,
            followed,
            requests,
            told: BTreeSet::new(),
        };
        ground.tasks.spawn(keeper.run(stop));
        Ok(Self {
            intents: Some(intents),
            asked: Some(asked),
        })
    }

    /// True when clients' addresses can be kept.
    pub(crate) fn transparent(&self) -> bool {
        self.intents.is_some()
    }

    /// Follows this plan from now on.
    pub(crate) fn follow(&self, ground: &Ground, compiled: &Compiled) {
        let Some(intents) = &self.intents else { return };
        let addresses = &ground.host.addresses;
        let v4 = addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        let v6 = addresses.iter().find_map(|address| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        });
        let intent = fallback::intent(&ground.boot, v4, v6, compiled);
        intents.send_if_modified(|current| {
            let changed = current.as_ref() != Some(&intent);
            if changed {
                *current = Some(intent);
            }
            changed
        });
    }

    /// The bypass marker changed.
    pub(crate) async fn again(&self) -> Result<(), String> {
        let Some(asked) = &self.asked else {
            return Ok(());
        };
        let (answer, answered) = oneshot::channel();
        asked
            .send(Asked::Again(answer))
            .await
            .map_err(|_closed| "interception has ended".to_owned())?;
        answered
            .await
            .map_err(|_closed| "interception has ended".to_owned())?
    }

    /// From now on new connections pass the proxy by; plans are no longer followed.
    pub(crate) async fn release(&self) {
        self.ask(Asked::Release).await;
    }

    /// Takes down what must go, and waits for it.
    pub(crate) async fn remove(&self, removal: Removal) {
        self.ask(|answer| Asked::Remove(removal, answer)).await;
    }

    async fn ask(&self, what: impl FnOnce(oneshot::Sender<()>) -> Asked) {
        let Some(asked) = &self.asked else { return };
        let (answer, answered) = oneshot::channel();
        if asked.send(what(answer)).await.is_ok() {
            drop(answered.await);
        }
    }
}

/// Owns the interceptor.
#[derive(Debug)]
struct Keeper {
    ground: Arc<Ground>,
    interceptor: Interceptor,
    followed: watch::Receiver<Option<Intent>>,
    requests: mpsc::Receiver<Asked>,
    /// Code and subject of the findings of the last apply.
    told: BTreeSet<(String, String)>,
}

impl Keeper {
    async fn run(mut self, stop: CancellationToken) {
        let mut released = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.interceptor.stop().await;
                    return;
                }
                changed = self.followed.changed(), if !released => {
                    if changed.is_err() {
                        self.interceptor.stop().await;
                        return;
                    }
                    drop(self.apply().await);
                }
                () = self.interceptor.disturbed(), if !released => self.reassert().await,
                asked = self.requests.recv() => match asked {
                    Some(Asked::Again(answer)) => drop(answer.send(self.apply().await)),
                    Some(Asked::Release(answer)) => {
                        released = true;
                        if let Err(error) = self.interceptor.release().await {
                            tracing::warn!(error = cause::chain(&error), "new connections are still intercepted");
                        }
                        _ = answer.send(()).is_ok();
                    }
                    Some(Asked::Remove(removal, answer)) => {
                        if let Err(error) = self.interceptor.remove(removal).await {
                            tracing::warn!(error = cause::chain(&error), "interception is not wholly removed");
                        }
                        _ = answer.send(()).is_ok();
                        return;
                    }
                    None => return,
                },
            }
        }
    }

    async fn apply(&mut self) -> Result<(), String> {
        let Some(intent) = self.followed.borrow_and_update().clone() else {
            return Ok(());
        };
        match self.interceptor.apply(&intent).await {
            Ok(applied) => {
                tracing::debug!(how = ?applied.how, "interception");
                self.ground.raise("capture-failed", "interception", None);
                self.tell(applied.findings);
                Ok(())
            }
            Err(error) => {
                let text = cause::chain(&error);
                self.ground
                    .raise("capture-failed", "interception", Some(failed(text.clone())));
                Err(text)
            }
        }
    }

    /// Tells what the kernel's state asks people to do; what was told before and is solved is taken back.
    fn tell(&mut self, findings: Vec<Finding>) {
        let before = std::mem::take(&mut self.told);
        for finding in findings {
            let about = (finding.code.clone(), finding.subject.clone());
            self.ground.raise(&about.0, &about.1, Some(finding));
            self.told.insert(about);
        }
        for (code, subject) in before.difference(&self.told) {
            self.ground.raise(code, subject, None);
        }
    }

    async fn reassert(&mut self) {
        match self.interceptor.reassert().await {
            Ok(findings) => {
                for finding in findings {
                    tracing::warn!(%finding, "interception was disturbed");
                }
            }
            Err(error) => {
                self.ground.raise(
                    "capture-failed",
                    "interception",
                    Some(failed(cause::chain(&error))),
                );
            }
        }
    }
}

fn failed(what: String) -> Finding {
    Finding::new(
        "capture-failed",
        Severity::Error,
        "interception",
        what,
        "the rules before stay in force; `meshctl check` says what nft and meshd lack",
    )
}

/// The names file as it was written last.
#[derive(Debug, Default)]
pub(crate) struct NamesFile {
    written: Option<Vec<names::Entry>>,
}

impl NamesFile {
    /// Writes the names of this plan when they differ.
    pub(crate) fn follow(&mut self, ground: &Ground, compiled: &Compiled) {
        let entries = fallback::names(compiled);
        if self.written.as_ref() == Some(&entries) {
            return;
        }
        let domain = compiled
            .snapshot
            .mesh
            .as_ref()
            .map_or("", |mesh| &*mesh.domain);
        match names::write(
            &ground.boot.runtime_dir,
            &ground.boot.state_dir,
            domain,
            &entries,
        ) {
            Ok(()) => {
                self.written = Some(entries);
                ground.raise("names-failed", "names", None);
            }
            Err(error) => ground.raise(
                "names-failed",
                "names",
                Some(Finding::new(
                    "names-failed",
                    Severity::Error,
                    "names",
                    error.to_string(),
                    "make the runtime and state directories writable for meshd",
                )),
            ),
        }
    }
}
