//! Buffers and pipes of one worker, lent to connections while bytes are on their way.

use std::{cell::RefCell, io, os::fd::OwnedFd};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};

/// Length of a buffer.
const BLOCK: usize = 64 << 10;
/// Buffers kept.
const BLOCKS: usize = 64;
/// Capacity that is asked for a pipe.
pub(crate) const PIPE: usize = 1 << 20;
/// Pipes kept.
const PIPES: usize = 32;

/// Buffers and pipes that no connection needs now; one per worker.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    blocks: RefCell<Vec<Box<[u8]>>>,
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
    /// A buffer.
    pub(crate) fn block(&self) -> Box<[u8]> {
        let kept = self.blocks.borrow_mut().pop();
        kept.unwrap_or_else(|| vec![0; BLOCK].into_boxed_slice())
    }

    /// Takes a buffer back.
    pub(crate) fn keep_block(&self, block: Box<[u8]>) {
        let mut blocks = self.blocks.borrow_mut();
        if blocks.len() < BLOCKS {
            blocks.push(block);
        }
    }

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
