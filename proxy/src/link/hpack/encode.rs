//! From fields to bytes (RFC 7541 section 3). A field is remembered once it was sent twice, so that values which
//! differ each time do not drive out those which return.

use std::{collections::VecDeque, sync::OnceLock};

use bytes::{BufMut as _, BytesMut};

use super::{OVERHEAD, TABLE, fixed, number};

/// Places in which a field is looked for by its hash; a power of two.
const PLACES: usize = 256;
/// Longest value that is remembered.
const LONG: usize = 256;

#[derive(Debug)]
struct Entry {
    hash: u32,
    text: Box<[u8]>,
    name: usize,
}

/// What we made the other end's decoder remember.
#[derive(Debug)]
pub(in crate::link) struct Encoder {
    /// The newest in front.
    entries: VecDeque<Entry>,
    size: usize,
    limit: usize,
    /// A smaller limit that the other end does not know yet.
    announce: Option<usize>,
    /// How many were ever added: the newest has this number.
    added: u32,
    /// The number of the entry with this hash.
    places: Box<[u32; PLACES]>,
    /// The hash that was seen last in this place and not remembered.
    seen: Box<[u32; PLACES]>,
}

impl Encoder {
    /// Remembers nothing.
    pub(in crate::link) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            limit: TABLE,
            announce: None,
            added: 0,
            places: Box::new([0; PLACES]),
            seen: Box::new([0; PLACES]),
        }
    }

    /// The other end remembers no more than this.
    pub(in crate::link) fn set_limit(&mut self, limit: usize) {
        let limit = limit.min(TABLE);
        if limit != self.limit {
            self.limit = limit;
            self.announce = Some(self.announce.map_or(limit, |least| least.min(limit)));
            self.shrink(limit);
        }
    }

    /// Begins a block.
    pub(in crate::link) fn begin(&mut self, out: &mut BytesMut) {
        if let Some(least) = self.announce.take() {
            number::put(out, least, 5, 0x20);
            if least != self.limit {
                number::put(out, self.limit, 5, 0x20);
            }
        }
    }

    /// Writes a field; the name is in lower case.
    pub(in crate::link) fn field(&mut self, name: &[u8], value: &[u8], out: &mut BytesMut) {
        let hash = hash_of(name, value);
        let fixed = Fixed::get().field(hash, name, value);
        if let Some(index) = fixed.or_else(|| self.find(hash, name, value)) {
            number::put(out, index, 7, 0x80);
        } else if self.has_place_for(name, value) && self.is_second(hash) {
            literal(name, value, 6, 0x40, out);
            self.keep(hash, name, value);
        } else {
            literal(name, value, 4, 0, out);
        }
    }

    /// Writes a field whose value differs each time.
    pub(in crate::link) fn once(name: &[u8], value: &[u8], out: &mut BytesMut) {
        literal(name, value, 4, 0, out);
    }

    /// Writes a field whose value nobody may guess at by the lengths of others: it is never remembered, by nobody
    /// on the way either (RFC 7541 section 7.1.3).
    pub(in crate::link) fn secret(name: &[u8], value: &[u8], out: &mut BytesMut) {
        literal(name, value, 4, 0x10, out);
    }

    fn find(&self, hash: u32, name: &[u8], value: &[u8]) -> Option<usize> {
        let number = *self.places.get(place(hash))?;
        // Entries are counted from the newest.
        let behind = self.added.checked_sub(number)? as usize;
        let entry = self.entries.get(behind).filter(|_| number > 0)?;
        let same =
            entry.hash == hash && entry.text.split_at_checked(entry.name) == Some((name, value));
        same.then(|| fixed::FIELDS.len() + 1 + behind)
    }

    /// True when the field was sent shortly before.
    fn is_second(&mut self, hash: u32) -> bool {
        let Some(seen) = self.seen.get_mut(place(hash)) else {
            return false;
        };
        std::mem::replace(seen, hash) == hash
    }

    /// False for one that would drive out much, or when numbers would begin anew.
    fn has_place_for(&self, name: &[u8], value: &[u8]) -> bool {
        let size = name.len() + value.len() + OVERHEAD;
        value.len() <= LONG && size <= self.limit && self.added < u32::MAX
    }

    fn keep(&mut self, hash: u32, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + OVERHEAD;
        self.shrink(self.limit.saturating_sub(size));
        self.size += size;
        self.added += 1;
        self.entries.push_front(Entry {
            hash,
            text: [name, value].concat().into_boxed_slice(),
            name: name.len(),
        });
        if let Some(slot) = self.places.get_mut(place(hash)) {
            *slot = self.added;
        }
    }

    fn shrink(&mut self, to: usize) {
        while self.size > to {
            let Some(old) = self.entries.pop_back() else {
                return;
            };
            self.size = self.size.saturating_sub(old.text.len() + OVERHEAD);
        }
    }
}

fn literal(name: &[u8], value: &[u8], bits: u8, flags: u8, out: &mut BytesMut) {
    out.reserve(name.len() + value.len() + 12);
    if let Some(index) = Fixed::get().name(name) {
        number::put(out, index, bits, flags);
    } else {
        out.put_u8(flags);
        number::put(out, name.len(), 7, 0);
        out.put_slice(name);
    }
    number::put(out, value.len(), 7, 0);
    out.put_slice(value);
}

fn place(hash: u32) -> usize {
    hash as usize % PLACES
}

/// A quick hash: a wrong guess costs a few bytes, never a wrong field.
fn hash_of(name: &[u8], value: &[u8]) -> u32 {
    const K: u64 = 0x517c_c1b7_2722_0a95;
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(K);
    let mut hash = mix(name.len() as u64, value.len() as u64);
    for bytes in [name, value] {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            hash = mix(hash, chunk.try_into().map_or(0, u64::from_le_bytes));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(chunks.remainder()) {
            *to = *from;
        }
        hash = mix(hash, u64::from_le_bytes(last));
    }
    // 0 stands for nothing.
    u32::try_from(hash >> 32).unwrap_or_default().max(1)
}

/// Numbers of the fixed fields, by the hash of the field, and of the first with a name by the hash of the name.
struct Fixed {
    fields: [u8; PLACES],
    names: [u8; PLACES],
}

/// Places that are looked at from the one that the hash says; 61 entries in 256 places never need more.
const STEPS: usize = 8;

impl Fixed {
    fn get() -> &'static Self {
        static TABLE: OnceLock<Fixed> = OnceLock::new();
        TABLE.get_or_init(|| {
            let mut made = Self {
                fields: [0; PLACES],
                names: [0; PLACES],
            };
            for (number, (name, value)) in (1u8..).zip(&fixed::FIELDS) {
                put(&mut made.fields, hash_of(name, value), number);
                let known = look(&made.names, hash_of(name, b""), |found| found.0 == *name);
                if known.is_none() {
                    put(&mut made.names, hash_of(name, b""), number);
                }
            }
            made
        })
    }

    fn field(&self, hash: u32, name: &[u8], value: &[u8]) -> Option<usize> {
        look(&self.fields, hash, |found| found == (name, value))
    }

    fn name(&self, name: &[u8]) -> Option<usize> {
        look(&self.names, hash_of(name, b""), |found| found.0 == name)
    }
}

fn put(places: &mut [u8; PLACES], hash: u32, number: u8) {
    let free = steps(hash).find(|at| places.get(*at) == Some(&0));
    debug_assert!(free.is_some(), "a fixed field finds no place");
    if let Some(slot) = free.and_then(|at| places.get_mut(at)) {
        *slot = number;
    }
}

fn look(
    places: &[u8; PLACES],
    hash: u32,
    is_it: impl Fn((&'static [u8], &'static [u8])) -> bool,
) -> Option<usize> {
    steps(hash)
        .map_while(|at| places.get(at).copied().filter(|number| *number > 0))
        .map(usize::from)
        .find(|number| fixed::field(*number).is_some_and(&is_it))
}

fn steps(hash: u32) -> impl Iterator<Item = usize> {
    (0..STEPS).map(move |step| (place(hash) + step) % PLACES)
}
