//! The configuration as written becomes the configuration as meant; every problem with file, line and key.
//!
//! In: the text of every file. Out: `Boot` and `Live`, or all faults. Never: reads a file or asks the host.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Boot, Live, file::FileRoot};
use crate::{
    address::canonical,
    duration,
    written::{At, Faults, Key, Node, Place, Value, decode::decode, toml},
};

mod boot;
mod clash;
mod merge;
mod registration;
mod service;
mod source;

/// The text of every file that was read, in order: `meshd.toml`, `conf.d/*.toml`, `services.d/*.toml`.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Path and text.
    pub files: Vec<(String, String)>,
    /// User ids by name, as the host has them.
    pub uids: BTreeMap<String, u32>,
}

/// A fault in a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {key}: {what}; {remedy}")]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// Line from 1; 0 when the fault is not of one line.
    pub line: usize,
    /// The key, such as `service[2].ports[0].target`.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub remedy: String,
}

/// Checks everything; on faults all of them are returned, at most 200.
///
/// Of a key that several files set the last one counts; `service`, `source`, `merge` and `registration` tables
/// add up. A file in a
/// directory `services.d` may hold the keys of one service without `[[service]]`.
pub fn read(sources: &Sources) -> Result<(Boot, Live), Vec<ConfigError>> {
    let faults = Faults::default();
    let mut whole = Node::empty();
    for (number, (path, text)) in sources.files.iter().enumerate() {
        let node = toml::parse(text, number, &faults);
        join(&mut whole, in_services_d(path, node), "");
    }
    let root: Option<FileRoot> = decode(&whole, "", &faults);
    let at = At::root(&whole, "", &faults);
    let read = root.map(|root| {
        let boot = boot::boot(&root, &at);
        let configured = source::sources(&root.source, &at.key("source"));
        let met = merge::merge(
            &root.merge,
            &root.source,
            &configured,
            &at.key("merge"),
            &at.key("source"),
        );
        let announced =
            registration::registrations(&root.registration, &configured, &at.key("registration"));
        let live = Live {
            registrations: announced,
            services: service::services(&root.service, &at.key("service"), sources),
            sources: configured,
            merge: met,
            access_log: boot::access_log(root.access_log.as_ref(), &at.key("access_log")),
            drain_timeout: root
                .drain_timeout
                .as_deref()
                .map_or(Duration::from_secs(30), |text| {
                    span(
                        text,
                        &at.key("drain_timeout"),
                        Duration::ZERO,
                        Duration::from_hours(1),
                    )
                }),
        };
        clash::listeners(&boot, &at);
        clash::services(&boot, &live.services, &at.key("service"));
        (boot, live)
    });
    match read {
        Some(read) if faults.is_empty() => Ok(read),
        _ => Err(told(faults, sources)),
    }
}

/// One source that has no id yet, and what it is worth beside others; `None` when its kind cannot be read.
pub(crate) fn one_source(
    source: &super::file::FileSource,
    at: &At<'_>,
) -> Option<(super::SourceConfig, super::SourceTerm)> {
    Some((source::unnamed(source, at)?, merge::term(source, at)))
}

fn told(faults: Faults, sources: &Sources) -> Vec<ConfigError> {
    faults
        .into_sorted()
        .into_iter()
        .map(|fault| ConfigError {
            file: sources
                .files
                .get(fault.place.file)
                .map(|(path, _)| path.clone())
                .unwrap_or_default(),
            line: fault.place.line,
            key: fault.path,
            what: fault.what,
            remedy: fault.remedy,
        })
        .collect()
}

/// A file of `services.d` that holds the keys of one service becomes one that holds a `[[service]]`.
fn in_services_d(path: &str, node: Node) -> Node {
    let parent = path.rsplit('/').nth(1);
    let bare = matches!(&node.value, Value::Table(entries) if !entries.is_empty());
    if parent != Some("services.d") || !bare || node.get("service").is_some() {
        return node;
    }
    let place = node.place;
    let list = Node {
        place,
        index: 0,
        value: Value::List(vec![node]),
    };
    let key = Key {
        place,
        text: "service".to_owned(),
    };
    Node {
        place,
        index: 0,
        value: Value::Table(vec![(key, list)]),
    }
}

/// Puts `later` over `base`: tables join, the lists of tables of the top level add up, all else is replaced.
fn join(base: &mut Node, later: Node, path: &str) {
    let Value::Table(entries) = &mut base.value else {
        *base = later;
        return;
    };
    let Value::Table(new) = later.value else {
        return;
    };
    for (key, node) in new {
        let Some((old_key, old)) = entries.iter_mut().find(|(old, _)| old.text == key.text) else {
            entries.push((key, node));
            continue;
        };
        let adds_up = path.is_empty()
            && matches!(
                key.text.as_str(),
                "service" | "source" | "merge" | "registration"
            );
        match (&mut old.value, &node.value) {
            (Value::Table(_), Value::Table(_)) => join(old, node, &key.text),
            (Value::List(all), Value::List(_)) if adds_up => {
                if let Value::List(more) = node.value {
                    all.extend(more);
                }
            }
            _ => {
                *old = node;
                old_key.place = key.place;
            }
        }
    }
}

fn span(text: &str, at: &At<'_>, low: Duration, high: Duration) -> Duration {
    match duration::parse(text) {
        Ok(found) if (low..=high).contains(&found) => found,
        Ok(_) => {
            let (low, high) = (duration::print(low), duration::print(high));
            at.fault(
                format!("{text} is out of range"),
                format!("write {low} to {high}"),
            );
            high_or_zero()
        }
        Err(error) => {
            at.fault(error.to_string(), "write it like 2s");
            high_or_zero()
        }
    }
}

/// Stands in for a value that was refused; the whole result is thrown away then.
fn high_or_zero() -> Duration {
    Duration::ZERO
}

fn ip(text: &str, at: &At<'_>) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok();
    if address.is_none() {
        at.fault(
            format!("{text:?} is no IP address"),
            "write one such as 192.0.2.7 or 2001:db8::7",
        );
    }
    address.map(|address| address.to_canonical())
}

fn socket(text: &str, at: &At<'_>) -> Option<SocketAddr> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Some(canonical(address)),
        Ok(_) => {
            at.fault("port 0 is no port", "write 1 to 65535");
            None
        }
        Err(_) => {
            at.fault(
                format!("{text:?} is no address and port"),
                "write them such as 127.0.0.1:15020 or [::]:15008",
            );
            None
        }
    }
}

fn range<T: PartialOrd + Copy + std::fmt::Display>(value: T, at: &At<'_>, low: T, high: T) -> T {
    if value < low || value > high {
        at.fault(
            format!("{value} is out of range"),
            format!("write {low} to {high}"),
        );
    }
    value
}

fn absolute(text: &str, at: &At<'_>) -> std::path::PathBuf {
    if !text.starts_with('/') || text.contains('\0') {
        at.fault(format!("{text:?} is no absolute path"), "begin it with /");
    }
    text.into()
}

fn labels(given: &BTreeMap<String, String>, at: &At<'_>) -> BTreeMap<String, String> {
    if given.len() > 64 {
        at.fault(
            format!("{} labels are too many", given.len()),
            "write at most 64",
        );
    }
    for (key, value) in given {
        let plain =
            |text: &str, most: usize| text.len() <= most && !text.chars().any(char::is_control);
        if key.is_empty() || !plain(key, 253) || !plain(value, 255) {
            at.key(key).fault(
                "is no label",
                "use a key of 1 to 253 and a value of up to 255 characters",
            );
        }
    }
    given.clone()
}

fn place_text(place: Place, sources: &Sources) -> String {
    let file = sources
        .files
        .get(place.file)
        .map_or("", |(path, _)| path.as_str());
    format!("{file}:{}", place.line)
}

#[cfg(test)]
mod tests;
