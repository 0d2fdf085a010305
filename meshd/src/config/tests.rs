//! What is missing, what cannot be read, and what is rescued of a configuration with faults.

use std::fs;

use super::*;

fn at(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let main = directory.path().join("meshd.toml");
    (directory, main)
}

fn faults(path: &Path) -> String {
    faults_text(&load_files(path, &[]).unwrap_err())
}

#[test]
fn a_folder_may_be_missing_but_not_unreadable() {
    let (directory, main) = at(&[("meshd.toml", "")]);
    assert!(load_files(&main, &[]).is_ok());
    // A file in its place, as whoever runs this may read every folder.
    let folder = directory.path().join("services.d");
    fs::write(&folder, "").unwrap();
    let said = faults(&main);
    assert!(
        said.contains("services.d:0") && said.contains("cannot be read"),
        "{said}"
    );
    fs::remove_file(&folder).unwrap();
    std::os::unix::fs::symlink("nowhere", &folder).unwrap();
    assert!(faults(&main).contains("services.d:0"));
}

#[test]
fn a_named_main_file_is_there_or_it_is_a_fault() {
    let (directory, main) = at(&[]);
    assert!(faults(&main).contains("meshd.toml:0"));
    std::os::unix::fs::symlink("nowhere", &main).unwrap();
    assert!(faults(&main).contains("meshd.toml:0"));
    fs::write(directory.path().join("nowhere"), "").unwrap();
    assert!(load_files(&main, &[]).is_ok());
}

#[test]
fn directories_and_names_survive_faults_elsewhere() {
    let (_directory, main) = at(&[
        (
            "meshd.toml",
            "state_dir = \"/elsewhere/state\"\nnonsense = 1\n[names]\nlisten = [\"127.0.0.1:53\"]\nwrong = 2\n",
        ),
        (
            "conf.d/a.toml",
            "runtime_dir = \"/elsewhere/run\"\n= [what\nworkers = \"x\"\n",
        ),
        (
            "conf.d/b.toml",
            "runtime_dir = 5\n[names]\nupstream = [\"no\"]\n",
        ),
        ("services.d/c.toml", "state_dir = \"/of/a/service\"\n"),
    ]);
    assert!(load_files(&main, &[]).is_err());
    let boot = rescued(&main).unwrap();
    assert_eq!(boot.state_dir, Path::new("/elsewhere/state"));
    assert_eq!(boot.runtime_dir, Path::new("/elsewhere/run"));
    assert_eq!(boot.names.listen, ["127.0.0.1:53".parse().unwrap()]);
    assert!(boot.names.upstream.is_empty());
}

#[test]
fn nothing_readable_means_defaults() {
    let (_directory, main) = at(&[("meshd.toml", "\u{0}\u{0}\n[[[\n\"\"\"")]);
    let boot = rescued(&main).unwrap();
    assert_eq!(boot.state_dir, Path::new("/var/lib/meshd"));
    let (_directory, main) = at(&[]);
    assert_eq!(rescued(&main).unwrap().runtime_dir, Path::new("/run/meshd"));
}

#[test]
fn a_good_configuration_is_taken_whole() {
    let (_directory, main) = at(&[("meshd.toml", "workers = 3\n")]);
    assert_eq!(rescued(&main).unwrap().workers, Some(3));
}
