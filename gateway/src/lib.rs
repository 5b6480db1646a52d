//! The gateway ("comet"): WebSockets towards browsers, pushes in from job and bus,
//! requests out to logic.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | every setting, checked |
//! | [`core`] | decides: sans-io, no clock, no runtime |
//! | [`shard`] | does, once per core: connections, sends, timers |
//! | [`control`] | does, on tokio: gRPC, logic client, sequencer shell, HTTP, metrics, drain |
//!
//! ```text
//!  tokio (control)                                 one pinned thread per core (shard)
//!  push stream ─┐                                ┌── mailbox: bounded, one wake per batch
//!  fast path ───┼─▶ lines (core::lines) ────────▶│   turn: mailbox → events → flush → timers
//!  requests ────┘   order, dedupe, holes, ring   │   core::{session, ws, feeds, outbox, timers}
//!        ▲────────── core::Event ────────────────┘
//! ```
//!
//! What crosses between the two sides is [`core::Command`] (down) and [`core::Event`] (up),
//! nothing else.

pub mod config;
pub mod control;
pub mod core;
pub mod shard;
