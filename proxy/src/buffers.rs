//! Buffers and pipes, lent to connections while bytes are on their way. Each thread has its own.
//!
//! Never: clears what a buffer held before; only what was written to it by its present owner may be read.

use std::{
    cell::RefCell,
    fmt, io,
    ops::{Deref, DerefMut},
    os::fd::OwnedFd,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};

/// Bytes that are read at once where many come. Each read makes the kernel tell the other end that there is room again,
/// which costs more than copying the bytes: large reads are what saves most.
pub(crate) const READ: usize = 256 << 10;
/// Length of a block: as many bytes in records of TLS, with heads of frames between them.
pub(crate) const BLOCK: usize = READ + (8 << 10);
/// Blocks kept by a thread.
const BLOCKS: usize = 16;
/// Capacity that is asked for a pipe.
pub(crate) const PIPE: usize = 1 << 20;
/// Pipes kept.
const PIPES: usize = 32;

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`BLOCK`] bytes, which goes back to its thread when it is dropped.
pub(crate) struct Block(Box<[u8]>);

impl Block {
    /// One that nobody needs now, or a new one.
    pub(crate) fn take() -> Self {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        Self(spare.unwrap_or_else(|| vec![0; BLOCK].into_boxed_slice()))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let block = std::mem::take(&mut self.0);
        let keep = |spare: &RefCell<Vec<Box<[u8]>>>| {
            let mut spare = spare.borrow_mut();
            if spare.len() < BLOCKS {
                spare.push(block);
            }
        };
        if SPARE.try_with(keep).is_err() {
            // A thread that ends keeps none.
        }
    }
}

impl Deref for Block {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").finish_non_exhaustive()
    }
}

/// Pipes that no connection needs now; one per worker.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pipes: RefCell<Vec<Pipe>>,
}

/// A pipe, empty.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// Its end for reading.
    pub(crate) read: OwnedFd,
    /// Its end for writing.
    pub(crate) write: OwnedFd,
}

impl Buffers {
    /// A pipe.
    pub(crate) fn pipe(&self) -> io::Result<Pipe> {
        if let Some(pipe) = self.pipes.borrow_mut().pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // Refused beyond the user's share of pipe memory: then the pipe keeps its ordinary size.
        let size = libc::c_int::try_from(PIPE).unwrap_or(libc::c_int::MAX);
        if let Err(error) = fcntl(&write, FcntlArg::F_SETPIPE_SZ(size)) {
            tracing::trace!(%error, "a pipe keeps its ordinary size");
        }
        Ok(Pipe { read, write })
    }

    /// Pipes kept now.
    #[cfg(test)]
    pub(crate) fn pipes(&self) -> usize {
        self.pipes.borrow().len()
    }

    /// Takes an empty pipe back.
    pub(crate) fn keep_pipe(&self, pipe: Pipe) {
        let mut pipes = self.pipes.borrow_mut();
        if pipes.len() < PIPES {
            pipes.push(pipe);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back() {
        let mut block = Block::take();
        block[0] = 7;
        let place = block.as_ptr();
        drop(block);
        let again = Block::take();
        assert_eq!((again.as_ptr(), again.len()), (place, BLOCK));
        let many: Vec<_> = (0..2 * BLOCKS).map(|_| Block::take()).collect();
        drop(many);
        assert_eq!(SPARE.with_borrow(Vec::len), BLOCKS);
    }
}
