//! One link to another host: a TLS connection, its reader, its writer, and the calls that wait on it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use mesh_model::name::HostId;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::{Semaphore, mpsc, oneshot},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Handler,
    frame::{self, Frame},
};

/// Frames that may wait for a slow peer before the link is given up.
const QUEUE: usize = 512;
/// Calls of one peer that are answered at a time.
const CALLS: usize = 32;
/// A write that makes no progress for so long ends the link.
const STALL: Duration = Duration::from_secs(20);

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Bytes, String>>>>>;

/// What a link tells the actor.
#[derive(Debug)]
pub(super) enum Event {
    /// A frame of the control state.
    Frame(HostId, Bytes),
    /// A frame was written; so many bytes of the control state.
    Sent(HostId, usize),
    /// The link with this number is over.
    Down(HostId, u64),
}

/// The handle of a link.
#[derive(Debug, Clone)]
pub(super) struct Link {
    /// Tells links to one host apart.
    pub(super) number: u64,
    /// True when this host dialled.
    pub(super) dialled: bool,
    /// When it was made.
    pub(super) since: Instant,
    frames: mpsc::Sender<Frame>,
    waiting: Waiting,
    next: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Link {
    /// Starts reader and writer of a connection that TLS has proven.
    pub(super) fn start(
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        (host, number, dialled): (HostId, u64, bool),
        handler: Handler,
        events: &mpsc::Sender<Event>,
        (tasks, stop): (&TaskTracker, &CancellationToken),
    ) -> Self {
        let (read, write) = tokio::io::split(stream);
        let (frames, queue) = mpsc::channel(QUEUE);
        let link = Self {
            number,
            dialled,
            since: Instant::now(),
            frames,
            waiting: Waiting::default(),
            next: Arc::new(AtomicU64::new(1)),
            stop: stop.child_token(),
        };
        let reading = Reading {
            host,
            link: link.clone(),
            handler,
            events: events.clone(),
            tasks: tasks.clone(),
        };
        tasks.spawn(async move {
            let (link, events) = (reading.link.clone(), reading.events.clone());
            tokio::select! {
                () = link.stop.cancelled() => {}
                ended = reading.run(read) => if let Err(error) = ended {
                    tracing::debug!(host = %host.short(), %error, "link");
                },
                () = writing(write, queue, host, events.clone()) => {}
            }
            link.stop.cancel();
            // Whoever waits for an answer hears now that none comes.
            link.waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clear();
            drop(events.send(Event::Down(host, link.number)).await);
        });
        link
    }

    /// Sends a frame of the control state; a peer that takes none loses the link, never a frame alone.
    pub(super) fn gossip(&self, bytes: Bytes) {
        if self.frames.try_send(Frame::Gossip(bytes)).is_err() {
            self.stop.cancel();
        }
    }

    /// Asks and waits.
    pub(super) async fn call(&self, kind: &str, body: Bytes) -> Result<Bytes, String> {
        let gone = || "the link broke".to_owned();
        if body.len() > frame::BODY {
            return Err(format!("a question of {} bytes is too long", body.len()));
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, answer);
        let _forget = Forget {
            waiting: &self.waiting,
            id,
        };
        let frame = Frame::Call {
            id,
            kind: kind.to_owned(),
            body,
        };
        self.frames.send(frame).await.map_err(|_closed| gone())?;
        answered.await.map_err(|_closed| gone())?
    }

    /// Ends it.
    pub(super) fn close(&self) {
        self.stop.cancel();
    }

    /// True when it has ended.
    pub(super) fn closed(&self) -> bool {
        self.stop.is_cancelled()
    }
}

/// Whoever stops waiting leaves nothing behind.
struct Forget<'a> {
    waiting: &'a Waiting,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}

struct Reading {
    host: HostId,
    link: Link,
    handler: Handler,
    events: mpsc::Sender<Event>,
    tasks: TaskTracker,
}

impl Reading {
    async fn run(self, mut read: impl AsyncRead + Unpin) -> Result<(), frame::FrameError> {
        let places = Arc::new(Semaphore::new(CALLS));
        loop {
            match frame::read(&mut read).await? {
                Frame::Gossip(bytes) => {
                    if self
                        .events
                        .send(Event::Frame(self.host, bytes))
                        .await
                        .is_err()
                    {
                        return Ok(());
                    }
                }
                Frame::Answer { id, result } => {
                    let asker = self
                        .link
                        .waiting
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .remove(&id);
                    if let Some(asker) = asker {
                        // The asker may have given up.
                        drop(asker.send(result));
                    }
                }
                Frame::Call { id, kind, body } => {
                    let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                        return Ok(());
                    };
                    let answered = (self.handler)(self.host, kind, body);
                    let frames = self.link.frames.clone();
                    let stop = self.link.stop.clone();
                    self.tasks.spawn(async move {
                        let result = tokio::select! {
                            () = stop.cancelled() => return,
                            result = answered => result,
                        };
                        let result = result.and_then(|body| match body.len() {
                            length if length > frame::BODY => {
                                Err(format!("an answer of {length} bytes is too long"))
                            }
                            _ => Ok(body),
                        });
                        drop(frames.send(Frame::Answer { id, result }).await);
                        drop(place);
                    });
                }
            }
        }
    }
}

async fn writing(
    mut write: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Frame>,
    host: HostId,
    events: mpsc::Sender<Event>,
) {
    while let Some(frame) = queue.recv().await {
        let sent = if let Frame::Gossip(bytes) = &frame {
            bytes.len()
        } else {
            0
        };
        let bytes = frame.encode();
        let written = async {
            write.write_all(&bytes).await?;
            write.flush().await
        };
        match tokio::time::timeout(STALL, written).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
        if sent > 0 && events.send(Event::Sent(host, sent)).await.is_err() {
            return;
        }
    }
}
