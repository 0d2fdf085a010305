//! What I have, compactly: fingerprints of a set, of its buckets, and listings of the buckets that differ.
//!
//! Small sets are listed at once; large ones first compare 256 buckets, so that one difference in ten
//! thousand items costs kilobytes. Items begin with a hash, so the buckets are even.

use std::collections::BTreeSet;

use crate::{
    fingerprint::SetSum,
    wire::{Buckets, Have, SetKind, SetState},
};

/// Sets up to this size are listed whole.
const LIST_WHOLE: usize = 256;
/// Aim for the bytes of one listing.
const LISTING: usize = 256 * 1024;

/// The items of a set, each of the width that the kind has.
pub(crate) type Items = BTreeSet<Vec<u8>>;

/// Width of an item.
pub(crate) fn width(kind: SetKind) -> usize {
    match kind {
        SetKind::Unspecified => 1,
        SetKind::Grants => 16,
        SetKind::Commits => 32,
        SetKind::Hosts => 36,
    }
}

/// Width of a key: the part of an item by which it is asked for.
pub(crate) fn key_width(kind: SetKind) -> usize {
    match kind {
        SetKind::Hosts => 16,
        other => width(other),
    }
}

/// The fingerprint of a whole set.
pub(crate) fn state(kind: SetKind, items: &Items) -> SetState {
    let sum: SetSum = items.iter().collect();
    SetState {
        kind: kind.into(),
        count: sum.count(),
        sum: sum.short().to_vec(),
    }
}

fn bucket(item: &[u8]) -> u8 {
    item.first().copied().unwrap_or(0)
}

fn bucket_sums(items: &Items) -> Vec<u8> {
    let mut sums = vec![SetSum::default(); 256];
    for item in items {
        if let Some(sum) = sums.get_mut(usize::from(bucket(item))) {
            sum.add(item);
        }
    }
    sums.iter().flat_map(SetSum::short).collect()
}

/// What to answer to a differing fingerprint.
#[derive(Debug)]
pub(crate) enum Answer {
    Buckets(Buckets),
    Have(Vec<Have>),
}

/// Answers a set whose fingerprint differs from ours.
pub(crate) fn answer(kind: SetKind, items: &Items) -> Answer {
    if items.len() <= LIST_WHOLE {
        let items = items.iter().flatten().copied().collect();
        return Answer::Have(vec![Have {
            kind: kind.into(),
            covered: Vec::new(),
            items,
        }]);
    }
    Answer::Buckets(Buckets {
        kind: kind.into(),
        sums: bucket_sums(items),
    })
}

/// Lists our items in the buckets that differ from `theirs`.
pub(crate) fn differing(kind: SetKind, items: &Items, theirs: &[u8]) -> Vec<Have> {
    let mut out = Vec::new();
    let mut covered = [0u8; 32];
    let mut listed = Vec::new();
    let ours = bucket_sums(items);
    for ((index, our), their) in (0u8..=255)
        .zip(ours.chunks_exact(16))
        .zip(theirs.chunks_exact(16))
    {
        if our == their {
            continue;
        }
        if let Some(byte) = covered.get_mut(usize::from(index / 8)) {
            *byte |= 1 << (index % 8);
        }
        let inside = items
            .range(vec![index]..)
            .take_while(|item| bucket(item) == index);
        listed.extend(inside.flatten().copied());
        if listed.len() >= LISTING {
            let items = std::mem::take(&mut listed);
            out.push(Have {
                kind: kind.into(),
                covered: covered.to_vec(),
                items,
            });
            covered = [0; 32];
        }
    }
    if covered != [0; 32] {
        out.push(Have {
            kind: kind.into(),
            covered: covered.to_vec(),
            items: listed,
        });
    }
    out
}

/// Splits ours and theirs: items that they lack, items that we lack. Both may hold versions of one key.
pub(crate) fn compare(kind: SetKind, ours: &Items, have: &Have) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let inside = |item: &[u8]| {
        let index = bucket(item);
        have.covered.is_empty()
            || have
                .covered
                .get(usize::from(index / 8))
                .is_some_and(|byte| byte >> (index % 8) & 1 == 1)
    };
    let theirs: BTreeSet<&[u8]> = have
        .items
        .chunks_exact(width(kind))
        .filter(|item| inside(item))
        .collect();
    let they_lack = ours
        .iter()
        .filter(|item| inside(item) && !theirs.contains(item.as_slice()))
        .cloned()
        .collect();
    let we_lack = theirs
        .into_iter()
        .filter(|item| !ours.contains(*item))
        .map(<[u8]>::to_vec)
        .collect();
    (they_lack, we_lack)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(number: u32) -> Vec<u8> {
        blake3::hash(&number.to_le_bytes()).as_bytes().to_vec()
    }

    proptest! {
        /// Comparing reaches equality for any two sets, by listing or by buckets.
        #[test]
        fn exchange_finds_every_difference(
            common in 0u32..600, left in 0u32..40, right in 0u32..40,
        ) {
            let kind = SetKind::Commits;
            let ours: Items = (0..common).chain(10_000..10_000 + left).map(item).collect();
            let theirs: Items = (0..common).chain(20_000..20_000 + right).map(item).collect();
            let listings = match answer(kind, &theirs) {
                Answer::Have(have) => have,
                Answer::Buckets(buckets) => {
                    // We list ours to them; the roles are swapped below.
                    let listings = differing(kind, &ours, &buckets.sums);
                    let mut lack = (0, 0);
                    for have in &listings {
                        let (they, we) = compare(kind, &theirs, have);
                        lack = (lack.0 + they.len(), lack.1 + we.len());
                    }
                    prop_assert_eq!(lack, (right as usize, left as usize));
                    return Ok(());
                }
            };
            let (they, we) = compare(kind, &ours, &listings[0]);
            prop_assert_eq!((they.len(), we.len()), (left as usize, right as usize));
        }
    }
}
