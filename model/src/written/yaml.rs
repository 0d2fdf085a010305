//! Nodes out of YAML or JSON text, document by document, with the line of every key and value.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::{Faults, Key, Node, Place, Value};

/// Deepest nesting that is read.
pub(crate) const DEPTH: usize = 48;
/// Documents in one text.
pub(crate) const DOCUMENTS: usize = 1000;

/// Reads every document; syntax faults are noted, and what could be read is returned.
pub(crate) fn parse(text: &str, faults: &Faults) -> Vec<Node> {
    if let Some(nodes) = parse_json(text) {
        return nodes;
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH,
            max_documents: DOCUMENTS,
            max_aliases: 100,
            max_anchors: 100,
        },
        strict_booleans: true,
        with_snippet: false,
    };
    let mut bytes = text.as_bytes();
    let mut nodes = Vec::new();
    for read in serde_saphyr::read_with_options::<_, Spanned<Raw>>(&mut bytes, options) {
        match read {
            Ok(raw) => nodes.push(node(raw, 0)),
            Err(error) => {
                let line = error
                    .location()
                    .map_or(0, |location| narrow(location.line()));
                let what = error.to_string();
                let what = what.lines().next().unwrap_or_default().to_owned();
                let place = Place { file: 0, line };
                faults.add(
                    place,
                    "",
                    format!("is no YAML here: {what}"),
                    "correct the syntax",
                );
            }
        }
        if nodes.len() > DOCUMENTS {
            let place = nodes.last().map(|node| node.place).unwrap_or_default();
            faults.add(
                place,
                "",
                format!("more than {DOCUMENTS} documents"),
                "split the text",
            );
            break;
        }
    }
    nodes
}

/// JSON that the YAML reader might take differently (tabs, `\/` escapes) is read as JSON, without lines.
fn parse_json(text: &str) -> Option<Vec<Node>> {
    if !text.trim_start().starts_with('{') || !text.contains(['\t', '\\']) {
        return None;
    }
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(vec![from_json(&json)])
}

/// Nodes of a JSON value, at unknown places. Nesting is bounded by the JSON reader (128).
pub(crate) fn from_json(json: &serde_json::Value) -> Node {
    use serde_json::Value as Json;
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Integer(whole),
            (None, Some(fraction)) if !number.is_u64() => Value::Float(fraction),
            _ => Value::Text(number.to_string()),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(list) => Value::List(
            list.iter()
                .enumerate()
                .map(|(index, item)| Node {
                    index,
                    ..from_json(item)
                })
                .collect(),
        ),
        Json::Object(entries) => Value::Table(
            entries
                .iter()
                .map(|(key, value)| {
                    (
                        Key {
                            place: Place::default(),
                            text: key.clone(),
                        },
                        from_json(value),
                    )
                })
                .collect(),
        ),
    };
    Node {
        place: Place::default(),
        index: 0,
        value,
    }
}

fn node(raw: Spanned<Raw>, index: usize) -> Node {
    let place = Place {
        file: 0,
        line: narrow(raw.referenced.line()),
    };
    raw.value.into_node(place, index)
}

fn narrow(line: u64) -> usize {
    usize::try_from(line).unwrap_or_default()
}

/// A value as the reader gives it.
enum Raw {
    Leaf(Value),
    List(Vec<Spanned<Self>>),
    Table(Vec<(Spanned<Self>, Spanned<Self>)>),
}

impl Raw {
    fn into_node(self, place: Place, index: usize) -> Node {
        let value = match self {
            Self::Leaf(value) => value,
            Self::List(list) => Value::List(
                list.into_iter()
                    .enumerate()
                    .map(|(index, item)| node(item, index))
                    .collect(),
            ),
            Self::Table(entries) => Value::Table(
                entries
                    .into_iter()
                    .map(|(key, value)| {
                        let key = node(key, 0);
                        (
                            Key {
                                place: key.place,
                                text: key_text(&key.value),
                            },
                            node(value, 0),
                        )
                    })
                    .collect(),
            ),
        };
        Node {
            place,
            index,
            value,
        }
    }
}

fn key_text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Null | Value::List(_) | Value::Table(_) => "?".to_owned(),
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, flag: bool) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Bool(flag)))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Integer(number)))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Raw, E> {
        Ok(Raw::Leaf(i64::try_from(number).map_or_else(
            |_too_large| Value::Text(number.to_string()),
            Value::Integer,
        )))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Float(number)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Text(text.to_owned())))
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Null))
    }
    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Null))
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(part) = access.next_element()? {
            list.push(part);
        }
        Ok(Raw::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Table(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(String, usize)> {
        let faults = Faults::default();
        let nodes = parse(text, &faults);
        assert!(faults.is_empty(), "{:?}", faults.into_sorted());
        let mut found = Vec::new();
        for node in &nodes {
            let Value::Table(entries) = &node.value else {
                panic!("table")
            };
            found.extend(
                entries
                    .iter()
                    .map(|(key, _)| (key.text.clone(), key.place.line)),
            );
        }
        found
    }

    #[test]
    fn places_over_documents() {
        let text = "a: 1\nb:\n  - x\n---\n# note\n\nc: yes\n---\n---\nd: null\n";
        let wanted = [("a", 1), ("b", 2), ("c", 7), ("d", 10)];
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(key, line)| ((*key).to_owned(), *line))
            .collect();
        assert_eq!(lines(text), wanted);
    }

    #[test]
    fn scalars() {
        let faults = Faults::default();
        let nodes = parse("a: yes\nb: 1.0\nc: \"1\"\nd: 0x10\ne: true\nf:\n", &faults);
        let json = nodes[0].to_json();
        let wanted =
            serde_json::json!({"a": "yes", "b": 1.0, "c": "1", "d": 16, "e": true, "f": null});
        assert_eq!(json, wanted);
    }

    #[test]
    fn json() {
        assert_eq!(
            lines("{\n \"a\": 1,\n \"b\": []}"),
            [("a".to_owned(), 2), ("b".to_owned(), 3)]
        );
        assert_eq!(lines("{\n\t\"a\": \"\\/\"}"), [("a".to_owned(), 0)]);
    }

    #[test]
    fn bad_text_is_a_fault() {
        for bad in [
            "a: [1\nb: 2",
            "a: 1\na: 2",
            "a: &x [*x]",
            &"[".repeat(5000),
            "\u{0}",
            "{\"a\":1",
        ] {
            let faults = Faults::default();
            parse(bad, &faults);
            assert!(!faults.is_empty(), "{bad:.20}");
        }
    }
}
