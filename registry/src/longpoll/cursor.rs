//! The rules of an index, and how often a service may wake its reader. Time and chance come in.

use std::time::Duration;

/// How long a question may wait for a change: at least, and at most, which is what servers allow.
const WAIT: (Duration, Duration) = (Duration::from_mins(5), Duration::from_mins(10));
/// When nothing changes, all questions together are asked at most this often where servers allow it: three in ten
/// seconds.
const EACH: Duration = Duration::from_millis(3_333);
/// The same for the first one, whose index may be of another server: a server that has just come back may miss what
/// would end it.
const FIRST_WAIT: Duration = Duration::from_secs(3);

/// How long each of so many questions may wait.
pub(crate) fn patience(questions: usize) -> Duration {
    let questions = u32::try_from(questions).unwrap_or(u32::MAX);
    EACH.saturating_mul(questions).clamp(WAIT.0, WAIT.1)
}

/// How something is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Answer when the index is larger than this, or after the time; `None`: at once.
    pub(crate) after: Option<(u64, Duration)>,
    /// True: any server may answer.
    pub(crate) stale: bool,
}

impl Ask {
    /// At once, from any server.
    pub(crate) const NOW: Self = Self {
        after: None,
        stale: true,
    };
    /// At once, from the leader.
    pub(crate) const SURELY: Self = Self {
        after: None,
        stale: false,
    };

    /// When the connection counts as dead: servers add up to a sixteenth to the wait.
    pub(crate) fn deadline(self) -> Duration {
        self.after.map_or(Duration::from_secs(10), |(_, wait)| {
            wait + wait / 16 + Duration::from_secs(5)
        })
    }
}

/// What an answer's index says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The first answer of a row: nothing to compare with.
    First,
    /// Something is new.
    Grown(u64),
    /// The wait ended.
    Same(u64),
    /// Another history, or an old copy: ask the leader from the beginning.
    Backwards,
}

/// Where one reader is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cursor {
    index: Option<u64>,
    settled: bool,
    doubted: bool,
}

impl Cursor {
    /// The next question, which may wait for `patience`; `dice` is uniform in 0.0 to 1.0.
    pub(crate) fn ask(self, dice: f64, patience: Duration) -> Ask {
        let wait = if self.settled { patience } else { FIRST_WAIT };
        let wait = wait.mul_f64(1.0 - dice.clamp(0.0, 1.0) / 10.0);
        Ask {
            after: self.index.map(|index| (index, wait)),
            stale: !self.doubted,
        }
    }

    /// Takes the index of an answer. 0 counts as 1.
    pub(crate) fn took(&mut self, index: u64) -> Step {
        let index = index.max(1);
        let step = match self.index {
            None => Step::First,
            Some(known) if index < known => {
                self.lost();
                return Step::Backwards;
            }
            Some(known) if index == known => Step::Same(index),
            Some(_) => Step::Grown(index),
        };
        self.settled = self.index.is_some();
        self.doubted = false;
        self.index = Some(index);
        step
    }

    /// After an error or a doubt: from the beginning, and the leader is asked.
    pub(crate) fn lost(&mut self) {
        *self = Self {
            index: None,
            settled: false,
            doubted: true,
        };
    }
}

/// How often a reader may be woken: five times at once, then once each `each`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    tokens: f64,
    last_ms: u64,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            tokens: Self::BURST,
            last_ms: 0,
        }
    }
}

impl Bucket {
    const BURST: f64 = 5.0;

    /// Takes one; the time to wait before the next question.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a process fit")]
    pub(crate) fn take(&mut self, now_ms: u64, each: Duration) -> Duration {
        let each_ms = (each.as_millis() as f64).max(1.0);
        let passed = now_ms.saturating_sub(self.last_ms) as f64;
        self.last_ms = now_ms;
        self.tokens = (self.tokens + passed / each_ms).min(Self::BURST) - 1.0;
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(-self.tokens * each_ms / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_only_grows() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.ask(0.5, patience(0)), Ask::NOW);
        assert_eq!(cursor.took(7), Step::First);
        assert_eq!(
            cursor.ask(0.0, patience(0)).after,
            Some((7, FIRST_WAIT)),
            "short at first"
        );
        assert_eq!(cursor.took(7), Step::Same(7));
        assert_eq!(
            cursor.ask(0.0, patience(0)).after,
            Some((7, WAIT.0)),
            "kept on time-out"
        );
        assert!(
            cursor.ask(1.0, patience(0)).after.unwrap().1 < WAIT.0,
            "jitter"
        );
        assert_eq!(cursor.took(9), Step::Grown(9));
        assert_eq!(cursor.took(3), Step::Backwards);
        assert_eq!(
            cursor.ask(0.0, patience(0)),
            Ask::SURELY,
            "the leader says what is true"
        );
        assert_eq!(cursor.took(3), Step::First);
        assert!(cursor.ask(0.0, patience(0)).stale);
        cursor.lost();
        assert_eq!(cursor.took(0), Step::First);
        assert_eq!(
            cursor.ask(0.0, patience(0)).after.unwrap().0,
            1,
            "0 would not block"
        );
    }

    #[test]
    fn many_questions_wait_longer() {
        assert_eq!(patience(90), WAIT.0);
        assert!(patience(160) > Duration::from_secs(530));
        assert_eq!(patience(2_000), WAIT.1);
    }

    #[test]
    fn five_at_once_then_one_each() {
        let (mut bucket, each) = (Bucket::default(), Duration::from_millis(100));
        for _ in 0..5 {
            assert_eq!(bucket.take(1_000, each), Duration::ZERO);
        }
        assert_eq!(bucket.take(1_000, each), each);
        assert_eq!(bucket.take(1_100, each), each);
        assert_eq!(bucket.take(9_000, each), Duration::ZERO);
    }
}
