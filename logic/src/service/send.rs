//! Messages: checked, then committed by their room's lane.

use corecast_backends::bus::Bus;
use corecast_backends::hotset::HotSet;
use corecast_backends::store::{self, CommitFrame, FrameOutcome, Store};
use corecast_proto::ids::RoomId;
use corecast_proto::logic::{ClientFrame, FrameResult, SendRequest, StoredMessage};
use corecast_proto::refusal::Code;

use super::Service;
use super::lane::Outcome;
use crate::domain::{message, room};
use crate::error::Failure;

/// Frames of one request at most: one commit takes them all.
const FRAMES_MAX: usize = 1024;

/// What became of one frame: durable, refused, or its outcome is unknown.
pub type Sent = Result<FrameResult, Failure>;

/// Frames of one request that take one lane, with their places in the request.
struct Share {
    lane: usize,
    places: Vec<usize>,
    frames: Vec<CommitFrame>,
    bytes: usize,
}

impl<S: Store, H: HotSet, B: Bus> Service<S, H, B> {
    /// Stores client frames, each all or none, and answers once they are durable: as many
    /// results as frames, in their order. Messages stored before under the same key answer
    /// as they did then. Frames of one room are numbered in the order given.
    ///
    /// # Errors
    /// For the whole request `TOO_LARGE`, and unavailable or internal when a frame cannot be
    /// checked: nothing is stored then, since the repeat of that frame would be numbered
    /// behind later ones of its room. Otherwise each frame has its own: a bad one never fails
    /// its neighbours; one that is unavailable may be sent again with the same keys.
    ///
    /// # Cancel safety
    /// A dropped call may have stored the frames; send again with the same keys.
    pub async fn send(&self, request: SendRequest) -> Result<Vec<Sent>, Failure> {
        let count = request.frames.len();
        if count > FRAMES_MAX {
            return Err(Code::TooLarge.with(format!("frames must hold at most {FRAMES_MAX}")).into());
        }
        let mut results: Vec<Option<Sent>> = vec![None; count];
        let mut shares: Vec<Share> = Vec::new();
        for (place, mut frame) in request.frames.into_iter().enumerate() {
            match self.admit(&mut frame).await {
                Ok(()) => self.add_to_share(&mut shares, place, frame),
                Err(refused @ Failure::Refused(_)) => results[place] = Some(Err(refused)),
                Err(failure) => return Err(failure),
            }
        }
        // All enter their lanes before the first is waited for.
        let mut waiting: Vec<(Vec<usize>, Outcome)> = Vec::with_capacity(shares.len());
        for share in shares {
            match self.lanes.offer(share.lane, share.frames, share.bytes) {
                Ok(outcome) => waiting.push((share.places, outcome)),
                Err(failure) => fail(&mut results, &share.places, &failure),
            }
        }
        for (places, outcome) in waiting {
            // The lane bounds the wait: a bounded queue of commits, each with a deadline.
            match outcome.await {
                Ok(Ok(outcomes)) => {
                    for (place, outcome) in places.into_iter().zip(outcomes) {
                        results[place] = Some(answer(outcome));
                    }
                }
                Ok(Err(error)) => fail(&mut results, &places, &error.into()),
                Err(_) => fail(&mut results, &places, &Failure::Unavailable("logic is stopping")),
            }
        }
        let results: Vec<Sent> = results
            .into_iter()
            .map(|result| result.unwrap_or(Err(Failure::Internal("the lane forgot a frame"))))
            .collect();
        let stored = results.iter().filter(|result| result.is_ok()).count();
        tracing::debug!(frames = count, stored, "/logic/send");
        Ok(results)
    }

    /// Checks a frame against the limits, its author and its room.
    async fn admit(&self, frame: &mut ClientFrame) -> Result<(), Failure> {
        // An absent name is the account's; everything else is checked before anybody is asked.
        if frame.username.is_empty() {
            frame.username = self.username(&frame.user_id).await?;
        }
        message::check_frame(frame)?;
        self.username(&frame.user_id).await?;
        match self.kind(&frame.room_id).await? {
            Some(kind) if room::is_open(kind) => Ok(()),
            _ => Err(room::unknown().into()),
        }
    }

    fn add_to_share(&self, shares: &mut Vec<Share>, place: usize, frame: ClientFrame) {
        let lane = self.lanes.of(&frame.room_id);
        let index = shares.iter().position(|share| share.lane == lane).unwrap_or_else(|| {
            shares.push(Share { lane, places: Vec::new(), frames: Vec::new(), bytes: 0 });
            shares.len() - 1
        });
        let share = &mut shares[index];
        share.places.push(place);
        share.bytes += message::weight(&frame);
        share.frames.push(CommitFrame {
            room_id: RoomId::from(frame.room_id),
            user_id: frame.user_id,
            username: frame.username,
            messages: frame
                .messages
                .into_iter()
                .map(|message| store::NewMessage { content: message.content, key: message.key })
                .collect(),
            owner: self.owner.clone(),
        });
    }
}

fn fail(results: &mut [Option<Sent>], places: &[usize], failure: &Failure) {
    for &place in places {
        results[place] = Some(Err(failure.clone()));
    }
}

fn answer(outcome: FrameOutcome) -> Sent {
    match outcome {
        FrameOutcome::Stored { epoch, messages, .. } => Ok(FrameResult {
            refusal: None,
            epoch,
            messages: messages
                .into_iter()
                .map(|stored| StoredMessage {
                    id: stored.id.to_string(),
                    seq: stored.id.seq,
                    timestamp: stored.id.ms,
                    repeated_key: stored.repeated,
                })
                .collect(),
        }),
        FrameOutcome::UnknownRoom => Err(room::unknown().into()),
        // The limits of the wire are below those of the store: this is a defect of ours.
        FrameOutcome::Refused(reason) => {
            // As data, or it would fail its neighbours, which are stored.
            tracing::error!(reason, "store cannot hold a frame");
            Err(Code::Internal.with("the store cannot hold this frame").into())
        }
    }
}
