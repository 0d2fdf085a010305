//! A backend that costs as little as it can: a thread per connection, one fixed answer.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

/// The answer: 200 with 128 bytes.
fn answer() -> Vec<u8> {
    let body = [b'x'; 128];
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer
}

/// Serves until it is killed. Requests have no body: a head's end is an answer due.
pub(crate) fn serve(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let answer = answer();
    for stream in listener.incoming().filter_map(Result::ok) {
        let answer = answer.clone();
        std::thread::spawn(move || drop(connection(stream, &answer)));
    }
    Ok(())
}

fn connection(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0_u8; 4096];
    let mut tail = Ends::default();
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let heads = buffer
            .iter()
            .take(length)
            .filter(|byte| tail.ends_head(**byte))
            .count();
        for _ in 0..heads {
            stream.write_all(answer)?;
        }
    }
}

/// How much of `\r\n\r\n` was seen.
#[derive(Default)]
struct Ends(u8);

impl Ends {
    fn ends_head(&mut self, byte: u8) -> bool {
        self.0 = match (self.0, byte) {
            (0 | 2, b'\r') => self.0 + 1,
            (1, b'\n') => 2,
            (3, b'\n') => 4,
            (_, b'\r') => 1,
            _ => 0,
        };
        let ended = self.0 == 4;
        if ended {
            self.0 = 0;
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_counted() {
        let mut ends = Ends::default();
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        assert_eq!(text.iter().filter(|byte| ends.ends_head(**byte)).count(), 2);
    }
}
