//! What to run: scenarios, rounds, seconds; from the environment, which `make` fills.

use std::fmt;

/// A group of measurements that is chosen by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scenario {
    /// HTTP/1.1 keep-alive through the explicit listener.
    H1,
    /// HTTP/1.1 keep-alive, captured.
    Redir,
    /// HTTP/2 in, HTTP/1.1 out.
    H2h1,
    /// HTTP/2 in and out.
    H2h2,
    /// gRPC, unary and stream.
    Grpc,
    /// HTTP/1.1 through two proxies with mTLS between them.
    Hop,
    /// Captured TCP bytes.
    Tcp,
    /// TCP bytes through two proxies with mTLS between them.
    TcpMtls,
    /// New TCP connections.
    Connections,
    /// Memory of idle connections.
    Idle,
    /// Memory under slow clients.
    Slow,
    /// Ten thousand endpoints replaced under load.
    Swap,
    /// Real registries: from a write to its publication, and many endpoints.
    Registries,
}

impl Scenario {
    /// All of them, in the order of running.
    pub(crate) const ALL: [Self; 13] = [
        Self::H1,
        Self::Redir,
        Self::H2h1,
        Self::H2h2,
        Self::Grpc,
        Self::Hop,
        Self::Tcp,
        Self::TcpMtls,
        Self::Connections,
        Self::Idle,
        Self::Slow,
        Self::Swap,
        Self::Registries,
    ];

    /// As it is written in `SCENARIO=`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::Redir => "redir",
            Self::H2h1 => "h2h1",
            Self::H2h2 => "h2h2",
            Self::Grpc => "grpc",
            Self::Hop => "hop",
            Self::Tcp => "tcp",
            Self::TcpMtls => "tcpmtls",
            Self::Connections => "connections",
            Self::Idle => "idle",
            Self::Slow => "slow",
            Self::Swap => "swap",
            Self::Registries => "registries",
        }
    }
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// In the order of running.
    pub(crate) scenarios: Vec<Scenario>,
    /// Interleaved rounds of each scenario.
    pub(crate) rounds: u32,
    /// Length of each run.
    pub(crate) seconds: u32,
    /// Short rounds for work on the code: fewer kinds of runs, and no page is written.
    pub(crate) quick: bool,
    /// Only these proxies; empty: all.
    pub(crate) only: Vec<String>,
}

/// How many times as many rounds have those rows of which a 99th percentile is judged: of 2 s at 4,000 requests a
/// second one pause of the machine of 20 ms is all of it, and only the middle of many short runs knows nothing of it.
const ROUNDS_OF_A_TAIL: u32 = 4;

impl Order {
    /// Interleaved rounds of a scenario whose 99th percentile is judged.
    pub(crate) fn rounds_of_a_tail(&self) -> u32 {
        let times = if self.quick { 1 } else { ROUNDS_OF_A_TAIL };
        self.rounds.saturating_mul(times)
    }

    /// True when everything is measured, so that the results and the page may be replaced.
    pub(crate) fn whole(&self) -> bool {
        !self.quick && self.only.is_empty() && self.scenarios.len() == Scenario::ALL.len()
    }

    /// True when this proxy takes part.
    pub(crate) fn wants(&self, proxy: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == proxy)
    }

    /// Reads `SCENARIO`, `ROUNDS`, `SECONDS_EACH`, `PROXIES` and `BENCH_QUICK`; there are no arguments.
    pub(crate) fn read(
        arguments: &[String],
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, OrderError> {
        if let Some(argument) = arguments.first() {
            return Err(OrderError(format!("there is no argument {argument:?}")));
        }
        let value = |name| variable(name).filter(|text| !text.is_empty());
        let quick = value("BENCH_QUICK").is_some_and(|text| text != "0");
        let number = |name, usual| match value(name) {
            None => Ok(usual),
            Some(text) => match text.parse() {
                Ok(number @ 1..=1000) => Ok(number),
                _ => Err(OrderError(format!("{name} is {text:?}, not 1 to 1000"))),
            },
        };
        let words = |name| -> Vec<String> {
            value(name)
                .unwrap_or_default()
                .split([',', ' '])
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let mut scenarios = Vec::new();
        for word in words("SCENARIO") {
            let known = Scenario::ALL.into_iter().find(|known| known.name() == word);
            scenarios.push(known.ok_or_else(|| OrderError(format!("no scenario {word:?}")))?);
        }
        if scenarios.is_empty() {
            scenarios = Scenario::ALL.to_vec();
        }
        scenarios.sort();
        scenarios.dedup();
        Ok(Self {
            scenarios,
            rounds: number("ROUNDS", 3)?,
            seconds: number("SECONDS_EACH", 2)?,
            quick,
            only: words("PROXIES"),
        })
    }
}

/// An order that cannot be understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OrderError(String);

impl std::error::Error for OrderError {}

impl fmt::Display for OrderError {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Scenario::ALL.iter().map(|known| known.name()).collect();
        write!(
            text,
            "{}; SCENARIO is a list of {}; ROUNDS and SECONDS_EACH are numbers, BENCH_QUICK=1 shortens, \
             PROXIES is a list of direct, meshd, envoy, haproxy, nginx",
            self.0,
            names.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(pairs: &[(&str, &str)]) -> Result<Order, OrderError> {
        Order::read(&[], &|name| {
            let pair = pairs.iter().find(|(known, _)| *known == name);
            pair.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_said_is_everything() {
        let order = order(&[("SCENARIO", "")]).unwrap();
        assert!(order.whole());
        assert_eq!((order.rounds, order.seconds), (3, 2));
        assert!(order.wants("envoy"));
    }

    #[test]
    fn a_choice_is_kept_in_the_order_of_running() {
        let order = order(&[
            ("SCENARIO", "hop,h1 hop"),
            ("ROUNDS", "5"),
            ("BENCH_QUICK", "1"),
            ("PROXIES", "meshd"),
        ])
        .unwrap();
        assert_eq!(order.scenarios, [Scenario::H1, Scenario::Hop]);
        assert_eq!((order.rounds, order.seconds, order.whole()), (5, 2, false));
        assert!(!order.wants("envoy"));
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        assert!(order(&[("SCENARIO", "hopp")]).is_err());
        assert!(order(&[("ROUNDS", "0")]).is_err());
        assert!(order(&[("SECONDS_EACH", "x")]).is_err());
        assert!(Order::read(&["x".to_owned()], &|_| None).is_err());
    }
}
