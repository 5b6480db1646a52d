//! The way in: a connection of its own that watches channels and is watched itself.
//!
//! ```text
//! connecting ─▶ subscribing to all ─▶ up ─▶ Interrupted, unless nobody could have missed
//!      ▲                               │    anything yet
//!      └──── broke, silent, refused ◀──┘
//! ```
//!
//! [`Interrupted`](crate::bus::BusEvent::Interrupted) comes after the new subscription stands,
//! not when the old one breaks: a tail check then finds everything that was missed. An idle
//! link is probed every second and given up when the answer takes two (or as long as a call
//! may take, where that is more), so a half-open one is found within three.
//!
//! What is to be watched is a set; the rooms whose state changed wait in another set, so churn
//! of one room costs one entry. The task brings the server's state to that of the set.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use corecast_proto::ids::{GLOBAL, RoomId};
use rand::RngExt as _;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::channel_prefix;
use super::encoding::decode;
use crate::bus::inbox::{Inbox, QUEUE_FRAMES};
use crate::bus::{BusEvent, Subscription};
use crate::redis_nodes::{BACKOFF_MIN, RedisSettings, connect, connection_config, pause};

const PROBE_EVERY: Duration = Duration::from_secs(1);
/// An answer that takes longer breaks the link.
const ANSWER: Duration = Duration::from_secs(2);
/// Channels of one command.
const CHANNELS: usize = 512;

/// The receiving end of a [`RedisBus`](super::RedisBus); its connection ends with it.
pub struct RedisSubscription {
    shared: Arc<Shared>,
    link: watch::Receiver<Link>,
    _end: DropGuard,
}

struct Shared {
    inbox: Inbox,
    changes: Mutex<Changes>,
    changed: Notify,
    overflowed: Arc<AtomicU64>,
}

#[derive(Default)]
struct Changes {
    rooms: HashSet<RoomId>,
    version: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    /// The first attempt has not ended.
    Starting,
    Down,
    /// Subscribed to everything that was watched at this version of the changes.
    Up(u64),
}

impl RedisSubscription {
    /// Waits for the first attempt to connect, not for its success.
    pub(super) async fn start(settings: Arc<RedisSettings>, overflowed: Arc<AtomicU64>) -> Self {
        let shared = Arc::new(Shared {
            inbox: Inbox::new(QUEUE_FRAMES),
            changes: Mutex::default(),
            changed: Notify::new(),
            overflowed,
        });
        let (sender, link) = watch::channel(Link::Starting);
        let end = CancellationToken::new();
        let task = Task { settings, shared: Arc::clone(&shared), link: sender };
        tokio::spawn(end.clone().run_until_cancelled_owned(task.run()));
        let this = Self { shared, link, _end: end.drop_guard() };
        // Each step of the attempt has its time-out.
        let _ = this.link.clone().wait_for(|link| *link != Link::Starting).await;
        this
    }
}

impl Subscription for RedisSubscription {
    async fn watch(&mut self, room_ids: &[RoomId]) {
        self.shared.inbox.watch(room_ids);
        let version = self.shared.note(room_ids);
        let stands = self.link.wait_for(|link| match link {
            Link::Up(reached) => *reached >= version,
            Link::Down => true,
            Link::Starting => false,
        });
        // The task gives a link up that does not answer.
        let _ = stands.await;
    }

    async fn unwatch(&mut self, room_ids: &[RoomId]) {
        self.shared.inbox.unwatch(room_ids);
        self.shared.note(room_ids);
    }

    async fn next(&mut self) -> Option<BusEvent> {
        loop {
            if let Some(event) = self.shared.inbox.pop() {
                return Some(event);
            }
            self.shared.inbox.added().await;
        }
    }
}

impl Shared {
    /// Remembers that these changed; answers the version that holds them.
    fn note(&self, room_ids: &[RoomId]) -> u64 {
        let mut changes = self.lock();
        changes.rooms.extend(room_ids.iter().cloned());
        changes.version += 1;
        let version = changes.version;
        drop(changes);
        self.changed.notify_one();
        version
    }

    fn take_changes(&self) -> (Vec<RoomId>, u64) {
        let mut changes = self.lock();
        (changes.rooms.drain().collect(), changes.version)
    }

    fn lock(&self) -> MutexGuard<'_, Changes> {
        // Nothing panics half way through a change.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the server sent of its own accord.
    fn handle_push(&self, prefix: &str, push: PushInfo, broken: &Notify) {
        match push.kind {
            PushKind::Message => {
                let Ok([Value::BulkString(channel), Value::BulkString(message)]) =
                    <[Value; 2]>::try_from(push.data)
                else {
                    return;
                };
                let room = std::str::from_utf8(&channel).ok().and_then(|text| text.strip_prefix(prefix));
                let frame = room.and_then(|room| decode(RoomId::from(room), message));
                if frame.is_some_and(|frame| !self.inbox.offer(&frame)) {
                    self.overflowed.fetch_add(1, Ordering::Relaxed);
                }
            }
            PushKind::Disconnection => broken.notify_one(),
            _ => {}
        }
    }
}

struct Task {
    settings: Arc<RedisSettings>,
    shared: Arc<Shared>,
    link: watch::Sender<Link>,
}

impl Task {
    /// Uses one server after the other; dropped with the subscription.
    async fn run(self) {
        let mut backoff = BACKOFF_MIN;
        let (mut logged_down, mut missed) = (false, false);
        let addresses = &self.settings.addresses;
        // Subscribers spread over the nodes of a cluster.
        let first = rand::rng().random_range(0..addresses.len());
        for address in addresses.iter().cycle().skip(first) {
            let broken = Arc::new(Notify::new());
            let mut subscribed = HashSet::new();
            let why = match self.open(address, &broken, &mut subscribed).await {
                Ok(mut connection) => {
                    if std::mem::take(&mut logged_down) {
                        tracing::info!(%address, "fast path subscribed again");
                    }
                    backoff = BACKOFF_MIN;
                    self.attend(&mut connection, &broken, &mut subscribed, missed).await
                }
                Err(why) => why,
            };
            missed = true;
            self.link.send_replace(Link::Down);
            if !std::mem::replace(&mut logged_down, true) {
                tracing::warn!(%address, error = %why, "fast path subscription lost");
            }
            backoff = pause(backoff).await;
        }
    }

    /// Connects and subscribes to all that is watched.
    async fn open(
        &self,
        address: &str,
        broken: &Arc<Notify>,
        subscribed: &mut HashSet<RoomId>,
    ) -> Result<MultiplexedConnection, String> {
        let (shared, broken, prefix) =
            (Arc::clone(&self.shared), Arc::clone(broken), channel_prefix(&self.settings));
        let sender = move |push: PushInfo| {
            shared.handle_push(&prefix, push, &broken);
            Ok::<_, redis::aio::SendError>(())
        };
        let config = connection_config(self.settings.timeouts).set_push_sender(sender);
        let mut connection = connect(&self.settings, address, true, config).await?;
        let mut rooms = self.shared.inbox.watched();
        rooms.push(RoomId::from(GLOBAL));
        self.change(&mut connection, &rooms, subscribed).await?;
        Ok(connection)
    }

    /// Keeps the subscriptions up to date until the link is of no use any more; answers why.
    async fn attend(
        &self,
        connection: &mut MultiplexedConnection,
        broken: &Notify,
        subscribed: &mut HashSet<RoomId>,
        missed: bool,
    ) -> String {
        // From here on `watch` waits. One that did not has left its rooms in the changes, which
        // are brought in before anybody is told that all stands.
        self.link.send_replace(Link::Up(0));
        if let Err(why) = self.apply_changes(connection, subscribed).await {
            return why;
        }
        if missed {
            self.shared.inbox.interrupt();
        }
        let mut probe = tokio::time::interval(PROBE_EVERY);
        loop {
            let result = tokio::select! {
                () = broken.notified() => return "the connection broke".to_owned(),
                () = self.shared.changed.notified() => self.apply_changes(connection, subscribed).await,
                _ = probe.tick() => self.answered(redis::cmd("PING").exec_async(connection)).await,
            };
            if let Err(why) = result {
                return why;
            }
        }
    }

    async fn apply_changes(
        &self,
        connection: &mut MultiplexedConnection,
        subscribed: &mut HashSet<RoomId>,
    ) -> Result<(), String> {
        let (rooms, version) = self.shared.take_changes();
        self.change(connection, &rooms, subscribed).await?;
        self.link.send_replace(Link::Up(version));
        Ok(())
    }

    /// Brings these rooms to the state they are to have.
    async fn change(
        &self,
        connection: &mut MultiplexedConnection,
        rooms: &[RoomId],
        subscribed: &mut HashSet<RoomId>,
    ) -> Result<(), String> {
        let prefix = channel_prefix(&self.settings);
        let (mut on, mut off) = (Vec::new(), Vec::new());
        for room_id in rooms {
            let channel = || format!("{prefix}{room_id}");
            if room_id.is_global() || self.shared.inbox.is_watched(room_id) {
                if subscribed.insert(room_id.clone()) {
                    on.push(channel());
                }
            } else if subscribed.remove(room_id) {
                off.push(channel());
            }
        }
        for channels in on.chunks(CHANNELS) {
            self.answered(connection.subscribe(channels)).await?;
        }
        for channels in off.chunks(CHANNELS) {
            self.answered(connection.unsubscribe(channels)).await?;
        }
        Ok(())
    }

    async fn answered(&self, command: impl Future<Output = redis::RedisResult<()>>) -> Result<(), String> {
        let time = ANSWER.max(self.settings.timeouts.call);
        match timeout(time, command).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer in {time:?}")),
        }
    }
}
