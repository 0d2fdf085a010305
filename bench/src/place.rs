//! What every room of the bench needs of a host: CPUs, ports, programs on it, settings of its kernel.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;
use mesh_tests::{Host, process::finished, wait::within};

/// CPU of the proxies.
pub(crate) const PROXY_CPU: &str = "0";
/// CPU of load and backends.
pub(crate) const LOAD_CPU: &str = "1";
/// Sizes of TCP buffers: least, first, most.
pub(crate) const USUAL_BUFFERS: &str = "4096 131072 6291456";

/// Ports of the backends, the same on every host.
pub(crate) mod backend {
    /// nginx, HTTP/1.1.
    pub(crate) const HTTP1: u16 = 8080;
    /// nginx, HTTP/2 without TLS.
    pub(crate) const HTTP2: u16 = 8081;
    /// gRPC.
    pub(crate) const GRPC: u16 = 8082;
    /// TCP.
    pub(crate) const TCP: u16 = 9000;
}

/// A program on this host and CPU.
pub(crate) fn pinned(host: &Host, cpu: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = host.command("taskset");
    command.args(["-c", cpu]).arg(program);
    command
}

/// A setting of the host's own network, below `/proc/sys/net`.
pub(crate) fn setting(host: &Host, key: &str, value: &str) -> anyhow::Result<()> {
    let line = format!("echo {value} >/proc/sys/net/{key}");
    let output = host.command("sh").args(["-c", &line]).output()?;
    finished(key, &output).map(drop)
}

/// Waits until something listens on the port of the host.
pub(crate) fn listens(host: &Host, port: u16) -> anyhow::Result<()> {
    within(Duration::from_secs(20), || {
        let table = host.command("cat").arg("/proc/net/tcp").output()?;
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        let wanted = format!(":{port:04X} ");
        let found = table.lines().skip(1).any(|line| {
            let mut words = line.split_whitespace().skip(1);
            let local = words.next().unwrap_or_default();
            format!("{local} ").ends_with(&wanted) && words.nth(1) == Some("0A")
        });
        anyhow::ensure!(found, "nothing listens on port {port} of {}", host.name);
        Ok(())
    })
}

/// Writes a file in a folder that is made on the way.
pub(crate) fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    Ok(path)
}
