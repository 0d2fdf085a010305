//! Hashes that are the same on every machine and in every build.

use std::{fmt, net::SocketAddr};

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
    /// An address, as [`Self::text`] of what it is written as; common ones without writing it.
    pub(crate) fn address(&mut self, address: SocketAddr) -> &mut Self {
        use fmt::Write as _;
        if let SocketAddr::V4(address) = address {
            for (number, octet) in address.ip().octets().into_iter().enumerate() {
                let between: &[u8] = if number == 0 { b"" } else { b"." };
                self.bytes(between).decimal(octet.into());
            }
            self.bytes(b":").decimal(address.port());
        } else {
            let _infallible = write!(self, "{address}");
        }
        self.bytes(&[0xff])
    }
    fn decimal(&mut self, number: u16) {
        let mut begun = false;
        for unit in [10_000, 1_000, 100, 10, 1] {
            let digit = u8::try_from(number / unit % 10).unwrap_or_default();
            begun |= digit > 0 || unit == 1;
            if begun {
                self.bytes(&[b'0' + digit]);
            }
        }
    }
    /// A number in one step: for long lists that only this build compares.
    pub(crate) fn word(&mut self, word: u64) -> &mut Self {
        self.0 = (self.0 ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
        self
    }
    /// A text, a word at a time.
    pub(crate) fn words(&mut self, text: &str) -> &mut Self {
        let (whole, rest) = text.as_bytes().as_chunks::<8>();
        for chunk in whole {
            self.word(u64::from_le_bytes(*chunk));
        }
        let rest = rest
            .iter()
            .fold(0, |all, byte| (all << 8) | u64::from(*byte));
        self.word(rest)
            .word(u64::try_from(text.len()).unwrap_or_default())
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
    use proptest::prelude::*;

    use super::Stable;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_address_is_its_text(address in any::<std::net::SocketAddr>()) {
            let mut text = Stable::new();
            text.text(&address.to_string());
            prop_assert_eq!(Stable::new().address(address).finish(), text.finish());
        }

        #[test]
        fn words_tell_texts_apart(one in "[a-c]{0,20}", other in "[a-c]{0,20}") {
            let of = |text: &str| Stable::new().words(text).finish();
            prop_assert_eq!(of(&one) == of(&other), one == other);
        }
    }

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
