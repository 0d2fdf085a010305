//! Keeps a request's body, up to 64 KiB, so that it can be sent again to another endpoint.

use super::fields::Fields;

/// Most bytes kept; a longer body makes its request unrepeatable once they have gone by.
pub(crate) const LIMIT: usize = 64 * 1024;

/// What has gone by of a body, and how much of it the current try has had.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    kept: Vec<u8>,
    sent: usize,
    off: bool,
    ended: bool,
    trailers: Option<Box<Fields>>,
}

impl Replay {
    /// Keeps nothing: the request is sent once.
    pub(crate) fn off() -> Self {
        Self {
            off: true,
            ..Self::default()
        }
    }

    /// Keeps what goes by.
    pub(crate) fn on() -> Self {
        Self::default()
    }

    /// True while everything that has gone by is kept.
    pub(crate) fn is_whole(&self) -> bool {
        !self.off
    }

    /// Stops keeping: nothing will be sent again.
    pub(crate) fn stop(&mut self) {
        if self.left().is_empty() {
            *self = Self {
                ended: self.ended,
                trailers: self.trailers.take(),
                ..Self::off()
            };
        } else {
            self.off = true;
        }
    }

    /// Begins a new try.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// What the current try has not had yet.
    pub(crate) fn left(&self) -> &[u8] {
        self.kept.get(self.sent..).unwrap_or_default()
    }

    /// The current try has had so many bytes more of what is kept.
    pub(crate) fn advance(&mut self, count: usize) {
        self.sent = (self.sent + count).min(self.kept.len());
    }

    /// Keeps bytes that go to the current try directly.
    pub(crate) fn record(&mut self, bytes: &[u8]) {
        if self.off {
            return;
        }
        if self.kept.len() + bytes.len() > LIMIT {
            *self = Self::off();
            return;
        }
        self.kept.extend_from_slice(bytes);
        self.sent = self.kept.len();
    }

    /// The body has ended.
    pub(crate) fn end(&mut self, trailers: Option<Box<Fields>>) {
        self.ended = true;
        self.trailers = trailers;
    }

    /// True once the body has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Its trailers.
    pub(crate) fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replays_until_the_limit() {
        let mut replay = Replay::on();
        replay.record(b"hello ");
        replay.record(b"world");
        assert!(replay.left().is_empty());
        replay.rewind();
        assert_eq!(replay.left(), b"hello world");
        replay.advance(6);
        assert_eq!(replay.left(), b"world");
        replay.advance(5);
        replay.record(&vec![0; LIMIT]);
        assert!(!replay.is_whole() && replay.left().is_empty());
    }

    #[test]
    fn stopping_keeps_what_is_due() {
        let mut replay = Replay::on();
        replay.record(b"abc");
        replay.rewind();
        replay.stop();
        assert_eq!((replay.is_whole(), replay.left()), (false, &b"abc"[..]));
    }
}
