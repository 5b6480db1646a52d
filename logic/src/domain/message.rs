//! What a client frame may hold before it is stored.

use corecast_proto::limits;
use corecast_proto::logic::{ClientFrame, Refusal};
use corecast_proto::refusal::Code;

use super::account::check_username;
use super::room::check_room_id;

/// An idempotency key with its prefix (`c:`, `g:`, `h:`), bytes. A client's own has at most 64;
/// a gateway may make longer ones.
pub const KEY_BYTES: usize = 128;
/// A user id, bytes; ours are UUIDs, older deployments have decimal numbers.
pub const USER_ID_BYTES: usize = 64;

// A client's key with its prefix must fit.
const _: () = assert!(limits::CLIENT_MESSAGE_ID_BYTES + 2 <= KEY_BYTES);

/// Checks a frame. Whether the room and the user exist is not known here.
///
/// # Errors
/// `BAD_INPUT` with the field and its limit, or `UNKNOWN_ROOM` for the reserved id.
pub fn check_frame(frame: &ClientFrame) -> Result<(), Refusal> {
    check_room_id(&frame.room_id)?;
    check_user_id(&frame.user_id)?;
    check_username(&frame.username)?;
    let max = limits::MESSAGES_PER_FRAME;
    let count = frame.messages.len();
    if count == 0 || count > max {
        return Err(bad(format!("messages must hold 1 to {max}, has {count}")));
    }
    for (index, message) in frame.messages.iter().enumerate() {
        let (max, bytes) = (limits::CONTENT_BYTES, message.content.len());
        if bytes == 0 || bytes > max {
            return Err(bad(format!("messages[{index}].content must have 1 to {max} bytes, has {bytes}")));
        }
        let bytes = message.key.len();
        if bytes == 0 || bytes > KEY_BYTES {
            return Err(bad(format!("messages[{index}].key must have 1 to {KEY_BYTES} bytes, has {bytes}")));
        }
    }
    Ok(())
}

/// Checks the shape of a user id.
///
/// # Errors
/// `BAD_INPUT` with the limit.
pub fn check_user_id(user_id: &str) -> Result<(), Refusal> {
    let bytes = user_id.len();
    if bytes == 0 || bytes > USER_ID_BYTES {
        return Err(bad(format!("userId must have 1 to {USER_ID_BYTES} bytes, has {bytes}")));
    }
    Ok(())
}

/// About what a frame weighs in a queue, bytes: its text and a flat charge per message.
pub fn weight(frame: &ClientFrame) -> usize {
    frame.messages.iter().map(|m| m.content.len() + m.key.len() + 128).sum()
}

fn bad(message: impl Into<String>) -> Refusal {
    Code::BadInput.with(message)
}

#[cfg(test)]
mod tests {
    use corecast_proto::logic::NewMessage;

    use super::*;

    fn frame_of(contents: &[&str]) -> ClientFrame {
        ClientFrame {
            room_id: "room-001".into(),
            user_id: "u".into(),
            username: "ann".into(),
            messages: contents
                .iter()
                .map(|content| NewMessage { content: (*content).into(), key: "c:1".into() })
                .collect(),
        }
    }

    #[test]
    fn a_frame_holds_1_to_64_messages() {
        assert!(check_frame(&frame_of(&[])).is_err());
        assert!(check_frame(&frame_of(&["x"])).is_ok());
        assert!(check_frame(&frame_of(&["x"; 64])).is_ok());
        assert!(check_frame(&frame_of(&["x"; 65])).unwrap_err().message.contains("64"));
    }

    #[test]
    fn content_has_1_to_4096_bytes_of_any_unicode() {
        assert!(check_frame(&frame_of(&[""])).is_err());
        assert!(check_frame(&frame_of(&["\0\"\r\n🙂"])).is_ok());
        assert!(check_frame(&frame_of(&[&"é".repeat(2048)])).is_ok());
        let over = format!("{}x", "é".repeat(2048));
        assert!(check_frame(&frame_of(&["ok", &over])).unwrap_err().message.contains("messages[1]"));
    }

    #[test]
    fn the_reserved_room_is_unknown() {
        let frame = ClientFrame { room_id: "global".into(), ..frame_of(&["x"]) };
        assert_eq!(check_frame(&frame).unwrap_err().code, "UNKNOWN_ROOM");
    }

    #[test]
    fn ids_and_keys_are_bounded() {
        let user = |bytes| ClientFrame { user_id: "u".repeat(bytes), ..frame_of(&["x"]) };
        assert!(check_frame(&user(0)).is_err());
        assert!(check_frame(&user(USER_ID_BYTES)).is_ok());
        assert!(check_frame(&user(USER_ID_BYTES + 1)).is_err());
        for (bytes, fits) in [(0, false), (1, true), (KEY_BYTES, true), (KEY_BYTES + 1, false)] {
            let mut frame = frame_of(&["x"]);
            frame.messages[0].key = "k".repeat(bytes);
            assert_eq!(check_frame(&frame).is_ok(), fits, "{bytes}");
        }
    }
}
