//! Faults as data: how badly a bus behaves, decided from a seed. Pure.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::BusFrame;

/// What goes wrong on the way to the subscribers, for whole-system tests. Losses of this
/// kind are silent: nobody sees [`BusEvent::Interrupted`](super::BusEvent::Interrupted).
/// The default is a bus without faults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BusFaults {
    /// Seed of every decision below.
    pub seed: u64,
    /// Lose every frame.
    pub drop_all: bool,
    /// Lose this share of the frames, 0–1.
    pub drop: f64,
    /// Deliver this share twice, 0–1.
    pub duplicate: f64,
    /// Hold this share back, 0–1, until the next frame has been delivered; without a next
    /// frame it is lost.
    pub reorder: f64,
    /// Deliver each frame after a random time up to this; two frames may change places.
    pub delay_max: Duration,
}

/// A frame to deliver, and after how long.
pub(super) type Delivery = (BusFrame, Duration);

/// Decides what becomes of each frame.
pub(super) struct FaultPlan {
    faults: BusFaults,
    random: StdRng,
    drop_next: u64,
    held: Option<BusFrame>,
    lost: u64,
}

impl FaultPlan {
    pub(super) fn new(faults: BusFaults) -> Self {
        let random = StdRng::seed_from_u64(faults.seed);
        Self { faults, random, drop_next: 0, held: None, lost: 0 }
    }

    /// Loses the next `frames` frames, whatever else is set.
    pub(super) fn drop_next(&mut self, frames: u64) {
        self.drop_next = frames;
    }

    /// Frames lost so far; a frame that is held back is not.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// What to deliver now that this frame is published, in this order.
    pub(super) fn handle_publish(&mut self, frame: BusFrame) -> Vec<Delivery> {
        let on_demand = self.drop_next > 0;
        self.drop_next = self.drop_next.saturating_sub(1);
        if on_demand || self.faults.drop_all || self.hits(self.faults.drop) {
            self.lost += 1;
            return Vec::new();
        }
        if self.held.is_none() && self.hits(self.faults.reorder) {
            self.held = Some(frame);
            return Vec::new();
        }
        let twice = self.hits(self.faults.duplicate).then(|| frame.clone());
        let frames = [Some(frame), twice, self.held.take()];
        frames.into_iter().flatten().map(|frame| (frame, self.delay())).collect()
    }

    fn hits(&mut self, share: f64) -> bool {
        share > 0.0 && self.random.random_bool(share.min(1.0))
    }

    fn delay(&mut self) -> Duration {
        if self.faults.delay_max.is_zero() {
            return Duration::ZERO;
        }
        self.faults.delay_max.mul_f64(self.random.random_range(0.0..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use corecast_proto::ids::RoomId;

    use super::*;

    fn frame(first_seq: u64) -> BusFrame {
        BusFrame {
            room_id: RoomId::from("r"),
            epoch: 1,
            first_seq,
            count: 1,
            op: 4,
            frame: Bytes::from_static(b"{}"),
        }
    }

    fn published(faults: BusFaults, frames: u64) -> Vec<u64> {
        let mut plan = FaultPlan::new(faults);
        let deliveries = (1..=frames).flat_map(|seq| plan.handle_publish(frame(seq)));
        deliveries.map(|(frame, _)| frame.first_seq).collect()
    }

    #[test]
    fn no_faults_change_nothing() {
        assert_eq!(published(BusFaults::default(), 4), [1, 2, 3, 4]);
    }

    #[test]
    fn the_same_seed_loses_the_same_frames() {
        let faults = BusFaults { seed: 3, drop: 0.5, ..BusFaults::default() };
        let once = published(faults.clone(), 64);
        assert_eq!(once, published(faults.clone(), 64));
        assert!(!once.is_empty() && once.len() < 64, "half is lost, not all and not nothing: {once:?}");
        assert_ne!(once, published(BusFaults { seed: 4, ..faults }, 64));
    }

    #[test]
    fn a_share_of_one_always_hits() {
        assert_eq!(published(BusFaults { drop: 1.0, ..BusFaults::default() }, 3), [0; 0]);
        assert_eq!(published(BusFaults { drop_all: true, ..BusFaults::default() }, 3), [0; 0]);
        assert_eq!(published(BusFaults { duplicate: 1.0, ..BusFaults::default() }, 2), [1, 1, 2, 2]);
        assert_eq!(published(BusFaults { reorder: 1.0, ..BusFaults::default() }, 4), [2, 1, 4, 3]);
    }

    #[test]
    fn a_delay_stays_below_its_bound_and_is_not_always_the_same() {
        let delay_max = Duration::from_millis(10);
        let mut plan = FaultPlan::new(BusFaults { delay_max, ..BusFaults::default() });
        let delays: Vec<_> = (1..64).map(|seq| plan.handle_publish(frame(seq))[0].1).collect();
        assert!(delays.iter().all(|delay| *delay <= delay_max));
        assert!(delays.iter().any(|delay| *delay != delays[0]));
    }
}
