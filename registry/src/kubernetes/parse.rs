//! The API server's lists and watch lines to objects: pure, and one broken object spoils no other.

use serde::{Deserialize, de::DeserializeOwned};

use super::object::{Key, Kind, Object};

/// What objects look like.
mod raw;

use raw::{Bare, Raw, RawPod, RawService, RawSlice, key, unreadable, whole};

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Object>,
    /// The state of the whole at which the list was made.
    pub(crate) version: String,
    /// Asks for the next page; `None`: this was the last.
    pub(crate) next: Option<String>,
    /// Objects without even a name.
    pub(crate) nameless: usize,
}

/// A line of a watch.
#[derive(Debug)]
pub(crate) enum Event {
    /// There it is, or it is another now.
    There(Object, String),
    /// It is gone.
    Gone(Key, String),
    /// Nothing happened up to this version.
    Bookmark(String),
    /// The versions after the one that was asked for are forgotten: list again.
    Expired,
    /// The server says that it cannot go on.
    Failed(String),
}

#[derive(Deserialize)]
struct RawPage<T> {
    kind: String,
    metadata: PageMeta,
    #[serde(default = "Option::default")]
    items: Option<Vec<T>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    resource_version: String,
    #[serde(default)]
    r#continue: Option<String>,
}

#[derive(Deserialize)]
struct RawEvent<T> {
    object: T,
}

#[derive(Deserialize)]
struct Peek {
    r#type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marked {
    metadata: Mark,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    resource_version: String,
}

/// What a request that failed is answered with.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: u16,
    reason: String,
    message: String,
}

/// The sentence of a refusal, one line, bounded; empty when there is none.
pub(crate) fn message(body: &[u8]) -> String {
    serde_json::from_slice::<Status>(body)
        .map_or_else(|_other| String::new(), |status| line(&status.message))
}

fn line(text: &str) -> String {
    text.chars()
        .take(300)
        .collect::<String>()
        .replace(char::is_control, " ")
}

/// A page of a list of `kind`.
pub(crate) fn page(kind: Kind, body: &[u8]) -> Result<Page, String> {
    match kind {
        Kind::Services => page_of::<RawService>("ServiceList", body),
        Kind::Slices => page_of::<RawSlice>("EndpointSliceList", body),
        Kind::Pods => page_of::<RawPod>("PartialObjectMetadataList", body),
    }
}

fn page_of<T: Raw>(expected: &str, body: &[u8]) -> Result<Page, String> {
    let mut nameless = 0;
    let (kind, meta, objects) = match serde_json::from_slice::<RawPage<T>>(body) {
        Ok(raw) => {
            let all = raw.items.unwrap_or_default();
            (
                raw.kind,
                raw.metadata,
                all.into_iter().map(whole::<T>).collect::<Vec<_>>(),
            )
        }
        // One broken object must not hide the others: each is looked at by itself.
        Err(error) => {
            let raw: RawPage<serde_json::Value> =
                serde_json::from_slice(body).map_err(|_same| error.to_string())?;
            let all = raw.items.unwrap_or_default();
            (
                raw.kind,
                raw.metadata,
                all.into_iter().map(each::<T>).collect(),
            )
        }
    };
    if kind != expected {
        return Err(format!("a {} instead of {expected}", line(&kind)));
    }
    if meta.resource_version.is_empty() {
        return Err("a list without a version".into());
    }
    let objects = objects
        .into_iter()
        .flatten_counting(&mut nameless)
        .collect();
    Ok(Page {
        objects,
        version: meta.resource_version,
        next: meta.r#continue.filter(|next| !next.is_empty()),
        nameless,
    })
}

/// Leaves out what is nothing, and counts it.
trait FlattenCounting: Iterator<Item = Option<Object>> + Sized {
    fn flatten_counting(self, missing: &mut usize) -> impl Iterator<Item = Object> {
        self.filter_map(|one| {
            *missing += usize::from(one.is_none());
            one
        })
    }
}

impl<I: Iterator<Item = Option<Object>>> FlattenCounting for I {}

/// A line of a watch of `kind`.
pub(crate) fn event(kind: Kind, line: &[u8]) -> Result<Event, String> {
    match kind {
        Kind::Services => event_of::<RawService>(line),
        Kind::Slices => event_of::<RawSlice>(line),
        Kind::Pods => event_of::<RawPod>(line),
    }
}

fn event_of<T: Raw>(text: &[u8]) -> Result<Event, String> {
    fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
        serde_json::from_slice::<RawEvent<T>>(text)
            .map(|event| event.object)
            .map_err(|error| error.to_string())
    }
    let peek: Peek = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    match peek.r#type.as_str() {
        "ADDED" | "MODIFIED" => {
            let bare: Bare = read(text)?;
            let version = bare.metadata.resource_version.clone();
            let object = match read::<T>(text) {
                Ok(raw) => whole::<T>(raw),
                Err(_) => unreadable(&bare.metadata),
            };
            let object = object.ok_or("an object whose name is none")?;
            Ok(Event::There(object, version))
        }
        "DELETED" => {
            let bare: Bare = read(text)?;
            let version = bare.metadata.resource_version.clone();
            let key = key(&bare.metadata).ok_or("an object whose name is none")?;
            Ok(Event::Gone(key, version))
        }
        "BOOKMARK" => Ok(Event::Bookmark(
            read::<Marked>(text)?.metadata.resource_version,
        )),
        "ERROR" => {
            let status: Status = read(text)?;
            if status.code == 410 || matches!(&*status.reason, "Expired" | "Gone") {
                return Ok(Event::Expired);
            }
            Ok(Event::Failed(format!(
                "{} {}",
                status.code,
                line(&status.message)
            )))
        }
        other => Err(format!("an event of type {:?}", line(other))),
    }
}

fn each<T: Raw>(value: serde_json::Value) -> Option<Object> {
    let meta = serde_json::from_value::<Bare>(value.clone()).ok()?.metadata;
    match serde_json::from_value::<T>(value) {
        Ok(raw) => whole(raw),
        Err(_) => unreadable(&meta),
    }
}

#[cfg(test)]
#[path = "parse/tests.rs"]
mod tests;
