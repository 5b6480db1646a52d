//! The baseline: a room server as one writes it with tokio and tokio-tungstenite, with care.
//! A task per connection, a bounded channel per connection, small buffers, everything that
//! waits for a connection in one flush, shared payloads.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use futures::{SinkExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::control;
use crate::floor::hello_payload;

/// A bound baseline.
pub struct Baseline {
    http: TcpListener,
    control: TcpListener,
    room: Arc<Room>,
    hello: Utf8Bytes,
}

/// Everybody.
#[derive(Default)]
struct Room {
    members: Mutex<Vec<mpsc::Sender<Utf8Bytes>>>,
}

impl Room {
    fn join(&self) -> mpsc::Receiver<Utf8Bytes> {
        let (sender, receiver) = mpsc::channel(OUTBOX);
        self.members.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// One lock and no allocation per message; who is full or gone is dropped.
    fn send(&self, payload: &Utf8Bytes) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|member| member.try_send(payload.clone()).is_ok());
    }
}

impl Baseline {
    /// Binds two free ports of loopback. `hello_bytes`: length of the first frame.
    ///
    /// # Errors
    /// No port.
    pub async fn bind(hello_bytes: usize) -> Result<Self> {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(local)?;
        let http = socket.listen(BACKLOG)?;
        let control = TcpListener::bind(local).await?;
        Ok(Self { http, control, room: Arc::default(), hello: hello_payload(hello_bytes).into() })
    }

    /// Where WebSockets and where batches come in.
    ///
    /// # Errors
    /// Never for bound sockets.
    pub fn addrs(&self) -> Result<(SocketAddr, SocketAddr)> {
        Ok((self.http.local_addr()?, self.control.local_addr()?))
    }

    /// Serves until the driver has closed its connection.
    ///
    /// # Errors
    /// A listener or the driver's connection broke.
    pub async fn run(self) -> Result<()> {
        let room = self.room.clone();
        let accepting = async {
            loop {
                let (stream, _) = self.http.accept().await?;
                stream.set_nodelay(true)?;
                let (room, hello) = (self.room.clone(), self.hello.clone());
                // A connection that breaks is nobody else's business.
                tokio::spawn(async move { drop(serve(stream, &room, hello).await) });
            }
        };
        let feeding = async {
            let (mut driver, _) = self.control.accept().await?;
            loop {
                let mut head = [0; 4];
                if driver.read_exact(&mut head).await.is_err() {
                    return Ok(());
                }
                let mut batch = vec![0; control::batch_bytes(head)];
                driver.read_exact(&mut batch).await?;
                for payload in control::payloads(&batch) {
                    room.send(&std::str::from_utf8(payload)?.into());
                }
            }
        };
        tokio::select! {
            ended = accepting => ended,
            ended = feeding => ended,
        }
    }
}

async fn serve(stream: TcpStream, room: &Room, hello: Utf8Bytes) -> Result<()> {
    // The defaults hold 128 KiB for every connection.
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(64 << 10))
        .max_frame_size(Some(64 << 10));
    let mut socket = accept_async_with_config(stream, Some(config)).await?;
    socket.send(Message::Text(hello)).await?;
    let mut inbox = room.join();
    loop {
        tokio::select! {
            payload = inbox.recv() => {
                let Some(payload) = payload else { return Ok(()) };
                socket.feed(Message::Text(payload)).await?;
                while let Ok(payload) = inbox.try_recv() {
                    socket.feed(Message::Text(payload)).await?;
                }
                socket.flush().await?;
            }
            message = socket.next() => match message.transpose()? {
                Some(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message).await?,
                Some(Message::Close(_)) | None => return Ok(()),
                Some(_) => {}
            }
        }
    }
}

/// Messages that may wait for a connection.
const OUTBOX: usize = 1_024;
/// Initial buffers of a connection.
const BUFFER_BYTES: usize = 4 << 10;
const BACKLOG: u32 = 8_192;
