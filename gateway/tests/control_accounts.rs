//! Setup: a gateway and a logic node in the test; plain HTTP over kept-alive connections.
//! Claim: accounts, cookies, origins and errors are what the contract says, byte for byte.
//! Why: browsers and scripts rely on these bytes.

mod control_support;

use std::sync::atomic::Ordering;

use control_support::{ANN, World, within};
use reqwest::{Client, Response, StatusCode};

async fn post(world: &World, path: &str, body: &str) -> Response {
    within(Client::new().post(world.url(path)).body(body.to_owned()).send()).await.expect("answered")
}

async fn refused(response: Response) -> (u16, String) {
    (response.status().as_u16(), response.text().await.expect("text"))
}

fn error(id: &str, message: &str) -> String {
    format!(r#"{{"id":"{id}","message":"{message}"}}"#)
}

#[tokio::test]
async fn a_session_is_a_cookie_with_exactly_these_attributes() {
    let world = World::start().await;
    let expected = format!("sid={ANN}; HttpOnly; SameSite=Lax; Path=/; Max-Age=86400");
    for (path, body) in [
        ("/api/register", r#"{"username":"ann","email":"a@b.c","password":"x"}"#),
        ("/api/create-account", r#"{"username":"ann","email":"a@b.c","password":"x"}"#),
        ("/api/login", r#"{"email":"a@b.c","password":"right"}"#),
    ] {
        let response = post(&world, path, body).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT, "{path}");
        assert_eq!(response.headers()["set-cookie"], expected.as_str(), "{path}");
    }
    let response = Client::new()
        .post(world.url("/api/login"))
        .header("x-forwarded-proto", "https")
        .header("content-type", "text/plain")
        .body(r#"{"email":"a@b.c","password":"right"}"#)
        .send()
        .await
        .expect("answered");
    assert_eq!(response.headers()["set-cookie"], format!("{expected}; Secure").as_str());
}

#[tokio::test]
async fn what_logic_refuses_passes_unchanged() {
    let world = World::start().await;
    let taken = post(&world, "/api/register", r#"{"username":"taken","email":"a@b.c","password":"x"}"#).await;
    assert_eq!(refused(taken).await, (400, error("USERNAME_EXISTS", "that name is taken")));
    let empty = post(&world, "/api/register", r#"{"username":"","email":"a@b.c","password":"x"}"#).await;
    assert_eq!(refused(empty).await, (400, error("", "username must have 1 to 32 characters")));
    let wrong = post(&world, "/api/login", r#"{"email":"a@b.c","password":"wrong"}"#).await;
    assert_eq!(refused(wrong).await, (400, error("LOGIN_FAILED", "email password no match")));
    let missing = post(&world, "/api/login", "").await;
    assert_eq!(refused(missing).await, (400, error("", "email must be a string")));
}

#[tokio::test]
async fn a_foreign_origin_is_refused_and_an_allowed_one_is_not() {
    let world = World::start_with(|config| config.origins = vec!["https://chat.example".to_owned()]).await;
    let own = world.url("");
    for (origin, status) in
        [("https://evil.example", 403), ("null", 403), ("https://chat.example", 204), (own.as_str(), 204)]
    {
        let response = Client::new()
            .post(world.url("/api/login"))
            .header("origin", origin)
            .body(r#"{"email":"a@b.c","password":"right"}"#)
            .send()
            .await
            .expect("answered");
        assert_eq!(response.status().as_u16(), status, "{origin}");
    }
}

#[tokio::test]
async fn bodies_paths_and_methods_have_their_own_errors() {
    let world = World::start().await;
    let large = format!(r#"{{"email":"{}"}}"#, "x".repeat(64 << 10));
    assert_eq!(post(&world, "/api/login", &large).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        refused(post(&world, "/api/nothing", "{}").await).await,
        (404, error("NOT_FOUND", "no such path"))
    );
    let get = Client::new().get(world.url("/api/login")).send().await.expect("answered");
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get.headers()["x-content-type-options"], "nosniff");
    assert!(get.headers()["content-security-policy"].to_str().expect("ascii").contains("default-src 'self'"));
}

#[tokio::test]
async fn logic_away_is_503_with_a_time_to_come_back() {
    let world = World::without_logic().await;
    for (path, body) in [
        ("/api/register", r#"{"username":"ann","email":"a@b.c","password":"x"}"#),
        ("/api/login", r#"{"email":"a@b.c","password":"right"}"#),
    ] {
        let response = post(&world, path, body).await;
        assert_eq!(response.headers()["retry-after"], "1", "{path}");
        assert_eq!(refused(response).await, (503, error("UNAVAILABLE", "logic cannot be reached")), "{path}");
    }
}

#[tokio::test]
async fn a_registration_that_may_have_arrived_is_not_sent_again() {
    let world = World::start().await;
    world.logic.down.store(true, Ordering::SeqCst);
    let body = r#"{"username":"ann","email":"a@b.c","password":"x"}"#;
    assert_eq!(post(&world, "/api/register", body).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.logic.registers.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn logout_clears_the_cookie_and_closes_the_sockets() {
    let world = World::start().await;
    let (mut old, mut v1) = (world.old_client().await, world.v1_client().await);
    let response = Client::new()
        .post(world.url("/api/logout"))
        .header("cookie", format!("sid={ANN}"))
        .send()
        .await
        .expect("answered");
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(response.headers()["set-cookie"], "sid=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0");
    assert_eq!((old.close_code().await, v1.close_code().await), (1008, 4501));
    assert_eq!(post(&world, "/api/logout", "").await.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn the_first_page_is_html() {
    let world = World::start().await;
    let response = reqwest::get(world.url("/")).await.expect("answered");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(response.headers()["cache-control"], "no-cache");
}
