//! A frame as the bytes of a message. The room is in the channel's name.
//!
//! ```text
//! 0        1        9            17      21   25
//! version  epoch    first_seq    count   op   frame …        big endian
//! ```

use bytes::{Buf as _, BufMut as _, Bytes};
use corecast_proto::ids::RoomId;

use crate::bus::BusFrame;

/// A subscriber drops what another version wrote, and finds it by its tail check.
const VERSION: u8 = 1;
const HEADER: usize = 25;

pub(super) fn encode(frame: &BusFrame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + frame.frame.len());
    bytes.put_u8(VERSION);
    bytes.put_u64(frame.epoch);
    bytes.put_u64(frame.first_seq);
    bytes.put_u32(frame.count);
    bytes.put_i32(frame.op);
    bytes.put_slice(&frame.frame);
    bytes
}

/// Copies nothing. `None`: not such a message.
pub(super) fn decode(room_id: RoomId, message: Vec<u8>) -> Option<BusFrame> {
    let mut bytes = Bytes::from(message);
    if bytes.len() < HEADER || bytes.get_u8() != VERSION {
        return None;
    }
    let (epoch, first_seq) = (bytes.get_u64(), bytes.get_u64());
    let (count, op) = (bytes.get_u32(), bytes.get_i32());
    Some(BusFrame { room_id, epoch, first_seq, count, op, frame: bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> BusFrame {
        BusFrame {
            room_id: RoomId::from("r"),
            epoch: u64::MAX,
            first_seq: 1 << 40,
            count: 7,
            op: -4,
            frame: Bytes::from_static(b"\0{}\xff"),
        }
    }

    #[test]
    fn a_frame_comes_back_as_it_was() {
        assert_eq!(decode(RoomId::from("r"), encode(&frame())), Some(frame()));
        let empty = BusFrame { frame: Bytes::new(), ..frame() };
        assert_eq!(decode(RoomId::from("r"), encode(&empty)), Some(empty));
    }

    #[test]
    fn what_is_short_or_of_another_version_is_no_frame() {
        let bytes = encode(&frame());
        assert_eq!(decode(RoomId::from("r"), bytes[..HEADER - 1].to_vec()), None);
        assert_eq!(decode(RoomId::from("r"), Vec::new()), None);
        let other = [&[VERSION + 1], &bytes[1..]].concat();
        assert_eq!(decode(RoomId::from("r"), other), None);
    }
}
