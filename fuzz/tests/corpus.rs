//! Each target over its corpus, and over changed copies of it: a fuzzer without coverage, seeded and brief.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "a file of tests"
)]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant},
};

/// How long each target is given changed inputs.
const EACH: Duration = Duration::from_secs(2);

/// What often matters in the formats of the targets.
const WORDS: [&[u8]; 30] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Upgrade: x\r\n",
    b"Expect: 100-continue\r\n",
    b"Trailer: x\r\n",
    b"GET / ",
    b"POST http://b/ ",
    b"OPTIONS * ",
    b"CONNECT b:1 ",
    b"%2e%2e/",
    b"%00",
    b"//",
    b"\\",
    b"..",
    b"18446744073709551616",
];

fn inputs(name: &str) -> Vec<Vec<u8>> {
    // Targets of one format share a corpus.
    let format = name.split('_').next().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(format);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{name} has no corpus");
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

/// A copy with a few changes.
fn changed(rng: &mut fastrand::Rng, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = inputs[rng.usize(..inputs.len())].clone();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..6) {
            0 if at < bytes.len() => bytes[at] = rng.u8(..),
            1 => bytes.insert(at, rng.u8(..)),
            2 if at < bytes.len() => {
                let end = (at + rng.usize(1..8)).min(bytes.len());
                bytes.drain(at..end);
            }
            3 => {
                let word = WORDS[rng.usize(..WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            4 => {
                let other = &inputs[rng.usize(..inputs.len())];
                let from = rng.usize(..=other.len());
                let to = (from + rng.usize(..64)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

#[test]
fn corpora_and_changed_copies() {
    let seed = std::env::var("MESH_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    eprintln!("MESH_SEED={seed}");
    for (name, target) in mesh_fuzz::TARGETS {
        let inputs = inputs(name);
        let mut rng = fastrand::Rng::with_seed(seed);
        let (begun, mut runs) = (Instant::now(), 0_u64);
        let mut queue = inputs.iter();
        while begun.elapsed() < EACH {
            let bytes = queue
                .next()
                .cloned()
                .unwrap_or_else(|| changed(&mut rng, &inputs));
            if catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err() {
                let shown = String::from_utf8_lossy(&bytes);
                panic!("{name}, MESH_SEED={seed}: {shown:?}\nas bytes: {bytes:?}");
            }
            runs += 1;
        }
        assert!(
            queue.next().is_none(),
            "{name}: the corpus took longer than {EACH:?}"
        );
        eprintln!("{name}: {runs} runs");
    }
}
