//! Setup: `corecast up`, plain HTTP at logic, as with `curl`. Claim: each row of CONTRACT §4,
//! its failures included. Why it matters: other services and operators rely on it.

use serde_json::{Value, json};

use crate::support::http::{post, post_with};
use crate::support::{Account, Browser, Corecast, GENERAL, folder};

const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

async fn with_ann() -> (tempfile::TempDir, Corecast, Account) {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    (data, corecast, ann)
}

fn send(account: &Account, content: &str) -> Value {
    json!({"roomId": GENERAL, "userId": account.id, "username": account.username,
        "messages": [{"type": "text", "content": content}]})
}

#[tokio::test]
async fn register_and_login_answer_the_uuid_as_text() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let body = json!({"username": "ann", "email": "ann@example.org", "password": "secret"});
    let answer = post(corecast.logic(), "/logic/register", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.text, answer.sid());
    post(corecast.logic(), "/logic/register", &body).await.expect_failure(400, "USERNAME_EXISTS");
    let login = post(corecast.logic(), "/logic/login", &body).await;
    assert_eq!((login.status, login.text.as_str()), (200, login.sid().as_str()));
    let wrong = json!({"email": "ann@example.org", "password": "wrong"});
    let refused = post(corecast.logic(), "/logic/login", &wrong).await;
    assert_eq!(refused.expect_failure(400, "LOGIN_FAILED"), "email password no match");
}

#[tokio::test]
async fn verify_tells_who_it_is_or_that_nobody_is() {
    let (_data, corecast, ann) = with_ann().await;
    let answer = post(corecast.logic(), "/logic/verify", &json!({"cookie": ann.sid})).await;
    assert_eq!(answer.status, 200);
    let expected = json!({"success": true, "user_id": ann.id, "username": "ann", "email": ann.email});
    assert_eq!(answer.json(), expected);
    for cookie in [json!(NOBODY), json!("nonsense"), json!(""), json!(7), Value::Null] {
        let answer = post(corecast.logic(), "/logic/verify", &json!({ "cookie": cookie })).await;
        assert_eq!(answer.status, 401, "{cookie}");
        assert_eq!(answer.json(), json!({"success": false, "error": "Invalid cookie or user not found"}));
    }
}

#[tokio::test]
async fn hello_is_the_frame_a_browser_gets() {
    let (_data, corecast, ann) = with_ann().await;
    let answer = post(corecast.logic(), "/logic/hello", &json!({"userId": ann.id, "username": "ann"})).await;
    assert_eq!(answer.status, 200);
    let frame = answer.json();
    assert_eq!(
        (&frame["type"], &frame["payload"]["me"]),
        (&json!("hello"), &json!({"id": ann.id, "username": "ann"}))
    );
    assert_eq!(frame["payload"]["rooms"][0]["id"], GENERAL);
    let shown = Browser::knock(corecast.http(), &ann.sid).open().await.hello().await;
    assert_eq!(frame["payload"], shown);
}

#[tokio::test]
async fn a_send_is_durable_and_reaches_browsers() {
    let (_data, corecast, ann) = with_ann().await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).open().await;
    browser.hello().await;
    let answer = post(corecast.logic(), "/logic/send", &send(&ann, "by curl")).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"status": "success"})));
    assert_eq!(browser.message(GENERAL).await["content"], "by curl");
    // The other spelling, without a type, with a key that is sent twice.
    let body = json!({"roomId": GENERAL, "userId": ann.id, "userName": "ann",
        "messages": [{"content": "once", "clientMessageId": "k"}]});
    for _ in 0..2 {
        assert_eq!(post(corecast.logic(), "/logic/send", &body).await.status, 200);
    }
    post(corecast.logic(), "/logic/send", &send(&ann, "the end")).await;
    assert_eq!(browser.message(GENERAL).await["content"], "once");
    assert_eq!(browser.message(GENERAL).await["content"], "the end");
}

#[tokio::test]
async fn a_send_that_is_refused_says_why() {
    let (_data, corecast, ann) = with_ann().await;
    let change = |field: &str, value: Value| {
        let mut body = send(&ann, "x");
        body[field] = value;
        body
    };
    for (body, status, id) in [
        (change("roomId", json!("room-999")), 404, "UNKNOWN_ROOM"),
        (change("roomId", json!("global")), 404, "UNKNOWN_ROOM"),
        (change("userId", json!(NOBODY)), 404, "UNKNOWN_USER"),
        (change("userId", json!(7)), 404, "UNKNOWN_USER"),
        (change("messages", json!([])), 400, "BAD_INPUT"),
        (change("messages", json!([{"content": ""}])), 400, "BAD_INPUT"),
        (change("messages", json!([{"content": "x".repeat(4097)}])), 400, "BAD_INPUT"),
        (change("roomId", Value::Null), 400, "BAD_INPUT"),
    ] {
        post(corecast.logic(), "/logic/send", &body).await.expect_failure(status, id);
    }
    post_with(corecast.logic(), "/logic/send", &[], "{").await.expect_failure(400, "BAD_JSON");
    let hello = post(corecast.logic(), "/logic/hello", &json!({"userId": ann.id, "username": "ann"})).await;
    assert_eq!(hello.json()["payload"]["rooms"][0]["lastSeq"], 0, "nothing was stored");
}

#[tokio::test]
async fn history_takes_the_frame_and_the_flat_form() {
    let (_data, corecast, ann) = with_ann().await;
    for index in 1..=5 {
        post(corecast.logic(), "/logic/send", &send(&ann, &format!("message {index}"))).await;
    }
    let flat =
        json!({"roomId": GENERAL, "firstMessageId": "", "count": 2, "userId": ann.id, "username": "ann"});
    let framed = json!({"type": "requestRoomHistory", "payload": flat});
    let page = post(corecast.logic(), "/logic/room_history", &flat).await.json();
    assert_eq!(page["type"], "serverRoomHistory");
    let contents = |page: &Value| -> Vec<String> {
        let messages = page["payload"]["messages"].as_array().expect("messages").iter();
        messages.map(|one| one["content"].as_str().expect("content").to_owned()).collect()
    };
    assert_eq!(contents(&page), ["message 4", "message 5"], "oldest first");
    assert_eq!(page["payload"]["hasMoreMessages"], true);
    assert_eq!(post(corecast.logic(), "/logic/room_history", &framed).await.json(), page);
    let mut before = flat.clone();
    before["firstMessageId"] = page["payload"]["messages"][0]["id"].clone();
    let older = post(corecast.logic(), "/logic/room_history", &before).await.json();
    assert_eq!(contents(&older), ["message 2", "message 3"]);
    for (field, value, status, id) in [
        ("roomId", json!("room-999"), 404, "UNKNOWN_ROOM"),
        ("firstMessageId", json!("nonsense"), 400, "UNKNOWN_MESSAGE"),
        ("count", json!(201), 400, "BAD_INPUT"),
    ] {
        let mut body = flat.clone();
        body[field] = value;
        post(corecast.logic(), "/logic/room_history", &body).await.expect_failure(status, id);
    }
}

#[tokio::test]
async fn a_room_is_created_in_both_forms_and_a_taken_name_is_four_empty_strings() {
    let (_data, corecast, ann) = with_ann().await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).open().await;
    browser.hello().await;
    let flat = json!({"roomName": "flat", "creatorId": ann.id, "creatorUsername": "ann"});
    let framed = json!({"type": "clientCreateRoom",
        "payload": {"roomName": "framed", "creatorId": ann.id, "creatorUsername": "ann"}});
    for (body, name) in [(&flat, "flat"), (&framed, "framed")] {
        let answer = post(corecast.logic(), "/logic/room/create", body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let frame = answer.json();
        assert_eq!(
            (&frame["type"], &frame["payload"]["roomName"]),
            (&json!("serverCreateRoom"), &json!(name))
        );
        assert_eq!(frame["payload"]["creatorId"], ann.id.as_str());
        assert_eq!(browser.frame("serverCreateRoom").await["roomId"], frame["payload"]["roomId"]);
    }
    let taken = post(corecast.logic(), "/logic/room/create", &flat).await;
    let empty = json!({"roomId": "", "roomName": "", "creatorId": "", "creatorUsername": ""});
    assert_eq!((taken.status, &taken.json()["payload"]), (200, &empty));
    let nameless = json!({"roomName": "", "creatorId": ann.id, "creatorUsername": "ann"});
    post(corecast.logic(), "/logic/room/create", &nameless).await.expect_failure(400, "BAD_INPUT");
}

#[tokio::test]
async fn rooms_lists_every_room_with_its_times() {
    let (_data, corecast, ann) = with_ann().await;
    let body = json!({"roomName": "second", "creatorId": ann.id, "creatorUsername": "ann"});
    post(corecast.logic(), "/logic/room/create", &body).await;
    for body in ["{}", ""] {
        let answer = post_with(corecast.logic(), "/logic/rooms", &[], body).await;
        assert_eq!(answer.status, 200, "an empty body counts as {{}}");
        let list = answer.json();
        assert_eq!(list["status"], "success");
        let rooms = list["rooms"].as_array().expect("rooms");
        let names: Vec<&Value> = rooms.iter().map(|room| &room["name"]).collect();
        assert_eq!(names, ["General", "second"], "global is not among them");
        for room in rooms {
            for field in ["create_time", "update_time"] {
                let time = room[field].as_u64().expect("a number");
                assert!((1_600_000_000_000..10_000_000_000_000).contains(&time), "milliseconds: {time}");
            }
        }
        assert_eq!((&rooms[0]["creator_id"], &rooms[1]["creator_id"]), (&json!(""), &json!(ann.id)));
    }
}

#[tokio::test]
async fn json_is_read_whatever_the_content_type_says_and_paths_are_known() {
    let (_data, corecast, ann) = with_ann().await;
    let headers = [("content-type", "text/plain")];
    let body = send(&ann, "plain").to_string();
    assert_eq!(post_with(corecast.logic(), "/logic/send", &headers, &body).await.status, 200);
    post(corecast.logic(), "/logic/nothing", &json!({})).await.expect_failure(404, "NOT_FOUND");
}
