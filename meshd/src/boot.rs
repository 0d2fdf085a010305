//! The rooms in the order in which they open, and the loop that answers signals and requests.

use std::{net::IpAddr, path::Path, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use arc_swap::{ArcSwap, ArcSwapOption};
use mesh_model::{
    config::{AccessLogDestination, Boot},
    finding::{Finding, Severity},
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin,
    admission::IdentityError,
    adopt, called, clock,
    config::{self, Loaded},
    daemon::{Daemon, Request},
    disk::{self, Disk, DiskError},
    ground::Ground,
    intake::Host,
    metrics, names, notify, questions,
    running::Running,
    shares,
    stop::{Asked, Signals},
    telemetry,
};

/// Runs the daemon until a signal ends it.
pub(crate) fn daemon(config_path: &Path, loaded: Loaded) -> anyhow::Result<ExitCode> {
    telemetry::start();
    runtime()?.block_on(async {
        let (daemon, requests) = open(config_path, loaded)?;
        let listener = admin::open(&daemon.ground.boot.runtime_dir.join("meshd.sock"))?;
        daemon
            .ground
            .tasks
            .spawn(admin::serve(listener, Arc::clone(&daemon)));
        daemon
            .ground
            .tasks
            .spawn(notify::watchdog(daemon.ground.stop.clone()));
        daemon.ground.tasks.spawn(adopt::watch(Arc::clone(&daemon)));
        if crate::admission::exists(&daemon.ground.boot.state_dir) {
            resume(&daemon).await?;
        }
        notify::ready(daemon.phase());
        tracing::info!(phase = daemon.phase(), "ready");
        attend(&daemon, requests).await?;
        close(&daemon).await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Opens the mesh that this host is in. An identity of another machine is not used: the daemon stays idle,
/// so that `meshctl` can say so and join anew.
async fn resume(daemon: &Arc<Daemon>) -> anyhow::Result<()> {
    let loaded = crate::admission::Identity::load(&daemon.ground.boot.state_dir);
    let Err(copied @ IdentityError::Copied(_)) = loaded else {
        return activate(daemon)
            .await
            .map_err(|error| anyhow::anyhow!(error));
    };
    tracing::error!("{copied}");
    daemon.ground.raise(
        "identity-unusable",
        "identity",
        Some(Finding::new(
            "identity-unusable",
            Severity::Error,
            "identity",
            copied.to_string(),
            "`meshctl join --fresh --token-file FILE`",
        )),
    );
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    // The control side has one thread of its own; the data plane's threads never wait for it.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .on_thread_start(behind)
        .build()
        .context("cannot start the control runtime")
}

/// Puts a thread for long work (plans, files) behind those that requests wait for, where they share a CPU. It still
/// gets a tenth of a CPU that is wanted by others; what peers and people wait for runs on the control side's own
/// thread, which is not put behind.
fn behind() {
    // On Linux that is the calling thread's alone. Without it the work is the same.
    if let Err(error) = rustix::process::nice(10) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

fn open(
    config_path: &Path,
    loaded: Loaded,
) -> anyhow::Result<(Arc<Daemon>, mpsc::Receiver<Request>)> {
    let Loaded { boot, live } = loaded;
    for directory in [&boot.state_dir, &boot.runtime_dir] {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let disk = Disk::open(&boot.state_dir)?;
    let host = host(&boot);
    let (requests, asked) = mpsc::channel(8);
    let (live, _) = watch::channel(Arc::new(live));
    let ground = Ground {
        boot,
        live,
        disk: Arc::new(disk),
        host,
        findings: ArcSwap::from_pointee(Vec::new()),
        elected: ArcSwap::default(),
        released: ArcSwap::default(),
        trial: tokio::sync::Notify::new(),
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    let daemon = Daemon {
        config_path: config_path.to_owned(),
        ground: Arc::new(ground),
        running: ArcSwapOption::empty(),
        requests,
    };
    Ok((Arc::new(daemon), asked))
}

fn host(boot: &Boot) -> Host {
    let kernel_name = || {
        nix::unistd::gethostname().map_or_else(
            |_unknown| "host".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
    };
    let addresses = if boot.addresses.is_empty() {
        found_addresses()
    } else {
        boot.addresses.clone()
    };
    Host {
        name: boot.host_name.clone().unwrap_or_else(kernel_name),
        addresses,
        started_ms: clock::now_ms(),
    }
}

/// Addresses of this host that others may reach: not loopback, not link-local; IPv4 first.
fn found_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    let mut found: Vec<IpAddr> = interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            if let Some(v4) = address.as_sockaddr_in() {
                return Some(IpAddr::V4(v4.ip()));
            }
            address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
        })
        .filter(|address| match address {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            IpAddr::V6(v6) => {
                !v6.is_loopback()
                    && (v6.segments().first().copied().unwrap_or(0) & 0xffc0) != 0xfe80
            }
        })
        .collect();
    found.sort_by_key(IpAddr::is_ipv6);
    found.dedup();
    found
}

async fn attend(daemon: &Arc<Daemon>, mut requests: mpsc::Receiver<Request>) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => return Ok(()),
                Asked::Reload => drop(reload(daemon)),
            },
            request = requests.recv() => match request {
                None => return Ok(()),
                Some(Request::Activate(answer)) => told(daemon, answer, activate(daemon).await),
                Some(Request::Leave(answer)) => told(daemon, answer, leave(daemon).await),
                Some(Request::Reload(answer)) => drop(answer.send(reload(daemon))),
                Some(Request::Capture(answer)) => told(daemon, answer, recapture(daemon).await),
            },
        }
    }
}

/// Answers whoever asked, after systemd has been told the phase that came of it.
fn told(daemon: &Daemon, answer: oneshot::Sender<Result<(), String>>, outcome: Result<(), String>) {
    notify::status(daemon.phase());
    drop(answer.send(outcome));
}

/// Opens the rooms of a meshed host.
async fn activate(daemon: &Arc<Daemon>) -> Result<(), String> {
    if daemon.running.load().is_some() {
        return Ok(());
    }
    match Running::open(&daemon.ground, questions::handler(daemon)).await {
        Ok(running) => {
            let running = Arc::new(running);
            let stop = running.stopped();
            let told = called::run(Arc::clone(&running), stop.clone());
            daemon.ground.tasks.spawn(told);
            let counted = shares::run(Arc::clone(&running), stop);
            daemon.ground.tasks.spawn(counted);
            daemon.running.store(Some(running));
            serve_metrics(daemon).await;
            Ok(())
        }
        Err(error) => Err(format!("{error:#}")),
    }
}

async fn serve_metrics(daemon: &Arc<Daemon>) {
    let address = daemon.ground.boot.listeners.metrics;
    let Some(stop) = daemon.running.load_full().map(|running| running.stopped()) else {
        return;
    };
    match metrics::bind(address).await {
        Ok(listener) => {
            daemon
                .ground
                .raise("metrics-listener", "listeners.metrics", None);
            daemon
                .ground
                .tasks
                .spawn(metrics::serve(listener, Arc::clone(daemon), stop));
        }
        Err(error) => daemon.ground.raise(
            "metrics-listener",
            "listeners.metrics",
            Some(Finding::new(
                "metrics-listener",
                Severity::Warning,
                "listeners.metrics",
                format!("cannot listen on {address}: {error}"),
                "choose another address, or end the program that has it",
            )),
        ),
    }
}

async fn leave(daemon: &Arc<Daemon>) -> Result<(), String> {
    let Some(running) = daemon.running.swap(None) else {
        return Ok(());
    };
    running
        .leave(&daemon.ground)
        .await
        .map_err(|error| format!("{error:#}"))
}

/// The bypass marker changed: open or close the interception.
async fn recapture(daemon: &Arc<Daemon>) -> Result<(), String> {
    match daemon.running.load_full() {
        Some(running) => running.recapture().await,
        None => Ok(()),
    }
}

/// Takes what the files say now, or keeps what there is and says why.
fn reload(daemon: &Daemon) -> Result<(), String> {
    notify::reloading();
    let mut outcome = Ok(());
    let read = config::load(&daemon.config_path)
        .map_err(|faults| config::faults_text(&faults).trim().replace('\n', " | "))
        .and_then(|loaded| log_to(daemon, &loaded).map(|()| loaded));
    match read {
        Ok(loaded) => {
            daemon
                .ground
                .raise("bad-configuration", "configuration", None);
            let restart = (loaded.boot != daemon.ground.boot).then(|| {
                Finding::new(
                    "restart-needed",
                    Severity::Warning,
                    "configuration",
                    "settings changed that are only taken at a start",
                    "`systemctl restart meshd` when it suits",
                )
            });
            daemon
                .ground
                .raise("restart-needed", "configuration", restart);
            daemon.ground.released.store(Arc::default());
            daemon.ground.live.send_replace(Arc::new(loaded.live));
            tracing::info!("configuration read again");
        }
        Err(what) => {
            outcome = Err(what.clone());
            let finding = Finding::new(
                "bad-configuration",
                Severity::Error,
                "configuration",
                what,
                "the last good configuration stays; correct the files and `systemctl reload meshd`",
            );
            daemon
                .ground
                .raise("bad-configuration", "configuration", Some(finding));
        }
    }
    notify::ready(daemon.phase());
    outcome
}

/// The access log follows first: it is the one setting that can fail after the check, and then nothing is taken.
fn log_to(daemon: &Daemon, loaded: &Loaded) -> Result<(), String> {
    let Some(running) = daemon.running.load_full() else {
        return Ok(());
    };
    let log = &loaded.live.access_log;
    running.log_to(log).map_err(|error| {
        let place = match &log.destination {
            Some(AccessLogDestination::File(path)) => path.display().to_string(),
            Some(AccessLogDestination::Stdout) | None => "the access log".to_owned(),
        };
        format!("access_log.destination: {place} cannot be opened: {error}")
    })
}

async fn close(daemon: &Arc<Daemon>) {
    let timeout = daemon.ground.live.borrow().drain_timeout;
    notify::stopping(timeout);
    if let Some(running) = daemon.running.swap(None) {
        running.close(timeout).await;
    }
    daemon.ground.stop.cancel();
    daemon.ground.tasks.close();
    if tokio::time::timeout(Duration::from_secs(5), daemon.ground.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("some tasks did not end in time");
    }
}

/// The names process.
pub(crate) fn names(boot: &Boot) -> anyhow::Result<ExitCode> {
    telemetry::start();
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let mut signals = Signals::listen().context("cannot listen to signals")?;
        let running = names::run(names::Settings::from_boot(boot), stop.clone());
        tokio::pin!(running);
        loop {
            tokio::select! {
                ended = &mut running => {
                    ended?;
                    return Ok(ExitCode::SUCCESS);
                }
                asked = signals.next() => if asked == Asked::Stop {
                    stop.cancel();
                },
            }
        }
    })
}

/// Time for a daemon that lives to see the marker and take its own table down.
const OBEYS_WITHIN: Duration = Duration::from_secs(3);

/// Bypass and its undoing, with the daemon dead.
pub(crate) fn bypass(boot: &Boot, enter: bool) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        if !enter {
            mesh_intercept::bypass::leave(&boot.state_dir)?;
            telemetry::print("bypass is off: meshd is in this host's path whenever it runs\n");
            return Ok(ExitCode::SUCCESS);
        }
        let owner_left = mesh_intercept::bypass::enter(&boot.state_dir).await?;
        swept(owner_left).await?;
        telemetry::print("meshd is out of this host's path until `meshctl unbypass`\n");
        Ok(ExitCode::SUCCESS)
    })
}

/// Removes what the kernel still has of us.
pub(crate) fn uninstall(boot: &Boot) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        let owner_left = mesh_intercept::bypass::sweep(&boot.state_dir).await?;
        swept(owner_left).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Fails when the table that only its daemon may take down stands.
async fn swept(owner_left: bool) -> anyhow::Result<()> {
    if owner_left && !mesh_intercept::bypass::owner_gone(OBEYS_WITHIN).await? {
        anyhow::bail!(
            "table inet meshd stands: the meshd that holds it runs and does not take it down, and nobody else can; \
             `systemctl kill -s KILL meshd`, or end that process: the table goes with it"
        );
    }
    Ok(())
}

/// Puts a backup into an empty state directory that no daemon uses.
pub(crate) fn restore(boot: &Boot, text: &str) -> anyhow::Result<ExitCode> {
    let backup =
        serde_json::from_str(text).context("the backup is not what `meshctl backup` writes")?;
    let _unused = disk::lock_if_used(&boot.state_dir).map_err(|error| {
        let used = matches!(error, DiskError::InUse(_));
        let error = anyhow::Error::from(error);
        if used {
            error.context("`systemctl stop meshd` first")
        } else {
            error
        }
    })?;
    crate::admission::restore(&boot.state_dir, &backup)?;
    telemetry::print("restored; start meshd\n");
    Ok(ExitCode::SUCCESS)
}
