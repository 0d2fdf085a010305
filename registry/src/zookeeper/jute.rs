//! The encoding of `ZooKeeper`'s messages: big-endian numbers, text and lists with their length before them.
//!
//! In: bytes of one frame. Out: values, or `Malformed`. Never: panics, or allocates more than the frame holds.

/// A frame that is none: cut, or with a length that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what came is no message of ZooKeeper")]
pub(crate) struct Malformed;

/// Writes one message.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn int(mut self, value: i32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }
    pub(super) fn long(mut self, value: i64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }
    pub(super) fn flag(mut self, value: bool) -> Self {
        self.0.push(u8::from(value));
        self
    }
    /// Bytes with their length before them. Longer ones than a length can say are cut: no frame is that long.
    pub(super) fn bytes(self, value: &[u8]) -> Self {
        let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
        let mut after = self.int(length);
        after
            .0
            .extend(value.iter().take(length.unsigned_abs() as usize));
        after
    }
    pub(super) fn text(self, value: &str) -> Self {
        self.bytes(value.as_bytes())
    }
}

/// Reads one message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*head)
    }
    pub(super) fn int(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }
    pub(super) fn long(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }
    #[cfg(test)]
    pub(super) fn flag(&mut self) -> Result<bool, Malformed> {
        self.array::<1>().map(|[byte]| byte != 0)
    }
    /// Bytes; a length of -1 means none and reads as empty.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        match self.int()? {
            -1 => Ok(&[]),
            length => self.take(usize::try_from(length).map_err(|_negative| Malformed)?),
        }
    }
    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_invalid| Malformed)
    }
    /// A list of texts. Each takes four bytes at least, which bounds the list by the frame.
    pub(super) fn texts(&mut self) -> Result<Vec<String>, Malformed> {
        let count = match self.int()? {
            -1 => 0,
            count => usize::try_from(count).map_err(|_negative| Malformed)?,
        };
        if count > self.0.len() / 4 {
            return Err(Malformed);
        }
        (0..count).map(|_| self.text().map(str::to_owned)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let made = Writer::default()
            .int(-5)
            .long(1 << 40)
            .flag(true)
            .text("/a")
            .bytes(&[1, 2])
            .0;
        let mut reader = Reader(&made);
        assert_eq!(reader.int(), Ok(-5));
        assert_eq!(reader.long(), Ok(1 << 40));
        assert_eq!(reader.flag(), Ok(true));
        assert_eq!(reader.text(), Ok("/a"));
        assert_eq!(reader.bytes(), Ok(&[1_u8, 2][..]));
        assert_eq!(reader.flag(), Err(Malformed));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for length in [-2, 5, i32::MAX] {
            let made = Writer::default().int(length).0;
            assert_eq!(Reader(&made).bytes(), Err(Malformed));
            assert_eq!(Reader(&made).texts(), Err(Malformed));
        }
        let none = Writer::default().int(-1).0;
        assert_eq!(Reader(&none).bytes(), Ok(&[][..]));
        assert_eq!(Reader(&none).texts(), Ok(Vec::new()));
        let invalid = Writer::default().bytes(&[0xff]).0;
        assert_eq!(Reader(&invalid).text(), Err(Malformed));
    }
}
