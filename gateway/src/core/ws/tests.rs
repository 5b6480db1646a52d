//! Setup: streams of client frames, written by an encoder of their own. Claims: the cases of
//! RFC 6455 that the Autobahn suite names (5.* fragmentation, 6.* UTF-8, 7.* close, limits),
//! and that the cut of the stream into reads never changes what is delivered. Why it
//! matters: reads cut frames anywhere, and this is the first code a stranger's bytes reach.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const MAX: usize = 1 << 20;

/// What came out, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, bool),
    Violated(u16),
}

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CONTINUE: u8 = 0x0;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const FIN: u8 = 0x80;

/// A masked frame; `first` is the whole first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
    out
}

fn close_body(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason].concat()
}

/// Feeds `reads` one after the other.
fn read_with<'a>(reads: impl IntoIterator<Item = &'a [u8]>, max: usize) -> (Vec<Got>, Reader) {
    let mut reader = Reader::default();
    let mut got = Vec::new();
    for read in reads {
        let mut scratch = read.to_vec();
        let outcome = reader.feed(&mut scratch, max, &mut |incoming| {
            got.push(match incoming {
                Incoming::Text(text) => Got::Text(text.to_vec()),
                Incoming::Binary(bytes) => Got::Binary(bytes.to_vec()),
                Incoming::Ping(payload) => Got::Ping(payload.to_vec()),
                Incoming::Pong(payload) => Got::Pong(payload.to_vec()),
                Incoming::Close { code, mid_message } => Got::Close(code, mid_message),
            });
        });
        if let Err(violation) = outcome {
            got.push(Got::Violated(violation.code.number()));
        }
    }
    (got, reader)
}

fn read_all(stream: &[u8]) -> Vec<Got> {
    read_with([stream], MAX).0
}

fn text(payload: &str) -> Got {
    Got::Text(payload.as_bytes().to_vec())
}

fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    let greeting = "Hello-µ@ßöäüàá-UTF-8!!";
    vec![
        ("one text", frame(FIN | TEXT, b"hello")),
        ("empty text and binary", [frame(FIN | TEXT, b""), frame(FIN | BINARY, b"")].concat()),
        ("length of two bytes", frame(FIN | BINARY, &[7; 126])),
        ("length of eight bytes", frame(FIN | BINARY, &[9; 65_536])),
        (
            "fragments with a ping between",
            [
                frame(TEXT, &greeting.as_bytes()[..7]),
                frame(FIN | PING, b"p"),
                frame(CONTINUE, &greeting.as_bytes()[7..8]),
                frame(FIN | CONTINUE, &greeting.as_bytes()[8..]),
                frame(FIN | TEXT, b"after"),
            ]
            .concat(),
        ),
        ("empty fragments", [frame(TEXT, b""), frame(CONTINUE, b""), frame(FIN | CONTINUE, b"")].concat()),
        ("bad text in one frame", frame(FIN | TEXT, b"ok \xce\xba\xe1\xbd\xb9\xed\xa0\x80 edited")),
        (
            "bad text in the second fragment",
            [frame(TEXT, "κόσ".as_bytes()), frame(FIN | CONTINUE, b"\xf4\x90\x80\x80 x")].concat(),
        ),
        ("text that ends inside a character", frame(FIN | TEXT, b"\xce\xba\xe1\xbd")),
        (
            "close in the middle of a message",
            [frame(TEXT, b"a"), frame(FIN | CLOSE, &close_body(1000, b"bye")), frame(FIN | TEXT, b"x")]
                .concat(),
        ),
        ("close without a body", frame(FIN | CLOSE, b"")),
        ("close with a reserved code", frame(FIN | CLOSE, &close_body(1005, b""))),
        ("close with a bad reason", frame(FIN | CLOSE, &close_body(1000, b"\xff"))),
        ("reserved bit", [frame(FIN | TEXT, b"a"), frame(FIN | 0x40 | TEXT, b"b")].concat()),
        ("reserved opcode", [frame(FIN | TEXT, b"a"), frame(FIN | 0x3, b"b")].concat()),
        ("continuation of nothing", frame(FIN | CONTINUE, b"x")),
        ("message inside a message", [frame(TEXT, b"a"), frame(FIN | TEXT, b"b")].concat()),
        ("long ping", frame(FIN | PING, &[1; 125])),
        ("ping over 125", frame(FIN | PING, &[1; 126])),
        ("fragmented ping", frame(PING, b"x")),
        ("not masked", vec![FIN | TEXT, 1, b'x']),
    ]
}

#[test]
fn any_split_of_the_stream_gives_the_same_events() {
    for (name, stream) in corpus() {
        let whole = read_all(&stream);
        for cut in 0..=stream.len().min(400) {
            let (left, right) = stream.split_at(cut);
            assert_eq!(read_with([left, right], MAX).0, whole, "{name}: cut at {cut}");
        }
        if stream.len() <= 400 {
            assert_eq!(read_with(stream.chunks(1), MAX).0, whole, "{name}: byte by byte");
        }
    }
}

#[test]
fn random_streams_cut_at_random_give_the_same_events() {
    let corpus = corpus();
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut stream = Vec::new();
        for _ in 0..random.random_range(1..6) {
            stream.extend_from_slice(&corpus[random.random_range(0..corpus.len())].1);
        }
        let whole = read_all(&stream);
        let mut rest = stream.as_slice();
        let mut reads = Vec::new();
        while !rest.is_empty() {
            let bound = if random.random_bool(0.5) { 16 } else { 40_000 };
            let (read, after) = rest.split_at(random.random_range(1..=bound).min(rest.len()));
            reads.push(read);
            rest = after;
        }
        assert_eq!(read_with(reads, MAX).0, whole, "seed {seed}");
    }
}

#[test]
fn random_bytes_never_panic_and_nothing_follows_a_violation() {
    for seed in 0..2_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut stream = Vec::new();
        while stream.len() < 600 {
            if random.random_bool(0.7) {
                let first = random.random::<u8>() & if random.random_bool(0.8) { 0x8F } else { 0xFF };
                let payload: Vec<u8> =
                    (0..random.random_range(0..140)).map(|_| random.random_range(0x20..0xC0)).collect();
                stream.extend(frame(first, &payload));
            } else {
                stream.extend((0..random.random_range(1..30)).map(|_| random.random::<u8>()));
            }
        }
        let whole = read_with([stream.as_slice()], 1_000).0;
        let ends = whole.iter().position(|got| matches!(got, Got::Violated(_) | Got::Close(..)));
        assert!(ends.is_none_or(|end| end + 1 == whole.len()), "seed {seed}: {whole:?}");
        let cut = random.random_range(0..stream.len());
        let (left, right) = stream.split_at(cut);
        assert_eq!(read_with([left, right], 1_000).0, whole, "seed {seed}: cut at {cut}");
    }
}

#[test]
fn a_whole_message_leaves_nothing_behind() {
    for (name, stream) in [
        ("text", frame(FIN | TEXT, b"hello")),
        ("fragments", [frame(TEXT, b"a"), frame(FIN | CONTINUE, b"b")].concat()),
        ("ping", frame(FIN | PING, b"p")),
    ] {
        for cut in 0..=stream.len() {
            let (left, right) = stream.split_at(cut);
            let (got, reader) = read_with([left, right], MAX);
            assert!(!got.is_empty(), "{name}");
            assert!(reader.partial.is_none(), "{name}: cut at {cut} keeps its box");
        }
    }
}

#[test]
fn every_length_of_payload_is_unmasked_right() {
    for length in (0..70).chain([125, 126, 127, 128, 1_000, 65_535, 65_536]) {
        let payload: Vec<u8> = (0..length).map(|index| (index * 7) as u8).collect();
        let stream = frame(FIN | BINARY, &payload);
        let expected = vec![Got::Binary(payload)];
        assert_eq!(read_all(&stream), expected, "{length}");
        let (left, right) = stream.split_at(stream.len() - (length / 3));
        assert_eq!(read_with([left, right], MAX).0, expected, "{length} in two reads");
    }
}

#[test]
fn fragmentation_follows_the_rules() {
    // Autobahn 5.3 to 5.8: fragments, with pings between them.
    let stream = [
        frame(TEXT, b"frag"),
        frame(FIN | PING, b"ping"),
        frame(CONTINUE, b"ment"),
        frame(FIN | PONG, b"pong"),
        frame(FIN | CONTINUE, b"ed"),
    ]
    .concat();
    assert_eq!(
        read_all(&stream),
        [Got::Ping(b"ping".to_vec()), Got::Pong(b"pong".to_vec()), text("fragmented")]
    );
    // 5.1, 5.2: control frames are not fragmented. 5.9 to 5.14: a continuation of nothing.
    for bad in [
        [frame(PING, b"x"), frame(FIN | CONTINUE, b"y")].concat(),
        [frame(PONG, b"x"), frame(FIN | CONTINUE, b"y")].concat(),
        [frame(CLOSE, b""), frame(FIN | CONTINUE, b"")].concat(),
        frame(FIN | CONTINUE, b"x"),
        frame(CONTINUE, b"x"),
        [frame(FIN | TEXT, b"").as_slice(), &frame(FIN | CONTINUE, b"x")].concat(),
        // 5.18: a new message before the old one ended.
        [frame(TEXT, b"a"), frame(FIN | BINARY, b"b")].concat(),
    ] {
        assert_eq!(read_all(&bad).last(), Some(&Got::Violated(1002)), "{bad:x?}");
    }
}

#[test]
fn reserved_bits_and_opcodes_are_refused() {
    for bit in [0x40, 0x20, 0x10] {
        for opcode in [TEXT, BINARY, PING, PONG, CLOSE] {
            assert_eq!(read_all(&frame(FIN | bit | opcode, b"")), [Got::Violated(1002)], "{bit:x}");
        }
    }
    for opcode in (0x3..=0x7).chain(0xB..=0xF) {
        assert_eq!(read_all(&frame(FIN | opcode, b"")), [Got::Violated(1002)], "{opcode:x}");
    }
}

#[test]
fn a_length_takes_its_shortest_form() {
    let mask = [0; 4];
    let of = |second: u8, length: &[u8]| [&[FIN | BINARY, 0x80 | second][..], length, &mask].concat();
    assert_eq!(read_all(&of(126, &125u16.to_be_bytes())), [Got::Violated(1002)]);
    assert_eq!(read_all(&of(127, &65_535u64.to_be_bytes())), [Got::Violated(1002)]);
    assert_eq!(read_all(&of(127, &(1u64 << 63).to_be_bytes())), [Got::Violated(1002)]);
    assert_eq!(read_all(&of(126, &126u16.to_be_bytes())), [], "126 bytes are still to come");
}

#[test]
fn a_frame_without_a_mask_is_refused() {
    assert_eq!(read_all(&[FIN | TEXT, 0]), [Got::Violated(1002)]);
    assert_eq!(read_all(&[FIN | PING, 0]), [Got::Violated(1002)]);
}

#[test]
fn control_frames_hold_125_bytes() {
    assert_eq!(read_all(&frame(FIN | PING, &[1; 124])), [Got::Ping(vec![1; 124])]);
    assert_eq!(read_all(&frame(FIN | PING, &[1; 125])), [Got::Ping(vec![1; 125])]);
    for opcode in [PING, PONG, CLOSE] {
        assert_eq!(read_all(&frame(FIN | opcode, &[1; 126])), [Got::Violated(1002)], "{opcode:x}");
    }
}

#[test]
fn the_limit_is_told_by_the_header_alone() {
    let outcome = |length: usize| read_with([frame(FIN | BINARY, &vec![0; length]).as_slice()], 300).0;
    assert_eq!(outcome(299), [Got::Binary(vec![0; 299])]);
    assert_eq!(outcome(300), [Got::Binary(vec![0; 300])]);
    assert_eq!(outcome(301), [Got::Violated(1009)]);
    let header = &frame(FIN | TEXT, &[b'x'; 301])[..8];
    assert_eq!(read_with([header], 300).0, [Got::Violated(1009)], "before any payload came");
    let most = [FIN | BINARY, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
    assert_eq!(read_with([&most[..]], 300).0, [Got::Violated(1009)], "2^63 - 1 bytes");
}

#[test]
fn the_limit_counts_all_fragments_of_a_message() {
    for (second, accepted) in [(99, true), (100, true), (101, false)] {
        let stream = [frame(TEXT, &[b'a'; 200]), frame(FIN | CONTINUE, &vec![b'b'; second])].concat();
        let got = read_with([stream.as_slice()], 300).0;
        assert_eq!(matches!(got[..], [Got::Text(_)]), accepted, "{second}");
        assert_eq!(got == [Got::Violated(1009)], !accepted, "{second}");
    }
    let control = [frame(TEXT, &[b'a'; 300]), frame(FIN | PING, b"p"), frame(FIN | CONTINUE, b"")];
    assert_eq!(read_with([control.concat().as_slice()], 300).0.len(), 2, "a ping is not counted");
}

#[test]
fn a_promise_of_many_bytes_reserves_few() {
    let mut stream = frame(FIN | BINARY, &vec![0; 1 << 20]);
    stream.truncate(20);
    let (_, reader) = read_with([stream.as_slice()], 16 << 20);
    let message = reader.partial.expect("a frame is under way").message.expect("with its message");
    assert!(message.data.capacity() <= 2 * RESERVE_MAX, "{}", message.data.capacity());
}

/// Autobahn 6.*: sequences at the borders of UTF-8.
const GOOD_TEXT: [&[u8]; 12] = [
    b"",
    "κόσμε".as_bytes(),
    b"\x00",
    b"\xc2\x80",
    b"\xdf\xbf",
    b"\xe0\xa0\x80",
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    b"\xef\xbf\xbd",
    b"\xef\xbf\xbf",
    b"\xf0\x90\x80\x80",
    b"\xf4\x8f\xbf\xbf",
];
const BAD_TEXT_CASES: [&[u8]; 18] = [
    b"\x80",
    b"\xbf",
    b"\xc0\x80",
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xc2",
    b"\xe0\x80\xaf",
    b"\xe0\x9f\xbf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xf0\x80\x80\xaf",
    b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xfe",
    b"\xff",
];

#[test]
fn text_is_utf8_however_it_is_fragmented() {
    for good in GOOD_TEXT {
        assert_eq!(read_all(&frame(FIN | TEXT, good)), [Got::Text(good.to_vec())], "{good:x?}");
        assert_eq!(read_all(&in_fragments(good)), [Got::Text(good.to_vec())], "{good:x?}");
    }
    for bad in BAD_TEXT_CASES {
        let bad = [b"before ", bad, b" after"].concat();
        assert_eq!(read_all(&frame(FIN | TEXT, &bad)), [Got::Violated(1007)], "{bad:x?}");
        assert_eq!(read_all(&in_fragments(&bad)), [Got::Violated(1007)], "{bad:x?}");
        assert_eq!(read_all(&frame(FIN | BINARY, &bad)), [Got::Binary(bad.clone())], "{bad:x?}");
    }
}

/// One byte a frame.
fn in_fragments(payload: &[u8]) -> Vec<u8> {
    let mut stream = frame(TEXT, b"");
    for byte in payload {
        stream.extend(frame(CONTINUE, &[*byte]));
    }
    stream.extend(frame(FIN | CONTINUE, b""));
    stream
}

#[test]
fn bad_text_fails_before_its_message_ends() {
    // Autobahn 6.4.*: the verdict must not wait for the last fragment, nor for the frame.
    let fragment = frame(TEXT, b"\xce\xba\xf4\x90");
    assert_eq!(read_all(&fragment), [Got::Violated(1007)]);
    let stream = frame(FIN | TEXT, b"ok \xf4\x90\x80\x80 and more");
    let cut = stream.len() - "\u{0}\u{0} and more".len();
    assert_eq!(read_with([&stream[..cut]], MAX).0, [Got::Violated(1007)], "inside a frame");
    let before = &stream[..cut - 1];
    assert_eq!(read_with([before], MAX).0, [], "f4 alone may still become a character");
}

#[test]
fn close_bodies_follow_the_rules() {
    // Autobahn 7.*.
    assert_eq!(read_all(&frame(FIN | CLOSE, b"")), [Got::Close(None, false)]);
    assert_eq!(read_all(&frame(FIN | CLOSE, b"\x03")), [Got::Violated(1002)]);
    let longest = close_body(1000, &[b'*'; 123]);
    assert_eq!(read_all(&frame(FIN | CLOSE, &longest)), [Got::Close(Some(1000), false)]);
    assert_eq!(read_all(&frame(FIN | CLOSE, &close_body(1000, b"\xce\xba\xe1"))), [Got::Violated(1007)]);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        let got = read_all(&frame(FIN | CLOSE, &close_body(code, b"")));
        assert_eq!(got, [Got::Close(Some(code), false)], "{code}");
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        assert_eq!(read_all(&frame(FIN | CLOSE, &close_body(code, b""))), [Got::Violated(1002)], "{code}");
    }
}

#[test]
fn nothing_is_delivered_after_a_close() {
    let stream = [
        frame(FIN | TEXT, b"before"),
        frame(FIN | CLOSE, &close_body(1000, b"")),
        frame(FIN | TEXT, b"after"),
        frame(FIN | PING, b"after"),
    ]
    .concat();
    let (got, mut reader) = read_with([stream.as_slice()], MAX);
    assert_eq!(got, [text("before"), Got::Close(Some(1000), false)]);
    let outcome = reader.feed(&mut frame(FIN | 0x40, b""), MAX, &mut |_| panic!("after the close"));
    assert_eq!(outcome, Ok(()));
}

#[test]
fn a_close_tells_that_a_message_was_left_unfinished() {
    let stream = [frame(TEXT, b"half"), frame(FIN | CLOSE, b"")].concat();
    assert_eq!(read_all(&stream), [Got::Close(None, true)]);
}
