//! The face for gateways: `corecast.logic.v1.Logic`, with health and reflection.
//!
//! A refusal of input travels as data, in the reply's `refusal`, where the reply has one; a
//! status means that logic cannot answer and that the same request, with the same keys, may
//! be sent again (`UNAVAILABLE`), or that it is no use (`INVALID_ARGUMENT`, `NOT_FOUND`).

mod status;

use std::sync::Arc;
use std::time::Duration;

use corecast_backends::bus::Bus;
use corecast_backends::hotset::HotSet;
use corecast_backends::store::Store;
use corecast_proto::DESCRIPTORS;
use corecast_proto::logic::logic_server::{Logic, LogicServer};
use corecast_proto::logic::{
    CreateRoomReply, CreateRoomRequest, FrameResult, HeadsReply, HeadsRequest, HelloReply, HelloRequest,
    HistoryReply, HistoryRequest, LoginRequest, LogoutReply, LogoutRequest, RangeReply, RangeRequest,
    RegisterRequest, RoomsReply, RoomsRequest, RouteReply, RouteRequest, SendReply, SendRequest,
    SessionReply, VerifyReply, VerifyRequest,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_health::server::HealthReporter;

use crate::error::{Error, Failure};
use crate::service::{Sent, Service};

/// A request at most: 1,024 frames of the largest kind would be more, and are refused.
const REQUEST_BYTES: usize = 16 << 20;
/// A reply at most: a range of 3 MiB, a list of many rooms.
const REPLY_BYTES: usize = 16 << 20;
/// A peer that vanished is noticed after this and as much again.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Calls of one connection that were cancelled before this node looked at them. A node that was
/// paused for longer than its callers' deadline meets hundreds; above the limit (20 by default, a
/// guard against hostile peers) the whole connection would be closed with every call on it.
/// Callers are trusted; each such call costs some hundred bytes until it is looked at.
const CANCELLED_CALLS_MAX: usize = 65_536;
/// The name of the service in health checks and reflection.
const SERVICE_NAME: &str = "corecast.logic.v1.Logic";

/// The generated service over ours.
pub(crate) struct Face<S, H, B> {
    service: Arc<Service<S, H, B>>,
}

/// Serves until `shutdown`, then lets calls under way end.
pub(crate) async fn serve<S: Store, H: HotSet, B: Bus>(
    listener: TcpListener,
    service: Arc<Service<S, H, B>>,
    health: (HealthReporter, HealthService),
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Server { face: "grpc", reason: error.to_string() };
    let logic = LogicServer::new(Face { service })
        .max_decoding_message_size(REQUEST_BYTES)
        .max_encoding_message_size(REPLY_BYTES);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(SERVICE_NAME)
        .with_service_name("grpc.health.v1.Health")
        .build_v1()
        .map_err(|error| failed(&error))?;
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_max_pending_accept_reset_streams(Some(CANCELLED_CALLS_MAX))
        .add_service(health.1)
        .add_service(reflection)
        .add_service(logic)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            shutdown.cancelled_owned(),
        )
        .await
        .map_err(|error| failed(&error))
}

/// The health service, before it is served.
pub(crate) type HealthService =
    tonic_health::pb::health_server::HealthServer<tonic_health::server::HealthService>;

/// The health service and its switch, off at first.
pub(crate) async fn health() -> (HealthReporter, HealthService) {
    let reporter = HealthReporter::new();
    set_serving(&reporter, false).await;
    let service = tonic_health::server::HealthService::from_health_reporter(reporter.clone());
    (reporter, HealthService::new(service))
}

/// Tells health checks whether to come here, for the service and for the whole server.
pub(crate) async fn set_serving(reporter: &HealthReporter, serving: bool) {
    let status = match serving {
        true => tonic_health::ServingStatus::Serving,
        false => tonic_health::ServingStatus::NotServing,
    };
    reporter.set_service_status("", status).await;
    reporter.set_service_status(SERVICE_NAME, status).await;
}

impl<S: Store, H: HotSet, B: Bus> Face<S, H, B> {
    /// A call whose reply carries refusals.
    async fn refusable<T>(
        &self,
        function: &'static str,
        call: impl Future<Output = Result<T, Failure>>,
        refused: impl FnOnce(corecast_proto::logic::Refusal) -> T,
    ) -> Result<Response<T>, Status> {
        match self.service.metrics().observed(function, call).await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(Failure::Refused(refusal)) => Ok(Response::new(refused(refusal))),
            Err(failure) => Err(status::of(failure)),
        }
    }

    /// A call whose reply does not.
    async fn plain<T>(
        &self,
        function: &'static str,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Response<T>, Status> {
        self.service.metrics().observed(function, call).await.map(Response::new).map_err(status::of)
    }
}

fn refused_session(refusal: corecast_proto::logic::Refusal) -> SessionReply {
    SessionReply { refusal: Some(refusal), ..SessionReply::default() }
}

/// One unknown outcome makes the whole call one: with the same keys it is safe to repeat.
fn send_reply(sent: Vec<Sent>) -> Result<SendReply, Failure> {
    let results = sent
        .into_iter()
        .map(|sent| match sent {
            Err(Failure::Refused(refusal)) => {
                Ok(FrameResult { refusal: Some(refusal), ..FrameResult::default() })
            }
            other => other,
        })
        .collect::<Result<Vec<FrameResult>, Failure>>()?;
    Ok(SendReply { results })
}

#[tonic::async_trait]
impl<S: Store, H: HotSet, B: Bus> Logic for Face<S, H, B> {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<SessionReply>, Status> {
        let call = self.service.register(request.into_inner());
        self.refusable("register", call, refused_session).await
    }

    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<SessionReply>, Status> {
        self.refusable("login", self.service.login(request.into_inner()), refused_session).await
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Result<Response<LogoutReply>, Status> {
        self.plain("logout", self.service.logout(request.into_inner())).await
    }

    async fn verify(&self, request: Request<VerifyRequest>) -> Result<Response<VerifyReply>, Status> {
        self.plain("verify", self.service.verify(request.into_inner())).await
    }

    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        self.plain("hello", self.service.hello(request.into_inner())).await
    }

    async fn send(&self, request: Request<SendRequest>) -> Result<Response<SendReply>, Status> {
        let call = async { send_reply(self.service.send(request.into_inner()).await?) };
        self.plain("send", call).await
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<HistoryReply>, Status> {
        let refused = |refusal| HistoryReply { refusal: Some(refusal), ..HistoryReply::default() };
        self.refusable("history", self.service.history(request.into_inner()), refused).await
    }

    async fn create_room(
        &self,
        request: Request<CreateRoomRequest>,
    ) -> Result<Response<CreateRoomReply>, Status> {
        let refused = |refusal| CreateRoomReply { refusal: Some(refusal), ..CreateRoomReply::default() };
        self.refusable("create_room", self.service.create_room(request.into_inner()), refused).await
    }

    async fn rooms(&self, request: Request<RoomsRequest>) -> Result<Response<RoomsReply>, Status> {
        self.plain("rooms", self.service.rooms(request.into_inner())).await
    }

    async fn set_route(&self, request: Request<RouteRequest>) -> Result<Response<RouteReply>, Status> {
        self.plain("set_route", self.service.set_route(request.into_inner())).await
    }

    async fn drop_route(&self, request: Request<RouteRequest>) -> Result<Response<RouteReply>, Status> {
        self.plain("drop_route", self.service.drop_route(request.into_inner())).await
    }

    async fn heads(&self, request: Request<HeadsRequest>) -> Result<Response<HeadsReply>, Status> {
        self.plain("heads", self.service.heads(request.into_inner())).await
    }

    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeReply>, Status> {
        self.plain("range", self.service.range(request.into_inner())).await
    }
}
