//! RFC 6455 from bytes to messages, for one connection and the server side.
//!
//! Bytes arrive in the core's own scratch buffer. A whole, unfragmented frame, which is
//! nearly every frame, is unmasked in place and lent to the sink straight out of it: no
//! copy, no allocation, nothing kept. Only what is cut off by the end of the buffer or
//! fragmented by the peer is held, boxed, until it is complete: an idle connection costs
//! 8 bytes here.
//!
//! How the stream is cut into reads never changes the result: every decision falls at the
//! end of a frame header, or at a byte of text that cannot be UTF-8 any more.

use std::io::Cursor;

use corecast_proto::close::CloseCode;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// What a peer sent, lent for the call.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A text message, valid UTF-8.
    Text(&'a [u8]),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping to be answered with the same payload, at most 125 bytes.
    Ping(&'a [u8]),
    /// A pong, at most 125 bytes.
    Pong(&'a [u8]),
    /// The peer closes. Nothing comes after it.
    Close {
        /// What it gave as a reason, if anything.
        code: Option<u16>,
        /// A fragmented message was left unfinished.
        mid_message: bool,
    },
}

/// The peer broke a rule: close with `code`. Nothing more is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// 1002, 1007 or 1009.
    pub code: CloseCode,
    /// For people.
    pub reason: &'static str,
}

/// Reads the frames of one connection. Bytes go in through [`Reader::feed`], in order.
#[derive(Default)]
pub struct Reader {
    partial: Option<Box<Partial>>,
}

/// What a read left unfinished.
#[derive(Default)]
struct Partial {
    /// A close or a broken rule came: nothing is read any more.
    ended: bool,
    /// Bytes of a header that is not complete.
    head: [u8; HEAD_MAX],
    head_len: u8,
    /// A frame whose payload is not complete.
    frame: Option<Frame>,
    /// Payload of that frame if it is a control frame.
    control: Vec<u8>,
    /// A message whose frames are not complete.
    message: Option<Message>,
}

/// A frame header that was checked, and how much of its payload is still to come.
#[derive(Clone, Copy)]
struct Frame {
    kind: Kind,
    fin: bool,
    mask: [u8; 4],
    /// Bytes still missing.
    missing: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
    Continue,
    Ping,
    Pong,
    Close,
}

struct Message {
    text: bool,
    data: Vec<u8>,
    /// Bytes of a text that were found valid; at most 3 behind the end.
    valid: usize,
}

impl Reader {
    /// Takes the next bytes of the stream and hands every complete message to `sink`.
    /// `input` is unmasked in place; `message_max` is the largest payload of a message in
    /// bytes, checked as soon as a header tells.
    ///
    /// # Errors
    /// [`Violation`] at the first broken rule. What came before it was delivered.
    pub fn feed(
        &mut self,
        input: &mut [u8],
        message_max: usize,
        sink: &mut impl FnMut(Incoming<'_>),
    ) -> Result<(), Violation> {
        if self.partial.as_ref().is_some_and(|partial| partial.ended) {
            return Ok(());
        }
        let outcome = self.drive(input, message_max, sink);
        match outcome {
            Ok(Flow::Open) if self.partial.as_ref().is_some_and(|partial| partial.is_idle()) => {
                self.partial = None;
            }
            Ok(Flow::Open) => {}
            Ok(Flow::Closed) | Err(_) => {
                self.partial = Some(Box::new(Partial { ended: true, ..Partial::default() }));
            }
        }
        outcome.map(|_| ())
    }

    fn drive(
        &mut self,
        mut input: &mut [u8],
        message_max: usize,
        sink: &mut impl FnMut(Incoming<'_>),
    ) -> Result<Flow, Violation> {
        loop {
            let open_frame = self.partial.as_ref().and_then(|partial| partial.frame);
            let frame = match open_frame {
                Some(frame) => frame,
                None if input.is_empty() => return Ok(Flow::Open),
                None => match self.take_header(&mut input, message_max)? {
                    Some(frame) => frame,
                    None => return Ok(Flow::Open),
                },
            };
            let take = frame.missing.min(input.len());
            let (payload, rest) = std::mem::take(&mut input).split_at_mut(take);
            input = rest;
            unmask(payload, frame.mask);
            let missing = frame.missing - take;
            let fresh = open_frame.is_none();
            if fresh && missing == 0 {
                if self.whole_frame(frame, payload, sink)? == Flow::Closed {
                    return Ok(Flow::Closed);
                }
                continue;
            }
            let partial = self.partial.get_or_insert_default();
            partial.take_payload(frame, fresh, payload, missing)?;
            if missing > 0 {
                let mut mask = frame.mask;
                mask.rotate_left(take % 4);
                partial.frame = Some(Frame { mask, missing, ..frame });
                return Ok(Flow::Open);
            }
            partial.frame = None;
            if partial.end_frame(frame, sink)? == Flow::Closed {
                return Ok(Flow::Closed);
            }
        }
    }

    /// The next header, checked; `None`: more bytes are needed, these are kept.
    fn take_header(&mut self, input: &mut &mut [u8], message_max: usize) -> Result<Option<Frame>, Violation> {
        let held = self.partial.as_ref().map_or(0, |partial| partial.message_len());
        let in_message = self.partial.as_ref().is_some_and(|partial| partial.message.is_some());
        let kept = self.partial.as_ref().map_or(0, |partial| partial.head_len as usize);
        if kept == 0
            && let Some((header, length, size)) = parse(input)?
        {
            *input = &mut std::mem::take(input)[size..];
            return check(&header, length, size, in_message, held, message_max).map(Some);
        }
        let partial = self.partial.get_or_insert_default();
        while !input.is_empty() {
            let (first, rest) = std::mem::take(input).split_at_mut(1);
            *input = rest;
            partial.head[partial.head_len as usize] = first[0];
            partial.head_len += 1;
            if let Some((header, length, size)) = parse(&partial.head[..partial.head_len as usize])? {
                partial.head_len = 0;
                return check(&header, length, size, in_message, held, message_max).map(Some);
            }
        }
        Ok(None)
    }

    /// A frame that lies whole in the input.
    fn whole_frame(
        &mut self,
        frame: Frame,
        payload: &[u8],
        sink: &mut impl FnMut(Incoming<'_>),
    ) -> Result<Flow, Violation> {
        match frame.kind {
            Kind::Text if frame.fin => {
                if std::str::from_utf8(payload).is_err() {
                    return Err(BAD_TEXT);
                }
                sink(Incoming::Text(payload));
            }
            Kind::Binary if frame.fin => sink(Incoming::Binary(payload)),
            Kind::Text | Kind::Binary | Kind::Continue => {
                let partial = self.partial.get_or_insert_default();
                partial.take_payload(frame, true, payload, 0)?;
                return partial.end_frame(frame, sink);
            }
            Kind::Ping | Kind::Pong | Kind::Close => {
                let mid_message = self.partial.as_ref().is_some_and(|partial| partial.message.is_some());
                return control(frame.kind, payload, mid_message, sink);
            }
        }
        Ok(Flow::Open)
    }
}

/// Does the stream go on?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    Closed,
}

impl Partial {
    fn is_idle(&self) -> bool {
        self.head_len == 0 && self.frame.is_none() && self.message.is_none()
    }

    fn message_len(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.data.len())
    }

    /// Keeps a part of a frame's payload, already unmasked. `fresh`: its first part;
    /// `missing`: bytes of the frame that follow.
    fn take_payload(
        &mut self,
        frame: Frame,
        fresh: bool,
        payload: &[u8],
        missing: usize,
    ) -> Result<(), Violation> {
        if frame.kind.is_control() {
            self.control.extend_from_slice(payload);
            return Ok(());
        }
        if fresh && frame.kind != Kind::Continue {
            self.message = Some(Message { text: frame.kind == Kind::Text, data: Vec::new(), valid: 0 });
        }
        let message = self.message.as_mut().expect("a continuation without a message was refused");
        if fresh {
            // What the header promises, but a promise alone gets no more than this.
            message.data.reserve(payload.len() + missing.min(RESERVE_MAX));
        }
        message.data.extend_from_slice(payload);
        message.check_text()
    }

    /// All bytes of `frame` were taken.
    fn end_frame(&mut self, frame: Frame, sink: &mut impl FnMut(Incoming<'_>)) -> Result<Flow, Violation> {
        if frame.kind.is_control() {
            let payload = std::mem::take(&mut self.control);
            return control(frame.kind, &payload, self.message.is_some(), sink);
        }
        if !frame.fin {
            return Ok(Flow::Open);
        }
        let message = self.message.take().expect("a data frame opened or continued it");
        if !message.text {
            sink(Incoming::Binary(&message.data));
        } else if message.valid == message.data.len() {
            sink(Incoming::Text(&message.data));
        } else {
            return Err(BAD_TEXT);
        }
        Ok(Flow::Open)
    }
}

impl Message {
    /// Fails at the first byte after which the text cannot become UTF-8 any more.
    fn check_text(&mut self) -> Result<(), Violation> {
        if !self.text {
            return Ok(());
        }
        match std::str::from_utf8(&self.data[self.valid..]) {
            Ok(_) => self.valid = self.data.len(),
            Err(error) if error.error_len().is_some() => return Err(BAD_TEXT),
            Err(error) => self.valid += error.valid_up_to(),
        }
        Ok(())
    }
}

impl Kind {
    fn is_control(self) -> bool {
        matches!(self, Self::Ping | Self::Pong | Self::Close)
    }
}

/// Header, payload length, header size in bytes.
fn parse(bytes: &[u8]) -> Result<Option<(FrameHeader, u64, usize)>, Violation> {
    let mut cursor = Cursor::new(bytes);
    match FrameHeader::parse(&mut cursor) {
        Ok(Some((header, length))) => Ok(Some((header, length, cursor.position() as usize))),
        Ok(None) => Ok(None),
        Err(_) => Err(protocol("reserved opcode")),
    }
}

/// The rules of RFC 6455 §5.1, §5.2, §5.4 and §5.5 for a header from a client.
fn check(
    header: &FrameHeader,
    length: u64,
    size: usize,
    in_message: bool,
    held: usize,
    message_max: usize,
) -> Result<Frame, Violation> {
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(protocol("reserved bit set"));
    }
    let kind = match header.opcode {
        OpCode::Data(Data::Text) => Kind::Text,
        OpCode::Data(Data::Binary) => Kind::Binary,
        OpCode::Data(Data::Continue) => Kind::Continue,
        OpCode::Control(Control::Ping) => Kind::Ping,
        OpCode::Control(Control::Pong) => Kind::Pong,
        OpCode::Control(Control::Close) => Kind::Close,
        OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
            return Err(protocol("reserved opcode"));
        }
    };
    let Some(mask) = header.mask else {
        return Err(protocol("frame is not masked"));
    };
    if length >> 63 != 0 {
        return Err(protocol("length above 2^63"));
    }
    if size != header.len(length) {
        return Err(protocol("length not in its shortest form"));
    }
    if kind.is_control() {
        if !header.is_final {
            return Err(protocol("fragmented control frame"));
        }
        if length > CONTROL_MAX {
            return Err(protocol("control frame over 125 bytes"));
        }
    } else {
        match (kind, in_message) {
            (Kind::Continue, false) => return Err(protocol("continuation of nothing")),
            (Kind::Text | Kind::Binary, true) => return Err(protocol("message inside a message")),
            _ => {}
        }
        if length > (message_max.saturating_sub(held)) as u64 {
            return Err(Violation { code: CloseCode::TooBig, reason: "message over the limit" });
        }
    }
    // It fits: at most `message_max`, or 125.
    Ok(Frame { kind, fin: header.is_final, mask, missing: length as usize })
}

/// A whole control frame (RFC 6455 §5.5, §7.1.5, §7.4).
fn control(
    kind: Kind,
    payload: &[u8],
    mid_message: bool,
    sink: &mut impl FnMut(Incoming<'_>),
) -> Result<Flow, Violation> {
    match kind {
        Kind::Ping => sink(Incoming::Ping(payload)),
        Kind::Pong => sink(Incoming::Pong(payload)),
        _ => {
            let code = match payload {
                [] => None,
                [_] => return Err(protocol("close body of one byte")),
                [high, low, reason @ ..] => {
                    let code = u16::from_be_bytes([*high, *low]);
                    if !CloseCode::may_be_received(code) {
                        return Err(protocol("reserved close code"));
                    }
                    if std::str::from_utf8(reason).is_err() {
                        return Err(Violation {
                            code: CloseCode::BadUtf8,
                            reason: "close reason is not UTF-8",
                        });
                    }
                    Some(code)
                }
            };
            sink(Incoming::Close { code, mid_message });
            return Ok(Flow::Closed);
        }
    }
    Ok(Flow::Open)
}

/// XORs with the mask, eight bytes at a time; the compiler widens it further.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        let value = u64::from_ne_bytes(word.try_into().expect("chunks of 8")) ^ wide;
        word.copy_from_slice(&value.to_ne_bytes());
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

fn protocol(reason: &'static str) -> Violation {
    Violation { code: CloseCode::Protocol, reason }
}

const BAD_TEXT: Violation = Violation { code: CloseCode::BadUtf8, reason: "text is not UTF-8" };
/// Two bytes, eight of length, four of mask.
const HEAD_MAX: usize = 14;
/// RFC 6455 §5.5.
const CONTROL_MAX: u64 = 125;
/// Bytes reserved on the word of a header; beyond it memory follows what really arrives.
const RESERVE_MAX: usize = 64 << 10;

const _: () = assert!(size_of::<Reader>() == 8);

#[cfg(test)]
mod tests;
