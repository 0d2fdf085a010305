//! Which machine this is, so that a copied state directory or golden image is noticed.

use std::path::PathBuf;

use zeroize::Zeroizing;

/// Name of the file in an identity directory.
pub(super) const FILE: &str = "machine";
/// What stands there when the machine has no id.
const UNKNOWN: &str = "unknown";

/// The machine, as a hash of its machine-id(5); the id itself is not written anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine(Option<String>);

impl Machine {
    /// This machine: `MESHD_MACHINE_ID_FILE` if set, `/etc/machine-id`, `/var/lib/dbus/machine-id`.
    pub(crate) fn current() -> Self {
        let set = std::env::var_os("MESHD_MACHINE_ID_FILE").map(PathBuf::from);
        let usual = ["/etc/machine-id", "/var/lib/dbus/machine-id"].map(PathBuf::from);
        let id = set
            .into_iter()
            .chain(usual)
            .find_map(|path| std::fs::read_to_string(path).ok());
        Self::of(id.as_deref().unwrap_or_default())
    }
    /// A machine with this id; `uninitialized` (an image's first boot) is none.
    pub(super) fn of(id: &str) -> Self {
        let id = id.trim();
        let known = !id.is_empty() && id != "uninitialized";
        let hash = || blake3::derive_key("meshd 2026 machine id", id.as_bytes());
        Self(known.then(|| data_encoding::HEXLOWER.encode(&hash())))
    }
    /// The file that binds an identity to this machine.
    pub(super) fn file(&self) -> (String, Zeroizing<Vec<u8>>) {
        let text = self.0.as_deref().unwrap_or(UNKNOWN);
        (FILE.to_owned(), Zeroizing::new(text.as_bytes().to_vec()))
    }
    /// True unless the file names another machine; where either has no id nothing can be said.
    pub(super) fn fits(&self, file: &[u8]) -> bool {
        let bound = String::from_utf8_lossy(file);
        match &self.0 {
            Some(own) => bound.trim() == own || bound.trim() == UNKNOWN,
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machine_does_not_fit() {
        let (here, there) = (Machine::of("aaaa\n"), Machine::of("bbbb"));
        let (_, file) = here.file();
        assert!(here.fits(&file));
        assert!(!there.fits(&file));
        assert!(!String::from_utf8_lossy(&file).contains("aaaa"));
        for none in [Machine::of(""), Machine::of("uninitialized\n")] {
            assert!(none.fits(&file), "a machine without an id can say nothing");
            assert!(here.fits(&none.file().1));
        }
    }
}
