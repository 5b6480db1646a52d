//! From the 101 to the open connection.
//!
//! ```text
//!  Upgraded ─▶ verify ──invalid──▶ close 1008        (the browser goes to the login page)
//!                │ └──no answer──▶ close 1013        (it comes back: an outage logs nobody out)
//!                ▼
//!            corecast.v1: wait ≤ resume_ms for the first frame
//!                ▼
//!            too many of its user (of its address: before verify) ─▶ close 4429
//!                ▼
//!            hub.open: hello and all memberships ─▶ worker: what arrived meanwhile
//! ```

use std::sync::Arc;
use std::time::Duration;

use corecast_proto::close::CloseCode;
use corecast_proto::frame::{ClientFrame, RoomCursor};
use tokio::time::Instant;
use tracing::debug;

use super::hub::JoinError;
use super::recheck::close_session;
use super::requests::Worker;
use super::shared::Shared;
use crate::core::{Command, ConnId, Session, UpgradeRequest};

/// How an attempt ended, for the counter.
enum Outcome {
    Open(Worker),
    Close(CloseCode, &'static str, &'static str),
    Gone,
}

/// Opens a connection or closes it, then works on what it sent meanwhile.
/// `admitted`: its address has no more connections than it may.
pub(super) async fn connect(shared: Arc<Shared>, conn: ConnId, request: UpgradeRequest, admitted: bool) {
    let outcome = if admitted {
        open(&shared, conn, &request).await
    } else {
        Outcome::Close(CloseCode::TooMany, "too many connections of this address", "address_full")
    };
    match outcome {
        Outcome::Open(worker) => {
            shared.metrics.connects.with_label_values(&["open"]).inc();
            worker.run().await;
        }
        Outcome::Close(code, reason, outcome) => {
            shared.metrics.connects.with_label_values(&[outcome]).inc();
            debug!(?conn, code = code.number(), reason, "connection not opened");
            abandon(&shared, conn);
            shared.close(conn, code, reason).await;
        }
        Outcome::Gone => {
            shared.metrics.connects.with_label_values(&["gone"]).inc();
            abandon(&shared, conn);
        }
    }
}

fn abandon(shared: &Shared, conn: ConnId) {
    if let Some(session) = shared.connections.abandon(conn) {
        shared.routes.disconnected(session.user_id());
    }
}

async fn open(shared: &Arc<Shared>, conn: ConnId, request: &UpgradeRequest) -> Outcome {
    let upgraded = Instant::now();
    let Some(sid) = &request.sid else {
        return Outcome::Close(CloseCode::Unauthenticated, "no session cookie", "no_cookie");
    };
    let session = match shared.verifier.verify(sid).await {
        Ok(Some(found)) => Arc::new(Session::new(sid, &found.user_id, &found.username)),
        Ok(None) => {
            return Outcome::Close(CloseCode::Unauthenticated, "session is not valid", "invalid_session");
        }
        Err(_) => return Outcome::Close(CloseCode::TryLater, "logic cannot be asked", "logic_away"),
    };
    let resume = if request.v1 { first_frame(shared, conn, upgraded).await } else { None };
    // Before it counts as open, so that its close never comes first.
    if !shared.routes.connected(session.user_id(), shared.limits.user_connections) {
        return Outcome::Close(CloseCode::TooMany, "too many connections of this user", "user_full");
    }
    if !shared.connections.opened(conn, session.clone()) {
        shared.routes.disconnected(session.user_id());
        return Outcome::Gone;
    }
    let resumed = resume.is_some();
    match shared.hub.open(conn, session.clone(), resume.unwrap_or_default()).await {
        Ok(()) => {
            if shared.logouts.contains(sid) {
                close_session(shared, sid).await;
            }
            if resumed {
                let settle = Command::Reply { conn, frames: Vec::new(), settled: 1 };
                shared.cores.queue(conn.shard, settle).await;
            }
            Outcome::Open(Worker::new(shared.clone(), conn, session, request.v1))
        }
        Err(JoinError::Full) => Outcome::Close(CloseCode::TryLater, "core is overloaded", "core_full"),
        Err(JoinError::Unavailable | JoinError::UnknownRoom | JoinError::TooMany) => {
            Outcome::Close(CloseCode::TryLater, "logic cannot be asked", "logic_away")
        }
    }
}

/// The cursors of a `resume` that is the first frame, which is then settled. Any other
/// first frame stays where it is and is answered after hello, like everything when no
/// frame comes in time.
async fn first_frame(shared: &Shared, conn: ConnId, upgraded: Instant) -> Option<Vec<RoomCursor>> {
    let until = upgraded + Duration::from_millis(shared.limits.resume_ms);
    let text = tokio::time::timeout_at(until, shared.connections.first_text(conn)).await.ok()??;
    let Ok(ClientFrame::Resume { rooms }) = ClientFrame::decode(&text) else { return None };
    shared.connections.drop_first(conn);
    Some(rooms)
}
