//! What policies ask of the rest of an exchange, and who is asked about.

use std::sync::Arc;

use mesh_model::snapshot::{Backend, Caller, decide::Source};
use smallvec::SmallVec;

use crate::{connection::Origin, http::cors::Marks, limits::Standing};

/// What policies ask of the rest of an exchange.
#[derive(Debug, Default)]
pub(crate) struct Acting {
    /// Marks of the answer.
    pub cors: Option<Marks>,
    /// Bytes per second of both bodies.
    pub rate: Option<u64>,
    /// What is told of the limits that counted the request.
    pub standings: Vec<Standing>,
    /// `set-cookie` lines of the answer.
    pub cookies: SmallVec<[String; 1]>,
    /// Where copies go once the body has gone by, and as whom.
    pub copies: Option<(Arc<Caller>, Backends)>,
}

/// Where copies go.
pub(crate) type Backends = SmallVec<[Arc<Backend>; 1]>;

/// Who calls, as rules see it.
pub(super) fn source<'o>(origin: &'o Origin, caller: Option<&'o Caller>) -> Source<'o> {
    match origin {
        Origin::Outbound(origin) => {
            let caller = caller.unwrap_or(&origin.caller);
            Source::local(caller, Some(origin.peer.ip()))
        }
        Origin::Inbound(origin) => origin.source(),
    }
}
