//! The boundary between a shard and the kernel. A driver owns the sockets; what happens on
//! them is decided behind [`Handler`], which never sees a file descriptor.
//!
//! | driver | what |
//! |---|---|
//! | [`epoll`] | edge-triggered readiness; sends by system call, or through the ring |
//! | `sys` | no driver: the system calls of [`epoll`] |
//! | [`uring`] | the ring: no driver of its own, a batch of sends in one system call |
//! | [`memory`] | no kernel at all: short sends, full sockets and late closes on demand, for tests |
//!
//! Rules of the boundary:
//! - The shard names connections by [`Key`]; the driver drops events of a key whose
//!   generation has passed.
//! - A handler never sends: it marks what it wants to send, and the shard sends after it.
//! - Bytes are lent for the call only. They lie in one scratch buffer per core and may be
//!   changed in place.
//! - [`Driver::send_batch`] is synchronous: when it returns, every byte was taken by the
//!   kernel or is reported. A close after it can never overtake it.

pub mod epoll;
pub mod memory;
mod sys;
pub mod uring;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use super::mailbox::Waker;

pub use crate::core::connections::{Batch, Key, Outcome};

/// What a driver tells.
pub trait Handler {
    /// A peer connected. `None`: there is no place; it gets a 503 and is closed.
    fn accepted(&mut self, peer: Option<IpAddr>) -> Option<Key>;
    /// Bytes of a peer, at least one.
    fn received(&mut self, key: Key, bytes: &mut [u8]) -> Flow;
    /// The peer will send nothing more.
    fn ended(&mut self, key: Key);
    /// A socket that was full takes bytes again.
    fn writable(&mut self, key: Key);
    /// Nothing can be read or written any more.
    fn failed(&mut self, key: Key);
}

/// Does the driver go on reading a connection?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Yes.
    More,
    /// Not before [`Driver::resume`]. Whatever arrives waits in the kernel.
    Pause,
}

/// What a turn of a driver found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turned {
    /// Something happened.
    pub busy: bool,
    /// Something that is known to the driver waits for the next turn: do not park.
    pub more: bool,
}

/// Sockets of one shard.
pub trait Driver {
    /// Looks once, without waiting, for new peers (bounded), bytes (one scratch buffer per
    /// connection at most), room and errors. `read` = false leaves all bytes in the kernel.
    ///
    /// # Errors
    /// The driver is broken as a whole; the process cannot go on.
    fn turn(&mut self, now_ms: u64, read: bool, handler: &mut impl Handler) -> io::Result<Turned>;

    /// Sends all jobs of `batch` without waiting, each once, and calls [`Handler::writable`]
    /// when there is room again for one that did not go out whole. What did not end with
    /// [`Outcome::All`] is written to `failures`, which is empty, with the job's index, in order.
    fn send_batch(&mut self, batch: &Batch, failures: &mut Vec<(usize, Outcome)>);

    /// Leaves a connection's bytes in the kernel.
    fn pause(&mut self, key: Key);

    /// Reads a paused connection again.
    fn resume(&mut self, key: Key);

    /// Sends the end of the stream; the peer may still send.
    fn shutdown(&mut self, key: Key);

    /// Closes. Events of this key are over.
    fn close(&mut self, key: Key);

    /// Gives the socket away. Events of this key are over.
    fn detach(&mut self, key: Key) -> Option<OwnedFd>;

    /// Takes a socket under a key that the handler's side chose.
    ///
    /// # Errors
    /// The kernel refuses to watch it; the socket is closed.
    fn adopt(&mut self, key: Key, fd: OwnedFd) -> io::Result<()>;

    /// Accepts everybody who waits, then closes the listener: nobody who was connected sees
    /// a reset.
    fn stop_accept(&mut self, handler: &mut impl Handler);

    /// What ends [`Driver::block`].
    fn waker(&self) -> Waker;

    /// Waits for an event or the waker, at most `timeout_ms` (`None`: without end). Bytes
    /// that arrived before the call end it at once. The events are told by the next turn.
    ///
    /// # Errors
    /// The driver is broken as a whole.
    fn block(&mut self, timeout_ms: Option<u64>) -> io::Result<()>;

    /// How often there was no file descriptor for a new peer.
    fn exhausted(&self) -> u64;

    /// How many batches of sends went out in one system call each.
    fn ring_batches(&self) -> u64;

    /// Name for logs and metrics.
    fn name(&self) -> &'static str;
}
