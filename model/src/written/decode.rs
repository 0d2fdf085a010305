//! Typed values out of nodes, through serde: unknown keys, wrong types and missing keys are all noted.
//!
//! A wrong leaf is noted and stands in as an empty value, so that what follows it is still looked at;
//! the caller must not use a value when there is any fault.

use std::{cell::RefCell, collections::HashSet, fmt};

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess,
    VariantAccess, Visitor, value::StrDeserializer,
};

use super::{Faults, Key, Node, Value, choice, join, suggestion};

/// Decodes a node; `None` when no value could be made, with the reason among the faults.
pub(crate) fn decode<T: DeserializeOwned>(node: &Node, path: &str, faults: &Faults) -> Option<T> {
    let skip = Skip::default();
    loop {
        let before = skip.borrow().len();
        let root = Decoder {
            node,
            path: path.to_owned(),
            faults,
            skip: &skip,
        };
        let decoded = T::deserialize(root).ok();
        // A part that could not be made is passed over in another run, so that what follows is looked at.
        if decoded.is_some() || skip.borrow().len() == before || before > Faults::LIMIT {
            return decoded;
        }
    }
}

/// Nodes that could not be made into values.
type Skip = RefCell<HashSet<*const Node>>;

/// Why decoding stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The reason is among the faults already.
    Noted,
    /// A key is missing.
    Missing(&'static str),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Noted => f.write_str("noted"),
            Self::Missing(key) => write!(f, "{key} is missing"),
            Self::Other(what) => f.write_str(what),
        }
    }
}
impl std::error::Error for Stop {}
impl serde::de::Error for Stop {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Other(message.to_string())
    }
    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }
}

#[derive(Clone)]
struct Decoder<'a> {
    node: &'a Node,
    path: String,
    faults: &'a Faults,
    skip: &'a Skip,
}

impl<'a> Decoder<'a> {
    fn fault(&self, what: impl Into<String>, remedy: impl Into<String>) {
        self.faults
            .add(self.node.place, self.path.clone(), what, remedy);
    }
    fn wrong(&self, wanted: &str) {
        let remedy = match (&self.node.value, wanted) {
            (Value::Integer(_) | Value::Float(_) | Value::Bool(_), "a text") => {
                "write it in quotes"
            }
            (Value::Table(_), "a list") => "write it as a list of tables: [[…]]",
            (Value::Text(_), "a list") => "write it in brackets",
            (Value::Text(text), "a whole number") if text.parse::<i64>().is_ok() => {
                "write it without quotes, and not larger than 2^63"
            }
            _ => "",
        };
        let remedy = if remedy.is_empty() {
            format!("write {wanted}")
        } else {
            remedy.to_owned()
        };
        self.fault(format!("is {}, not {wanted}", self.node.what()), remedy);
    }
    /// Notes why a value could not be made here.
    fn noted<T>(&self, result: Result<T, Stop>) -> Result<T, Stop> {
        result.map_err(|stop| {
            match stop {
                Stop::Noted => {}
                Stop::Missing(key) if self.node.get(key).is_some() => {}
                Stop::Missing(key) => self.faults.add(
                    self.node.place,
                    join(&self.path, key),
                    "is missing",
                    format!("write `{key}`"),
                ),
                // Values that know what would be right say it behind a semicolon.
                Stop::Other(what) => match what.split_once("; ") {
                    Some((what, remedy)) => self.fault(what, remedy),
                    None => self.fault(what, "see the reference of this key"),
                },
            }
            Stop::Noted
        })
    }
    fn whole<V: Visitor<'a>>(&self, visitor: V, low: i64, high: i64) -> Result<V::Value, Stop> {
        match self.node.value {
            Value::Integer(number) if (low..=high).contains(&number) => {
                self.noted(visitor.visit_i64(number))
            }
            Value::Integer(number) => {
                self.fault(
                    format!("{number} is out of range"),
                    format!("write {low} to {high}"),
                );
                visitor.visit_i64(low.max(0))
            }
            _ => {
                self.wrong("a whole number");
                visitor.visit_i64(low.max(0))
            }
        }
    }
    fn entries(&self, known: Option<&'static [&'static str]>) -> Entries<'a> {
        let all = match &self.node.value {
            Value::Table(entries) => entries.as_slice(),
            _ => &[],
        };
        Entries {
            rest: all.iter(),
            value: None,
            path: self.path.clone(),
            faults: self.faults,
            skip: self.skip,
            known,
        }
    }
}

macro_rules! whole_numbers {
    ($($method:ident $low:expr, $high:expr;)*) => {$(
        fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Stop> {
            self.whole(visitor, $low, $high)
        }
    )*};
}

impl<'a> Deserializer<'a> for Decoder<'a> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Stop> {
        let result = match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(_) => return self.deserialize_seq(visitor),
            Value::Table(_) => return self.deserialize_map(visitor),
        };
        self.noted(result)
    }

    fn deserialize_bool<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Stop> {
        if let Value::Bool(flag) = self.node.value {
            visitor.visit_bool(flag)
        } else {
            self.fault(format!("is {}", self.node.what()), "write true or false");
            visitor.visit_bool(false)
        }
    }

    whole_numbers! {
        deserialize_i8 i8::MIN.into(), i8::MAX.into();
        deserialize_i16 i16::MIN.into(), i16::MAX.into();
        deserialize_i32 i32::MIN.into(), i32::MAX.into();
        deserialize_i64 i64::MIN, i64::MAX;
        deserialize_u8 0, u8::MAX.into();
        deserialize_u16 0, u16::MAX.into();
        deserialize_u32 0, u32::MAX.into();
        deserialize_u64 0, i64::MAX;
    }

    fn deserialize_f64<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.node.value {
            Value::Float(number) => visitor.visit_f64(number),
            #[expect(clippy::cast_precision_loss, reason = "a fraction was asked for")]
            Value::Integer(number) => visitor.visit_f64(number as f64),
            _ => {
                self.wrong("a number");
                visitor.visit_f64(0.0)
            }
        }
    }
    fn deserialize_f32<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Stop> {
        if let Value::Text(text) = &self.node.value {
            self.noted(visitor.visit_borrowed_str(text))
        } else {
            self.wrong("a text");
            self.noted(visitor.visit_borrowed_str(""))
        }
    }
    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }
    fn deserialize_char<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }
    fn deserialize_identifier<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Stop> {
        let list: &[Node] = match &self.node.value {
            Value::List(list) => list,
            Value::Null => &[],
            _ => {
                self.wrong("a list");
                &[]
            }
        };
        let elements = Elements {
            rest: list.iter(),
            path: self.path.clone(),
            faults: self.faults,
            skip: self.skip,
        };
        self.noted(visitor.visit_seq(elements))
    }

    fn deserialize_map<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Stop> {
        if !matches!(self.node.value, Value::Table(_) | Value::Null) {
            self.wrong("a table");
        }
        self.noted(visitor.visit_map(self.entries(None)))
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        if !matches!(self.node.value, Value::Table(_) | Value::Null) {
            self.wrong("a table");
            return Err(Stop::Noted);
        }
        self.noted(visitor.visit_map(self.entries(Some(fields))))
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let first = variants.first().copied().unwrap_or_default();
        let word = match &self.node.value {
            Value::Text(text) if variants.contains(&text.as_str()) => text,
            Value::Text(text) => {
                self.fault(
                    format!("{text:?} is not known here"),
                    choice(text, variants),
                );
                first
            }
            _ => {
                self.wrong("a text");
                first
            }
        };
        self.noted(visitor.visit_enum(Word(word)))
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'a>>
        i128 u128 bytes byte_buf unit unit_struct tuple tuple_struct ignored_any
    }
}

/// Makes a part of a whole; the smallest part that cannot be made is marked to be skipped.
fn part<'a, T: DeserializeSeed<'a>>(seed: T, decoder: Decoder<'a>) -> Result<T::Value, Stop> {
    let whole = decoder.clone();
    let before = whole.skip.borrow().len();
    // A value that was refused after it was read has its place here.
    let made = whole.noted(seed.deserialize(decoder));
    if made.is_err() && whole.skip.borrow().len() == before {
        whole
            .skip
            .borrow_mut()
            .insert(std::ptr::from_ref(whole.node));
        whole.faults.unmade(whole.path);
    }
    made
}

struct Elements<'a> {
    rest: std::slice::Iter<'a, Node>,
    path: String,
    faults: &'a Faults,
    skip: &'a Skip,
}

impl<'a> SeqAccess<'a> for Elements<'a> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'a>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Stop> {
        let skip = self.skip;
        let Some(node) = self
            .rest
            .find(|node| !skip.borrow().contains(&std::ptr::from_ref(*node)))
        else {
            return Ok(None);
        };
        let path = format!("{}[{}]", self.path, node.index);
        part(
            seed,
            Decoder {
                node,
                path,
                faults: self.faults,
                skip,
            },
        )
        .map(Some)
    }
}

struct Entries<'a> {
    rest: std::slice::Iter<'a, (Key, Node)>,
    value: Option<(&'a Key, &'a Node)>,
    path: String,
    faults: &'a Faults,
    skip: &'a Skip,
    known: Option<&'static [&'static str]>,
}

impl<'a> MapAccess<'a> for Entries<'a> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        for (key, node) in self.rest.by_ref() {
            if let Some(known) = self.known
                && !known.contains(&key.text.as_str())
            {
                let path = join(&self.path, &key.text);
                self.faults.add(
                    key.place,
                    path,
                    "is no known key",
                    suggestion(&key.text, known),
                );
                self.faults.unmade(join(&self.path, &key.text));
                continue;
            }
            if self.skip.borrow().contains(&std::ptr::from_ref(node)) {
                continue;
            }
            self.value = Some((key, node));
            return seed.deserialize(StrDeserializer::new(&key.text)).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let Some((key, node)) = self.value.take() else {
            return Err(Stop::Other("a value without its key".to_owned()));
        };
        let path = join(&self.path, &key.text);
        let skip = self.skip;
        part(
            seed,
            Decoder {
                node,
                path,
                faults: self.faults,
                skip,
            },
        )
    }
}

/// A word that names a variant.
struct Word<'a>(&'a str);

impl<'a> EnumAccess<'a> for Word<'a> {
    type Error = Stop;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'a>>(self, seed: V) -> Result<(V::Value, Self), Stop> {
        Ok((seed.deserialize(StrDeserializer::new(self.0))?, self))
    }
}

impl<'a> VariantAccess<'a> for Word<'a> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        Ok(())
    }
    fn newtype_variant_seed<T: DeserializeSeed<'a>>(self, _seed: T) -> Result<T::Value, Stop> {
        Err(Stop::Other(format!("{} stands alone", self.0)))
    }
    fn tuple_variant<V: Visitor<'a>>(self, _len: usize, _visitor: V) -> Result<V::Value, Stop> {
        Err(Stop::Other(format!("{} stands alone", self.0)))
    }
    fn struct_variant<V: Visitor<'a>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Stop> {
        Err(Stop::Other(format!("{} stands alone", self.0)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only decoded")]
    struct Outer {
        list: Vec<Inner>,
        inner: Option<Inner>,
        #[serde(default)]
        labels: BTreeMap<String, String>,
        mode: Option<Mode>,
    }
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only decoded")]
    struct Inner {
        name: String,
        port: Option<u16>,
    }
    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        On,
        Off,
    }

    fn faults_of(text: &str) -> Vec<(usize, String)> {
        let faults = Faults::default();
        let node = super::super::toml::parse(text, 0, &faults);
        let decoded: Option<Outer> = decode(&node, "", &faults);
        assert!(decoded.is_some() || !faults.is_empty());
        faults
            .into_sorted()
            .into_iter()
            .map(|f| {
                (
                    f.place.line,
                    format!("{}: {}; {}", f.path, f.what, f.remedy),
                )
            })
            .collect()
    }

    #[test]
    fn all_faults_at_once() {
        let text = "mode = 'of'\nlist = [\n {nam = 'x'},\n {name = 1, port = 70000},\n 'no',\n {name='ok', port=1}\n]\n[inner]\nport = 'x'\n[labels]\nversion = 2\n[what]\n";
        let found = faults_of(text);
        let wanted = [
            (
                1,
                "mode: \"of\" is not known here; did you mean `on`? write one of on, off",
            ),
            (3, "list[0].nam: is no known key; did you mean `name`?"),
            (3, "list[0].name: is missing; write `name`"),
            (
                4,
                "list[1].name: is a whole number, not a text; write it in quotes",
            ),
            (4, "list[1].port: 70000 is out of range; write 0 to 65535"),
            (5, "list[2]: is a text, not a table; write a table"),
            (8, "inner.name: is missing; write `name`"),
            (
                9,
                "inner.port: is a text, not a whole number; write a whole number",
            ),
            (
                11,
                "labels.version: is a whole number, not a text; write it in quotes",
            ),
            (
                12,
                "what: is no known key; known here: list, inner, labels, mode",
            ),
        ];
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(line, text)| (*line, (*text).to_owned()))
            .collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn good_text() {
        assert_eq!(faults_of("list = []\nmode = 'off'\n"), []);
    }
}
