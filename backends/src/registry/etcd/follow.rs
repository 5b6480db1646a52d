//! The watched set of a role: a full read, then its changes.
//!
//! After a compaction, a lost connection or an etcd that was made anew everything is read
//! again. In between the last set stays: nobody leaves because nobody could be asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, EventType, GetOptions, KeyValue, WatchOptions, WatchResponse};
use tokio::sync::watch;
use tokio::time::{Instant, interval_at, sleep};
use tracing::{info, warn};

use super::Entry;
use super::endpoints::{Connection, Endpoints, Failure};
use crate::registry::{Node, Role};

/// First and longest pause after a failure; jitter takes off up to half.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A silent watch proves nothing: everything is read again this often, which also finds out
/// that etcd cannot be reached.
const REREAD: Duration = Duration::from_secs(10);

/// Everything under a prefix, as of a revision.
struct Set {
    revision: i64,
    nodes: BTreeMap<String, String>,
}

/// Tells the set of `role` under `prefix` until nobody listens.
pub(super) async fn follow(
    endpoints: Arc<Endpoints>,
    role: Role,
    prefix: String,
    seen: watch::Sender<Option<Vec<Node>>>,
) {
    let follower = Follower { endpoints, role, prefix, seen };
    tokio::select! {
        () = follower.seen.closed() => {}
        () = follower.drive() => {}
    }
}

struct Follower {
    endpoints: Arc<Endpoints>,
    role: Role,
    prefix: String,
    seen: watch::Sender<Option<Vec<Node>>>,
}

impl Follower {
    async fn drive(&self) {
        let mut pause = PAUSE_MIN;
        let mut told = false;
        loop {
            let mut answered = false;
            let failure = match self.endpoints.connection().await {
                Ok(connection) => {
                    let failure = self.session(&connection, &mut told, &mut answered).await;
                    self.endpoints.leave(&connection);
                    failure
                }
                Err(failure) => failure,
            };
            if answered {
                pause = PAUSE_MIN;
            }
            if !std::mem::replace(&mut told, true) {
                warn!(role = self.role.name(), %failure, "registry lost, its last answer is kept");
            }
            sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// From a full read to the failure that ends it.
    async fn session(&self, connection: &Connection, told: &mut bool, answered: &mut bool) -> Failure {
        let ended = self.session_inner(&connection.client, told, answered).await;
        ended.map_or_else(|failure| failure, Failure::Broken)
    }

    async fn session_inner(
        &self,
        client: &Client,
        told: &mut bool,
        answered: &mut bool,
    ) -> Result<&'static str, Failure> {
        let mut set = self.read(client).await?;
        self.tell(&set);
        *answered = true;
        if std::mem::take(told) {
            info!(role = self.role.name(), nodes = set.nodes.len(), "registry answers again");
        }
        let options = WatchOptions::new().with_prefix().with_start_revision(set.revision + 1);
        let mut watches = client.watch_client();
        let mut changes = self.endpoints.in_time(watches.watch(self.prefix.as_str(), Some(options))).await?;
        let mut reread = interval_at(Instant::now() + REREAD, REREAD);
        loop {
            tokio::select! {
                change = changes.message() => match change? {
                    None => return Ok("the watch ended"),
                    Some(change) if change.compact_revision() > 0 => return Ok("what was watched is compacted"),
                    Some(change) if change.canceled() => return Ok("etcd ended the watch"),
                    Some(change) => self.apply(&mut set, &change),
                },
                _ = reread.tick() => {
                    let fresh = self.read(client).await?;
                    if fresh.revision < set.revision {
                        // The watch waits for numbers that may never come.
                        return Ok("etcd was made anew");
                    }
                    set = fresh;
                }
            }
            self.tell(&set);
        }
    }

    async fn read(&self, client: &Client) -> Result<Set, Failure> {
        let mut kv = client.kv_client();
        let read = kv.get(self.prefix.as_str(), Some(GetOptions::new().with_prefix()));
        let answer = self.endpoints.in_time(read).await?;
        let header = answer.header().ok_or(Failure::Broken("an answer without a revision"))?;
        let revision = header.revision();
        let nodes = answer.kvs().iter().filter_map(|entry| self.node(entry)).collect();
        Ok(Set { revision, nodes })
    }

    fn apply(&self, set: &mut Set, change: &WatchResponse) {
        for event in change.events() {
            // The last full read had it already.
            let Some(entry) = event.kv().filter(|entry| entry.mod_revision() > set.revision) else {
                continue;
            };
            match event.event_type() {
                EventType::Put => set.nodes.extend(self.node(entry)),
                EventType::Delete => drop(self.id(entry).and_then(|id| set.nodes.remove(&id))),
            }
        }
        // Not raised event by event: several may carry one revision.
        let newest = change.events().iter().filter_map(|event| event.kv()).map(KeyValue::mod_revision).max();
        set.revision = set.revision.max(newest.unwrap_or(0));
    }

    fn node(&self, entry: &KeyValue) -> Option<(String, String)> {
        let id = self.id(entry)?;
        let read = Entry::read(&format!("{}{id}", self.prefix), entry.value())?;
        Some((id, read.grpc_addr))
    }

    fn id(&self, entry: &KeyValue) -> Option<String> {
        let key = entry.key_str().ok()?;
        key.strip_prefix(&self.prefix).filter(|id| !id.is_empty()).map(str::to_owned)
    }

    fn tell(&self, set: &Set) {
        let nodes =
            set.nodes.iter().map(|(id, grpc_addr)| Node { id: id.clone(), grpc_addr: grpc_addr.clone() });
        let nodes = Some(nodes.collect::<Vec<_>>());
        self.seen.send_if_modified(|seen| {
            let is_new = *seen != nodes;
            *seen = nodes;
            is_new
        });
    }
}
