//! Eureka's JSON to instances: pure, one instance at a time, in each of the forms that its servers write.
//!
//! In: `/apps` and `/apps/delta`. Out: the hash that the server states, and what it says of each instance.
//! Never: holds the whole document, or fails because of an instance that is odd in itself.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    hash::Hash,
    sync::Arc,
};

use mesh_model::{
    address::Address,
    endpoint::{Health, Locality},
};
use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
    value::MapAccessDeserializer,
};

use super::fields::Raw;
use crate::place::{address, fitting};

/// Most instances of one answer: beyond, it is refused.
const MAX_INSTANCES: usize = 500_000;

/// The largest weight.
const MAX_WEIGHT: u32 = 65_535;

/// The statuses, in the order of their names: so the hash counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    Down,
    OutOfService,
    Starting,
    Unknown,
    Up,
}

impl Status {
    /// A word that is none of them is `UNKNOWN`, as Eureka itself reads it.
    fn of(word: &str) -> Self {
        match word.to_ascii_uppercase().as_str() {
            "UP" => Self::Up,
            "DOWN" => Self::Down,
            "STARTING" => Self::Starting,
            "OUT_OF_SERVICE" => Self::OutOfService,
            _ => Self::Unknown,
        }
    }
    /// Its word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Down => "DOWN",
            Self::OutOfService => "OUT_OF_SERVICE",
            Self::Starting => "STARTING",
            Self::Unknown => "UNKNOWN",
            Self::Up => "UP",
        }
    }
    fn health(self) -> Health {
        match self {
            Self::Up => Health::Healthy,
            Self::OutOfService => Health::Draining,
            Self::Unknown => Health::Unknown,
            // It says itself that it takes no traffic yet.
            Self::Down | Self::Starting => Health::Unhealthy,
        }
    }
}

/// One instance, as small as it can be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    /// As counted by the hash.
    pub(crate) status: Status,
    pub(crate) health: Health,
    /// As metadata `weight` has it; 1 where it does not.
    pub(crate) weight: u32,
    /// `None`: there is nothing that could be dialled.
    pub(crate) address: Option<Address>,
    pub(crate) locality: Option<Arc<Locality>>,
    pub(crate) metadata: Arc<BTreeMap<String, String>>,
    /// Virtual names, with commas, lower case.
    pub(crate) virtual_names: Option<Arc<str>>,
}

/// What an answer says of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// Name of the application, lower case.
    pub(crate) app: Arc<str>,
    pub(crate) id: Arc<str>,
    /// `None`: it is gone (a delta only).
    pub(crate) instance: Option<Instance>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Answered {
    /// `apps__hashcode`; servers that state none cannot be followed by deltas.
    pub(crate) hash: Option<String>,
    pub(crate) told: Vec<Told>,
    /// Instances without a name or an id.
    pub(crate) skipped: usize,
}

/// Reads one answer.
pub(crate) struct Reader {
    secure: bool,
    answered: Answered,
    applications: bool,
    texts: HashSet<Arc<str>>,
    places: HashSet<Arc<Locality>>,
    maps: HashSet<Arc<BTreeMap<String, String>>>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

/// The one that is known already, so that equal ones are kept once.
fn one_of<T: ?Sized + Eq + Hash>(known: &mut HashSet<Arc<T>>, new: Arc<T>) -> Arc<T> {
    if let Some(old) = known.get(&*new) {
        return Arc::clone(old);
    }
    known.insert(Arc::clone(&new));
    new
}

impl Reader {
    /// `secure`: the secure port is taken where it is enabled.
    pub(crate) fn new(secure: bool) -> Self {
        Self {
            secure,
            answered: Answered::default(),
            applications: false,
            texts: HashSet::new(),
            places: HashSet::new(),
            maps: HashSet::new(),
        }
    }

    fn take(&mut self, raw: Raw) -> Result<(), &'static str> {
        if self.answered.told.len() >= MAX_INSTANCES {
            return Err("too many instances");
        }
        let (Some(app), Some(id)) = (raw.app(), raw.id()) else {
            self.answered.skipped += 1;
            return Ok(());
        };
        let app = one_of(&mut self.texts, Arc::from(app.to_ascii_lowercase()));
        let id = Arc::from(id);
        let instance = (!raw.is_deleted()).then(|| self.instance(raw));
        self.answered.told.push(Told { app, id, instance });
        Ok(())
    }

    fn instance(&mut self, raw: Raw) -> Instance {
        let status = Status::of(raw.status.as_deref().unwrap_or_default());
        let overridden = raw.overridden.as_deref().map(Status::of);
        let effective = overridden.filter(|over| *over != Status::Unknown);
        let place = raw.host().zip(raw.port(self.secure));
        let address = place.and_then(|(host, port)| address(host, port));
        let locality = raw.zone().map(|zone| {
            let place = Locality {
                region: raw.metadata.get("region").map(|text| Arc::from(&**text)),
                zone: Some(Arc::from(zone)),
                sub_zone: None,
            };
            one_of(&mut self.places, Arc::new(place))
        });
        let names = raw
            .virtual_names(self.secure)
            .map(|names| one_of(&mut self.texts, Arc::from(names.to_ascii_lowercase())));
        let weight = raw
            .metadata
            .get("weight")
            .and_then(|text| text.parse().ok());
        let mut metadata = raw.metadata;
        metadata.retain(|key, _| !key.starts_with('@'));
        Instance {
            status,
            health: effective.unwrap_or(status).health(),
            weight: weight.unwrap_or(1).clamp(1, MAX_WEIGHT),
            address,
            locality,
            metadata: one_of(&mut self.maps, Arc::new(fitting(metadata))),
            virtual_names: names,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reader {
    type Value = Answered;
    fn deserialize<D: Deserializer<'de>>(mut self, document: D) -> Result<Answered, D::Error> {
        let walk = Walk {
            reader: &mut self,
            level: Level::Document,
        };
        walk.deserialize(document)?;
        if !self.applications {
            return Err(D::Error::custom("there are no applications in it"));
        }
        Ok(self.answered)
    }
}

/// How deep the walk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Document,
    Applications,
    Application,
    Instance,
}

/// A walk through the document: where one thing is meant, one or a list of them may stand, or nothing.
struct Walk<'r> {
    reader: &'r mut Reader,
    level: Level,
}

impl Walk<'_> {
    fn below(&mut self, level: Level) -> Walk<'_> {
        Walk {
            reader: self.reader,
            level,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("applications of Eureka")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        if !matches!(self.level, Level::Application | Level::Instance) {
            return Err(A::Error::custom("a list stands where there can be none"));
        }
        let level = self.level;
        while list.next_element_seed(self.below(level))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        if self.level == Level::Instance {
            let raw = Raw::read(MapAccessDeserializer::new(map))?;
            return self.reader.take(raw).map_err(A::Error::custom);
        }
        while let Some(key) = map.next_key::<String>()? {
            match (self.level, key.as_str()) {
                (Level::Document, "applications") => {
                    self.reader.applications = true;
                    map.next_value_seed(self.below(Level::Applications))?;
                }
                (Level::Applications, "apps__hashcode") => {
                    self.reader.answered.hash = map.next_value::<super::fields::Text>()?.0;
                }
                (Level::Applications, "application") => {
                    map.next_value_seed(self.below(Level::Application))?;
                }
                (Level::Application, "instance") => {
                    map.next_value_seed(self.below(Level::Instance))?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if text.trim().is_empty() {
            return Ok(());
        }
        Err(E::custom("text stands where there can be none"))
    }
}

#[cfg(test)]
mod tests;
