//! A WebSocket client that is not ours.

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async};

use super::within;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A WebSocket client.
pub struct Browser {
    socket: Socket,
}

impl Browser {
    /// Upgrades a connection.
    pub async fn upgraded(stream: TcpStream, request: Request) -> Self {
        let stream = MaybeTlsStream::Plain(stream);
        let (socket, _) = within(client_async(request, stream)).await.expect("upgraded");
        Self { socket }
    }

    /// Takes over a socket that was upgraded by hand.
    pub async fn of(stream: TcpStream) -> Self {
        let stream = MaybeTlsStream::Plain(stream);
        let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
        Self { socket: WebSocketStream::from_raw_socket(stream, role, None).await }
    }

    /// Sends a text frame.
    pub async fn send(&mut self, text: &str) {
        within(self.socket.send(Message::text(text))).await.expect("sent");
    }

    /// Sends one message with this content and, where given, this key.
    pub async fn say(&mut self, room: &str, content: &str, key: Option<&str>) {
        let key = key.map(|key| format!(r#","clientMessageId":"{key}""#)).unwrap_or_default();
        self.send(&format!(
            r#"{{"type":"clientMessages","payload":{{"roomId":"{room}","messages":[{{"content":"{content}"{key}}}]}}}}"#
        ))
        .await;
    }

    /// The next JSON frame.
    pub async fn next_frame(&mut self) -> Value {
        loop {
            match self.next_message().await {
                Message::Text(text) => return serde_json::from_str(&text).expect("json"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("a frame was expected, came {other:?}"),
            }
        }
    }

    /// The next frame of a type; others are passed over.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next_frame().await;
            if frame["type"] == kind {
                return frame["payload"].clone();
            }
        }
    }

    /// The code of the close frame that ends the connection.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            if let Message::Close(Some(CloseFrame { code, .. })) = self.next_message().await {
                return code.into();
            }
        }
    }

    /// The next JSON frame, or the code of the close that ends the connection.
    pub async fn next_or_close(&mut self) -> Result<Value, u16> {
        loop {
            match self.next_message().await {
                Message::Text(text) => return Ok(serde_json::from_str(&text).expect("json")),
                Message::Close(frame) => return Err(frame.map_or(1005, |frame| frame.code.into())),
                _ => {}
            }
        }
    }

    /// Its two halves, for a client that talks and listens at the same time.
    pub fn split(self) -> (SplitSink<Socket, Message>, SplitStream<Socket>) {
        self.socket.split()
    }

    async fn next_message(&mut self) -> Message {
        within(self.socket.next()).await.expect("not over").expect("readable")
    }
}
