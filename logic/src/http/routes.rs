//! One function per path of the contract: body to request, reply to response.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use corecast_backends::bus::Bus;
use corecast_backends::hotset::HotSet;
use corecast_backends::store::Store;
use corecast_proto::limits;
use corecast_proto::logic::{
    ClientFrame, CreateRoomRequest, HelloRequest, HistoryRequest, LoginRequest, RegisterRequest,
    RoomsRequest, SendRequest, VerifyRequest,
};
use serde::Serialize;

use super::Face;
use super::answer;
use super::body::{Body, Failed};
use crate::domain;
use crate::error::Failure;

type Shared<S, H, B> = State<Face<S, H, B>>;

pub(super) async fn register<S: Store, H: HotSet, B: Bus>(
    State(face): Shared<S, H, B>,
    body: Result<Body, Failed>,
) -> Response {
    let call = async {
        let mut body = body.map_err(|Failed(refusal)| refusal)?;
        let request = RegisterRequest {
            username: body.text("username")?,
            email: body.text("email")?,
            password: body.text("password")?,
        };
        face.service.register(request).await
    };
    match face.service.metrics().observed("register", call).await {
        Ok(reply) => answer::session_opened(reply),
        Err(failure) => answer::account_refused(failure.into_refusal()),
    }
}

pub(super) async fn login<S: Store, H: HotSet, B: Bus>(
    State(face): Shared<S, H, B>,
    body: Result<Body, Failed>,
) -> Response {
    let call = async {
        let mut body = body.map_err(|Failed(refusal)| refusal)?;
        let request = LoginRequest { email: body.text("email")?, password: body.text("password")? };
        face.service.login(request).await
    };
    match face.service.metrics().observed("login", call).await {
        Ok(reply) => answer::session_opened(reply),
        Err(failure) => answer::account_refused(failure.into_refusal()),
    }
}

pub(super) async fn verify<S: Store, H: HotSet, B: Bus>(
    State(face): Shared<S, H, B>,
    mut body: Body,
) -> Response {
    #[derive(Serialize)]
    struct Valid {
        success: bool,
        user_id: String,
        username: String,
        email: String,
    }
    #[derive(Serialize)]
    struct Invalid {
        success: bool,
        error: &'static str,
    }
    // A cookie that is no text is as invalid as any other.
    let sid = body.text("cookie").unwrap_or_default();
    let call = face.service.verify(VerifyRequest { sids: vec![sid], from_store: false });
    match face.service.metrics().observed("verify", call).await {
        Ok(reply) => match reply.sessions.into_iter().next().filter(|session| session.valid) {
            Some(session) => {
                let (user_id, username, email) = (session.user_id, session.username, session.email);
                answer::json(StatusCode::OK, &Valid { success: true, user_id, username, email })
            }
            None => {
                let error = "Invalid cookie or user not found";
                answer::json(StatusCode::UNAUTHORIZED, &Invalid { success: false, error })
            }
        },
        Err(failure) => answer::refused(failure.into_refusal()),
    }
}

pub(super) async fn hello<S: Store, H: HotSet, B: Bus>(
    State(face): Shared<S, H, B>,
    mut body: Body,
) -> Response {
    let call = async {
        let user_id = body.user_id("userId")?;
        let username = body.text_of(&["username", "userName"])?;
        let username = face.service.username_or(&user_id, &username).await?;
        let request = HelloRequest {
            user_id: user_id.clone(),
            username: username.clone(),
            defaults: true,
            ..HelloRequest::default()
        };
        let reply = face.service.hello(request).await?;
        Ok(Bytes::from(domain::hello::frame(&user_id, &username, &reply)))
    };
    frame_or_failure(face.service.metrics().observed("hello", call).await)
}

pub(super) async fn send<S: Store, H: HotSet, B: Bus>(
    State(face): Shared<S, H, B>,
    mut body: Body,
) -> Response {
    #[derive(Serialize)]
    struct Stored {
        status: &'static str,
    }
    let call = async {
        let frame = ClientFrame {
            room_id: body.text("roomId")?,
            user_id: body.user_id("userId")?,
            username: body.text_of(&["username", "userName"])?,
            messages: body.messages()?,
        };
        let sent = face.service.send(SendRequest { frames: vec![frame] }).await?;
        sent.into_iter().next().unwrap_or(Err(Failure::Internal("no answer for the frame")))
    };
    match face.service.metrics().observed("send", call).await {
        Ok(_) => answer::json(StatusCode::OK, &Stored { status: "success" }),
        Err(failure) => answer::refused(failure.into_refusal()),
    }
}

pub(super) async fn room_history<S: Store, H: HotSet, B: Bus>(
    State(face): Shared<S, H, B>,
    mut body: Body,
) -> Response {
    let call = async {
        let after = body.number("afterSeq", 0..=limits::JSON_INTEGER - 1)?;
        let count = body.number("count", 1..=u64::from(limits::HISTORY_COUNT_MAX))?;
        let request = HistoryRequest {
            room_id: body.text("roomId")?,
            user_id: body.user_id("userId")?,
            first_message_id: body.text("firstMessageId")?,
            has_after_seq: after.is_some(),
            after_seq: after.unwrap_or(0),
            count: count.map_or(0, |count| count as u32),
        };
        face.service.history(request).await.map(|reply| reply.frame)
    };
    frame_or_failure(face.service.metrics().observed("history", call).await)
}

pub(super) async fn create_room<S: Store, H: HotSet, B: Bus>(
    State(face): Shared<S, H, B>,
    mut body: Body,
) -> Response {
    let call = async {
        let request = CreateRoomRequest {
            room_name: body.text("roomName")?,
            creator_id: body.user_id("creatorId")?,
            creator_username: body.text("creatorUsername")?,
            key: format!("h:{}", uuid::Uuid::new_v4()),
        };
        face.service.create_room(request).await.map(|reply| reply.frame)
    };
    frame_or_failure(face.service.metrics().observed("create_room", call).await)
}

pub(super) async fn rooms<S: Store, H: HotSet, B: Bus>(State(face): Shared<S, H, B>, _: Body) -> Response {
    #[derive(Serialize)]
    struct Room {
        id: String,
        name: String,
        creator_id: String,
        create_time: i64,
        update_time: i64,
    }
    #[derive(Serialize)]
    struct Rooms {
        rooms: Vec<Room>,
        status: &'static str,
    }
    let call = face.service.rooms(RoomsRequest {});
    match face.service.metrics().observed("rooms", call).await {
        Ok(reply) => {
            let rooms = reply
                .rooms
                .into_iter()
                .map(|room| Room {
                    id: room.id,
                    name: room.name,
                    creator_id: room.creator_id,
                    create_time: room.create_time,
                    update_time: room.update_time,
                })
                .collect();
            answer::json(StatusCode::OK, &Rooms { rooms, status: "success" })
        }
        Err(failure) => answer::refused(failure.into_refusal()),
    }
}

fn frame_or_failure(result: Result<Bytes, Failure>) -> Response {
    match result {
        Ok(frame) => answer::frame(frame),
        Err(failure) => answer::refused(failure.into_refusal()),
    }
}
