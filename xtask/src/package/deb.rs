//! The Debian package: control files beside the staged tree, packed by `dpkg-deb`.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use super::{Job, stage, stage::Tree, tool};
use crate::command::root;

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Builds the package; its path.
pub(crate) fn build(job: &Job) -> anyhow::Result<PathBuf> {
    let mut tree = stage::tree(job)?;
    changelog(job, &mut tree)?;
    let control = tree.root.join("DEBIAN");
    std::fs::create_dir(&control)?;
    stage::mode(&control, 0o755)?;
    let architecture = architecture()?;
    let size = installed_size(&tree)?;
    let needs = libraries(&tree)?;
    write(
        &control.join("control"),
        &control_file(job, architecture, size, &needs),
    )?;
    write(&control.join("conffiles"), &lines(&tree.config))?;
    write(&control.join("md5sums"), &sums(job, &tree)?)?;
    for script in SCRIPTS {
        let from = root().join("packaging/deb").join(script);
        let to = control.join(script);
        std::fs::copy(&from, &to).with_context(|| from.display().to_string())?;
        stage::mode(&to, 0o755)?;
    }
    let name = format!(
        "{}_{}_{architecture}.deb",
        job.list.package.name, job.version
    );
    let package = job.out.join(name);
    let (from, to) = (
        tree.root.display().to_string(),
        package.display().to_string(),
    );
    let compression: &[&str] = if job.fast {
        &["-Zgzip", "-z1"]
    } else {
        &["-Zxz"]
    };
    let arguments = [
        &["--root-owner-group"],
        compression,
        &["--build", &from, &to],
    ]
    .concat();
    tool(Path::new("dpkg-deb"), &arguments, job.time)?;
    Ok(package)
}

fn control_file(job: &Job, architecture: &str, size: u64, needs: &[String]) -> String {
    let package = &job.list.package;
    let depends: Vec<&str> = needs
        .iter()
        .chain(&package.depends)
        .map(String::as_str)
        .collect();
    let mut description = String::new();
    for line in package.description.trim().lines() {
        let line = if line.trim().is_empty() { "." } else { line };
        for part in wrapped(line) {
            let _infallible = writeln!(description, " {part}");
        }
    }
    format!(
        "Package: {}\nVersion: {}\nArchitecture: {architecture}\nMaintainer: {}\nInstalled-Size: {size}\n\
         Depends: {}\nRecommends: {}\nSection: {}\nPriority: optional\n\
         Description: {}\n{description}",
        package.name,
        job.version,
        package.maintainer,
        depends.join(", "),
        package.recommends.join(", "),
        package.section,
        package.summary,
    )
}

/// Lines of at most 78 characters.
fn wrapped(line: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        match out.last_mut() {
            Some(last) if last.len() + word.len() < 78 => {
                last.push(' ');
                last.push_str(word);
            }
            _ => out.push(word.to_owned()),
        }
    }
    out
}

/// The shared libraries that the programs need, as packages: libc with the newest symbol version in use.
fn libraries(tree: &Tree) -> anyhow::Result<Vec<String>> {
    let mut versions: BTreeSet<(u32, u32)> = BTreeSet::new();
    let mut compiler = false;
    for file in tree.files.iter().filter(|file| file.starts_with("usr/bin")) {
        let bytes = std::fs::read(tree.root.join(file))?;
        versions.extend(glibc_versions(&bytes));
        compiler |= holds(&bytes, b"libgcc_s.so.1");
    }
    let mut needs = Vec::new();
    if let Some((major, minor)) = versions.last() {
        needs.push(format!("libc6 (>= {major}.{minor})"));
    }
    if compiler {
        needs.push("libgcc-s1".to_owned());
    }
    if needs.is_empty() {
        bail!("the programs name no library: are they there, and for this system?");
    }
    Ok(needs)
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// The versions in strings like `GLIBC_2.34` that stand alone, as in a table of symbol versions.
fn glibc_versions(bytes: &[u8]) -> Vec<(u32, u32)> {
    bytes
        .split(|&byte| byte == 0)
        .filter_map(|word| word.strip_prefix(b"GLIBC_"))
        .filter_map(|version| std::str::from_utf8(version).ok())
        .filter_map(|version| {
            let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
            Some((parts.next()??, parts.next()??))
        })
        .collect()
}

fn architecture() -> anyhow::Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        "riscv64" => Ok("riscv64"),
        "s390x" => Ok("s390x"),
        "powerpc64" => Ok("ppc64el"),
        other => bail!("no Debian name is known for {other}"),
    }
}

/// Debian's changelog, which policy asks for; the real one is the project's.
fn changelog(job: &Job, tree: &mut Tree) -> anyhow::Result<()> {
    let package = &job.list.package;
    let date = tool(
        Path::new("date"),
        &["-R", "-u", "-d", &format!("@{}", job.time)],
        job.time,
    )?;
    let text = format!(
        "{} ({}) unstable; urgency=medium\n\n  * See CHANGELOG.md of the project.\n\n -- {}  {}\n",
        package.name,
        job.version,
        package.maintainer,
        date.trim()
    );
    let file = PathBuf::from(format!("usr/share/doc/{}/changelog.gz", package.name));
    let plain = tree.root.join(file.with_extension(""));
    std::fs::write(&plain, text).with_context(|| plain.display().to_string())?;
    stage::mode(&plain, 0o644)?;
    tool(
        Path::new("gzip"),
        &["-9nf", &plain.display().to_string()],
        job.time,
    )?;
    tree.files.push(file);
    tree.files.sort();
    Ok(())
}

/// KiB on disk, as Debian counts: each file rounded up.
fn installed_size(tree: &Tree) -> anyhow::Result<u64> {
    let mut kib = 0;
    for file in &tree.files {
        kib += std::fs::metadata(tree.root.join(file))?
            .len()
            .div_ceil(1024);
    }
    Ok(kib)
}

fn sums(job: &Job, tree: &Tree) -> anyhow::Result<String> {
    let root = tree.root.display().to_string();
    let files: Vec<String> = tree
        .files
        .iter()
        .filter(|file| !tree.config.contains(file))
        .map(|file| file.display().to_string())
        .collect();
    let script = "cd \"$0\" && md5sum -- \"$@\"";
    let mut arguments = vec!["-c", script, root.as_str()];
    arguments.extend(files.iter().map(String::as_str));
    tool(Path::new("sh"), &arguments, job.time)
}

fn lines(files: &[PathBuf]) -> String {
    files.iter().fold(String::new(), |mut text, file| {
        let _infallible = writeln!(text, "/{}", file.display());
        text
    })
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())?;
    stage::mode(path, 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::list::List;

    #[test]
    fn versions_of_libc() {
        let bytes = b"\0GLIBC_2.2.5\0GLIBC_2.34\0xGLIBC_2.99\0GLIBC_PRIVATE\0GLIBC_2.4\0";
        assert_eq!(glibc_versions(bytes).into_iter().max(), Some((2, 34)));
    }

    #[test]
    fn descriptions_are_wrapped_and_paragraphs_kept() {
        let job = Job {
            list: List::read(&root().join("packaging/files.toml")).unwrap(),
            programs: PathBuf::new(),
            work: PathBuf::new(),
            out: PathBuf::new(),
            version: "1.2.3".into(),
            time: 0,
            fast: true,
        };
        let text = control_file(&job, "amd64", 7, &["libc6 (>= 2.34)".to_owned()]);
        assert!(text.contains("\nVersion: 1.2.3\n"), "{text}");
        assert!(
            text.contains("\nDepends: libc6 (>= 2.34), nftables"),
            "{text}"
        );
        let (_, description) = text.split_once("Description: ").unwrap();
        assert!(description.contains("\n .\n"), "{description}");
        for line in description.lines().skip(1) {
            assert!(line.starts_with(' ') && line.len() < 80, "{line:?}");
        }
    }

    #[test]
    fn scripts_are_sound_for_a_posix_shell() {
        for script in SCRIPTS {
            let path = root().join("packaging/deb").join(script);
            let checked = tool(Path::new("sh"), &["-n", &path.display().to_string()], 0);
            assert!(checked.is_ok(), "{checked:?}");
        }
    }
}
