//! The real kernel: every test runs in network, mount and process namespaces of its own.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "an integration test is its own module, fails by panicking, and says what it skips"
)]

mod inbound;
mod life;
mod outbound;
mod place;
