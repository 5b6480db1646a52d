//! Tombstones that could not be written yet.
//!
//! Without them a session that ended while Redis was away would live again in the cache when
//! it is back. Held in memory, at most [`HELD_MAX`]: the oldest goes, and is logged once per
//! outage, since its session may then be taken for live until gateways check it against the
//! store. A node that ends while Redis is away takes its tombstones with it, with the same
//! effect.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::cmd;
use tokio::sync::Notify;

use super::{REVOKED, TOMBSTONE, milliseconds, session_key};
use crate::redis_nodes::{CallError, Nodes};
use crate::store::SessionHash;

const HELD_MAX: usize = 65_536;
/// Longer than the call that should have written it.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct Revocations {
    held: Mutex<Held>,
    /// So that the usual case, nothing held, takes no lock.
    len: AtomicUsize,
    woken: Arc<Notify>,
}

#[derive(Default)]
struct Held {
    hashes: HashSet<SessionHash>,
    oldest_first: VecDeque<SessionHash>,
    overflowed: bool,
}

impl Revocations {
    /// The task ends with the value.
    pub(super) fn start(nodes: Nodes, prefix: String) -> Arc<Self> {
        let revocations = Arc::new(Self::default());
        let woken = Arc::clone(&revocations.woken);
        tokio::spawn(write(Arc::downgrade(&revocations), woken, nodes, prefix));
        revocations
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(super) fn holds(&self, hash: &SessionHash) -> bool {
        self.len() > 0 && self.lock().hashes.contains(hash)
    }

    pub(super) fn hold(&self, hash: &SessionHash) {
        let mut held = self.lock();
        if held.hashes.insert(*hash) {
            held.oldest_first.push_back(*hash);
        }
        while held.oldest_first.len() > HELD_MAX {
            let Some(oldest) = held.oldest_first.pop_front() else { break };
            if held.hashes.remove(&oldest) && !held.overflowed {
                held.overflowed = true;
                tracing::error!(HELD_MAX, "more sessions ended than tombstones can be held");
            }
        }
        self.len.store(held.hashes.len(), Ordering::Relaxed);
        drop(held);
        self.woken.notify_one();
    }

    /// Redis has it.
    pub(super) fn written(&self, hash: &SessionHash) {
        let mut held = self.lock();
        held.hashes.remove(hash);
        if held.hashes.is_empty() {
            held.oldest_first.clear();
            held.overflowed = false;
        }
        self.len.store(held.hashes.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing panics half way through a change.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Revocations {
    fn drop(&mut self) {
        self.woken.notify_one();
    }
}

/// Leaves a tombstone. A server that takes no writes, being full, still deletes: without an
/// entry the store is asked.
pub(super) async fn bury(nodes: &Nodes, key: &str) -> Result<(), CallError> {
    let mut set = cmd("SET");
    set.arg(key).arg(REVOKED).arg("PX").arg(milliseconds(TOMBSTONE));
    match nodes.call(key, &set).await {
        Err(CallError::Refused(_)) => nodes.call(key, cmd("DEL").arg(key)).await.map(drop),
        result => result.map(drop),
    }
}

/// Writes what is still held a moment after it was: calls that failed or were dropped.
async fn write(revocations: Weak<Revocations>, woken: Arc<Notify>, nodes: Nodes, prefix: String) {
    loop {
        woken.notified().await;
        loop {
            tokio::time::sleep(RETRY).await;
            let Some(held) = revocations.upgrade() else { return };
            let hashes: Vec<SessionHash> = held.lock().hashes.iter().copied().collect();
            let mut all = true;
            for hash in &hashes {
                let key = session_key(&prefix, hash);
                match bury(&nodes, &key).await {
                    Ok(()) => held.written(hash),
                    Err(_) => all = false,
                }
            }
            if all {
                break;
            }
        }
    }
}
