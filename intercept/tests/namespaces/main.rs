//! The real kernel: every test runs in network, mount and process namespaces of its own.
#![expect(
    clippy::tests_outside_test_module,
    reason = "an integration test is its own module"
)]

mod inbound;
mod life;
mod outbound;
mod place;
