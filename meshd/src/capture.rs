//! Keeps the kernel and the names process in step with the plan: a name appears behind the rules for what it resolves
//! to, and goes before them.
//!
//! In: compiled plans. Out: an applied intent, put back when something disturbs it, and a names file; or
//! findings. Never: keeps a rule that the plan no longer asks for, or makes anybody wait for nft longer than
//! [`SETTLING`].

use std::{collections::BTreeSet, future::pending, net::IpAddr, sync::Arc, time::Duration};

use mesh_intercept::{Intent, Interceptor, Removal, Settings};
use mesh_model::{
    cause,
    config::Capture,
    finding::{Finding, Severity},
};
use mesh_plan::Compiled;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    fallback,
    ground::Ground,
    names::{self, Entry},
};

/// The longest that anybody waits for the kernel to follow.
const SETTLING: Duration = Duration::from_secs(2);

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

/// What the kernel and the names process are to follow.
#[derive(Debug)]
struct Wanted {
    /// Counts what was wanted, from 1.
    sequence: u64,
    /// `None` on a host that captures nothing.
    intent: Option<Intent>,
    domain: Box<str>,
    names: Vec<Entry>,
}

/// How far the keeper has come.
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    /// The newest that was carried out, or failed.
    sequence: u64,
    /// Something of it failed, and is worth another try.
    failed: bool,
}

/// The handle of the interception and of the names, whether this host captures or not.
#[derive(Debug, Clone)]
pub(crate) struct CaptureRoom {
    wanted: watch::Sender<Option<Arc<Wanted>>>,
    done: watch::Receiver<Done>,
    asked: mpsc::Sender<Asked>,
    captures: bool,
}

impl CaptureRoom {
    /// Starts the keeper; without capture no socket of the kernel is opened.
    pub(crate) fn open(ground: &Arc<Ground>, stop: CancellationToken) -> anyhow::Result<Self> {
        let captures = ground.boot.capture == Capture::Mesh;
        let interceptor = captures
            .then(|| Interceptor::start(Settings::from_boot(&ground.boot)))
            .transpose()?;
        let (wanted, followed) = watch::channel(None);
        let (come, done) = watch::channel(Done::default());
        let (asked, requests) = mpsc::channel(4);
        let keeper = Keeper {
            ground: Arc::clone(ground),
            interceptor,
            followed,
            done: come,
            requests,
            enforced: None,
            names: NamesFile::default(),
            told: BTreeSet::new(),
        };
        ground.tasks.spawn(keeper.run(stop));
        Ok(Self {
            wanted,
            done,
            asked,
            captures,
        })
    }

    /// True when clients' addresses can be kept.
    pub(crate) fn transparent(&self) -> bool {
        self.captures
    }

    /// Follows this plan from now on; what failed of the plan before is tried again.
    pub(crate) fn follow(&self, ground: &Ground, compiled: &Compiled) {
        let intent = self.captures.then(|| intent(ground, compiled));
        let names = fallback::names(compiled);
        let mesh = compiled.snapshot.mesh.as_ref();
        let domain = mesh.map_or("", |mesh| &*mesh.domain);
        let again = self.done.borrow().failed;
        self.wanted.send_if_modified(|wanted| {
            let before = wanted.as_ref();
            let same = before.is_some_and(|before| {
                before.intent == intent && before.names == names && *before.domain == *domain
            });
            if same && !again {
                return false;
            }
            *wanted = Some(Arc::new(Wanted {
                sequence: before.map_or(1, |before| before.sequence + 1),
                intent,
                domain: domain.into(),
                names,
            }));
            true
        });
    }

    /// Waits until the kernel and the names follow what was wanted last, or failed at it; not for longer than nft
    /// takes on a busy host, lest one that hangs holds up who asks.
    pub(crate) async fn settled(&self) {
        let newest = self.wanted.borrow().as_ref().map_or(0, |one| one.sequence);
        let mut done = self.done.clone();
        let come = done.wait_for(|done| done.sequence >= newest);
        _ = tokio::time::timeout(SETTLING, come).await.is_ok();
    }

    /// The bypass marker changed.
    pub(crate) async fn again(&self) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        self.asked
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
        let (answer, answered) = oneshot::channel();
        if self.asked.send(what(answer)).await.is_ok() {
            drop(answered.await);
        }
    }
}

/// What this host wants of the kernel by a plan.
fn intent(ground: &Ground, compiled: &Compiled) -> Intent {
    let addresses = &ground.host.addresses;
    let v4 = addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    let v6 = addresses.iter().find_map(|address| match address {
        IpAddr::V6(address) => Some(*address),
        IpAddr::V4(_) => None,
    });
    fallback::intent(&ground.boot, v4, v6, compiled)
}

/// Owns the interceptor and the names file.
#[derive(Debug)]
struct Keeper {
    ground: Arc<Ground>,
    interceptor: Option<Interceptor>,
    followed: watch::Receiver<Option<Arc<Wanted>>>,
    done: watch::Sender<Done>,
    requests: mpsc::Receiver<Asked>,
    /// What the kernel has.
    enforced: Option<Intent>,
    names: NamesFile,
    /// Code and subject of the findings of the last apply.
    told: BTreeSet<(String, String)>,
}

impl Keeper {
    async fn run(mut self, stop: CancellationToken) {
        let mut released = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.followed.changed(), if !released => {
                    if changed.is_err() {
                        break;
                    }
                    self.follow().await;
                }
                () = disturbed(self.interceptor.as_mut()), if !released => self.reassert().await,
                asked = self.requests.recv() => match asked {
                    Some(Asked::Again(answer)) => drop(answer.send(self.again().await)),
                    Some(Asked::Release(answer)) => {
                        released = true;
                        self.release().await;
                        // Nobody waits for plans that are not followed.
                        self.done.send_modify(|done| done.sequence = u64::MAX);
                        _ = answer.send(()).is_ok();
                    }
                    Some(Asked::Remove(removal, answer)) => {
                        self.remove(removal).await;
                        _ = answer.send(()).is_ok();
                        return;
                    }
                    None => return,
                },
            }
        }
        if let Some(interceptor) = self.interceptor {
            interceptor.stop().await;
        }
    }

    /// Names that go, rules, names that come: in this order no name comes or goes while nothing catches its calls.
    async fn follow(&mut self) {
        let Some(wanted) = self.followed.borrow_and_update().clone() else {
            return;
        };
        let gone = self.names.keep_only(&self.ground, &wanted);
        let ruled = match &wanted.intent {
            Some(intent) if self.enforced.as_ref() != Some(intent) => self.enforce(intent).await,
            _ => Ok(()),
        };
        // Without its rules a name stays what it was; after a boot, the endpoints' own addresses.
        let whole = gone && ruled.is_ok() && self.names.follow(&self.ground, &wanted);
        self.done.send_replace(Done {
            sequence: wanted.sequence,
            failed: !whole,
        });
    }

    /// The kernel once more as the plan wants it: the bypass marker decides over it.
    async fn again(&mut self) -> Result<(), String> {
        let wanted = self.followed.borrow().clone();
        match wanted.as_deref() {
            Some(Wanted {
                intent: Some(intent),
                ..
            }) => self.enforce(intent).await,
            _ => Ok(()),
        }
    }

    async fn enforce(&mut self, intent: &Intent) -> Result<(), String> {
        let Some(interceptor) = &mut self.interceptor else {
            return Ok(());
        };
        match interceptor.apply(intent).await {
            Ok(applied) => {
                tracing::debug!(how = ?applied.how, "interception");
                self.enforced = Some(intent.clone());
                self.ground.raise("capture-failed", "interception", None);
                self.tell(applied.findings);
                Ok(())
            }
            Err(error) => {
                let text = cause::chain(&error);
                self.try_again();
                self.ground
                    .raise("capture-failed", "interception", Some(failed(text.clone())));
                Err(text)
            }
        }
    }

    /// Nobody knows what the kernel has now: the next plan is carried out whole.
    fn try_again(&mut self) {
        self.enforced = None;
        self.done.send_modify(|done| done.failed = true);
    }

    async fn release(&mut self) {
        if let Some(interceptor) = &mut self.interceptor
            && let Err(error) = interceptor.release().await
        {
            tracing::warn!(
                error = cause::chain(&error),
                "new connections are still intercepted"
            );
        }
    }

    async fn remove(&mut self, removal: Removal) {
        if removal == Removal::Everything {
            self.names.write(&self.ground, Box::default(), Vec::new());
        }
        if let Some(interceptor) = &mut self.interceptor
            && let Err(error) = interceptor.remove(removal).await
        {
            tracing::warn!(
                error = cause::chain(&error),
                "interception is not wholly removed"
            );
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
        let Some(interceptor) = &mut self.interceptor else {
            return;
        };
        match interceptor.reassert().await {
            Ok(findings) => {
                for finding in findings {
                    tracing::warn!(%finding, "interception was disturbed");
                }
            }
            Err(error) => {
                self.try_again();
                self.ground.raise(
                    "capture-failed",
                    "interception",
                    Some(failed(cause::chain(&error))),
                );
            }
        }
    }
}

/// Somebody touched what the kernel has of ours; never where nothing is captured.
async fn disturbed(interceptor: Option<&mut Interceptor>) {
    match interceptor {
        Some(interceptor) => interceptor.disturbed().await,
        None => pending().await,
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
struct NamesFile {
    written: Option<(Box<str>, Vec<Entry>)>,
}

impl NamesFile {
    /// Takes out the names that are wanted no longer; true when that is so.
    fn keep_only(&mut self, ground: &Ground, wanted: &Wanted) -> bool {
        let Some((domain, before)) = &self.written else {
            return true;
        };
        let Some(left) = left(before, &wanted.names) else {
            return true;
        };
        let domain = domain.clone();
        self.write(ground, domain, left)
    }

    /// Has the wanted names, and no others; true when that is so.
    fn follow(&mut self, ground: &Ground, wanted: &Wanted) -> bool {
        let same = self
            .written
            .as_ref()
            .is_some_and(|(domain, names)| *domain == wanted.domain && *names == wanted.names);
        same || self.write(ground, wanted.domain.clone(), wanted.names.clone())
    }

    fn write(&mut self, ground: &Ground, domain: Box<str>, names: Vec<Entry>) -> bool {
        let boot = &ground.boot;
        match names::write(&boot.runtime_dir, &boot.state_dir, &domain, &names) {
            Ok(()) => {
                self.written = Some((domain, names));
                ground.raise("names-failed", "names", None);
                true
            }
            Err(error) => {
                ground.raise(
                    "names-failed",
                    "names",
                    Some(Finding::new(
                        "names-failed",
                        Severity::Error,
                        "names",
                        error.to_string(),
                        "make the runtime and state directories writable for meshd",
                    )),
                );
                false
            }
        }
    }
}

/// What is left of the names when those go that are wanted no longer; `None` when none goes.
fn left(before: &[Entry], wanted: &[Entry]) -> Option<Vec<Entry>> {
    let stay: BTreeSet<&str> = wanted.iter().map(|one| one.name.as_str()).collect();
    let stays = |one: &&Entry| stay.contains(one.name.as_str());
    let left: Vec<Entry> = before.iter().filter(stays).cloned().collect();
    (left.len() < before.len()).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, address: &str) -> Entry {
        Entry {
            name: name.to_owned(),
            addresses: vec![address.parse().unwrap()],
            direct: Vec::new(),
        }
    }

    #[test]
    fn names_go_before_the_rules_and_come_after_them() {
        let before = [entry("a", "240.240.0.1"), entry("b", "240.240.0.2")];
        let wanted = [entry("b", "240.240.0.9"), entry("c", "240.240.0.3")];
        // Until the rules are there, b is what it was and c is not yet there.
        assert_eq!(
            left(&before, &wanted),
            Some(vec![entry("b", "240.240.0.2")])
        );
        assert_eq!(left(&before[1..], &wanted), None);
        assert_eq!(left(&[], &wanted), None);
    }
}
