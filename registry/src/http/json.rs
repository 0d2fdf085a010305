//! JSON bodies as they travel, plain or gzip, read without holding the unpacked text.
//!
//! Never: unpacks more than [`MAX_UNPACKED`], or takes a stream that ends early.

use std::io::{self, BufReader, Read};

use flate2::read::MultiGzDecoder;
use serde::de::DeserializeSeed;

/// Most bytes of one answer once it is unpacked.
pub const MAX_UNPACKED: u64 = 256 << 20;

/// A reader that fails beyond its limit, where [`Read::take`] would pretend the end.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        let taken = u64::try_from(count).unwrap_or(u64::MAX);
        self.left = self
            .left
            .checked_sub(taken)
            .ok_or_else(|| io::Error::other(format!("more than {MAX_UNPACKED} bytes unpacked")))?;
        Ok(count)
    }
}

/// Reads one JSON document into what `seed` makes of it. `encoding` is the `content-encoding` of the answer.
pub(super) fn read<'de, S: DeserializeSeed<'de>>(
    encoding: Option<&str>,
    body: &'de [u8],
    seed: S,
) -> Result<S::Value, String> {
    match encoding.map(str::trim) {
        None | Some("" | "identity") => {
            let mut document = serde_json::Deserializer::from_slice(body);
            finished(seed.deserialize(&mut document), || document.end())
        }
        Some("gzip" | "x-gzip") => unpacked(body, MAX_UNPACKED, seed),
        Some(other) => Err(format!(
            "content-encoding {} was not asked for",
            other.escape_debug()
        )),
    }
}

fn unpacked<'de, S: DeserializeSeed<'de>>(
    body: &[u8],
    limit: u64,
    seed: S,
) -> Result<S::Value, String> {
    let bounded = Bounded {
        inner: MultiGzDecoder::new(body),
        left: limit,
    };
    let mut document =
        serde_json::Deserializer::from_reader(BufReader::with_capacity(64 << 10, bounded));
    finished(seed.deserialize(&mut document), || document.end())
}

fn finished<T>(
    read: serde_json::Result<T>,
    end: impl FnOnce() -> serde_json::Result<()>,
) -> Result<T, String> {
    let value = read.map_err(|error| error.to_string())?;
    end().map_err(|error| error.to_string())?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::{io::Write, marker::PhantomData};

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn numbers(encoding: Option<&str>, body: &[u8]) -> Result<Vec<u32>, String> {
        read(encoding, body, PhantomData)
    }

    #[test]
    fn plain_and_packed_are_the_same() {
        assert_eq!(numbers(None, b"[1,2]").unwrap(), [1, 2]);
        assert_eq!(numbers(Some("gzip"), &packed(b"[1,2]")).unwrap(), [1, 2]);
        assert!(numbers(Some("br"), b"[1]").unwrap_err().contains("br"));
        assert!(numbers(None, b"[1] x").is_err(), "more than one document");
    }

    #[test]
    fn every_cut_is_an_error() {
        let whole = packed(b"[1,2,3,4,5,6]");
        for end in 0..whole.len() {
            assert!(numbers(Some("gzip"), &whole[..end]).is_err(), "{end}");
        }
        let mut broken = whole.clone();
        let last = broken.len() - 5;
        broken[last] ^= 1;
        assert!(numbers(Some("gzip"), &broken).is_err(), "its sum is wrong");
    }

    #[test]
    fn what_unpacks_to_too_much_is_refused() {
        let bomb = packed(&vec![b' '; 1 << 20]);
        assert!(bomb.len() < 8 << 10);
        let read = unpacked(&bomb, 64 << 10, PhantomData::<Vec<u32>>);
        assert!(read.unwrap_err().contains("unpacked"));
    }
}
