//! Waits until a change is everywhere, or until the daemon is in the phase that was asked for.

use std::time::Duration;

use mesh_model::admin::{CommitAccepted, Converged, Status};
use tokio::time::Instant;

use crate::{
    client::{Client, with_query},
    failure::{Exit, Failure},
};

/// How many hosts must have a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// Every host that lives.
    All,
    /// This percentage of them, rounded up.
    Percent(u8),
}

impl Share {
    /// Reads `all` or `90%`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let number = text
            .strip_suffix('%')
            .and_then(|number| number.parse().ok());
        match number {
            Some(percent @ 1..=100) => Ok(Self::Percent(percent)),
            _ => Err(format!(
                "'{text}' is neither `all` nor a percentage such as 90%"
            )),
        }
    }

    /// Of so many hosts, how many must have it.
    pub(crate) fn of(self, hosts: usize) -> usize {
        match self {
            Self::All => hosts,
            Self::Percent(percent) => (hosts * usize::from(percent)).div_ceil(100),
        }
    }
}

/// Waits for a commit. An error of exit 5 when the time is over: the commit is stored and spreads on.
pub(crate) async fn converged(
    client: &Client,
    accepted: &CommitAccepted,
    share: Share,
    limit: Duration,
) -> Result<Converged, Failure> {
    let commits = accepted.commits.to_string();
    let path = with_query(
        "/v1/converged",
        &[
            ("commits", &commits),
            ("fingerprint", &accepted.fingerprint),
        ],
    );
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(20);
    loop {
        let now: Converged = client.get(&path).await?;
        if now.have >= share.of(now.hosts) {
            return Ok(now);
        }
        if Instant::now() + pause > deadline {
            return Err(Failure::new(
                Exit::WaitTimedOut,
                "wait-timed-out",
                format!("commit {}", accepted.id.short()),
                format!(
                    "{} of {} hosts have it after {}s; lagging: {}",
                    now.have,
                    now.hosts,
                    limit.as_secs(),
                    now.lagging.join(", ")
                ),
                "it is stored and spreads on by itself: see `meshctl members`",
            ));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// Waits until the daemon's phase is one of `phases`.
pub(crate) async fn phase(
    client: &Client,
    phases: &[&str],
    limit: Duration,
) -> Result<Status, Failure> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(20);
    loop {
        let status: Status = client.get("/v1/status").await?;
        if phases.contains(&status.phase.as_str()) {
            return Ok(status);
        }
        if Instant::now() + pause > deadline {
            return Err(Failure::new(
                Exit::WaitTimedOut,
                "wait-timed-out",
                "meshd",
                format!(
                    "it is {} after {}s, not {}",
                    status.phase,
                    limit.as_secs(),
                    phases.join(" or ")
                ),
                "see `meshctl status`",
            ));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

#[cfg(test)]
mod tests {
    use mesh_model::commit::CommitId;
    use serde_json::json;

    use super::*;
    use crate::client::script::Script;

    fn accepted() -> CommitAccepted {
        CommitAccepted {
            id: CommitId([7; 32]),
            commits: 3,
            fingerprint: "ab".into(),
            findings: Vec::new(),
        }
    }

    #[test]
    fn shares() {
        assert_eq!(Share::parse("all"), Ok(Share::All));
        assert_eq!(Share::parse("90%").unwrap().of(3), 3);
        assert_eq!(Share::parse("50%").unwrap().of(3), 2);
        assert_eq!(Share::parse("50%").unwrap().of(4), 2);
        for bad in ["0%", "101%", "90", "most", "%"] {
            assert!(Share::parse(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn waits_until_enough_have_it() {
        let answer = |have| json!({"hosts": 3, "have": have, "lagging": ["c"]}).to_string();
        let script = Script::start(vec![(200, answer(1)), (200, answer(3))]);
        let (client, limit) = (script.client(), Duration::from_secs(10));
        let done = converged(&client, &accepted(), Share::All, limit)
            .await
            .unwrap();
        assert_eq!(done.have, 3);
        assert_eq!(
            script.seen(),
            ["GET /v1/converged?commits=3&fingerprint=ab "; 2]
        );
    }

    #[tokio::test]
    async fn tells_who_lags() {
        let answer = json!({"hosts": 2, "have": 1, "lagging": ["c"]}).to_string();
        let script = Script::start(vec![(200, answer)]);
        let failure = converged(&script.client(), &accepted(), Share::All, Duration::ZERO)
            .await
            .unwrap_err();
        assert_eq!(failure.exit, Exit::WaitTimedOut);
        assert!(failure.what.contains("lagging: c"), "{failure}");
    }
}
