//! Accounts, rooms and messages over gRPC and HTTP.
//!
//! | module | what |
//! |---|---|
//! | [`domain`] | the rules; pure |
//! | [`service`] | the use cases, over a store, a hot set and a bus |
//! | `grpc` `http` | two faces of the same functions: for gateways, for trusted callers |
//! | [`relay`] | outbox → log, where the log is not the outbox itself |
//! | [`claims`] | rows of dead nodes become this node's own |
//! | `node` | binds the faces, runs everything until the stop signal |
//! | [`config`] [`error`] [`metrics`] | what their names say |
//!
//! Invariants kept here:
//! - *Ack = durable.* [`Service::send`] answers after one transaction that holds the
//!   messages, the room's number and the outbox row. Fast path and cache come after the
//!   answer and never fail it ([`service`], `publish`).
//! - *One number line per room.* A room always takes the same lane, frames of one request
//!   enter it together or not at all, and the store numbers inside the transaction (`lane`).
//! - *What is retried is retried with its key.* Every message and every room creation
//!   carries one; without one the faces make it.
//! - *A dead part degrades, it does not corrupt.* A hot set that does not answer sends
//!   everybody to the store; a store that does not answer is `UNAVAILABLE`, never "invalid".

// A test that meets the unexpected shall panic where it meets it.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod claims;
pub mod config;
pub mod domain;
pub mod error;
mod grpc;
mod http;
pub mod metrics;
mod node;
pub mod relay;
pub mod service;

pub use config::{Config, Rooms};
pub use error::{Error, Failure};
pub use metrics::Metrics;
pub use node::{Backends, Logic};
pub use service::Service;
