//! Values as people wrote them, each with its place, so that every fault can name file, line and key.
//!
//! In: TOML, YAML or JSON text. Out: a tree of `Node`s, and typed values decoded from it with *all*
//! faults at once, not only the first. Never: guesses a value that was written wrongly.

use std::cell::RefCell;

/// Typed values out of nodes, through serde.
pub(crate) mod decode;
/// Nodes out of TOML text.
pub(crate) mod toml;
/// Nodes out of YAML or JSON text.
pub(crate) mod yaml;

/// Where something stands: the number of its file and a line from 1 (0: unknown).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Place {
    pub(crate) file: usize,
    pub(crate) line: usize,
}

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    /// Position in the list as written; set for elements of lists.
    pub(crate) index: usize,
    pub(crate) value: Value,
}

/// A value.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(Vec<(Key, Node)>),
}

/// A key and its place.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) place: Place,
    pub(crate) text: String,
}

impl Node {
    /// An empty table at an unknown place.
    pub(crate) fn empty() -> Self {
        Self {
            place: Place::default(),
            index: 0,
            value: Value::Table(Vec::new()),
        }
    }
    /// The value of a key, when this is a table that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Table(entries) => entries
                .iter()
                .find(|(name, _)| name.text == key)
                .map(|(_, node)| node),
            _ => None,
        }
    }
    /// The text, when this is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
    /// Takes a key out of a table.
    pub(crate) fn remove(&mut self, key: &str) -> Option<Self> {
        match &mut self.value {
            Value::Table(entries) => {
                let position = entries.iter().position(|(name, _)| name.text == key)?;
                Some(entries.remove(position).1)
            }
            _ => None,
        }
    }
    /// What it is, for messages.
    pub(crate) fn what(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a truth value",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number with a fraction",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
    /// The value as JSON, keys in written order.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(flag) => Json::Bool(*flag),
            Value::Integer(number) => Json::from(*number),
            Value::Float(number) => Json::from(*number),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(list) => Json::Array(list.iter().map(Self::to_json).collect()),
            Value::Table(entries) => Json::Object(
                entries
                    .iter()
                    .map(|(key, node)| (key.text.clone(), node.to_json()))
                    .collect(),
            ),
        }
    }
}

/// A fault at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) place: Place,
    pub(crate) path: String,
    pub(crate) what: String,
    pub(crate) remedy: String,
}

/// Faults met so far, at most [`Faults::LIMIT`]; one a place, since the second follows from the first.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    met: RefCell<Vec<Fault>>,
    notes: RefCell<Vec<Note>>,
    /// Paths of parts that no value could be made of: what holds them seems to lack them.
    unmade: RefCell<Vec<String>>,
}

/// Something that is right, and worth telling: it is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) path: String,
    pub(crate) why: String,
}

impl Faults {
    /// More faults than this are not told.
    pub(crate) const LIMIT: usize = 200;

    /// Notes a fault.
    pub(crate) fn add(
        &self,
        place: Place,
        path: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let fault = Fault {
            place,
            path: path.into(),
            what: what.into(),
            remedy: remedy.into(),
        };
        let mut all = self.met.borrow_mut();
        let known = all
            .iter()
            .any(|old| old.path == fault.path && old.place == fault.place);
        if all.len() < Self::LIMIT && !known {
            all.push(fault);
        }
    }
    /// Remembers that no value could be made of what stands at a path.
    pub(crate) fn unmade(&self, path: String) {
        self.unmade.borrow_mut().push(path);
    }
    /// True when what stands at a path lacks a part that was written, and refused.
    fn lacks(&self, path: &str) -> bool {
        self.unmade.borrow().iter().any(|part| {
            part.strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }
    /// True when nothing was noted.
    pub(crate) fn is_empty(&self) -> bool {
        self.met.borrow().is_empty()
    }
    /// The notes, in the order in which they were met.
    pub(crate) fn notes(&self) -> Vec<Note> {
        self.notes.borrow().clone()
    }
    /// All faults by place.
    pub(crate) fn into_sorted(self) -> Vec<Fault> {
        let mut all = self.met.into_inner();
        all.sort_by_key(|fault| fault.place);
        all
    }
}

/// A walk down the tree beside a typed value: knows path and place, and takes faults.
#[derive(Debug, Clone)]
pub(crate) struct At<'a> {
    node: Option<&'a Node>,
    place: Place,
    path: String,
    faults: &'a Faults,
}

impl<'a> At<'a> {
    /// At the root of a tree; `path` stands before every key.
    pub(crate) fn root(node: &'a Node, path: &str, faults: &'a Faults) -> Self {
        Self {
            node: Some(node),
            place: node.place,
            path: path.to_owned(),
            faults,
        }
    }
    /// At a key; where it is missing, still at the place of what should have it.
    pub(crate) fn key(&self, key: &str) -> Self {
        let node = self.node.and_then(|node| node.get(key));
        let place = self
            .node
            .and_then(|node| key_place(node, key))
            .unwrap_or(self.place);
        Self {
            node,
            place,
            path: join(&self.path, key),
            faults: self.faults,
        }
    }
    /// At an element of a list.
    pub(crate) fn index(&self, index: usize) -> Self {
        let node = match self.node.map(|node| &node.value) {
            Some(Value::List(list)) => list.get(index),
            _ => None,
        };
        let written = node.map_or(index, |node| node.index);
        Self {
            node,
            place: node.map_or(self.place, |node| node.place),
            path: format!("{}[{written}]", self.path),
            faults: self.faults,
        }
    }
    /// Where this is.
    pub(crate) fn place(&self) -> Place {
        self.place
    }
    /// The node, when it was written.
    pub(crate) fn node(&self) -> Option<&'a Node> {
        self.node
    }
    /// The path from the root.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
    /// Notes a fault here, unless it follows from a part that was refused already.
    pub(crate) fn fault(&self, what: impl Into<String>, remedy: impl Into<String>) {
        if !self.faults.lacks(&self.path) {
            self.faults.add(self.place, self.path.clone(), what, remedy);
        }
    }
    /// Notes that what stands here is not carried out.
    pub(crate) fn note(&self, why: impl Into<String>) {
        let note = Note {
            path: self.path.clone(),
            why: why.into(),
        };
        let mut all = self.faults.notes.borrow_mut();
        if all.len() < Faults::LIMIT && !all.contains(&note) {
            all.push(note);
        }
    }
}

fn key_place(node: &Node, wanted: &str) -> Option<Place> {
    match &node.value {
        Value::Table(entries) => entries
            .iter()
            .find(|(key, _)| key.text == wanted)
            .map(|(key, _)| key.place),
        _ => None,
    }
}

/// A path and one more key; keys that are no plain word are quoted.
pub(crate) fn join(path: &str, key: &str) -> String {
    let plain = key
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let key = if plain {
        key.to_owned()
    } else {
        format!("{key:?}")
    };
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}

/// The known word that was probably meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.replace(['_', '-'], "").to_lowercase();
    let wanted = plain(word);
    known
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&wanted, &plain(candidate)),
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What to do about an unknown word: the nearest known one, or all of them.
pub(crate) fn suggestion(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "remove it".to_owned(),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// What to do about an unknown word of a short closed list: the nearest one, and all of them.
pub(crate) fn choice(word: &str, known: &[&str]) -> String {
    let all = known.join(", ");
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? write one of {all}"),
        None => format!("write one of {all}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_word() {
        let known = ["service_account", "namespace", "name", "ports"];
        assert_eq!(nearest("serviceAccount", known), Some("service_account"));
        assert_eq!(nearest("nmae", known), Some("name"));
        assert_eq!(nearest("port", known), Some("ports"));
        assert_eq!(nearest("quux", known), None);
    }

    #[test]
    fn paths() {
        assert_eq!(join("", "a"), "a");
        assert_eq!(join("a.b", "app.io/x"), "a.b.\"app.io/x\"");
    }
}
