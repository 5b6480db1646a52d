//! A WebSocket client that shares no code with the gateway, and behaves like a browser: it
//! reads all the time, keeps what it reached of each room, and tells the delivery checker.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use corecast_checker::{Connection, Recorder};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, coding};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::in_time;

/// What arrived.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// A text frame.
    Text(String),
    /// A binary frame.
    Binary(Vec<u8>),
    /// The server closed with this code, or without one, or the connection broke.
    Closed(Option<u16>),
}

/// Where a client stands in a room.
pub type Cursor = (String, u64, u64);

/// How to connect.
pub struct Knock {
    addr: SocketAddr,
    path: String,
    headers: Vec<(&'static str, String)>,
    v1: bool,
    resume: Option<Vec<Cursor>>,
    record: Option<(Recorder, String)>,
    receive_bytes: Option<u32>,
}

/// An open connection. Dropping it breaks the connection without a close frame.
pub struct Browser {
    sink: futures::stream::SplitSink<WebSocketStream<TcpStream>, Message>,
    inbox: mpsc::UnboundedReceiver<Seen>,
    backlog: VecDeque<Seen>,
    reached: Reached,
    record: Option<Arc<Connection>>,
    reading: watch::Sender<bool>,
    reader: tokio::task::JoinHandle<()>,
    /// Headers of the 101.
    pub headers: HeaderMap,
}

/// Room → (epoch, seq).
type Reached = Arc<Mutex<BTreeMap<String, (u64, u64)>>>;

impl Knock {
    /// Offers `corecast.v1` and sends an empty resume list.
    pub fn v1(mut self) -> Self {
        self.v1 = true;
        self.resume = Some(Vec::new());
        self
    }

    /// Offers `corecast.v1` and resumes from these places.
    pub fn resume(mut self, cursors: Vec<Cursor>) -> Self {
        self.v1 = true;
        self.resume = Some(cursors);
        self
    }

    /// Offers `corecast.v1` and sends nothing.
    pub fn v1_silent(mut self) -> Self {
        self.v1 = true;
        self
    }

    /// A cookie other than the account's.
    pub fn cookie(self, sid: &str) -> Self {
        self.header("cookie", &format!("sid={sid}"))
    }

    /// A header of the upgrade request.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Path of the upgrade, `/api/ws` without.
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// The kernel takes about this much for it while it does not read.
    pub fn receive_bytes(mut self, bytes: u32) -> Self {
        self.receive_bytes = Some(bytes);
        self
    }

    /// Tells the checker everything, under this name.
    pub fn recorded(mut self, recorder: &Recorder, client: &str) -> Self {
        self.record = Some((recorder.clone(), client.to_owned()));
        self
    }

    /// Connects.
    pub async fn open(self) -> Browser {
        let addr = self.addr;
        self.try_open().await.unwrap_or_else(|error| panic!("upgrade on {addr}: {error}"))
    }

    /// Connects, or answers why not.
    pub async fn try_open(self) -> Result<Browser, Error> {
        let mut request: Request<()> = format!("ws://{}{}", self.addr, self.path).into_client_request()?;
        for (name, value) in &self.headers {
            let value = HeaderValue::from_str(value).expect("a header value");
            request.headers_mut().append(*name, value);
        }
        if self.v1 {
            let value = HeaderValue::from_static("corecast.v1");
            request.headers_mut().insert("sec-websocket-protocol", value);
        }
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = self.receive_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(self.addr).await?;
        stream.set_nodelay(true)?;
        let (socket, response) =
            in_time("the upgrade is answered", tokio_tungstenite::client_async(request, stream)).await?;
        let record = self.record.map(|(recorder, client)| Arc::new(recorder.connected(&client)));
        let mut browser = Browser::over(socket, response.headers().clone(), record);
        if let Some(cursors) = self.resume {
            browser.resume(cursors).await;
        }
        Ok(browser)
    }
}

impl Browser {
    /// A connection of whoever is logged in by `sid`, the old way unless [`Knock::v1`] is called.
    pub fn knock(addr: SocketAddr, sid: &str) -> Knock {
        Self::stranger(addr).cookie(sid)
    }

    /// A connection without a cookie.
    pub fn stranger(addr: SocketAddr) -> Knock {
        let path = "/api/ws".to_owned();
        Knock { addr, path, headers: Vec::new(), v1: false, resume: None, record: None, receive_bytes: None }
    }

    /// The `resume` frame.
    pub async fn resume(&mut self, cursors: Vec<Cursor>) {
        if let Some(record) = &self.record {
            record.resumed(cursors.iter().map(|(room, _, seq)| (room.as_str(), *seq)));
        }
        let rooms: Vec<Value> = cursors
            .iter()
            .map(|(room, epoch, seq)| json!({"roomId": room, "epoch": epoch, "seq": seq}))
            .collect();
        self.send("resume", json!({ "rooms": rooms })).await;
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached.extend(cursors.into_iter().map(|(room, epoch, seq)| (room, (epoch, seq))));
    }

    /// A frame of CONTRACT §3 or §9.
    pub async fn send(&mut self, kind: &str, payload: Value) {
        self.send_text(json!({"type": kind, "payload": payload}).to_string()).await;
    }

    /// Any text frame. A connection that is gone takes it too: what comes back tells.
    pub async fn send_text(&mut self, text: impl Into<String>) {
        let _ = self.sink.send(Message::text(text.into())).await;
    }

    /// A binary frame.
    pub async fn send_binary(&mut self, bytes: Vec<u8>) {
        let _ = self.sink.send(Message::binary(bytes)).await;
    }

    /// A text frame whose bytes need not be text.
    pub async fn send_raw_text(&mut self, bytes: Vec<u8>) {
        let frame = Frame::message(bytes, coding::OpCode::Data(coding::Data::Text), true);
        let _ = self.sink.send(Message::Frame(frame)).await;
    }

    /// Many text frames in one write.
    pub async fn send_together(&mut self, frames: impl IntoIterator<Item = (&'static str, Value)>) {
        for (kind, payload) in frames {
            let text = json!({"type": kind, "payload": payload}).to_string();
            let _ = self.sink.feed(Message::text(text)).await;
        }
        let _ = self.sink.flush().await;
    }

    /// A message without a key, as old clients send it.
    pub async fn say(&mut self, room: &str, content: &str) {
        if let Some(record) = &self.record {
            record.offered(room, None, content);
        }
        self.send("clientMessages", json!({"roomId": room, "messages": [{"content": content}]})).await;
    }

    /// A message with a key: its ack comes as an `ack` frame.
    pub async fn say_keyed(&mut self, room: &str, key: &str, content: &str) {
        if let Some(record) = &self.record {
            record.offered(room, Some(key), content);
        }
        let messages = json!([{"content": content, "clientMessageId": key}]);
        self.send("clientMessages", json!({"roomId": room, "messages": messages})).await;
    }

    /// The next thing that arrives.
    pub async fn next(&mut self) -> Seen {
        match self.backlog.pop_front() {
            Some(seen) => seen,
            None => self.arrival("something arrives").await,
        }
    }

    /// The payload of the next frame of this type; others stay for later.
    #[track_caller]
    pub fn frame<'a>(&'a mut self, kind: &'a str) -> impl Future<Output = Value> + 'a {
        self.frame_where(kind, |_| true)
    }

    /// The payload of the next frame of this type that `fits`; others stay for later.
    #[track_caller]
    pub fn frame_where<'a>(
        &'a mut self,
        kind: &'a str,
        fits: impl Fn(&Value) -> bool + 'a,
    ) -> impl Future<Output = Value> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let what = format!("{caller}: a {kind} frame arrives");
            let mut looked_at = 0;
            loop {
                while looked_at < self.backlog.len() {
                    if let Some(payload) = payload_of(&self.backlog[looked_at], kind).filter(&fits) {
                        self.backlog.remove(looked_at);
                        return payload;
                    }
                    looked_at += 1;
                }
                let seen = self.arrival(&what).await;
                assert!(!matches!(seen, Seen::Closed(_)), "{what}, but {seen:?}; before: {:?}", self.backlog);
                self.backlog.push_back(seen);
            }
        }
    }

    /// The `hello`.
    pub async fn hello(&mut self) -> Value {
        self.frame("hello").await
    }

    /// The next message of a room, with the room's id.
    pub async fn message(&mut self, room: &str) -> Value {
        let payload = self.frame_where("serverMessages", |payload| payload["roomId"] == room).await;
        let messages = payload["messages"].as_array().expect("messages is a list");
        // The rest of a frame of several messages stays for the next call.
        for message in messages[1..].iter().rev() {
            let frame = json!({"type": "serverMessages", "payload": {"roomId": room, "messages": [message]}});
            self.backlog.push_front(Seen::Text(frame.to_string()));
        }
        messages[0].clone()
    }

    /// The hello and what follows it, until the room's number `head` has come: the hello of
    /// a client without cursors may be one that was read a moment ago for others, and then
    /// the frames since then follow it.
    pub async fn everything_up_to(&mut self, room: &str, head: u64) -> Vec<Value> {
        let hello = self.hello().await;
        let rooms = hello["rooms"].as_array().expect("rooms").iter();
        let object =
            rooms.filter(|object| object["id"] == room).map(|object| object["messages"].clone()).next();
        let mut messages = object.map_or(Vec::new(), |list| list.as_array().expect("messages").clone());
        while messages.last().and_then(|last| last["seq"].as_u64()).unwrap_or(0) < head {
            messages.push(self.message(room).await);
        }
        messages
    }

    /// Stops taking bytes from the socket, or goes on.
    pub fn set_reading(&self, reading: bool) {
        self.reading.send_replace(reading);
    }

    /// The close code, once the server has closed; what came before it is dropped.
    pub async fn closed(&mut self) -> Option<u16> {
        loop {
            if let Seen::Closed(code) = self.next().await {
                return code;
            }
        }
    }

    /// Types of the text frames that arrived and were not asked for yet.
    pub fn kinds_waiting(&mut self) -> Vec<String> {
        while let Ok(seen) = self.inbox.try_recv() {
            self.backlog.push_back(seen);
        }
        self.backlog.iter().filter_map(kind_of).collect()
    }

    /// Where it stands in each room.
    pub fn cursors(&self) -> Vec<Cursor> {
        let reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached.iter().map(|(room, (epoch, seq))| (room.clone(), *epoch, *seq)).collect()
    }

    /// Closes with 1000 and waits for the answer.
    pub async fn close(mut self) {
        let _ = self.sink.send(Message::Close(None)).await;
        self.closed().await;
    }

    fn over(socket: WebSocketStream<TcpStream>, headers: HeaderMap, record: Option<Arc<Connection>>) -> Self {
        let (sink, mut stream) = socket.split();
        let (tell, inbox) = mpsc::unbounded_channel();
        let reached = Reached::default();
        let (kept, told) = (reached.clone(), record.clone());
        let (reading, mut may_read) = watch::channel(true);
        let reader = tokio::spawn(async move {
            let mut end = None;
            loop {
                // The browser is gone when the sender is, and this task with it.
                let _ = may_read.wait_for(|reading| *reading).await;
                let message = tokio::select! {
                    biased;
                    _ = may_read.wait_for(|reading| !*reading) => continue,
                    message = stream.next() => message,
                };
                let Some(Ok(message)) = message else { break };
                match message {
                    Message::Text(text) => {
                        if let Some(record) = &told {
                            record.frame(&text);
                        }
                        keep_position(&kept, &text);
                        let _ = tell.send(Seen::Text(text.to_string()));
                    }
                    Message::Binary(bytes) => drop(tell.send(Seen::Binary(bytes.to_vec()))),
                    Message::Close(frame) => end = frame.map(|frame| frame.code.into()),
                    Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                }
            }
            if let Some(record) = &told {
                record.closed();
            }
            let _ = tell.send(Seen::Closed(end));
        });
        Self { sink, inbox, backlog: VecDeque::new(), reached, record, reading, reader, headers }
    }

    async fn arrival(&mut self, what: &str) -> Seen {
        // The reader ends with `Closed`; asking again gets the same answer.
        in_time(what, self.inbox.recv()).await.unwrap_or(Seen::Closed(None))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.reader.abort();
        if let Some(record) = &self.record {
            record.closed();
        }
    }
}

/// Follows every room the way a client does, so that it can resume.
fn keep_position(reached: &Reached, text: &str) {
    let Ok(frame) = serde_json::from_str::<Value>(text) else { return };
    let mut reached = reached.lock().unwrap_or_else(PoisonError::into_inner);
    let payload = &frame["payload"];
    let mut place = |room: &Value, epoch: &Value, seq: &Value| {
        if let (Some(room), Some(epoch), Some(seq)) = (room.as_str(), epoch.as_u64(), seq.as_u64()) {
            reached.insert(room.to_owned(), (epoch, seq));
        }
    };
    match frame["type"].as_str() {
        Some("hello") => {
            for room in payload["rooms"].as_array().into_iter().flatten() {
                place(&room["id"], &room["epoch"], &room["lastSeq"]);
            }
        }
        Some("joined") => place(&payload["id"], &payload["epoch"], &payload["lastSeq"]),
        Some("cut") => place(&payload["roomId"], &payload["epoch"], &payload["lastSeq"]),
        Some("serverCreateRoom") if payload["kind"] == "default" => {
            place(&payload["roomId"], &payload["epoch"], &json!(0));
        }
        Some("serverMessages") => {
            let last = payload["messages"].as_array().and_then(|list| list.last());
            let room = payload["roomId"].as_str().unwrap_or_default();
            if let (Some(place), Some(seq)) =
                (reached.get_mut(room), last.and_then(|last| last["seq"].as_u64()))
            {
                place.1 = seq;
            }
        }
        _ => {}
    }
}

fn payload_of(seen: &Seen, kind: &str) -> Option<Value> {
    let Seen::Text(text) = seen else { return None };
    let mut frame: Value = serde_json::from_str(text).ok()?;
    (frame["type"] == kind).then(|| frame["payload"].take())
}

fn kind_of(seen: &Seen) -> Option<String> {
    let Seen::Text(text) = seen else { return None };
    let frame: Value = serde_json::from_str(text).ok()?;
    frame["type"].as_str().map(str::to_owned)
}
