//! A WebSocket frame from server to client, encoded once per process and shared by every
//! connection that gets it (RFC 6455 §5.2: a server never masks).

use bytes::Bytes;
use corecast_proto::close::CloseCode;

/// One whole unfragmented frame, header included. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire(Bytes);

impl Wire {
    /// A text frame. `text` must be UTF-8; what our encoders make is.
    pub fn text(text: &[u8]) -> Self {
        Self::encode(0x1, text)
    }

    /// A binary frame.
    pub fn binary(bytes: &[u8]) -> Self {
        Self::encode(0x2, bytes)
    }

    /// The frame of a push: text when the body is UTF-8, binary otherwise (CONTRACT §1).
    pub fn of_body(body: &[u8]) -> Self {
        if std::str::from_utf8(body).is_ok() { Self::text(body) } else { Self::binary(body) }
    }

    /// An empty ping.
    pub fn ping() -> Self {
        Self(Bytes::from_static(&[0x89, 0]))
    }

    /// The pong to a ping; `payload` is a control frame's, at most 125 bytes.
    pub fn pong(payload: &[u8]) -> Self {
        debug_assert!(payload.len() <= 125);
        Self::encode(0xA, payload)
    }

    /// A close frame; the reason is cut to what a control frame holds.
    pub fn close(code: CloseCode, reason: &str) -> Self {
        let mut end = reason.len().min(123);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let mut payload = Vec::with_capacity(2 + end);
        payload.extend_from_slice(&code.number().to_be_bytes());
        payload.extend_from_slice(&reason.as_bytes()[..end]);
        Self::encode(0x8, &payload)
    }

    /// The answer to a peer's close frame: its own code (RFC 6455 §5.5.1).
    pub fn close_answer(code: u16) -> Self {
        Self::encode(0x8, &code.to_be_bytes())
    }

    /// A close frame without a body: the answer to one without a body.
    pub fn close_empty() -> Self {
        Self(Bytes::from_static(&[0x88, 0]))
    }

    /// Header and payload.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// What a client sees.
    pub fn payload(&self) -> &[u8] {
        let header = match self.0[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        &self.0[header..]
    }

    /// Length on the wire, header included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: a frame has a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    fn encode(opcode: u8, payload: &[u8]) -> Self {
        let mut out = Vec::with_capacity(payload.len() + 10);
        out.push(0x80 | opcode);
        match payload.len() {
            length @ 0..=125 => out.push(length as u8),
            length @ 126..=0xFFFF => {
                out.push(126);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                out.push(127);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(payload);
        Self(Bytes::from(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_field_takes_the_shortest_form() {
        for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let wire = Wire::text(&vec![b'x'; length]);
            assert_eq!((wire.len(), wire.payload().len()), (header + length, length), "{length}");
        }
    }

    #[test]
    fn a_body_that_is_not_utf8_becomes_binary() {
        assert_eq!(Wire::of_body(b"ok").bytes()[0], 0x81);
        assert_eq!(Wire::of_body(&[0xff]).bytes()[0], 0x82);
    }

    #[test]
    fn a_close_reason_is_cut_at_a_character() {
        let wire = Wire::close(CloseCode::TryLater, &"é".repeat(100));
        assert_eq!(wire.len(), 2 + 2 + 122);
    }
}
