//! A copy of a request that is sent beside it: a mirror's, or the tries of a hedged request.
//!
//! A copy runs through the same code as its original, with nobody on the caller's side. Never: delays the
//! original, is counted as a request of its own, or is tried again.

use std::{
    cell::Cell,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use mesh_model::snapshot::{Backend, BackendEndpoint, Caller};
use smallvec::SmallVec;

use super::{Tried, Up, attempt, begin, give_back, pick, report};
use crate::{
    connection::Origin,
    http::{
        alarm::Alarm,
        body::BodyEvent,
        buffers::{self, Messages},
        exchange::{Exchange, Stop},
        headers::HopWords,
        replay::Replay,
        route::{self, Way},
        session::Session,
        story::Story,
        stream::Stream,
        wire::Wire,
    },
    upstream::Picked,
    worker::Worker,
};

/// Copies that one worker has under way at once; further ones are not sent.
const MIRRORS: u32 = 256;
/// How long a mirror's copy may take, its answer included.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of a mirror's answer that are read to keep its connection.
const DRAINED: usize = 1024 * 1024;

thread_local! {
    static RUNNING: Cell<u32> = const { Cell::new(0) };
}

/// A request with its whole body, and everything that sending it needs.
#[derive(Debug)]
pub(super) struct Copied {
    messages: Box<Messages>,
    /// Nobody: it says nothing, and what is sent to it is forgotten.
    down: Wire,
    alarm: Alarm,
    replay: Replay,
    story: Story,
    deadline: Option<Instant>,
    idle: Option<Duration>,
    rate: Option<u64>,
    forwarded: bool,
    words: HopWords,
}

/// How a copy went.
pub(super) struct Answered {
    /// What the try would have given the exchange.
    pub tried: Result<Tried, Stop>,
    /// Both heads.
    pub messages: Box<Messages>,
    /// What happened.
    pub story: Story,
    /// The body, and how much of it this try has had.
    pub replay: Replay,
}

impl Copied {
    /// A copy of the request as it is now; `replay` holds its whole body.
    pub(super) fn of(exchange: &Exchange<'_>, replay: Replay) -> Self {
        let mut messages = buffers::messages();
        messages.request.clone_from(&exchange.messages.request);
        let mut story = Story::new(exchange.story.started);
        story.id = exchange.story.id;
        story.endpoint.clone_from(&exchange.story.endpoint);
        Self {
            messages,
            down: Wire::H2(Stream::nobody()),
            alarm: Alarm::default(),
            replay,
            story,
            deadline: exchange.deadline,
            idle: exchange.idle,
            rate: exchange.rate(),
            forwarded: exchange.forwarded,
            words: exchange.words,
        }
    }

    /// Says which endpoint it goes to.
    pub(super) fn is_at(&mut self, endpoint: Option<Arc<BackendEndpoint>>) {
        self.story.endpoint = endpoint;
    }

    fn exchange<'c>(&'c mut self, session: &'c Session) -> Exchange<'c> {
        let story = Story::new(self.story.started);
        let story = std::mem::replace(&mut self.story, story);
        let mut exchange = Exchange::aside(
            session,
            &mut self.messages,
            &mut self.down,
            &mut self.alarm,
            story,
        );
        exchange.replay = std::mem::take(&mut self.replay);
        exchange.deadline = self.deadline;
        exchange.idle = self.idle;
        if self.rate.is_some() {
            exchange.acting().rate = self.rate;
        }
        exchange.forwarded = self.forwarded;
        exchange.words = self.words;
        exchange
    }

    /// Sends it once and waits for the head of its answer.
    pub(super) async fn send(
        mut self,
        session: &Session,
        way: &Way<'_>,
        picked: Option<Picked>,
        by: Option<Instant>,
    ) -> Answered {
        let mut exchange = self.exchange(session);
        let tried = attempt(&mut exchange, way, picked, by, Instant::now()).await;
        let story = Story::new(exchange.story.started);
        let story = std::mem::replace(&mut exchange.story, story);
        let replay = std::mem::take(&mut exchange.replay);
        drop(exchange);
        Answered {
            tried,
            messages: self.messages,
            story,
            replay,
        }
    }
}

/// A copy under way; counted when it ends, however it does.
struct Place {
    worker: Rc<Worker>,
    went: bool,
}

impl Place {
    fn take(worker: &Rc<Worker>) -> Option<Self> {
        let running = RUNNING.get();
        (running < MIRRORS).then(|| {
            RUNNING.set(running + 1);
            Self {
                worker: Rc::clone(worker),
                went: false,
            }
        })
    }

    /// The copy was sent and answered.
    fn went(&mut self) {
        self.went = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        RUNNING.set(RUNNING.get().saturating_sub(1));
        let policies = self.worker.observe.policies();
        if self.went {
            policies.mirrored.add(1);
        } else {
            policies.unmirrored.add(1);
        }
    }
}

/// Sends copies of the request, whose whole body is in `body`, and forgets their answers.
pub(super) fn mirror(
    exchange: &Exchange<'_>,
    caller: &Arc<Caller>,
    backends: SmallVec<[Arc<Backend>; 1]>,
    body: &Replay,
) {
    let worker = &exchange.session.worker;
    for backend in backends {
        let Some(mut place) = Place::take(worker) else {
            worker.observe.policies().unmirrored.add(1);
            continue;
        };
        let mut copied = Copied::of(exchange, body.clone());
        copied.deadline = Instant::now().checked_add(PATIENCE);
        (copied.idle, copied.rate) = (None, None);
        // Whoever waits for an answer does not wait for this one.
        copied.messages.request.wishes.expects_continue = false;
        let caller = Arc::clone(caller);
        let origin = Rc::clone(&exchange.session.origin);
        worker.spawn(async move {
            let went = Box::pin(run(&place.worker, origin, &caller, &backend, copied)).await;
            if went.is_some() {
                place.went();
            }
        });
    }
}

/// Sends one copy to a backend and reads its answer; none when there was none.
async fn run(
    worker: &Rc<Worker>,
    origin: Rc<Origin>,
    caller: &Arc<Caller>,
    backend: &Arc<Backend>,
    mut copied: Copied,
) -> Option<()> {
    let session = Session::new(Rc::clone(worker), origin);
    let snapshot = worker.snapshot();
    let way = route::aside(backend, caller);
    let _admitted = worker.upstream.admit(backend).ok()?;
    let (deadline, since) = (copied.deadline, Instant::now());
    let mut exchange = copied.exchange(&session);
    let course = begin(&mut exchange, &way);
    let picked = pick(&mut exchange, &snapshot, &way, &course).ok()?;
    let tried = attempt(&mut exchange, &way, picked, deadline, since).await;
    let up = tried.ok()?.ok()?;
    let response = &exchange.messages.response;
    report(&up, None, response.status, response.grpc_status(), since);
    drain(&mut exchange, up, deadline).await.then_some(())
}

/// Reads an answer and forgets it; one that is too long or too slow ends with its connection. False: it was cut.
async fn drain(exchange: &mut Exchange<'_>, mut up: Box<Up>, by: Option<Instant>) -> bool {
    let mut left = DRAINED;
    let read = poll_fn(|cx| {
        loop {
            match up.wire.poll_body(cx) {
                Poll::Ready(Ok(BodyEvent::Data { length, .. })) => {
                    up.wire.consume(length);
                    left = left.saturating_sub(length);
                    if left == 0 {
                        return Poll::Ready(Read::Enough);
                    }
                }
                Poll::Ready(Ok(BodyEvent::End)) => return Poll::Ready(Read::Whole),
                Poll::Ready(Err(_)) => return Poll::Ready(Read::Cut),
                Poll::Pending => return exchange.alarm.poll(cx, by).map(|()| Read::Enough),
            }
        }
    })
    .await;
    if read == Read::Whole {
        give_back(exchange, up);
    }
    read != Read::Cut
}

/// How much of an answer was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    /// All of it.
    Whole,
    /// Its copy has done its work: nobody reads the rest.
    Enough,
    /// It broke off.
    Cut,
}
