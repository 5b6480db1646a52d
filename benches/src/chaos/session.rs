//! One client across its connections: where it stands in each room, and what of its own is
//! not acknowledged. Decides only; no socket, no clock.
//!
//! Calling order: [`handle_open`](Session::handle_open) once a socket is up, then
//! [`poll_request`](Session::poll_request) until `None` after each event, and
//! [`handle_close`](Session::handle_close) when the socket is gone. Times are ms since any
//! fixed moment.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::frames::{self, Frame, Refused, Room};

/// A client.
pub struct Session {
    /// Begins its keys.
    run: Arc<str>,
    /// Rooms it wants to be in besides those where everybody is.
    home: Vec<String>,
    rooms: BTreeMap<String, Held>,
    /// By number of the message, which ends its key.
    pending: BTreeMap<u64, Pending>,
    /// Requests that leave as soon as possible.
    due_now: VecDeque<Request>,
    phase: Phase,
    random: StdRng,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The first frame: (room, epoch, number) of all it holds.
    Resume(Vec<(String, u64, u64)>),
    /// Into a room, from a place.
    Join(String, Option<(u64, u64)>),
    /// History behind a number.
    Page(String, u64),
    /// A message.
    Message {
        /// Its number.
        number: u64,
        /// Its key.
        key: String,
        /// Room id.
        room: String,
        /// Text.
        content: String,
    },
}

/// What a frame brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// (message, number in the room) that became durable.
    pub acked: Vec<(u64, u64)>,
    /// Messages delivered live.
    pub live: u64,
    /// Messages that came by resume, `cut` or a page.
    pub resumed: u64,
    /// A message was refused for good, with this code.
    pub refused: Option<(u64, String)>,
    /// A request has to be repeated, with this code.
    pub repeated: Option<String>,
    /// A `cut` came.
    pub cut: bool,
    /// `lagging` came.
    pub lagging: bool,
    /// The window in which to reconnect.
    pub draining: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Away,
    Opening,
    Greeted,
}

#[derive(Clone, Debug, Default)]
struct Held {
    epoch: u64,
    seq: u64,
    member: bool,
    /// When an unanswered join counts as lost, or a refused one may be repeated.
    join_at: Option<u64>,
    /// Numbers left out by a `cut`: after the first, up to the second.
    missing: Option<(u64, u64)>,
    page_at: Option<u64>,
}

#[derive(Clone, Debug)]
struct Pending {
    room: String,
    content: String,
    /// It leaves then: at once, after a refusal, or because no answer came.
    due_ms: u64,
    /// It left on this connection.
    sent: bool,
}

impl Session {
    /// A client that wants to be in these rooms.
    pub fn new(home: Vec<String>, run: Arc<str>, seed: u64) -> Self {
        Self {
            run,
            home,
            rooms: BTreeMap::new(),
            pending: BTreeMap::new(),
            due_now: VecDeque::new(),
            phase: Phase::Away,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// A socket is up.
    pub fn handle_open(&mut self) {
        self.phase = Phase::Opening;
        let cursors = self.rooms.iter().map(|(room, held)| (room.clone(), held.epoch, held.seq));
        self.due_now.push_back(Request::Resume(cursors.collect()));
    }

    /// The socket is gone. What was not acknowledged leaves again after the next hello.
    pub fn handle_close(&mut self) {
        self.phase = Phase::Away;
        self.due_now.clear();
        for held in self.rooms.values_mut() {
            (held.member, held.join_at, held.page_at) = (false, None, None);
        }
        for pending in self.pending.values_mut() {
            (pending.sent, pending.due_ms) = (false, 0);
        }
    }

    /// Somebody wants to say this.
    pub fn offer(&mut self, number: u64, room: &str, content: &str) {
        let (room, content) = (room.to_owned(), content.to_owned());
        self.pending.insert(number, Pending { room, content, due_ms: 0, sent: false });
    }

    /// A frame arrived.
    pub fn handle_frame(&mut self, frame: Frame, now_ms: u64) -> Taken {
        let mut taken = Taken::default();
        match frame {
            Frame::Hello(rooms) => {
                for room in rooms {
                    // A public room that was not named is only offered.
                    if room.kind != "public" || self.rooms.contains_key(&room.id) {
                        self.absorb(&room, &mut taken);
                    }
                }
                self.phase = Phase::Greeted;
                self.join_missing();
            }
            Frame::Joined(room) | Frame::Cut(room) => self.absorb(&room, &mut taken),
            Frame::Messages { room, numbers } => {
                let held = self.rooms.entry(room).or_default();
                taken.live = numbers.len() as u64;
                held.seq = numbers.into_iter().fold(held.seq, u64::max);
            }
            Frame::Page { room, epoch, numbers, more } => {
                self.take_page(&room, epoch, &numbers, more, &mut taken);
            }
            Frame::Ack(acked) => {
                for (key, seq) in acked {
                    let number = self.number_of(&key);
                    if let Some(number) = number.filter(|number| self.pending.remove(number).is_some()) {
                        taken.acked.push((number, seq));
                    }
                }
            }
            Frame::Error(refused) => self.take_refusal(&refused, now_ms, &mut taken),
            Frame::Lagging { begins, .. } => taken.lagging = begins,
            Frame::Draining(from, to) => taken.draining = Some((from, to)),
            Frame::Created(..) | Frame::Other => {}
        }
        taken
    }

    /// The next request to write, and whether it leaves because no answer came.
    pub fn poll_request(&mut self, now_ms: u64) -> Option<(Request, bool)> {
        if let Some(request) = self.due_now.pop_front() {
            return Some((request, false));
        }
        if self.phase != Phase::Greeted {
            return None;
        }
        for (room, held) in &mut self.rooms {
            if !held.member && held.join_at.is_some_and(|at| at <= now_ms) {
                held.join_at = Some(now_ms + ANSWER_MS);
                let place = (held.epoch > 0).then_some((held.epoch, held.seq));
                return Some((Request::Join(room.clone(), place), false));
            }
            if let Some((after, _)) = held.missing
                && held.page_at.is_none_or(|at| at <= now_ms)
            {
                held.page_at = Some(now_ms + ANSWER_MS);
                return Some((Request::Page(room.clone(), after), false));
            }
        }
        let rooms = &self.rooms;
        let (number, pending) = self.pending.iter_mut().find(|(_, pending)| {
            pending.due_ms <= now_ms && rooms.get(&pending.room).is_some_and(|held| held.member)
        })?;
        let again = pending.sent;
        (pending.sent, pending.due_ms) = (true, now_ms + ANSWER_MS);
        let (room, content) = (pending.room.clone(), pending.content.clone());
        let key = format!("{}-{number}", self.run);
        Some((Request::Message { number: *number, key, room, content }, again))
    }

    /// When [`poll_request`](Self::poll_request) may have something without a new event.
    pub fn poll_timeout(&self) -> Option<u64> {
        if self.phase != Phase::Greeted {
            return None;
        }
        let joins = self.rooms.values().filter(|held| !held.member).filter_map(|held| held.join_at);
        let pages = self.rooms.values().filter(|held| held.missing.is_some()).filter_map(|held| held.page_at);
        // A message of a room it is not in yet waits for the answer to the join.
        let member = |room: &str| self.rooms.get(room).is_some_and(|held| held.member);
        let sends = self.pending.values().filter(|pending| member(&pending.room));
        joins.chain(pages).chain(sends.map(|pending| pending.due_ms)).min()
    }

    /// It has its hello and is in all the rooms it wants to be in.
    pub fn is_settled(&self) -> bool {
        let member = |room: &String| self.rooms.get(room).is_some_and(|held| held.member);
        self.phase == Phase::Greeted && self.home.iter().all(member)
    }

    /// It pages for numbers that a `cut` left out.
    pub fn is_paging(&self) -> bool {
        self.rooms.values().any(|held| held.missing.is_some())
    }

    /// Messages without an ack.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The number of a message of this campaign, from its key.
    fn number_of(&self, key: &str) -> Option<u64> {
        key.strip_prefix(&*self.run)?.strip_prefix('-')?.parse().ok()
    }

    fn join_missing(&mut self) {
        for room in &self.home {
            let held = self.rooms.entry(room.clone()).or_default();
            if !held.member {
                held.join_at = Some(0);
            }
        }
    }

    fn absorb(&mut self, room: &Room, taken: &mut Taken) {
        let held = self.rooms.entry(room.id.clone()).or_default();
        let is_first = held.epoch == 0;
        let (epoch, before) = (held.epoch, held.seq);
        (held.epoch, held.seq, held.member, held.join_at) = (room.epoch, room.last, true, None);
        if is_first {
            return;
        }
        taken.cut |= room.cut;
        taken.resumed += room.numbers.iter().filter(|number| **number > before).count() as u64;
        let first = room.numbers.first().map_or(room.last + 1, |first| *first);
        // Numbers of another epoch are another line: nothing to go forward from.
        if room.cut && epoch == room.epoch && first > before + 1 {
            let from = held.missing.map_or(before, |(after, _)| after);
            held.missing = Some((from, first - 1));
            held.page_at = None;
        }
    }

    fn take_page(&mut self, room: &str, epoch: u64, numbers: &[u64], more: bool, taken: &mut Taken) {
        let Some(held) = self.rooms.get_mut(room) else { return };
        held.page_at = None;
        let Some((after, until)) = held.missing else { return };
        let reached = numbers.iter().copied().filter(|number| *number <= until).max();
        let reached = reached.unwrap_or(after);
        taken.resumed += numbers.iter().filter(|number| (after + 1..=until).contains(*number)).count() as u64;
        // An empty page is the end of what can be had: the checker counts what is missing.
        let ended = reached >= until || epoch != held.epoch || (reached == after && !more);
        held.missing = (!ended).then_some((reached, until));
    }

    fn take_refusal(&mut self, refused: &Refused, now_ms: u64, taken: &mut Taken) {
        let wait = refused.retry_after_ms.unwrap_or(RETRY_MS);
        // Two hundred clients refused in one moment must not come back in one moment.
        let again = now_ms + wait + self.random.random_range(0..=wait / 2);
        let held = refused.room_id.as_ref().and_then(|room| self.rooms.get_mut(room));
        match (refused.request_type.as_str(), held) {
            ("join", Some(held)) => held.join_at = Some(again),
            ("requestRoomHistory", Some(held)) => held.page_at = Some(again),
            ("clientMessages", _) => return self.take_refused_message(refused, again, taken),
            _ => {}
        }
        taken.repeated = Some(refused.code.clone());
    }

    fn take_refused_message(&mut self, refused: &Refused, again: u64, taken: &mut Taken) {
        let number = refused.client_message_id.as_ref().and_then(|key| self.number_of(key));
        let concerned = |number_of: u64, pending: &Pending| match (number, &refused.room_id) {
            (Some(number), _) => number == number_of,
            (None, Some(room)) => pending.sent && pending.room == *room,
            (None, None) => pending.sent,
        };
        if refused.retry_after_ms.is_none()
            && let Some(number) = number
        {
            self.pending.remove(&number);
            taken.refused = Some((number, refused.code.clone()));
            return;
        }
        for (number, pending) in &mut self.pending {
            if concerned(*number, pending) {
                (pending.sent, pending.due_ms) = (false, again);
            }
        }
        taken.repeated = Some(refused.code.clone());
    }
}

impl Request {
    /// The text frame.
    pub fn encode(&self) -> String {
        match self {
            Self::Resume(cursors) => {
                frames::resume(cursors.iter().map(|(room, epoch, seq)| (room.as_str(), *epoch, *seq)))
            }
            Self::Join(room, place) => frames::join(room, *place),
            Self::Page(room, after) => frames::page(room, *after),
            Self::Message { key, room, content, .. } => frames::message(room, key, content),
        }
    }
}

/// A request without an answer for so long leaves again: the same key, so it is harmless.
/// Twice the time a gateway may wait for logic.
const ANSWER_MS: u64 = 10_000;
/// Pause before a request is repeated when the server named none.
const RETRY_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn room(id: &str, last: u64, numbers: &[u64]) -> Room {
        let kind = "public".to_owned();
        Room { id: id.into(), kind, epoch: 1, last, cut: false, numbers: numbers.to_vec() }
    }

    fn requests(session: &mut Session, now_ms: u64) -> Vec<Request> {
        std::iter::from_fn(|| session.poll_request(now_ms)).map(|(request, _)| request).collect()
    }

    /// In room `a`, at 5.
    fn settled() -> Session {
        let mut session = Session::new(vec!["a".into()], "run".into(), 1);
        session.handle_open();
        assert_eq!(requests(&mut session, 0), [Request::Resume(Vec::new())]);
        session.handle_frame(Frame::Hello(vec![room("a", 5, &[]), room("b", 9, &[])]), 0);
        assert_eq!(requests(&mut session, 0), [Request::Join("a".into(), None)]);
        session.handle_frame(Frame::Joined(room("a", 5, &[4, 5])), 0);
        assert!(session.is_settled());
        session
    }

    fn refusal(key: Option<&str>, retry_after_ms: Option<u64>) -> Frame {
        Frame::Error(Refused {
            code: "UNAVAILABLE".into(),
            request_type: "clientMessages".into(),
            room_id: Some("a".into()),
            client_message_id: key.map(str::to_owned),
            retry_after_ms,
        })
    }

    #[test]
    fn what_is_not_acknowledged_leaves_again_after_a_reconnect() {
        let mut session = settled();
        session.offer(7, "a", "text");
        assert_eq!(requests(&mut session, 0).len(), 1);
        session.handle_frame(Frame::Messages { room: "a".into(), numbers: vec![6] }, 0);
        session.handle_close();
        session.handle_open();
        assert_eq!(requests(&mut session, 1), [Request::Resume(vec![("a".into(), 1, 6)])]);
        let taken = session.handle_frame(Frame::Hello(vec![room("a", 8, &[7, 8])]), 1);
        assert_eq!(taken.resumed, 2);
        assert!(matches!(requests(&mut session, 1)[..], [Request::Message { number: 7, .. }]));
        let taken = session.handle_frame(Frame::Ack(vec![("run-7".into(), 9)]), 2);
        assert_eq!(taken.acked, [(7, 9)]);
        assert_eq!(session.pending(), 0);
    }

    #[test]
    fn a_refused_message_waits_and_a_final_refusal_ends_it() {
        let mut session = settled();
        session.offer(7, "a", "text");
        requests(&mut session, 0);
        let taken = session.handle_frame(refusal(Some("run-7"), Some(1000)), 0);
        assert_eq!(taken.repeated.as_deref(), Some("UNAVAILABLE"));
        assert!(requests(&mut session, 999).is_empty());
        assert_eq!(requests(&mut session, 1501).len(), 1);
        let taken = session.handle_frame(refusal(Some("run-7"), None), 1501);
        assert_eq!(taken.refused, Some((7, "UNAVAILABLE".into())));
        assert_eq!(session.pending(), 0);
    }

    #[test]
    fn silence_is_answered_by_a_repeat_that_is_told_apart() {
        let mut session = settled();
        session.offer(7, "a", "text");
        assert!(matches!(session.poll_request(0), Some((Request::Message { .. }, false))));
        assert_eq!(session.poll_request(ANSWER_MS - 1), None);
        assert_eq!(session.poll_timeout(), Some(ANSWER_MS));
        assert!(matches!(session.poll_request(ANSWER_MS), Some((Request::Message { .. }, true))));
    }

    #[test]
    fn a_cut_is_paged_from_the_own_number_until_nothing_is_missing() {
        let mut session = settled();
        let cut = Room { cut: true, ..room("a", 300, &[299, 300]) };
        let taken = session.handle_frame(Frame::Cut(cut), 0);
        assert!(taken.cut && session.is_paging());
        assert_eq!(requests(&mut session, 0), [Request::Page("a".into(), 5)]);
        let page = |numbers: std::ops::RangeInclusive<u64>, more| Frame::Page {
            room: "a".into(),
            epoch: 1,
            numbers: numbers.collect(),
            more,
        };
        let taken = session.handle_frame(page(6..=205, true), 0);
        assert_eq!(taken.resumed, 200);
        assert_eq!(requests(&mut session, 0), [Request::Page("a".into(), 205)]);
        let taken = session.handle_frame(page(206..=300, false), 0);
        assert_eq!((taken.resumed, session.is_paging()), (93, false));
    }

    #[test]
    fn a_refused_join_is_repeated_and_a_listed_room_is_not_entered() {
        let mut session = Session::new(vec!["a".into()], "run".into(), 1);
        session.handle_open();
        requests(&mut session, 0);
        session.handle_frame(Frame::Hello(Vec::new()), 0);
        requests(&mut session, 0);
        let refused = Refused {
            code: "UNAVAILABLE".into(),
            request_type: "join".into(),
            room_id: Some("a".into()),
            retry_after_ms: Some(1000),
            ..Refused::default()
        };
        session.handle_frame(Frame::Error(refused), 0);
        assert!(!session.is_settled());
        assert_eq!(requests(&mut session, 2000), [Request::Join("a".into(), None)]);
    }
}
