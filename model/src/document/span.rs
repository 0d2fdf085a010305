//! Small values as people write them, read when the document is: spans of time, gRPC codes, rates, bytes.
//!
//! Reading them is checking them: nobody has to look at their text again.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::duration;

/// A span of time: as Gateway API writes it (`1m30s`), and with fractions as Istio does (`1.5s`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration::parse_fractions(&text).map(Self).map_err(|_text| {
            serde::de::Error::custom(format!(
                "{:?} is no span of time; write it like 10s, 500ms or 1.5s",
                text.chars().take(40).collect::<String>()
            ))
        })
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&duration::print(self.0))
    }
}

/// A gRPC status, 0 to 16, written as its name (`UNAVAILABLE`) or its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrpcCode(pub u8);

/// The names of gRPC's statuses, by number.
pub const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl GrpcCode {
    /// The status of a name in any case, or of a number.
    pub fn parse(text: &str) -> Option<Self> {
        let upper = text.to_ascii_uppercase();
        let named = GRPC_CODES.iter().position(|name| *name == upper);
        let number = named.or_else(|| text.parse().ok())?;
        (number < GRPC_CODES.len()).then_some(Self(u8::try_from(number).ok()?))
    }
    /// Its name.
    pub fn name(self) -> &'static str {
        GRPC_CODES
            .get(usize::from(self.0))
            .copied()
            .unwrap_or("UNKNOWN")
    }
}

struct CodeVisitor;

impl serde::de::Visitor<'_> for CodeVisitor {
    type Value = GrpcCode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a gRPC status")
    }
    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<GrpcCode, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<GrpcCode, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<GrpcCode, E> {
        GrpcCode::parse(text).ok_or_else(|| {
            let near = crate::written::nearest(text, GRPC_CODES).map_or_else(
                || "write a name such as UNAVAILABLE, or a number from 0 to 16".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            E::custom(format!("{text:?} is no gRPC status; {near}"))
        })
    }
}

impl<'de> Deserialize<'de> for GrpcCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CodeVisitor)
    }
}

/// Bytes per second, written as bits (`64kbps`, `10Mbps`, `1Gbps`) or bytes (`64KiB/s`, `1MB/s`, `900B/s`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

/// Units of a rate, in bytes per second for 8 of them.
const RATES: [(&str, u64); 9] = [
    ("kbps", 1_000),
    ("Mbps", 1_000_000),
    ("Gbps", 1_000_000_000),
    ("bps", 1),
    ("KiB/s", 8 * 1024),
    ("MiB/s", 8 * 1024 * 1024),
    ("kB/s", 8_000),
    ("MB/s", 8_000_000),
    ("B/s", 8),
];

impl Rate {
    /// Reads a whole number and a unit, with or without a blank between.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits)?;
        let number: u64 = number.parse().ok()?;
        let unit = unit.trim_start();
        let (_, eighths) = RATES.iter().find(|(word, _)| *word == unit)?;
        number.checked_mul(*eighths).map(|bits| Self(bits / 8))
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{:?} is no rate; write it like 64kbps, 10Mbps, 64KiB/s or 1MB/s",
                text.chars().take(40).collect::<String>()
            ))
        })
    }
}

/// Bytes, written as base64 (RFC 4648, section 4).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Base64(pub Vec<u8>);

impl Base64 {
    /// Reads base64 with its padding; none when it is not that.
    pub fn parse(text: &str) -> Option<Self> {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let body = text.trim_end_matches('=');
        if !text.len().is_multiple_of(4) || text.len() - body.len() > 2 {
            return None;
        }
        let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0);
        for byte in body.bytes() {
            let value = ALPHABET.iter().position(|letter| *letter == byte)?;
            bits = bits << 6 | u32::try_from(value).ok()?;
            held += 6;
            if held >= 8 {
                held -= 8;
                bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
                bits &= (1 << held) - 1;
            }
        }
        (bits == 0).then_some(Self(bytes))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("is no base64; write what `base64 -w0` prints"))
    }
}
