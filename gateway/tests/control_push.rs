//! Setup: a gateway with one client; pushes by gRPC.
//! Claim: unary pushes reach who they name; the stream of job acks in order and delivers an
//! unnumbered record once.
//! Why: an ack is the moment from which the gateway is responsible.

mod control_support;

use control_support::{EPOCH, ROOM, World, eventually, within};
use corecast_proto::comet::comet_client::CometClient;
use corecast_proto::comet::{BroadcastReq, BroadcastRoomReq, PushMsgReq, RoomsReq};
use corecast_proto::protocol::Proto;
use corecast_proto::push::gateway_client::GatewayClient;
use corecast_proto::push::push::Target;
use corecast_proto::push::{AllPush, Batch, FromGateway, Push, RoomPush, UserPush, from_gateway};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

fn proto(body: &str) -> Option<Proto> {
    Some(Proto { ver: 1, op: 4, seq: 0, body: body.to_owned().into() })
}

fn text(mark: &str) -> String {
    format!(r#"{{"type":"mark","payload":"{mark}"}}"#)
}

fn unnumbered(target: Target, mark: &str, offset: i64) -> Push {
    Push { target: Some(target), frame: text(mark).into(), offset, ..Push::default() }
}

fn room(id: &str) -> Target {
    Target::Room(RoomPush { room_id: id.to_owned() })
}

fn all() -> Target {
    Target::All(AllPush { per_second: 0 })
}

async fn stream(world: &World) -> (mpsc::Sender<Batch>, Streaming<FromGateway>) {
    let (batches, outgoing) = mpsc::channel(8);
    let mut client = GatewayClient::connect(format!("http://{}", world.grpc)).await.expect("connected");
    let answers = within(client.push(ReceiverStream::new(outgoing))).await.expect("accepted").into_inner();
    (batches, answers)
}

async fn answer(answers: &mut Streaming<FromGateway>) -> from_gateway::Message {
    loop {
        let answer = within(answers.message()).await.expect("no error").expect("not over");
        // What it wants is told at any time.
        match answer.message.expect("a message") {
            from_gateway::Message::Interest(_) => {}
            message => return message,
        }
    }
}

async fn ack(answers: &mut Streaming<FromGateway>) -> u64 {
    match answer(answers).await {
        from_gateway::Message::Ack(ack) => ack.id,
        other => panic!("no ack: {other:?}"),
    }
}

#[tokio::test]
async fn unary_pushes_reach_users_rooms_and_everybody() {
    let world = World::start().await;
    let mut browser = world.old_client().await;
    let mut comet = CometClient::connect(format!("http://{}", world.grpc)).await.expect("connected");
    world.logic.add_public_room("r-1");
    browser.send(r#"{"type":"requestRoomHistory","payload":{"roomId":"r-1"}}"#).await;
    browser.next_of("serverRoomHistory").await;
    let keys = vec!["user-ann".to_owned(), "nobody".to_owned()];
    comet.push_msg(PushMsgReq { keys, proto_op: 0, proto: proto(&text("user")) }).await.expect("pushed");
    assert_eq!(browser.next_frame().await["payload"], "user");
    comet
        .broadcast_room(BroadcastRoomReq { room_id: "r-1".to_owned(), proto: proto(&text("room")) })
        .await
        .expect("pushed");
    assert_eq!(browser.next_frame().await["payload"], "room");
    for nowhere in ["", "nowhere"] {
        let request = BroadcastRoomReq { room_id: nowhere.to_owned(), proto: proto(&text("lost")) };
        comet.broadcast_room(request).await.expect("an unknown room is fine");
    }
    comet
        .broadcast(BroadcastReq { proto_op: 0, proto: proto(&text("all")), speed: 0 })
        .await
        .expect("pushed");
    assert_eq!(browser.next_frame().await["payload"], "all");
    let rooms = comet.rooms(RoomsReq {}).await.expect("rooms").into_inner().rooms;
    assert_eq!((rooms.get(ROOM), rooms.get("r-1")), (Some(&true), Some(&true)));
}

#[tokio::test]
async fn the_stream_begins_with_a_welcome_and_acks_in_order() {
    let world = World::start().await;
    let mut browser = world.old_client().await;
    let (batches, mut answers) = stream(&world).await;
    let from_gateway::Message::Welcome(welcome) = answer(&mut answers).await else { panic!("no welcome") };
    assert_eq!(welcome.gateway_id, "gateway-1");
    assert_ne!(welcome.incarnation, 0);
    for seq in 1..=3 {
        world.logic.commit(ROOM, &text(&format!("n{seq}")));
        let numbered = Push {
            target: Some(room(ROOM)),
            op: 4,
            frame: text(&format!("n{seq}")).into(),
            epoch: EPOCH,
            first_seq: seq,
            count: 1,
            ..Push::default()
        };
        let pushes = vec![numbered, unnumbered(all(), &format!("u{seq}"), seq as i64)];
        batches.send(Batch { id: seq, pushes }).await.expect("stream");
    }
    for id in 1..=3 {
        assert_eq!(ack(&mut answers).await, id);
    }
    let mut marks = Vec::new();
    for _ in 0..6 {
        marks.push(browser.next_frame().await["payload"].as_str().expect("a mark").to_owned());
    }
    let of = |kind: char| marks.iter().filter(|mark| mark.starts_with(kind)).cloned().collect::<Vec<_>>();
    assert_eq!(of('n'), ["n1", "n2", "n3"]);
    assert_eq!(of('u'), ["u1", "u2", "u3"]);
}

#[tokio::test]
async fn an_unnumbered_record_is_delivered_once_over_two_streams() {
    let world = World::start().await;
    let mut browser = world.old_client().await;
    let users = Target::User(UserPush { user_ids: vec!["user-ann".to_owned()] });
    for _ in 0..2 {
        let (batches, mut answers) = stream(&world).await;
        answer(&mut answers).await;
        let pushes = vec![unnumbered(users.clone(), "first", 7), unnumbered(all(), "second", 9)];
        batches.send(Batch { id: 1, pushes }).await.expect("stream");
        assert_eq!(ack(&mut answers).await, 1);
    }
    let (batches, mut answers) = stream(&world).await;
    answer(&mut answers).await;
    let pushes = vec![unnumbered(all(), "last", 8)];
    batches.send(Batch { id: 1, pushes }).await.expect("stream");
    for mark in ["first", "second", "last"] {
        assert_eq!(browser.next_frame().await["payload"], mark);
    }
    assert_eq!(ack(&mut answers).await, 1);
}

#[tokio::test]
async fn routes_carry_the_incarnation_of_the_stream_and_go_with_the_last_connection() {
    let world = World::start().await;
    let (_batches, mut answers) = stream(&world).await;
    let from_gateway::Message::Welcome(welcome) = answer(&mut answers).await else { panic!("no welcome") };
    let route = || world.logic.routes.lock().expect("lock").get("user-ann").copied();
    let (first, second) = (world.old_client().await, world.v1_client().await);
    eventually("the route is told", async || route() == Some(welcome.incarnation)).await;
    drop((first, second));
    eventually("the route is dropped", async || route().is_none()).await;
}

#[tokio::test]
async fn stock_clients_find_the_services_and_their_health() {
    let world = World::start().await;
    let endpoint = Endpoint::from_shared(format!("http://{}", world.grpc)).expect("a url");
    let channel = endpoint.connect().await.expect("connected");
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "ChatRoom.Comet.Comet", "corecast.push.v1.Gateway"] {
        eventually("serving", async || {
            let request = HealthCheckRequest { service: service.to_owned() };
            health.check(request).await.is_ok_and(|answer| answer.into_inner().status == 1)
        })
        .await;
    }
    let mut reflection = ServerReflectionClient::new(channel);
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let asked = tokio_stream::once(request);
    let mut answers = reflection.server_reflection_info(asked).await.expect("accepted").into_inner();
    let ServerReflectionResponse { message_response, .. } =
        within(answers.message()).await.expect("no error").expect("an answer");
    let Some(MessageResponse::ListServicesResponse(list)) = message_response else { panic!("no list") };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"ChatRoom.Comet.Comet"), "{names:?}");
}
