//! What is kept on disk: rows of byte strings in named tables.

/// Names of the tables that rows belong to.
pub mod table {
    /// Signed grants and the genesis, by kind and hash.
    pub const GRANT: &str = "grant";
    /// Signed commits, by id.
    pub const COMMIT: &str = "commit";
    /// Heads with their records, by host id.
    pub const HOST: &str = "host";
    /// What only this host must remember.
    pub const OWN: &str = "own";
    /// All of them, in the order in which [`crate::Node::load`] wants them.
    pub const ALL: [&str; 4] = [GRANT, COMMIT, HOST, OWN];
}

/// A row to keep: written when `value` is there, removed when not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// One of [`table`].
    pub table: &'static str,
    /// The key.
    pub key: Vec<u8>,
    /// The value; `None` removes the row.
    pub value: Option<Vec<u8>>,
}
