//! The keys of one direction: each seals or opens one record after the other.
//!
//! In: secrets that the handshake, or an update of keys, left. Out: records. Never: uses a nonce twice.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, Nonce, TlsProtocolId, TlsRecordOpeningKey,
    TlsRecordSealingKey,
};
use rustls::{
    ConnectionTrafficSecrets,
    crypto::cipher::{AeadKey, Iv, Nonce as Numbered},
};

use super::{
    fault::Fault,
    record::{self, HEAD, TAG, TAIL},
};

/// Seals what is sent.
pub(super) struct Sealing {
    key: TlsRecordSealingKey,
    iv: Iv,
    next: u64,
}

/// Opens what comes.
pub(super) struct Opening {
    key: TlsRecordOpeningKey,
    iv: Iv,
    next: u64,
}

/// Algorithm, key and start of what both sides agreed on.
fn parts(secrets: ConnectionTrafficSecrets) -> Result<(&'static Algorithm, AeadKey, Iv), Fault> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => Ok((&AES_128_GCM, key, iv)),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => Ok((&AES_256_GCM, key, iv)),
        _ => Err(Fault::Keys),
    }
}

/// Secrets without a handshake, for laws over any bytes: each number has its own.
#[cfg(feature = "fuzz")]
pub(super) fn secrets(number: u8) -> ConnectionTrafficSecrets {
    ConnectionTrafficSecrets::Aes256Gcm {
        key: AeadKey::from([number; 32]),
        iv: Iv::from([number; 12]),
    }
}

impl Sealing {
    /// Begins. The library counts records too, from the first one under a key, so that must be our first.
    pub(super) fn new(next: u64, secrets: ConnectionTrafficSecrets) -> Result<Self, Fault> {
        let (algorithm, key, iv) = parts(secrets)?;
        if next != 0 {
            return Err(Fault::Keys);
        }
        let key = TlsRecordSealingKey::new(algorithm, TlsProtocolId::TLS13, key.as_ref());
        let key = key.map_err(|_unspecified| Fault::Keys)?;
        Ok(Self { key, iv, next })
    }

    /// Records that were sealed.
    pub(super) fn sealed(&self) -> u64 {
        self.next
    }

    /// Writes one record to the beginning of `out`; its length. The content is read where it is and sealed to where
    /// it goes.
    pub(super) fn seal(
        &mut self,
        kind: u8,
        content: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Fault> {
        let head = record::head(content.len() + TAIL);
        let (place, rest) = out.split_at_mut_checked(HEAD).ok_or(Fault::Keys)?;
        let (body, rest) = rest
            .split_at_mut_checked(content.len())
            .ok_or(Fault::Keys)?;
        let tail = rest.get_mut(..TAIL).ok_or(Fault::Keys)?;
        let nonce = Nonce::assume_unique_for_key(Numbered::new(&self.iv, self.next).0);
        self.key
            .seal_out_of_place_scatter(nonce, Aad::from(head), content, body, &[kind], tail)
            .map_err(|_unspecified| Fault::Keys)?;
        place.copy_from_slice(&head);
        self.next += 1;
        Ok(HEAD + content.len() + TAIL)
    }
}

impl Opening {
    /// Begins with the record of this number.
    pub(super) fn new(next: u64, secrets: ConnectionTrafficSecrets) -> Result<Self, Fault> {
        let (algorithm, key, iv) = parts(secrets)?;
        let key = TlsRecordOpeningKey::new(algorithm, TlsProtocolId::TLS13, key.as_ref());
        let key = key.map_err(|_unspecified| Fault::Keys)?;
        Ok(Self { key, iv, next })
    }

    /// Opens one whole record where it is; kind and length of its content, which begins behind the head.
    pub(super) fn open(&mut self, bytes: &mut [u8]) -> Result<(u8, usize), Fault> {
        let (head, payload) = bytes.split_at_mut_checked(HEAD).ok_or(Fault::NotGenuine)?;
        let opened = payload.len().checked_sub(TAG).ok_or(Fault::NotGenuine)?;
        let nonce = Nonce::assume_unique_for_key(Numbered::new(&self.iv, self.next).0);
        self.key
            .open_in_place(nonce, Aad::from(&*head), payload)
            .map_err(|_unspecified| Fault::NotGenuine)?;
        self.next += 1;
        record::content(payload.get(..opened).unwrap_or_default())
    }
}
