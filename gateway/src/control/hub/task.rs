//! The loop: messages, events and answers go into [`Lines`]; what it decides goes out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use corecast_proto::frame::RoomCursor;
use corecast_proto::ids::{GLOBAL, Position, RoomId};
use corecast_proto::limits::MEMBERSHIPS;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::openings::Openings;
use super::reads::{self, Answer, Reads};
use super::{HubParts, InterestBoard, JoinError, JoinReply, NumberedFrame};
use crate::config::Limits;
use crate::core::lines::types::{Action, Arrival, LinesLimits, Ticket};
use crate::core::lines::{Counters, Lines};
use crate::core::sequencer::LineLimits;
use crate::core::{ConnId, Event, Session};
use crate::shard::mailbox::Mailbox;

/// What the hub is asked.
pub(super) enum Message {
    Frames {
        frames: Vec<NumberedFrame>,
        recorded: Option<oneshot::Sender<()>>,
    },
    Open {
        conn: ConnId,
        session: Arc<Session>,
        cursors: Vec<RoomCursor>,
        done: oneshot::Sender<Result<(), JoinError>>,
    },
    Join {
        conn: ConnId,
        session: Arc<Session>,
        room_id: RoomId,
        position: Option<Position>,
        reply: JoinReply,
        done: oneshot::Sender<Result<(), JoinError>>,
    },
    Leave {
        conn: ConnId,
        room_id: RoomId,
    },
    ToldHeads(Vec<(RoomId, Position)>),
    Interrupted,
    Rooms {
        done: oneshot::Sender<HashMap<String, bool>>,
    },
}

/// Milliseconds a placement may wait for its line and its core; then the connection is
/// told to come back (1013).
const PLACEMENT_DEADLINE_MS: u64 = 5_000;

/// Events and answers taken between two looks at the rest.
const BURST: usize = 256;

/// What others can see without asking.
pub(super) struct Told {
    pub(super) ready: watch::Sender<bool>,
    pub(super) counters: watch::Sender<Counters>,
    pub(super) defaults: watch::Sender<HashSet<RoomId>>,
}

impl Told {
    fn tell(&self, lines: &Lines) {
        let ready = lines.is_ready();
        self.ready.send_if_modified(|told| std::mem::replace(told, ready) != ready);
        self.counters.send_replace(lines.counters());
        // Default rooms only ever come, but for a store that was put back.
        if self.defaults.borrow().len() + 1 != lines.everyone_lines() && ready {
            self.defaults.send_replace(lines.default_rooms().cloned().collect());
        }
    }
}

struct Task {
    lines: Lines,
    openings: Openings,
    reads: Reads,
    mailboxes: Vec<Mailbox>,
    watches: mpsc::UnboundedSender<(RoomId, bool)>,
    interest: Arc<InterestBoard>,
    tickets: HashMap<Ticket, oneshot::Sender<()>>,
    next_ticket: Ticket,
    alarms: u64,
    started: Instant,
}

/// Runs until `shutdown`.
pub(super) async fn run(
    parts: HubParts,
    interest: Arc<InterestBoard>,
    mut inbox: mpsc::Receiver<Message>,
    mut events: mpsc::UnboundedReceiver<Event>,
    told: Told,
    shutdown: CancellationToken,
) {
    let (answers_tx, mut answers) = mpsc::unbounded_channel();
    let mut task = Task {
        lines: Lines::new(parts.mailboxes.len(), limits(&parts.limits), 0),
        openings: Openings::new(PLACEMENT_DEADLINE_MS, interest.clone()),
        reads: Reads::new(parts.logic, answers_tx),
        mailboxes: parts.mailboxes,
        watches: parts.watches,
        interest,
        tickets: HashMap::new(),
        next_ticket: 1,
        alarms: 0,
        started: Instant::now(),
    };
    loop {
        task.carry_out();
        told.tell(&task.lines);
        let now_ms = task.now_ms();
        let due = task.started + Duration::from_millis(task.lines.poll_timeout(now_ms));
        tokio::select! {
            // Events first: they only ever make room.
            biased;
            () = shutdown.cancelled() => return,
            Some(event) = events.recv() => {
                task.handle_event(event);
                for _ in 0..BURST {
                    let Ok(event) = events.try_recv() else { break };
                    task.handle_event(event);
                }
            }
            Some(answer) = answers.recv() => {
                task.handle_answer(answer);
                for _ in 0..BURST {
                    let Ok(answer) = answers.try_recv() else { break };
                    task.handle_answer(answer);
                }
            }
            message = inbox.recv() => {
                let Some(message) = message else { return };
                task.handle_message(message);
                // Whoever became ready together with this one has its word first: what they
                // all want from a shard is one wake of it.
                tokio::task::yield_now().await;
                for _ in 0..BURST {
                    let Ok(message) = inbox.try_recv() else { break };
                    task.handle_message(message);
                }
            }
            () = sleep_until(due) => {
                let now_ms = task.now_ms();
                task.lines.handle_timeout(now_ms);
            }
        }
    }
}

impl Task {
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn handle_message(&mut self, message: Message) {
        let now_ms = self.now_ms();
        match message {
            Message::Frames { frames, recorded } => self.handle_frames(frames, recorded, now_ms),
            Message::Open { conn, session, cursors, done } => {
                let id = self.openings.hello(conn, session, cursors, done);
                self.openings.start(id, &mut self.lines, &self.reads, now_ms);
            }
            Message::Join { conn, session, room_id, position, reply, done } => {
                if room_id.as_str() == GLOBAL {
                    let _ = done.send(Err(JoinError::UnknownRoom));
                } else if reply == JoinReply::Silent && self.lines.is_member(conn, &room_id) {
                    let _ = done.send(Ok(()));
                } else if self.lines.membership_count(conn) >= MEMBERSHIPS
                    && !self.lines.is_member(conn, &room_id)
                {
                    let _ = done.send(Err(JoinError::TooMany));
                } else {
                    let id = self.openings.join(conn, session, room_id, position, reply, done);
                    self.openings.start(id, &mut self.lines, &self.reads, now_ms);
                }
            }
            Message::Leave { conn, room_id } => self.lines.handle_leave(conn, &room_id, now_ms),
            Message::ToldHeads(heads) => self.lines.handle_told_heads(heads, now_ms),
            Message::Interrupted => self.lines.handle_interrupted(now_ms),
            Message::Rooms { done } => {
                let rooms = self.lines.rooms_with_members().map(|id| (id.as_str().to_owned(), true));
                let _ = done.send(rooms.collect());
            }
        }
    }

    fn handle_frames(
        &mut self,
        frames: Vec<NumberedFrame>,
        recorded: Option<oneshot::Sender<()>>,
        now_ms: u64,
    ) {
        let mut arrivals = Vec::with_capacity(frames.len());
        for frame in frames {
            // Numbers near the end of u64 are nobody's; they must not end the hub.
            let last = frame.first.saturating_add(u64::from(frame.count.max(1)) - 1);
            // The slower of the two paths mostly brings repeats: not worth encoding.
            if self.lines.is_settled(&frame.room_id, frame.epoch, last) {
                continue;
            }
            let line_frame = reads::frame_of(&frame.room_id, frame.first, last, &frame.frame);
            arrivals.push(Arrival { room_id: frame.room_id, epoch: frame.epoch, frame: line_frame });
        }
        let ticket = recorded.map(|recorded| {
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            self.tickets.insert(ticket, recorded);
            ticket
        });
        self.lines.handle_frames(arrivals, ticket, now_ms);
    }

    fn handle_event(&mut self, event: Event) {
        let now_ms = self.now_ms();
        match event {
            Event::Lagging { conn, room_id, reached, too_long } => {
                self.lines.handle_lagging(conn, &room_id, reached, too_long, now_ms);
            }
            Event::Stale { conn, opened, rooms } => self.lines.handle_stale(conn, opened, &rooms, now_ms),
            Event::Closed { conn, session, .. } => {
                self.lines.handle_closed(conn, session.is_some(), now_ms);
            }
            // Counted when the Leave was queued.
            Event::Left { .. } => {}
            Event::Upgraded { .. } | Event::Text { .. } | Event::Http { .. } | Event::Drained { .. } => {}
        }
        self.carry_out();
    }

    fn handle_answer(&mut self, answer: Answer) {
        let now_ms = self.now_ms();
        match answer {
            Answer::Range { room_id, ask, why, answer: Some(answer) } => {
                self.lines.handle_range(&room_id, why, ask, answer, now_ms);
            }
            Answer::Range { room_id, ask, why, answer: None } => {
                self.lines.handle_range_failed(&room_id, why, ask, now_ms);
            }
            Answer::Heads { rooms, why, answer } => self.lines.handle_heads(&rooms, why, answer, now_ms),
            Answer::Defaults(answer) => self.lines.handle_defaults(answer, now_ms),
            Answer::Snapshot { room_id, why, answer } => {
                self.lines.handle_snapshot(&room_id, why, answer, now_ms);
            }
            Answer::Hello { id, answer } => {
                self.openings.handle_hello(id, answer, &mut self.lines, now_ms);
            }
            Answer::Shared(answer) => {
                self.openings.handle_shared(answer, &mut self.lines, &self.reads, now_ms)
            }
        }
        self.carry_out();
    }

    // Does what the lines decided, until there is nothing left.
    fn carry_out(&mut self) {
        while let Some(action) = self.lines.poll_action() {
            match action {
                Action::Send { core, command, placement } => match self.mailboxes[core].offer(command) {
                    Ok(()) => {
                        if let Some(placement) = placement {
                            self.openings.placed(placement.id);
                        }
                    }
                    Err(command) => {
                        let now_ms = self.now_ms();
                        self.lines.refused(core, command, placement, now_ms);
                    }
                },
                Action::Range { room_id, ask, why } => self.reads.range(room_id, ask, why),
                Action::Heads { rooms, why } => self.reads.heads(rooms, why),
                Action::Defaults => self.reads.defaults(),
                Action::Snapshot { room_id, why } => self.reads.snapshot(room_id, why),
                Action::Recorded(ticket) => {
                    if let Some(recorded) = self.tickets.remove(&ticket) {
                        // The stream that waited has ended.
                        let _ = recorded.send(());
                    }
                }
                Action::Failed { placement, outcome } => {
                    let now_ms = self.now_ms();
                    self.openings.failed(placement.id, outcome, &mut self.lines, &self.reads, now_ms);
                }
                Action::Watch { room_id, on } => {
                    self.interest.change(|interest| interest.handle_line(&room_id, on));
                    let _ = self.watches.send((room_id, on));
                }
            }
        }
        let alarms = self.lines.counters().alarms;
        if alarms > self.alarms {
            self.alarms = alarms;
            warn!(alarms, "a room's head is below what was seen in the same epoch; its members get a cut");
        }
    }
}

fn limits(limits: &Limits) -> LinesLimits {
    let defaults = LinesLimits::default();
    LinesLimits {
        line: LineLimits {
            ring_frames: limits.ring_frames,
            ring_bytes: limits.ring_bytes,
            hole_ms: limits.hole_ms,
            ..defaults.line
        },
        tail_check_ms: limits.tail_check_ms,
        ..defaults
    }
}
