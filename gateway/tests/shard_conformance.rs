//! Setup: a real shard with `/debug/echo`, and raw sockets that write every byte themselves,
//! so that broken frames can be sent too. The cases follow the sections of the Autobahn suite.
//! Claim: RFC 6455 is kept to the letter, however the stream is cut.
//! Why it matters: what one browser tolerates, another one, or a proxy, does not.

mod shard_support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use corecast_gateway::config::Limits;
use shard_support::{PATIENCE, on_the_default_host};

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CONTINUE: u8 = 0x0;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const FIN: u8 = 0x80;
const MIB: usize = 1 << 20;

/// A frame as the client saw it.
#[derive(Debug, PartialEq)]
struct Seen(u8, Vec<u8>);

/// A masked frame; `first` is opcode, FIN and reserved bits.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn message(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(FIN | opcode, payload)
}

/// A message in frames of at most `size` bytes.
fn fragments(opcode: u8, payload: &[u8], size: usize) -> Vec<u8> {
    let count = payload.len().div_ceil(size).max(1);
    let mut out = Vec::with_capacity(payload.len() + count * 8);
    for (at, part) in payload.chunks(size).enumerate() {
        let fin = if at + 1 == count { FIN } else { 0 };
        out.extend(frame(fin | if at == 0 { opcode } else { CONTINUE }, part));
    }
    out
}

fn close(code: u16) -> Vec<u8> {
    message(CLOSE, &code.to_be_bytes())
}

fn closed(code: u16) -> Seen {
    Seen(CLOSE, code.to_be_bytes().to_vec())
}

fn upgrade(host: &str) -> String {
    format!(
        "GET /debug/echo HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
}

struct Peer(TcpStream);

impl Peer {
    /// Connects and upgrades.
    fn open(addr: SocketAddr) -> Self {
        let mut peer = Self::connect(addr);
        peer.send(format!("{}\r\n", upgrade("h")).as_bytes());
        peer.expect_101();
        peer
    }

    fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("connected");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self(stream)
    }

    /// Bytes that a shard which has closed already need not take.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("a response head");
            head.push(byte[0]);
        }
        String::from_utf8(head).expect("ASCII")
    }

    fn expect_101(&mut self) {
        let head = self.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    }

    fn next(&mut self) -> Option<Seen> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).ok()?;
        assert_eq!(head[0] & 0xF0, FIN, "whole frames without reserved bits");
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length).expect("a length");
                usize::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                self.0.read_exact(&mut length).expect("a length");
                u64::from_be_bytes(length) as usize
            }
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).expect("a payload");
        Some(Seen(head[0] & 0x0F, payload))
    }

    /// Everything up to the end of the stream. A reason of a close frame is left out.
    fn rest(&mut self) -> Vec<Seen> {
        let mut all = Vec::new();
        while let Some(mut seen) = self.next() {
            if seen.0 == CLOSE {
                seen.1.truncate(2);
            }
            all.push(seen);
        }
        all
    }
}

/// Sends everything in pieces of `piece` bytes and reads to the end.
fn talk_in_pieces(addr: SocketAddr, bytes: &[u8], piece: usize) -> Vec<Seen> {
    let mut peer = Peer::open(addr);
    bytes.chunks(piece).for_each(|part| peer.send(part));
    peer.rest()
}

/// What comes back for `bytes`, sent at once and, if it is short, byte by byte.
fn talk(addr: SocketAddr, bytes: &[u8]) -> Vec<Seen> {
    let whole = talk_in_pieces(addr, bytes, usize::MAX);
    if bytes.len() <= 300 {
        assert_eq!(talk_in_pieces(addr, bytes, 1), whole, "byte by byte: {bytes:x?}");
    }
    whole
}

fn all(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

/// Alternates between ASCII and longer characters.
fn some_text(bytes: usize) -> Vec<u8> {
    let mut text: String = "Hello-µ@ßöäüàá-UTF-8!! 😀 ".chars().cycle().take(bytes).collect();
    while text.len() > bytes {
        text.pop();
    }
    text.push_str(&"x".repeat(bytes - text.len()));
    text.into_bytes()
}

async fn on_echo(test: impl Fn(SocketAddr)) {
    on_the_default_host(Limits::default(), async |gateway| {
        tokio::task::block_in_place(|| test(gateway.addr));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_every_length_form_come_back() {
    on_echo(|addr| {
        for length in [0, 125, 126, 127, 128, 65_535, 65_536, 65_537] {
            let text = some_text(length);
            let binary: Vec<u8> = (0..length).map(|at| (at * 7) as u8).collect();
            let bytes = all(&[message(TEXT, &text), message(BINARY, &binary), close(1000)]);
            for piece in [usize::MAX, 997] {
                let expected = [Seen(TEXT, text.clone()), Seen(BINARY, binary.clone()), closed(1000)];
                assert!(talk_in_pieces(addr, &bytes, piece) == expected, "{length} in {piece}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_answered_with_their_payload_and_pongs_are_not_answered() {
    on_echo(|addr| {
        let odd: Vec<u8> = vec![0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff];
        for payload in [b"".to_vec(), b"Hello, world!".to_vec(), odd, vec![0xfe; 125]] {
            let bytes = all(&[message(PING, &payload), close(1000)]);
            assert_eq!(talk(addr, &bytes), [Seen(PONG, payload), closed(1000)]);
        }
        assert_eq!(talk(addr, &message(PING, &[0xfe; 126])), [closed(1002)]);
        let bytes = all(&[message(PONG, b""), message(PONG, b"unasked"), message(PING, b"p"), close(1000)]);
        assert_eq!(talk(addr, &bytes), [Seen(PONG, b"p".to_vec()), closed(1000)]);
        let burst: Vec<Vec<u8>> = (0..10u8).map(|at| message(PING, &[at])).chain([close(1000)]).collect();
        let answers = (0..10u8).map(|at| Seen(PONG, vec![at])).chain([closed(1000)]).collect::<Vec<_>>();
        assert_eq!(talk(addr, &all(&burst)), answers);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reserved_bits_and_opcodes_unmasked_frames_and_wrong_lengths_are_1002() {
    on_echo(|addr| {
        let mut broken: Vec<Vec<u8>> = Vec::new();
        for reserved in 1..8u8 {
            broken.push(frame(FIN | reserved << 4 | TEXT, b"Hello"));
            broken.push(frame(FIN | reserved << 4 | PING, b""));
        }
        for opcode in (3..8).chain(11..16) {
            broken.push(message(opcode, b""));
            broken.push(message(opcode, b"Hello"));
        }
        broken.push(vec![0x81, 5, b'H', b'e', b'l', b'l', b'o']);
        // The highest bit of a length, and lengths in a longer form than they need.
        broken.push([&[0x82, 0xFF, 0x80][..], &[0; 11]].concat());
        broken.push([&[0x82, 0xFE, 0, 5][..], &[0; 9]].concat());
        broken.push([&[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0, 5][..], &[0; 9]].concat());
        for bytes in broken {
            let good = message(TEXT, b"before");
            let seen = talk(addr, &all(&[good, bytes.clone(), message(TEXT, b"behind")]));
            assert_eq!(seen, [Seen(TEXT, b"before".to_vec()), closed(1002)], "{bytes:x?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_make_one_message_with_control_frames_between_them() {
    on_echo(|addr| {
        let hello = || Seen(TEXT, b"Hello, fragments".to_vec());
        let (one, two) = (frame(TEXT, b"Hello, "), frame(FIN | CONTINUE, b"fragments"));
        let ping = message(PING, b"p");
        let pong = || Seen(PONG, b"p".to_vec());
        let end = close(1000);
        let good: Vec<(Vec<Vec<u8>>, Vec<Seen>)> = vec![
            (vec![one.clone(), two.clone()], vec![hello()]),
            (vec![one.clone(), ping.clone(), two.clone()], vec![pong(), hello()]),
            (vec![frame(TEXT, b""), frame(CONTINUE, b""), frame(FIN, b"")], vec![Seen(TEXT, vec![])]),
            (
                vec![one.clone(), ping.clone(), frame(CONTINUE, b""), ping.clone(), two.clone()],
                vec![pong(), pong(), hello()],
            ),
            (
                vec![one.clone(), two.clone(), frame(BINARY, &[0xff]), frame(FIN, &[0xfe])],
                vec![hello(), Seen(BINARY, vec![0xff, 0xfe])],
            ),
        ];
        for (frames, mut expected) in good {
            expected.push(closed(1000));
            assert_eq!(talk(addr, &all(&[frames.concat(), end.clone()])), expected);
        }
        let bad = [
            vec![frame(PING, b"fragmented")],
            vec![frame(PONG, b"fragmented")],
            vec![frame(CLOSE, b"")],
            vec![frame(FIN | CONTINUE, b"of nothing")],
            vec![frame(CONTINUE, b"of nothing"), frame(FIN | CONTINUE, b"")],
            vec![one.clone(), message(TEXT, b"another")],
            vec![one.clone(), frame(BINARY, b"another")],
        ];
        for frames in bad {
            assert_eq!(talk(addr, &all(&frames)), [closed(1002)], "{frames:x?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_is_utf8_and_fails_at_its_first_wrong_byte() {
    on_echo(|addr| {
        let greek = "κόσμε".as_bytes();
        let edges = "\u{0}\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}".as_bytes();
        for text in [greek, edges] {
            for size in 1..=text.len() {
                let bytes = all(&[fragments(TEXT, text, size), close(1000)]);
                assert_eq!(talk(addr, &bytes), [Seen(TEXT, text.to_vec()), closed(1000)], "{size}");
            }
        }
        let wrong: [&[u8]; 14] = [
            &[0x80],
            &[0xbf, 0x80],
            &[0xc0, 0xaf],
            &[0xc1, 0xbf],
            &[0xe0, 0x80, 0xaf],
            &[0xe0, 0x9f, 0xbf],
            &[0xed, 0xa0, 0x80],
            &[0xed, 0xbf, 0xbf],
            &[0xf0, 0x80, 0x80, 0xaf],
            &[0xf0, 0x8f, 0xbf, 0xbf],
            &[0xf4, 0x90, 0x80, 0x80],
            &[0xf5, 0x80, 0x80, 0x80],
            &[0xfe],
            &[0xff],
        ];
        for wrong in wrong {
            let text = [greek, wrong, b"edited"].concat();
            for size in [1, 4, text.len()] {
                assert_eq!(talk(addr, &fragments(TEXT, &text, size)), [closed(1007)], "{wrong:x?} {size}");
            }
            // Fail fast: the frame promises much more, and nothing more comes.
            let mut begun = frame(FIN | TEXT, &[&text[..], &[b'x'; 4_000]].concat());
            begun.truncate(8 + text.len());
            assert_eq!(talk(addr, &begun), [closed(1007)], "{wrong:x?} in a frame that never ends");
            // And a fragment that ends, but no message.
            assert_eq!(talk(addr, &frame(TEXT, &text)), [closed(1007)], "{wrong:x?}");
        }
        // A character that the message cuts off.
        for cut in [1, 3] {
            let text = &"µ😀".as_bytes()[..cut];
            assert_eq!(talk(addr, &message(TEXT, text)), [closed(1007)]);
            let bytes = all(&[frame(TEXT, text), message(CONTINUE, b"")]);
            assert_eq!(talk(addr, &bytes), [closed(1007)]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_close_is_answered_by_its_rule_and_ends_the_connection() {
    on_echo(|addr| {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
            let bytes = all(&[close(code), message(TEXT, b"behind"), message(PING, b"behind")]);
            assert_eq!(talk(addr, &bytes), [closed(code)], "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
            assert_eq!(talk(addr, &close(code)), [closed(1002)], "{code}");
        }
        let with_reason = |reason: &[u8]| message(CLOSE, &[&1000u16.to_be_bytes(), reason].concat());
        assert_eq!(talk(addr, &message(CLOSE, b"")), [Seen(CLOSE, vec![])]);
        assert_eq!(talk(addr, &message(CLOSE, &[3])), [closed(1002)]);
        assert_eq!(talk(addr, &with_reason("ö".repeat(61).as_bytes())), [closed(1000)]);
        assert_eq!(talk(addr, &with_reason(&[b'x'; 123])), [closed(1000)]);
        assert_eq!(talk(addr, &with_reason(&[b'x'; 124])), [closed(1002)]);
        assert_eq!(talk(addr, &with_reason(&[0xce, 0xba, 0xe1, 0xbd])), [closed(1007)]);
        // In the middle of a message: 1000, whatever it says.
        let bytes = all(&[frame(TEXT, b"never"), close(4000), frame(FIN, b"ends")]);
        assert_eq!(talk(addr, &bytes), [closed(1000)]);
        let bytes = all(&[message(TEXT, b"whole"), close(1000)]);
        assert_eq!(talk(addr, &bytes), [Seen(TEXT, b"whole".to_vec()), closed(1000)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_come_back_in_any_fragmentation_and_one_byte_more_is_1009() {
    on_echo(|addr| {
        let four: Vec<u8> = (0..4 * MIB).map(|at| (at ^ (at >> 9)) as u8).collect();
        for size in [64, 1_000, 65_536, 4 * MIB] {
            let bytes = all(&[fragments(BINARY, &four, size), close(1000)]);
            assert!(talk(addr, &bytes) == [Seen(BINARY, four.clone()), closed(1000)], "{size}");
        }
        let sixteen = some_text(16 * MIB);
        for size in [65_521, 3 * MIB, 16 * MIB] {
            let bytes = all(&[fragments(TEXT, &sixteen, size), close(1000)]);
            assert!(talk(addr, &bytes) == [Seen(TEXT, sixteen.clone()), closed(1000)], "{size}");
        }
        // One byte more, told by the header alone, or by the last fragment's.
        let mut header = frame(FIN | BINARY, b"");
        header.truncate(1);
        header.push(0x80 | 127);
        header.extend_from_slice(&(16 * MIB as u64 + 1).to_be_bytes());
        header.extend_from_slice(&[0; 4]);
        assert_eq!(talk(addr, &header), [closed(1009)]);
        let bytes =
            all(&[frame(BINARY, &four), frame(CONTINUE, &vec![0; 12 * MIB]), message(CONTINUE, b"x")]);
        assert_eq!(talk(addr, &bytes), [closed(1009)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_may_come_in_bytes_with_frames_behind_it_and_a_long_head() {
    on_echo(|addr| {
        // Peers that never get further do not hold anybody up.
        let _silent = Peer::connect(addr);
        let mut half = Peer::connect(addr);
        half.send(upgrade("h").as_bytes());

        let request = format!("{}\r\n", upgrade("h"));
        let mut peer = Peer::connect(addr);
        request.as_bytes().iter().for_each(|byte| peer.send(&[*byte]));
        peer.expect_101();
        peer.send(&all(&[message(TEXT, b"after"), close(1000)]));
        assert_eq!(peer.rest(), [Seen(TEXT, b"after".to_vec()), closed(1000)]);

        // Frames in the same segment, and one cut in two by the end of it.
        let frames = all(&[message(TEXT, b"behind"), message(PING, b"p"), close(1000)]);
        for cut in 0..=frames.len() {
            let mut peer = Peer::connect(addr);
            peer.send(&[request.as_bytes(), &frames[..cut]].concat());
            peer.expect_101();
            peer.send(&frames[cut..]);
            let expected = [Seen(TEXT, b"behind".to_vec()), Seen(PONG, b"p".to_vec()), closed(1000)];
            assert_eq!(peer.rest(), expected, "{cut}");
        }

        for (head_bytes, status) in [(64 << 10, "101"), ((64 << 10) + 1, "431")] {
            let mut head = upgrade("h");
            let value = head_bytes - head.len() - "X-Long: \r\n\r\n".len();
            head.push_str(&format!("X-Long: {}\r\n\r\n", "x".repeat(value)));
            assert_eq!(head.len(), head_bytes);
            let mut peer = Peer::connect(addr);
            head.as_bytes().chunks(1_400).for_each(|part| peer.send(part));
            let answer = peer.read_head();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head_bytes}: {answer}");
        }

        // The half-open one goes on where it stopped.
        half.send(b"\r\n");
        half.expect_101();
        half.send(&close(1000));
        assert_eq!(half.rest(), [closed(1000)]);
    })
    .await;
}
