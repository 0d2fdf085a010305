//! Child processes with logs, ended by pid when dropped.

use std::{
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::{sys::signal::Signal, unistd::Pid};

use crate::wait::within;

/// A running program whose output goes to a file.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    log: PathBuf,
    name: String,
}

impl Child {
    /// Starts `command`; standard output and error go to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| log.display().to_string())?;
        let process = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            process,
            log: log.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).unwrap_or_default()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(nix::sys::signal::kill(Pid::from_raw(self.pid()), signal)?)
    }

    /// Waits for its end.
    pub fn wait(&mut self, deadline: Duration) -> anyhow::Result<std::process::ExitStatus> {
        within(deadline, || match self.process.try_wait()? {
            Some(status) => Ok(status),
            None => bail!("{} still runs", self.name),
        })
    }

    /// True while it runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            drop(self.process.kill());
            drop(self.process.wait());
        }
        if std::thread::panicking() {
            tell(&format!(
                "--- log of {} ---\n{}\n",
                self.name,
                tail(&self.log(), 60)
            ));
        }
    }
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("\n")
}

/// Prints to standard error.
#[expect(clippy::print_stderr, reason = "people read it when a test fails")]
pub fn tell(text: &str) {
    eprint!("{text}");
}

/// Prints a line to standard error.
pub fn say(text: &str) {
    tell(&format!("{text}\n"));
}

/// Runs a command to its end; a failure carries its output.
pub fn run<S: AsRef<OsStr>>(words: &[S]) -> anyhow::Result<String> {
    let Some((program, arguments)) = words.split_first() else {
        bail!("no command")
    };
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let shown = words
        .iter()
        .map(|word| word.as_ref().to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    finished(&shown, &output.with_context(|| shown.clone())?)
}

/// The standard output of a command that worked.
pub fn finished(shown: &str, output: &Output) -> anyhow::Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    bail!(
        "{shown}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Splits a line at spaces and runs it.
pub fn sh(line: &str) -> anyhow::Result<String> {
    run(&line.split_whitespace().collect::<Vec<_>>())
}
