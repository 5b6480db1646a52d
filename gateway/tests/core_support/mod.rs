//! The connections of a shard without a driver: sockets that take everything at once.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::Arc;

use corecast_gateway::config::Limits;
use corecast_gateway::core::connections::{Action, Batch, Connections, Places};
use corecast_gateway::core::handshake::Rules;
use corecast_gateway::core::{Command, Event, Joined, RoomFrame, Session, Wire};
use corecast_proto::ids::Position;

pub(crate) fn connections() -> Connections {
    Connections::new(0, Limits::default(), Rules::new(&[], false), Places::new(0), 0)
}

/// Connects, upgrades and opens connection `number`, a member of `rooms`.
pub(crate) fn open_one(core: &mut Connections, batch: &mut Batch, number: u64, rooms: &[&str]) {
    let key = core.handle_accepted(None).expect("there is room");
    let sid = format!("{number:08x}-0000-4000-8000-000000000000");
    let mut request = upgrade_request(&sid).into_bytes();
    assert!(core.handle_bytes(key, &mut request));
    let Some(Event::Upgraded { conn, .. }) = core.poll_event() else { panic!("upgraded") };
    let user_id = format!("{number:08x}-1111-4111-8111-111111111111");
    let session = Arc::new(Session::new(&sid, &user_id, &format!("user{number}")));
    let at = Position { epoch: 1, seq: 0 };
    let rooms = rooms.iter().map(|room| Joined { room_id: (*room).into(), at }).collect();
    core.handle_command(Command::Open { conn, session, frames: vec![Wire::text(b"hello")], rooms });
    flush(core, batch);
}

pub(crate) fn upgrade_request(sid: &str) -> String {
    format!(
        "GET /api/ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: sid={sid}\r\n\r\n"
    )
}

/// Everything is sent, and every socket takes all of it.
pub(crate) fn flush(core: &mut Connections, batch: &mut Batch) {
    while core.poll_transmit(batch) || !batch.is_empty() {
        core.handle_sent(batch, &[]);
    }
    while let Some(action) = core.poll_action() {
        assert!(!matches!(action, Action::Close(_)));
    }
}

pub(crate) fn frame(room: &str, everyone: bool, number: u64, wire: Wire) -> RoomFrame {
    RoomFrame { room_id: room.into(), everyone, epoch: 1, first: number, last: number, wire }
}
