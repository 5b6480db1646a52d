//! One connection of the load client: from connect to the last frame. Holds what is
//! particular to it and nothing else; the thread lends buffers and takes what was seen.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Protocol, Socket, Type};

use super::blocks::Blocks;
use super::order::Lines;
use super::sources::source;
use crate::wire::{self, Header, Marker, RecentMarkers};

/// How to become a member.
#[derive(Clone, Debug)]
pub struct Knock {
    /// Where.
    pub server: SocketAddr,
    /// Path of the upgrade.
    pub path: String,
    /// Sessions, used in turn; empty: no cookie.
    pub sids: Vec<String>,
    /// Offer `corecast.v1` and resume from an empty list.
    pub v1: bool,
    /// A `hello` follows the 101.
    pub hello: bool,
    /// Room whose numbers are checked, when messages have some.
    pub room: Option<String>,
    /// Rooms that are joined after `hello`; needs `v1`.
    pub joins: Joins,
    /// SO_RCVBUF; `None`: the kernel's own choice.
    pub receive_bytes: Option<usize>,
}

/// Which connection joins which rooms.
#[derive(Clone, Debug, Default)]
pub struct Joins {
    /// Room ids; the messages of the first have key 1, and so on.
    pub rooms: Vec<String>,
    /// Places in `rooms`, by the number of the connection; used in turn. Empty: no joins.
    pub of: Vec<Vec<usize>>,
}

impl Knock {
    /// Without anything special.
    pub fn to(server: SocketAddr) -> Self {
        Self {
            server,
            path: "/".into(),
            sids: Vec::new(),
            v1: false,
            hello: false,
            room: None,
            joins: Joins::default(),
            receive_bytes: None,
        }
    }
}

impl Joins {
    fn of(&self, number: usize) -> &[usize] {
        if self.of.is_empty() { &[] } else { &self.of[number % self.of.len()] }
    }
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// connect(2) is under way.
    Connecting,
    /// The request is written.
    Upgrading,
    /// Waits for `hello`.
    Greeting,
    /// Waits for the answers to so many joins.
    Joining(usize),
    /// Nothing is missing.
    Open,
}

/// One socket.
pub struct Connection {
    stream: TcpStream,
    /// Among all connections of the fleet.
    number: usize,
    phase: Phase,
    /// When it should have begun.
    pub intended_ns: u64,
    /// Its messages.
    pub lines: Lines,
    /// Number in `hello` of the room whose numbers are checked.
    pub greeted_at: u64,
    /// Bytes of `hello`.
    pub hello_bytes: usize,
    /// The beginning of what is not whole yet.
    carry: Vec<u8>,
}

/// What a reading brought.
#[derive(Default)]
pub struct Seen {
    /// Messages that count.
    pub received: u64,
    /// Moments they were intended for, each with how many had it in a row.
    pub intended: Vec<(u64, u64)>,
    /// The connection became open.
    pub opened: bool,
    /// Pings that were answered.
    pub pings: u64,
    /// `lagging` frames.
    pub lagging: u64,
    /// `caughtUp` frames.
    pub caught_up: u64,
    recent: RecentMarkers,
    blocks: Blocks,
}

impl Seen {
    fn message(&mut self, marker: Option<Marker>) {
        self.received += 1;
        let Some(Marker { intended_ns, .. }) = marker else { return };
        match self.intended.last_mut() {
            Some((last, count)) if *last == intended_ns => *count += 1,
            _ => self.intended.push((intended_ns, 1)),
        }
    }
}

impl Connection {
    /// Begins to connect, from an address of its own when the server is on loopback.
    /// `number`: its number in the fleet.
    ///
    /// # Errors
    /// No descriptor or no port left.
    pub fn begin(knock: &Knock, number: usize, intended_ns: u64) -> io::Result<Self> {
        let server = knock.server;
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(bytes) = knock.receive_bytes {
            // Before the connect, which tells the peer how far the window goes.
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // Leaves with a reset: thousands of sockets in TIME_WAIT would eat the ports.
        socket.set_linger(Some(std::time::Duration::ZERO))?;
        if let Some(source) = source(server.ip(), number) {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&server.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(Self {
            stream: socket.into(),
            number,
            phase: Phase::Connecting,
            intended_ns,
            lines: Lines::of(knock.joins.of(number).iter().map(|room| *room as u64 + 1)),
            greeted_at: 0,
            hello_bytes: 0,
            carry: Vec::new(),
        })
    }

    /// Its socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The connect ended: asks for the upgrade.
    ///
    /// # Errors
    /// The server refused the connection.
    pub fn upgrade(&mut self, knock: &Knock) -> io::Result<()> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        let mut request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
            knock.path, knock.server
        );
        if !knock.sids.is_empty() {
            request += &format!("Cookie: sid={}\r\n", knock.sids[self.number % knock.sids.len()]);
        }
        if knock.v1 {
            request += "Sec-WebSocket-Protocol: corecast.v1\r\n";
        }
        request += "\r\n";
        self.phase = Phase::Upgrading;
        write_whole(&self.stream, request.as_bytes())
    }

    /// Writes one client frame.
    ///
    /// # Errors
    /// The socket is full or the server gone.
    pub fn write(&self, frame: &[u8]) -> io::Result<()> {
        write_whole(&self.stream, frame)
    }

    /// Reads into `scratch` until the socket is empty and tells what came.
    ///
    /// # Errors
    /// The server closed, or sent what is not allowed.
    pub fn read(&mut self, knock: &Knock, scratch: &mut [u8], seen: &mut Seen) -> io::Result<()> {
        loop {
            let count = match self.stream.read(scratch) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed")),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.take(knock, &scratch[..count], seen)?;
            // What comes after a reading that was not full is an event of its own. An end that
            // came together with these bytes shows as loss.
            if count < scratch.len() {
                return Ok(());
            }
        }
    }

    fn take(&mut self, knock: &Knock, bytes: &[u8], seen: &mut Seen) -> io::Result<()> {
        if self.carry.is_empty() {
            if self.phase == Phase::Open
                && let Some(block) = seen.blocks.find(bytes)
                && self.lines.take_run(block.first, block.last)
            {
                seen.received += block.last + 1 - block.first;
                seen.intended.extend_from_slice(&block.intended);
                return Ok(());
            }
            let (received, in_turn, first) = (seen.received, self.lines.in_turn(), self.lines.last() + 1);
            let whole_before = self.phase == Phase::Open && seen.intended.is_empty();
            let (taken, frames) = self.parse(knock, bytes, seen)?;
            if taken < bytes.len() {
                self.carry.extend_from_slice(&bytes[taken..]);
            } else if whole_before && frames > 0 {
                let (messages, last) = (seen.received - received, self.lines.last());
                let in_turn = self.lines.in_turn() - in_turn;
                let marked: u64 = seen.intended.iter().map(|(_, count)| count).sum();
                // One message a frame, all marked, all in a row: nothing but the numbers to check.
                if [frames, marked, in_turn, last + 1 - first] == [messages; 4] {
                    seen.blocks.remember(bytes, first, last, &seen.intended);
                }
            }
        } else {
            let mut carry = std::mem::take(&mut self.carry);
            carry.extend_from_slice(bytes);
            let (taken, _) = self.parse(knock, &carry, seen)?;
            if taken < carry.len() {
                carry.drain(..taken);
                self.carry = carry;
            }
        }
        Ok(())
    }

    /// Takes everything that is whole; answers how many bytes and frames that was.
    fn parse(&mut self, knock: &Knock, bytes: &[u8], seen: &mut Seen) -> io::Result<(usize, u64)> {
        let (mut taken, mut frames) = (0, 0);
        if self.phase == Phase::Upgrading {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                return Ok((0, 0));
            };
            if !bytes.starts_with(b"HTTP/1.1 101 ") {
                let answer = String::from_utf8_lossy(&bytes[..end]).into_owned();
                return Err(io::Error::other(format!("not upgraded: {answer}")));
            }
            taken = end + 4;
            self.upgraded(knock, seen)?;
        }
        while let Some(header) = Header::parse(&bytes[taken..]) {
            let start = taken + header.length;
            let Some(payload) = bytes.get(start..start + header.payload) else { break };
            taken = start + header.payload;
            frames += 1;
            self.frame(knock, header, payload, seen)?;
        }
        Ok((taken, frames))
    }

    fn upgraded(&mut self, knock: &Knock, seen: &mut Seen) -> io::Result<()> {
        if knock.v1 {
            let mut frame = Vec::new();
            wire::push_masked(&mut frame, 1, br#"{"type":"resume","payload":{"rooms":[]}}"#);
            self.write(&frame)?;
        }
        self.phase = if knock.hello { Phase::Greeting } else { Phase::Open };
        seen.opened |= !knock.hello;
        Ok(())
    }

    fn frame(&mut self, knock: &Knock, header: Header, payload: &[u8], seen: &mut Seen) -> io::Result<()> {
        match header.opcode {
            1 | 2 if !header.fin => return Err(io::Error::other("a fragmented message")),
            1 | 2 => {}
            8 => {
                let code = payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
                return Err(io::Error::other(format!("the server closed with {code}")));
            }
            9 => {
                seen.pings += 1;
                let mut pong = Vec::new();
                wire::push_masked(&mut pong, 10, payload);
                return self.write(&pong);
            }
            10 => return Ok(()),
            other => return Err(io::Error::other(format!("a frame with opcode {other}"))),
        }
        if let Some(marker) = seen.recent.parse(payload) {
            if knock.room.is_none() {
                self.lines.take(marker.counter);
                seen.message(Some(marker));
            }
            return Ok(());
        }
        match self.phase {
            Phase::Greeting if payload.starts_with(br#"{"type":"hello""#) => {
                self.greeted(knock, payload, seen)
            }
            Phase::Joining(left) if payload.starts_with(br#"{"type":"joined""#) => {
                self.phase = if left > 1 { Phase::Joining(left - 1) } else { Phase::Open };
                seen.opened |= left == 1;
                Ok(())
            }
            Phase::Joining(_) if payload.starts_with(br#"{"type":"error""#) => {
                Err(io::Error::other(format!("not joined: {}", String::from_utf8_lossy(payload))))
            }
            _ => {
                self.of_room(knock, payload, seen);
                Ok(())
            }
        }
    }

    fn greeted(&mut self, knock: &Knock, payload: &[u8], seen: &mut Seen) -> io::Result<()> {
        self.hello_bytes = payload.len();
        if let Some(room) = &knock.room {
            self.greeted_at = wire::last_seq_in_hello(payload, room);
            self.lines.begin(self.greeted_at);
        }
        let rooms = knock.joins.of(self.number);
        if rooms.is_empty() {
            self.phase = Phase::Open;
            seen.opened = true;
            return Ok(());
        }
        self.phase = Phase::Joining(rooms.len());
        let mut joins = Vec::new();
        for room in rooms {
            let join = serde_json::json!({"type": "join", "payload": {"roomId": knock.joins.rooms[*room]}});
            wire::push_masked(&mut joins, 1, join.to_string().as_bytes());
        }
        self.write(&joins)
    }

    /// A frame of the room whose numbers are checked.
    fn of_room(&mut self, knock: &Knock, payload: &[u8], seen: &mut Seen) {
        let Some(room) = &knock.room else { return };
        if payload.starts_with(br#"{"type":"lagging""#) {
            seen.lagging += 1;
        } else if payload.starts_with(br#"{"type":"caughtUp""#) {
            seen.caught_up += 1;
        }
        for (number, marker) in wire::numbered(payload, room) {
            self.lines.take(number);
            seen.message(marker);
        }
    }
}

/// Small requests fit into an empty socket; one that does not is an error of the setup.
fn write_whole(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    match stream.write(bytes) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err(io::Error::other("a client frame did not fit into the socket")),
        Err(error) => Err(error),
    }
}
