//! The laws of a link over any bytes: however they come, the same is made of them, and nobody makes an end say or
//! hold much more than was said to it.

use std::task::{Context, Poll, Waker};

use bytes::BytesMut;

use super::{
    Head, Link, Peer, Reason, Stream, Terms, frame, head,
    hpack::{Decoder, Encoder},
    state::PREFACE,
};

const STREAMS: u32 = 20;
/// What an end says unasked, and what it may say for each byte that it hears.
const UNASKED: usize = 400;
const ANSWERED: usize = 2;

type Field = (Vec<u8>, Vec<u8>);

/// What an end makes of what it hears.
#[derive(Debug, Default, PartialEq, Eq)]
struct Made {
    ended: Option<Reason>,
    said: Vec<u8>,
    heads: Vec<Vec<Field>>,
    bodies: Vec<Vec<u8>>,
}

/// Judges the bytes as what an end hears, and as one head; panics when a law is broken. The first byte says which
/// end it is, whether the other one greets it properly, and who that is.
pub(crate) fn judge(bytes: &[u8]) {
    let whole = heard(bytes, usize::MAX);
    for piece in [1, 3, 10, 100] {
        let made = heard(bytes, piece);
        // A flood is measured in time as well.
        let calm = Some(Reason::ENHANCE_YOUR_CALM);
        assert!(
            made == whole || made.ended == calm || whole.ended == calm,
            "in pieces of {piece}: {made:?}, at once: {whole:?}"
        );
    }
    again(bytes);
}

fn heard(bytes: &[u8], piece: usize) -> Made {
    let (how, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let client = how & 1 != 0;
    let link = Link::new(Terms {
        client,
        streams: STREAMS,
        window: 1 << 20,
        peer: if how & 4 == 0 {
            Peer::Daemon
        } else {
            Peer::Program
        },
    });
    let mut streams: Vec<Stream> = (0..if client { 3 } else { 0 })
        .filter_map(|number| link.open(number > 0, |fields| fields.field(b":method", b"GET")))
        .collect();
    let mut input = BytesMut::new();
    if how & 2 == 0 {
        if !client {
            input.extend_from_slice(PREFACE);
        }
        frame::put(&mut input, frame::SETTINGS, 0, 0, &[]);
    }
    let mut made = Made::default();
    let mut fed = input.len();
    for piece in bytes.chunks(piece.min(bytes.len()).max(1)) {
        input.extend_from_slice(piece);
        fed += piece.len();
        let mut state = link.0.borrow_mut();
        if let Err(reason) = state.receive(&mut input) {
            state.fail(reason);
            made.ended = Some(reason);
        }
        assert!(state.out.len() <= UNASKED + ANSWERED * fed, "it says much");
        assert!(
            state.held <= fed && state.active() <= STREAMS,
            "it holds much"
        );
        if state.ended.is_some() {
            break;
        }
    }
    while let Some(asked) = link.accept() {
        made.heads.push(take(asked.head));
        streams.push(asked.stream);
    }
    for stream in &streams {
        read(stream, &mut made);
    }
    drop(streams);
    let mut state = link.0.borrow_mut();
    assert_eq!((state.held, state.active()), (0, 0), "something is left");
    while !state.out.is_empty() {
        let front = state.out.front().to_vec();
        state.out.advance(front.len());
        made.said.extend(front);
    }
    made
}

fn read(stream: &Stream, made: &mut Made) {
    let cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Ok(head)) = stream.poll_head(&cx) {
        made.heads.push(take(head));
    }
    let mut body = Vec::new();
    while let Poll::Ready(Ok(Some(piece))) = stream.poll_piece(&cx) {
        body.extend_from_slice(&piece);
        stream.release(piece.len());
    }
    made.bodies.push(body);
    made.heads.extend(stream.take_trailers().map(take));
}

fn take(taken: Box<Head>) -> Vec<Field> {
    let fields = fields_of(&taken);
    head::put(taken);
    fields
}

fn fields_of(head: &Head) -> Vec<Field> {
    let own = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
    head.iter().map(own).collect()
}

/// What can be read can be written, twice with the help of the memory, and reads the same.
fn again(block: &[u8]) {
    let mut head = Head::default();
    if Decoder::new().read(block, &mut head).is_err() || head.is_too_large() {
        return;
    }
    let wanted = fields_of(&head);
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    for _ in 0..3 {
        let mut out = BytesMut::new();
        encoder.begin(&mut out);
        for (name, value) in &wanted {
            encoder.field(name, value, &mut out);
        }
        let mut found = Head::default();
        let read = decoder.read(&out, &mut found);
        assert!(read.is_ok() && fields_of(&found) == wanted, "{wanted:?}");
    }
}
