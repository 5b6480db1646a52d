//! The fast path over pub/sub of Redis 6 or later, one server or a cluster.
//!
//! One channel per room, `…bus:ROOM` with the prefix of the URL, `global` among them. In a
//! cluster each node hands every message on to all others (ordinary pub/sub; the sharded one
//! is of Redis 7), so any node serves: publisher and subscriber each use one, and another when
//! it does not answer.
//!
//! | module | what |
//! |---|---|
//! | [`encoding`] | frame ↔ bytes of a message |
//! | [`publisher`] | a bounded queue to one task that writes in pipelines |
//! | [`subscription`] | a connection of its own; resubscribes, and tells when it had to |

mod encoding;
mod publisher;
mod subscription;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::publisher::Publisher;
pub use self::subscription::RedisSubscription;
use super::{Bus, BusCounters, BusFrame};
use crate::redis_nodes::RedisSettings;

/// The bus. Clones share its publisher.
#[derive(Clone)]
pub struct RedisBus {
    settings: Arc<RedisSettings>,
    publisher: Arc<Publisher>,
    overflowed: Arc<AtomicU64>,
}

impl RedisBus {
    /// Starts to connect and does not wait for it: while Redis is away frames are dropped and
    /// counted. Must be called inside a tokio runtime.
    pub fn open(settings: &RedisSettings) -> Self {
        let settings = Arc::new(settings.clone());
        let publisher = Arc::new(Publisher::start(Arc::clone(&settings)));
        Self { settings, publisher, overflowed: Arc::default() }
    }
}

impl Bus for RedisBus {
    type Subscription = RedisSubscription;

    async fn publish(&self, frame: BusFrame) {
        self.publisher.offer(frame);
    }

    async fn subscribe(&self) -> RedisSubscription {
        RedisSubscription::start(Arc::clone(&self.settings), Arc::clone(&self.overflowed)).await
    }

    fn counters(&self) -> BusCounters {
        let (published, dropped) = self.publisher.counters();
        BusCounters { published, dropped, overflowed: self.overflowed.load(Ordering::Relaxed) }
    }
}

/// What the channel of every room begins with.
fn channel_prefix(settings: &RedisSettings) -> String {
    format!("{}bus:", settings.prefix)
}
