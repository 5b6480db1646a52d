//! A gateway as job sees it: the real service on a real socket, with a script.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use corecast_backends::registry::Node;
use corecast_proto::push::gateway_server::{Gateway, GatewayServer};
use corecast_proto::push::{Ack, Batch, FromGateway, Interest, Push, Welcome, from_gateway::Message};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{eventually, node};

/// What the gateway does with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Reads and acks.
    Acking,
    /// Reads; acks once it is told to be `Acking`.
    Holding,
    /// Does not read its stream.
    Deaf,
}

/// A push, and on which stream it came: 1 is the first.
#[derive(Clone, Debug)]
pub struct Received {
    pub stream: u64,
    pub push: Push,
}

/// A gateway that does what it is told.
#[derive(Clone)]
pub struct FakeGateway {
    shared: Arc<Shared>,
}

struct Shared {
    id: String,
    addr: SocketAddr,
    manner: watch::Sender<Manner>,
    state: Mutex<State>,
    stop: CancellationToken,
}

struct State {
    incarnation: u64,
    streams: u64,
    broken: CancellationToken,
    received: Vec<Received>,
    answers: Option<mpsc::Sender<Result<FromGateway, Status>>>,
}

impl FakeGateway {
    pub async fn start(id: &str, manner: Manner) -> Self {
        Self::start_as(id, id, manner).await
    }

    /// Listed as `id`, says it is `says`.
    pub async fn start_as(id: &str, says: &str, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Arc::new(Shared {
            id: id.to_owned(),
            addr: listener.local_addr().unwrap(),
            manner: watch::Sender::new(manner),
            state: Mutex::new(State {
                incarnation: 1,
                streams: 0,
                broken: CancellationToken::new(),
                received: Vec::new(),
                answers: None,
            }),
            stop: CancellationToken::new(),
        });
        let service = Service { shared: shared.clone(), says: says.to_owned() };
        let server = tonic::transport::Server::builder().add_service(GatewayServer::new(service));
        let stop = shared.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                served = server.serve_with_incoming(TcpListenerStream::new(listener)) => served.unwrap(),
                () = stop.cancelled() => {}
            }
        });
        Self { shared }
    }

    pub fn node(&self) -> Node {
        node(&self.shared.id, self.shared.addr)
    }

    pub fn set_manner(&self, manner: Manner) {
        self.shared.manner.send_replace(manner);
    }

    /// Breaks every stream; the process lives on.
    pub fn break_streams(&self) {
        let mut state = self.shared.state.lock().unwrap();
        std::mem::replace(&mut state.broken, CancellationToken::new()).cancel();
    }

    /// Breaks every stream and comes back as another incarnation.
    pub fn restart(&self) {
        self.shared.state.lock().unwrap().incarnation += 1;
        self.break_streams();
    }

    /// Tells which rooms it wants, on the stream that is up.
    pub async fn tell(&self, interest: Interest) {
        let answers = self.shared.state.lock().unwrap().answers.clone().expect("a stream");
        answers.send(Ok(message(Message::Interest(interest)))).await.unwrap();
    }

    pub fn streams(&self) -> u64 {
        self.shared.state.lock().unwrap().streams
    }

    pub async fn stream_is(&self, number: u64) {
        eventually("a new stream", || async { (self.streams() >= number).then_some(()) }).await;
    }

    pub fn received(&self) -> Vec<Received> {
        self.shared.state.lock().unwrap().received.clone()
    }

    /// `first_seq` of what came on one stream, in order.
    pub fn seqs(&self, stream: u64) -> Vec<u64> {
        let received = self.received();
        received.iter().filter(|got| got.stream == stream).map(|got| got.push.first_seq).collect()
    }

    /// Waits until this came on that stream; more is a failure.
    pub async fn seqs_are(&self, stream: u64, expected: &[u64]) {
        eventually(&format!("{expected:?} on stream {stream}"), || async {
            let seqs = self.seqs(stream);
            assert!(expected.starts_with(&seqs), "stream {stream} of {} got {seqs:?}", self.shared.id);
            (seqs == expected).then_some(())
        })
        .await;
    }
}

struct Service {
    shared: Arc<Shared>,
    says: String,
}

#[tonic::async_trait]
impl Gateway for Service {
    type PushStream = Pin<Box<dyn futures::Stream<Item = Result<FromGateway, Status>> + Send>>;

    async fn push(&self, request: Request<Streaming<Batch>>) -> Result<Response<Self::PushStream>, Status> {
        let (answers, stream) = mpsc::channel(1024);
        let (number, incarnation, broken) = {
            let mut state = self.shared.state.lock().unwrap();
            state.streams += 1;
            state.answers = Some(answers.clone());
            (state.streams, state.incarnation, state.broken.clone())
        };
        let welcome = Welcome { gateway_id: self.says.clone(), incarnation };
        answers.send(Ok(message(Message::Welcome(welcome)))).await.unwrap();
        let shared = self.shared.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = serve(&shared, number, request.into_inner(), &answers) => {}
                () = broken.cancelled() => {
                    let _ = answers.send(Err(Status::unavailable("broken by the test"))).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

async fn serve(
    shared: &Shared,
    number: u64,
    mut batches: Streaming<Batch>,
    answers: &mpsc::Sender<Result<FromGateway, Status>>,
) {
    let mut manner = shared.manner.subscribe();
    let mut unacked = None;
    loop {
        let now = *manner.borrow_and_update();
        if now == Manner::Acking
            && let Some(id) = unacked.take()
        {
            let _ = answers.send(Ok(message(Message::Ack(Ack { id })))).await;
        }
        tokio::select! {
            batch = batches.message(), if now != Manner::Deaf => {
                let Ok(Some(batch)) = batch else { return };
                unacked = Some(batch.id);
                let pushes = batch.pushes.into_iter().map(|push| Received { stream: number, push });
                shared.state.lock().unwrap().received.extend(pushes);
            }
            _ = manner.changed() => {}
        }
    }
}

fn message(message: Message) -> FromGateway {
    FromGateway { message: Some(message) }
}
