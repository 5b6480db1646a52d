//! Control: owns the lines, answers when it likes, and talks to connections long gone.

use std::sync::Arc;

use corecast_gateway::core::{Command, ConnId, Joined, Page, RoomFrame, Session, Target, Wire};
use corecast_proto::close::CloseCode;
use corecast_proto::ids::{Position, RoomId};

use super::world::{DEFAULTS, PUBLICS, World};

/// A line as control keeps it: every frame it ever had.
#[derive(Default)]
pub(crate) struct Line {
    pub(crate) at: Position,
    pub(crate) frames: Vec<(Position, u64, Wire)>,
}

impl World {
    /// One mailbox command with some frames.
    pub(crate) fn push(&mut self) {
        let mut frames = Vec::new();
        for _ in 0..1 + self.below(4) {
            let room = self.room();
            let (count, padding) = (1 + self.below(3) as u64, self.below(120));
            let line = self.lines.get_mut(room).expect("known");
            let (first, last) = (line.at.seq + 1, line.at.seq + count);
            let epoch = line.at.epoch;
            let text = format!("m {room} {epoch} {first} {last} {}", "x".repeat(padding));
            let wire = Wire::text(text.as_bytes());
            line.at.seq = last;
            line.frames.push((line.at, first, wire.clone()));
            let everyone = DEFAULTS.contains(&room);
            frames.push(RoomFrame { room_id: room.into(), everyone, epoch, first, last, wire });
        }
        self.command(Command::Frames(frames));
    }

    pub(crate) fn room(&mut self) -> &'static str {
        let all: Vec<&str> = DEFAULTS.iter().chain(&PUBLICS).copied().collect();
        self.pick(&all).expect("there are rooms")
    }

    pub(crate) fn cut(&mut self) {
        let room = self.room();
        let line = self.lines.get_mut(room).expect("known");
        line.at.epoch += 1;
        let at = line.at;
        let is_global = room == "global";
        self.global_cuts += u64::from(is_global);
        let wire = (!is_global).then(|| cut_wire(room, at));
        let everyone = DEFAULTS.contains(&room);
        self.command(Command::Cut { room_id: room.into(), everyone, at, wire });
    }

    pub(crate) fn open_conns(&self) -> Vec<ConnId> {
        let mut open: Vec<ConnId> =
            self.conns.iter().filter(|(_, conn)| conn.open).map(|(id, _)| *id).collect();
        open.sort();
        open
    }

    pub(crate) fn join(&mut self) {
        let open = self.open_conns();
        let Some(conn) = self.pick(&open) else { return };
        let room = self.pick(&PUBLICS).expect("there are rooms");
        let at = self.lines[room].at;
        let known = self.conns.get_mut(&conn).expect("open");
        if known.rooms.contains(&room) {
            // As control sees it; the shard reports the second one as never begun.
            if self.below(4) > 0 {
                return;
            }
        } else {
            known.rooms.push(room);
        }
        *self.memberships.entry(room.to_owned()).or_default() += 1;
        let frames = vec![Wire::text(format!("joined {room} {} {}", at.epoch, at.seq).as_bytes())];
        self.command(Command::Join { conn, frames, room: Joined { room_id: room.into(), at } });
    }

    pub(crate) fn leave(&mut self) {
        let open = self.open_conns();
        let Some(conn) = self.pick(&open) else { return };
        let room = self.pick(&PUBLICS).expect("there are rooms");
        self.conns.get_mut(&conn).expect("open").rooms.retain(|joined| *joined != room);
        self.command(Command::Leave { conn, room_id: room.into() });
        let left = Wire::text(format!("left {room}").as_bytes());
        self.command(Command::Reply { conn, frames: vec![left], settled: 0 });
    }

    pub(crate) fn unnumbered(&mut self) {
        let target = match self.below(4) {
            0 => Target::All { per_second: 0 },
            1 => Target::All { per_second: 50 },
            2 => Target::Room(self.room().into()),
            _ => Target::Users(Arc::from([Arc::from("u0"), Arc::from("u1")])),
        };
        self.command(Command::Push { target, wire: Wire::text(b"u") });
    }

    pub(crate) fn close_one(&mut self) {
        let open = self.open_conns();
        let Some(conn) = self.pick(&open) else { return };
        if self.below(2) == 0 {
            self.command(Command::Close { conn, code: CloseCode::Banned, reason: "test" });
        } else {
            self.command(Command::CloseSession { sid: format!("c{}", conn.slot).into() });
        }
    }

    /// Late commands of generations that have passed.
    pub(crate) fn talk_to_the_dead(&mut self) {
        let old = std::mem::take(&mut self.old);
        let conn = self.pick(&old);
        self.old = old;
        let Some(conn) = conn else { return };
        let room = self.pick(&PUBLICS).expect("there are rooms");
        let at = self.lines[room].at;
        let wire = Wire::text(b"ghost");
        let command = match self.below(6) {
            0 => Command::Reply { conn, frames: vec![wire], settled: 3 },
            1 => Command::Close { conn, code: CloseCode::Internal, reason: "ghost" },
            2 => Command::Leave { conn, room_id: room.into() },
            3 => Command::Page {
                conn,
                room_id: room.into(),
                page: Page::Frames { frames: vec![(at.seq, wire)], reached: at.seq },
            },
            4 => {
                *self.memberships.entry(room.to_owned()).or_default() += 1;
                let room = Joined { room_id: room.into(), at };
                Command::Join { conn, frames: vec![wire], room }
            }
            _ => {
                *self.memberships.entry(String::new()).or_default() += 1;
                Command::Open { conn, session: session(0), frames: vec![wire], rooms: Vec::new() }
            }
        };
        self.command(command);
    }

    /// Control gives one of the answers it owes.
    pub(crate) fn answer(&mut self) {
        match self.below(3) {
            0 if !self.verifying.is_empty() => {
                let index = self.below(self.verifying.len());
                let conn = self.verifying.swap_remove(index);
                self.open(conn);
            }
            1 if !self.asked.is_empty() => {
                let index = self.below(self.asked.len());
                let (conn, room_id, reached) = self.asked.swap_remove(index);
                self.page(conn, room_id, reached);
            }
            _ if !self.texts.is_empty() => {
                // In order per connection, as control works them off.
                let conn = self.texts.remove(0);
                self.command(Command::Reply { conn, frames: vec![Wire::text(b"r")], settled: 1 });
            }
            _ => {}
        }
    }

    /// A hello at some earlier place, the frames after it, and some rooms of a resume list.
    pub(crate) fn open(&mut self, conn: ConnId) {
        let mut hello = "hello".to_owned();
        let mut behind = Vec::new();
        let mut rooms = Vec::new();
        for (room, line) in &self.lines {
            let public = PUBLICS.contains(room);
            if public && !(conn.slot as usize + line.frames.len()).is_multiple_of(3) {
                continue;
            }
            let mut from = line.frames.len();
            while from > 0 && line.frames.len() - from < 3 && line.frames[from - 1].0.epoch == line.at.epoch {
                from -= 1;
            }
            let seq = line.frames.get(from).map_or(line.at.seq, |(_, first, _)| first - 1);
            hello.push_str(&format!(" {room}={}:{seq}", line.at.epoch));
            behind.extend(line.frames[from..].iter().map(|(_, _, wire)| wire.clone()));
            if public {
                rooms.push((*room, line.at));
            }
        }
        let mut frames = vec![Wire::text(hello.as_bytes())];
        frames.extend(behind);
        *self.memberships.entry(String::new()).or_default() += 1;
        for (room, _) in &rooms {
            *self.memberships.entry((*room).to_owned()).or_default() += 1;
        }
        if let Some(known) = self.conns.get_mut(&conn) {
            known.open = true;
            known.rooms = rooms.iter().map(|(room, _)| *room).collect();
        }
        let rooms = rooms.into_iter().map(|(room, at)| Joined { room_id: room.into(), at }).collect();
        self.command(Command::Open { conn, session: session(conn.slot), frames, rooms });
    }

    pub(crate) fn page(&mut self, conn: ConnId, room_id: RoomId, reached: Position) {
        let how = self.below(6);
        let line = &self.lines[room_id.as_str()];
        let at = line.at;
        assert!(reached <= at, "{room_id}: asked from {reached:?}, the line stands at {at:?}");
        let page = if reached.epoch != at.epoch {
            Page::Cut { at, wire: cut_wire(room_id.as_str(), at) }
        } else {
            let missed: Vec<(u64, Wire)> = line
                .frames
                .iter()
                .filter(|(last, _, _)| last.seq > reached.seq)
                .map(|(last, _, wire)| (last.seq, wire.clone()))
                .collect();
            match how {
                0 => Page::TryLater,
                1 if room_id.as_str() != "global" => Page::Cut { at, wire: cut_wire(room_id.as_str(), at) },
                2 => {
                    let part = missed[..missed.len().div_ceil(2)].to_vec();
                    let reached = part.last().map_or(reached.seq, |(last, _)| *last);
                    Page::Frames { frames: part, reached }
                }
                _ => Page::Frames { frames: missed, reached: at.seq },
            }
        };
        self.command(Command::Page { conn, room_id, page });
    }
}

pub(crate) fn session(slot: u32) -> Arc<Session> {
    Arc::new(Session::new(&format!("c{slot}"), &format!("u{}", slot % 3), "name"))
}

pub(crate) fn cut_wire(room: &str, at: Position) -> Wire {
    Wire::text(format!("cut {room} {} {}", at.epoch, at.seq).as_bytes())
}
