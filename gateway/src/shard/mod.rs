//! Does, once per core: connections, sends, timers.
//!
//! | module | what |
//! |---|---|
//! | [`mailbox`] | commands in: bounded, lock-free, one wake per batch |
//! | [`turn`] | the loop: mailbox → events → flush → timers → park |
//! | [`driver`] | sockets: epoll, or none at all in tests |
//! | [`host`] | the thread: a glommio executor, or a plain pinned one |
//! | [`listeners`] | one listening socket per core on one address |
//! | [`metrics`] | the shard's numbers for other threads |
//!
//! ```text
//!  control ── Command ──▶ Mailbox ─▶ turn ─▶ core::Connections ─▶ Driver ─▶ sockets
//!          ◀── Event ──── unbounded channel, bounded by what is unsettled ◀───┘
//! ```
//! Events go up through an unbounded channel that is bounded in fact: a connection has at
//! most `limits.requests_in_flight` unsettled texts, and a shard does not read at all while
//! control holds more than [`UNSETTLED_BYTES`](crate::core::connections::UNSETTLED_BYTES)
//! of its text. Everything else on it is at most a few per connection or membership.

pub mod driver;
pub mod host;
pub mod listeners;
pub mod mailbox;
pub mod metrics;
pub mod turn;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use crate::config::Config;
use crate::core::Event;

pub use host::ShardHandle;
pub use listeners::Listeners;
pub use mailbox::{Mailbox, Permit};
pub use metrics::Metrics;

/// Why the shards did not start. Nothing runs then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours; another one helps.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// Wanted address.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// `gateway.driver = "uring"` where io_uring is refused.
    #[error("gateway.driver = \"uring\", but io_uring is refused ({0}); allow it or set \"auto\"")]
    Uring(String),
    /// A cpu that the process may not use, or none at all.
    #[error("gateway.cores names cpu {0}, which this process may not use")]
    Core(usize),
    /// No cpu is known.
    #[error("the cpus this process may use are unknown; name them in gateway.cores")]
    NoCores,
    /// A core's thread, epoll or eventfd could not be made.
    #[error("cannot start the shard on cpu {cpu}: {message}")]
    Start {
        /// Which.
        cpu: usize,
        /// What the kernel said.
        message: String,
    },
}

/// Starts one shard per listener, each pinned to its core, and waits until all run.
/// `echo` switches `/debug/echo` on. Handles come in the order of [`ConnId::shard`].
///
/// A shard ends after [`Event::Drained`], or when the receiver of its events is gone.
///
/// # Errors
/// [`Error`]; shards that started already end again.
///
/// [`ConnId::shard`]: crate::core::ConnId::shard
pub fn spawn(
    config: &Config,
    listeners: Listeners,
    echo: bool,
    events: UnboundedSender<Event>,
) -> Result<Vec<ShardHandle>, Error> {
    host::spawn(Arc::new(config.clone()), listeners, echo, events)
}
