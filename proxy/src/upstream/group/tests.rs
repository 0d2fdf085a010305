//! Picks of one worker.
