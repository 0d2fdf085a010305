//! Opaque TCP services: an echo with half-close, and one that speaks first.

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    task::LocalSet,
};

/// Sends every byte back; its half closes after the client's.
pub(crate) async fn echo(listen: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    LocalSet::new()
        .run_until(async move {
            loop {
                let (mut stream, _) = listener.accept().await?;
                tokio::task::spawn_local(async move {
                    let (mut read, mut write) = stream.split();
                    drop(tokio::io::copy(&mut read, &mut write).await);
                    drop(write.shutdown().await);
                });
            }
        })
        .await
}

/// Greets with the client's address before it has read anything, then echoes lines.
pub(crate) async fn greeting(listen: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    LocalSet::new()
        .run_until(async move {
            loop {
                let (stream, peer) = listener.accept().await?;
                tokio::task::spawn_local(async move {
                    let (read, mut write) = stream.into_split();
                    let hello = format!("hello {}\n", peer.ip().to_canonical());
                    if write.write_all(hello.as_bytes()).await.is_err() {
                        return;
                    }
                    let mut lines = BufReader::new(read).lines();
                    while let Ok(Some(line)) = lines.next_line().await {
                        if write
                            .write_all(format!("{line}\n").as_bytes())
                            .await
                            .is_err()
                        {
                            return;
                        }
                    }
                });
            }
        })
        .await
}
