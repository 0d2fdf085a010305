//! Buffers and messages that the connections of one thread lend each other.
//!
//! A connection holds a buffer only while bytes are in it, so an idle one costs none.

use std::cell::RefCell;

use bytes::{Buf as _, BytesMut};

use super::message::{Request, Response};

/// Size of a fresh buffer.
pub(crate) const BUFFER: usize = 16 * 1024;
/// Size that a buffer grows to while a body fills it.
pub(crate) const LARGE: usize = 64 * 1024;
/// Buffers kept for the next user: 4 MiB of small ones, 1 MiB of large ones.
const KEPT_SMALL: usize = 256;
const KEPT_LARGE: usize = 16;
/// Pairs of messages kept, and the text that one of them may hold.
const KEPT_MESSAGES: usize = 256;
const MESSAGE_TEXT: usize = 8 * 1024;

/// The two heads of an exchange.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// What was asked.
    pub request: Request,
    /// What was answered.
    pub response: Response,
}

#[expect(
    clippy::vec_box,
    reason = "messages move in and out whole, without being copied"
)]
struct Pool {
    small: Vec<BytesMut>,
    large: Vec<BytesMut>,
    messages: Vec<Box<Messages>>,
}

thread_local! {
    static POOL: RefCell<Pool> = const {
        RefCell::new(Pool {
            small: Vec::new(),
            large: Vec::new(),
            messages: Vec::new(),
        })
    };
}

/// An empty buffer with room.
pub(crate) fn take() -> BytesMut {
    POOL.with_borrow_mut(|pool| pool.small.pop())
        .unwrap_or_else(|| BytesMut::with_capacity(BUFFER))
}

/// An empty buffer with much room, for bodies.
pub(crate) fn take_large() -> BytesMut {
    POOL.with_borrow_mut(|pool| pool.large.pop())
        .unwrap_or_else(|| BytesMut::with_capacity(LARGE))
}

/// Forgets the first bytes; all of them without moving the place where the next ones go.
pub(crate) fn forget(buffer: &mut BytesMut, count: usize) {
    if count < buffer.len() {
        buffer.advance(count);
    } else {
        buffer.clear();
    }
}

/// Gives a buffer back; what is in it is forgotten.
pub(crate) fn put(mut buffer: BytesMut) {
    buffer.clear();
    if buffer.capacity() == BUFFER {
        // As it was lent, most likely.
        POOL.with_borrow_mut(|pool| {
            if pool.small.len() < KEPT_SMALL {
                pool.small.push(buffer);
            }
        });
        return;
    }
    if buffer.capacity() == 0 {
        return;
    }
    // Asking for the whole size moves the view back to the start of the memory when nobody shares it.
    if buffer.capacity() < BUFFER && !buffer.try_reclaim(BUFFER) {
        return;
    }
    let large = buffer.capacity() >= LARGE || buffer.try_reclaim(LARGE);
    POOL.with_borrow_mut(|pool| {
        let (list, limit) = if large {
            (&mut pool.large, KEPT_LARGE)
        } else {
            (&mut pool.small, KEPT_SMALL)
        };
        if list.len() < limit && buffer.capacity() <= 2 * LARGE {
            list.push(buffer);
        }
    });
}

/// Gives the buffer of a place back when it is empty.
pub(crate) fn release(place: &mut BytesMut) {
    if place.is_empty() && place.capacity() > 0 {
        put(std::mem::take(place));
    }
}

/// Two cleared messages.
pub(crate) fn messages() -> Box<Messages> {
    POOL.with_borrow_mut(|pool| pool.messages.pop())
        .unwrap_or_default()
}

/// Gives messages back.
pub(crate) fn put_messages(mut messages: Box<Messages>) {
    messages.request.clear();
    messages.response.clear();
    let large = messages
        .request
        .fields
        .capacity()
        .max(messages.response.fields.capacity());
    if large <= MESSAGE_TEXT {
        POOL.with_borrow_mut(|pool| {
            if pool.messages.len() < KEPT_MESSAGES {
                pool.messages.push(messages);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut as _;

    #[test]
    fn buffers_come_back_whole() {
        let mut buffer = take();
        let memory = buffer.as_ptr();
        buffer.put_slice(&[1; 1000]);
        buffer.advance(600);
        put(buffer);
        let again = take();
        assert_eq!((again.as_ptr(), again.len()), (memory, 0));
        assert!(again.capacity() >= BUFFER);
    }

    #[test]
    fn large_ones_are_kept_apart() {
        put(take_large());
        assert!(take().capacity() < LARGE);
        assert!(take_large().capacity() >= LARGE);
    }
}
