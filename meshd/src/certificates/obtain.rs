//! One certificate is obtained: from this host's own authority, else from any other that lives.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use mesh_identity::{Credential, leaf::LeafRequest};
use mesh_model::{
    catalog::Catalog, cause, fact::HostInfo, grant::Signed, name::HostId, principal::SpiffeId,
};
use prost::Message as _;
use rustls_pki_types::CertificateDer;

use super::{
    Settings,
    issue::{AUTHORITY_KIND, AuthorityAsk, ISSUE_KIND, LeafAnswer, LeafAsk},
};
use crate::{admission, clock};

/// Asks another host: host, kind of call, body. Ends in time by itself.
pub(crate) type Ask = Arc<
    dyn Fn(HostId, &'static str, Bytes) -> BoxFuture<'static, Result<Bytes, String>> + Send + Sync,
>;

/// A certificate for `id` on this host, or what every authority said.
pub(super) async fn obtain(settings: &Settings, id: &SpiffeId) -> Result<Credential, String> {
    if let Some(own) = own(settings, id) {
        return own;
    }
    let catalog = Arc::clone(&settings.catalog.borrow());
    let authorities = authorities(&catalog, settings.identity.host());
    if authorities.is_empty() {
        return Err("no authority is known (yet)".to_owned());
    }
    let mut said = Vec::new();
    for authority in &authorities {
        match ask(settings, id, *authority).await {
            Ok(credential) => return Ok(credential),
            Err(why) => said.push(format!("{}: {why}", name(&catalog, *authority))),
        }
    }
    if outdated(settings) {
        match recover(settings, &catalog, id, &authorities).await {
            Ok(credential) => return Ok(credential),
            Err(why) => said.push(why),
        }
    }
    Err(said.join("; "))
}

/// From the own authority; `None` when there is none in force.
fn own(settings: &Settings, id: &SpiffeId) -> Option<Result<Credential, String>> {
    let identity = &settings.identity;
    let authority = identity.authority()?;
    let now_ms = clock::now_ms();
    if authority.not_after_ms() <= now_ms {
        return None;
    }
    // What the mesh knows of this host's rights counts, like everywhere else; at the start what it came with.
    let catalog = settings.catalog.borrow().clone();
    let known = catalog
        .hosts
        .get(&identity.host())
        .and_then(|host| host.grant.clone());
    let grant = known.unwrap_or_else(|| Arc::new(identity.grant().clone()));
    let issued = LeafRequest::new(id)
        .map_err(|error| cause::chain(&error))
        .and_then(|leaf| {
            let chain = authority.issue(leaf.csr(), id, &grant, now_ms);
            let chain = chain.map_err(|error| cause::chain(&error))?;
            leaf.finish(chain, identity.host())
                .map_err(|error| cause::chain(&error))
        });
    Some(issued)
}

async fn ask(settings: &Settings, id: &SpiffeId, authority: HostId) -> Result<Credential, String> {
    let leaf = LeafRequest::new(id).map_err(|error| cause::chain(&error))?;
    let body = LeafAsk {
        id: id.to_string(),
        csr: leaf.csr().to_vec(),
    }
    .encode_to_vec();
    let answer = (settings.ask)(authority, ISSUE_KIND, body.into()).await?;
    let answer =
        LeafAnswer::decode(answer).map_err(|_form| "its answer is malformed".to_owned())?;
    let chain = answer.chain.into_iter().map(CertificateDer::from).collect();
    let credential = leaf
        .finish(chain, settings.identity.host())
        .map_err(|error| cause::chain(&error))?;
    if credential.not_after_ms <= clock::now_ms() {
        return Err("it gave a certificate that has ended already: compare the clocks".to_owned());
    }
    Ok(credential)
}

/// True when the host's own certificate has ended, or is disowned, so that no link can be made.
fn outdated(settings: &Settings) -> bool {
    let id = settings.identity.spiffe_id();
    let own = settings.credentials.get(&id);
    own.is_none_or(|own| own.not_after_ms <= clock::now_ms()) || is_disowned(settings, &id)
}

/// True when the authority of another host that signed the certificate was revoked since.
pub(super) fn is_disowned(settings: &Settings, id: &SpiffeId) -> bool {
    let issuer = settings.credentials.get(id).and_then(|held| held.issuer());
    let catalog = settings.catalog.borrow();
    issuer
        .filter(|issuer| *issuer != settings.identity.host())
        .and_then(|issuer| catalog.hosts.get(&issuer))
        .is_some_and(|host| host.grant.is_none())
}

/// The host's own certificate by its Ed25519 key; other identities follow once links stand again.
async fn recover(
    settings: &Settings,
    catalog: &Catalog,
    id: &SpiffeId,
    authorities: &[HostId],
) -> Result<Credential, String> {
    if *id != settings.identity.spiffe_id() {
        return Err("this host's own certificate has ended".to_owned());
    }
    let mut said = String::from("no authority's address is known");
    for authority in authorities {
        let info = catalog
            .hosts
            .get(authority)
            .and_then(|host| host.info.clone());
        for at in info.iter().flat_map(|info| addresses(info)) {
            match admission::recover(&settings.identity, at).await {
                Ok(credential) => return Ok(credential),
                Err(error) => said = format!("{at}: {}", cause::chain(&error)),
            }
        }
    }
    Err(said)
}

fn addresses(info: &HostInfo) -> Vec<std::net::SocketAddr> {
    let port = u16::try_from(info.cluster_port)
        .ok()
        .filter(|port| *port != 0)
        .unwrap_or(7947);
    let ips = info.addresses.iter().filter_map(|text| text.parse().ok());
    ips.map(|ip| std::net::SocketAddr::new(ip, port)).collect()
}

/// Other authorities: those that answer in random order, then those that may.
fn authorities(catalog: &Catalog, own: HostId) -> Vec<HostId> {
    let mut all: Vec<HostId> = catalog
        .authorities
        .iter()
        .filter_map(|grant| HostId::from_slice(&grant.host_id))
        .filter(|host| *host != own)
        .collect();
    all.sort_unstable();
    all.dedup();
    fastrand::shuffle(&mut all);
    let down = |host: &HostId| {
        let facts = catalog.hosts.get(host);
        facts.is_none_or(|facts| !facts.is_living())
    };
    all.sort_by_key(down);
    all
}

fn name(catalog: &Catalog, host: HostId) -> String {
    let info = catalog
        .hosts
        .get(&host)
        .and_then(|facts| facts.info.as_ref());
    info.map(|info| info.name.clone())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| host.short())
}

/// Another year as an authority: from the own root, else from whoever holds it.
pub(super) async fn authority(settings: &Settings) -> Result<(), String> {
    let identity = &settings.identity;
    let chain = cause::chain;
    let current = identity.authority().ok_or("this host is no authority")?;
    let request = current.keys().request().map_err(|error| chain(&error))?;
    if let Some(root) = identity.root() {
        let seq = 1 + own_seq(&settings.catalog.borrow(), identity.host());
        let renewed = root
            .certify(identity.host(), &request, seq, clock::now_ms())
            .map_err(|error| chain(&error))?;
        return identity
            .renew_authority(renewed)
            .map_err(|error| chain(&error));
    }
    let catalog = Arc::clone(&settings.catalog.borrow());
    let mut said = Vec::new();
    for host in authorities(&catalog, identity.host()) {
        let body = AuthorityAsk {
            csr: request.csr.clone(),
        }
        .encode_to_vec();
        let answer = (settings.ask)(host, AUTHORITY_KIND, body.into()).await;
        let taken = answer.and_then(|bytes| {
            let renewed =
                Signed::decode(bytes).map_err(|_form| "its answer is malformed".to_owned())?;
            identity
                .renew_authority(renewed)
                .map_err(|error| chain(&error))
        });
        match taken {
            Ok(()) => return Ok(()),
            Err(why) => said.push(format!("{}: {why}", name(&catalog, host))),
        }
    }
    Err(said.join("; "))
}

fn own_seq(catalog: &Catalog, own: HostId) -> u64 {
    let grants = catalog
        .authorities
        .iter()
        .filter(|grant| grant.host_id == own.0);
    grants.map(|grant| grant.grant_seq).max().unwrap_or(1)
}
