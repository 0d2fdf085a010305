//! What an issuer decides on a token and a request: refused with a reason, or signed.

use mesh_gossip::Grant;
use mesh_identity::{
    authority::{Authority, AuthorityRequest, HostRequest},
    key::{host_id, verify_signed},
};
use mesh_model::{
    cause,
    grant::{HostGrant, Signed},
    name::HostId,
    principal::SpiffeId,
};
use prost::Message as _;

use super::{
    identity::Identity,
    tokens::{Allowed, Refused, Tokens},
    wire::{Admitted, Ask, Kind, PROOF, Refusal, Renewal, Request, mac_input, proof_input},
};

/// A host that was let in, and what has to be made known.
#[derive(Debug)]
pub(super) struct Admission {
    /// The answer, without the grants that the issuer knows.
    pub(super) admitted: Admitted,
    /// New grants: the host's, and its authority's.
    pub(super) made: Vec<Grant>,
}

/// Checks that the token is good for this connection, and counts nothing.
pub(super) fn look(
    tokens: &Tokens,
    ask: &Ask,
    kind: Kind,
    exporter: &[u8; 32],
    now_ms: u64,
) -> Result<Allowed, Refusal> {
    let input = mac_input(kind, &ask.body);
    let right = |key: &mesh_identity::token::MacKey| key.verify(exporter, &input, &ask.mac);
    tokens
        .look(&ask.token_id, right, now_ms)
        .map_err(|refused| refusal(&refused))
}

/// Lets a host in: checks everything, counts the use on disk, and only then signs.
pub(super) fn admit(
    identity: &Identity,
    tokens: &Tokens,
    ask: &Ask,
    exporter: &[u8; 32],
    now_ms: u64,
) -> Result<Admission, Refusal> {
    let authority = identity.authority().ok_or_else(no_authority)?;
    let allowed = look(tokens, ask, Kind::Request, exporter, now_ms)?;
    let request = Request::decode(ask.body.as_slice()).map_err(|_form| bad("its encoding"))?;
    let joiner = Joiner::check(&request, ask, exporter, allowed.authority)?;
    let host = host_id(&joiner.ed25519);
    if allowed.authority && !identity.is_root() {
        return Err(no_root());
    }
    // A trial signature, so that a request that cannot be signed does not cost a use.
    sign(identity, &authority, &joiner, &allowed, now_ms)?;
    let input = mac_input(Kind::Request, &ask.body);
    let right = |key: &mesh_identity::token::MacKey| key.verify(exporter, &input, &ask.mac);
    let allowed = tokens
        .spend(&ask.token_id, right, host, now_ms)
        .map_err(|refused| refusal(&refused))?;
    sign(identity, &authority, &joiner, &allowed, now_ms)
}

/// A host of the mesh proves itself by its Ed25519 key and gets a certificate for itself alone.
pub(super) fn recover(
    identity: &Identity,
    grant_of: impl Fn(HostId) -> Option<HostGrant>,
    ask: &Ask,
    exporter: &[u8; 32],
    now_ms: u64,
) -> Result<Admitted, Refusal> {
    let authority = identity.authority().ok_or_else(no_authority)?;
    let renewal = Renewal::decode(ask.body.as_slice()).map_err(|_form| bad("its encoding"))?;
    let host = HostId::from_slice(&renewal.host).ok_or_else(|| bad("the host id"))?;
    let unknown = || {
        Refusal::new(
            "no-grant",
            format!("host {host} has no grant in this mesh"),
            "join with a new token",
        )
    };
    let grant = grant_of(host).ok_or_else(unknown)?;
    if !proven(&grant.ed25519, &ask.proof, exporter, &ask.body) {
        return Err(bad("the proof of the host's key"));
    }
    let id = SpiffeId::host(identity.mesh().trust_domain.clone(), host);
    let chain = authority
        .issue(&renewal.csr, &id, &grant, now_ms)
        .map_err(|error| Refusal::new("not-issued", error.to_string(), "see the cause"))?;
    let chain = chain
        .iter()
        .map(|certificate| certificate.to_vec())
        .collect();
    Ok(Admitted {
        chain,
        ..Admitted::default()
    })
}

/// A joiner's keys, each proven.
struct Joiner {
    name: String,
    ed25519: [u8; 32],
    x25519: [u8; 32],
    csr: Vec<u8>,
    authority: Option<AuthorityRequest>,
}

impl Joiner {
    fn check(
        request: &Request,
        ask: &Ask,
        exporter: &[u8; 32],
        authority: bool,
    ) -> Result<Self, Refusal> {
        let key = |bytes: &[u8], what| <[u8; 32]>::try_from(bytes).map_err(|_length| bad(what));
        let ed25519 = key(&request.ed25519, "the host key")?;
        if !proven(&ed25519, &ask.proof, exporter, &ask.body) {
            return Err(bad("the proof of the host's key"));
        }
        let authority = if authority {
            let of_authority = key(&request.authority_key, "the authority's key")?;
            if !proven(&of_authority, &ask.authority_proof, exporter, &ask.body) {
                return Err(bad("the proof of the authority's key"));
            }
            Some(AuthorityRequest {
                key: of_authority,
                csr: request.authority_csr.clone(),
            })
        } else {
            None
        };
        let printable = |c: char| c.is_ascii_graphic();
        if !(1..=253).contains(&request.host_name.len())
            || !request.host_name.chars().all(printable)
        {
            return Err(bad("the host name"));
        }
        Ok(Self {
            name: request.host_name.clone(),
            ed25519,
            x25519: key(&request.x25519, "the datagram key")?,
            csr: request.csr.clone(),
            authority,
        })
    }
}

fn proven(key: &[u8], signature: &[u8], exporter: &[u8; 32], body: &[u8]) -> bool {
    let signed = Signed {
        payload: proof_input(exporter, body),
        signature: signature.to_vec(),
        signer: key.to_vec(),
    };
    verify_signed(PROOF, &signed)
}

fn sign(
    identity: &Identity,
    authority: &Authority,
    joiner: &Joiner,
    allowed: &Allowed,
    now_ms: u64,
) -> Result<Admission, Refusal> {
    let failed = |error: mesh_identity::authority::AuthorityError| {
        Refusal::new("not-issued", cause::chain(&error), "see the cause")
    };
    let host = host_id(&joiner.ed25519);
    let request = HostRequest {
        ed25519: joiner.ed25519,
        x25519: joiner.x25519,
        name: joiner.name.clone(),
        may_register: allowed.services.clone(),
    };
    let host_grant = authority.admit(&request, 1, now_ms).map_err(failed)?;
    let decoded =
        HostGrant::decode(host_grant.payload.as_slice()).map_err(|_never| bad("its keys"))?;
    let id = SpiffeId::host(identity.mesh().trust_domain.clone(), host);
    let chain = authority
        .issue(&joiner.csr, &id, &decoded, now_ms)
        .map_err(failed)?;
    let authority_grant = match (&joiner.authority, identity.root()) {
        (Some(request), Some(root)) => {
            Some(root.certify(host, request, 1, now_ms).map_err(failed)?)
        }
        (Some(_), None) => return Err(no_root()),
        (None, _) => None,
    };
    let mut made = vec![Grant::Host(host_grant.clone())];
    made.extend(authority_grant.clone().map(Grant::Authority));
    let admitted = Admitted {
        genesis: identity.mesh().signed.encode_to_vec(),
        host_grant: host_grant.encode_to_vec(),
        authority_grant: authority_grant
            .map(|grant| grant.encode_to_vec())
            .unwrap_or_default(),
        chain: chain
            .iter()
            .map(|certificate| certificate.to_vec())
            .collect(),
        grants: Vec::new(),
    };
    Ok(Admission { admitted, made })
}

fn refusal(refused: &Refused) -> Refusal {
    let again = "make a new one with meshctl token create";
    match refused {
        Refused::Wrong => Refusal::new(
            "token-wrong",
            "the token is not one that was given out here",
            "copy all of it, or make a new one with meshctl token create",
        ),
        Refused::Expired(seconds) => Refusal::new(
            "token-expired",
            format!("the token expired {seconds} s ago"),
            again,
        ),
        Refused::Used(1) => Refusal::new(
            "token-used",
            "the token was used already, and is for one host",
            again,
        ),
        Refused::Used(uses) => Refusal::new(
            "token-used",
            format!("the token was used already by {uses} hosts, all that it is for"),
            again,
        ),
        Refused::Disk => Refusal::new(
            "issuer-disk",
            "the issuer cannot write down that the token is used",
            "see the log of meshd on the host that made the token",
        ),
    }
}

fn bad(what: &str) -> Refusal {
    Refusal::new(
        "bad-request",
        format!("the request is wrong: {what}"),
        "use the same version of meshd on both hosts",
    )
}

fn no_authority() -> Refusal {
    Refusal::new(
        "no-authority",
        "this host is no authority",
        "use a token of an authority: meshctl members shows which hosts are",
    )
}

fn no_root() -> Refusal {
    Refusal::new(
        "no-root",
        "the token makes an authority, and only the host that holds the root can",
        "make the token on the host where meshctl init ran",
    )
}
