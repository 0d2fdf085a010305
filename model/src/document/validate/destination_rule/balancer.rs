//! Balancing: algorithms, hash keys, localities, slow start.

use std::time::Duration;

use super::super::{at_most, exactly_one, one_only, percent, positive, token};
use crate::{
    document::{
        destination_rule::{
            ConsistentHashSpec, DistributeSpec, LoadBalancerSpec, LocalitySpec, SimpleBalancer,
            WarmupSpec,
        },
        span::Span,
    },
    written::At,
};

/// Largest ring and largest table that are built.
const MAX_RING: u64 = 8 << 20;
const MAX_TABLE: u64 = 5_000_011;

pub(super) fn check(given: &LoadBalancerSpec, at: &At<'_>) {
    one_only(
        &[
            ("simple", given.simple.is_some()),
            ("consistentHash", given.consistent_hash.is_some()),
        ],
        at,
    );
    if given.simple == Some(SimpleBalancer::Passthrough) {
        at.key("simple")
            .note("calls to a service are always balanced: the mesh's default acts");
    }
    let least = matches!(
        given.simple,
        Some(SimpleBalancer::LeastRequest | SimpleBalancer::LeastConn)
    );
    if let Some(choices) = given.choices {
        let at = at.key("choices");
        if !least {
            at.fault("belongs to LEAST_REQUEST", "remove it");
        } else if !(2..=32).contains(&choices) {
            at.fault("is out of range", "write 2 to 32");
        }
    }
    if let Some(decay) = given.decay {
        let at = at.key("decay");
        let bounds = Duration::from_millis(100)..=Duration::from_mins(10);
        if given.simple != Some(SimpleBalancer::PeakEwma) {
            at.fault("belongs to PEAK_EWMA", "remove it");
        } else if !bounds.contains(&decay.0) {
            at.fault("is too short or too long", "write 100ms to 10m");
        }
    }
    if let Some(hash) = &given.consistent_hash {
        consistent(hash, &at.key("consistentHash"));
    }
    if let Some(locality) = &given.locality_lb_setting {
        localities(locality, &at.key("localityLbSetting"));
    }
    warmups(given, at);
}

fn warmups(given: &LoadBalancerSpec, at: &At<'_>) {
    one_only(
        &[
            ("warmupDurationSecs", given.warmup_duration_secs.is_some()),
            ("warmup", given.warmup.is_some()),
        ],
        at,
    );
    let day = |span: Option<Span>, at: &At<'_>| {
        positive(span, at);
        if span.is_some_and(|span| span.0 > Duration::from_hours(24)) {
            at.fault("is too long", "write at most 24h");
        }
    };
    day(given.warmup_duration_secs, &at.key("warmupDurationSecs"));
    for (key, written) in [
        ("warmupDurationSecs", given.warmup_duration_secs.is_some()),
        ("warmup", given.warmup.is_some()),
    ] {
        if written && given.consistent_hash.is_some() {
            at.key(key)
                .note("never acts: by a hash each key has its endpoint from the start");
        }
    }
    let Some(WarmupSpec {
        duration,
        minimum_percent,
        aggression,
    }) = given.warmup
    else {
        return;
    };
    let at = at.key("warmup");
    day(Some(duration), &at.key("duration"));
    if let Some(wanted) = minimum_percent {
        percent(wanted, &at.key("minimumPercent"));
    }
    if aggression.is_some_and(|aggression| !(1.0..=100.0).contains(&aggression)) {
        at.key("aggression")
            .fault("is out of range", "write 1 to 100");
    }
}

fn consistent(hash: &ConsistentHashSpec, at: &At<'_>) {
    exactly_one(
        &[
            ("httpHeaderName", hash.http_header_name.is_some()),
            ("httpCookie", hash.http_cookie.is_some()),
            ("useSourceIp", hash.use_source_ip == Some(true)),
            (
                "httpQueryParameterName",
                hash.http_query_parameter_name.is_some(),
            ),
        ],
        at,
    );
    one_only(
        &[
            ("minimumRingSize", hash.minimum_ring_size.is_some()),
            ("ringHash", hash.ring_hash.is_some()),
            ("maglev", hash.maglev.is_some()),
        ],
        at,
    );
    if let Some(name) = &hash.http_header_name {
        token(name, &at.key("httpHeaderName"));
    }
    if let Some(cookie) = &hash.http_cookie {
        let at = at.key("httpCookie");
        token(&cookie.name, &at.key("name"));
        if cookie
            .path
            .as_deref()
            .is_some_and(|path| !path.starts_with('/'))
        {
            at.key("path").fault("is no path", "begin it with /");
        }
        if !cookie.attributes.is_empty() {
            at.key("attributes")
                .note("a made cookie has a path, a lifetime and HttpOnly only");
        }
    }
    if hash.http_query_parameter_name.as_deref() == Some("") {
        at.key("httpQueryParameterName")
            .fault("is empty", "write a parameter's name");
    }
    ring(hash.minimum_ring_size, &at.key("minimumRingSize"));
    if let Some(wanted) = hash.ring_hash {
        ring(
            wanted.minimum_ring_size,
            &at.key("ringHash").key("minimumRingSize"),
        );
    }
    if let Some(size) = hash.maglev.and_then(|maglev| maglev.table_size) {
        table(size, &at.key("maglev").key("tableSize"));
    }
}

fn ring(size: Option<u64>, at: &At<'_>) {
    if let Some(size) = size.filter(|size| !(1..=MAX_RING).contains(size)) {
        at.fault(
            format!("{size} is no size of a ring"),
            format!("write 1 to {MAX_RING}"),
        );
    }
}

fn table(size: u64, at: &At<'_>) {
    if !(3..=MAX_TABLE).contains(&size) {
        at.fault(
            format!("{size} is no size of a Maglev table"),
            format!("write a prime from 3 to {MAX_TABLE}, such as 65537"),
        );
    } else if !is_prime(size) {
        let next = (size..=MAX_TABLE).find(|size| is_prime(*size));
        at.fault(
            format!("{size} is no prime, and a Maglev table needs one"),
            format!("write {}", next.unwrap_or(MAX_TABLE)),
        );
    }
}

/// By trial: sizes are small.
fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..=number)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

fn localities(given: &LocalitySpec, at: &At<'_>) {
    one_only(
        &[
            ("distribute", !given.distribute.is_empty()),
            ("failover", !given.failover.is_empty()),
            ("failoverPriority", !given.failover_priority.is_empty()),
        ],
        at,
    );
    if given.enabled == Some(false) && (!given.distribute.is_empty() || !given.failover.is_empty())
    {
        at.key("enabled").fault(
            "false contradicts the rest of `localityLbSetting`",
            "remove it, or the rest",
        );
    }
    if !given.failover_priority.is_empty() {
        at.key("failoverPriority")
            .note("nearness is by region, zone and sub-zone, not by labels");
    }
    at_most(given.distribute.len(), 64, &at.key("distribute"));
    for (index, one) in given.distribute.iter().enumerate() {
        let here = at.key("distribute").index(index);
        let before = given.distribute.get(..index).unwrap_or_default();
        if before.iter().any(|other| other.from == one.from) {
            here.key("from").fault(
                format!("{:?} has its shares already", one.from),
                "write each locality once",
            );
        }
        distribute(one, &here);
    }
    at_most(given.failover.len(), 64, &at.key("failover"));
    for (index, one) in given.failover.iter().enumerate() {
        let at = at.key("failover").index(index);
        for (key, region) in [("from", &one.from), ("to", &one.to)] {
            if region.is_empty() || region.contains(['/', '*']) {
                at.key(key).fault(
                    format!("{region:?} is no region"),
                    "write a region, without zone",
                );
            }
        }
        if one.from == one.to {
            at.key("to")
                .fault("is the region that failed", "write another region");
        }
        let before = given.failover.get(..index).unwrap_or_default();
        if before.iter().any(|other| other.from == one.from) {
            at.key("from").fault(
                format!("{:?} fails over already", one.from),
                "write each region once",
            );
        }
    }
}

fn distribute(one: &DistributeSpec, at: &At<'_>) {
    locality(&one.from, &at.key("from"));
    let at = at.key("to");
    at_most(one.to.len(), 64, &at);
    for (name, share) in &one.to {
        let at = at.key(name);
        locality(name, &at);
        if !(1..=100).contains(share) {
            at.fault(format!("{share} is no share"), "write 1 to 100");
        }
    }
    let sum: u64 = one.to.values().map(|share| u64::from(*share)).sum();
    if sum != 100 {
        at.fault(
            format!("the shares add up to {sum}"),
            "make them add up to 100",
        );
    }
}

/// `region`, `region/zone` or `region/zone/sub-zone`, `*` as the last part.
fn locality(text: &str, at: &At<'_>) {
    let parts: Vec<_> = text.split('/').collect();
    let last = parts.len().saturating_sub(1);
    let good = |(index, part): (usize, &&str)| {
        !part.is_empty() && (!part.contains('*') || (**part == *"*" && index == last))
    };
    if parts.len() > 3 || !parts.iter().enumerate().all(good) {
        at.fault(
            format!("{text:?} is no locality"),
            "write region, region/zone or region/zone/sub-zone; `*` as the last part",
        );
    }
}
