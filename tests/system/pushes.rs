//! Setup: `corecast up`, a gRPC client that knows the service by reflection only. Claim: the
//! four calls of `ChatRoom.Comet.Comet` reach who they name, now, and nobody else. Why it
//! matters: stock command-line clients and other services push this way.

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use serde_json::json;

use crate::support::comet::{self, Comet};
use crate::support::{Browser, Corecast, GENERAL, Seen, Setup, eventually, folder};

struct Stage {
    _data: tempfile::TempDir,
    corecast: Corecast,
    comet: Comet,
    ids: [String; 2],
    browsers: [Browser; 2],
}

/// Two users in the default room.
async fn stage() -> Stage {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let (ann, bob) = (corecast.account("ann").await, corecast.account("bob").await);
    let mut browsers = [
        Browser::knock(corecast.http(), &ann.sid).open().await,
        Browser::knock(corecast.http(), &bob.sid).v1().open().await,
    ];
    for browser in &mut browsers {
        browser.hello().await;
    }
    let comet = Comet::connect(corecast.grpc()).await;
    Stage { _data: data, corecast, comet, ids: [ann.id, bob.id], browsers }
}

#[tokio::test]
async fn reflection_and_health_answer() {
    let stage = stage().await;
    let services = comet::services(stage.corecast.grpc()).await;
    assert!(services.iter().any(|name| name == "ChatRoom.Comet.Comet"), "{services:?}");
    let health = HealthClient::new(comet::channel(stage.corecast.grpc()).await);
    for service in ["", "ChatRoom.Comet.Comet"] {
        eventually("it is serving", || async {
            let request = HealthCheckRequest { service: service.to_owned() };
            let answer = health.clone().check(request).await.expect("it is known").into_inner();
            answer.status() == ServingStatus::Serving
        })
        .await;
    }
}

#[tokio::test]
async fn broadcast_room_reaches_its_members_as_a_text_frame() {
    let mut stage = stage().await;
    stage.comet.broadcast_room(GENERAL, b"test").await.expect("OK");
    for browser in &mut stage.browsers {
        assert_eq!(browser.next().await, Seen::Text("test".into()));
    }
}

#[tokio::test]
async fn a_body_that_is_not_utf8_becomes_a_binary_frame() {
    let mut stage = stage().await;
    stage.comet.broadcast_room(GENERAL, &[0, 0xff, 0xfe]).await.expect("OK");
    for browser in &mut stage.browsers {
        assert_eq!(browser.next().await, Seen::Binary(vec![0, 0xff, 0xfe]));
    }
}

#[tokio::test]
async fn a_push_to_an_unknown_room_is_ok_and_reaches_nobody() {
    let mut stage = stage().await;
    for room in ["room-999", ""] {
        stage.comet.broadcast_room(room, b"nobody").await.expect("OK");
    }
    stage.comet.broadcast(b"everybody").await.expect("OK");
    for browser in &mut stage.browsers {
        assert_eq!(browser.next().await, Seen::Text("everybody".into()), "and nothing before it");
    }
}

#[tokio::test]
async fn push_msg_reaches_every_connection_of_the_users_it_names() {
    let mut stage = stage().await;
    let other = Browser::knock(stage.corecast.http(), &stage.sid_of_ann().await).open();
    let mut second_of_ann = other.await;
    second_of_ann.hello().await;
    let [ann, _] = stage.ids.clone();
    stage.comet.push(&[&ann, "nobody", &ann], b"for ann").await.expect("OK");
    stage.comet.broadcast(b"a mark").await.expect("OK");
    assert_eq!(stage.browsers[0].next().await, Seen::Text("for ann".into()));
    assert_eq!(stage.browsers[0].next().await, Seen::Text("a mark".into()), "named twice, reached once");
    assert_eq!(second_of_ann.next().await, Seen::Text("for ann".into()));
    assert_eq!(stage.browsers[1].next().await, Seen::Text("a mark".into()), "bob is not ann");
}

#[tokio::test]
async fn rooms_lists_rooms_with_members_here() {
    let data = folder();
    let corecast = Setup::new(data.path()).set("rooms.create_kind", "public").start().await;
    let comet = Comet::connect(corecast.grpc()).await;
    assert_eq!(comet.rooms().await, [""; 0], "nobody is connected");
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    browser.hello().await;
    assert_eq!(comet.rooms().await, [GENERAL], "a default room counts when anybody is connected");
    browser.send("clientCreateRoom", json!({"roomName": "mine"})).await;
    let room = browser.frame("serverCreateRoom").await["roomId"].as_str().expect("id").to_owned();
    browser.say(&room, "I am in").await;
    browser.message(&room).await;
    let mut expected = vec![GENERAL.to_owned(), room];
    expected.sort();
    assert_eq!(comet.rooms().await, expected);
}

#[tokio::test]
async fn a_push_is_not_stored_and_takes_no_number() {
    let mut stage = stage().await;
    stage.comet.broadcast_room(GENERAL, b"gone with the wind").await.expect("OK");
    for browser in &mut stage.browsers {
        browser.next().await;
    }
    stage.browsers[0].say(GENERAL, "numbered").await;
    assert_eq!(stage.browsers[1].message(GENERAL).await["seq"], 1);
}

impl Stage {
    async fn sid_of_ann(&self) -> String {
        let body = json!({"email": "ann@example.org", "password": "password of ann"});
        crate::support::http::post(self.corecast.http(), "/api/login", &body).await.sid()
    }
}
