//! Both sides of a handshake, as one: what the library does for each.

use rustls::{
    CommonState, Error, ExtractedSecrets,
    client::{ClientConnectionData, UnbufferedClientConnection},
    kernel::KernelConnection,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::UnbufferedStatus,
};

use super::{
    fault::Fault,
    keys::{Opening, Sealing},
};

/// One side of a handshake.
pub(super) trait Side {
    /// What the library knows of a connection on this side.
    type Data;

    /// Looks at what came, and says what is next.
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// What both sides have.
    fn common(&self) -> &CommonState;

    /// Ends the handshake: keys, and what makes further ones.
    fn end(self) -> Result<(ExtractedSecrets, Schedule), Error>;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn end(self) -> Result<(ExtractedSecrets, Schedule), Error> {
        let (secrets, schedule) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Schedule::Client(schedule)))
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn end(self) -> Result<(ExtractedSecrets, Schedule), Error> {
        let (secrets, schedule) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Schedule::Server(schedule)))
    }
}

/// Makes the keys that follow others.
pub(super) enum Schedule {
    /// Of the client's side.
    Client(KernelConnection<ClientConnectionData>),
    /// Of the server's side.
    Server(KernelConnection<ServerConnectionData>),
    /// Without a handshake, for laws over any bytes: numbers of the newest secrets.
    #[cfg(feature = "fuzz")]
    Counted { sealing: u8, opening: u8 },
}

impl Schedule {
    /// The next keys for what is sent.
    pub(super) fn next_sealing(&mut self) -> Result<Sealing, Fault> {
        let made = match self {
            Self::Client(client) => client.update_tx_secret(),
            Self::Server(server) => server.update_tx_secret(),
            #[cfg(feature = "fuzz")]
            Self::Counted { sealing, .. } => {
                *sealing = sealing.wrapping_add(1);
                Ok((0, super::keys::secrets(*sealing)))
            }
        };
        let (next, secrets) = made.map_err(|_error| Fault::Keys)?;
        Sealing::new(next, secrets)
    }

    /// The next keys for what comes.
    pub(super) fn next_opening(&mut self) -> Result<Opening, Fault> {
        let made = match self {
            Self::Client(client) => client.update_rx_secret(),
            Self::Server(server) => server.update_rx_secret(),
            #[cfg(feature = "fuzz")]
            Self::Counted { opening, .. } => {
                *opening = opening.wrapping_add(1);
                Ok((0, super::keys::secrets(*opening)))
            }
        };
        let (next, secrets) = made.map_err(|_error| Fault::Keys)?;
        Opening::new(next, secrets)
    }

    /// A ticket came, which only servers send.
    pub(super) fn ticket(&mut self, ticket: &[u8]) -> Result<(), Fault> {
        match self {
            // Nobody resumes sessions: it is read, and not kept.
            Self::Client(client) => client
                .handle_new_session_ticket(ticket)
                .map_err(|_error| Fault::Unreadable),
            Self::Server(_) => Err(Fault::Unexpected),
            #[cfg(feature = "fuzz")]
            Self::Counted { .. } => Err(Fault::Unexpected),
        }
    }

    /// Records that may be sealed with one key.
    pub(super) fn most(&self) -> u64 {
        let suite = match self {
            Self::Client(client) => client.negotiated_cipher_suite(),
            Self::Server(server) => server.negotiated_cipher_suite(),
            #[cfg(feature = "fuzz")]
            Self::Counted { .. } => return 1 << 24,
        };
        let suite = suite.tls13();
        suite.map_or(0, |suite| suite.common.confidentiality_limit)
    }
}
