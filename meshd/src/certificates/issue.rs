//! The issuing side: what an authority answers to other hosts.

use bytes::Bytes;
use mesh_identity::authority::AuthorityRequest;
use mesh_model::{catalog::Catalog, cause, grant::Signed, name::HostId, principal::SpiffeId};
use prost::Message;

use crate::{admission::Identity, clock};

/// The kind of call that asks for a leaf.
pub(crate) const ISSUE_KIND: &str = "issue";
/// The kind of call with which an authority asks the root's holder for another year.
pub(crate) const AUTHORITY_KIND: &str = "authority";

/// Asks for a leaf.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct LeafAsk {
    /// The SPIFFE id wanted.
    #[prost(string, tag = "1")]
    pub(super) id: String,
    /// PKCS#10 request.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) csr: Vec<u8>,
}

/// A leaf and its intermediates.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct LeafAnswer {
    /// DER, the leaf first.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) chain: Vec<Vec<u8>>,
}

/// Asks for another year as an authority.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct AuthorityAsk {
    /// PKCS#10 request of the intermediate, with the key that it has.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) csr: Vec<u8>,
}

/// Answers [`ISSUE_KIND`]: a leaf for the calling host, if its grant covers the id.
pub(crate) fn issue(
    identity: &Identity,
    catalog: &Catalog,
    caller: HostId,
    body: Bytes,
) -> Result<Bytes, String> {
    let ask = LeafAsk::decode(body).map_err(|_form| "the request is malformed".to_owned())?;
    let id: SpiffeId = ask.id.parse().map_err(|error| format!("{error}"))?;
    let authority = identity.authority().ok_or("this host is no authority")?;
    let grant = catalog
        .hosts
        .get(&caller)
        .and_then(|host| host.grant.clone());
    let grant = grant.ok_or_else(|| format!("host {caller} has no grant here (yet)"))?;
    if grant.host() != Some(caller) {
        return Err("the grant is of another host".to_owned());
    }
    let chain = authority
        .issue(&ask.csr, &id, &grant, clock::now_ms())
        .map_err(|error| cause::chain(&error))?;
    tracing::debug!(%id, host = %caller, "certificate issued");
    let chain = chain
        .iter()
        .map(|certificate| certificate.to_vec())
        .collect();
    Ok(LeafAnswer { chain }.encode_to_vec().into())
}

/// Answers [`AUTHORITY_KIND`]: another year for a host that is an authority, with the keys that it has.
pub(crate) fn renew_authority(
    identity: &Identity,
    catalog: &Catalog,
    caller: HostId,
    body: Bytes,
) -> Result<Bytes, String> {
    let ask = AuthorityAsk::decode(body).map_err(|_form| "the request is malformed".to_owned())?;
    let root = identity.root().ok_or("this host does not hold the root")?;
    let known = catalog
        .authorities
        .iter()
        .filter(|grant| grant.host_id == caller.0);
    let newest = known.max_by_key(|grant| grant.grant_seq);
    let newest = newest.ok_or_else(|| format!("host {caller} is no authority"))?;
    if catalog
        .hosts
        .get(&caller)
        .is_none_or(|host| host.grant.is_none())
    {
        return Err(format!("host {caller} has no grant"));
    }
    let key = newest
        .key
        .as_slice()
        .try_into()
        .map_err(|_length| "its key is malformed".to_owned())?;
    let request = AuthorityRequest { key, csr: ask.csr };
    let renewed: Signed = root
        .certify(caller, &request, newest.grant_seq + 1, clock::now_ms())
        .map_err(|error| cause::chain(&error))?;
    Ok(renewed.encode_to_vec().into())
}
