//! The law that every source must pass: run it against a fake, and against the real server too.
//!
//! In: a `World`, the registry's far side as a test can move it. Out: a panic that names the broken law,
//! and of `matrix()` one line per case: `contract: <source> <case>: pass` or `n/a (<reason>)`.
//!
//! A new source writes one `World` for its fake and one for its real server (started by `server`, reached
//! through a `Wire`), and calls `laws` and `matrix()` with each. Every hook answers: it does the thing, or
//! says by an `Na` why there is no such thing. What does not answer is a missing cell, and fails.

use std::sync::Arc;

use crate::source::Source;

/// What every source must do.
mod laws;
/// Every case against every source, as lines for a table.
mod matrix;
/// A source that runs in a test.
mod run;
/// Servers that nobody can install.
pub mod scripted;
/// Real servers as child processes.
#[cfg(feature = "contract")]
pub mod server;
/// A connection that can be broken on the way.
#[cfg(feature = "contract")]
pub mod wire;

pub use laws::laws;
pub use matrix::{Case, matrix};
pub use run::{HOST, HOST_AT, ID, Watched};

/// An endpoint as the far side registers it: the port at 10.0.0.1, and whether it is healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// Its port.
    pub port: u16,
    /// Its health by the registry: `false` is unhealthy.
    pub healthy: bool,
}

/// A healthy endpoint.
pub fn up(port: u16) -> Registered {
    Registered {
        port,
        healthy: true,
    }
}

/// Why a case does not apply to a source; the list is fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Na {
    /// The registry knows no health.
    #[error("it knows no health")]
    NoHealth,
    /// Nothing of an endpoint can change but its address.
    #[error("an endpoint is only its address")]
    OnlyAddresses,
    /// There is no server process: files.
    #[error("it has no server")]
    NoServer,
    /// A fake has no process; the real server's row shows the case.
    #[error("its real twin shows it")]
    Twin,
    /// A fake has no process, and no real server is to be had.
    #[error("no such server is to be had")]
    NoTwin,
    /// It takes no credentials.
    #[error("it takes no credentials")]
    NoCredentials,
    /// It speaks no TLS.
    #[error("it speaks no TLS")]
    NoTls,
    /// Its server keeps nothing over a restart.
    #[error("its server keeps no state")]
    NoState,
    /// Answers are one datagram or one frame: they come whole or not at all.
    #[error("its answers cannot be cut")]
    NoBody,
    /// The hook is not written: the cell is missing, and that fails.
    #[error("nobody wrote it")]
    Unwritten,
}

/// What a hook answers: it was done, or there is no such thing.
pub type Hook<T = ()> = Result<T, Na>;

/// What a world is made for: servers with credentials or certificates are other servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// Open to all, in the clear.
    Plain,
    /// As plain; it will be filled with many endpoints.
    Large,
    /// The client needs a token or password, which it reads from a file.
    Token,
    /// TLS; the client has the authority's certificate in a file.
    Tls,
}

/// The registry's far side. Every change is visible to clients when the call returns. Only the services `web`
/// and `api` are used, but for [`World::fill`].
pub trait World {
    /// Sets the whole content of a service.
    fn put(&mut self, service: &str, endpoints: &[Registered]);
    /// Removes a service that was put.
    fn remove(&mut self, service: &str);
    /// From now on answers cannot be understood.
    fn garbage(&mut self);
    /// From now on nothing can be read.
    fn break_off(&mut self);
    /// Answers as it should.
    fn repair(&mut self);
    /// A way to open a client.
    fn opener(&self) -> Arc<dyn Fn() -> Box<dyn Source> + Send + Sync>;
    /// False where the registry knows no health, so that the laws of health do not apply.
    fn tells_health(&self) -> bool {
        true
    }
    /// True for a real server: 10,000 endpoints are many for it; a fake gets 100,000.
    fn is_real(&self) -> bool {
        false
    }
    /// How long a law may take to come true; longer where changes are polled for.
    fn patience(&self) -> std::time::Duration {
        run::PATIENCE
    }

    /// Changes the endpoint with this port in place: its weight, zone, metadata, whatever there is.
    fn change(&mut self, _service: &str, _port: u16) -> Hook {
        Err(Na::Unwritten)
    }
    /// Sets the service to an endpoint with an IPv6 address and, where it can, one with the host name [`HOST`];
    /// the addresses as they were registered, such as `[fd00::1]:80` and `db.test:5432`: the mesh must see the
    /// first, and [`HOST_AT`] for the second.
    fn put_addresses(&mut self, _service: &str) -> Hook<Vec<String>> {
        Err(Na::Unwritten)
    }
    /// Registers this many endpoints in all, in services of any names that the client reads.
    fn fill(&mut self, _endpoints: usize) -> Hook {
        Err(Na::Unwritten)
    }
    /// From now on bodies end early, until [`World::repair`].
    fn cut(&mut self) -> Hook {
        Err(Na::Unwritten)
    }
    /// Ends the server with SIGKILL.
    fn kill(&mut self) -> Hook {
        Err(Na::Unwritten)
    }
    /// Starts the killed server again, with what it kept, or empty.
    fn start_again(&mut self, _keep: bool) -> Hook {
        Err(Na::Unwritten)
    }
    /// Stops the server with SIGSTOP: it takes connections and answers nothing.
    fn freeze(&mut self) -> Hook {
        Err(Na::Unwritten)
    }
    /// Lets a frozen server go on.
    fn thaw(&mut self) {}
    /// The client's token is no longer good (a world of [`Setup::Token`]).
    fn revoke_token(&mut self) -> Hook {
        Err(Na::Unwritten)
    }
    /// There is a new token, and it stands in the client's file.
    fn rotate_token(&mut self) -> Hook {
        Err(Na::Unwritten)
    }
    /// The server has a certificate of another authority, and that one's stands in the client's file (a world
    /// of [`Setup::Tls`]). It may be started again for this.
    fn rotate_certificate(&mut self) -> Hook {
        Err(Na::Unwritten)
    }
}

#[cfg(test)]
mod tests;
