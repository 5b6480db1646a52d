//! One connection of the load client: from connect to the last frame. Holds what is
//! particular to it and nothing else; the thread lends buffers and takes what was seen.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Protocol, Socket, Type};

use super::order::Line;
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
    /// Nothing is missing.
    Open,
}

/// One socket.
pub struct Connection {
    stream: TcpStream,
    phase: Phase,
    /// When it should have begun.
    pub intended_ns: u64,
    /// Its messages.
    pub line: Line,
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
    recent: RecentMarkers,
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
    /// Begins to connect, from `source` when the server is on loopback.
    ///
    /// # Errors
    /// No descriptor or no port left.
    pub fn begin(server: SocketAddr, source: Option<std::net::IpAddr>, intended_ns: u64) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // Leaves with a reset: thousands of sockets in TIME_WAIT would eat the ports.
        socket.set_linger(Some(std::time::Duration::ZERO))?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&server.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(Self {
            stream: socket.into(),
            phase: Phase::Connecting,
            intended_ns,
            line: Line::default(),
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
    pub fn upgrade(&mut self, knock: &Knock, number: usize) -> io::Result<()> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        let mut request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
            knock.path, knock.server
        );
        if !knock.sids.is_empty() {
            request += &format!("Cookie: sid={}\r\n", knock.sids[number % knock.sids.len()]);
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
            let taken = self.parse(knock, bytes, seen)?;
            if taken < bytes.len() {
                self.carry.extend_from_slice(&bytes[taken..]);
            }
        } else {
            let mut carry = std::mem::take(&mut self.carry);
            carry.extend_from_slice(bytes);
            let taken = self.parse(knock, &carry, seen)?;
            if taken < carry.len() {
                carry.drain(..taken);
                self.carry = carry;
            }
        }
        Ok(())
    }

    /// Takes everything that is whole; answers how many bytes that was.
    fn parse(&mut self, knock: &Knock, bytes: &[u8], seen: &mut Seen) -> io::Result<usize> {
        let mut taken = 0;
        if self.phase == Phase::Upgrading {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(0) };
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
            self.frame(knock, header, payload, seen)?;
        }
        Ok(taken)
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
                let mut pong = Vec::new();
                wire::push_masked(&mut pong, 10, payload);
                return self.write(&pong);
            }
            10 => return Ok(()),
            other => return Err(io::Error::other(format!("a frame with opcode {other}"))),
        }
        if let Some(marker) = seen.recent.parse(payload) {
            if knock.room.is_none() {
                self.line.take(marker.counter);
                seen.message(Some(marker));
            }
        } else if self.phase == Phase::Greeting && payload.starts_with(br#"{"type":"hello""#) {
            self.phase = Phase::Open;
            self.hello_bytes = payload.len();
            if let Some(room) = &knock.room {
                self.greeted_at = wire::last_seq_in_hello(payload, room);
                self.line.begin(self.greeted_at);
            }
            seen.opened = true;
        } else if let Some(room) = &knock.room {
            for (number, marker) in wire::numbered(payload, room) {
                self.line.take(number);
                seen.message(marker);
            }
        }
        Ok(())
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
