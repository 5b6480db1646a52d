//! `corecast.push.v1.Gateway`: the stream from job.
//!
//! ```text
//!  batch ─▶ numbered   ─▶ hub.take_over ───────────────┐ up to WINDOW batches under way
//!        └▶ unnumbered ─▶ seen? ─▶ every mailbox, in order ─┴─▶ ack, in the order of the batches
//! ```
//!
//! An ack transfers responsibility (DESIGN invariant 6): it follows only once the hub has
//! recorded each numbered frame and every mailbox has taken each unnumbered one. A full
//! mailbox therefore stops the stream, and job's own window stops job.
//!
//! Beside the acks it tells which rooms are wanted here ([`Interest`]): from the moment the
//! lines are open, first all, then what changes. Until then job sends everything.
//!
//! [`Interest`]: crate::core::interest::Interest

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use corecast_proto::ids::{GLOBAL, Position, RoomId};
use corecast_proto::push::gateway_server::Gateway;
use corecast_proto::push::push::Target as PushTarget;
use corecast_proto::push::{Ack, Batch, FromGateway, Push, Welcome, from_gateway};
use futures::stream::FuturesOrdered;
use futures::{Stream, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::comet::{per_shard, users_of};
use super::dedupe::Seen;
use super::hub::{HubGone, NumberedFrame};
use super::shared::Shared;
use crate::core::interest::Teller;
use crate::core::{Command, Target, Wire};

/// Batches of a stream that are not acked yet; beyond them the stream is not read.
const WINDOW: usize = 64;

/// The service.
pub(super) struct PushService {
    shared: Arc<Shared>,
    gateway_id: String,
    /// Streams of an older incarnation end: job has to see the new one.
    incarnation: watch::Receiver<u64>,
    seen: Arc<SeenRecords>,
}

/// Unnumbered records that were delivered. A partition is locked while a record is on its
/// way to the mailboxes, so that two streams never deliver it both.
#[derive(Default)]
struct SeenRecords {
    partitions: Mutex<HashMap<i32, Arc<tokio::sync::Mutex<Seen>>>>,
}

/// One stream.
struct Session {
    shared: Arc<Shared>,
    seen: Arc<SeenRecords>,
    out: mpsc::Sender<Result<FromGateway, Status>>,
}

type Taken = Pin<Box<dyn Future<Output = Result<u64, HubGone>> + Send>>;

impl PushService {
    pub(super) fn new(shared: Arc<Shared>, gateway_id: String, incarnation: watch::Receiver<u64>) -> Self {
        Self { shared, gateway_id, incarnation, seen: Arc::default() }
    }
}

#[tonic::async_trait]
impl Gateway for PushService {
    type PushStream = Pin<Box<dyn Stream<Item = Result<FromGateway, Status>> + Send>>;

    async fn push(&self, request: Request<Streaming<Batch>>) -> Result<Response<Self::PushStream>, Status> {
        let job = request.remote_addr();
        let mut incarnation = self.incarnation.clone();
        let welcome =
            Welcome { gateway_id: self.gateway_id.clone(), incarnation: *incarnation.borrow_and_update() };
        let (out, answers) = mpsc::channel(WINDOW);
        let welcome = FromGateway { message: Some(from_gateway::Message::Welcome(welcome)) };
        out.try_send(Ok(welcome)).expect("the channel is empty and its receiver is here");
        let session = Session { shared: self.shared.clone(), seen: self.seen.clone(), out };
        let shared = self.shared.clone();
        tokio::spawn(async move {
            shared.metrics.push_streams.inc();
            info!(?job, "job stream opened");
            let end = tokio::select! {
                end = session.run(request.into_inner()) => end,
                _ = incarnation.changed() => "incarnation changed",
                () = shared.stop.cancelled() => "gateway stops",
            };
            shared.metrics.push_streams.dec();
            info!(?job, end, "job stream ended");
            // What job sent and could not see acked may be missing here.
            shared.hub.interrupted().await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

impl Session {
    async fn run(self, batches: Streaming<Batch>) -> &'static str {
        let (taken, queue) = mpsc::channel(1);
        // Both end with the stream; whoever ends first ends the other.
        tokio::select! {
            end = self.read(batches, taken) => end,
            end = self.acknowledge(queue) => end,
            end = self.tell_interest() => end,
            () = self.out.closed() => "job is gone",
        }
    }

    /// Reads batches; each is a future that answers its id once it is taken over.
    async fn read(&self, mut batches: Streaming<Batch>, taken: mpsc::Sender<Taken>) -> &'static str {
        loop {
            let Batch { id, pushes } = match batches.message().await {
                Ok(Some(batch)) => batch,
                Ok(None) => {
                    // Job sends no more, and still wants the acks of what it sent.
                    drop(taken);
                    return std::future::pending().await;
                }
                Err(_) => return "stream broke",
            };
            let numbered = self.deliver_others(pushes).await;
            let hub = self.shared.hub.clone();
            let take_over: Taken = Box::pin(async move {
                if !numbered.is_empty() {
                    hub.take_over(numbered).await?;
                }
                Ok(id)
            });
            if taken.send(take_over).await.is_err() {
                return "gateway stops";
            }
        }
    }

    /// Acks in the order of the batches, with up to [`WINDOW`] of them under way.
    async fn acknowledge(&self, mut queue: mpsc::Receiver<Taken>) -> &'static str {
        let mut under_way = FuturesOrdered::new();
        let mut open = true;
        loop {
            if under_way.is_empty() && !open {
                return "job sends no more";
            }
            let id = tokio::select! {
                biased;
                Some(id) = under_way.next(), if !under_way.is_empty() => id,
                next = queue.recv(), if open && under_way.len() < WINDOW => {
                    match next {
                        Some(take_over) => under_way.push_back(take_over),
                        None => open = false,
                    }
                    continue;
                }
            };
            let Ok(id) = id else { return "hub ended" };
            self.shared.metrics.push_batches.inc();
            let ack = FromGateway { message: Some(from_gateway::Message::Ack(Ack { id })) };
            if self.out.send(Ok(ack)).await.is_err() {
                return "job is gone";
            }
        }
    }

    /// Tells job which rooms are wanted here, as long as the stream lives. A stream that
    /// takes its messages slowly is told everything anew, never more than the changes kept.
    async fn tell_interest(&self) -> &'static str {
        let hub = &self.shared.hub;
        if hub.ready().wait_for(|ready| *ready).await.is_err() {
            return "hub ended";
        }
        let mut changes = hub.interest().changes();
        let mut teller = Teller::default();
        loop {
            changes.mark_unchanged();
            while let Some(interest) = hub.interest().poll_tell(&mut teller) {
                self.shared.metrics.interest_restarts.inc_by(u64::from(interest.restart));
                let told = FromGateway { message: Some(from_gateway::Message::Interest(interest)) };
                if self.out.send(Ok(told)).await.is_err() {
                    return "job is gone";
                }
            }
            if changes.changed().await.is_err() {
                return "hub ended";
            }
        }
    }

    /// Delivers what has no number, in order, and answers what has one.
    async fn deliver_others(&self, pushes: Vec<Push>) -> Vec<NumberedFrame> {
        let mut numbered = Vec::with_capacity(pushes.len());
        let mut heads = Vec::new();
        for push in pushes {
            match kind_of(push, self.shared.cores.count()) {
                Kind::Numbered(frame) => {
                    self.count("numbered");
                    numbered.push(frame);
                }
                Kind::Unnumbered { partition, offset, target, wire } => {
                    self.deliver(partition, offset, target, wire).await;
                }
                Kind::Head(room_id, at) => {
                    self.count("head");
                    heads.push((room_id, at));
                }
                Kind::Nobody => self.count("nobody"),
                Kind::Unusable(reason) => {
                    // Nothing a repeat would change: it is acked and shown.
                    self.count("unusable");
                    warn!(reason, "push not usable");
                }
            }
        }
        if !heads.is_empty() {
            self.shared.hub.told_heads(heads).await;
        }
        numbered
    }

    async fn deliver(&self, partition: i32, offset: i64, target: Target, wire: Wire) {
        let seen = self.seen.partition(partition);
        let mut seen = seen.lock().await;
        if seen.contains(offset) {
            self.count("repeated");
            return;
        }
        let target = match target {
            Target::Room(room_id) => self.shared.room_target(room_id),
            other => other,
        };
        let command = || Command::Push { target: target.clone(), wire: wire.clone() };
        self.shared.cores.queue_all(command).await;
        seen.insert(offset);
        self.count("unnumbered");
    }

    fn count(&self, kind: &str) {
        self.shared.metrics.pushes.with_label_values(&[kind]).inc();
    }
}

impl SeenRecords {
    fn partition(&self, partition: i32) -> Arc<tokio::sync::Mutex<Seen>> {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let seen =
            partitions.entry(partition).or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Seen::new())));
        seen.clone()
    }
}

/// What a push is.
#[derive(Debug)]
enum Kind {
    Numbered(NumberedFrame),
    Unnumbered {
        partition: i32,
        offset: i64,
        target: Target,
        wire: Wire,
    },
    /// How long a room is that job left pushes of out.
    Head(RoomId, Position),
    Nobody,
    Unusable(&'static str),
}

fn kind_of(push: Push, shards: usize) -> Kind {
    let numbered = push.count > 0;
    let target = match push.target {
        Some(PushTarget::Room(room)) if room.room_id.is_empty() => return Kind::Nobody,
        Some(PushTarget::Room(room)) => Target::Room(RoomId::from(room.room_id)),
        Some(PushTarget::User(user)) if numbered => {
            return Kind::Unusable(if user.user_ids.is_empty() {
                "no users"
            } else {
                "users have no numbers"
            });
        }
        Some(PushTarget::User(user)) if user.user_ids.is_empty() => return Kind::Nobody,
        Some(PushTarget::User(user)) => Target::Users(users_of(user.user_ids)),
        Some(PushTarget::All(all)) => Target::All { per_second: per_shard(all.per_second, shards) },
        Some(PushTarget::Head(head)) if head.room_id.is_empty() => return Kind::Nobody,
        Some(PushTarget::Head(head)) => {
            let at = Position { epoch: push.epoch, seq: push.first_seq };
            return Kind::Head(RoomId::from(head.room_id), at);
        }
        None => return Kind::Unusable("no target"),
    };
    if !numbered {
        let wire = Wire::of_body(&push.frame);
        return Kind::Unnumbered { partition: push.partition, offset: push.offset, target, wire };
    }
    if push.first_seq == 0 {
        return Kind::Unusable("numbers begin at 1");
    }
    let room_id = match target {
        Target::Room(room_id) => room_id,
        // Numbers of everybody's frames are those of the reserved room.
        Target::All { .. } | Target::Users(_) => GLOBAL.into(),
    };
    Kind::Numbered(NumberedFrame {
        room_id,
        epoch: push.epoch,
        first: push.first_seq,
        count: push.count,
        op: push.op,
        frame: push.frame,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use corecast_proto::push::{AllPush, HeadPush, RoomPush, UserPush};

    fn push(target: PushTarget, first_seq: u64, count: u32) -> Push {
        Push { target: Some(target), first_seq, count, ..Push::default() }
    }

    fn room(id: &str) -> PushTarget {
        PushTarget::Room(RoomPush { room_id: id.to_owned() })
    }

    #[test]
    fn numbers_decide_who_takes_a_push() {
        assert!(
            matches!(kind_of(push(room("r"), 1, 1), 2), Kind::Numbered(frame) if frame.room_id == "r".into())
        );
        assert!(matches!(kind_of(push(room("r"), 0, 0), 2), Kind::Unnumbered { .. }));
        let all = || PushTarget::All(AllPush { per_second: 10 });
        assert!(matches!(kind_of(push(all(), 7, 1), 2), Kind::Numbered(frame) if frame.room_id.is_global()));
        let Kind::Unnumbered { target: Target::All { per_second }, .. } = kind_of(push(all(), 0, 0), 2)
        else {
            panic!("a broadcast without numbers");
        };
        assert_eq!(per_second, 5);
        let head = |id: &str| PushTarget::Head(HeadPush { room_id: id.to_owned() });
        assert!(
            matches!(kind_of(push(head("r"), 7, 0), 1), Kind::Head(id, at) if id == "r".into() && at.seq == 7)
        );
        assert!(matches!(kind_of(push(head(""), 7, 0), 1), Kind::Nobody));
    }

    #[test]
    fn what_cannot_be_delivered_is_not_held() {
        assert!(matches!(kind_of(push(room(""), 0, 0), 1), Kind::Nobody));
        assert!(matches!(kind_of(push(room("r"), 0, 1), 1), Kind::Unusable(_)));
        let users = PushTarget::User(UserPush { user_ids: vec!["ann".to_owned()] });
        assert!(matches!(kind_of(push(users, 1, 1), 1), Kind::Unusable(_)));
        assert!(matches!(kind_of(Push::default(), 1), Kind::Unusable(_)));
    }
}
