//! Tables and versions.

use corecast_backends::store::mysql::{SCHEMA_VERSION, inspect, migrate};
use corecast_backends::store::*;

use super::Database;
use crate::store::{all_messages, frame, seeded, send};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrating_makes_the_database_and_done_again_changes_nothing() {
    let Some(database) = Database::unmigrated() else { return };
    let first = migrate(&database.url).await.expect("migrates");
    assert_eq!((first.from, first.to, first.durability.fault()), (None, SCHEMA_VERSION, None));
    let store = database.store();
    seeded(&store, &["a"]).await;
    send(&store, frame("a", "u", &[("1", "x")])).await;
    let rooms = store.rooms().await.expect("reads");
    let second = migrate(&database.url).await.expect("migrates");
    assert_eq!((second.from, second.to), (Some(SCHEMA_VERSION), SCHEMA_VERSION));
    assert_eq!(store.rooms().await.expect("reads"), rooms);
    assert_eq!(all_messages(&store, "a").await.len(), 1);
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_was_cut_short_is_made_again() {
    let Some(database) = Database::new().await else { return };
    database.run("DELETE FROM schema_versions; DROP TABLE outbox; DROP TABLE dead_letters").await;
    let again = migrate(&database.url).await.expect("migrates");
    assert_eq!((again.from, again.to), (None, SCHEMA_VERSION));
    let store = database.store();
    assert_eq!(store.outbox("x", 0, 1).await.expect("reads"), []);
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_version_is_refused_until_it_is_migrated_and_keeps_its_rows() {
    let Some(database) = Database::new().await else { return };
    let store = database.store();
    seeded(&store, &["a"]).await;
    send(&store, frame("a", "u", &[("1", "x")])).await;
    store.close().await;
    database.run("UPDATE schema_versions SET version = 1; DROP TABLE barriers").await;
    let store = database.store();
    let refused = store.rooms().await;
    assert!(
        matches!(&refused, Err(StoreError::Fatal(why)) if why.contains("corecast migrate")),
        "{refused:?}"
    );
    let migrated = migrate(&database.url).await.expect("migrates");
    assert_eq!((migrated.from, migrated.to), (Some(1), SCHEMA_VERSION));
    assert_eq!(all_messages(&store, "a").await.len(), 1);
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_migrations_at_once_do_not_meet() {
    let Some(database) = Database::unmigrated() else { return };
    let all = (0..4).map(|_| migrate(&database.url));
    for migrated in futures::future::join_all(all).await {
        assert_eq!(migrated.expect("migrates").to, SCHEMA_VERSION);
    }
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tables_every_call_names_the_command_that_makes_them() {
    let Some(database) = Database::unmigrated() else { return };
    let absent = database.store();
    let refused = absent.rooms().await;
    assert!(
        matches!(&refused, Err(StoreError::Fatal(why)) if why.contains("corecast migrate")),
        "{refused:?}"
    );
    migrate(&database.url).await.expect("migrates");
    // The same store goes on as soon as they are there.
    assert_eq!(absent.rooms().await.expect("reads"), []);
    database.run("DROP TABLE schema_versions").await;
    let empty = database.store();
    let refused = empty.rooms().await;
    assert!(
        matches!(&refused, Err(StoreError::Fatal(why)) if why.contains("corecast migrate")),
        "{refused:?}"
    );
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_newer_version_is_refused_and_left_as_it_is() {
    let Some(database) = Database::new().await else { return };
    let newer = SCHEMA_VERSION + 1;
    database.run(&format!("INSERT INTO schema_versions VALUES ({newer}, 1)")).await;
    let refused = migrate(&database.url).await;
    assert!(
        matches!(&refused, Err(StoreError::Fatal(why)) if why.contains(&format!("version {newer}"))),
        "{refused:?}"
    );
    let store = database.store();
    let refused = store.rooms().await;
    assert!(
        matches!(&refused, Err(StoreError::Fatal(why)) if why.contains(&format!("version {newer}"))),
        "{refused:?}"
    );
    let found = inspect(&database.url).await.expect("answers");
    assert_eq!((found.schema, found.schema_wanted), (Some(newer), SCHEMA_VERSION));
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_at_the_server_tells_what_matters() {
    let Some(database) = Database::unmigrated() else { return };
    assert!(matches!(inspect(&database.url).await, Err(StoreError::Fatal(_))), "no database yet");
    migrate(&database.url).await.expect("migrates");
    let found = inspect(&database.url).await.expect("answers");
    assert_eq!((found.schema, &*found.isolation), (Some(SCHEMA_VERSION), "READ-COMMITTED"));
    assert_eq!(found.durability.flush_log, 1, "the tests run on a durable server");
    assert!(found.clock_ahead_ms.abs() < 1_000, "the same machine: {} ms", found.clock_ahead_ms);
    database.run("DROP TABLE schema_versions").await;
    assert_eq!(inspect(&database.url).await.expect("answers").schema, None);
    database.drop().await;
}
