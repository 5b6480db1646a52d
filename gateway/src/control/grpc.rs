//! The gRPC server: pushes of others, the stream of job, health, reflection.

use std::sync::Arc;
use std::time::Duration;

use corecast_proto::DESCRIPTORS;
use corecast_proto::comet::comet_server::CometServer;
use corecast_proto::push::gateway_server::GatewayServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::comet::CometService;
use super::ops::Ops;
use super::push_stream::PushService;
use super::shared::Shared;

/// Bytes of one message in either direction; a batch of job is far below it.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Names in health checks and reflection.
const COMET: &str = "ChatRoom.Comet.Comet";
const PUSH: &str = "corecast.push.v1.Gateway";
/// Time between two looks at the readiness.
const HEALTH_PERIOD: Duration = Duration::from_millis(500);

/// Serves until `stop`.
///
/// # Errors
/// The listener failed.
pub(super) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    ops: Arc<Ops>,
    gateway_id: String,
    incarnation: watch::Receiver<u64>,
) -> Result<(), tonic::transport::Error> {
    let stop = shared.stop.clone();
    let comet = CometServer::new(CometService { shared: shared.clone() })
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let push = GatewayServer::new(PushService::new(shared, gateway_id, incarnation))
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let (reporter, health) = tonic_health::server::health_reporter();
    tokio::spawn(report(reporter, ops, stop.clone()));
    let descriptors = || {
        // Only what this port serves: the set also holds logic's service.
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(COMET)
            .with_service_name(PUSH)
            .with_service_name("grpc.health.v1.Health")
    };
    Server::builder()
        // A half-open peer does not keep its stream.
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .add_service(comet)
        .add_service(push)
        .add_service(health)
        .add_service(descriptors().build_v1().expect("our own descriptors"))
        .add_service(descriptors().build_v1alpha().expect("our own descriptors"))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async move {
            stop.cancelled().await
        })
        .await
}

/// Tells the health service what `/readyz` says.
async fn report(reporter: HealthReporter, ops: Arc<Ops>, stop: CancellationToken) {
    let mut period = tokio::time::interval(HEALTH_PERIOD);
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = stop.cancelled() => return,
        }
        let serving = ops.readiness().is_ok();
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", COMET, PUSH] {
            reporter.set_service_status(service, status).await;
        }
    }
}
