//! How long an exchange may take: as a whole, while its caller is silent, while nothing moves.

use std::time::Instant;

use super::{Exchange, Stop};
use crate::{
    failure::{Code, Failure},
    http::alarm,
};

impl Exchange<'_> {
    /// The earliest bound that holds now.
    pub(crate) fn bound(&self, own: Option<Instant>) -> Option<Instant> {
        let caller = alarm::earlier(self.gone_by, self.body_by);
        alarm::earlier(alarm::earlier(self.deadline, caller), own)
    }

    /// When the silence ends the exchange, when so many bytes have moved until now.
    pub(crate) fn quiet_by(&mut self, moved: u64) -> Option<Instant> {
        let idle = self.idle?;
        if self.quiet.is_none_or(|(before, _)| before != moved) {
            let by = Instant::now().checked_add(idle)?;
            self.quiet = Some((moved, by));
        }
        self.quiet.map(|(_, by)| by)
    }

    /// Why a bound that has passed ends the request, or the try.
    pub(crate) fn late(&self) -> Stop {
        let now = Instant::now();
        let passed = |bound: Option<Instant>| bound.is_some_and(|bound| bound <= now);
        if passed(self.deadline) {
            Failure::new(Code::RequestTimeout, "the request's time is over").into()
        } else if passed(self.gone_by) {
            Stop::Gone
        } else if passed(self.body_by) {
            let what = "the caller sends too little of the body that it announced";
            Failure::new(Code::BadRequest, what).with_status(408).into()
        } else if passed(self.quiet.map(|(_, by)| by)) {
            Failure::new(Code::UpstreamTimeout, "nothing moved for too long").into()
        } else {
            Failure::new(Code::UpstreamTimeout, "the try's time is over").into()
        }
    }
}
