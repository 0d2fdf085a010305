//! HTTP/1.1 at a constant rate (open loop): latency is counted from the time that each request was due.
//!
//! One thread keeps the time and writes, one thread for each connection reads. A request that is due while
//! every connection is busy waits in a queue, and its waiting counts.

use std::{
    collections::VecDeque,
    io::Write,
    net::TcpStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Words, http1, print};
use crate::statistic::quantile;

/// What is measured is behind this much warming up.
pub(super) const WARM: Duration = Duration::from_millis(500);
/// After the last request, answers are awaited this long.
pub(super) const GRACE: Duration = Duration::from_secs(2);

struct Shared {
    start: Instant,
    request: Vec<u8>,
    /// Free connections, longest idle first, and due times of requests that found none.
    queue: Mutex<(VecDeque<usize>, VecDeque<u64>)>,
    /// Nanoseconds since the start at which each connection's request was due.
    due: Vec<AtomicU64>,
    writers: Vec<TcpStream>,
    seen: Mutex<Seen>,
}

/// What came back.
#[derive(Default)]
pub(super) struct Seen {
    latencies: Vec<u32>,
    /// Answered with success.
    pub(super) answered: u64,
    /// Answered otherwise, or broken.
    pub(super) failed: u64,
    /// What the first failure was.
    why: Option<String>,
}

impl Seen {
    /// One that failed.
    pub(super) fn fail(&mut self, why: String) {
        self.failed += 1;
        self.why.get_or_insert(why);
    }

    /// One that was answered; both times are since the start.
    pub(super) fn succeed(&mut self, due: Duration, now: Duration) {
        self.answered += 1;
        if due >= WARM {
            let latency = now.saturating_sub(due).as_micros();
            self.latencies
                .push(u32::try_from(latency).unwrap_or(u32::MAX));
        }
    }

    /// Prints the counts and the latencies; what was not answered failed.
    pub(super) fn print(&mut self, sent: u64, seconds: u64) -> anyhow::Result<()> {
        let unanswered = sent.saturating_sub(self.answered + self.failed);
        print(&json!({
            "sent": sent,
            "requests": self.latencies.len(),
            "failed": self.failed + unanswered,
            "why": self.why,
            "seconds": seconds,
            "p50_us": quantile(&mut self.latencies, 500),
            "p90_us": quantile(&mut self.latencies, 900),
            "p99_us": quantile(&mut self.latencies, 990),
            "p999_us": quantile(&mut self.latencies, 999),
        }))
    }
}

/// Calls `each` for each request at the time when it is due, which is given since the start; returns how many.
pub(super) fn pace(
    start: Instant,
    rate: u64,
    total: Duration,
    mut each: impl FnMut(Duration),
) -> u64 {
    let mut sent = 0_u64;
    loop {
        let due = Duration::from_nanos(sent.saturating_mul(1_000_000_000) / rate.max(1));
        if due >= total {
            return sent;
        }
        let elapsed = start.elapsed();
        if elapsed < due {
            thread::sleep(due.saturating_sub(elapsed));
        }
        each(due);
        sent += 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `address`, `host`, `rate` requests a second, `connections`, `seconds`.
pub(crate) fn run(words: &Words) -> anyhow::Result<()> {
    let (rate, seconds): (u64, u64) = (words.number("rate")?, words.number("seconds")?);
    let connections: usize = words.number("connections")?;
    // Sleeps shall end when they are due: the default allows 50 µs more. Not everybody may set it.
    drop(std::fs::write("/proc/self/timerslack_ns", "1"));
    let streams = (0..connections)
        .map(|_| {
            let stream = TcpStream::connect(words.text("address")?)?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let shared = Arc::new(Shared {
        start: Instant::now(),
        request: http1::request(words.text("host")?, "/"),
        queue: Mutex::new(((0..connections).collect(), VecDeque::new())),
        due: (0..connections).map(|_| AtomicU64::new(0)).collect(),
        writers: streams
            .iter()
            .map(TcpStream::try_clone)
            .collect::<Result<_, _>>()?,
        seen: Mutex::default(),
    });
    for (index, stream) in streams.into_iter().enumerate() {
        let shared = Arc::clone(&shared);
        thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(move || shared.read(index, stream))?;
    }
    let total = WARM + Duration::from_secs(seconds);
    let sent = pace(shared.start, rate, total, |due| shared.offer(due));
    finish(&shared, sent, seconds)
}

fn finish(shared: &Shared, sent: u64, seconds: u64) -> anyhow::Result<()> {
    let end = Instant::now() + GRACE;
    while Instant::now() < end {
        let seen = lock(&shared.seen);
        if seen.answered + seen.failed >= sent {
            break;
        }
        drop(seen);
        thread::sleep(Duration::from_millis(5));
    }
    lock(&shared.seen).print(sent, seconds)
}

impl Shared {
    /// Sends on the connection that is idle longest; while there is none the request waits.
    fn offer(&self, due: Duration) {
        let nanos = u64::try_from(due.as_nanos()).unwrap_or(u64::MAX);
        let mut queue = lock(&self.queue);
        if let Some(free) = queue.0.pop_front() {
            drop(queue);
            self.send(free, nanos);
        } else {
            queue.1.push_back(nanos);
        }
    }

    fn send(&self, index: usize, due: u64) {
        if let (Some(slot), Some(mut writer)) = (self.due.get(index), self.writers.get(index)) {
            slot.store(due, Ordering::Release);
            // A broken connection is seen, and counted, by its reader.
            drop(writer.write_all(&self.request));
        }
    }

    fn read(&self, index: usize, mut stream: TcpStream) {
        let mut buffer = Vec::with_capacity(4096);
        loop {
            let answer = http1::answer(&mut stream, &mut buffer);
            let now = self.start.elapsed();
            let due = self
                .due
                .get(index)
                .map_or(0, |due| due.load(Ordering::Acquire));
            let due = Duration::from_nanos(due);
            {
                let mut seen = lock(&self.seen);
                match answer {
                    Ok(200) => seen.succeed(due, now),
                    Ok(status) => seen.fail(format!("status {status}")),
                    Err(error) => {
                        // A connection that ends is not used again; what it carried failed.
                        seen.fail(error.to_string());
                        return;
                    }
                }
            }
            let mut queue = lock(&self.queue);
            if let Some(due) = queue.1.pop_front() {
                drop(queue);
                self.send(index, due);
            } else {
                queue.0.push_back(index);
            }
        }
    }
}
