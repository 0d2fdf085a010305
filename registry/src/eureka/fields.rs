//! The fields of one instance, whatever form each has: numbers as text, text as numbers, things left out.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// What an instance says of itself, unread.
#[derive(Debug, Default)]
pub(super) struct Raw {
    app: Option<String>,
    id: Option<String>,
    host_name: Option<String>,
    ip: Option<String>,
    pub(super) status: Option<String>,
    pub(super) overridden: Option<String>,
    port: Port,
    secure_port: Port,
    names: Option<String>,
    secure_names: Option<String>,
    action: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    center: BTreeMap<String, String>,
}

fn some(text: Option<&String>) -> Option<&str> {
    text.map(|text| text.trim()).filter(|text| !text.is_empty())
}

impl Raw {
    pub(super) fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_map(Fields)
    }
    pub(super) fn app(&self) -> Option<&str> {
        some(self.app.as_ref())
    }
    /// As Eureka's own clients have it: the id, the machine's id at Amazon, the host name.
    pub(super) fn id(&self) -> Option<&str> {
        some(self.id.as_ref())
            .or_else(|| some(self.center.get("instance-id")))
            .or_else(|| some(self.host_name.as_ref()))
    }
    /// The IP address where there is one; otherwise the host name.
    pub(super) fn host(&self) -> Option<&str> {
        some(self.ip.as_ref())
            .filter(|ip| ip.parse::<std::net::IpAddr>().is_ok())
            .or_else(|| some(self.host_name.as_ref()))
            .or_else(|| some(self.ip.as_ref()))
    }
    /// The port: the secure one where it is wanted and enabled, or is the only one that is.
    pub(super) fn port(&self, secure: bool) -> Option<u16> {
        let (first, second) = if secure {
            (&self.secure_port, &self.port)
        } else {
            (&self.port, &self.secure_port)
        };
        first.open().or_else(|| second.open())
    }
    pub(super) fn virtual_names(&self, secure: bool) -> Option<&str> {
        let (first, second) = (some(self.secure_names.as_ref()), some(self.names.as_ref()));
        if secure { first.or(second) } else { second }
    }
    pub(super) fn zone(&self) -> Option<&str> {
        some(self.metadata.get("zone")).or_else(|| some(self.center.get("availability-zone")))
    }
    pub(super) fn is_deleted(&self) -> bool {
        self.action.as_deref() == Some("DELETED")
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an instance")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut raw = Raw::default();
        while let Some(key) = map.next_key::<String>()? {
            let text = match key.as_str() {
                "app" => &mut raw.app,
                "instanceId" => &mut raw.id,
                "hostName" => &mut raw.host_name,
                "ipAddr" => &mut raw.ip,
                "status" => &mut raw.status,
                // Servers write the one, clients the other.
                "overriddenStatus" | "overriddenstatus" => &mut raw.overridden,
                "vipAddress" => &mut raw.names,
                "secureVipAddress" => &mut raw.secure_names,
                "actionType" => &mut raw.action,
                "port" => {
                    raw.port = map.next_value()?;
                    continue;
                }
                "securePort" => {
                    raw.secure_port = map.next_value()?;
                    continue;
                }
                "metadata" => {
                    raw.metadata = map.next_value::<Texts>()?.0;
                    continue;
                }
                "dataCenterInfo" => {
                    raw.center = map.next_value::<Center>()?.0;
                    continue;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *text = map.next_value::<Text>()?.0;
        }
        Ok(raw)
    }
}

/// Reads anything: what is no such thing is none.
macro_rules! lenient {
    ($name:ident) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
                value.deserialize_any(Reading(Self::default()))
            }
        }
    };
}

/// A value that is being read.
struct Reading<T>(T);

/// What can be made of the parts of JSON; nothing unless said otherwise.
trait Lenient: Default {
    fn text(&mut self, _text: &str) {}
    fn entry<'de, A: MapAccess<'de>>(&mut self, _key: String, map: &mut A) -> Result<(), A::Error> {
        map.next_value::<IgnoredAny>().map(|_| ())
    }
}

impl<'de, T: Lenient> Visitor<'de> for Reading<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }
    fn visit_str<E: Error>(mut self, text: &str) -> Result<T, E> {
        self.0.text(text);
        Ok(self.0)
    }
    fn visit_bool<E: Error>(self, truth: bool) -> Result<T, E> {
        self.visit_str(if truth { "true" } else { "false" })
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_unit<E: Error>(self) -> Result<T, E> {
        Ok(self.0)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<T, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self.0)
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<T, A::Error> {
        while let Some(key) = map.next_key()? {
            self.0.entry(key, &mut map)?;
        }
        Ok(self.0)
    }
}

/// A text, or a number or truth as text.
#[derive(Debug, Default)]
pub(super) struct Text(pub(super) Option<String>);

impl Lenient for Text {
    fn text(&mut self, text: &str) {
        self.0 = Some(text.to_owned());
    }
}
lenient!(Text);

/// Texts by name.
#[derive(Debug, Default)]
struct Texts(BTreeMap<String, String>);

impl Lenient for Texts {
    fn entry<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        if let Some(text) = map.next_value::<Text>()?.0 {
            self.0.insert(key, text);
        }
        Ok(())
    }
}
lenient!(Texts);

/// `{"$": 8080, "@enabled": "true"}`, or a bare number.
#[derive(Debug, Default)]
struct Port {
    number: Option<u16>,
    closed: bool,
}

impl Port {
    fn open(&self) -> Option<u16> {
        self.number.filter(|number| *number > 0 && !self.closed)
    }
}

impl Lenient for Port {
    fn text(&mut self, text: &str) {
        self.number = text.trim().parse().ok();
    }
    fn entry<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        let text = map.next_value::<Text>()?.0.unwrap_or_default();
        match key.as_str() {
            "$" => self.text(&text),
            "@enabled" => self.closed = !text.trim().eq_ignore_ascii_case("true"),
            _ => {}
        }
        Ok(())
    }
}
lenient!(Port);

/// The metadata of a data center.
#[derive(Debug, Default)]
struct Center(BTreeMap<String, String>);

impl Lenient for Center {
    fn entry<'de, A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        if key == "metadata" {
            self.0 = map.next_value::<Texts>()?.0;
            return Ok(());
        }
        map.next_value::<IgnoredAny>().map(|_| ())
    }
}
lenient!(Center);
