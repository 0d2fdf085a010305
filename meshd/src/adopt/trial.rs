//! Files that are tried: they lie in the state directory and go by themselves unless they are confirmed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use mesh_model::admin::adopt::AdoptedFile;

/// The directory of trials inside the state directory. Its files are read as those of `services.d` are.
pub(crate) fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("trial").join("services.d")
}

fn end_file(state_dir: &Path) -> PathBuf {
    state_dir.join("trial").join("until-ms")
}

/// When the trial ends, milliseconds since the epoch; 0: nothing is tried. A time that cannot be read has passed.
pub(crate) fn until_ms(state_dir: &Path) -> u64 {
    match fs::read_to_string(end_file(state_dir)) {
        Ok(text) => text.trim().parse().unwrap_or(1),
        Err(_) if directory(state_dir).exists() => 1,
        Err(_) => 0,
    }
}

/// The files that are tried.
pub(crate) fn files(state_dir: &Path) -> Vec<AdoptedFile> {
    let Ok(entries) = fs::read_dir(directory(state_dir)) else {
        return Vec::new();
    };
    let mut found: Vec<AdoptedFile> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            Some(AdoptedFile {
                name: entry.file_name().into_string().ok()?,
                text: fs::read_to_string(entry.path()).ok()?,
            })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Begins a trial, or adds to the one that runs; it then ends at the new time.
pub(crate) fn begin(state_dir: &Path, files: &[AdoptedFile], until_ms: u64) -> io::Result<()> {
    let directory = directory(state_dir);
    // The end first: a trial without one counts as over.
    fs::create_dir_all(state_dir.join("trial"))?;
    write(&end_file(state_dir), &until_ms.to_string())?;
    fs::create_dir_all(&directory)?;
    for file in files {
        let plain = file.name.starts_with("adopted-")
            && Path::new(&file.name).extension() == Some("toml".as_ref())
            && !file.name.contains(['/', '\0']);
        if !plain {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{:?} is no name of an adopted file", file.name),
            ));
        }
        write(&directory.join(&file.name), &file.text)?;
    }
    Ok(())
}

/// Takes one file of the trial away; the trial ends with the last one.
pub(crate) fn take(state_dir: &Path, name: &str) -> io::Result<()> {
    if name.contains('/') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    match fs::remove_file(directory(state_dir).join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if files(state_dir).is_empty() {
        return end(state_dir);
    }
    Ok(())
}

/// Ends the trial: nothing is tried any more.
pub(crate) fn end(state_dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(state_dir.join("trial")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, text)?;
    fs::File::open(&fresh)?.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_begins_and_ends() {
        let state = tempfile::tempdir().unwrap();
        let file = |name: &str| AdoptedFile {
            name: name.to_owned(),
            text: "name = \"web\"\n".to_owned(),
        };
        assert_eq!(until_ms(state.path()), 0);
        begin(
            state.path(),
            &[file("adopted-a.toml"), file("adopted-b.toml")],
            5000,
        )
        .unwrap();
        assert_eq!(
            (until_ms(state.path()), files(state.path()).len()),
            (5000, 2)
        );
        assert!(begin(state.path(), &[file("../../etc/x.toml")], 9000).is_err());
        take(state.path(), "adopted-a.toml").unwrap();
        take(state.path(), "adopted-b.toml").unwrap();
        assert_eq!((until_ms(state.path()), files(state.path()).len()), (0, 0));
        end(state.path()).unwrap();
    }
}
