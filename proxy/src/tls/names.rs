//! The server name that a client asked for: the library tells it to whoever chooses the certificate, and to nobody else.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Chooses as another does, and remembers the name. For handshakes that go on one at a time between two steps, as they
/// do in one worker.
pub(super) struct Names {
    chooser: Arc<dyn ResolvesServerCert>,
    last: Mutex<Option<Arc<str>>>,
}

impl Names {
    /// Nothing was asked for.
    pub(super) fn new(chooser: Arc<dyn ResolvesServerCert>) -> Self {
        Self {
            chooser,
            last: Mutex::new(None),
        }
    }

    /// The name that was asked for since this was last called, in lower case.
    pub(super) fn take(&self) -> Option<Arc<str>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.take()
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = name.map(Arc::from);
        self.chooser.resolve(hello)
    }
}
