//! An order-independent fingerprint of a set: BLAKE3 of each item, summed modulo 2^256, with the count.
//!
//! A sum, not an exclusive-or: with the latter an attacker finds colliding sets by linear algebra.

/// The running sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SetSum {
    limbs: [u64; 4],
    count: u64,
}

impl SetSum {
    /// Adds an item that is not in the set.
    pub(crate) fn add(&mut self, item: &[u8]) {
        let hash = blake3::hash(item);
        let mut carry = 0u64;
        for (limb, chunk) in self.limbs.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
            let word = chunk.try_into().map_or(0, u64::from_le_bytes);
            let (sum, first) = limb.overflowing_add(word);
            let (sum, second) = sum.overflowing_add(carry);
            *limb = sum;
            carry = u64::from(first) + u64::from(second);
        }
        self.count += 1;
    }
    /// Number of items.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
    /// The fingerprint; of the empty set it is all zero.
    pub(crate) fn short(&self) -> [u8; 16] {
        let mut out = [0u8; 16];
        if self.count == 0 {
            return out;
        }
        let mut hasher = blake3::Hasher::new();
        for limb in self.limbs {
            hasher.update(&limb.to_le_bytes());
        }
        hasher.update(&self.count.to_le_bytes());
        hasher.finalize_xof().fill(&mut out);
        out
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for SetSum {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut sum = Self::default();
        items.into_iter().for_each(|item| sum.add(item.as_ref()));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_content_does() {
        let sum = |items: &[&str]| items.iter().copied().collect::<SetSum>().short();
        assert_eq!(sum(&["a", "b", "c"]), sum(&["c", "a", "b"]));
        assert_ne!(sum(&["a", "b"]), sum(&["a", "b", "c"]));
        assert_ne!(sum(&["a", "b"]), sum(&["a", "d"]));
        assert_eq!(sum(&[]), [0; 16]);
    }
}
