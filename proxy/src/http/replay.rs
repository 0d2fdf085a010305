//! Keeps a request's body, up to 64 KiB, so that it can be sent again to another endpoint.

use super::fields::Fields;

/// Most bytes kept; a longer body makes its request unrepeatable once they have gone by.
pub(crate) const LIMIT: usize = 64 * 1024;

/// What has gone by of a body, and how much of it the current try has had.
#[derive(Debug, Default, Clone)]
pub(crate) struct Replay {
    kept: Vec<u8>,
    sent: usize,
    off: bool,
    ended: bool,
    trailers: Option<Box<Fields>>,
    copy: Option<Box<Copy>>,
}

/// What has gone by, for copies: kept whatever becomes of the tries.
#[derive(Debug, Default, Clone)]
struct Copy {
    body: Vec<u8>,
    too_long: bool,
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

    /// Keeps what goes by for copies too, up to the same limit.
    pub(crate) fn keep_copy(&mut self) {
        self.copy = Some(Box::default());
    }

    /// Once the body has ended: its copy, or `None` when it was too long or none was kept.
    pub(crate) fn take_copy(&mut self) -> Option<Self> {
        let copy = self.copy.take().filter(|copy| !copy.too_long)?;
        Some(Self {
            kept: copy.body,
            off: true,
            ended: true,
            trailers: self.trailers.clone(),
            ..Self::default()
        })
    }

    /// True while everything that has gone by is kept.
    pub(crate) fn is_whole(&self) -> bool {
        !self.off
    }

    /// True while so many bytes more can be kept.
    pub(crate) fn has_room(&self, count: usize) -> bool {
        !self.off && self.kept.len() + count <= LIMIT
    }

    /// Stops keeping: nothing will be sent again.
    pub(crate) fn stop(&mut self) {
        self.off = true;
        if self.left().is_empty() {
            self.kept = Vec::new();
            self.sent = 0;
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
        if let Some(copy) = &mut self.copy
            && !copy.too_long
        {
            if copy.body.len() + bytes.len() > LIMIT {
                copy.body = Vec::new();
                copy.too_long = true;
            } else {
                copy.body.extend_from_slice(bytes);
            }
        }
        if self.off {
            return;
        }
        if !self.has_room(bytes.len()) {
            self.off = true;
            self.kept = Vec::new();
            self.sent = 0;
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
    fn copies_outlive_the_tries() {
        let mut replay = Replay::off();
        replay.keep_copy();
        replay.record(b"hello ");
        replay.stop();
        replay.record(b"world");
        replay.end(None);
        let copy = replay.take_copy().unwrap();
        assert_eq!((copy.left(), copy.has_ended()), (&b"hello world"[..], true));
        assert!(replay.take_copy().is_none());
        replay.keep_copy();
        replay.record(&vec![0; LIMIT]);
        replay.record(b"x");
        assert!(replay.take_copy().is_none(), "too long");
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
