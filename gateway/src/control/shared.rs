//! What the tasks of the control side share.

use std::sync::Arc;

use corecast_proto::close::CloseCode;
use corecast_proto::ids::RoomId;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::addresses::Addresses;
use super::connections::Connections;
use super::cores::Cores;
use super::forward::ForwardLog;
use super::hub::Hub;
use super::logic_client::LogicClient;
use super::logouts::RecentLogouts;
use super::metrics::Metrics;
use super::routes::Routes;
use super::verify::Verifier;
use crate::config::Limits;
use crate::core::handshake::Rules;
use crate::core::{Command, ConnId, Target};

/// One per gateway.
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) rules: Rules,
    pub(super) logic: LogicClient,
    pub(super) hub: Hub,
    pub(super) verifier: Verifier,
    pub(super) cores: Cores,
    pub(super) connections: Connections,
    pub(super) addresses: Addresses,
    pub(super) logouts: RecentLogouts,
    pub(super) routes: Arc<Routes>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) forward_log: ForwardLog,
    /// Workers of connections: a drain waits for them.
    pub(super) workers: TaskTracker,
    /// Ends everything that serves.
    pub(super) stop: CancellationToken,
}

impl Shared {
    /// Who an unnumbered push to a room reaches. A shard knows a default room only from its
    /// first frame on; its members are everybody.
    pub(super) fn room_target(&self, room_id: RoomId) -> Target {
        if self.hub.is_default(&room_id) { Target::All { per_second: 0 } } else { Target::Room(room_id) }
    }

    /// Ends a connection after what is queued for it was written.
    pub(super) async fn close(&self, conn: ConnId, code: CloseCode, reason: &'static str) {
        self.cores.queue(conn.shard, Command::Close { conn, code, reason }).await;
    }
}
