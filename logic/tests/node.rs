//! Setup: one node, seen from outside. Claim: it tells whether it is ready, where it is and
//! what it counts, and it says nothing it should not. Why it matters: operators and balancers
//! see nothing else.
#![allow(clippy::unwrap_used, reason = "a test panics where it meets the unexpected")]

mod support;

use std::io::Write;
use std::sync::{Arc, Mutex};

use corecast_backends::registry::{Registry, Role};
use corecast_logic::config::DefaultRoom;
use corecast_logic::{Backends, Error, Logic};
use support::{GENERAL, frame, loopback, node, node_with, open, until};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

async fn channel(addr: &str) -> tonic::transport::Channel {
    tonic::transport::Endpoint::new(format!("http://{addr}")).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn it_is_ready_and_serves_health_for_itself_and_its_service() {
    let node = node().await;
    until("ready", async || node.get("/readyz").await.status == 200).await;
    assert_eq!(node.get("/healthz").await.status, 200);
    let mut health = HealthClient::new(channel(&node.grpc_addr).await);
    for service in ["", "corecast.logic.v1.Logic"] {
        let request = HealthCheckRequest { service: service.into() };
        let reply = health.check(request).await.unwrap().into_inner();
        assert_eq!(reply.status(), ServingStatus::Serving, "{service:?}");
    }
}

#[tokio::test]
async fn reflection_names_its_service_and_no_other_tier_s() {
    let node = node().await;
    let mut client = ServerReflectionClient::new(channel(&node.grpc_addr).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut replies =
        client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let reply = replies.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = reply else { panic!("{reply:?}") };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.contains(&"corecast.logic.v1.Logic".to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("Comet")), "{names:?}");
}

#[tokio::test]
async fn it_is_in_the_registry_for_as_long_as_it_runs() {
    let node = node_with(|config| {
        config.id = Some("logic-7".into());
        config.advertise_grpc = Some("logic.example:50052".into());
    })
    .await;
    let registry = node.backends.registry.clone();
    let mut nodes = registry.nodes(Role::Logic);
    let seen = async |nodes: &mut tokio::sync::watch::Receiver<_>, count: usize| {
        let waited = nodes.wait_for(|nodes: &Option<Vec<corecast_backends::registry::Node>>| {
            nodes.as_ref().is_some_and(|nodes| nodes.len() == count)
        });
        tokio::time::timeout(support::DEADLINE, waited).await.unwrap().unwrap().clone().unwrap()
    };
    let there = seen(&mut nodes, 1).await;
    assert_eq!((there[0].id.as_str(), there[0].grpc_addr.as_str()), ("logic-7", "logic.example:50052"));
    node.stop().await;
    seen(&mut nodes, 0).await;
}

#[tokio::test]
async fn metrics_are_served_and_move() {
    let node = node().await;
    let user = node.user().await;
    node.fill(GENERAL, &user, 3).await;
    let answer = node.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    for line in [
        "corecast_logic_requests_total{function=\"send\",status=\"ok\"} 1",
        "corecast_logic_requests_total{function=\"send\",status=\"refused\"} 0",
        "corecast_logic_requests_total{function=\"register\",status=\"ok\"} 1",
        "corecast_logic_request_seconds_count{function=\"send\"} 1",
        "corecast_logic_commit_messages_sum 3",
        "corecast_logic_commit_seconds_count 1",
    ] {
        assert!(answer.text.lines().any(|l| l == line), "{line} is missing in\n{}", answer.text);
    }
    until("its frame is published", async || node.metric("corecast_logic_bus_published_frames_total") == 1.0)
        .await;
}

#[tokio::test]
async fn what_stops_a_start_says_why() {
    let dir = tempfile::TempDir::new().unwrap();
    let opened = open(dir.path()).await;
    let bind = async |change: &dyn Fn(&mut corecast_logic::Config)| {
        let mut config = loopback();
        change(&mut config);
        Logic::bind(config, Backends::from(opened.clone())).await
    };
    let first = bind(&|_| {}).await.unwrap();
    let taken = first.http_addr().to_string();
    let refused = bind(&|config| config.http_addr = taken.clone()).await.map(|_| ());
    let Err(Error::Bind { addr, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(addr, taken);
    let refused = bind(&|config| config.lanes = 65).await.map(|_| ());
    assert!(matches!(refused, Err(Error::Config(why)) if why.contains("logic.lanes = 65")));
    // Another room has the name already.
    let renamed = |config: &mut corecast_logic::Config| {
        config.rooms.defaults = vec![DefaultRoom { id: "room-002".into(), name: "General".into() }];
    };
    assert!(matches!(bind(&renamed).await.map(|_| ()), Err(Error::Store(_))));
}

/// What was logged, as text.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_send_is_logged_by_its_name_without_what_was_said() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // The test's runtime has one thread, so this sees all the node logs.
    let _guard = tracing::subscriber::set_default(subscriber);
    let node = node().await;
    let user = node.user().await;
    node.send(vec![frame(GENERAL, &user, &[("what was said", "c:1")])]).await;
    let body = serde_json::json!({"cookie": user.sid}).to_string();
    assert_eq!(node.post("/logic/verify", body).await.status, 200);
    let text = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    let ours: Vec<&str> = text.lines().filter(|line| line.contains("corecast_")).collect();
    assert!(ours.iter().any(|line| line.contains("/logic/send")), "{ours:#?}");
    for secret in ["what was said", user.sid.as_str(), "correct horse"] {
        assert!(!ours.iter().any(|line| line.contains(secret)), "{secret:?} was logged");
    }
}

#[tokio::test]
async fn routes_are_kept_for_the_incarnation_that_set_them() {
    use corecast_backends::hotset::HotSet;
    use corecast_proto::logic::RouteRequest;
    let node = node().await;
    let mut grpc = node.grpc.clone();
    let route = |incarnation: u64| RouteRequest {
        gateway_id: "gateway-1".into(),
        incarnation,
        user_ids: vec!["u-1".into(), "u-2".into()],
    };
    let incarnations = async |user_id: &str| -> Vec<u64> {
        let routes = node.backends.hotset.routes(user_id).await.unwrap();
        routes.into_iter().map(|route| route.incarnation).collect()
    };
    grpc.set_route(route(2)).await.unwrap();
    grpc.drop_route(route(1)).await.unwrap();
    assert_eq!((incarnations("u-1").await, incarnations("u-2").await), (vec![2], vec![2]));
    grpc.drop_route(route(2)).await.unwrap();
    assert!(incarnations("u-1").await.is_empty());
}
