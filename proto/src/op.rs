//! Operations of `ChatRoom.Protocol.Proto.op`. The browser never sees them: they tell
//! services what kind of frame a body is.

/// A `serverMessages` frame of a room.
pub const ROOM_MESSAGE: i32 = 4;
/// A `serverCreateRoom` frame.
pub const ROOM_CREATED: i32 = 5;

/// The version written in `Proto.ver`.
pub const VERSION: i32 = 1;
