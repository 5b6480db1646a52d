//! One connection of the floor: the greeting, then echoes.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use tungstenite::handshake::derive_accept_key;

use crate::sys;
use crate::wire::{self, Header};

/// How a new peer gets from its connect to the hello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Greeting {
    /// It is accepted when it connects; the 101 and the hello are a send each.
    #[default]
    TwoSends,
    /// It is accepted when its request is there (`TCP_DEFER_ACCEPT`, tcp(7)) and read at
    /// once; the 101 and the hello are one send.
    OneSend,
    /// Accepted the same way; the hello follows the first frame of the client, which is its
    /// `resume`, and so cannot be in one send with the 101.
    AfterResume,
}

/// One socket.
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    phase: Phase,
    /// The beginning of what is not whole yet.
    pub(super) carry: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its request is not whole.
    Head,
    /// It has its 101 and has not said where it resumes.
    Resume,
    /// It has its hello.
    Open,
}

impl Greeting {
    /// Is a peer accepted only when its request is there?
    pub(super) fn defers(self) -> bool {
        self != Self::TwoSends
    }
}

impl Peer {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, phase: Phase::Head, carry: Vec::new() }
    }

    /// It has its hello.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Greets it, or echoes what is whole; answers how many bytes that was.
    ///
    /// # Errors
    /// Its socket is full, or it asks for no upgrade.
    pub(super) fn take(&mut self, bytes: &mut [u8], greeting: Greeting, hello: &[u8]) -> Result<usize> {
        let mut taken = 0;
        if self.phase == Phase::Head {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(0) };
            self.answer(&bytes[..end], greeting, hello)?;
            taken = end + 4;
        }
        while let Some(header) = Header::parse(&bytes[taken..]) {
            let start = taken + header.length;
            let Some(payload) = bytes.get_mut(start..start + header.payload) else { break };
            taken = start + header.payload;
            if header.opcode > 2 {
                continue;
            }
            let mask = header.mask.unwrap_or_default();
            payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
            if self.phase == Phase::Resume {
                self.phase = Phase::Open;
                send_whole(&self.stream, hello)?;
                continue;
            }
            let mut frame = Vec::with_capacity(payload.len() + 10);
            wire::push_frame(&mut frame, header.opcode, payload);
            send_whole(&self.stream, &frame)?;
        }
        Ok(taken)
    }

    fn answer(&mut self, head: &[u8], greeting: Greeting, hello: &[u8]) -> Result<()> {
        let mut answer = answer_101(head, greeting)?.into_bytes();
        self.phase = Phase::Open;
        match greeting {
            Greeting::OneSend => {
                answer.extend_from_slice(hello);
                send_whole(&self.stream, &answer)
            }
            Greeting::TwoSends if !hello.is_empty() => {
                send_whole(&self.stream, &answer)?;
                send_whole(&self.stream, hello)
            }
            Greeting::TwoSends => send_whole(&self.stream, &answer),
            Greeting::AfterResume => {
                self.phase = Phase::Resume;
                send_whole(&self.stream, &answer)
            }
        }
    }
}

/// A hello without rooms, filled up to a length.
pub(crate) fn hello_payload(bytes: usize) -> String {
    let (head, tail) = (r#"{"type":"hello","payload":{"rooms":[],"filling":""#, r#""}}"#);
    let filling = "x".repeat(bytes.saturating_sub(head.len() + tail.len()));
    format!("{head}{filling}{tail}")
}

/// The 101 to a request head.
fn answer_101(head: &[u8], greeting: Greeting) -> Result<String> {
    let head = std::str::from_utf8(head)?;
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let accept = derive_accept_key(key.context("a request without a key")?.as_bytes());
    // A browser that offered a sub-protocol hangs up on a 101 without one.
    let protocol =
        if greeting == Greeting::AfterResume { "Sec-WebSocket-Protocol: corecast.v1\r\n" } else { "" };
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{protocol}\r\n"
    ))
}

pub(super) fn send_whole(stream: &TcpStream, bytes: &[u8]) -> Result<()> {
    match sys::send(stream.as_fd(), bytes) {
        Ok(count) if count == bytes.len() => Ok(()),
        // A peer that left will be read as such.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Ok(()),
        _ => bail!("a socket is full"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use socket2::{Domain, Socket, Type};

    use super::*;

    const REQUEST: &[u8] =
        b"GET / HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    /// A peer, the other end of its socket, and a hello. The socket keeps sends apart.
    fn peer() -> (Peer, Socket, Vec<u8>) {
        let (server, client) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let mut hello = Vec::new();
        wire::push_frame(&mut hello, 1, hello_payload(300).as_bytes());
        (Peer::new(OwnedFd::from(server).into()), client, hello)
    }

    /// What the client has got once the peer has closed: each send.
    fn sends(peer: Peer, mut client: Socket) -> Vec<Vec<u8>> {
        drop(peer);
        let mut send = [0; 4_096];
        let mut sends = Vec::new();
        loop {
            match client.read(&mut send).unwrap() {
                0 => return sends,
                count => sends.push(send[..count].to_vec()),
            }
        }
    }

    #[test]
    fn a_hello_has_the_asked_length() {
        assert_eq!(hello_payload(300).len(), 300);
        assert!(hello_payload(300).starts_with(r#"{"type":"hello""#));
    }

    #[test]
    fn the_same_bytes_follow_a_request_in_one_send_or_in_two() {
        let [one, two] = [Greeting::OneSend, Greeting::TwoSends].map(|greeting| {
            let (mut peer, client, hello) = peer();
            assert_eq!(peer.take(&mut REQUEST[..40].to_vec(), greeting, &hello).unwrap(), 0);
            assert!(!peer.is_open());
            assert_eq!(peer.take(&mut REQUEST.to_vec(), greeting, &hello).unwrap(), REQUEST.len());
            assert!(peer.is_open());
            let sends = sends(peer, client);
            assert!(sends[0].starts_with(b"HTTP/1.1 101 ") && sends.concat().ends_with(&hello));
            sends
        });
        assert_eq!((one.len(), two.len()), (1, 2));
        assert_eq!(one.concat(), two.concat());
    }

    #[test]
    fn the_hello_of_a_client_that_resumes_follows_its_first_frame_and_the_next_is_echoed() {
        let (mut peer, client, hello) = peer();
        peer.take(&mut REQUEST.to_vec(), Greeting::AfterResume, &hello).unwrap();
        assert!(!peer.is_open());
        let mut frames = Vec::new();
        wire::push_masked(&mut frames, 9, b"");
        wire::push_masked(&mut frames, 1, br#"{"type":"resume","payload":{"rooms":[]}}"#);
        let resume = frames.len();
        wire::push_masked(&mut frames, 1, b"echo");
        // A ping is no resume, and neither is one without its last byte.
        let taken = peer.take(&mut frames[..resume - 1].to_vec(), Greeting::AfterResume, &hello).unwrap();
        assert!(!peer.is_open());
        let mut rest = frames[taken..].to_vec();
        assert_eq!(peer.take(&mut rest, Greeting::AfterResume, &hello).unwrap(), rest.len());
        assert!(peer.is_open());
        let mut echo = Vec::new();
        wire::push_frame(&mut echo, 1, b"echo");
        let sends = sends(peer, client);
        assert_eq!(sends[1..], [hello, echo]);
        let head = String::from_utf8_lossy(&sends[0]);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.ends_with("\r\nSec-WebSocket-Protocol: corecast.v1\r\n\r\n"), "{head}");
    }

    #[test]
    fn a_request_without_a_key_is_an_error() {
        let (mut peer, _client, hello) = peer();
        assert!(peer.take(&mut b"GET / HTTP/1.1\r\n\r\n".to_vec(), Greeting::OneSend, &hello).is_err());
    }
}
