//! Cores as the model has them: a bounded mailbox, connections, and what each has seen.

use std::collections::{BTreeMap, VecDeque};

use corecast_gateway::core::command::{Command, ConnId, Joined, Page};
use corecast_gateway::core::{RoomFrame, Wire};
use corecast_proto::ids::{Position, RoomId};

/// What a connection has of a room.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Position,
    pub(crate) demoted: bool,
    pub(crate) asked: bool,
}

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(crate) open: bool,
    pub(crate) rooms: BTreeMap<RoomId, Seen>,
}

pub(crate) struct CoreModel {
    pub(crate) mailbox: VecDeque<Command>,
    pub(crate) capacity: usize,
    pub(crate) conns: Vec<Conn>,
    // The shard's number of each room, while it has members.
    pub(crate) numbers: BTreeMap<RoomId, Position>,
}

/// What the core says.
pub(crate) enum Said {
    Stale { conn: ConnId, opened: bool, rooms: Vec<RoomId> },
    Closed { conn: ConnId },
}

impl CoreModel {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { mailbox: VecDeque::new(), capacity, conns: Vec::new(), numbers: BTreeMap::new() }
    }

    pub(crate) fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.iter_mut().find(|conn| conn.id == id)
    }

    fn members(&self, room_id: &RoomId) -> usize {
        self.conns.iter().filter(|conn| conn.open && conn.rooms.contains_key(room_id)).count()
    }

    /// Takes one command.
    pub(crate) fn turn(&mut self) -> Vec<Said> {
        let Some(command) = self.mailbox.pop_front() else { return Vec::new() };
        match command {
            Command::Frames(frames) => frames.iter().for_each(|frame| self.frame(frame)),
            Command::Cut { room_id, everyone, at, wire } => {
                return self.cut(&room_id, everyone, at, wire.is_some());
            }
            Command::Open { conn, frames, rooms, .. } => return self.open(conn, &frames, &rooms),
            Command::Join { conn, frames, room } => return self.join(conn, &frames, &room),
            Command::Leave { conn, room_id } => {
                if let Some(conn) = self.conn(conn) {
                    conn.rooms.remove(&room_id);
                }
            }
            Command::Page { conn, room_id, page } => self.page(conn, &room_id, page),
            Command::Close { conn, .. } => {
                let index = self.conns.iter().position(|other| other.id == conn);
                if let Some(index) = index {
                    self.conns.swap_remove(index);
                    return vec![Said::Closed { conn }];
                }
            }
            Command::Reply { .. } => {}
            other => panic!("the lines do not send {other:?}"),
        }
        Vec::new()
    }

    fn frame(&mut self, frame: &RoomFrame) {
        let end = Position { epoch: frame.epoch, seq: frame.last };
        if frame.room_id.is_global() {
            // No client holds `global`: a new epoch that lost nothing goes unseen.
            for seen in self.conns.iter_mut().filter_map(|conn| conn.rooms.get_mut(&frame.room_id)) {
                seen.at.epoch = frame.epoch;
            }
            if let Some(number) = self.numbers.get_mut(&frame.room_id) {
                number.epoch = frame.epoch;
            }
        }
        if self.members(&frame.room_id) > 0
            && let Some(number) = self.numbers.get(&frame.room_id)
        {
            assert_eq!(
                (number.epoch, number.seq + 1),
                (frame.epoch, frame.first),
                "core: {} stood at {number:?}",
                frame.room_id
            );
        }
        self.numbers.insert(frame.room_id.clone(), end);
        for conn in self.conns.iter_mut().filter(|conn| conn.open) {
            let id = conn.id;
            if frame.everyone && !conn.rooms.contains_key(&frame.room_id) {
                // A default room that was created while it was connected.
                assert_eq!(frame.first, 1, "{id:?} hears of {} in the middle", frame.room_id);
                let at = Position { epoch: frame.epoch, seq: 0 };
                conn.rooms.insert(frame.room_id.clone(), Seen { at, demoted: false, asked: false });
            }
            let Some(seen) = conn.rooms.get_mut(&frame.room_id) else { continue };
            if !seen.demoted {
                assert_eq!(
                    (seen.at.epoch, seen.at.seq + 1),
                    (frame.epoch, frame.first),
                    "{id:?} in {}",
                    frame.room_id
                );
                seen.at = end;
            }
        }
    }

    fn cut(&mut self, room_id: &RoomId, everyone: bool, at: Position, has_wire: bool) -> Vec<Said> {
        self.numbers.insert(room_id.clone(), at);
        if !has_wire {
            // Nothing can replace what they hold: they get a new hello.
            let (gone, stay) = std::mem::take(&mut self.conns)
                .into_iter()
                .partition(|c| c.open && c.rooms.contains_key(room_id));
            self.conns = stay;
            let gone: Vec<Conn> = gone;
            return gone.into_iter().map(|conn| Said::Closed { conn: conn.id }).collect();
        }
        for conn in self.conns.iter_mut().filter(|conn| conn.open) {
            if everyone {
                // A default room that nobody had written in yet.
                let unseen = Seen { at, demoted: false, asked: false };
                conn.rooms.entry(room_id.clone()).or_insert(unseen);
            }
            if let Some(seen) = conn.rooms.get_mut(room_id) {
                assert!(at.epoch >= seen.at.epoch, "an epoch runs backwards");
                if !seen.demoted {
                    seen.at = at;
                }
            }
        }
        Vec::new()
    }

    fn open(&mut self, id: ConnId, frames: &[Wire], joined: &[Joined]) -> Vec<Said> {
        let Some(conn) = self.conn(id) else {
            let rooms = joined.iter().map(|joined| joined.room_id.clone()).collect();
            return vec![Said::Stale { conn: id, opened: true, rooms }];
        };
        conn.open = true;
        read_reply(conn, frames);
        self.check_joined(id, joined);
        let conn = self.conn(id).expect("just opened");
        let standing: Vec<(RoomId, Position)> =
            conn.rooms.iter().map(|(room, seen)| (room.clone(), seen.at)).collect();
        for (room_id, at) in standing {
            let others = self.conns.iter().filter(|conn| conn.open && conn.id != id).count();
            // A new epoch of `global` that lost nothing goes unseen on a core.
            let unseen = room_id.is_global() && self.numbers.get(&room_id).is_some_and(|n| n.seq == at.seq);
            if others == 0 || unseen || !self.numbers.contains_key(&room_id) {
                self.numbers.insert(room_id, at);
            } else if joined.iter().all(|joined| joined.room_id != room_id) {
                assert_eq!(self.numbers[&room_id], at, "{id:?} opens {room_id} beside the core's number");
            }
        }
        Vec::new()
    }

    fn join(&mut self, id: ConnId, frames: &[Wire], joined: &Joined) -> Vec<Said> {
        let Some(conn) = self.conn(id).filter(|conn| conn.open) else {
            return vec![Said::Stale { conn: id, opened: false, rooms: vec![joined.room_id.clone()] }];
        };
        assert!(!conn.rooms.contains_key(&joined.room_id), "{id:?} joins {} twice", joined.room_id);
        read_reply(conn, frames);
        self.check_joined(id, std::slice::from_ref(joined));
        Vec::new()
    }

    fn check_joined(&mut self, id: ConnId, joined: &[Joined]) {
        for joined in joined {
            let conn = self.conn(id).expect("just placed");
            let seen = conn.rooms.get(&joined.room_id).expect("its reply names the room");
            assert_eq!(seen.at, joined.at, "{id:?}: reply and membership of {} differ", joined.room_id);
            if self.members(&joined.room_id) > 1 {
                assert_eq!(self.numbers[&joined.room_id], joined.at, "{id:?} beside the core's number");
            }
            self.numbers.insert(joined.room_id.clone(), joined.at);
        }
    }

    fn page(&mut self, id: ConnId, room_id: &RoomId, page: Page) {
        let number = self.numbers.get(room_id).copied();
        let Some(seen) = self.conn(id).and_then(|conn| conn.rooms.get_mut(room_id)) else { return };
        seen.asked = false;
        if !seen.demoted {
            return;
        }
        match page {
            Page::Frames { frames, reached } => {
                if number.is_some_and(|number| number.epoch != seen.at.epoch) {
                    // Asked before a cut that came in between: the old numbers mean nothing.
                    return;
                }
                for (last, wire) in frames {
                    let (_, first, end) = numbers(&wire);
                    assert_eq!(seen.at.seq + 1, first, "{id:?}: a page of {room_id} leaves a hole");
                    assert_eq!(end, last);
                    seen.at.seq = last;
                }
                assert_eq!(seen.at.seq, reached);
            }
            Page::Cut { at, .. } => seen.at = at,
            Page::TryLater => return,
        }
        let number = number.expect("a room with a member has a number");
        assert!(
            (seen.at.epoch, seen.at.seq) <= (number.epoch, number.seq),
            "{id:?}: a page of {room_id} ends at {:?}, above {number:?}",
            seen.at
        );
        if seen.at == number {
            seen.demoted = false;
        }
    }
}

// What a hello, a join and the frames behind them say.
fn read_reply(conn: &mut Conn, frames: &[Wire]) {
    for wire in frames {
        let text = text(wire);
        let mut words = text.split(' ');
        let kind = words.next().expect("a word");
        if kind == "at" {
            let room_id = RoomId::from(words.next().expect("room"));
            let mut number = || words.next().expect("number").parse().expect("number");
            let at = Position { epoch: number(), seq: number() };
            conn.rooms.insert(room_id, Seen { at, demoted: false, asked: false });
            continue;
        }
        assert_eq!(kind, "frame", "{text}");
        let room_id = RoomId::from(words.next().expect("room"));
        let (epoch, first, last) = numbers(wire);
        let seen = conn.rooms.entry(room_id.clone()).or_insert(Seen {
            // A default room that was created after the snapshot.
            at: Position { epoch, seq: 0 },
            demoted: false,
            asked: false,
        });
        assert_eq!((seen.at.epoch, seen.at.seq + 1), (epoch, first), "{room_id} after its snapshot");
        seen.at.seq = last;
    }
}

fn numbers(wire: &Wire) -> (u64, u64, u64) {
    let text = text(wire);
    let mut words = text.split(' ').skip(2).map(|word| word.parse().expect("number"));
    let mut next = || words.next().expect("number");
    (next(), next(), next())
}

fn text(wire: &Wire) -> String {
    // Payloads of the model stay below 126 bytes: the header has two.
    String::from_utf8(wire.bytes()[2..].to_vec()).expect("utf-8")
}
