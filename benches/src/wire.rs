//! WebSocket frames and the marker inside a payload. Shares no code with the gateway: a
//! yardstick with the same mistake would not show it.
//!
//! ```text
//!  marker, 32 bytes of text:  # | 16 hex digits: counter | 15 hex digits: intended moment, ns
//! ```
//! A payload is a marker and filling; a numbered message carries it as its content.

use serde::Deserialize;

/// A header that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The whole message is in this frame.
    pub fin: bool,
    /// 1 text, 2 binary, 8 close, 9 ping, 10 pong.
    pub opcode: u8,
    /// Mask of a client's frame.
    pub mask: Option<[u8; 4]>,
    /// Bytes of the header.
    pub length: usize,
    /// Bytes of the payload behind it.
    pub payload: usize,
}

/// What a benchmark message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// 1, 2, 3 … in the order of the sender.
    pub counter: u64,
    /// When it should have been sent, [`now_ns`](crate::clock::now_ns), below 2⁶⁰.
    pub intended_ns: u64,
}

/// Bytes of a marker: the smallest payload.
pub const MARKER_BYTES: usize = 32;

impl Header {
    /// Reads a header; `None` when it is not whole yet.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [first, second, rest @ ..] = bytes else { return None };
        let (payload, extended) = match second & 0x7f {
            126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 2),
            127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?, 8),
            short => (usize::from(short), 0),
        };
        let mask = if second & 0x80 != 0 { Some(*rest.get(extended..)?.first_chunk()?) } else { None };
        let length = 2 + extended + if mask.is_some() { 4 } else { 0 };
        Some(Self { fin: first & 0x80 != 0, opcode: first & 0x0f, mask, length, payload })
    }
}

/// Appends a server's frame.
pub fn push_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    push_header(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// Appends a client's frame. The mask is a fixed one: nothing between the two ends could be
/// fooled by it.
pub fn push_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    push_header(out, opcode, payload.len(), 0x80);
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

fn push_header(out: &mut Vec<u8>, opcode: u8, length: usize, mask: u8) {
    out.push(0x80 | opcode);
    match length {
        0..126 => out.push(mask | length as u8),
        126..65_536 => {
            out.push(mask | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(mask | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

impl Marker {
    /// A payload of `bytes` (at least [`MARKER_BYTES`]) that begins with this marker.
    pub fn payload(self, bytes: usize) -> Vec<u8> {
        let mut payload = vec![b'x'; bytes.max(MARKER_BYTES)];
        payload[0] = b'#';
        write_hex(&mut payload[1..17], self.counter);
        write_hex(&mut payload[17..MARKER_BYTES], self.intended_ns);
        payload
    }

    /// Reads the marker that `payload` begins with.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let marker: &[u8; MARKER_BYTES] = payload.first_chunk()?;
        if marker[0] != b'#' {
            return None;
        }
        Some(Self { counter: read_hex(&marker[1..17])?, intended_ns: read_hex(&marker[17..])? })
    }
}

/// Markers that were read lately. Every member gets the same ones, and comparing is ten
/// times cheaper than reading: the client must stay ahead of the server.
pub struct RecentMarkers {
    known: Box<[([u8; MARKER_BYTES], Marker)]>,
}

impl Default for RecentMarkers {
    fn default() -> Self {
        // Each place holds a marker from the start, so that what is found there is always true.
        let marker = Marker { counter: 0, intended_ns: 0 };
        let bytes = *marker.payload(MARKER_BYTES).first_chunk().expect("as long as it was asked for");
        Self { known: vec![(bytes, marker); RECENT].into_boxed_slice() }
    }
}

impl RecentMarkers {
    /// The same as [`Marker::parse`].
    pub fn parse(&mut self, payload: &[u8]) -> Option<Marker> {
        let marker: &[u8; MARKER_BYTES] = payload.first_chunk()?;
        // The last two digits of the counter, as far as they tell apart.
        let place = usize::from(marker[15] & 3) << 4 | usize::from(marker[16] & 15);
        let (bytes, known) = &mut self.known[place];
        if bytes != marker {
            *known = Marker::parse(marker)?;
            *bytes = *marker;
        }
        Some(*known)
    }
}

/// The room's number in a `hello`, 0 for a room that is not in it.
pub fn last_seq_in_hello(payload: &[u8], room: &str) -> u64 {
    let Ok(hello) = serde_json::from_slice::<Frame<Rooms>>(payload) else { return 0 };
    hello.payload.rooms.iter().find(|known| known.id == room).map_or(0, |known| known.last_seq)
}

/// Messages of a `serverMessages` frame of this room: numbers, and the markers that their
/// contents begin with.
pub fn numbered(payload: &[u8], room: &str) -> Vec<(u64, Option<Marker>)> {
    let Ok(frame) = serde_json::from_slice::<Frame<Messages>>(payload) else { return Vec::new() };
    if frame.kind != "serverMessages" || frame.payload.room_id != room {
        return Vec::new();
    }
    let messages = frame.payload.messages.iter();
    messages.map(|message| (message.seq, Marker::parse(message.content.as_bytes()))).collect()
}

#[derive(Deserialize)]
struct Frame<P> {
    #[serde(rename = "type")]
    kind: String,
    payload: P,
}

#[derive(Deserialize)]
struct Rooms {
    rooms: Vec<Room>,
}

#[derive(Deserialize)]
struct Room {
    id: String,
    #[serde(rename = "lastSeq")]
    last_seq: u64,
}

#[derive(Deserialize)]
struct Messages {
    #[serde(rename = "roomId")]
    room_id: String,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    seq: u64,
    content: String,
}

fn write_hex(out: &mut [u8], mut value: u64) {
    for byte in out.iter_mut().rev() {
        *byte = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |value, digit| {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(nibble))
    })
}

/// Markers remembered: more than are under way.
const RECENT: usize = 64;
const MASK: [u8; 4] = [0x5a, 0x0f, 0xc3, 0x96];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_any_length_is_read_back_and_a_byte_less_is_not() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let mut plain = Vec::new();
            push_frame(&mut plain, 1, &vec![7; length]);
            let header = Header::parse(&plain).unwrap();
            assert_eq!((header.opcode, header.payload, header.mask), (1, length, None));
            assert_eq!(header.length + length, plain.len());
            assert_eq!(Header::parse(&plain[..header.length - 1]), None);
            let mut masked = Vec::new();
            push_masked(&mut masked, 2, &vec![7; length]);
            let header = Header::parse(&masked).unwrap();
            assert_eq!((header.opcode, header.payload, header.mask), (2, length, Some(MASK)));
            assert_eq!(header.length + length, masked.len());
        }
    }

    #[test]
    fn a_marker_comes_back_and_other_text_is_none() {
        let marker = Marker { counter: u64::MAX, intended_ns: (1 << 60) - 1 };
        let payload = marker.payload(128);
        assert_eq!(payload.len(), 128);
        assert_eq!(Marker::parse(&payload), Some(marker));
        assert_eq!(Marker::parse(&payload[..31]), None);
        assert_eq!(Marker::parse(&payload[1..]), None);
    }

    #[test]
    fn a_remembered_marker_is_the_one_that_came() {
        let mut recent = RecentMarkers::default();
        // Counters that share a place, and moments that share a counter.
        for (counter, intended_ns) in [(1, 5), (1, 5), (1, 6), (65, 6), (0x101, 6), (1, 5), (0, 0)] {
            let marker = Marker { counter, intended_ns };
            assert_eq!(recent.parse(&marker.payload(40)), Some(marker));
        }
        assert_eq!(RecentMarkers::default().parse(&[0; 40]), None);
        assert_eq!(recent.parse(br##"{"type":"hello","payload":{"rooms":[]}}"##), None);
    }

    #[test]
    fn numbered_messages_are_found_in_a_frame() {
        let marker = Marker { counter: 9, intended_ns: 5 };
        let text = String::from_utf8(marker.payload(40)).unwrap();
        let frame = format!(
            r#"{{"type":"serverMessages","payload":{{"roomId":"r","messages":[{{"id":"1-4","content":"{text}","timestamp":1,"user":{{"id":"u","username":"n"}},"seq":4}},{{"id":"1-5","content":"hi","timestamp":1,"user":{{"id":"u","username":"n"}},"seq":5}}]}}}}"#
        );
        assert_eq!(numbered(frame.as_bytes(), "r"), [(4, Some(marker)), (5, None)]);
        assert_eq!(numbered(frame.as_bytes(), "other"), []);
        let hello = br#"{"type":"hello","payload":{"me":{"id":"u","username":"n"},"rooms":[{"id":"r","lastSeq":7}]}}"#;
        assert_eq!((last_seq_in_hello(hello, "r"), last_seq_in_hello(hello, "s")), (7, 0));
    }
}
