//! The digest credential: a user name, and a password in a file that is read again when it changes.
//!
//! In: settings. Out: the question that presents it. Never: says what the file holds.

use std::path::PathBuf;

use mesh_model::config::Access;

use super::message::Ask;
use crate::http::secret::{self, Stamp};

/// User and password of a session.
pub(super) struct Digest {
    user: String,
    file: Option<PathBuf>,
    stamp: Option<Stamp>,
    shown: Option<String>,
}

impl Digest {
    pub(super) fn new(access: &Access) -> Self {
        Self {
            user: access.username.clone().unwrap_or_default(),
            file: access.password_file.clone(),
            stamp: None,
            shown: None,
        }
    }

    /// Presents what the file holds now; `None` without a credential; what is wrong with the file.
    pub(super) fn ask(&mut self) -> Result<Option<Ask>, String> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let stamp = Stamp::of(file).map_err(|error| error.to_string())?;
        let password = secret::text(file).map_err(|error| error.to_string())?;
        self.stamp = Some(stamp);
        let ask = Ask::digest(&self.user, &password);
        self.shown = Some(password);
        Ok(Some(ask))
    }

    /// Presents another password once the file holds one. A file that cannot be read changes nothing.
    pub(super) fn changed(&mut self) -> Option<Ask> {
        let stamp = Stamp::of(self.file.as_deref()?).ok()?;
        if self.stamp.as_ref() == Some(&stamp) {
            return None;
        }
        let shown = self.shown.clone();
        let ask = self.ask().ok()??;
        (self.shown != shown).then_some(ask)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn another_password_is_presented_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        let write = |text: &str| {
            fs::write(dir.path().join("new"), text).unwrap();
            fs::rename(dir.path().join("new"), &file).unwrap();
        };
        write("one\n");
        let access = Access {
            username: Some("mesh".into()),
            password_file: Some(file.clone()),
            ..Access::default()
        };
        let mut digest = Digest::new(&access);
        assert_eq!(digest.ask(), Ok(Some(Ask::digest("mesh", "one"))));
        assert_eq!(digest.changed(), None);
        write("one");
        assert_eq!(digest.changed(), None, "the same password");
        write(" ");
        assert_eq!(digest.changed(), None, "an empty file changes nothing");
        write("two");
        assert_eq!(digest.changed(), Some(Ask::digest("mesh", "two")));
        assert_eq!(digest.changed(), None);
        assert!(!digest.ask().is_err_and(|text| text.contains("two")));
        assert_eq!(Digest::new(&Access::default()).ask(), Ok(None));
    }
}
