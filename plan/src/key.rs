//! Hashes that are the same on every machine and in every build.

use std::fmt;

/// FNV-1a of 64 bits with a final mix (of `SplitMix64`), so that the low bits of short inputs spread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stable(u64);

impl Stable {
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self
    }
    /// A text, closed so that two texts never run into each other.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes()).bytes(&[0xff])
    }
    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }
    /// Anything by its `Debug` text, which must not depend on the order of a hash map.
    pub(crate) fn debug(&mut self, value: &impl fmt::Debug) -> &mut Self {
        use fmt::Write as _;
        let _infallible = write!(self, "{value:?}");
        self.bytes(&[0xff])
    }
    pub(crate) fn finish(self) -> u64 {
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl fmt::Write for Stable {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Stable;

    #[test]
    fn never_changes() {
        let of = |parts: &[&str]| {
            let mut hash = Stable::new();
            for part in parts {
                hash.text(part);
            }
            hash.finish()
        };
        assert_eq!(of(&["default", "words"]), of(&["default", "words"]));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_eq!(of(&["words"]), 10_034_564_691_585_896_927);
    }
}
