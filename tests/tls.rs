//! Promise: what `sslmode` asks for is kept: nothing is said to a server whose certificate is not good enough, nothing is said
//! in the clear that was to be encrypted, and a password proves both sides over the very stream it is given on.
//!
//! Real servers with certificates made here, on every runtime; fake ones for what no honest server does.
#![cfg(feature = "tls-rustls")]

#[path = "support/fake.rs"]
mod fake;
#[path = "support/runtimes.rs"]
mod runtimes;
mod support;

#[path = "tls/binding.rs"]
mod binding;
#[path = "tls/certificates.rs"]
mod certificates;
#[path = "tls/downgrade.rs"]
mod downgrade;
#[path = "tls/hook.rs"]
mod hook;
#[path = "tls/modes.rs"]
mod modes;
#[path = "tls/pki.rs"]
mod pki;
#[path = "tls/relay.rs"]
mod relay;
#[path = "tls/world.rs"]
mod world;
