//! What the tasks of the control side share.

use std::sync::Arc;

use corecast_proto::close::CloseCode;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connections::Connections;
use super::cores::Cores;
use super::forward::ForwardLog;
use super::hub::Hub;
use super::logic_client::LogicClient;
use super::metrics::Metrics;
use super::routes::Routes;
use super::verify::Verifier;
use crate::config::Limits;
use crate::core::handshake::Rules;
use crate::core::{Command, ConnId};

/// One per gateway.
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) rules: Rules,
    pub(super) logic: LogicClient,
    pub(super) hub: Hub,
    pub(super) verifier: Verifier,
    pub(super) cores: Cores,
    pub(super) connections: Connections,
    pub(super) routes: Arc<Routes>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) forward_log: ForwardLog,
    /// Workers of connections: a drain waits for them.
    pub(super) workers: TaskTracker,
    /// Ends everything that serves.
    pub(super) stop: CancellationToken,
}

impl Shared {
    /// Ends a connection after what is queued for it was written.
    pub(super) async fn close(&self, conn: ConnId, code: CloseCode, reason: &'static str) {
        self.cores.queue(conn.shard, Command::Close { conn, code, reason }).await;
    }
}
