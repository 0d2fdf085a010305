//! All files of an identity directory as one value, and back: for installing, backup and restore.
//!
//! A directory appears whole or not at all: it is filled under another name, flushed, and renamed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use data_encoding::BASE64URL_NOPAD;
use mesh_model::admin::Backup;
use zeroize::Zeroizing;

use crate::file::{FileError, flush_directory, make_directory, read_secret, write_secret};

/// Most files of an identity.
const LIMIT: usize = 64;

/// Files by name: secrets.
pub type Files = Vec<(String, Zeroizing<Vec<u8>>)>;

/// Why an archive could not be made or put in place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Something is there already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// A name that is no plain file name.
    #[error("{0:?} is no file of an identity")]
    Name(String),
    /// Content that is not base64url.
    #[error("the content of {0} is damaged")]
    Damaged(String),
    /// More files than an identity has.
    #[error("an identity has at most {LIMIT} files")]
    Many,
}

/// Reads those of `names` that exist in `directory`.
pub fn collect(directory: &Path, names: &[&str]) -> Result<Files, ArchiveError> {
    let mut files = Files::new();
    for name in names {
        match read_secret(&directory.join(name)) {
            Ok(content) => files.push(((*name).to_owned(), content)),
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(files)
}

/// Makes `directory` with these files, all 0600, or changes nothing; refuses one that exists.
pub fn install(directory: &Path, files: &Files) -> Result<(), ArchiveError> {
    if files.len() > LIMIT {
        return Err(ArchiveError::Many);
    }
    if let Some((name, _)) = files.iter().find(|(name, _)| !is_plain(name)) {
        return Err(ArchiveError::Name(name.clone()));
    }
    if directory.exists() {
        return Err(ArchiveError::Exists(directory.to_owned()));
    }
    let mut beside = directory.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    clear(&beside)?;
    make_directory(&beside)?;
    for (name, content) in files {
        write_secret(&beside.join(name), content)?;
    }
    flush_directory(&beside)?;
    // rename(2) refuses to replace a directory that is not empty, so a race loses and says so.
    fs::rename(&beside, directory).map_err(|source| FileError::Io {
        verb: "create",
        path: directory.to_owned(),
        source,
    })?;
    Ok(flush_directory(
        directory.parent().unwrap_or_else(|| Path::new(".")),
    )?)
}

/// Removes a directory and what is in it, if it is there.
pub fn clear(directory: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(directory) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(FileError::Io {
            verb: "write",
            path: directory.to_owned(),
            source,
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The form that goes to `meshctl`: a secret.
pub fn to_backup(files: &Files) -> Backup {
    let encoded = |(name, content): &(String, Zeroizing<Vec<u8>>)| {
        (name.clone(), BASE64URL_NOPAD.encode(content))
    };
    Backup {
        files: files.iter().map(encoded).collect(),
    }
}

/// The files of a backup; refuses names that are no plain file names.
pub fn from_backup(backup: &Backup) -> Result<Files, ArchiveError> {
    if backup.files.len() > LIMIT {
        return Err(ArchiveError::Many);
    }
    let decode = |(name, content): &(String, String)| {
        if !is_plain(name) {
            return Err(ArchiveError::Name(name.clone()));
        }
        let content = BASE64URL_NOPAD.decode(content.as_bytes());
        let content = content.map_err(|_form| ArchiveError::Damaged(name.clone()))?;
        Ok((name.clone(), Zeroizing::new(content)))
    };
    backup.files.iter().map(decode).collect()
}

/// Letters, digits, `-` and single dots inside: nothing that leaves the directory or hides in it.
fn is_plain(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && !name.starts_with('.')
        && !name.contains("..")
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn files() -> Files {
        vec![
            ("host.key".to_owned(), Zeroizing::new(b"secret".to_vec())),
            ("genesis".to_owned(), Zeroizing::new(vec![0, 255])),
        ]
    }

    #[test]
    fn installed_whole_private_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("identity");
        fs::create_dir(dir.path().join("identity.new")).unwrap();
        install(&target, &files()).unwrap();
        let key = target.join("host.key");
        assert_eq!(
            fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::metadata(&target).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert!(matches!(
            install(&target, &files()),
            Err(ArchiveError::Exists(_))
        ));
        let back = collect(&target, &["genesis", "absent", "host.key"]).unwrap();
        assert_eq!(back.len(), 2);
        assert_eq!(from_backup(&to_backup(&back)).unwrap(), back);
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("identity");
        for bad in ["../x", "a/b", ".hidden", "", "a..b", "a\0b"] {
            let files = vec![(bad.to_owned(), Zeroizing::new(Vec::new()))];
            assert!(
                matches!(install(&target, &files), Err(ArchiveError::Name(_))),
                "{bad:?}"
            );
            let backup = Backup {
                files: vec![(bad.to_owned(), String::new())],
            };
            assert!(
                matches!(from_backup(&backup), Err(ArchiveError::Name(_))),
                "{bad:?}"
            );
            assert!(!target.exists());
        }
        let backup = Backup {
            files: vec![("a".to_owned(), "%".to_owned())],
        };
        assert!(matches!(
            from_backup(&backup),
            Err(ArchiveError::Damaged(_))
        ));
    }
}
