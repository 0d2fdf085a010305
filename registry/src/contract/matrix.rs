//! Every case against every source: one line per case, which the test runner makes into a table.
//!
//! In: a name for the row, a maker of worlds. Out: `contract: <source> <case>: pass` or `n/a (<reason>)` on
//! standard output. Never: leaves a case out; a hook that nobody wrote fails after the last case.

use std::{future::Future, io::Write, panic::AssertUnwindSafe, time::Instant};

use futures_util::FutureExt;

use super::{Hook, Na, Registered, Setup, World, run::Run, up};
use crate::contract::run::{HOLD, PATIENCE};

/// What only the far side can show: the cases of the process, of the credentials, of the size.
mod cases;

/// The cases, in the order of the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// The first sync is complete.
    InitialSync,
    /// An added endpoint and an added service are seen.
    Add,
    /// A removed endpoint goes at once.
    Remove,
    /// An endpoint that changes in place is seen changed.
    Change,
    /// A change of health is seen.
    HealthFlip,
    /// A mass removal is held, and then counts.
    MassRemoval,
    /// IPv6 addresses and host names come through.
    Addresses,
    /// Bodies that end early change nothing.
    Cut,
    /// Two sources have one service, and neither disturbs the other.
    TwoSources,
    /// A server that answers nothing is noticed and changes nothing.
    Freeze,
    /// A killed server changes nothing.
    Kill,
    /// It comes back as it was.
    RestartKept,
    /// It comes back empty: that is a mass removal.
    RestartEmpty,
    /// A revoked token changes nothing, a new one is used.
    Token,
    /// A new certificate of a new authority is used.
    Certificate,
    /// 10,000 endpoints of a real server, 100,000 of a fake.
    Scale,
}

impl Case {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::InitialSync,
        Self::Add,
        Self::Remove,
        Self::Change,
        Self::HealthFlip,
        Self::MassRemoval,
        Self::Addresses,
        Self::Cut,
        Self::TwoSources,
        Self::Freeze,
        Self::Kill,
        Self::RestartKept,
        Self::RestartEmpty,
        Self::Token,
        Self::Certificate,
        Self::Scale,
    ];

    /// Its word in lines and tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::InitialSync => "initial-sync",
            Self::Add => "add",
            Self::Remove => "remove",
            Self::Change => "change",
            Self::HealthFlip => "health-flip",
            Self::MassRemoval => "mass-removal",
            Self::Addresses => "addresses",
            Self::Cut => "cut-body",
            Self::TwoSources => "two-sources",
            Self::Freeze => "sigstop",
            Self::Kill => "kill-9",
            Self::RestartKept => "restart-kept",
            Self::RestartEmpty => "restart-empty",
            Self::Token => "token",
            Self::Certificate => "certificate",
            Self::Scale => "scale",
        }
    }
}

/// The row that is being made.
struct Row<'s> {
    source: &'s str,
    unwritten: Vec<&'static str>,
}

impl Row<'_> {
    /// Runs a case and says how it ended. A panic is said and goes on.
    async fn cell(&mut self, case: Case, work: impl Future<Output = Hook>) {
        let began = Instant::now();
        let ended = AssertUnwindSafe(work).catch_unwind().await;
        let took = began.elapsed().as_millis();
        match ended {
            Ok(Ok(())) => self.say(case, &format!("pass ({took} ms)")),
            Ok(Err(Na::Unwritten)) => {
                self.say(case, "missing");
                self.unwritten.push(case.word());
            }
            Ok(Err(reason)) => self.say(case, &format!("n/a ({reason})")),
            Err(panic) => {
                self.say(case, "FAIL");
                std::panic::resume_unwind(panic);
            }
        }
    }

    /// One whole line at once, so that tests that run side by side do not mix.
    fn say(&self, case: Case, how: &str) {
        let line = format!("contract: {} {}: {how}\n", self.source, case.word());
        let _unseen = std::io::stdout().lock().write_all(line.as_bytes());
    }
}

/// Every case. `make` gives a world for a setup; one world serves the plain cases, one after the other.
pub async fn matrix<W: World>(source: &str, make: impl Fn(Setup) -> Hook<W>) {
    let mut row = Row {
        source,
        unwritten: Vec::new(),
    };
    let mut plain = made(&make, Setup::Plain);
    row.cell(Case::InitialSync, cases::initial_sync(&mut plain))
        .await;
    row.cell(Case::Add, cases::add(&mut plain)).await;
    row.cell(Case::Remove, cases::remove(&mut plain)).await;
    row.cell(Case::Change, cases::change(&mut plain)).await;
    row.cell(Case::HealthFlip, cases::health_flip(&mut plain))
        .await;
    row.cell(Case::MassRemoval, cases::mass_removal(&mut plain))
        .await;
    row.cell(Case::Addresses, cases::addresses(&mut plain))
        .await;
    row.cell(Case::Cut, cases::cut(&mut plain)).await;
    row.cell(Case::TwoSources, cases::two_sources(&mut plain))
        .await;
    row.cell(Case::Freeze, cases::freeze(&mut plain)).await;
    row.cell(Case::Kill, cases::kill(&mut plain)).await;
    row.cell(Case::RestartKept, cases::restart_kept(&mut plain))
        .await;
    row.cell(Case::RestartEmpty, cases::restart_empty(&mut plain))
        .await;
    drop(plain);
    row.cell(Case::Token, async {
        cases::token(&mut make(Setup::Token)?).await
    })
    .await;
    row.cell(Case::Certificate, async {
        cases::certificate(&mut make(Setup::Tls)?).await
    })
    .await;
    row.cell(Case::Scale, async {
        cases::scale(&mut make(Setup::Large)?).await
    })
    .await;
    assert!(
        row.unwritten.is_empty(),
        "{source}: nobody wrote the hooks of {:?}",
        row.unwritten
    );
}

#[expect(
    clippy::panic,
    reason = "a world that cannot be made fails the test that runs the suite"
)]
fn made<W: World>(make: &impl Fn(Setup) -> Hook<W>, setup: Setup) -> W {
    make(setup).unwrap_or_else(|reason| panic!("there is no {setup:?} world: {reason}"))
}
