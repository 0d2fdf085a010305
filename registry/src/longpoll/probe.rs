//! Signs of life: a question that waits minutes says nothing about its server.

use std::{sync::Arc, time::Duration};

use super::engine::Engine;
use crate::{http::Request, source::SourceError};

/// The leader, on the board.
pub(super) const LEADER: &str = "the leader";
/// Between two signs of life, while all is well and while it is not.
const PROBE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));
/// For one sign of life.
pub(crate) const DEADLINE: Duration = Duration::from_secs(3);

/// The time to the next one, with jitter.
pub(crate) fn until_next(alive: bool) -> Duration {
    let (well, ill) = PROBE;
    let pause = if alive { well } else { ill };
    pause.mul_f64(0.9 + fastrand::f64() / 5.0)
}

impl Engine {
    /// Asks for a sign of life: a question that waits minutes says nothing about its server.
    pub(super) async fn probe(self: Arc<Self>) {
        let mut alive = true;
        loop {
            let sign = self
                .client
                .send(&Request::get("/v1/status/leader").within(DEADLINE))
                .await;
            let sign = sign.and_then(|answer| {
                let led =
                    !answer.body.trim_ascii().is_empty() && answer.body.trim_ascii() != b"\"\"";
                // A server that does not know the question is alive.
                if answer.status.is_client_error() || (led && answer.status.is_success()) {
                    return Ok(());
                }
                let subject = answer.good()?.subject;
                Err(SourceError::Protocol {
                    subject,
                    what: "there is no leader".into(),
                })
            });
            match sign {
                Ok(()) => {
                    self.board.good(LEADER);
                    if !alive {
                        self.all_again();
                    }
                    alive = true;
                }
                Err(error) => {
                    self.board.bad(LEADER, &error);
                    alive = false;
                }
            }
            tokio::time::sleep(until_next(alive)).await;
        }
    }
}
