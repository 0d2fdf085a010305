//! The forms of our certificates: root, intermediate, leaf, and requests for them.
//!
//! No name constraints anywhere: Istio's ztunnel refuses chains that have them. A leaf has exactly one URI
//! SAN, both extended key usages, and names its host in the subject, which binds it to that host's grant.

use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use mesh_model::{
    name::HostId,
    principal::{SpiffeId, TrustDomain},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SigningKey,
};
use rustls_pki_types::CertificateDer;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use super::AuthorityError;
use crate::{
    key::{P256Key, random},
    verify::certificate::AUTHORITY,
};

/// Certificates and grants begin this long before they are made, for clocks that are behind.
pub const BACKDATE_MS: u64 = 120_000;

/// The last time that is put into a certificate: the year 9000.
const LAST_SECOND: u64 = 221_845_392_000;

/// The root: self-signed, ten years, one level of intermediates.
pub(super) fn root(
    key: &P256Key,
    trust_domain: &TrustDomain,
    now_ms: u64,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let mut params = authority_params(root_name(trust_domain), 1)?;
    set_times(&mut params, now_ms, now_ms + super::ROOT_LIFETIME_MS);
    let certificate = params
        .self_signed(key)
        .map_err(AuthorityError::Certificate)?;
    Ok(certificate.der().clone())
}

/// An intermediate for `host`, signed by the root.
pub(super) fn intermediate(
    (root, trust_domain): (&P256Key, &TrustDomain),
    host: HostId,
    csr: &[u8],
    (now_ms, not_after_ms): (u64, u64),
) -> Result<CertificateDer<'static>, AuthorityError> {
    let mut params = authority_params(authority_name(host), 0)?;
    set_times(&mut params, now_ms, not_after_ms);
    sign(
        &params,
        csr,
        &authority_params(root_name(trust_domain), 1)?,
        root,
    )
}

/// A leaf for `id` on `host`, signed by the intermediate of the authority on another or the same host.
pub(super) fn leaf(
    (issuer, issuer_host): (&P256Key, HostId),
    csr: &[u8],
    id: &SpiffeId,
    host: HostId,
    (now_ms, not_after_ms): (u64, u64),
) -> Result<CertificateDer<'static>, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&host.to_string());
    params.subject_alt_names = vec![uri(id)?];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial()?);
    set_times(&mut params, now_ms, not_after_ms);
    sign(
        &params,
        csr,
        &authority_params(authority_name(issuer_host), 0)?,
        issuer,
    )
}

/// A PKCS#10 request signed with `key`; it names `id` for CAs that read names from requests.
pub(crate) fn request(key: &P256Key, id: Option<&SpiffeId>) -> Result<Vec<u8>, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(id) = id {
        params.subject_alt_names = vec![uri(id)?];
    }
    let request = params
        .serialize_request(key)
        .map_err(AuthorityError::Certificate)?;
    Ok(request.der().to_vec())
}

/// The P-256 point of a certificate.
pub(super) fn public_of(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.public_key().subject_public_key.data.to_vec())
}

/// End of a certificate's validity, milliseconds since the epoch.
pub(super) fn not_after_ms(certificate: &[u8]) -> Option<u64> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp())
        .ok()?
        .checked_mul(1000)
}

/// True when the certificate is an intermediate whose subject names `host`.
pub(super) fn is_authority_of(certificate: &[u8], host: HostId) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
        return false;
    };
    let wanted = authority_text(host);
    let mut subjects = parsed.subject().iter_common_name();
    let named = subjects
        .next()
        .and_then(|name| name.as_str().ok())
        .is_some_and(|cn| cn == wanted);
    parsed.is_ca() && named && subjects.next().is_none()
}

/// The checked public key of a request.
struct Requested(Vec<u8>);

impl PublicKeyData for Requested {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }
    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// Takes the public key out of a request; refuses one that is not signed with that key (P-256 only).
fn possessed_key(csr: &[u8]) -> Result<Requested, AuthorityError> {
    let (rest, request) =
        X509CertificationRequest::from_der(csr).map_err(|_form| AuthorityError::Request)?;
    let body = &request.certification_request_info;
    let point = body.subject_pki.subject_public_key.data.as_ref();
    // An uncompressed point: rustls and webpki read no other form.
    if !rest.is_empty() || point.len() != 65 || point.first() != Some(&4) {
        return Err(AuthorityError::Request);
    }
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
        .verify(body.raw, &request.signature_value.data)
        .map_err(|_unspecified| AuthorityError::Request)?;
    Ok(Requested(point.to_vec()))
}

fn sign(
    params: &CertificateParams,
    csr: &[u8],
    issuer: &CertificateParams,
    key: &impl SigningKey,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let requested = possessed_key(csr)?;
    let issuer = Issuer::from_params(issuer, key);
    let certificate = params
        .signed_by(&requested, &issuer)
        .map_err(AuthorityError::Certificate)?;
    Ok(certificate.der().clone())
}

fn authority_params(
    name: DistinguishedName,
    path_length: u8,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial()?);
    Ok(params)
}

fn root_name(trust_domain: &TrustDomain) -> DistinguishedName {
    common_name(&format!("meshd root of {trust_domain}"))
}

fn authority_name(host: HostId) -> DistinguishedName {
    common_name(&authority_text(host))
}

fn authority_text(host: HostId) -> String {
    format!("{AUTHORITY}{host}")
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn uri(id: &SpiffeId) -> Result<SanType, AuthorityError> {
    let text = rcgen::string::Ia5String::try_from(id.to_string());
    Ok(SanType::URI(text.map_err(AuthorityError::Certificate)?))
}

/// 16 random bytes, positive (RFC 5280 section 4.1.2.2).
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = random::<16>()?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

fn set_times(params: &mut CertificateParams, now_ms: u64, not_after_ms: u64) {
    let at = |ms: u64| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs((ms / 1000).min(LAST_SECOND))
    };
    params.not_before = at(now_ms.saturating_sub(BACKDATE_MS));
    params.not_after = at(not_after_ms);
}
