//! The bench's own small programs: clients and backends that run as processes of their own.
//!
//! In: words of a command line. Out: one line of JSON, or a backend that serves until it is ended.

use std::{collections::BTreeMap, io::Write};

use anyhow::{Context, bail};

/// Many TCP bytes one way or the other.
pub(crate) mod bulk;
/// HTTP/2 at a constant rate, latency counted from the time that each request was due.
pub(crate) mod calls;
/// New TCP connections, one after the other.
pub(crate) mod connect;
/// A gRPC backend: one unary method, one that echoes a stream of messages.
pub(crate) mod grpc;
/// Idle connections, kept.
pub(crate) mod hold;
/// HTTP/1.1 requests and answers on a blocking socket.
pub(crate) mod http1;
/// HTTP/1.1 at a constant rate, latency counted from the time that each request was due.
pub(crate) mod rate;
/// A TCP backend: takes bytes, gives bytes, answers single ones.
pub(crate) mod sink;
/// Thousands of slow clients.
pub(crate) mod slow;
/// Idle mTLS connections, kept.
pub(crate) mod tls;

/// Runs the program whose name comes first; none when there is no such.
pub(crate) fn run(arguments: &[String]) -> Option<anyhow::Result<()>> {
    let (name, rest) = arguments.split_first()?;
    let run: fn(&Words) -> anyhow::Result<()> = match name.as_str() {
        "bulk" => bulk::run,
        "calls" => calls::run,
        "connect" => connect::run,
        "grpc" => grpc::serve,
        "hold" => hold::run,
        "rate" => rate::run,
        "sink" => sink::serve,
        "slow" => slow::run,
        "tls" => tls::run,
        _ => return None,
    };
    Some(Words::read(rest).and_then(|words| run(&words)))
}

/// `name value` pairs.
#[derive(Debug)]
pub(crate) struct Words(BTreeMap<String, String>);

impl Words {
    fn read(arguments: &[String]) -> anyhow::Result<Self> {
        let mut words = BTreeMap::new();
        for pair in arguments.chunks(2) {
            let [name, value] = pair else {
                bail!("{pair:?} is no pair")
            };
            words.insert(name.clone(), value.clone());
        }
        Ok(Self(words))
    }

    /// A word that must be there.
    pub(crate) fn text(&self, name: &str) -> anyhow::Result<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .with_context(|| format!("{name} is missing"))
    }

    /// A number that must be there.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> anyhow::Result<T> {
        let text = self.text(name)?;
        text.parse()
            .ok()
            .with_context(|| format!("{name} {text} is no number"))
    }
}

/// Prints a result.
pub(crate) fn print(value: &serde_json::Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}
