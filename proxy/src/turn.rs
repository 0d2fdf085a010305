//! Turns of a worker on its CPU: short ones, which begin as soon as it wakes.
//!
//! Linux lets a thread that has just begun run for a turn (2.8 ms on most machines) before another one that wakes up
//! gets the CPU, and looks again only when its clock ticks, every 4 ms or so. Since 6.12 a thread may ask for shorter turns, and
//! then begins at once where the longer turn of another stands in its way; it gets no more of the CPU than before. So a request waits
//! less where a worker and long work, of this daemon or of any program, share a CPU. In: the calling thread.
//! Never: another share, priority or policy.

use std::io;

/// The shortest turn that Linux gives, in nanoseconds (`sched_setattr(2)`, from 6.12).
const SHORTEST: u64 = 100_000;

/// Asks for the shortest turns for the calling thread. Older kernels take the wish and do nothing; under another policy than
/// the usual one (`CPUSchedulingPolicy=` of the unit) nothing is asked.
///
/// # Errors
/// What the kernel or a filter of system calls answers; everything is as before then.
pub(crate) fn shorten() -> io::Result<()> {
    let mut attributes = attributes()?;
    if attributes.sched_policy != libc::SCHED_OTHER.unsigned_abs() {
        return Ok(());
    }
    attributes.sched_runtime = SHORTEST;
    #[expect(unsafe_code, reason = "no library has this call")]
    // SAFETY: the kernel reads as many bytes behind the pointer as their first field says, which is what the kernel
    // wrote there: at most the structure's size. 0 is the calling thread.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// How the calling thread is scheduled.
fn attributes() -> io::Result<libc::sched_attr> {
    let size = u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(0);
    let mut attributes = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    #[expect(unsafe_code, reason = "no library has this call")]
    // SAFETY: the kernel writes no more bytes behind the pointer than the third argument says, which is the
    // structure's size; each of its fields may hold any bits.
    let answer = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if answer == 0 {
        Ok(attributes)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_short_and_nothing_else_changes() {
        let before = attributes().unwrap();
        shorten().unwrap();
        let after = attributes().unwrap();
        assert_eq!(after.sched_policy, before.sched_policy);
        assert_eq!(after.sched_nice, before.sched_nice);
        // Kernels before 6.12 tell of no turns.
        if before.sched_runtime > 0 {
            assert_eq!(after.sched_runtime, SHORTEST);
        }
    }
}
