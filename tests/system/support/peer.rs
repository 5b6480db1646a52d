//! A gateway that is not ours, as job sees one: it takes pushes and acks them, or it opens
//! its stream and then reads nothing.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use corecast_proto::push::from_gateway::Message;
use corecast_proto::push::gateway_server::{Gateway, GatewayServer};
use corecast_proto::push::push::Target;
use corecast_proto::push::{Ack, Batch, FromGateway, Push, Welcome};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// What it does with its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// Takes everything and acks it.
    Acks,
    /// Says welcome and never reads.
    StopsReading,
}

/// A listening gateway. Dropping it ends it.
pub struct Peer {
    addr: SocketAddr,
    taken: Arc<Mutex<Vec<Push>>>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Service {
    id: String,
    incarnation: u64,
    manners: Manners,
    taken: Arc<Mutex<Vec<Push>>>,
}

impl Peer {
    /// Listens on this port of loopback (0: any) as the gateway `id`.
    pub async fn listen(port: u16, id: &str, incarnation: u64, manners: Manners) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
        let addr = listener.local_addr().expect("it is bound");
        let taken = Arc::default();
        let service = Service { id: id.to_owned(), incarnation, manners, taken: Arc::clone(&taken) };
        let serve = tonic::transport::Server::builder()
            .add_service(GatewayServer::new(service))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move {
            serve.await.expect("the listener lives");
        });
        Self { addr, taken, server }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Numbers of a room it took, in the order they came.
    pub fn numbers_of(&self, room: &str) -> Vec<u64> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_room = taken.iter().filter(|push| match &push.target {
            Some(Target::Room(target)) => target.room_id == room,
            _ => false,
        });
        of_room.flat_map(|push| push.first_seq..push.first_seq + u64::from(push.count)).collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[tonic::async_trait]
impl Gateway for Service {
    type PushStream = Pin<Box<dyn Stream<Item = Result<FromGateway, Status>> + Send>>;

    async fn push(&self, request: Request<Streaming<Batch>>) -> Result<Response<Self::PushStream>, Status> {
        let mut batches = request.into_inner();
        let (tell, answers) = mpsc::channel(64);
        let service = self.clone();
        tokio::spawn(async move {
            let welcome = Welcome { gateway_id: service.id, incarnation: service.incarnation };
            if tell.send(Ok(FromGateway { message: Some(Message::Welcome(welcome)) })).await.is_err() {
                return;
            }
            if service.manners == Manners::StopsReading {
                // The stream stays open and unread until job gives it up.
                tell.closed().await;
                drop(batches);
                return;
            }
            while let Ok(Some(batch)) = batches.message().await {
                service.taken.lock().unwrap_or_else(PoisonError::into_inner).extend(batch.pushes);
                let ack = FromGateway { message: Some(Message::Ack(Ack { id: batch.id })) };
                if tell.send(Ok(ack)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}
