//! Credentials in files: read when they change, and again when a registry refuses them.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use data_encoding::BASE64;
use http::{HeaderName, HeaderValue, header};
use mesh_model::config::Access;

use super::HttpError;

/// Most bytes of a credential.
const MAX: u64 = 16 << 10;

/// How a registry takes its token.
#[derive(Debug, Clone)]
pub enum Credential {
    /// The token alone in a field, such as `x-consul-token`.
    Field(HeaderName),
    /// `Authorization: <word><token>`, such as `Bearer ` or `token=`; or user name and password as Basic.
    Authorization(&'static str),
}

/// What tells that a file is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl Stamp {
    /// How the file looks now.
    pub(crate) fn of(path: &Path) -> Result<Self, HttpError> {
        let meta = fs::metadata(path).map_err(|error| broken(path, &error))?;
        Ok(Self {
            modified: meta.modified().ok(),
            len: meta.len(),
            inode: meta.ino(),
        })
    }
}

fn broken(path: &Path, error: &std::io::Error) -> HttpError {
    HttpError::File {
        path: path.display().to_string(),
        what: error.to_string(),
    }
}

fn wrong(path: &Path, what: &str) -> HttpError {
    HttpError::File {
        path: path.display().to_string(),
        what: what.to_owned(),
    }
}

/// The credential that a file holds, without the space around it.
pub(crate) fn text(path: &Path) -> Result<String, HttpError> {
    if Stamp::of(path)?.len > MAX {
        return Err(wrong(path, "too long for a credential"));
    }
    let text = fs::read_to_string(path).map_err(|error| broken(path, &error))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(wrong(path, "it is empty"));
    }
    Ok(text.to_owned())
}

/// The credential of one registry.
pub(crate) struct Secret {
    file: Option<PathBuf>,
    user: Option<String>,
    credential: Credential,
    read: Mutex<Option<(Stamp, HeaderValue)>>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Secret {
    pub(crate) fn new(access: &Access, credential: Credential) -> Self {
        let (file, user) = match (&access.token_file, &access.password_file) {
            (Some(token), _) => (Some(token.clone()), None),
            (None, Some(password)) => (Some(password.clone()), access.username.clone()),
            (None, None) => (None, None),
        };
        Self {
            file,
            user,
            credential,
            read: Mutex::default(),
        }
    }

    /// The field that carries it; `None` when there is none.
    pub(crate) fn field(&self) -> Result<Option<(HeaderName, HeaderValue)>, HttpError> {
        let Some(path) = &self.file else {
            return Ok(None);
        };
        let name = match (&self.user, &self.credential) {
            (None, Credential::Field(name)) => name.clone(),
            _ => header::AUTHORIZATION,
        };
        let stamp = Stamp::of(path)?;
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, value)) = known.as_ref().filter(|(at, _)| *at == stamp) {
            return Ok(Some((name, value.clone())));
        }
        let value = self.load(path)?;
        *known = Some((stamp, value.clone()));
        Ok(Some((name, value)))
    }

    /// Reads it again, although the file looks the same. True when it is another one.
    pub(crate) fn changed(&self) -> bool {
        let Some(path) = &self.file else { return false };
        let (Ok(stamp), Ok(value)) = (Stamp::of(path), self.load(path)) else {
            return false;
        };
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let other = known.as_ref().is_none_or(|(_, old)| *old != value);
        *known = Some((stamp, value));
        other
    }

    /// The next request reads it again.
    pub(crate) fn forget(&self) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn load(&self, path: &Path) -> Result<HeaderValue, HttpError> {
        let text = &*text(path)?;
        let written = match (&self.user, &self.credential) {
            (Some(user), _) => format!(
                "Basic {}",
                BASE64.encode(format!("{user}:{text}").as_bytes())
            ),
            (None, Credential::Field(_)) => text.to_owned(),
            (None, Credential::Authorization(word)) => format!("{word}{text}"),
        };
        let mut value = HeaderValue::from_str(&written)
            .map_err(|_cause| wrong(path, "it has bytes that no field can carry"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}
