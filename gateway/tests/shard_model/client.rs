//! A client: takes whole frames off its stream and believes nothing.

use std::collections::BTreeMap;

use corecast_proto::ids::Position;

/// A client and what it believes.
pub(crate) struct Client {
    pub(crate) peer: usize,
    pub(crate) v1: bool,
    pub(crate) stream: Vec<u8>,
    pub(crate) upgraded: bool,
    pub(crate) rooms: BTreeMap<String, Position>,
    pub(crate) lagging: BTreeMap<String, u64>,
    /// The stream ended, with this code if a close frame came.
    pub(crate) closed: Option<u16>,
    pub(crate) gone: bool,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
}

impl Client {
    /// It has just connected.
    pub(crate) fn new(peer: usize, v1: bool) -> Self {
        Self {
            peer,
            v1,
            stream: Vec::new(),
            upgraded: false,
            rooms: BTreeMap::new(),
            lagging: BTreeMap::new(),
            closed: None,
            gone: false,
            sent: 0,
            answered: 0,
        }
    }

    /// Takes whole frames off the stream and checks each.
    pub(crate) fn parse(&mut self) {
        if !self.upgraded {
            let Some(end) = self.stream.windows(4).position(|four| four == b"\r\n\r\n") else { return };
            assert!(self.stream.starts_with(b"HTTP/1.1 101 "), "{:?}", String::from_utf8_lossy(&self.stream));
            self.stream.drain(..end + 4);
            self.upgraded = true;
        }
        while let Some((opcode, payload, length)) = frame(&self.stream) {
            assert!(self.closed.is_none(), "client {}: a frame after the close", self.peer);
            match opcode {
                0x1 => self.handle_text(std::str::from_utf8(&payload).expect("text")),
                0x8 => self.closed = Some(u16::from_be_bytes([payload[0], payload[1]])),
                0x9 => {}
                other => panic!("opcode {other}"),
            }
            self.stream.drain(..length);
        }
    }

    pub(crate) fn handle_text(&mut self, text: &str) {
        let peer = self.peer;
        let words: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("number");
        match words[0] {
            "hello" => {
                assert!(self.rooms.is_empty(), "client {peer}: one hello");
                for room in &words[1..] {
                    let (name, at) = room.split_once('=').expect("room=epoch:seq");
                    let (epoch, seq) = at.split_once(':').expect("epoch:seq");
                    let number = |text: &str| text.parse::<u64>().expect("number");
                    let at = Position { epoch: number(epoch), seq: number(seq) };
                    self.rooms.insert(name.to_owned(), at);
                }
            }
            "m" => {
                let (room, epoch, first, last) = (words[1], number(2), number(3), number(4));
                let v1 = self.v1;
                let at = self.rooms.get_mut(room).unwrap_or_else(|| panic!("client {peer} is not in {room}"));
                let expected = Position { epoch, seq: first - 1 };
                assert_eq!(*at, expected, "client {peer} (v1 {v1}) in {room} got {first}..={last}");
                at.seq = last;
            }
            "joined" => {
                let at = Position { epoch: number(2), seq: number(3) };
                let before = self.rooms.insert(words[1].to_owned(), at);
                // A second join of a member: the reply must not jump over what it lacks.
                if let Some(before) = before
                    && !self.lagging.contains_key(words[1])
                    && self.v1
                {
                    assert_eq!(before, at, "client {peer} in {}", words[1]);
                } else if let Some(before) = before {
                    self.rooms.insert(words[1].to_owned(), before);
                }
            }
            "left" => {
                self.rooms.remove(words[1]);
                self.lagging.remove(words[1]);
            }
            "cut" => {
                assert!(self.v1, "client {peer} does not know cut");
                let at = Position { epoch: number(2), seq: number(3) };
                let before = self.rooms.insert(words[1].to_owned(), at);
                assert!(before.is_some_and(|before| before <= at), "client {peer}: {before:?} cut to {at:?}");
            }
            "u" => {}
            "r" => self.answered += 1,
            "ghost" => panic!("client {peer} got a frame for another connection"),
            json => self.handle_notice(json),
        }
    }

    pub(crate) fn handle_notice(&mut self, json: &str) {
        let notice: serde_json::Value = serde_json::from_str(json).expect("a notice of the shard");
        let room = notice["payload"]["roomId"].as_str().expect("room").to_owned();
        let seq = notice["payload"]["seq"].as_u64().expect("seq");
        assert!(self.v1 && room != "global", "client {} does not know {json}", self.peer);
        assert_eq!(self.rooms.get(&room).map(|at| at.seq), Some(seq), "client {} told {json}", self.peer);
        match notice["type"].as_str() {
            Some("lagging") => assert!(self.lagging.insert(room, seq).is_none(), "told twice: {json}"),
            Some("caughtUp") => assert!(self.lagging.remove(&room).is_some(), "it did not lag: {json}"),
            _ => panic!("{json}"),
        }
    }
}

pub(crate) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Opcode, payload and whole length of the first frame, if it is complete.
pub(crate) fn frame(stream: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (head, length) = match *stream.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(stream.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(stream.get(2..10)?.try_into().ok()?) as usize),
        short => (2, usize::from(short)),
    };
    assert_eq!(stream[0] & 0xF0, 0x80, "whole frames");
    let payload = stream.get(head..head + length)?;
    Some((stream[0] & 0x0F, payload.to_vec(), head + length))
}
