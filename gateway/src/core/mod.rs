//! The part that decides. No I/O, no clock, no runtime: time and randomness arrive as
//! arguments, so every file here can be read, tested and fuzzed without a machine.
//!
//! | module | side | what |
//! |---|---|---|
//! | [`command`] | both | what crosses: [`Command`] down, [`Event`] up |
//! | [`wire`] | both | a WebSocket frame, encoded once and shared |
//! | [`sequencer`] | control | one room's line: deliver, hold, drop, ask for what is missing |
//! | [`lines`] | control | all lines, members per core, joins, tail checks |
//! | [`interest`] | control | which rooms job has to send pushes of |
//! | [`ws`] | shard | RFC 6455 from bytes to messages |
//! | [`handshake`] | shard | the first HTTP request: upgrade, plain HTTP, or refuse |
//! | [`connections`] | shard | all connections of a shard: what happens to them, what they send |
//! | `session` | shard | one connection: handshake → open → closing |
//! | `held` | shard | texts of a connection that wait for answers to earlier ones |
//! | [`feeds`] | shard | memberships: who has reached what, who gets what next |
//! | [`outbox`] | shard | bytes of one connection that wait for its socket |
//! | [`timers`] | shard | hashed wheel of deadlines |
//! | [`counters`] | shard | what a shard counts |

pub mod command;
pub mod connections;
pub mod counters;
pub mod feeds;
pub mod handshake;
mod held;
pub mod interest;
pub mod lines;
pub mod outbox;
pub mod sequencer;
mod session;
pub mod timers;
pub mod wire;
pub mod ws;

pub use command::{Command, ConnId, Event, Joined, Page, RoomFrame, Session, Target, UpgradeRequest};
pub use wire::Wire;
