//! The one reader of what the shards tell: decides who deals with an event and goes on.
//! Nothing here waits, so a slow logic node or hub never holds back the next event.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::connect::connect;
use super::connections::Arrival;
use super::http::PlainHttp;
use super::requests::Worker;
use super::shared::Shared;
use crate::core::Event;

/// Events taken at a time.
const BATCH: usize = 256;

/// Reads events until every shard has ended. `drained` counts shards whose last connection
/// is closed.
pub(super) async fn dispatch(
    shared: Arc<Shared>,
    http: Arc<PlainHttp>,
    mut events: mpsc::UnboundedReceiver<Event>,
    drained: watch::Sender<usize>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while events.recv_many(&mut batch, BATCH).await > 0 {
        for event in batch.drain(..) {
            handle(&shared, &http, &drained, event);
        }
    }
}

fn handle(shared: &Arc<Shared>, http: &Arc<PlainHttp>, drained: &watch::Sender<usize>, event: Event) {
    match event {
        Event::Upgraded { conn, request } => {
            // An echo connection has no session and asks nothing.
            if !request.echo {
                shared.connections.begin(conn);
                // Here, where it never comes behind the end.
                let admitted = shared.addresses.enter(conn, request.peer);
                spawn(shared, connect(shared.clone(), conn, request, admitted));
            }
        }
        Event::Text { conn, session, text, v1 } => {
            if let Arrival::Start(session) = shared.connections.text(conn, session, text) {
                let worker = Worker::new(shared.clone(), conn, session, v1);
                spawn(shared, worker.run());
            }
        }
        Event::Lagging { .. } | Event::Left { .. } | Event::Stale { .. } => shared.hub.event(event),
        Event::Closed { conn, .. } => {
            shared.addresses.leave(conn);
            if let Some(session) = shared.connections.closed(conn) {
                shared.routes.disconnected(session.user_id());
            }
            shared.hub.event(event);
        }
        Event::Http { fd, read, peer } => http.serve(fd, read, peer),
        Event::Drained { .. } => drained.send_modify(|count| *count += 1),
    }
}

/// A worker that a drain waits for, and that ends with the gateway.
fn spawn(shared: &Shared, worker: impl Future<Output = ()> + Send + 'static) {
    let stop = shared.stop.clone();
    shared.workers.spawn(async move {
        stop.run_until_cancelled_owned(worker).await;
    });
}
