//! The load client: threads over raw epoll, thousands of connections each, no runtime.
//!
//! | module | what |
//! |---|---|
//! | [`fleet`] | the handle: open, begin, wait, judge |
//! | [`thread`] | one thread's loop |
//! | [`connection`] | one socket from connect to the last frame |
//! | [`order`] | loss, repeats and order of one connection |
//! | [`recorder`] | latency from the intended moment |
//! | [`sources`] | loopback addresses to connect from |

pub mod connection;
pub mod fleet;
pub mod order;
pub mod recorder;
pub mod sources;
mod thread;

pub use connection::Knock;
pub use fleet::Fleet;
pub use order::Tally;
pub use recorder::Latency;
