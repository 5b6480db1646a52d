//! Setup: the byte-exact examples in `tests/vectors`. Claim: what we encode is those
//! bytes, and what a client sends decodes to what its example says. Why: the browser
//! client and other languages are written against the same files.

use corecast_proto::frame::{
    self, Anchor, ClientFrame, Content, ErrorFrame, Message, RoomCursor, RoomObject,
};
use corecast_proto::ids::Position;
use corecast_proto::refusal::Code;
use serde_json::Value;

fn vector(file: &str, name: &str) -> String {
    let path = format!("{}/tests/vectors/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let list: Value = serde_json::from_slice(&std::fs::read(&path).expect(&path)).expect(&path);
    let entry = list.as_array().expect("array").iter().find(|entry| entry["name"] == name);
    entry.unwrap_or_else(|| panic!("{file}: no vector {name}"))["text"].as_str().expect("text").to_owned()
}

fn server(name: &str, ours: &[u8]) {
    assert_eq!(std::str::from_utf8(ours).expect("utf-8"), vector("server", name), "{name}");
}

const HELLO: Message<'_> = Message {
    id: "1690000000000-1",
    content: "Hello!",
    timestamp: 1_690_000_000_000,
    user_id: "5f2e6c1c-6f0a-4b43-9b0e-6d6b3c8a1d10",
    username: "ann",
    seq: 1,
};
const ODD: Message<'_> = Message {
    id: "1690000000001-2",
    content: "\u{0}\"\\\r\n\u{7f}<é🙂",
    timestamp: 1_690_000_000_001,
    user_id: "7",
    username: "Zoë",
    seq: 2,
};
const LAST: Position = Position { epoch: 1_690_000_000_000, seq: 2 };

fn messages() -> Vec<u8> {
    let mut out = Vec::new();
    frame::array(&mut out, [HELLO, ODD], |out, m| frame::message(out, &m));
    out
}

fn room(messages: &[u8], cut: bool) -> RoomObject<'_> {
    RoomObject {
        id: "room-001",
        name: "General",
        creator_id: "",
        has_more: false,
        messages,
        last: LAST,
        kind: "default",
        cut,
    }
}

#[test]
fn server_frames_are_byte_exact() {
    let list = messages();
    let sent = frame::server_messages("room-001", &list);
    server("serverMessages", &sent);
    assert_eq!(frame::messages_of(&sent), Some(&list[1..list.len() - 1]), "its own inverse");
    server("serverRoomHistory", &frame::room_history("room-001", "", true, &list, LAST.epoch));
    let mut rooms = Vec::new();
    frame::room_object(&mut rooms, &room(&list, false));
    server("hello", &frame::hello(HELLO.user_id, "ann", &rooms));
    let mut rooms = Vec::new();
    frame::room_object(&mut rooms, &room(b"[]", true));
    server("hello cut", &frame::hello(HELLO.user_id, "ann", &rooms));
    server("joined", &frame::joined(&RoomObject { kind: "public", ..room(&list, false) }));
    server(
        "serverCreateRoom",
        &frame::room_created("r-1", "dpdk", HELLO.user_id, "ann", "public", LAST.epoch),
    );
    server("serverCreateRoom taken", frame::create_room_taken());
    server("ack", &frame::ack("room-001", [("k1", HELLO.id, 1, HELLO.timestamp)]));
    server("error", &frame::error(&ErrorFrame::new(Code::BadJson, "not JSON", "")));
    server(
        "error of a send",
        &frame::error(&ErrorFrame {
            room_id: Some("room-001"),
            client_message_id: Some("k1"),
            ..ErrorFrame::new(Code::Unavailable, "logic cannot be reached", "clientMessages")
        }),
    );
    server("lagging", &frame::lagging("room-001", 41));
    server("caughtUp", &frame::caught_up("room-001", 99));
    server("cut", &frame::cut("room-001", LAST, true, &list));
    server("draining", &frame::draining(100, 5000));
}

#[test]
fn client_frames_decode_to_what_they_say() {
    let content = |text: &str, key: Option<&str>| Content {
        content: text.to_owned(),
        client_message_id: key.map(str::to_owned),
    };
    let history =
        |anchor, count| ClientFrame::RequestRoomHistory { room_id: "room-001".into(), anchor, count };
    let send = |messages| ClientFrame::ClientMessages { room_id: "room-001".into(), messages };
    let cases = [
        ("clientMessages", send(vec![content("Hello!", None)])),
        ("clientMessages with keys", send(vec![content("a", Some("k1")), content("b", Some("k2"))])),
        ("clientMessages of an older client", send(vec![content("Hello!", None)])),
        ("requestRoomHistory", history(Anchor::Before("1690000000000-1".into()), 30)),
        ("requestRoomHistory newest", history(Anchor::Newest, 30)),
        ("requestRoomHistory afterSeq", history(Anchor::After(7), 200)),
        ("clientCreateRoom", ClientFrame::ClientCreateRoom { room_name: "dpdk".into() }),
        ("resume new", ClientFrame::Resume { rooms: vec![] }),
        (
            "resume",
            ClientFrame::Resume { rooms: vec![RoomCursor { room_id: "room-001".into(), position: LAST }] },
        ),
        ("join", ClientFrame::Join { room_id: "r-1".into(), position: None }),
        ("join from a position", ClientFrame::Join { room_id: "r-1".into(), position: Some(LAST) }),
        ("leave", ClientFrame::Leave { room_id: "r-1".into() }),
    ];
    for (name, expected) in cases {
        let text = vector("client", name);
        assert_eq!(ClientFrame::decode(text.as_bytes()), Ok(expected), "{name}");
    }
}
