//! The contract of each seam, sentence by sentence, against every backend.
//!
//! Cases are generic over the trait and know no backend. `on_every_store!` and its kin name
//! the backends: a new one is one line there and runs every case.

mod bus;
mod hotset;
mod log;
#[cfg(feature = "kafka")]
mod log_kafka;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod redis_faults;
mod registry;
mod store;
mod support;
