//! [`AnyStore`] answers by asking the store that was chosen at start.

use corecast_proto::ids::{Position, RoomId};

use super::*;

macro_rules! delegate {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        impl Store for AnyStore {
            $(async fn $name(&self, $($argument: $kind),*) -> $answer {
                match self {
                    Self::Sqlite(store) => store.$name($($argument),*).await,
                    #[cfg(feature = "mysql")]
                    Self::Mysql(store) => store.$name($($argument),*).await,
                }
            })*

            fn pool(&self) -> Option<PoolUse> {
                match self {
                    Self::Sqlite(store) => store.pool(),
                    #[cfg(feature = "mysql")]
                    Self::Mysql(store) => store.pool(),
                }
            }
        }
    };
}

delegate! {
    fn create_user(user: NewUser) -> Result<CreateUser, StoreError>;
    fn user_by_email(email_folded: &str) -> Result<Option<User>, StoreError>;
    fn user(user_id: &str) -> Result<Option<User>, StoreError>;
    fn put_session(hash: SessionHash, user_id: &str, expires_ms: i64) -> Result<(), StoreError>;
    fn sessions(hashes: &[SessionHash], now_ms: i64) -> Result<Vec<Option<Session>>, StoreError>;
    fn extend_session(hash: SessionHash, expires_ms: i64) -> Result<(), StoreError>;
    fn delete_session(hash: SessionHash) -> Result<(), StoreError>;
    fn delete_expired_sessions(now_ms: i64) -> Result<u64, StoreError>;
    fn seed_rooms(rooms: &[SeedRoom]) -> Result<(), StoreError>;
    fn create_room(room: NewRoom) -> Result<CreateRoom, StoreError>;
    fn room(room_id: &str) -> Result<Option<Room>, StoreError>;
    fn rooms() -> Result<Vec<Room>, StoreError>;
    fn commit(frames: Vec<CommitFrame>) -> Result<Vec<FrameOutcome>, StoreError>;
    fn snapshot(query: SnapshotQuery) -> Result<Snapshot, StoreError>;
    fn heads(room_ids: &[RoomId], defaults: bool) -> Result<Vec<Head>, StoreError>;
    fn messages_before(room_id: &str, before: u64, count: u32) -> Result<Option<Page>, StoreError>;
    fn messages_after(
        room_id: &str,
        after: u64,
        up_to: u64,
        count: u32,
        max_bytes: usize
    ) -> Result<Option<Page>, StoreError>;
    fn creations_after(after: u64, up_to: u64, count: u32) -> Result<(Position, Vec<Room>), StoreError>;
    fn append_outbox(record: OutboxRecord) -> Result<u64, StoreError>;
    fn outbox(owner: &str, after: u64, limit: u32) -> Result<Vec<OutboxRow>, StoreError>;
    fn outbox_changed() -> ();
    fn delete_outbox(ids: Vec<u64>) -> Result<(), StoreError>;
    fn outbox_owners() -> Result<Vec<OutboxOwner>, StoreError>;
    fn claim_outbox(owner: &str, claimant: &str, limit: u32) -> Result<u64, StoreError>;
    fn put_dead_letter(letter: DeadLetter) -> Result<(), StoreError>;
    fn dead_letters(limit: u32) -> Result<Vec<DeadLetter>, StoreError>;
    fn new_epoch(now_ms: u64) -> Result<u64, StoreError>;
}

impl AnyStore {
    /// Finishes what was handed over, tidies the files and gives the data folder free. Other
    /// handles answer [`StoreError::Unavailable`] from then on.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            #[cfg(feature = "mysql")]
            Self::Mysql(store) => store.close().await,
        }
    }
}
