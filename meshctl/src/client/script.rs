//! A daemon for tests: answers what it was told to, in order, and remembers what it was asked.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use super::Client;

/// What a scripted daemon was asked: method, path and body.
type Asked = Arc<Mutex<Vec<String>>>;

/// A scripted daemon on a socket of its own.
#[derive(Debug)]
pub(crate) struct Script {
    directory: tempfile::TempDir,
    asked: Asked,
}

impl Script {
    /// Answers with these statuses and bodies. Status 0 closes without an answer; 1 never answers.
    pub(crate) fn start(answers: Vec<(u16, String)>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let asked = Asked::default();
        let memory = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for (status, body) in answers {
                let Ok((stream, _)) = listener.accept() else {
                    return;
                };
                if status == 1 {
                    held.push(stream);
                } else {
                    answer(&stream, status, &body, &memory);
                }
            }
        });
        Self { directory, asked }
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.directory.path().join("s"), Duration::from_secs(10))
    }

    /// Everything asked so far, `METHOD PATH BODY`.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(stream: &UnixStream, status: u16, body: &str, memory: &Asked) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).unwrap() > 2 {
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut request = vec![0; length];
    reader.read_exact(&mut request).unwrap();
    let head = first.trim_end().trim_end_matches(" HTTP/1.1");
    let text = format!("{head} {}", String::from_utf8_lossy(&request));
    memory.lock().unwrap().push(text);
    if status == 0 {
        return;
    }
    let mut out = stream;
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    out.write_all(head.as_bytes()).unwrap();
    out.write_all(body.as_bytes()).unwrap();
}
