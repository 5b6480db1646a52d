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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::mailbox::{Inbox, Waker};

    fn cores(capacities: [usize; 2]) -> (Cores, Vec<Inbox>) {
        let waits = IntCounter::new("waits", "waits").expect("a valid name");
        let ends = capacities.map(|capacity| Mailbox::new(capacity, 1 << 20, Waker::none()));
        let (mailboxes, inboxes) = ends.into_iter().unzip();
        (Cores::new(mailboxes, waits), inboxes)
    }

    fn signed_out() -> Command {
        Command::CloseSession { sid: "s".into() }
    }

    #[test]
    fn a_push_that_one_core_cannot_take_reaches_none() {
        let (cores, mut inboxes) = cores([2, 1]);
        assert!(cores.offer_all(signed_out));
        assert!(!cores.offer_all(signed_out));
        assert!(inboxes[0].pop().is_some() && inboxes[0].pop().is_none(), "only the first one");
        assert!(inboxes[1].pop().is_some());
        assert!(cores.offer_all(signed_out), "the place reserved on the other core was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_waits_for_a_place_and_is_not_lost() {
        let (cores, mut inboxes) = cores([1, 1]);
        cores.queue(0, signed_out()).await;
        let waiting = cores.queue(0, signed_out());
        let shard = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(inboxes[0].pop().is_some());
        };
        tokio::join!(waiting, shard);
        assert!(inboxes[0].pop().is_some());
        assert_eq!(cores.waits.get(), 1);
    }

    #[test]
    fn upgraded_sockets_go_to_the_cores_in_turn() {
        let (cores, _inboxes) = cores([1, 1]);
        assert_eq!([cores.next(), cores.next(), cores.next()], [0, 1, 0]);
    }
}
