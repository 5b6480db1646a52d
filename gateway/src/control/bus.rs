//! The fast path: what logic publishes after a commit, for rooms with members here.
//! Quick, may lose; the hub makes it right and is told of every gap.

use std::sync::Arc;

use corecast_backends::bus::{AnyBus, Bus, BusEvent, BusFrame, Subscription};
use corecast_proto::ids::RoomId;
use futures::FutureExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::hub::{Hub, NumberedFrame};
use super::metrics::Metrics;

/// Frames handed to the hub at once.
const BATCH: usize = 256;

/// Reads the fast path until `stop`; `watches` are the rooms the hub wants or no longer
/// wants: (room, watch?).
pub(super) async fn subscribe(
    bus: AnyBus,
    hub: Hub,
    mut watches: mpsc::UnboundedReceiver<(RoomId, bool)>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let mut subscription = bus.subscribe().await;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            Some((room_id, watch)) = watches.recv() => {
                match watch {
                    true => subscription.watch(&room_id).await,
                    false => subscription.unwatch(&room_id).await,
                }
                continue;
            }
            event = subscription.next() => event,
        };
        let Some(first) = event else { return };
        let (frames, interrupted) = gather(first, &mut subscription);
        metrics.bus_frames.inc_by(frames.len() as u64);
        if !frames.is_empty() {
            hub.offer(frames).await;
        }
        if interrupted {
            metrics.bus_interruptions.inc();
            hub.interrupted().await;
        }
    }
}

/// Everything that is there already, up to a gap.
fn gather(first: BusEvent, subscription: &mut impl Subscription) -> (Vec<NumberedFrame>, bool) {
    let mut frames = Vec::new();
    let mut next = Some(first);
    while let Some(event) = next {
        match event {
            BusEvent::Frame(frame) => frames.push(numbered(frame)),
            BusEvent::Interrupted => return (frames, true),
        }
        if frames.len() == BATCH {
            break;
        }
        next = subscription.next().now_or_never().flatten();
    }
    (frames, false)
}

fn numbered(frame: BusFrame) -> NumberedFrame {
    NumberedFrame {
        room_id: frame.room_id,
        epoch: frame.epoch,
        first: frame.first_seq,
        count: frame.count,
        op: frame.op,
        frame: frame.frame,
    }
}
