//! Join tokens: `meshd1.<base64url>`, everything that a new host needs to find and recognise its mesh.
//!
//! The text carries a check sum, so that a truncated or mistyped token says so. The issuer keeps only the
//! MAC key that follows from the secret. Never: shows the secret in a log or a `Debug` text.

use std::fmt;

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use mesh_model::name::{HostId, MeshId};
use prost::Message;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::key::{KeyError, random};

/// What every token begins with.
pub const PREFIX: &str = "meshd1.";
/// Longest text that is read.
const LIMIT: usize = 4096;
/// Bytes of the check sum at the end.
const SUM: usize = 4;

/// Why a text is no token, or the token cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It does not begin as tokens do.
    #[error("this is not a join token: it must begin with {PREFIX}")]
    Prefix,
    /// Part of it is missing, or a character is wrong.
    #[error("the token is truncated or mistyped: copy all of it, on one line")]
    Damaged,
    /// Intact, but a field is impossible: made by something newer or broken.
    #[error("the token is malformed: {0}")]
    Field(&'static str),
    /// Its time is over.
    #[error("the token expired {0} s ago: create a new one with meshctl token create")]
    Expired(u64),
    /// The host is in another mesh.
    #[error("the token is for mesh {token}, but this host is in mesh {own}")]
    OtherMesh {
        /// The token's.
        token: MeshId,
        /// This host's.
        own: MeshId,
    },
}

/// A join token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The mesh to join.
    pub mesh_id: MeshId,
    /// SHA-256 of the X.509 root's public key info: [`crate::tls::pin_of`].
    pub root_sha256: [u8; 32],
    /// Where to knock: `ip:port` or `host:port` of the control state, at least one.
    pub seeds: Vec<String>,
    /// Names the token at its issuer.
    pub token_id: [u8; 8],
    /// The authority that made it and counts its uses.
    pub issuer: HostId,
    /// Proves possession.
    pub secret: Secret,
    /// End of its use, milliseconds since the epoch.
    pub expires_ms: u64,
    /// How many hosts may use it; the issuer counts.
    pub max_uses: u32,
    /// True when joiners become authorities.
    pub authority: bool,
    /// Services that joiners may register.
    pub services: Vec<String>,
}

/// The secret of a token, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 16]);

impl Secret {
    /// A new random secret.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self(random()?))
    }
    /// What the issuer keeps instead of the secret, and both sides make MACs with.
    pub fn mac_key(&self) -> MacKey {
        let mut context = blake3::Hasher::new_derive_key("meshd 2026 join token mac key");
        context.update(&self.0);
        MacKey(*context.finalize().as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The key of a token's MAC.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MacKey([u8; 32]);

impl MacKey {
    /// From storage.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// For storage: a secret.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0)
    }
    /// Binds a request to one TLS connection: HMAC-SHA256 over the exporter (32 bytes) and the request's bytes.
    pub fn mac(&self, exporter: &[u8; 32], request: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key());
        context.update(exporter);
        context.update(request);
        let mut out = [0; 32];
        for (slot, byte) in out.iter_mut().zip(context.sign().as_ref()) {
            *slot = *byte;
        }
        out
    }
    /// True when `mac` is right; in constant time.
    pub fn verify(&self, exporter: &[u8; 32], request: &[u8], mac: &[u8]) -> bool {
        let mut message = Vec::with_capacity(32 + request.len());
        message.extend_from_slice(exporter);
        message.extend_from_slice(request);
        hmac::verify(&self.key(), &message, mac).is_ok()
    }
    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(…)")
    }
}

/// The form inside the base64url text.
#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(bytes = "vec", tag = "1")]
    mesh_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    root_sha256: Vec<u8>,
    #[prost(string, repeated, tag = "3")]
    seeds: Vec<String>,
    #[prost(bytes = "vec", tag = "4")]
    token_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    issuer: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    secret: Vec<u8>,
    #[prost(uint64, tag = "7")]
    expires_ms: u64,
    #[prost(uint32, tag = "8")]
    max_uses: u32,
    #[prost(bool, tag = "9")]
    authority: bool,
    #[prost(string, repeated, tag = "10")]
    services: Vec<String>,
}

impl Token {
    /// Reads a token; white space around it is fine.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let encoded = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        if encoded.len() > LIMIT {
            return Err(TokenError::Damaged);
        }
        let bytes = BASE64URL_NOPAD
            .decode(encoded.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_form| TokenError::Damaged)?;
        let body = bytes
            .len()
            .checked_sub(SUM)
            .and_then(|at| bytes.split_at_checked(at));
        let (body, sum) = body.ok_or(TokenError::Damaged)?;
        if !blake3::hash(body).as_bytes().starts_with(sum) {
            return Err(TokenError::Damaged);
        }
        let wire = Wire::decode(body).map_err(|_form| TokenError::Field("encoding"))?;
        Self::from_wire(wire)
    }

    /// The text: a secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        let wire = Wire {
            mesh_id: self.mesh_id.0.to_vec(),
            root_sha256: self.root_sha256.to_vec(),
            seeds: self.seeds.clone(),
            token_id: self.token_id.to_vec(),
            issuer: self.issuer.0.to_vec(),
            secret: self.secret.0.to_vec(),
            expires_ms: self.expires_ms,
            max_uses: self.max_uses,
            authority: self.authority,
            services: self.services.clone(),
        };
        let mut bytes = Zeroizing::new(wire.encode_to_vec());
        let sum = blake3::hash(&bytes);
        bytes.extend(sum.as_bytes().iter().take(SUM));
        Zeroizing::new(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)))
    }

    /// Refuses an expired token, and one for another mesh than the host's own, if it has one.
    pub fn check(&self, now_ms: u64, own: Option<MeshId>) -> Result<(), TokenError> {
        if let Some(own) = own.filter(|own| *own != self.mesh_id) {
            return Err(TokenError::OtherMesh {
                token: self.mesh_id,
                own,
            });
        }
        if now_ms >= self.expires_ms {
            return Err(TokenError::Expired((now_ms - self.expires_ms) / 1000));
        }
        Ok(())
    }

    fn from_wire(mut wire: Wire) -> Result<Self, TokenError> {
        let secret = wire.secret.as_slice().try_into().map(Secret);
        wire.secret.zeroize();
        if wire.seeds.is_empty() {
            return Err(TokenError::Field("it names no place to join"));
        }
        Ok(Self {
            mesh_id: MeshId::from_slice(&wire.mesh_id).ok_or(TokenError::Field("mesh id"))?,
            root_sha256: fixed(&wire.root_sha256, "root pin")?,
            seeds: wire.seeds,
            token_id: fixed(&wire.token_id, "token id")?,
            issuer: HostId::from_slice(&wire.issuer).ok_or(TokenError::Field("issuer"))?,
            secret: secret.map_err(|_length| TokenError::Field("secret"))?,
            expires_ms: wire.expires_ms,
            max_uses: wire.max_uses,
            authority: wire.authority,
            services: wire.services,
        })
    }
}

fn fixed<const N: usize>(bytes: &[u8], field: &'static str) -> Result<[u8; N], TokenError> {
    bytes.try_into().map_err(|_length| TokenError::Field(field))
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("mesh_id", &self.mesh_id)
            .field("issuer", &self.issuer)
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(seeds: Vec<String>, services: Vec<String>, expires_ms: u64, max_uses: u32) -> Token {
        Token {
            mesh_id: MeshId([1; 16]),
            root_sha256: [2; 32],
            seeds,
            token_id: [3; 8],
            issuer: HostId([4; 16]),
            secret: Secret::generate().unwrap(),
            expires_ms,
            max_uses,
            authority: max_uses.is_multiple_of(2),
            services,
        }
    }

    fn plain() -> Token {
        token(
            vec!["10.0.0.1:7947".to_owned()],
            vec!["*".to_owned()],
            5_000,
            1,
        )
    }

    proptest! {
        #[test]
        fn every_token_survives_its_text(
            seeds in prop::collection::vec("[a-z0-9.:]{1,30}", 1..5),
            services in prop::collection::vec("[a-z*/]{1,20}", 0..5),
            expires_ms in any::<u64>(),
            max_uses in any::<u32>(),
        ) {
            let token = token(seeds, services, expires_ms, max_uses);
            let text = token.to_text();
            prop_assert_eq!(Token::parse(&format!("  {}\n", *text)).unwrap(), token);
        }

        #[test]
        fn no_part_of_a_token_is_a_token(cut in 1_usize..150) {
            let text = plain().to_text();
            let cut = text.len().saturating_sub(cut).max(PREFIX.len());
            prop_assert_eq!(Token::parse(text.get(..cut).unwrap()), Err(TokenError::Damaged));
        }

        #[test]
        fn one_wrong_character_is_seen(at in 0_usize..100, letter in "[A-Za-z0-9]") {
            let text = plain().to_text();
            let at = PREFIX.len() + at;
            let mut wrong = text.to_string();
            wrong.replace_range(at..=at, &letter);
            prop_assume!(wrong != *text);
            prop_assert_eq!(Token::parse(&wrong), Err(TokenError::Damaged));
        }

        #[test]
        fn texts_from_outside_never_panic(text in "(meshd1\\.)?[ -~]{0,100}") {
            prop_assert!(Token::parse(&text).is_err());
        }
    }

    #[test]
    fn each_fault_is_named() {
        assert_eq!(Token::parse("hello"), Err(TokenError::Prefix));
        assert_eq!(Token::parse(""), Err(TokenError::Prefix));
        assert_eq!(Token::parse("meshd1."), Err(TokenError::Damaged));
        let other = MeshId([9; 16]);
        assert_eq!(plain().check(4_999, None), Ok(()));
        assert_eq!(plain().check(4_999, Some(MeshId([1; 16]))), Ok(()));
        assert_eq!(plain().check(7_000, None), Err(TokenError::Expired(2)));
        assert!(matches!(
            plain().check(0, Some(other)),
            Err(TokenError::OtherMesh { .. })
        ));
        let nowhere = token(Vec::new(), Vec::new(), 1, 1);
        assert!(matches!(
            Token::parse(&nowhere.to_text()),
            Err(TokenError::Field(_))
        ));
    }

    #[test]
    fn the_secret_is_not_shown() {
        let token = plain();
        let shown = format!("{token:?} {:?} {:?}", token.secret, token.secret.mac_key());
        assert!(!shown.contains(&format!("{:?}", token.secret.0)), "{shown}");
    }

    #[test]
    fn macs_bind_secret_connection_and_request() {
        let key = plain().secret.mac_key();
        let mac = key.mac(&[7; 32], b"request");
        assert!(MacKey::from_bytes(*key.to_bytes()).verify(&[7; 32], b"request", &mac));
        assert!(!key.verify(&[8; 32], b"request", &mac));
        assert!(!key.verify(&[7; 32], b"Request", &mac));
        assert!(!plain().secret.mac_key().verify(&[7; 32], b"request", &mac));
        assert!(!key.verify(&[7; 32], b"request", &mac[..31]));
    }
}
