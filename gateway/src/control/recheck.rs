//! Sessions end elsewhere too: on another gateway, by an operator. Every
//! `session_check_ms` the open ones are compared with the store, and the connections of
//! those it no longer knows are closed. An outage logs nobody out: no answer, no close.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use corecast_proto::logic as pb;
use tracing::{info, warn};

use super::shared::Shared;
use super::verify::complete;
use crate::core::Command;

/// Sessions in one call.
const BATCH: usize = 500;

/// Checks until the gateway stops.
pub(super) async fn recheck(shared: Arc<Shared>) {
    let period = Duration::from_millis(shared.limits.session_check_ms);
    loop {
        // Not every gateway at the same moment.
        let pause = period.mul_f64(rand::random_range(0.9..1.0));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.stop.cancelled() => return,
        }
        check(&shared).await;
        shared.routes.tell_all();
    }
}

async fn check(shared: &Shared) {
    let sessions = shared.connections.sessions();
    let sids: HashSet<&str> = sessions.iter().map(|session| session.sid()).collect();
    let sids: Vec<&str> = sids.into_iter().collect();
    for batch in sids.chunks(BATCH) {
        let request =
            pb::VerifyRequest { sids: batch.iter().map(|&sid| sid.to_owned()).collect(), from_store: true };
        let answer = shared.logic.verify(request).await.and_then(|reply| complete(reply, batch.len()));
        let known = match answer {
            Ok(known) => known,
            Err(error) => {
                warn!(%error, "open sessions not checked");
                return;
            }
        };
        for (sid, session) in batch.iter().zip(known) {
            if !session.valid {
                shared.metrics.sessions_revoked.inc();
                info!("a session is over: its connections are closed");
                close_session(shared, sid).await;
            }
        }
    }
}

/// Closes every connection of a session here: 4501 with `corecast.v1`, 1008 without.
pub(super) async fn close_session(shared: &Shared, sid: &str) {
    // A connection that is still on its way in would miss the command.
    shared.logouts.remember(sid);
    let sid: Arc<str> = sid.into();
    for shard in 0..shared.cores.count() {
        let shard = u16::try_from(shard).expect("shards are numbered by u16");
        shared.cores.queue(shard, Command::CloseSession { sid: sid.clone() }).await;
    }
}
