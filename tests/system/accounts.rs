//! Setup: `corecast up`, plain HTTP at the gateway. Claim: each row of CONTRACT §2 that is
//! about accounts, its failures included. Why it matters: this is the door.

use serde_json::json;

use crate::support::http::{post, post_with};
use crate::support::{Browser, Corecast, Setup, folder};

/// Attributes that every session cookie has, after its value.
const ATTRIBUTES: &str = "; HttpOnly; SameSite=Lax; Path=/; Max-Age=86400";

fn person(name: &str) -> serde_json::Value {
    json!({"username": name, "email": format!("{name}@example.org"), "password": "secret"})
}

#[tokio::test]
async fn both_spellings_of_registration_answer_204_and_a_cookie() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    for (path, name) in [("/api/create-account", "ann"), ("/api/register", "bob")] {
        let answer = post(corecast.http(), path, &person(name)).await;
        assert_eq!((answer.status, answer.text.as_str()), (204, ""), "{path}");
        let sid = answer.sid();
        assert_eq!(sid.len(), 36, "a uuid: {sid}");
        assert_eq!(answer.header("set-cookie"), Some(format!("sid={sid}{ATTRIBUTES}").as_str()));
        let verified = post(corecast.logic(), "/logic/verify", &json!({ "cookie": sid })).await.json();
        assert_eq!(verified["username"], name);
    }
}

#[tokio::test]
async fn the_cookie_is_secure_when_the_request_came_by_tls() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let headers = [("x-forwarded-proto", "https")];
    let answer = post_with(corecast.http(), "/api/register", &headers, &person("ann").to_string()).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    assert!(answer.header("set-cookie").is_some_and(|cookie| cookie.ends_with("; Secure")), "{answer:?}");
}

#[tokio::test]
async fn a_taken_name_or_email_is_refused_without_regard_to_case() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    assert_eq!(post(corecast.http(), "/api/register", &person("Ann")).await.status, 204);
    let same_name = json!({"username": "aNN", "email": "other@example.org", "password": "secret"});
    let same_email = json!({"username": "other", "email": "ANN@example.org", "password": "secret"});
    for (body, id) in [(same_name, "USERNAME_EXISTS"), (same_email, "EMAIL_EXISTS")] {
        post(corecast.http(), "/api/register", &body).await.expect_failure(400, id);
        post(corecast.http(), "/api/create-account", &body).await.expect_failure(400, id);
    }
}

#[tokio::test]
async fn bad_input_has_an_empty_id_and_names_the_field() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    for (body, field) in [
        (json!({"email": "a@example.org", "password": "p"}), "username"),
        (json!({"username": "", "email": "a@example.org", "password": "p"}), "username"),
        (json!({"username": "x".repeat(33), "email": "a@example.org", "password": "p"}), "username"),
        (json!({"username": "ann", "email": "nobody", "password": "p"}), "email"),
        (json!({"username": "ann", "email": 7, "password": "p"}), "email"),
        (json!({"username": "ann", "email": "a@example.org"}), "password"),
        (json!({"username": "ann", "email": "a@example.org", "password": ""}), "password"),
    ] {
        let message = post(corecast.http(), "/api/register", &body).await.expect_failure(400, "");
        assert!(message.contains(field), "{message:?} names {field}");
    }
    let longest = json!({"username": "é".repeat(32), "email": "a@example.org", "password": "p"});
    assert_eq!(post(corecast.http(), "/api/register", &longest).await.status, 204, "32 characters fit");
    post_with(corecast.http(), "/api/register", &[], "{").await.expect_failure(400, "");
}

#[tokio::test]
async fn login_gives_a_new_session_and_tells_nothing_about_what_was_wrong() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let account = corecast.account("ann").await;
    let right = json!({"email": "ANN@example.org", "password": account.password});
    let answer = post(corecast.http(), "/api/login", &right).await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    assert_ne!(answer.sid(), account.sid);
    assert!(answer.header("set-cookie").is_some_and(|cookie| cookie.ends_with(ATTRIBUTES)), "{answer:?}");
    for wrong in [
        json!({"email": account.email, "password": "wrong"}),
        json!({"email": "nobody@example.org", "password": account.password}),
    ] {
        let answer = post(corecast.http(), "/api/login", &wrong).await;
        assert_eq!(answer.expect_failure(400, "LOGIN_FAILED"), "email password no match");
    }
    post(corecast.http(), "/api/login", &json!({"email": account.email})).await.expect_failure(400, "");
}

#[tokio::test]
async fn logout_ends_the_session_and_closes_its_sockets() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let account = corecast.account("ann").await;
    let mut old = Browser::knock(corecast.http(), &account.sid).open().await;
    let mut new = Browser::knock(corecast.http(), &account.sid).v1().open().await;
    old.hello().await;
    new.hello().await;
    let login = json!({"email": account.email, "password": account.password});
    let other = post(corecast.http(), "/api/login", &login).await.sid();
    let mut elsewhere = Browser::knock(corecast.http(), &other).open().await;
    elsewhere.hello().await;

    let cookie = format!("sid={}", account.sid);
    let answer = post_with(corecast.http(), "/api/logout", &[("cookie", &cookie)], "").await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let cleared = answer.header("set-cookie").expect("the cookie is cleared");
    assert!(cleared.starts_with("sid=;") && cleared.contains("Max-Age=0"), "{cleared}");
    assert_eq!(old.closed().await, Some(1008));
    assert_eq!(new.closed().await, Some(4501));
    let verified = post(corecast.logic(), "/logic/verify", &json!({"cookie": account.sid})).await;
    assert_eq!(verified.status, 401, "the session is gone");
    let mut again = Browser::knock(corecast.http(), &account.sid).open().await;
    assert_eq!(again.closed().await, Some(1008));
    elsewhere.say("room-001", "another session of the same user lives on").await;
    elsewhere.message("room-001").await;
}

#[tokio::test]
async fn logout_without_a_session_is_204_too() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    assert_eq!(post_with(corecast.http(), "/api/logout", &[], "").await.status, 204);
    let headers = [("cookie", "sid=00000000-0000-4000-8000-000000000000")];
    assert_eq!(post_with(corecast.http(), "/api/logout", &headers, "").await.status, 204);
}

#[tokio::test]
async fn json_is_read_whatever_the_content_type_says() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    for (index, kind) in ["text/plain", "application/x-www-form-urlencoded", ""].into_iter().enumerate() {
        let body = person(&format!("user{index}")).to_string();
        let headers = if kind.is_empty() { vec![] } else { vec![("content-type", kind)] };
        assert_eq!(
            post_with(corecast.http(), "/api/register", &headers, &body).await.status,
            204,
            "{kind:?}"
        );
    }
}

#[tokio::test]
async fn a_foreign_origin_is_refused_and_an_allowed_one_is_not() {
    let data = folder();
    let corecast =
        Setup::new(data.path()).set("gateway.origins", "[\"https://chat.example.org\"]").start().await;
    let own = format!("http://{}", corecast.http());
    for (index, (origin, status)) in [
        ("https://evil.example", 403),
        ("null", 403),
        ("https://chat.example.org.evil.example", 403),
        ("https://chat.example.org", 204),
        (own.as_str(), 204),
    ]
    .into_iter()
    .enumerate()
    {
        let body = person(&format!("user{index}")).to_string();
        let answer = post_with(corecast.http(), "/api/register", &[("origin", origin)], &body).await;
        assert_eq!(answer.status, status, "{origin}: {answer:?}");
        if status == 403 {
            answer.expect_failure(403, "FORBIDDEN");
            assert!(answer.header("set-cookie").is_none());
        }
    }
}

#[tokio::test]
async fn unknown_paths_and_oversized_bodies_have_their_own_answers() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    post(corecast.http(), "/api/nothing", &json!({})).await.expect_failure(404, "NOT_FOUND");
    let huge = json!({"username": "ann", "email": "a@example.org", "password": "p".repeat(2 << 20)});
    post(corecast.http(), "/api/register", &huge).await.expect_failure(413, "TOO_LARGE");
}
