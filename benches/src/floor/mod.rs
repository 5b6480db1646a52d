//! The floor: the least a server can do for the same bytes on the same sockets. One thread,
//! one epoll set, no sessions, no rooms, no queues: a full socket ends it.
//!
//! | asked for | what it does |
//! |---|---|
//! | a batch on the control connection | all its frames in one send(2) to each connection, or io_uring batches of such sends |
//! | a frame of a client | sends it back |
//! | a new peer | accepts, answers 101, writes one frame as long as a hello: see [`Greeting`] |
//! | a ping period | one ping to each connection in it, from slots of 100 ms |

mod peer;
mod pings;
mod server;

pub use peer::Greeting;
pub(crate) use peer::hello_payload;
pub use server::{Floor, FloorConfig, Mechanism};
