//! How messages get into a server.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use corecast_proto::comet::BroadcastRoomReq;
use corecast_proto::comet::comet_client::CometClient;
use corecast_proto::op;
use corecast_proto::protocol::Proto;
use corecast_proto::push::gateway_client::GatewayClient;
use corecast_proto::push::push::Target;
use corecast_proto::push::{Batch, Push, RoomPush};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::control::Control;
use crate::http;

/// An open way in.
pub enum Entry {
    /// Floor and baseline.
    Control(Control),
    /// `BroadcastRoom`.
    Comet(Comet),
    /// The job's stream.
    Stream(Stream),
    /// `POST /logic/send`.
    Logic(Logic),
}

/// Calls one after the other.
pub struct Comet {
    runtime: Runtime,
    client: CometClient<Channel>,
    room: String,
}

/// Batches of unnumbered pushes.
pub struct Stream {
    batches: mpsc::Sender<Batch>,
    room: String,
    batch: u64,
    offset: i64,
    /// Drives the stream as long as it lives.
    _runtime: Runtime,
}

/// Messages of a user.
pub struct Logic {
    addr: SocketAddr,
    room: String,
    user: serde_json::Value,
}

impl Entry {
    /// The control connection of floor or baseline.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn control(addr: SocketAddr) -> Result<Self> {
        Ok(Self::Control(Control::connect(addr)?))
    }

    /// `ChatRoom.Comet.Comet/BroadcastRoom` to `room`.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn comet(addr: SocketAddr, room: &str) -> Result<Self> {
        let runtime = runtime()?;
        let client = CometClient::new(runtime.block_on(channel(addr))?);
        Ok(Self::Comet(Comet { runtime, client, room: room.to_owned() }))
    }

    /// `corecast.push.v1.Gateway/Push` to `room`.
    ///
    /// # Errors
    /// Nobody listens, or the gateway refuses the stream.
    pub fn stream(addr: SocketAddr, room: &str) -> Result<Self> {
        let runtime = runtime()?;
        let (batches, outgoing) = mpsc::channel(BATCHES_WAITING);
        let mut answers = runtime.block_on(async {
            let mut client = GatewayClient::new(channel(addr).await?);
            anyhow::Ok(client.push(ReceiverStream::new(outgoing)).await?.into_inner())
        })?;
        // Acks are read, or the gateway would stop taking batches.
        runtime.spawn(async move { while let Ok(Some(_)) = answers.message().await {} });
        Ok(Self::Stream(Stream { batches, room: room.to_owned(), batch: 0, offset: 0, _runtime: runtime }))
    }

    /// `POST /logic/send` to `room` by the user who is logged in.
    ///
    /// # Errors
    /// The session is not valid.
    pub fn logic(addr: SocketAddr, room: &str, sid: &str) -> Result<Self> {
        let answer = http::post(addr, "/logic/verify", &json!({ "cookie": sid }))?;
        let user = serde_json::from_str(&answer.body).context("verify answers JSON")?;
        Ok(Self::Logic(Logic { addr, room: room.to_owned(), user }))
    }

    /// Sends these payloads to everybody, in order; together where the way allows it.
    /// Returns when they are handed over, not when they are delivered.
    ///
    /// # Errors
    /// The server refused one, or is gone.
    pub fn send(&mut self, payloads: Vec<Vec<u8>>) -> Result<()> {
        match self {
            Self::Control(control) => Ok(control.send(&payloads)?),
            Self::Comet(comet) => payloads.into_iter().try_for_each(|payload| comet.send(payload)),
            Self::Stream(stream) => {
                let room = stream.room.clone();
                stream.send(payloads.into_iter().map(|payload| (room.clone(), payload)))
            }
            Self::Logic(logic) => payloads.into_iter().try_for_each(|payload| logic.send(&payload)),
        }
    }

    /// Sends each payload to a room of its own, all in one batch of the job's stream.
    ///
    /// # Errors
    /// As [`Entry::send`]; any other way has no such batches.
    pub fn send_each(&mut self, payloads: impl Iterator<Item = (String, Vec<u8>)>) -> Result<()> {
        match self {
            Self::Stream(stream) => stream.send(payloads),
            _ => bail!("only the stream takes a batch for many rooms"),
        }
    }
}

impl Comet {
    fn send(&mut self, payload: Vec<u8>) -> Result<()> {
        let proto = Proto { ver: op::VERSION, op: op::ROOM_MESSAGE, seq: 0, body: payload.into() };
        let request = BroadcastRoomReq { room_id: self.room.clone(), proto: Some(proto) };
        self.runtime.block_on(self.client.broadcast_room(request)).context("BroadcastRoom")?;
        Ok(())
    }
}

impl Stream {
    fn send(&mut self, payloads: impl Iterator<Item = (String, Vec<u8>)>) -> Result<()> {
        self.batch += 1;
        let pushes = payloads.map(|(room_id, payload)| {
            self.offset += 1;
            Push {
                target: Some(Target::Room(RoomPush { room_id })),
                op: op::ROOM_MESSAGE,
                frame: Bytes::from(payload),
                offset: self.offset,
                ..Push::default()
            }
        });
        let batch = Batch { id: self.batch, pushes: pushes.collect() };
        self.batches.blocking_send(batch).ok().context("the gateway ended the stream")
    }
}

impl Logic {
    fn send(&self, payload: &[u8]) -> Result<()> {
        let content = String::from_utf8_lossy(payload);
        let body = json!({
            "roomId": self.room, "userId": self.user["user_id"], "username": self.user["username"],
            "messages": [{"content": content}],
        });
        let answer = http::post(self.addr, "/logic/send", &body)?;
        if answer.status != 200 {
            bail!("logic answers {} {}", answer.status, answer.body);
        }
        Ok(())
    }
}

fn runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(1).thread_name("driver").enable_all().build()?)
}

async fn channel(addr: SocketAddr) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{addr}"))?.connect().await?)
}

/// Batches on their way to the gateway; beyond them the sender waits.
const BATCHES_WAITING: usize = 64;
