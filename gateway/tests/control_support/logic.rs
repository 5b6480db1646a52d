//! A logic node that lives in the test: sessions, rooms with their frames, and switches for
//! what must go wrong.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use corecast_backends::bus::memory::MemoryBus;
use corecast_backends::bus::{Bus, BusFrame};
use corecast_proto::frame;
use corecast_proto::logic as pb;
use corecast_proto::logic::logic_server::Logic;
use corecast_proto::op;
use corecast_proto::refusal::Code;
use tonic::{Request, Response, Status};

use super::{ANN, EPOCH, ROOM};

/// What the fake logic keeps.
pub struct FakeLogic {
    bus: MemoryBus,
    state: Mutex<State>,
    /// Sends and registrations fail as long as this is set.
    pub down: AtomicBool,
    /// Sends with a message of this content fail as long as there is one.
    pub fails_on: Mutex<Option<String>>,
    /// Calls of `Send`.
    pub sends: AtomicUsize,
    /// Calls of `Register`.
    pub registers: AtomicUsize,
    /// Calls of `Range`: the bytes each asked for at most, 0 where it left that to logic.
    pub ranges: Mutex<Vec<u32>>,
    /// User → incarnation, as the gateway told.
    pub routes: Mutex<HashMap<String, u64>>,
}

struct State {
    sessions: HashMap<String, (String, String)>,
    rooms: HashMap<String, Room>,
    global: u64,
}

#[derive(Default)]
struct Room {
    public: bool,
    seq: u64,
    frames: Vec<pb::Frame>,
    keys: HashMap<String, pb::StoredMessage>,
}

impl FakeLogic {
    pub fn new(bus: MemoryBus) -> Self {
        let sessions = HashMap::from([(ANN.to_owned(), ("user-ann".to_owned(), "ann".to_owned()))]);
        let rooms = HashMap::from([(ROOM.to_owned(), Room::default())]);
        let state = Mutex::new(State { sessions, rooms, global: 0 });
        Self {
            bus,
            state,
            down: AtomicBool::new(false),
            fails_on: Mutex::default(),
            sends: AtomicUsize::new(0),
            registers: AtomicUsize::new(0),
            ranges: Mutex::default(),
            routes: Mutex::default(),
        }
    }

    /// A session ends elsewhere.
    pub fn revoke(&self, sid: &str) {
        self.state.lock().expect("lock").sessions.remove(sid);
    }

    /// A public room nobody is in.
    pub fn add_public_room(&self, room_id: &str) {
        let room = Room { public: true, ..Room::default() };
        self.state.lock().expect("lock").rooms.insert(room_id.to_owned(), room);
    }

    /// A committed frame of one message that the fast path lost.
    pub fn commit(&self, room_id: &str, frame: &str) {
        let mut state = self.state.lock().expect("lock");
        let room = state.rooms.get_mut(room_id).expect("a known room");
        room.seq += 1;
        room.frames.push(pb::Frame { first_seq: room.seq, count: 1, frame: frame.to_owned().into() });
    }

    /// Commits a frame of one message with so many bytes of content, and publishes it.
    pub async fn publish(&self, room_id: &str, bytes: usize) {
        let seq = self.head(room_id) + 1;
        let content = "x".repeat(bytes);
        let frame = format!(
            r#"{{"type":"serverMessages","payload":{{"roomId":"{room_id}","messages":[{{"seq":{seq},"content":"{content}"}}]}}}}"#
        );
        self.commit(room_id, &frame);
        let (room_id, op) = (room_id.into(), op::ROOM_MESSAGE);
        let frame = BusFrame { room_id, epoch: EPOCH, first_seq: seq, count: 1, op, frame: frame.into() };
        self.bus.publish(frame).await;
    }

    /// The number of the newest message.
    pub fn head(&self, room_id: &str) -> u64 {
        self.state.lock().expect("lock").rooms[room_id].seq
    }

    /// Was a message with this key stored?
    pub fn has_key(&self, room_id: &str, key: &str) -> bool {
        let key = format!("user-ann/c:{key}");
        self.state.lock().expect("lock").rooms[room_id].keys.contains_key(&key)
    }

    fn fails(&self, request: &pb::SendRequest) -> bool {
        let fails_on = self.fails_on.lock().expect("lock");
        let contents =
            request.frames.iter().flat_map(|frame| &frame.messages).map(|message| &message.content);
        fails_on.as_ref().is_some_and(|fails_on| contents.into_iter().any(|content| content == fails_on))
    }

    fn store(
        &self,
        frame: &pb::ClientFrame,
    ) -> Result<(Vec<pb::StoredMessage>, Option<BusFrame>), pb::Refusal> {
        let mut state = self.state.lock().expect("lock");
        let Some(room) = state.rooms.get_mut(&frame.room_id) else {
            return Err(Code::UnknownRoom.with("no such room"));
        };
        let first_seq = room.seq + 1;
        let mut array = Vec::new();
        let mut stored = Vec::new();
        let mut fresh = Vec::new();
        for message in &frame.messages {
            let key = format!("{}/{}", frame.user_id, message.key);
            if let Some(before) = room.keys.get(&key) {
                stored.push(pb::StoredMessage { repeated_key: true, ..before.clone() });
                continue;
            }
            room.seq += 1;
            let new = pb::StoredMessage {
                id: format!("{EPOCH}-{}", room.seq),
                seq: room.seq,
                timestamp: EPOCH as i64,
                repeated_key: false,
            };
            room.keys.insert(key, new.clone());
            fresh.push((message.content.clone(), new.clone()));
            stored.push(new);
        }
        frame::array(&mut array, &fresh, |out, (content, message)| {
            frame::message(
                out,
                &frame::Message {
                    id: &message.id,
                    content,
                    timestamp: message.timestamp,
                    user_id: &frame.user_id,
                    username: &frame.username,
                    seq: message.seq,
                },
            );
        });
        let published = (!fresh.is_empty()).then(|| BusFrame {
            room_id: frame.room_id.as_str().into(),
            epoch: EPOCH,
            first_seq,
            count: fresh.len() as u32,
            op: op::ROOM_MESSAGE,
            frame: frame::server_messages(&frame.room_id, &array).into(),
        });
        if let Some(frame) = &published {
            let BusFrame { first_seq, count, frame, .. } = frame.clone();
            room.frames.push(pb::Frame { first_seq, count, frame });
        }
        Ok((stored, published))
    }
}

impl State {
    fn global(&self) -> pb::Position {
        pb::Position { epoch: EPOCH, seq: self.global }
    }

    fn heads(&self, wanted: impl Fn(&str, &Room) -> bool) -> Vec<pb::Head> {
        let rooms = self.rooms.iter().filter(|(id, room)| wanted(id, room));
        rooms.map(|(id, room)| head(id, room.seq, room.kind())).collect()
    }

    fn snapshot(&self, id: &str) -> Option<pb::RoomSnapshot> {
        let room = self.rooms.get(id)?;
        Some(pb::RoomSnapshot {
            room_id: id.to_owned(),
            name: id.to_owned(),
            kind: room.kind().into(),
            epoch: EPOCH,
            last_seq: room.seq,
            first_seq: room.seq + 1,
            has_more: room.seq > 0,
            messages: "[]".into(),
            ..pb::RoomSnapshot::default()
        })
    }
}

impl Room {
    fn kind(&self) -> pb::RoomKind {
        if self.public { pb::RoomKind::Public } else { pb::RoomKind::Default }
    }
}

fn head(room_id: &str, last_seq: u64, kind: pb::RoomKind) -> pb::Head {
    pb::Head { room_id: room_id.to_owned(), epoch: EPOCH, last_seq, kind: kind.into() }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Logic for FakeLogic {
    async fn register(&self, request: Request<pb::RegisterRequest>) -> Answer<pb::SessionReply> {
        self.registers.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return Err(Status::unavailable("the database is away"));
        }
        let request = request.into_inner();
        let mut reply = pb::SessionReply::default();
        match request.username.as_str() {
            "taken" => reply.refusal = Some(Code::UsernameExists.with("that name is taken")),
            "" => reply.refusal = Some(Code::BadInput.with("username must have 1 to 32 characters")),
            _ => reply.sid = ANN.to_owned(),
        }
        Ok(Response::new(reply))
    }

    async fn login(&self, request: Request<pb::LoginRequest>) -> Answer<pb::SessionReply> {
        let mut reply = pb::SessionReply::default();
        match request.into_inner().password.as_str() {
            "right" => reply.sid = ANN.to_owned(),
            _ => reply.refusal = Some(Code::LoginFailed.with("email password no match")),
        }
        Ok(Response::new(reply))
    }

    async fn logout(&self, request: Request<pb::LogoutRequest>) -> Answer<pb::LogoutReply> {
        self.revoke(&request.into_inner().sid);
        Ok(Response::new(pb::LogoutReply {}))
    }

    async fn verify(&self, request: Request<pb::VerifyRequest>) -> Answer<pb::VerifyReply> {
        let state = self.state.lock().expect("lock");
        let sids = request.into_inner().sids;
        let sessions = sids.iter().map(|sid| match state.sessions.get(sid) {
            Some((user_id, username)) => pb::Session {
                valid: true,
                user_id: user_id.clone(),
                username: username.clone(),
                email: String::new(),
            },
            None => pb::Session::default(),
        });
        Ok(Response::new(pb::VerifyReply { sessions: sessions.collect() }))
    }

    async fn hello(&self, request: Request<pb::HelloRequest>) -> Answer<pb::HelloReply> {
        let request = request.into_inner();
        let state = self.state.lock().expect("lock");
        let mut reply = pb::HelloReply { global: Some(state.global()), ..pb::HelloReply::default() };
        if request.defaults {
            reply.rooms.extend(state.snapshot(ROOM));
        }
        for cursor in request.rooms.iter().filter(|cursor| !request.defaults || cursor.room_id != ROOM) {
            match state.snapshot(&cursor.room_id) {
                Some(snapshot) => reply.rooms.push(snapshot),
                None => reply.missing.push(cursor.room_id.clone()),
            }
        }
        Ok(Response::new(reply))
    }

    async fn send(&self, request: Request<pb::SendRequest>) -> Answer<pb::SendReply> {
        self.sends.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) || self.fails(request.get_ref()) {
            return Err(Status::unavailable("the database is away"));
        }
        let mut results = Vec::new();
        for frame in request.into_inner().frames {
            match self.store(&frame) {
                Ok((messages, published)) => {
                    if let Some(frame) = published {
                        self.bus.publish(frame).await;
                    }
                    results.push(pb::FrameResult { refusal: None, epoch: EPOCH, messages });
                }
                Err(refusal) => {
                    results.push(pb::FrameResult { refusal: Some(refusal), ..pb::FrameResult::default() });
                }
            }
        }
        Ok(Response::new(pb::SendReply { results }))
    }

    async fn history(&self, request: Request<pb::HistoryRequest>) -> Answer<pb::HistoryReply> {
        let request = request.into_inner();
        let mut reply = pb::HistoryReply::default();
        if request.has_after_seq {
            reply.frame = frame::room_history(&request.room_id, "", false, b"[]", EPOCH).into();
        } else {
            reply.refusal = Some(Code::UnknownMessage.with("firstMessageId is not an id of this room"));
        }
        Ok(Response::new(reply))
    }

    async fn create_room(&self, request: Request<pb::CreateRoomRequest>) -> Answer<pb::CreateRoomReply> {
        let request = request.into_inner();
        if request.room_name == "taken" {
            return Ok(Response::new(pb::CreateRoomReply { name_taken: true, ..Default::default() }));
        }
        let room_id = format!("id-of-{}", request.room_name);
        self.add_public_room(&room_id);
        let mut state = self.state.lock().expect("lock");
        state.global += 1;
        let creator = (&request.creator_id, &request.creator_username);
        let frame = frame::room_created(&room_id, &request.room_name, creator.0, creator.1, "public", EPOCH);
        Ok(Response::new(pb::CreateRoomReply {
            room_id,
            kind: pb::RoomKind::Public.into(),
            frame: frame.into(),
            global: Some(state.global()),
            ..Default::default()
        }))
    }

    async fn rooms(&self, _request: Request<pb::RoomsRequest>) -> Answer<pb::RoomsReply> {
        Ok(Response::new(pb::RoomsReply::default()))
    }

    async fn set_route(&self, request: Request<pb::RouteRequest>) -> Answer<pb::RouteReply> {
        let pb::RouteRequest { incarnation, user_ids, .. } = request.into_inner();
        self.routes.lock().expect("lock").extend(user_ids.into_iter().map(|user| (user, incarnation)));
        Ok(Response::new(pb::RouteReply {}))
    }

    async fn drop_route(&self, request: Request<pb::RouteRequest>) -> Answer<pb::RouteReply> {
        let users = request.into_inner().user_ids;
        self.routes.lock().expect("lock").retain(|user, _| !users.contains(user));
        Ok(Response::new(pb::RouteReply {}))
    }

    async fn heads(&self, request: Request<pb::HeadsRequest>) -> Answer<pb::HeadsReply> {
        let request = request.into_inner();
        let state = self.state.lock().expect("lock");
        let asked = |id: &str| request.room_ids.iter().any(|asked| asked == id);
        let mut heads = state.heads(|id, room| asked(id) || (request.defaults && !room.public));
        if request.defaults || asked("global") {
            heads.push(head("global", state.global, pb::RoomKind::Unspecified));
        }
        Ok(Response::new(pb::HeadsReply { heads }))
    }

    async fn range(&self, request: Request<pb::RangeRequest>) -> Answer<pb::RangeReply> {
        let request = request.into_inner();
        self.ranges.lock().expect("lock").push(request.max_bytes);
        let state = self.state.lock().expect("lock");
        let (last_seq, frames) = match state.rooms.get(&request.room_id) {
            Some(room) => (room.seq, room.frames.as_slice()),
            None if request.room_id == "global" => (state.global, &[][..]),
            None => return Ok(Response::new(pb::RangeReply::default())),
        };
        let missing = frames.iter().filter(|frame| frame.first_seq > request.after_seq);
        let mut bytes = 0;
        let fitting = missing.take_while(|frame| {
            let first = bytes == 0;
            bytes += frame.frame.len();
            first || request.max_bytes == 0 || bytes <= request.max_bytes as usize
        });
        let frames = fitting.cloned().collect();
        Ok(Response::new(pb::RangeReply { found: true, epoch: EPOCH, last_seq, frames }))
    }
}
