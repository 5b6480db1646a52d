//! Setup: a node on a fresh store, asked over gRPC as gateways ask. Claim: names are one
//! regardless of case, sessions live and die as told, on every path. Why it matters: two
//! people with one name, or a session that outlives its logout, cannot be repaired later.
#![allow(clippy::unwrap_used, reason = "a test panics where it meets the unexpected")]

mod support;

use corecast_backends::store::{SessionHash, Store};
use corecast_proto::logic::{LoginRequest, LogoutRequest, RegisterRequest, VerifyRequest};
use sha2::{Digest, Sha256};
use support::{Running, node};

const DAY_MS: i64 = 86_400_000;

fn hash(sid: &str) -> SessionHash {
    Sha256::digest(sid.as_bytes()).into()
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_millis() as i64
}

async fn register_code(node: &Running, username: &str, email: &str) -> String {
    let request = RegisterRequest { username: username.into(), email: email.into(), password: "pw".into() };
    let reply = node.grpc.clone().register(request).await.unwrap().into_inner();
    match reply.refusal {
        Some(refusal) => {
            assert_eq!(reply.sid, "", "a refusal opens no session");
            refusal.code
        }
        None => String::new(),
    }
}

async fn verify(node: &Running, sids: &[&str], from_store: bool) -> Vec<String> {
    let request = VerifyRequest { sids: sids.iter().map(|&sid| sid.into()).collect(), from_store };
    let reply = node.grpc.clone().verify(request).await.unwrap().into_inner();
    reply.sessions.into_iter().map(|session| session.username).collect()
}

#[tokio::test]
async fn names_and_emails_are_unique_whatever_their_case_or_composition() {
    let node = node().await;
    assert_eq!(register_code(&node, "Zoë", "Zoë@Mail.example").await, "");
    for username in ["zoë", "ZOË", "zoe\u{308}", "ZOE\u{308}"] {
        assert_eq!(register_code(&node, username, "free@x").await, "USERNAME_EXISTS", "{username}");
    }
    assert_eq!(register_code(&node, "free", "ZOE\u{308}@MAIL.EXAMPLE").await, "EMAIL_EXISTS");
    assert_eq!(register_code(&node, "ΟΔΟΣ", "odos@x").await, "");
    assert_eq!(register_code(&node, "οδος", "free@x").await, "USERNAME_EXISTS");
    assert_eq!(register_code(&node, "zoe", "free@x").await, "", "another letter is another name");
}

#[tokio::test]
async fn of_many_registrations_of_one_name_one_succeeds() {
    let node = node().await;
    let attempts = (0..8).map(|n| {
        let node = &node;
        async move { register_code(node, if n % 2 == 0 { "ann" } else { "ANN" }, &format!("{n}@x")).await }
    });
    let codes = futures::future::join_all(attempts).await;
    assert_eq!(codes.iter().filter(|code| code.is_empty()).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| *code == "USERNAME_EXISTS").count(), 7, "{codes:?}");
}

#[tokio::test]
async fn bad_input_of_an_account_names_the_field() {
    let node = node().await;
    let request = RegisterRequest { username: "x".repeat(33), email: "x@y".into(), password: "p".into() };
    let refusal = node.grpc.clone().register(request).await.unwrap().into_inner().refusal.unwrap();
    assert_eq!((refusal.code.as_str(), refusal.http_status), ("BAD_INPUT", 400));
    assert!(refusal.message.contains("username") && refusal.message.contains("32"), "{}", refusal.message);
}

#[tokio::test]
async fn an_unknown_email_fails_like_a_wrong_password_and_as_slowly() {
    let node = node().await;
    let user = node.user().await;
    let login = async |email: &str| {
        let request = LoginRequest { email: email.into(), password: "wrong".into() };
        let started = std::time::Instant::now();
        let refusal = node.grpc.clone().login(request).await.unwrap().into_inner().refusal.unwrap();
        (refusal, started.elapsed())
    };
    // The quickest of several: what the work costs at least, whatever else the machine does.
    let (mut known_min, mut unknown_min) = (std::time::Duration::MAX, std::time::Duration::MAX);
    for _ in 0..5 {
        let (known, took) = login(&user.email).await;
        known_min = known_min.min(took);
        let (unknown, took) = login("nobody@mail.example").await;
        unknown_min = unknown_min.min(took);
        assert_eq!(known, unknown);
        assert_eq!(known.code, "LOGIN_FAILED");
    }
    assert!(unknown_min * 3 > known_min, "known {known_min:?}, unknown {unknown_min:?}");
}

#[tokio::test]
async fn many_sessions_are_answered_in_the_order_asked() {
    let node = node().await;
    let (ann, bob) = (node.user_named("ann", "a@x").await, node.user_named("bob", "b@x").await);
    let unknown = uuid::Uuid::new_v4().to_string();
    let asked = [bob.sid.as_str(), "", &unknown, &ann.sid, "not a sid", &bob.sid];
    for from_store in [false, true] {
        let names = verify(&node, &asked, from_store).await;
        assert_eq!(names, ["bob", "", "", "ann", "", "bob"], "from_store {from_store}");
    }
    let many: Vec<&str> = (0..2000).map(|n| if n % 2 == 0 { ann.sid.as_str() } else { &unknown }).collect();
    let names = verify(&node, &many, true).await;
    assert_eq!(names.len(), 2000);
    assert!(names.iter().enumerate().all(|(n, name)| (name == "ann") == (n % 2 == 0)));
}

#[tokio::test]
async fn logout_ends_a_session_at_once_and_no_other() {
    let node = node().await;
    let user = node.user_named("ann", "a@x").await;
    let request = LoginRequest { email: "a@x".into(), password: user.password.clone() };
    let second = node.grpc.clone().login(request).await.unwrap().into_inner().sid;
    assert_eq!(verify(&node, &[&user.sid, &second], false).await, ["ann", "ann"]);
    node.grpc.clone().logout(LogoutRequest { sid: user.sid.clone() }).await.unwrap();
    for from_store in [false, true, false] {
        assert_eq!(verify(&node, &[&user.sid, &second], from_store).await, ["", "ann"]);
    }
    // Twice is once, and nonsense ends nothing.
    for sid in [user.sid.as_str(), "", "nonsense"] {
        node.grpc.clone().logout(LogoutRequest { sid: sid.into() }).await.unwrap();
    }
    assert_eq!(verify(&node, &[&second], true).await, ["ann"]);
}

#[tokio::test]
async fn a_late_fill_of_the_cache_does_not_bring_a_session_back() {
    use corecast_backends::hotset::{CachedSession, HotSet};
    let node = node().await;
    let user = node.user_named("ann", "a@x").await;
    node.grpc.clone().logout(LogoutRequest { sid: user.sid.clone() }).await.unwrap();
    // What a verify would write that had read the store just before the logout.
    let stale = CachedSession {
        user_id: user.id.clone(),
        username: "ann".into(),
        email: "a@x".into(),
        expires_ms: now_ms() + DAY_MS,
    };
    let ttl = std::time::Duration::from_secs(60);
    node.backends.hotset.fill_session(&hash(&user.sid), stale, ttl).await.unwrap();
    assert_eq!(verify(&node, &[&user.sid], false).await, [""]);
}

#[tokio::test]
async fn a_revoked_row_is_seen_by_the_check_from_the_store() {
    let node = node().await;
    let user = node.user_named("ann", "a@x").await;
    assert_eq!(verify(&node, &[&user.sid], false).await, ["ann"]);
    node.backends.store.delete_session(hash(&user.sid)).await.unwrap();
    assert_eq!(verify(&node, &[&user.sid], true).await, [""]);
}

#[tokio::test]
async fn sessions_outlive_the_node_and_its_cache() {
    let node = node().await;
    let user = node.user_named("ann", "a@x").await;
    let node = node.reopen().await;
    assert_eq!(verify(&node, &[&user.sid], false).await, ["ann"]);
}

#[tokio::test]
async fn use_moves_the_expiry_at_most_once_an_hour() {
    let node = node().await;
    let user = node.user_named("ann", "a@x").await;
    let expiry = async || {
        let found = node.backends.store.sessions(&[hash(&user.sid)], now_ms()).await.unwrap();
        found[0].as_ref().unwrap().expires_ms
    };
    let fresh = expiry().await;
    assert!((fresh - now_ms() - DAY_MS).abs() < 60_000);
    verify(&node, &[&user.sid], true).await;
    assert_eq!(expiry().await, fresh, "used within the hour: nothing is written");

    // The same session as it stands an hour after its last use.
    for from_store in [true, false] {
        let sid = uuid::Uuid::new_v4().to_string();
        let hour_old = now_ms() + DAY_MS - 3_600_000;
        node.backends.store.put_session(hash(&sid), &user.id, hour_old).await.unwrap();
        assert_eq!(verify(&node, &[&sid], from_store).await, ["ann"]);
        let moved = node.backends.store.sessions(&[hash(&sid)], now_ms()).await.unwrap();
        let moved = moved[0].as_ref().unwrap().expires_ms;
        assert!((moved - now_ms() - DAY_MS).abs() < 60_000, "moved to {moved}");
    }
}

#[tokio::test]
async fn a_cached_session_is_extended_in_the_store_too() {
    use corecast_backends::hotset::{CachedSession, HotSet};
    let node = node().await;
    let user = node.user_named("ann", "a@x").await;
    let sid = uuid::Uuid::new_v4().to_string();
    let soon = now_ms() + DAY_MS / 2;
    node.backends.store.put_session(hash(&sid), &user.id, soon).await.unwrap();
    let cached = CachedSession {
        user_id: user.id.clone(),
        username: "ann".into(),
        email: "a@x".into(),
        expires_ms: soon,
    };
    let ttl = std::time::Duration::from_secs(60);
    node.backends.hotset.fill_session(&hash(&sid), cached, ttl).await.unwrap();
    let from_store = "corecast_logic_verified_sessions_total{source=\"store\"}";
    let before = node.metric(from_store);
    for _ in 0..5 {
        assert_eq!(verify(&node, &[&sid], false).await, ["ann"]);
    }
    let found = node.backends.store.sessions(&[hash(&sid)], now_ms()).await.unwrap();
    assert!(found[0].as_ref().unwrap().expires_ms > soon);
    assert_eq!(node.metric(from_store) - before, 1.0, "once an hour, not at each use");
}

#[tokio::test]
async fn a_session_that_ended_is_invalid() {
    let node = node().await;
    let user = node.user_named("ann", "a@x").await;
    let sid = uuid::Uuid::new_v4().to_string();
    node.backends.store.put_session(hash(&sid), &user.id, now_ms() - 1).await.unwrap();
    for from_store in [false, true] {
        assert_eq!(verify(&node, &[&sid], from_store).await, [""]);
    }
}
