//! One atomic change in, verified; what was lost is put back; all of it goes when asked.
//!
//! In: an [`Intent`]. Out: the kernel follows it when [`Interceptor::apply`] returns, or nothing of the
//! tables changed. Routes and rules come before the tables: no address is captured that cannot be dialled.

use std::{
    error::Error as _,
    fs, io,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use mesh_model::{
    config::{Boot, Mark},
    finding::Finding,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    generation::generation,
    installed::{Installed, TABLE},
    intent::{Intent, reply_mark},
    marker,
    nft::{self, Nft, NftError, Owner},
    routes::{Piece, Range, RouteError, Routes, has_v6},
    rules,
};

/// What came of it.
mod outcome;
/// Which registered ports may be captured.
mod ports;
/// Takes everything away.
mod removal;

pub use outcome::{Applied, ApplyError, How, Removal, RemoveError, Skipped, StartError};
use outcome::{lost, route_finding, skip_finding};
use ports::cleared;
pub(crate) use removal::remove_all;

/// How often everything is looked at when nothing seems disturbed.
const ROUND: Duration = Duration::from_secs(10);
/// Least time between two looks: somebody may be fighting us.
const REST: Duration = Duration::from_millis(200);
/// A listing that takes less than this may be made at every look.
const CHEAP: Duration = Duration::from_millis(50);
/// How long the table of a daemon that has just died may take to vanish.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where things are, and which numbers are ours.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Runtime directory: the last transaction is kept there as `rules.nft`.
    pub runtime_dir: PathBuf,
    /// State directory: the bypass marker, and what is installed.
    pub state_dir: PathBuf,
    /// The `nft` program; found in `PATH` when `None`.
    pub nft: Option<PathBuf>,
    /// Number of our routing table, and priority of the `ip rule` that leads to it; 7700.
    pub table: u32,
}

impl Settings {
    /// What the daemon's configuration says.
    pub fn from_boot(boot: &Boot) -> Self {
        Self::new(&boot.runtime_dir, &boot.state_dir)
    }

    /// The usual numbers.
    pub fn new(runtime_dir: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            runtime_dir: runtime_dir.into(),
            state_dir: state_dir.into(),
            nft: None,
            table: TABLE,
        }
    }
}

/// Keeps the kernel at an intent.
#[derive(Debug)]
pub struct Interceptor {
    settings: Settings,
    nft: Nft,
    owner: Option<Owner>,
    routes: Routes,
    asked: Option<Intent>,
    followed: Option<Followed>,
    next_round: Instant,
    last_wake: Instant,
}

/// What the kernel follows, and how that looked.
#[derive(Debug)]
struct Followed {
    cleared: Intent,
    /// The kernel's count of changes when all was as it should be.
    generation: Option<u32>,
    /// The fallback's content; none: not looked at since the last step.
    fallback: Option<u64>,
    /// Listing a large table costs: not before this.
    next_fingerprint: Instant,
}

impl Interceptor {
    /// Finds nft and opens the kernel's sockets; installs nothing.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let path = settings.runtime_dir.to_string_lossy();
        if !settings.runtime_dir.is_absolute() || path.contains(['"', '*', '?', '[', '{', '\n']) {
            return Err(StartError::Path(settings.runtime_dir));
        }
        Ok(Self {
            nft: Nft::find(settings.nft.as_deref())?,
            routes: Routes::open()?,
            settings,
            owner: None,
            asked: None,
            followed: None,
            next_round: Instant::now() + ROUND,
            last_wake: Instant::now(),
        })
    }

    /// Makes the kernel follow the intent; verified when it returns. Until then, and after an error,
    /// [`Self::reassert`] tries again.
    pub async fn apply(&mut self, intent: &Intent) -> Result<Applied, ApplyError> {
        self.asked = Some(intent.clone());
        let (cleared, skipped) = cleared(intent).await;
        let mut findings: Vec<Finding> = skipped.iter().map(skip_finding).collect();
        if marker::active(&self.settings.state_dir) {
            self.take_down().await?;
            return Ok(Applied {
                how: How::Bypassed,
                skipped,
                findings,
            });
        }
        let previous = Installed::read(&self.settings.state_dir);
        let installed = Installed::of(&cleared, self.settings.table);
        if previous.as_ref() != Some(&installed) {
            self.record(&installed)?;
        }
        for (piece, problem) in self.put_routes(&cleared).await? {
            findings.extend(problem.map(|error| route_finding(&piece, &error)));
        }
        let how = self.put_tables(&cleared).await?;
        if let Some(previous) = previous.filter(|previous| *previous != installed) {
            self.drop_stale(&previous, &installed).await?;
        }
        if how != How::Unchanged {
            self.followed = Some(self.seen(cleared, how).await?);
        }
        Ok(Applied {
            how,
            skipped,
            findings,
        })
    }

    /// Waits until something of ours may be lost, or it is time to look anyway: then call [`Self::reassert`].
    pub async fn disturbed(&mut self) {
        let owner_ended = async {
            match self.owner.as_mut() {
                Some(owner) => owner.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.routes.disturbed() => {}
            () = owner_ended => {}
            () = sleep_until(self.next_round) => {}
        }
        sleep_until(self.last_wake + REST).await;
    }

    /// Puts back what is lost; yields what that was. Takes everything away when bypass was switched on, and
    /// applies the last intent when it was switched off, or could not be applied before.
    pub async fn reassert(&mut self) -> Result<Vec<Finding>, ApplyError> {
        self.routes.settle();
        self.last_wake = Instant::now();
        self.next_round = self.last_wake + ROUND;
        let Some(asked) = self.asked.clone() else {
            return Ok(Vec::new());
        };
        if self.followed.is_none() || marker::active(&self.settings.state_dir) {
            return Ok(self.apply(&asked).await?.findings);
        }
        let mut findings: Vec<Finding> = self.lost_table().await?.into_iter().collect();
        let (cleared, _skipped) = cleared(&asked).await;
        for (piece, problem) in self.put_routes(&cleared).await? {
            findings.push(match problem {
                None => lost(&piece.to_string(), "it was gone and is put back"),
                Some(error) => route_finding(&piece, &error),
            });
        }
        if self
            .followed
            .as_ref()
            .is_none_or(|followed| followed.cleared != cleared)
        {
            self.apply(&asked).await?;
        }
        Ok(findings)
    }

    /// Which table is not as it was; it is forgotten, so that the next apply makes it anew.
    async fn lost_table(&mut self) -> Result<Option<Finding>, ApplyError> {
        let alive = self.owner.as_mut().is_some_and(Owner::alive);
        let Some(followed) = &mut self.followed else {
            return Ok(None);
        };
        let generation = generation();
        if alive && generation.is_some() && generation == followed.generation {
            return Ok(None);
        }
        let (owner, fallback) = rules::versions(&followed.cleared);
        if !alive || self.nft.version_of(rules::OWNER).await? != Some(owner) {
            self.forget_tables().await;
            return Ok(Some(lost(
                "table inet meshd",
                "it was gone and is applied again",
            )));
        }
        let mut intact = self.nft.version_of(rules::FALLBACK).await? == Some(fallback);
        if intact && Instant::now() >= followed.next_fingerprint {
            let begin = Instant::now();
            let found = self.nft.fingerprint(rules::FALLBACK).await?;
            let took = begin.elapsed();
            // At most a twentieth of a processor, and no pause for small tables.
            followed.next_fingerprint = begin
                + if took > CHEAP {
                    took * 20
                } else {
                    Duration::ZERO
                };
            intact = followed.fallback.is_none() || followed.fallback == found;
            followed.fallback = found;
            followed.generation = generation;
        }
        if intact {
            return Ok(None);
        }
        self.followed = None;
        let what = "another program changed it; it is applied again";
        Ok(Some(lost("table inet meshd_fallback", what)))
    }

    /// New connections pass the proxy by from now on; those that it has go on until [`Self::remove`]. Nothing is
    /// put back after this.
    pub async fn release(&mut self) -> Result<(), ApplyError> {
        self.asked = None;
        let alive = self.owner.as_mut().is_some_and(Owner::alive);
        let Some(followed) = self.followed.take().filter(|_| alive) else {
            return Ok(());
        };
        // The marks of replies stay: the answers of programs must still find their way back to the proxy.
        let nothing = Intent {
            virtuals: Vec::new(),
            direct: Vec::new(),
            inbound: Vec::new(),
            ..followed.cleared
        };
        self.transact(&rules::owner_table(&nothing), &nothing).await
    }

    /// Takes down what is installed.
    pub async fn remove(&mut self, removal: Removal) -> Result<(), RemoveError> {
        self.asked = None;
        self.close_owner(removal).await
    }

    async fn close_owner(&mut self, removal: Removal) -> Result<(), RemoveError> {
        self.followed = None;
        if let Some(owner) = self.owner.take() {
            owner.close().await;
        }
        match removal {
            Removal::Stop => self.routes.remove_table(self.settings.table).await?,
            Removal::Everything => {
                remove_all(&self.nft, &self.routes, &self.settings).await?;
            }
        }
        Ok(())
    }

    /// Takes down what must not outlive the daemon, at its end; what stays behind is logged.
    pub async fn stop(mut self) {
        if let Err(error) = self.remove(Removal::Stop).await {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%error, %cause, "interception is not wholly removed");
        }
    }

    async fn take_down(&mut self) -> Result<(), ApplyError> {
        self.close_owner(Removal::Everything)
            .await
            .map_err(|error| match error {
                RemoveError::Nft(error) => ApplyError::Nft(error),
                RemoveError::Routes(error) => ApplyError::Routes(error),
                RemoveError::Record { path, source } => ApplyError::Write { path, source },
            })
    }

    /// Puts missing pieces there. A piece of IPv6 that is refused is a finding, of IPv4 an error.
    async fn put_routes(
        &self,
        intent: &Intent,
    ) -> Result<Vec<(Piece, Option<RouteError>)>, ApplyError> {
        let Mark { value, mask } = intent.mark;
        let reply = reply_mark(intent.mark).ok_or(ApplyError::Mark { value, mask })?;
        let mut missing = Vec::new();
        for piece in pieces(intent, reply, self.settings.table) {
            if self.routes.present(&piece).await? {
                continue;
            }
            match self.routes.put(&piece).await {
                Ok(()) => missing.push((piece, None)),
                Err(error) if piece.v6() => missing.push((piece, Some(error))),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(missing)
    }

    async fn put_tables(&mut self, intent: &Intent) -> Result<How, ApplyError> {
        let alive = self.owner.as_mut().is_some_and(Owner::alive);
        if alive && let Some(followed) = &self.followed {
            if followed.cleared == *intent {
                return Ok(How::Unchanged);
            }
            if let Some(step) = rules::change(&followed.cleared, intent) {
                match self.transact(&step, intent).await {
                    Ok(()) => return Ok(How::Changed),
                    // Somebody changed the fallback under us: whole tables put it right.
                    Err(ApplyError::Nft(NftError::Refused { text })) => {
                        tracing::debug!(%text, "a step was refused; whole tables are applied");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if !alive {
            self.forget_tables().await;
            if !nft::gone(&self.nft, rules::OWNER, PATIENCE).await? {
                return Err(ApplyError::Held);
            }
        }
        let whole = rules::owner_table(intent) + &rules::fallback_table(intent);
        match self.transact(&whole, intent).await {
            // An nft that answers no more is of no use, but its table still stands: take a new one next time.
            Err(error @ ApplyError::Nft(NftError::Slow | NftError::Ended | NftError::Run(_))) => {
                self.forget_tables().await;
                Err(error)
            }
            other => other.map(|()| How::Replaced),
        }
    }

    async fn transact(&mut self, text: &str, intent: &Intent) -> Result<(), ApplyError> {
        let file = self.settings.runtime_dir.join("rules.nft");
        write(&file, text).map_err(|source| ApplyError::Write {
            path: file.clone(),
            source,
        })?;
        let owner = match &mut self.owner {
            Some(owner) => owner,
            none => none.insert(Owner::start(&self.nft)?),
        };
        let (version, _fallback) = rules::versions(intent);
        owner
            .submit(&self.nft, &file, (rules::OWNER, version))
            .await?;
        Ok(())
    }

    async fn forget_tables(&mut self) {
        self.followed = None;
        if let Some(owner) = self.owner.take() {
            owner.close().await;
        }
    }

    /// What is followed now, and how it looks when nobody else has touched it.
    async fn seen(&self, cleared: Intent, how: How) -> Result<Followed, ApplyError> {
        // After a step the listing waits for the next look: a large table takes a while.
        let fallback = match how {
            How::Replaced => self.nft.fingerprint(rules::FALLBACK).await?,
            How::Changed | How::Unchanged | How::Bypassed => None,
        };
        // The count is taken by a look that finds all in order, not here: a change may have slipped in between.
        Ok(Followed {
            cleared,
            generation: None,
            fallback,
            next_fingerprint: Instant::now(),
        })
    }

    fn record(&self, installed: &Installed) -> Result<(), ApplyError> {
        installed
            .write(&self.settings.state_dir)
            .map_err(|source| ApplyError::Write {
                path: self.settings.state_dir.clone(),
                source,
            })
    }

    /// Takes away what an earlier run installed under other numbers.
    async fn drop_stale(&self, previous: &Installed, now: &Installed) -> Result<(), ApplyError> {
        for range in previous
            .ranges
            .iter()
            .filter(|range| !now.ranges.contains(range))
        {
            self.routes.remove_range(*range).await?;
        }
        if previous.table != now.table {
            self.routes.remove_table(previous.table).await?;
        }
        Ok(())
    }
}

/// The routes and rules of an intent, in the order in which they are put there.
fn pieces(intent: &Intent, reply: u32, table: u32) -> Vec<Piece> {
    let (v4, v6) = (intent.virtual_v4, intent.virtual_v6);
    let mut pieces = vec![Piece::Virtual {
        range: Range {
            network: IpAddr::V4(v4.0),
            prefix: v4.1,
        },
        source: IpAddr::V4(intent.source_v4()),
    }];
    if has_v6() {
        pieces.push(Piece::Virtual {
            range: Range {
                network: IpAddr::V6(v6.0),
                prefix: v6.1,
            },
            source: IpAddr::V6(intent.source_v6()),
        });
    }
    for v6 in [false, true] {
        if v6 && !has_v6() {
            continue;
        }
        pieces.push(Piece::All { v6, table });
        pieces.push(Piece::Rule {
            v6,
            mark: reply,
            mask: intent.mark.mask,
            table,
        });
    }
    pieces
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    let mut opened = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)?;
    io::Write::write_all(&mut opened, text.as_bytes())
}

/// Gives a caller without its own loop one: waits, puts back, and hands on what was found.
pub async fn keep(interceptor: &mut Interceptor, mut told: impl FnMut(Vec<Finding>)) {
    loop {
        interceptor.disturbed().await;
        match interceptor.reassert().await {
            Ok(findings) if findings.is_empty() => {}
            Ok(findings) => told(findings),
            Err(error) => {
                told(vec![lost(
                    "interception",
                    &format!("it cannot be put back: {error}"),
                )]);
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
