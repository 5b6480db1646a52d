//! The shards as the control side sees them: a mailbox each.
//!
//! A full mailbox never loses an answer or a close: those wait. A push that reaches several
//! mailboxes takes a place in each of them first, so that it reaches all or none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus::IntCounter;

use crate::core::Command;
use crate::shard::mailbox::{Mailbox, Permit};

/// First pause before a full mailbox is tried again; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// Longest pause before a full mailbox is tried again.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Mailboxes by shard number.
pub(super) struct Cores {
    mailboxes: Vec<Mailbox>,
    waits: IntCounter,
    turn: AtomicUsize,
}

impl Cores {
    pub(super) fn new(mailboxes: Vec<Mailbox>, waits: IntCounter) -> Self {
        Self { mailboxes, waits, turn: AtomicUsize::new(0) }
    }

    pub(super) fn count(&self) -> usize {
        self.mailboxes.len()
    }

    /// The next shard, in turn.
    pub(super) fn next(&self) -> u16 {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.mailboxes.len();
        u16::try_from(turn).expect("shards are numbered by u16")
    }

    /// Queues a command, waiting for a place as long as it takes: a shard that stopped for
    /// good has ended the process.
    ///
    /// # Cancel safety
    /// Dropped, the command is not queued.
    pub(super) async fn queue(&self, shard: u16, command: Command) {
        let mailbox = &self.mailboxes[usize::from(shard)];
        let Err(mut refused) = mailbox.offer(command) else { return };
        self.waits.inc();
        let mut pause = PAUSE_MIN;
        loop {
            tokio::time::sleep(pause).await;
            match mailbox.offer(refused) {
                Ok(()) => return,
                Err(command) => refused = command,
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Queues what `command` makes to every shard, or to none: `false` when one is full.
    pub(super) fn offer_all(&self, mut command: impl FnMut() -> Command) -> bool {
        let permits: Option<Vec<Permit>> = self.mailboxes.iter().map(Mailbox::reserve).collect();
        let Some(permits) = permits else { return false };
        for permit in permits {
            permit.send(command());
        }
        true
    }

    /// Queues what `command` makes to every shard, all at once, waiting until each has a place.
    ///
    /// # Cancel safety
    /// Dropped, no shard has got it.
    pub(super) async fn queue_all(&self, mut command: impl FnMut() -> Command) {
        let mut pause = PAUSE_MIN;
        while !self.offer_all(&mut command) {
            self.waits.inc();
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}
