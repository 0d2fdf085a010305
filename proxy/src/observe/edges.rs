//! Counts by source and destination, for people who compare two looks.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use mesh_model::admin::live::EdgeSample;

use super::{
    Direction,
    cells::{BUCKETS, Cells, Histogram, end_of, quantile},
};

/// What all workers counted so far, by direction, source and destination, over all routes.
pub(crate) fn sample(workers: &[Arc<Cells>]) -> Vec<EdgeSample> {
    let mut all: BTreeMap<(Direction, Arc<str>, Arc<str>), EdgeSample> = BTreeMap::new();
    for cells in workers {
        let series = cells
            .series
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for one in series {
            let (source, destination) = (&one.key.source, &one.key.destination);
            let key = (
                one.key.direction,
                Arc::clone(source),
                Arc::clone(destination),
            );
            let edge = all.entry(key).or_insert_with(|| EdgeSample {
                direction: one.key.direction.as_str().to_owned(),
                source: source.to_string(),
                destination: destination.to_string(),
                ..EdgeSample::default()
            });
            edge.requests += one.requests();
            edge.successes += one.successes();
            edge.secured += one.secured.get();
            add(&one.durations, &mut edge.durations);
            add(&one.own, &mut edge.own);
        }
    }
    all.into_values().collect()
}

fn add(histogram: &Histogram, sums: &mut BTreeMap<u16, u64>) {
    let mut counts = [0; BUCKETS];
    histogram.add_to(&mut counts);
    for (bucket, count) in (0u16..).zip(counts).filter(|(_, count)| *count > 0) {
        *sums.entry(bucket).or_default() += count;
    }
}

/// The value in microseconds below which `share` of the counted durations lies, no more than a quarter too
/// high; 0 without any.
pub fn quantile_of(counts: &BTreeMap<u16, u64>, share: f64) -> u64 {
    let mut sums = [0; BUCKETS];
    for (bucket, count) in counts {
        if let Some(sum) = sums.get_mut(usize::from(*bucket)) {
            *sum += count;
        }
    }
    quantile(&sums, share)
}

/// True for a bucket that this version counts in: what other hosts send is looked at.
pub fn is_bucket(bucket: u16) -> bool {
    usize::from(bucket) < BUCKETS && end_of(usize::from(bucket)) > 0
}
