//! What rate limits say of a request: that it is refused, or what its answer tells of them.

use super::Exchange;
use crate::{
    failure::{Code, Failure},
    http::fields::Fields,
    limits::{self, Refused, Standing},
};

impl Exchange<'_> {
    /// The limits of a port have counted the request, or refuse it.
    pub(super) fn counted(
        &mut self,
        counted: Result<Vec<Standing>, Refused>,
    ) -> Result<(), Failure> {
        let (standings, refused) = match counted {
            Ok(standings) => (standings, None),
            Err(refused) => {
                self.session.worker.observe.policies().limited.add(1);
                let failure = Failure::new(Code::RateLimited, refused.what);
                let failure = failure.with_after(refused.after);
                (Vec::from_iter(refused.standing), Some(failure))
            }
        };
        // A further try is counted anew: the last one is told.
        if !standings.is_empty() || self.acting.is_some() {
            self.acting().standings = standings;
        }
        refused.map_or(Ok(()), Err)
    }
}

/// Adds what is told of limits to an answer. A list goes on behind what the program says itself; of the fields that
/// are no lists the program's are left as they are.
pub(super) fn tell(standings: &[Standing], fields: &mut Fields) {
    if standings.is_empty() {
        return;
    }
    for (name, value) in limits::lines(standings) {
        let is_list = name.starts_with("ratelimit");
        if is_list || fields.named(name.as_bytes()).next().is_none() {
            fields.push(name.as_bytes(), value.as_bytes());
        }
    }
}
