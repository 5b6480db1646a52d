//! The store: fixtures, and the list of stores.

mod accounts;
mod commit;
#[cfg(feature = "mysql")]
mod mysql;
mod outbox;
mod read;
mod rooms;
mod snapshot;
mod sqlite;
mod sqlite_crash;

use bytes::Bytes;
use corecast_backends::store::*;
use corecast_backends::url::open_store;
use corecast_proto::ids::RoomId;
use corecast_proto::job::PushMsg;
use prost::Message as _;

/// Makes a test of each case on each store. A new store is one more module here.
macro_rules! on_every_store {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (store, _folder) = crate::store::sqlite_store().await;
                super::$case(store.clone()).await;
                store.close().await;
            })*
        }

        #[cfg(feature = "mysql")]
        mod mysql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(database) = crate::store::mysql::Database::new().await else { return };
                let store = database.open().await;
                super::$case(store.clone()).await;
                store.close().await;
                database.drop().await;
            })*
        }
    };
}
pub(crate) use on_every_store;

/// A new embedded store in a folder that goes when the second value is dropped.
pub(crate) async fn sqlite_store() -> (AnyStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open_store("sqlite:store.db", folder.path()).await.expect("a new store opens");
    (store, folder)
}

/// When the fixtures say "now".
pub(crate) const NOW_MS: i64 = 1_700_000_000_000;
/// First epoch of the fixtures' rooms.
pub(crate) const EPOCH: u64 = 1_700_000_000_000;
/// Who relays the fixtures' rows.
pub(crate) const OWNER: &str = "node";

pub(crate) fn seed(id: &str) -> SeedRoom {
    SeedRoom { id: id.to_owned(), name: format!("name of {id}"), epoch: EPOCH, now_ms: NOW_MS }
}

/// Makes default rooms with these ids.
pub(crate) async fn seeded<S: Store>(store: &S, ids: &[&str]) {
    let seeds: Vec<_> = ids.iter().map(|id| seed(id)).collect();
    store.seed_rooms(&seeds).await.expect("seeds");
}

pub(crate) fn new_room(name: &str) -> NewRoom {
    NewRoom {
        id: format!("id of {name}"),
        name: name.to_owned(),
        creator_id: "creator".to_owned(),
        creator_username: "Ann".to_owned(),
        kind: RoomKind::Public,
        default_max: 256,
        default_overflow: RoomKind::Public,
        key: format!("key of {name}"),
        epoch: EPOCH,
        now_ms: NOW_MS,
        owner: OWNER.to_owned(),
        frame: |room| Bytes::from(format!("{}|{}|{:?}|{:?}", room.id, room.name, room.kind, room.global_seq)),
    }
}

/// A frame of `user` with one message per (key, content).
pub(crate) fn frame(room: &str, user: &str, messages: &[(&str, &str)]) -> CommitFrame {
    let message =
        |(key, content): &(&str, &str)| NewMessage { key: (*key).to_owned(), content: (*content).to_owned() };
    CommitFrame {
        room_id: RoomId::from(room),
        user_id: user.to_owned(),
        username: format!("name of {user}"),
        messages: messages.iter().map(message).collect(),
        owner: OWNER.to_owned(),
    }
}

/// Commits one frame and answers where its messages lie.
pub(crate) async fn send<S: Store>(store: &S, frame: CommitFrame) -> Vec<StoredMessage> {
    let outcomes = store.commit(vec![frame]).await.expect("commits");
    stored(&outcomes[0]).to_vec()
}

/// Sends `count` messages of this many bytes, one frame each.
pub(crate) async fn send_many<S: Store>(store: &S, room: &str, count: u64, bytes: usize) {
    let content = "x".repeat(bytes);
    let frames = (0..count).map(|n| frame(room, "filler", &[(&format!("{n}-{bytes}"), &content)]));
    store.commit(frames.collect()).await.expect("commits");
}

pub(crate) fn stored(outcome: &FrameOutcome) -> &[StoredMessage] {
    match outcome {
        FrameOutcome::Stored { messages, .. } => messages,
        other => panic!("not stored: {other:?}"),
    }
}

pub(crate) fn rows_of(outcome: &FrameOutcome) -> &[OutboxRow] {
    match outcome {
        FrameOutcome::Stored { outbox, .. } => outbox,
        FrameOutcome::UnknownRoom | FrameOutcome::Refused(_) => &[],
    }
}

pub(crate) fn seqs(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.id.seq).collect()
}

pub(crate) fn push_of(row: &OutboxRow) -> PushMsg {
    PushMsg::decode(&row.value[..]).expect("a row holds a PushMsg")
}

/// All messages of a room.
pub(crate) async fn all_messages<S: Store>(store: &S, room: &str) -> Vec<Message> {
    let page = store.messages_after(room, 0, u64::MAX, u32::MAX, usize::MAX).await.expect("reads");
    page.expect("the room exists").messages
}
