//! The way out: whoever publishes puts a frame into a bounded queue; one task writes what is
//! there as one pipeline and does not wait for its answer before the next, up to
//! [`IN_FLIGHT`] of them. There is no timer on the way: a lone frame is written at once, and
//! under load what gathered meanwhile goes together.
//!
//! While the link is down frames are dropped at once, not kept: late ones are of no use, the
//! log has delivered them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::channel_prefix;
use super::encoding::encode;
use crate::bus::BusFrame;
use crate::bus::inbox::cost;
use crate::redis_nodes::{BACKOFF_MIN, RedisSettings, connect, connection_config, pause};

/// Frames that wait to be written.
const QUEUE_FRAMES: usize = 16_384;
/// Bytes that wait to be written or answered.
const QUEUE_BYTES: usize = 64 << 20;
/// Frames of one pipeline.
const BATCH: usize = 256;
/// Pipelines without an answer.
const IN_FLIGHT: usize = 16;
/// An idle link is probed so often.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// The way out. The task ends when this is dropped, after what it holds.
pub(super) struct Publisher {
    queue: mpsc::Sender<BusFrame>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    up: AtomicBool,
    /// Nothing was tried yet: frames wait instead of being dropped.
    starting: AtomicBool,
    bytes: AtomicUsize,
    published: AtomicU64,
    dropped: AtomicU64,
}

/// A pipeline under way: frames and bytes in it, and how it ended.
type Written = (u64, usize, Result<(), Failure>);
type Writes = FuturesUnordered<Pin<Box<dyn Future<Output = Written> + Send>>>;

enum Failure {
    /// The server answered with an error: the link is good.
    Refused(RedisError),
    Broken(String),
}

impl Publisher {
    pub(super) fn start(settings: Arc<RedisSettings>) -> Self {
        let (queue, frames) = mpsc::channel(QUEUE_FRAMES);
        let shared = Arc::new(Shared { starting: AtomicBool::new(true), ..Shared::default() });
        tokio::spawn(Writer { settings, frames, shared: Arc::clone(&shared) }.run());
        Self { queue, shared }
    }

    /// Never waits.
    pub(super) fn offer(&self, frame: BusFrame) {
        let shared = &self.shared;
        shared.published.fetch_add(1, Ordering::Relaxed);
        let open = shared.up.load(Ordering::Relaxed) || shared.starting.load(Ordering::Relaxed);
        let bytes = cost(&frame);
        let fits = shared.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= QUEUE_BYTES;
        if !open || !fits || self.queue.try_send(frame).is_err() {
            shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
            shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Published, and dropped of these.
    pub(super) fn counters(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.shared.published), read(&self.shared.dropped))
    }
}

struct Writer {
    settings: Arc<RedisSettings>,
    frames: mpsc::Receiver<BusFrame>,
    shared: Arc<Shared>,
}

impl Writer {
    /// Connects to one server after the other until one serves.
    async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        let mut down = false;
        for address in self.settings.addresses.clone().iter().cycle() {
            let config = connection_config(self.settings.timeouts);
            let why = match connect(&self.settings, address, false, config).await {
                Ok(connection) => {
                    if std::mem::take(&mut down) {
                        tracing::info!(%address, "fast path publishes again");
                    }
                    backoff = BACKOFF_MIN;
                    self.shared.up.store(true, Ordering::Relaxed);
                    let Some(why) = self.write(connection).await else { return };
                    why
                }
                Err(why) => why,
            };
            self.shared.up.store(false, Ordering::Relaxed);
            self.shared.starting.store(false, Ordering::Relaxed);
            self.drop_waiting();
            if self.frames.is_closed() {
                return;
            }
            if !std::mem::replace(&mut down, true) {
                tracing::warn!(%address, error = %why, "fast path does not publish, frames are left to the log");
            }
            backoff = pause(backoff).await;
        }
    }

    /// Writes until the link breaks (why) or the bus is gone (`None`).
    async fn write(&mut self, connection: MultiplexedConnection) -> Option<String> {
        let prefix = channel_prefix(&self.settings);
        let mut writes = Writes::new();
        let mut batch = Vec::with_capacity(BATCH);
        let mut written_at = Instant::now();
        loop {
            let ended = tokio::select! {
                ended = writes.next(), if !writes.is_empty() => ended,
                count = self.frames.recv_many(&mut batch, BATCH), if writes.len() < IN_FLIGHT => {
                    if count == 0 {
                        self.settle(writes).await;
                        return None;
                    }
                    None
                }
                () = tokio::time::sleep_until(written_at + PROBE_EVERY), if writes.is_empty() => None,
            };
            if let Some((frames, bytes, result)) = ended {
                self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
                if let Err(failure) = result {
                    self.shared.dropped.fetch_add(frames, Ordering::Relaxed);
                    match failure {
                        Failure::Refused(error) => tracing::debug!(%error, "publish refused"),
                        Failure::Broken(why) => {
                            self.settle(writes).await;
                            return Some(why);
                        }
                    }
                }
                continue;
            }
            written_at = Instant::now();
            let mut write = self.pipeline(&prefix, &connection, &mut batch);
            // The first poll hands it to the connection: pipelines keep their order.
            match futures::poll!(write.as_mut()) {
                std::task::Poll::Ready(written) => writes.push(Box::pin(std::future::ready(written))),
                std::task::Poll::Pending => writes.push(write),
            }
        }
    }

    /// One `PUBLISH` for each frame; none: a `PING`.
    fn pipeline(
        &self,
        prefix: &str,
        connection: &MultiplexedConnection,
        batch: &mut Vec<BusFrame>,
    ) -> Pin<Box<dyn Future<Output = Written> + Send>> {
        let mut pipeline = redis::pipe();
        let (frames, mut bytes) = (batch.len() as u64, 0);
        for frame in batch.drain(..) {
            bytes += cost(&frame);
            let channel = format!("{prefix}{}", frame.room_id);
            pipeline.cmd("PUBLISH").arg(channel).arg(encode(&frame)).ignore();
        }
        if frames == 0 {
            pipeline.cmd("PING").ignore();
        }
        let (mut connection, time) = (connection.clone(), self.settings.timeouts.call);
        Box::pin(async move {
            let result = match timeout(time, pipeline.exec_async(&mut connection)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) if error.is_unrecoverable_error() => Err(Failure::Broken(error.to_string())),
                Ok(Err(error)) => Err(Failure::Refused(error)),
                Err(_) => Err(Failure::Broken(format!("no answer in {time:?}"))),
            };
            (frames, bytes, result)
        })
    }

    /// Waits for what is under way; without an answer it counts as dropped.
    async fn settle(&self, mut writes: Writes) {
        while let Some((frames, bytes, result)) = writes.next().await {
            self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
            if result.is_err() {
                self.shared.dropped.fetch_add(frames, Ordering::Relaxed);
            }
        }
    }

    fn drop_waiting(&mut self) {
        while let Ok(frame) = self.frames.try_recv() {
            self.shared.bytes.fetch_sub(cost(&frame), Ordering::Relaxed);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
