//! Browser frames: JSON text `{"type","payload"}`. Pure.
//!
//! | module | direction |
//! |---|---|
//! | [`encode`](self) | server → client; fields in the order of the vectors, so bytes are stable |
//! | [`ClientFrame`] | client → server; every field checked, errors name the field and the limit |
//!
//! Byte-exact examples: `tests/vectors/*.json`, read by the tests here and by `web/`.

mod decode;
mod encode;

pub use decode::{Anchor, ClientFrame, Content, FrameError, ResumeCursor, RoomCursor};
pub use encode::{
    ErrorFrame, Message, RoomObject, ack, array, caught_up, create_room_taken, cut, draining, error, hello,
    hello_head, hello_tail, joined, lagging, message, messages_of, room_created, room_history, room_object,
    server_messages,
};
