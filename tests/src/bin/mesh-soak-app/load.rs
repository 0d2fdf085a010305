//! The clients: mixed calls until the time is over or SIGTERM comes; what failed is told one by one.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

use crate::calls::{Ask, Connection, Outcome};

/// Most failures that are told one by one: the newest, which daemons still remember.
const TOLD: usize = 20_000;

/// Mixed load.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// The service, `host:port`
    #[arg(long)]
    place: String,
    /// Seconds
    #[arg(long)]
    seconds: u64,
    /// Clients at a time
    #[arg(long, default_value_t = 24)]
    clients: u32,
    /// Pause of a client between two calls, in milliseconds
    #[arg(long, default_value_t = 10)]
    pause: u64,
    /// What ids begin with, so that several loads differ
    #[arg(long, default_value = "a")]
    name: String,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Counts {
    calls: u64,
    right: u64,
    refused: u64,
    cut: u64,
    wrong: u64,
    failures: VecDeque<Failure>,
}

#[derive(Debug, Serialize)]
struct Failure {
    /// Milliseconds since the epoch.
    time_ms: u64,
    path: String,
    status: u16,
    mesh_error: Option<String>,
    what: String,
}

impl Load {
    /// Runs and prints the counts.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let counts = Rc::new(RefCell::new(Counts::default()));
        let end = Instant::now() + Duration::from_secs(self.seconds);
        let load = Rc::new(self);
        let told = Rc::new(Cell::new(false));
        let mut terminate = signal(SignalKind::terminate())?;
        LocalSet::new()
            .run_until(async {
                let ends = Rc::clone(&told);
                tokio::task::spawn_local(async move {
                    terminate.recv().await;
                    ends.set(true);
                });
                let clients: Vec<_> = (0..load.clients)
                    .map(|number| {
                        let (load, counts) = (Rc::clone(&load), Rc::clone(&counts));
                        let told = Rc::clone(&told);
                        tokio::task::spawn_local(async move {
                            let goes_on = || Instant::now() < end && !told.get();
                            load.client(number, goes_on, &counts).await;
                        })
                    })
                    .collect();
                for client in clients {
                    drop(client.await);
                }
            })
            .await;
        print(&serde_json::to_string(&*counts.borrow())?);
        Ok(())
    }

    async fn client(&self, number: u32, goes_on: impl Fn() -> bool, counts: &RefCell<Counts>) {
        let h2 = number % 3 == 2;
        let mut connection: Option<Connection> = None;
        let mut calls = 0u32;
        while goes_on() {
            calls += 1;
            let id = format!("{}-{number}-{calls}", self.name);
            let ask = ask(number);
            let path = path(ask, &id);
            // A connection that the other end has closed is replaced, as every client does.
            let usable = match &mut connection {
                Some(open) => open.usable().await && fastrand::u32(0..200) != 0,
                None => false,
            };
            if !usable {
                connection = Connection::open(&self.place, h2).await.ok();
            }
            let outcome = match &mut connection {
                Some(open) => {
                    let call = open.call(&self.place, &path, &id, ask);
                    let bounded = tokio::time::timeout(Duration::from_mins(1), call).await;
                    bounded.unwrap_or_else(|_late| Outcome::Cut("no end within 60 s".to_owned()))
                }
                None => Outcome::Cut("no connection".to_owned()),
            };
            if matches!(outcome, Outcome::Cut(_) | Outcome::Wrong(_)) {
                connection = None;
            }
            count(&mut counts.borrow_mut(), path, outcome);
            tokio::time::sleep(Duration::from_millis(self.pause)).await;
        }
    }
}

/// Mostly small calls; each client has its own mixture.
fn ask(number: u32) -> Ask {
    match (number % 8, fastrand::u32(0..10)) {
        (7, _) => Ask::Slowly(fastrand::usize(50_000..300_000)),
        (_, 0) => Ask::Get(fastrand::usize(100_000..1_000_000)),
        (_, 1) => Ask::Post(fastrand::usize(0..300_000), true),
        (_, 2) => Ask::Post(fastrand::usize(0..300_000), false),
        _ => Ask::Get(fastrand::usize(0..2_000)),
    }
}

fn path(ask: Ask, id: &str) -> String {
    match ask {
        Ask::Get(count) | Ask::Slowly(count) => format!("/bytes/{count}/{id}"),
        Ask::Post(..) => format!("/sum/{id}"),
    }
}

fn count(counts: &mut Counts, path: String, outcome: Outcome) {
    counts.calls += 1;
    let (status, mesh_error, what) = match outcome {
        Outcome::Right => {
            counts.right += 1;
            return;
        }
        Outcome::Refused(status, named) => {
            counts.refused += 1;
            (status, named, String::new())
        }
        Outcome::Cut(what) => {
            counts.cut += 1;
            (0, None, what)
        }
        Outcome::Wrong(what) => {
            counts.wrong += 1;
            (200, None, format!("wrong: {what}"))
        }
    };
    if counts.failures.len() >= TOLD {
        counts.failures.pop_front();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    counts.failures.push_back(Failure {
        time_ms: now
            .ok()
            .and_then(|now| u64::try_from(now.as_millis()).ok())
            .unwrap_or_default(),
        path,
        status,
        mesh_error,
        what,
    });
}

#[expect(clippy::print_stdout, reason = "the result of a command-line program")]
fn print(text: &str) {
    println!("{text}");
}
