//! The five seams of corecast: one trait each, with its contract in the trait's docs and
//! its implementations side by side.
//!
//! | seam | embedded | real | what it holds |
//! |---|---|---|---|
//! | [`store`] | SQLite | MySQL | accounts, sessions, rooms, messages, outbox: the truth |
//! | [`hotset`] | in process | Redis | caches and routes: may be lost at any time |
//! | [`log`] | the store's outbox table | Kafka | every push, until all gateways have it |
//! | [`bus`] | in process | Redis pub/sub | the fast path: quick, may lose |
//! | [`registry`] | static list | etcd | who is a gateway, who is a logic node |
//!
//! A backend is chosen once, at start, by URL ([`url`]); the choice is a small enum, so
//! there is no boxed call per message. `tests/contract/` runs every sentence of a
//! trait's contract against every backend.

pub mod bus;
pub mod hotset;
pub mod log;
#[cfg(feature = "redis")]
pub mod redis_nodes;
pub mod registry;
pub mod store;
pub mod url;
