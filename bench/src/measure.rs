//! What the kernel says of processes: CPU time and memory.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;

/// Clock ticks a second in `/proc` (`USER_HZ`, 100 on every Linux of today).
const TICKS: f64 = 100.0;

/// CPU time, seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cpu {
    /// In the program.
    pub(crate) user: f64,
    /// In the kernel on its behalf.
    pub(crate) system: f64,
}

impl Cpu {
    /// Both.
    pub(crate) fn total(self) -> f64 {
        self.user + self.system
    }

    /// What was used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            user: self.user - before.user,
            system: self.system - before.system,
        }
    }
}

/// CPU time of the processes so far, with all their threads.
pub(crate) fn cpu(pids: &[i32]) -> anyhow::Result<Cpu> {
    let mut sum = Cpu::default();
    for pid in pids {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("process {pid} has ended"))?;
        let (user, system) = times(&text).context("no times in /proc/PID/stat")?;
        sum.user += user / TICKS;
        sum.system += system / TICKS;
    }
    Ok(sum)
}

/// The 12th and 13th fields behind the name, which is in parentheses and may hold anything.
fn times(stat: &str) -> Option<(f64, f64)> {
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Resident memory of a process in kilobytes.
pub(crate) fn memory(pid: i32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} has ended"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .context("no VmRSS")
}

/// Resident memory of all of them, kilobytes.
pub(crate) fn memory_of(pids: &[i32]) -> anyhow::Result<f64> {
    pids.iter().map(|pid| memory(*pid)).sum()
}

/// Resident memory of each once none has changed by 64 KB for a second, at most eight seconds from now.
pub(crate) fn settled(pids: &[i32]) -> anyhow::Result<Vec<f64>> {
    let read = || {
        pids.iter()
            .map(|pid| memory(*pid))
            .collect::<anyhow::Result<Vec<_>>>()
    };
    let end = Instant::now() + Duration::from_secs(8);
    let mut last = (read()?, Instant::now());
    while Instant::now() < end && last.1.elapsed() < Duration::from_secs(1) {
        thread::sleep(Duration::from_millis(100));
        let now = read()?;
        if now
            .iter()
            .zip(&last.0)
            .any(|(now, then)| (now - then).abs() > 64.0)
        {
            last = (now, Instant::now());
        }
    }
    read()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_and_spaces() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 120 30 0 0 20 0";
        assert_eq!(times(stat), Some((120.0, 30.0)));
    }

    #[test]
    fn this_process_has_both() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(memory(own).unwrap() > 100.0);
        assert!(cpu(&[own]).is_ok());
    }
}
