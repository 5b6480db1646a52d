//! Accounts and sessions.

use corecast_backends::store::*;

use super::{NOW_MS, on_every_store};

on_every_store!(
    a_created_user_is_found_by_id_and_by_email,
    an_unknown_user_is_none,
    folded_names_and_emails_are_unique,
    when_both_are_taken_the_username_is_reported,
    a_refused_user_leaves_nothing_behind,
    sessions_answer_in_the_order_asked,
    a_session_ends_at_its_expiry,
    the_same_hash_replaces_the_session,
    extending_never_shortens,
    extending_never_brings_a_deleted_session_back,
    deleting_an_absent_session_is_ok,
    only_expired_sessions_are_deleted_in_bulk,
    text_of_accounts_is_compared_byte_by_byte,
);

fn user(id: &str, name: &str, email: &str) -> NewUser {
    NewUser {
        user_id: id.to_owned(),
        username: name.to_owned(),
        username_folded: name.to_lowercase(),
        email: email.to_owned(),
        email_folded: email.to_lowercase(),
        password_hash: format!("$hash of {id}"),
        salt: "salt".to_owned(),
        now_ms: NOW_MS,
    }
}

async fn ann<S: Store>(store: &S) {
    let created = store.create_user(user("u-ann", "Ann", "Ann@x.org")).await.expect("creates");
    assert_eq!(created, CreateUser::Created);
}

async fn a_created_user_is_found_by_id_and_by_email<S: Store>(store: S) {
    ann(&store).await;
    let expected = User {
        user_id: "u-ann".to_owned(),
        username: "Ann".to_owned(),
        email: "Ann@x.org".to_owned(),
        password_hash: "$hash of u-ann".to_owned(),
    };
    assert_eq!(store.user("u-ann").await.expect("reads"), Some(expected.clone()));
    assert_eq!(store.user_by_email("ann@x.org").await.expect("reads"), Some(expected));
}

async fn an_unknown_user_is_none<S: Store>(store: S) {
    assert_eq!(store.user("nobody").await.expect("reads"), None);
    assert_eq!(store.user_by_email("nobody@x.org").await.expect("reads"), None);
}

async fn folded_names_and_emails_are_unique<S: Store>(store: S) {
    ann(&store).await;
    let by_name = store.create_user(user("u2", "ANN", "other@x.org")).await.expect("answers");
    assert_eq!(by_name, CreateUser::UsernameExists);
    let by_email = store.create_user(user("u3", "Bob", "ANN@X.ORG")).await.expect("answers");
    assert_eq!(by_email, CreateUser::EmailExists);
    let neither = store.create_user(user("u4", "Bob", "bob@x.org")).await.expect("answers");
    assert_eq!(neither, CreateUser::Created);
}

async fn when_both_are_taken_the_username_is_reported<S: Store>(store: S) {
    ann(&store).await;
    let both = store.create_user(user("u2", "ann", "ann@x.org")).await.expect("answers");
    assert_eq!(both, CreateUser::UsernameExists);
}

async fn a_refused_user_leaves_nothing_behind<S: Store>(store: S) {
    ann(&store).await;
    store.create_user(user("u2", "ANN", "free@x.org")).await.expect("answers");
    assert_eq!(store.user("u2").await.expect("reads"), None);
    assert_eq!(store.user_by_email("free@x.org").await.expect("reads"), None);
}

fn hash(first: u8) -> SessionHash {
    let mut hash = [0; 32];
    hash[0] = first;
    hash
}

async fn expiry_of<S: Store>(store: &S, hash: SessionHash) -> Option<i64> {
    let sessions = store.sessions(&[hash], NOW_MS).await.expect("reads");
    sessions[0].as_ref().map(|session| session.expires_ms)
}

async fn sessions_answer_in_the_order_asked<S: Store>(store: S) {
    ann(&store).await;
    store.put_session(hash(1), "u-ann", NOW_MS + 1).await.expect("writes");
    store.put_session(hash(2), "u-ann", NOW_MS + 2).await.expect("writes");
    let found = store.sessions(&[hash(2), hash(9), hash(1)], NOW_MS).await.expect("reads");
    let expiries: Vec<_> = found.iter().map(|s| s.as_ref().map(|s| s.expires_ms - NOW_MS)).collect();
    assert_eq!(expiries, [Some(2), None, Some(1)]);
    let first = found[0].as_ref().expect("a session");
    assert_eq!((&*first.user_id, &*first.username, &*first.email), ("u-ann", "Ann", "Ann@x.org"));
}

async fn a_session_ends_at_its_expiry<S: Store>(store: S) {
    ann(&store).await;
    store.put_session(hash(1), "u-ann", NOW_MS).await.expect("writes");
    assert!(store.sessions(&[hash(1)], NOW_MS - 1).await.expect("reads")[0].is_some());
    assert!(store.sessions(&[hash(1)], NOW_MS).await.expect("reads")[0].is_none());
    assert!(store.sessions(&[hash(1)], NOW_MS + 1).await.expect("reads")[0].is_none());
}

async fn the_same_hash_replaces_the_session<S: Store>(store: S) {
    ann(&store).await;
    store.put_session(hash(1), "u-ann", NOW_MS + 50).await.expect("writes");
    store.put_session(hash(1), "u-ann", NOW_MS + 20).await.expect("writes");
    assert_eq!(expiry_of(&store, hash(1)).await, Some(NOW_MS + 20));
}

async fn extending_never_shortens<S: Store>(store: S) {
    ann(&store).await;
    store.put_session(hash(1), "u-ann", NOW_MS + 50).await.expect("writes");
    store.extend_session(hash(1), NOW_MS + 60).await.expect("writes");
    assert_eq!(expiry_of(&store, hash(1)).await, Some(NOW_MS + 60));
    store.extend_session(hash(1), NOW_MS + 40).await.expect("writes");
    assert_eq!(expiry_of(&store, hash(1)).await, Some(NOW_MS + 60));
}

async fn extending_never_brings_a_deleted_session_back<S: Store>(store: S) {
    ann(&store).await;
    store.put_session(hash(1), "u-ann", NOW_MS + 50).await.expect("writes");
    store.delete_session(hash(1)).await.expect("deletes");
    store.extend_session(hash(1), NOW_MS + 60).await.expect("writes");
    assert_eq!(expiry_of(&store, hash(1)).await, None);
}

async fn deleting_an_absent_session_is_ok<S: Store>(store: S) {
    store.delete_session(hash(7)).await.expect("no error");
}

async fn only_expired_sessions_are_deleted_in_bulk<S: Store>(store: S) {
    ann(&store).await;
    for n in 0..5 {
        store.put_session(hash(n), "u-ann", NOW_MS + i64::from(n)).await.expect("writes");
    }
    assert_eq!(store.delete_expired_sessions(NOW_MS + 2).await.expect("deletes"), 3);
    assert_eq!(store.delete_expired_sessions(NOW_MS + 2).await.expect("deletes"), 0);
    assert_eq!(expiry_of(&store, hash(3)).await, Some(NOW_MS + 3));
}

async fn text_of_accounts_is_compared_byte_by_byte<S: Store>(store: S) {
    // Alike under many collations: accents, trailing space, width, sharp s.
    let alike = ["e", "é", "e\u{301}", "e ", "ｅ", "ß", "ss", "a\0b", "a"];
    for (n, name) in alike.iter().enumerate() {
        let created = store.create_user(user(&format!("u{n}"), name, &format!("{name}@x"))).await;
        assert_eq!(created.expect("creates"), CreateUser::Created, "{name:?}");
    }
    for (n, name) in alike.iter().enumerate() {
        let found = store.user_by_email(&format!("{name}@x")).await.expect("reads").expect("exists");
        assert_eq!((found.user_id, &*found.username), (format!("u{n}"), *name));
    }
}
