//! Bytes that an id decides, and sums of bytes.

/// `count` bytes from a place on.
pub(crate) fn bytes(id: &str, from: usize, count: usize) -> Vec<u8> {
    let seed = sum(id.as_bytes(), START);
    (from..from + count)
        .map(|place| {
            let mixed = (seed ^ place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let [high, ..] = mixed.to_be_bytes();
            high
        })
        .collect()
}

/// Where a sum begins.
pub(crate) const START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits.
pub(crate) fn sum(bytes: &[u8], from: u64) -> u64 {
    bytes.iter().fold(from, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_whole() {
        let whole = bytes("a7", 0, 100);
        assert_eq!([bytes("a7", 0, 33), bytes("a7", 33, 67)].concat(), whole);
        assert_ne!(whole, bytes("a8", 0, 100));
        assert_eq!(sum(b"", START), START);
        // A published vector of FNV-1a.
        assert_eq!(sum(b"foobar", START), 0x8594_4171_f739_67e8);
    }
}
