//! The fast path: what logic publishes after a commit, for rooms with members here.
//! Quick, may lose; the hub makes it right and is told of every gap.

use std::collections::HashMap;
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
/// Rooms whose subscription changes at once: a round trip serves all of them, and the frames
/// that arrive meanwhile wait in the subscription.
const CHANGES: usize = 4096;

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
    let mut changes = Vec::new();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            count = watches.recv_many(&mut changes, CHANGES) => {
                if count == 0 {
                    return;
                }
                change(&mut subscription, &mut changes).await;
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

/// Brings the subscription to what the hub wants; of a room that came and went only the last
/// word counts.
async fn change(subscription: &mut impl Subscription, changes: &mut Vec<(RoomId, bool)>) {
    let last: HashMap<RoomId, bool> = changes.drain(..).collect();
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for (room_id, watch) in last {
        if watch { on.push(room_id) } else { off.push(room_id) }
    }
    if !off.is_empty() {
        subscription.unwatch(&off).await;
    }
    if !on.is_empty() {
        subscription.watch(&on).await;
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
