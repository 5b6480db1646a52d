//! Setup: a node on a fresh store, asked over HTTP as older callers ask. Claim: each row of
//! the contract's table for logic, its failures included, is answered to the letter. Why it
//! matters: gateways and other services of other makers rely on these shapes.
#![allow(clippy::unwrap_used, reason = "a test panics where it meets the unexpected")]

mod support;

use serde_json::{Value, json};
use support::{Answer, GENERAL, Running, User, node, node_with, seqs};

fn is_sid(text: &str) -> bool {
    uuid::Uuid::try_parse(text).is_ok_and(|id| id.get_version_num() == 4) && text.len() == 36
}

fn assert_session(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(is_sid(&answer.text), "{:?}", answer.text);
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    let expected = format!("sid={}; HttpOnly; SameSite=Lax; Path=/; Max-Age=86400", answer.text);
    assert_eq!(cookies, [expected.as_str()]);
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    answer.text.clone()
}

async fn send(node: &Running, user: &User, content: &str) -> Answer {
    let body = json!({"roomId": GENERAL, "userId": user.id, "username": user.username,
        "messages": [{"type": "text", "content": content}]});
    node.post("/logic/send", body.to_string()).await
}

async fn history(node: &Running, body: Value) -> Value {
    let answer = node.post("/logic/room_history", body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/json");
    answer.json()
}

#[tokio::test]
async fn register_answers_the_sid_as_text_and_cookie() {
    let node = node().await;
    let body = r#"{"username":"ann","email":"ann@mail.example","password":"pw"}"#;
    let sid = assert_session(&node.post("/logic/register", body).await);
    let verified = node.post("/logic/verify", json!({"cookie": sid}).to_string()).await;
    assert_eq!(verified.json()["username"], "ann");
}

#[tokio::test]
async fn register_names_what_is_taken_and_what_is_wrong() {
    let node = node().await;
    let register = async |username: &str, email: &str, password: &str| {
        let body = json!({"username": username, "email": email, "password": password});
        node.post("/logic/register", body.to_string()).await
    };
    assert_session(&register("ann", "ann@mail.example", "pw").await);
    register("ANN", "other@mail.example", "pw").await.assert_failure(400, "USERNAME_EXISTS");
    register("bob", "Ann@Mail.example", "pw").await.assert_failure(400, "EMAIL_EXISTS");
    register("ANN", "Ann@Mail.example", "pw").await.assert_failure(400, "USERNAME_EXISTS");
    for (username, email, password) in
        [("", "x@y", "pw"), ("x", "no-at-sign", "pw"), ("x", "x@y", ""), ("a\0", "x@y", "pw")]
    {
        register(username, email, password).await.assert_failure(400, "");
    }
    node.post("/logic/register", "").await.assert_failure(400, "");
    node.post("/logic/register", "{").await.assert_failure(400, "");
    node.post("/logic/register", r#"{"username":1}"#).await.assert_failure(400, "");
}

#[tokio::test]
async fn login_answers_like_register_and_fails_without_saying_why() {
    let node = node().await;
    let user = node.user_named("ann", "ann@mail.example").await;
    let login = async |email: &str, password: &str| {
        node.post("/logic/login", json!({"email": email, "password": password}).to_string()).await
    };
    let sid = assert_session(&login("ANN@mail.example", &user.password).await);
    assert_ne!(sid, user.sid);
    for answer in [login("ann@mail.example", "wrong").await, login("bob@mail.example", "wrong").await] {
        answer.assert_failure(400, "LOGIN_FAILED");
        assert_eq!(answer.text, r#"{"id":"LOGIN_FAILED","message":"email password no match"}"#);
        assert!(answer.headers.get("set-cookie").is_none());
    }
    login("", "x").await.assert_failure(400, "");
    login("ann@mail.example", "").await.assert_failure(400, "");
}

#[tokio::test]
async fn verify_answers_the_user_or_401() {
    let node = node().await;
    let user = node.user_named("Zoë", "zoe@mail.example").await;
    let answer = node.post("/logic/verify", json!({"cookie": user.sid}).to_string()).await;
    assert_eq!(answer.status, 200);
    let expected =
        format!(r#"{{"success":true,"user_id":"{}","username":"Zoë","email":"zoe@mail.example"}}"#, user.id);
    assert_eq!(answer.text, expected);
    for body in [
        json!({"cookie": uuid::Uuid::new_v4().to_string()}).to_string(),
        json!({"cookie": user.sid.to_uppercase()}).to_string(),
        json!({"cookie": 7}).to_string(),
        String::new(),
    ] {
        let answer = node.post("/logic/verify", body).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.text, r#"{"success":false,"error":"Invalid cookie or user not found"}"#);
    }
}

#[tokio::test]
async fn hello_is_the_whole_frame() {
    let node = node().await;
    let user = node.user_named("ann", "ann@mail.example").await;
    assert_eq!(send(&node, &user, "Hello!").await.status, 200);
    let body = json!({"userId": user.id, "username": "ann"}).to_string();
    let answer = node.post("/logic/hello", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let json = answer.json();
    let room = &json["payload"]["rooms"][0];
    let message = &room["messages"][0];
    let expected = format!(
        concat!(
            r#"{{"type":"hello","payload":{{"me":{{"id":"{user}","username":"ann"}},"rooms":["#,
            r#"{{"id":"room-001","name":"General","creator_id":"","hasMoreMessages":false,"#,
            r#""messages":[{{"id":{id},"content":"Hello!","timestamp":{timestamp},"#,
            r#""user":{{"id":"{user}","username":"ann"}},"seq":1}}],"#,
            r#""epoch":{epoch},"lastSeq":1,"kind":"default"}}]}}}}"#
        ),
        user = user.id,
        id = message["id"],
        timestamp = message["timestamp"],
        epoch = room["epoch"],
    );
    assert_eq!(answer.text, expected);
    node.post("/logic/hello", r#"{"userId":"nobody"}"#).await.assert_failure(404, "UNKNOWN_USER");
    node.post("/logic/hello", "").await.assert_failure(400, "BAD_INPUT");
}

#[tokio::test]
async fn send_answers_success_once_the_messages_are_stored() {
    let node = node().await;
    let user = node.user().await;
    let answer = send(&node, &user, "Hello!").await;
    assert_eq!((answer.status, answer.text.as_str()), (200, r#"{"status":"success"}"#));
    // Older callers spell the name otherwise, leave the type out, or number their users.
    let older = json!({"roomId": GENERAL, "userId": user.id, "userName": "old name",
        "messages": [{"content": "a"}, {"content": "b", "clientMessageId": "k"}]});
    assert_eq!(node.post("/logic/send", older.to_string()).await.status, 200);
    let page = history(&node, json!({"roomId": GENERAL, "userId": user.id})).await;
    let messages = &page["payload"]["messages"];
    assert_eq!(seqs(messages), [1, 2, 3]);
    assert_eq!(messages[2]["user"]["username"], "old name");
    // The same key again is stored once; without a key each send is its own.
    assert_eq!(node.post("/logic/send", older.to_string()).await.status, 200);
    let page = history(&node, json!({"roomId": GENERAL, "userId": user.id})).await;
    assert_eq!(seqs(&page["payload"]["messages"]), [1, 2, 3, 4]);
}

#[tokio::test]
async fn send_refuses_bad_input_and_stores_nothing() {
    let node = node().await;
    let user = node.user().await;
    let send = async |room_id: Value, user_id: Value, messages: Value| {
        let body = json!({"roomId": room_id, "userId": user_id, "username": "x", "messages": messages});
        node.post("/logic/send", body.to_string()).await
    };
    let ok = json!([{"content": "x"}]);
    let id = json!(user.id);
    send(json!("room-404"), id.clone(), ok.clone()).await.assert_failure(404, "UNKNOWN_ROOM");
    send(json!("global"), id.clone(), ok.clone()).await.assert_failure(404, "UNKNOWN_ROOM");
    send(json!(""), id.clone(), ok.clone()).await.assert_failure(400, "BAD_INPUT");
    send(json!(7), id.clone(), ok.clone()).await.assert_failure(400, "BAD_INPUT");
    send(json!(GENERAL), json!("nobody"), ok.clone()).await.assert_failure(404, "UNKNOWN_USER");
    // A number is read as its decimal string: such a user does not exist here.
    send(json!(GENERAL), json!(42), ok.clone()).await.assert_failure(404, "UNKNOWN_USER");
    for messages in [
        json!([]),
        json!(null),
        json!([{"content": ""}]),
        json!([{"content": 1}]),
        json!([{"content": "x".repeat(4097)}]),
        json!([{"content": "fits"}, {"content": "x".repeat(4097)}]),
        json!([{"content": "x", "clientMessageId": "k".repeat(65)}]),
        Value::Array(vec![json!({"content": "x"}); 65]),
    ] {
        send(json!(GENERAL), id.clone(), messages).await.assert_failure(400, "BAD_INPUT");
    }
    node.post("/logic/send", "[").await.assert_failure(400, "BAD_JSON");
    let page = history(&node, json!({"roomId": GENERAL, "userId": user.id})).await;
    assert_eq!(seqs(&page["payload"]["messages"]), [0u64; 0]);
}

#[tokio::test]
async fn a_user_with_a_decimal_id_may_be_named_by_number() {
    let node = node().await;
    let user = corecast_backends::store::NewUser {
        user_id: "42".into(),
        username: "old".into(),
        username_folded: "old".into(),
        email: "old@mail.example".into(),
        email_folded: "old@mail.example".into(),
        password_hash: String::new(),
        salt: String::new(),
        now_ms: 1,
    };
    use corecast_backends::store::Store;
    node.backends.store.create_user(user).await.unwrap();
    let body = json!({"roomId": GENERAL, "userId": 42, "messages": [{"content": "x"}]});
    assert_eq!(node.post("/logic/send", body.to_string()).await.status, 200);
    let page = history(&node, json!({"roomId": GENERAL, "userId": 42})).await;
    let author = &page["payload"]["messages"][0]["user"];
    assert_eq!(author, &json!({"id": "42", "username": "old"}));
}

#[tokio::test]
async fn room_history_takes_the_frame_and_the_flat_form() {
    let node = node().await;
    let user = node.user().await;
    let ids = node.fill(GENERAL, &user, 5).await;
    let flat = json!({"roomId": GENERAL, "firstMessageId": ids[3], "count": 2, "userId": user.id,
        "username": user.username});
    let framed = json!({"type": "requestRoomHistory", "payload": flat});
    let (flat, framed) = (history(&node, flat).await, history(&node, framed).await);
    assert_eq!(flat, framed);
    assert_eq!(flat["type"], "serverRoomHistory");
    assert_eq!(flat["payload"]["roomId"], GENERAL);
    assert_eq!(flat["payload"]["name"], "");
    assert_eq!(flat["payload"]["hasMoreMessages"], true);
    assert_eq!(seqs(&flat["payload"]["messages"]), [2, 3]);
    let newest = history(&node, json!({"roomId": GENERAL, "firstMessageId": ""})).await;
    assert_eq!(seqs(&newest["payload"]["messages"]), [1, 2, 3, 4, 5]);
    assert_eq!(newest["payload"]["hasMoreMessages"], false);
}

#[tokio::test]
async fn room_history_refuses_what_is_not_there() {
    let node = node().await;
    let user = node.user().await;
    let ask = async |body: Value| node.post("/logic/room_history", body.to_string()).await;
    ask(json!({"roomId": "room-404"})).await.assert_failure(404, "UNKNOWN_ROOM");
    ask(json!({"roomId": "global"})).await.assert_failure(404, "UNKNOWN_ROOM");
    ask(json!({"roomId": GENERAL, "userId": "nobody"})).await.assert_failure(404, "UNKNOWN_USER");
    ask(json!({"roomId": GENERAL, "userId": user.id, "firstMessageId": "1-1"}))
        .await
        .assert_failure(400, "UNKNOWN_MESSAGE");
    ask(json!({"roomId": GENERAL, "count": 0})).await.assert_failure(400, "BAD_INPUT");
    ask(json!({"roomId": GENERAL, "count": 201})).await.assert_failure(400, "BAD_INPUT");
    ask(json!({})).await.assert_failure(400, "BAD_INPUT");
}

#[tokio::test]
async fn room_create_answers_the_frame_and_four_empty_strings_when_taken() {
    let node =
        node_with(|config| config.rooms.create_kind = serde_json::from_str("\"public\"").unwrap()).await;
    let user = node.user_named("ann", "ann@mail.example").await;
    let payload = json!({"roomName": "dpdk", "creatorId": user.id, "creatorUsername": "ann"});
    let framed = json!({"type": "clientCreateRoom", "payload": payload}).to_string();
    let answer = node.post("/logic/room/create", framed.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let room_id = answer.json()["payload"]["roomId"].as_str().unwrap().to_owned();
    let epoch = &answer.json()["payload"]["epoch"];
    assert!(epoch.as_u64().unwrap() > 1_690_000_000_000);
    let expected = format!(
        r#"{{"type":"serverCreateRoom","payload":{{"roomId":"{room_id}","roomName":"dpdk","creatorId":"{}","creatorUsername":"ann","kind":"public","epoch":{epoch}}}}}"#,
        user.id
    );
    assert_eq!(answer.text, expected);
    let taken = node.post("/logic/room/create", framed).await;
    assert_eq!(taken.status, 200);
    assert_eq!(
        taken.text,
        r#"{"type":"serverCreateRoom","payload":{"roomId":"","roomName":"","creatorId":"","creatorUsername":""}}"#
    );
    // Names are compared exactly, and flat bodies are taken too.
    let flat = json!({"roomName": "DPDK", "creatorId": user.id}).to_string();
    let answer = node.post("/logic/room/create", flat).await;
    assert_eq!(answer.json()["payload"]["creatorUsername"], "ann");
    let long = json!({"roomName": "x".repeat(65), "creatorId": user.id}).to_string();
    node.post("/logic/room/create", long).await.assert_failure(400, "BAD_INPUT");
    let nobody = json!({"roomName": "y", "creatorId": "nobody"}).to_string();
    node.post("/logic/room/create", nobody).await.assert_failure(404, "UNKNOWN_USER");
}

#[tokio::test]
async fn rooms_are_listed_with_their_times() {
    let node = node().await;
    let user = node.user().await;
    node.create_room("second", &user, "g:1").await;
    for body in ["{}", ""] {
        let answer = node.post("/logic/rooms", body).await;
        assert_eq!(answer.status, 200);
        let json = answer.json();
        assert_eq!(json["status"], "success");
        assert_eq!(json["rooms"].as_array().unwrap().len(), 2);
        let first = &json["rooms"][0];
        let expected = format!(
            r#"{{"rooms":[{{"id":"room-001","name":"General","creator_id":"","create_time":{},"update_time":{}}},"#,
            first["create_time"], first["update_time"]
        );
        assert!(answer.text.starts_with(&expected), "{}", answer.text);
        assert!(answer.text.ends_with(r#"],"status":"success"}"#));
        assert!(first["create_time"].as_i64().unwrap() > 1_690_000_000_000);
        assert_eq!(json["rooms"][1]["creator_id"], user.id);
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_404_and_large_bodies_413() {
    let node = node().await;
    node.post("/logic/nothing", "{}").await.assert_failure(404, "NOT_FOUND");
    node.get("/logic/send").await.assert_failure(404, "NOT_FOUND");
    node.get("/").await.assert_failure(404, "NOT_FOUND");
    let limit = 512 << 10;
    let padded = |bytes: usize| format!("{{}}{}", " ".repeat(bytes - 2));
    assert_eq!(node.post("/logic/rooms", padded(limit)).await.status, 200);
    node.post("/logic/rooms", padded(limit + 1)).await.assert_failure(413, "TOO_LARGE");
}

#[tokio::test]
async fn a_full_frame_of_the_largest_messages_is_taken() {
    let node = node().await;
    let user = node.user().await;
    let messages: Vec<_> = (0..64)
        .map(|index| json!({"content": "x".repeat(4096), "clientMessageId": format!("{index:064}")}))
        .collect();
    let body = json!({"roomId": GENERAL, "userId": user.id, "messages": messages});
    assert_eq!(node.post("/logic/send", body.to_string()).await.status, 200);
}

#[tokio::test]
async fn the_content_type_does_not_matter() {
    let node = node().await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "nonsense"] {
        let request = reqwest::Client::new().post(format!("{}/logic/rooms", node.http));
        let response = request.header("content-type", kind).body("{}").send().await.unwrap();
        assert_eq!(response.status(), 200, "{kind}");
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_503_with_retry_after() {
    let node = node().await;
    let user = node.user().await;
    node.backends.close().await;
    let answers = [
        send(&node, &user, "x").await,
        node.post("/logic/login", json!({"email": user.email, "password": "x"}).to_string()).await,
        node.post("/logic/rooms", "").await,
        node.post("/logic/hello", json!({"userId": user.id}).to_string()).await,
        node.post("/logic/room_history", json!({"roomId": GENERAL}).to_string()).await,
        node.get("/readyz").await,
    ];
    for answer in answers {
        answer.assert_failure(503, "UNAVAILABLE");
        assert_eq!(answer.headers["retry-after"], "1");
    }
    // Nobody is logged out by an outage: what cannot be asked is not invalid.
    let unknown = json!({"cookie": uuid::Uuid::new_v4().to_string()}).to_string();
    node.post("/logic/verify", unknown).await.assert_failure(503, "UNAVAILABLE");
    assert_eq!(node.get("/healthz").await.status, 200);
}
