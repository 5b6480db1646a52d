//! What the control side knows of each connection, and nothing for an idle one but who it is.
//!
//! A connection with something to do has a *worker*: a task that drains the connection's
//! queue in order and ends. The queue needs no bound of its own: a shard stops reading a
//! socket with `requests_in_flight` unsettled texts.
//!
//! One lock per shard; it is held for a map operation, never across an await.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::core::{ConnId, Session};

/// Time over which refused frames are counted.
const REFUSED_WINDOW: Duration = Duration::from_secs(10);

/// Workers whose memory is kept when there are few.
const WORKING_KEPT: usize = 1_024;

/// All connections of the process.
pub(super) struct Connections {
    shards: Vec<Mutex<Shard>>,
}

#[derive(Default)]
struct Shard {
    working: HashMap<Key, Work>,
    /// By slot.
    open: Vec<Open>,
    refused: HashMap<Key, Window>,
}

/// Slot and generation: the shard is the index.
type Key = (u32, u32);

/// Who is on a connection, 16 bytes each. A map would take 37, and twice that for good once
/// enough connections had come and gone.
#[derive(Default)]
struct Open {
    generation: u32,
    session: Option<Arc<Session>>,
}

#[derive(Default)]
struct Work {
    queue: VecDeque<Bytes>,
    closed: bool,
    arrived: Arc<Notify>,
}

struct Window {
    since: Instant,
    count: u32,
}

/// What to do with a text that arrived.
#[derive(Debug)]
pub(super) enum Arrival {
    /// Its worker will see it.
    Queued,
    /// A worker has to be started.
    Start(Arc<Session>),
    /// The connection never opened or is gone: nobody waits for an answer.
    Gone,
}

impl Connections {
    pub(super) fn new(shards: usize) -> Self {
        Self { shards: (0..shards).map(|_| Mutex::default()).collect() }
    }

    /// A connection was upgraded: its connect task is its first worker.
    pub(super) fn begin(&self, conn: ConnId) {
        self.shard(conn).working.insert(key(conn), Work::default());
    }

    /// A text arrived. `session` is `None` when the shard sent it before it opened the connection.
    pub(super) fn text(&self, conn: ConnId, session: Option<Arc<Session>>, text: Bytes) -> Arrival {
        let mut shard = self.shard(conn);
        if let Some(work) = shard.working.get_mut(&key(conn)) {
            work.queue.push_back(text);
            work.arrived.notify_one();
            return Arrival::Queued;
        }
        let Some(session) = shard.session(conn).or(session) else { return Arrival::Gone };
        let work = Work { queue: VecDeque::from([text]), ..Work::default() };
        shard.working.insert(key(conn), work);
        Arrival::Start(session)
    }

    /// The first text of a connection whose worker waits for it; `None` when it closed.
    ///
    /// # Cancel safety
    /// Dropped, no text is lost.
    pub(super) async fn first_text(&self, conn: ConnId) -> Option<Bytes> {
        loop {
            let arrived = {
                let shard = self.shard(conn);
                let work = shard.working.get(&key(conn))?;
                if work.closed {
                    return None;
                }
                if let Some(text) = work.queue.front() {
                    return Some(text.clone());
                }
                work.arrived.clone()
            };
            arrived.notified().await;
        }
    }

    /// Removes the text that [`first_text`](Self::first_text) answered.
    pub(super) fn drop_first(&self, conn: ConnId) {
        if let Some(work) = self.shard(conn).working.get_mut(&key(conn)) {
            work.queue.pop_front();
        }
    }

    /// Who is on it is known now. `false`: it closed meanwhile.
    pub(super) fn opened(&self, conn: ConnId, session: Arc<Session>) -> bool {
        let mut shard = self.shard(conn);
        if shard.working.get(&key(conn)).is_none_or(|work| work.closed) {
            return false;
        }
        let slot = conn.slot as usize;
        if shard.open.len() <= slot {
            shard.open.resize_with(slot + 1, Open::default);
        }
        shard.open[slot] = Open { generation: conn.generation, session: Some(session) };
        true
    }

    /// Everything that waits for the worker. `None`: nothing does, and the worker ends.
    pub(super) fn take(&self, conn: ConnId) -> Option<VecDeque<Bytes>> {
        let mut shard = self.shard(conn);
        let work = shard.working.get_mut(&key(conn))?;
        if work.queue.is_empty() {
            shard.end_work(conn);
            return None;
        }
        Some(std::mem::take(&mut work.queue))
    }

    /// What arrived for a worker since it last took something; it stays the worker.
    pub(super) fn take_more(&self, conn: ConnId) -> VecDeque<Bytes> {
        let mut shard = self.shard(conn);
        shard.working.get_mut(&key(conn)).map(|work| std::mem::take(&mut work.queue)).unwrap_or_default()
    }

    /// The connection did not open: its worker ends without looking at what waits. Answers
    /// who was on it, if that was known.
    pub(super) fn abandon(&self, conn: ConnId) -> Option<Arc<Session>> {
        let mut shard = self.shard(conn);
        shard.end_work(conn);
        shard.take_session(conn)
    }

    /// The connection is gone. What it sent before is still worked on. Answers who was on it.
    pub(super) fn closed(&self, conn: ConnId) -> Option<Arc<Session>> {
        let mut shard = self.shard(conn);
        if let Some(work) = shard.working.get_mut(&key(conn)) {
            work.closed = true;
            work.arrived.notify_one();
        }
        shard.refused.remove(&key(conn));
        shard.take_session(conn)
    }

    /// Counts a refused frame; `true` when it is one more than `max` in 10 s.
    pub(super) fn refused(&self, conn: ConnId, now: Instant, max: u32) -> bool {
        let mut shard = self.shard(conn);
        if shard.working.get(&key(conn)).is_none_or(|work| work.closed) {
            return false;
        }
        let window = shard.refused.entry(key(conn)).or_insert(Window { since: now, count: 0 });
        if now >= window.since + REFUSED_WINDOW {
            *window = Window { since: now, count: 0 };
        }
        window.count += 1;
        window.count == max + 1
    }

    /// Everybody who is connected; a session with several connections as often.
    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        let of = |shard: &Mutex<Shard>| -> Vec<Arc<Session>> {
            lock(shard).open.iter().filter_map(|open| open.session.clone()).collect()
        };
        self.shards.iter().flat_map(of).collect()
    }

    fn shard(&self, conn: ConnId) -> MutexGuard<'_, Shard> {
        lock(&self.shards[usize::from(conn.shard)])
    }
}

impl Shard {
    fn session(&self, conn: ConnId) -> Option<Arc<Session>> {
        let open = self.open.get(conn.slot as usize)?;
        open.session.clone().filter(|_| open.generation == conn.generation)
    }

    fn take_session(&mut self, conn: ConnId) -> Option<Arc<Session>> {
        let open = self.open.get_mut(conn.slot as usize)?;
        open.session.take_if(|_| open.generation == conn.generation)
    }

    /// Its worker ends. What a storm of them took is given back.
    fn end_work(&mut self, conn: ConnId) {
        self.working.remove(&key(conn));
        if self.working.capacity() > WORKING_KEPT && self.working.len() < self.working.capacity() / 8 {
            self.working.shrink_to((2 * self.working.len()).max(WORKING_KEPT / 2));
        }
    }
}

fn key(conn: ConnId) -> Key {
    (conn.slot, conn.generation)
}

/// A panic while the lock was held left plain values behind: they stay usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId { shard: 0, slot: 7, generation: 1 };

    fn ann() -> Arc<Session> {
        Arc::new(Session::new("s", "u", "ann"))
    }

    fn texts(batch: Option<VecDeque<Bytes>>) -> Vec<Bytes> {
        batch.map(Vec::from).unwrap_or_default()
    }

    #[test]
    fn one_worker_at_a_time_sees_all_texts_in_order() {
        let connections = Connections::new(1);
        assert!(matches!(connections.text(CONN, Some(ann()), "1".into()), Arrival::Start(_)));
        assert!(matches!(connections.text(CONN, Some(ann()), "2".into()), Arrival::Queued));
        assert_eq!(texts(connections.take(CONN)), ["1", "2"]);
        assert!(matches!(connections.text(CONN, Some(ann()), "3".into()), Arrival::Queued));
        assert_eq!(texts(connections.take(CONN)), ["3"]);
        assert!(connections.take(CONN).is_none());
        assert!(matches!(connections.text(CONN, Some(ann()), "4".into()), Arrival::Start(_)));
    }

    #[test]
    fn a_text_sent_before_the_open_reached_the_shard_finds_the_session() {
        let connections = Connections::new(1);
        connections.begin(CONN);
        assert!(connections.opened(CONN, ann()));
        assert!(connections.take(CONN).is_none());
        assert!(matches!(connections.text(CONN, None, "late".into()), Arrival::Start(_)));
    }

    #[test]
    fn a_connection_that_closed_while_it_was_verified_does_not_open() {
        let connections = Connections::new(1);
        connections.begin(CONN);
        assert!(connections.closed(CONN).is_none());
        assert!(!connections.opened(CONN, ann()));
        assert!(connections.sessions().is_empty());
        connections.abandon(CONN);
        assert!(matches!(connections.text(CONN, None, "x".into()), Arrival::Gone));
    }

    #[test]
    fn what_was_sent_before_the_close_is_still_worked_on() {
        let connections = Connections::new(1);
        assert!(matches!(connections.text(CONN, Some(ann()), "last".into()), Arrival::Start(_)));
        connections.closed(CONN);
        assert_eq!(texts(connections.take(CONN)), ["last"]);
    }

    #[tokio::test(start_paused = true)]
    async fn refused_frames_count_within_ten_seconds() {
        let connections = Connections::new(1);
        connections.begin(CONN);
        let start = Instant::now();
        assert!(!connections.refused(CONN, start, 2));
        assert!(!connections.refused(CONN, start, 2));
        assert!(!connections.refused(CONN, start + REFUSED_WINDOW, 2));
        assert!(!connections.refused(CONN, start + REFUSED_WINDOW, 2));
        assert!(connections.refused(CONN, start + REFUSED_WINDOW, 2));
        assert!(!connections.refused(CONN, start + REFUSED_WINDOW, 2), "told once");
    }

    #[tokio::test]
    async fn a_waiting_worker_is_woken_by_the_close() {
        let connections = Arc::new(Connections::new(1));
        connections.begin(CONN);
        let waiting = tokio::spawn({
            let connections = connections.clone();
            async move { connections.first_text(CONN).await }
        });
        connections.closed(CONN);
        assert_eq!(waiting.await.expect("no panic"), None);
    }
}
