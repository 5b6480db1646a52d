//! The load client: threads over raw epoll, thousands of connections each, no runtime.
//!
//! | module | what |
//! |---|---|
//! | [`fleet`] | the handle: open, begin, wait, judge |
//! | [`thread`] | one thread's loop |
//! | [`connection`] | one socket from connect to the last frame |
//! | [`blocks`] | readings that need not be taken apart again |
//! | [`order`] | loss, repeats and order of one connection |
//! | [`recorder`] | latency from the intended moment |
//! | [`sources`] | loopback addresses to connect from |

mod blocks;
pub mod connection;
pub mod fleet;
pub mod order;
pub mod recorder;
pub mod sources;
mod thread;

pub use connection::{Joins, Knock};
pub use fleet::Fleet;
pub use order::Tally;
pub use recorder::Latency;
