//! Header compression (RFC 7541): what both ends remember of each other's fields.
//!
//! In and out: lists of fields, in order, as bytes. Never: knows what a field means, apart from those whose values
//! are kept out of the memory because they are secret or differ each time.

/// From bytes to fields.
mod decode;
/// From fields to bytes.
mod encode;
/// The fields that both ends know from the start.
mod fixed;
/// Text in Huffman's code.
mod huffman;
/// Numbers and the lengths of texts.
mod number;

pub(super) use decode::Decoder;
pub(super) use encode::Encoder;

/// Bytes that a table may hold, the usual and the most that is used here.
pub(super) const TABLE: usize = 4096;
/// What an entry counts beside its text (RFC 7541 section 4.1).
const OVERHEAD: usize = 32;

#[cfg(test)]
use decode::Malformed;
#[cfg(test)]
mod tests;
